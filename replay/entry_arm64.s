#include "textflag.h"

// plash_entry is where the kernel enters the program, if the linker was told so. The
// stack is the kernel's, which begins with argc and is aligned as Go wants it.
TEXT plash_entry(SB), NOSPLIT|NOFRAME, $0
	MOVD	$bareCall<>(SB), R0
	MOVD	R0, ·syscall6(SB)
	// What Go's functions find in registers (cmd/compile/abi-internal.md): g, the
	// closure that is called, and arguments, for which the caller has room.
	MOVD	RSP, R0
	MOVD	$noG<>(SB), g
	MOVD	·beforeGo(SB), R26
	MOVD	(R26), R3
	SUB	$32, RSP
	BL	(R3)
	ADD	$32, RSP
	B	_rt0_arm64_linux(SB)

// noG is the g of no goroutine. Its stackguard0 is zero: the stack is never too small.
GLOBL noG<>(SB), NOPTR, $512

DATA bareCall<>+0(SB)/8, $bareSyscall<>(SB)
GLOBL bareCall<>(SB), RODATA, $8

// bareSyscall is goSyscall with all its arguments in registers, as a closure is called.
TEXT bareSyscall<>(SB), NOSPLIT|NOFRAME, $0
	MOVD	R0, R8
	MOVD	R1, R0
	MOVD	R2, R1
	MOVD	R3, R2
	MOVD	R4, R3
	MOVD	R5, R4
	MOVD	R6, R5
	SVC
	RET

// func goSyscall(number, a, b, c, d, e, f uintptr) uintptr
TEXT ·goSyscall(SB), NOSPLIT, $0-64
	MOVD number+0(FP), R8
	MOVD a+8(FP), R0
	MOVD b+16(FP), R1
	MOVD c+24(FP), R2
	MOVD d+32(FP), R3
	MOVD e+40(FP), R4
	MOVD f+48(FP), R5
	SVC
	MOVD R0, ret+56(FP)
	RET
