#include "textflag.h"

// plash_entry is where the kernel enters the program, if the linker was told so. The
// stack is the kernel's, which begins with argc and is aligned as Go wants it.
TEXT plash_entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ	$bareCall<>(SB), AX
	MOVQ	AX, ·syscall6(SB)
	// What Go's functions find in registers (cmd/compile/abi-internal.md): g, X15 = 0,
	// the closure that is called, and arguments, for which the caller has room.
	MOVQ	SP, AX
	LEAQ	noG<>(SB), R14
	XORPS	X15, X15
	MOVQ	·beforeGo(SB), DX
	MOVQ	(DX), CX
	SUBQ	$16, SP
	CALL	CX
	ADDQ	$16, SP
	JMP	_rt0_amd64_linux(SB)

// noG is the g of no goroutine. Its stackguard0 is zero: the stack is never too small.
GLOBL noG<>(SB), NOPTR, $512

DATA bareCall<>+0(SB)/8, $bareSyscall<>(SB)
GLOBL bareCall<>(SB), RODATA, $8

// bareSyscall is goSyscall with all its arguments in registers, as a closure is called.
TEXT bareSyscall<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ	DI, DX
	MOVQ	SI, R10
	MOVQ	BX, DI
	MOVQ	CX, SI
	SYSCALL
	RET

// func goSyscall(number, a, b, c, d, e, f uintptr) uintptr
TEXT ·goSyscall(SB), NOSPLIT, $0-64
	MOVQ number+0(FP), AX
	MOVQ a+8(FP), DI
	MOVQ b+16(FP), SI
	MOVQ c+24(FP), DX
	MOVQ d+32(FP), R10
	MOVQ e+40(FP), R8
	MOVQ f+48(FP), R9
	SYSCALL
	MOVQ AX, ret+56(FP)
	RET
