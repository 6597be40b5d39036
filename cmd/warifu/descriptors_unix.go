//go:build unix

package main

import (
	"math"
	"syscall"
)

// descriptors is how many file descriptors this process may have. Go has raised the soft limit to the hard one when it
// started.
func descriptors() (int, bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)), true
}
