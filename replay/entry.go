//go:build amd64 || arm64

package replay

import "unsafe"

// A program that is linked with -E plash_entry begins with the assembly function of that
// name and not with the Go runtime's: so a run does without starting the runtime (threads,
// heap, scheduler), and execve(2) does not have to end its threads. The function calls
// beforeGo, and then goes where the program would have begun.
//
// What runs there has no goroutine. It must not allocate, grow the stack, panic, or call
// anything of the runtime but what moves and compares memory; TestBeforeGo holds that.
// Pointers may be stored: the write barrier is off until the collector runs.

// entered tells that the program began with beforeGo.
var entered bool

// Early tells whether this package begins before Go does, and plans for users can be followed.
func Early() bool { return entered }

// beforeGo is a variable because assembly cannot call a function that takes its
// arguments in registers by its name, and the other way needs thread-local storage.
var beforeGo = first

func first(stack *vector) {
	entered = true
	args := stack.strings(1)
	env := stack.strings(args + 1)
	if args < len(words) && env < len(words) {
		detach(words.slice(1, args))
		stepInit(words.slice(1, args))
		start(words.slice(1, args), words.slice(args+1, env))
		if replayer.serving {
			stack.disguise(args, env)
			if served.Answers >= 0 {
				replayer.answerFirst()
			}
		}
	}
	noteIgnored()
}

// A vector is the stack as the kernel hands it over: the number of arguments, their
// addresses, a zero, the addresses of the variables, a zero. It may be shorter.
type vector [16 << 10]*byte

// words are the strings of a vector, at the same places, as address and length. They
// are no heap's, so the collector need not look at them.
var words wordList

type wordList [len(vector{})][2]uintptr

// strings makes strings of all addresses from a place on, and returns the place of
// the zero that ends them; the vector's length if that is too far away.
func (v *vector) strings(from int) int {
	for i := from; i < len(v); i++ {
		if v[i] == nil {
			return i
		}
		n := 0
		for *(*byte)(unsafe.Add(unsafe.Pointer(v[i]), n)) != 0 {
			n++
		}
		words[i] = [2]uintptr{uintptr(unsafe.Pointer(v[i])), uintptr(n)}
	}
	return len(v)
}

func (w *wordList) slice(from, to int) []string {
	return unsafe.Slice((*string)(unsafe.Pointer(w)), len(w))[from:to]
}
