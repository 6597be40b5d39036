package plugintest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// seesProcesses says whether the kit can look at processes here.
const seesProcesses = true

// stop freezes a process as a debugger or a full disk would. The signal's sender
// is back before the last thread has stopped, so it waits for that.
func stop(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(stopLimit); ; time.Sleep(time.Millisecond) {
		switch stopped, err := allStopped(pid); {
		case err != nil || stopped:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("process %d did not stop within %s", pid, stopLimit)
		}
	}
}

const stopLimit = 5 * time.Second

// allStopped reports whether every thread of a process is stopped.
func allStopped(pid int) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')-1:]), ") ")
		if !strings.HasPrefix(after, "T") {
			return false, nil
		}
	}
	return true, nil
}

// askForStacks has most language runtimes print what they are doing and end.
// Others would write their memory to a file, which is not wanted.
func askForStacks(pid int) {
	if unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) == nil {
		_ = syscall.Kill(pid, syscall.SIGQUIT) // gone already is fine
	}
}

// descendants lists the processes below pid that live now, without pid itself.
func descendants(pid int) []int {
	children := map[int][]int{}
	for _, p := range processes() {
		if parent, state := parentOf(p); state != "Z" {
			children[parent] = append(children[parent], p)
		}
	}
	var out []int
	for queue := children[pid]; len(queue) > 0; queue = queue[1:] {
		out = append(out, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return out
}

// started lists the living processes whose environment names dir, or a directory
// below it, as that of their sockets.
func started(dir string) []int {
	var out []int
	for _, p := range processes() {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p))
		if err != nil || !strings.Contains("\x00"+string(environ), "\x00"+envSockets+"="+dir) {
			continue
		}
		if _, state := parentOf(p); state != "Z" {
			out = append(out, p)
		}
	}
	return out
}

// alive reports whether pid still is the process that it was: one below a plugin
// cannot have been given another number's life in the time of a check.
func alive(pid int) bool {
	_, state := parentOf(pid)
	return state != "" && state != "Z" && state != "X"
}

func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// parentOf gives a process's parent and state; no state: there is none.
func parentOf(pid int) (int, string) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, ""
	}
	_, after, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')-1:]), ") ")
	fields := strings.Fields(after)
	if len(fields) < 2 {
		return 0, ""
	}
	parent, _ := strconv.Atoi(fields[1]) // a number by proc(5)
	return parent, fields[0]
}

// commandLine is what every user of the machine can read about a process.
func commandLine(pid int) []byte {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	return line
}

// environ is what a process was started with.
func environ(pid int) []byte {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil
	}
	return env
}

// sockets lists the paths of the Unix sockets that a process listens on.
func sockets(pid int) []string {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil
	}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil
	}
	mine := map[string]bool{}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil {
			mine[to] = true
		}
	}
	var out []string
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) == 8 && mine["socket:["+f[6]+"]"] && strings.HasPrefix(f[7], "/") && !slices.Contains(out, f[7]) {
			out = append(out, f[7])
		}
	}
	return out
}

// written counts the bytes that a process has put into files, as far as the
// kernel counts them; false when it does not.
func written(pid int) (int64, bool) {
	counters, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(counters)) {
		if value, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
