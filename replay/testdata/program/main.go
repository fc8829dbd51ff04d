// Program prints its arguments and how many variables it has: what is left to do where
// there is nothing to replay.
package main

import (
	"fmt"
	"os"

	_ "github.com/ihucos/plash/replay"
)

func main() { fmt.Printf("%q %d\n", os.Args[1:], len(os.Environ())) }
