package child

import (
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func attributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}

func dieWithUs(cmd *exec.Cmd) { attributes(cmd).Pdeathsig = syscall.SIGKILL }

// OwnGroup puts the process that cmd will start into a group of its own, so that its children can be killed with it and
// a terminal's Ctrl-C reaches the parent alone.
func OwnGroup(cmd *exec.Cmd) { attributes(cmd).Setpgid = true }

// KillGroup ends a process that has not been waited for, and its group. What is gone already is fine.
func KillGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// AwaitExit blocks until the process has ended but leaves it to be waited for: until then its number, and that of its
// group, cannot be another's. It reports whether it can do that here.
func AwaitExit(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}
