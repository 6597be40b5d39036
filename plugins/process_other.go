//go:build !linux

package plugins

import (
	"os"
	"os/exec"
)

// Without Linux's death signal a killed host's plugins end by the author's kit,
// which watches its parent.

func ownGroup(*exec.Cmd) {}

func killGroup(p *os.Process) { _ = p.Kill() }

// awaitExit cannot wait without taking the process away; Wait does both, and a
// Kill after it is harmless.
func awaitExit(int) bool { return false }

// lockFile cannot lock here, and a lock that is there already counts as held: so
// nothing is ever cleaned up behind others.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
}
