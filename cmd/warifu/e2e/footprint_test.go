//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// footprint is the resident memory of a server and its plugin processes, in KiB.
type footprint struct {
	main    int64
	plugins []int64
}

func (f footprint) total() int64 {
	total := f.main
	for _, kib := range f.plugins {
		total += kib
	}
	return total
}

func (f footprint) String() string {
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "%.1f MiB resident: server %.1f", mib(f.total()), mib(f.main))
	for _, kib := range f.plugins {
		_, _ = fmt.Fprintf(&b, ", plugin %.1f", mib(kib))
	}
	return b.String()
}

func mib(kib int64) float64 { return float64(kib) / 1024 }

func (p *process) footprint() (footprint, error) {
	children, err := childrenOf(p.cmd.Process.Pid)
	if err != nil {
		return footprint{}, err
	}
	var f footprint
	if f.main, err = resident(p.cmd.Process.Pid); err != nil {
		return footprint{}, err
	}
	for _, pid := range children {
		kib, err := resident(pid)
		if err != nil {
			return footprint{}, err
		}
		f.plugins = append(f.plugins, kib)
	}
	return f, nil
}

// resident is VmRSS of a process, in KiB (proc_pid_status(5)).
func resident(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// childrenOf lists the processes that a process started and that still run (proc_pid_stat(5)).
func childrenOf(parent int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		// pid (name) state ppid ...; the name may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 && fields[0] != "Z" && fields[1] == strconv.Itoa(parent) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil {
				return nil, err
			}
			children = append(children, pid)
		}
	}
	return children, nil
}

// ending gives a function that waits until a process that is no child of ours has ended (pidfd_open(2)).
func ending(pid int) (func() error, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	return func() error {
		defer func() { _ = unix.Close(fd) }()
		deadline := time.Now().Add(patience)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				return fmt.Errorf("watch process %d: %w", pid, err)
			case n == 0:
				return fmt.Errorf("process %d outlives the server that started it", pid)
			default:
				return nil
			}
		}
	}, nil
}
