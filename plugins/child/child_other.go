//go:build !linux

package child

import (
	"os"
	"os/exec"
)

// Without Linux's death signal, children outlive a parent that was killed, unless they watch it.
func dieWithUs(*exec.Cmd) {}

// OwnGroup puts the process that cmd will start into a group of its own, where that is known.
func OwnGroup(*exec.Cmd) {}

// KillGroup ends a process that has not been waited for. What is gone already is fine.
func KillGroup(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

// AwaitExit cannot wait without taking the process away; Wait does both, and a KillGroup after it is harmless.
func AwaitExit(int) bool { return false }
