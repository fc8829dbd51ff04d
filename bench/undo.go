package main

import "errors"

// undos takes back what was done, the last first.
type undos []func() error

func (u *undos) add(f func() error) { *u = append(*u, f) }

// run takes everything back, also if some of it fails.
func (u *undos) run() (err error) {
	for len(*u) > 0 {
		last := len(*u) - 1
		f := (*u)[last]
		*u = (*u)[:last]
		err = errors.Join(err, f())
	}
	return err
}
