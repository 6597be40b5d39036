package plugins

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup puts the process in a group of its own, so that its children can be
// killed with it and a terminal's Ctrl-C reaches the host alone, and has the
// kernel kill it when the thread that starts it is gone.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: deathSignal}
}

// deathSignal is a variable for the test of the author's kit, which has to do
// without it.
var deathSignal = syscall.SIGKILL

// killGroup ends a process that has not been waited for, and its group. What is
// gone already is fine.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// awaitExit blocks until the process has ended but leaves it to be waited for:
// until then its number, and that of its group, cannot be another's. It reports
// whether it can do that here.
func awaitExit(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// lockFile opens a file, made when missing, and locks it, or fails at once when
// another has it. The kernel gives the lock back when its holder is gone.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}
