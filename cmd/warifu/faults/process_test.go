//go:build faults

package faults

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins/child"
)

// patience is the deadline of every wait for what must come. It is for what never comes, not for what is slow.
const patience = 60 * time.Second

// spawner starts every process, so that none outlives this one.
var spawner = child.NewSpawner()

// process is a program that a test runs, ends, and runs again.
type process struct {
	name string
	log  string // file of what it says, of all its lives
	make func() *exec.Cmd

	cmd   *exec.Cmd
	ended chan struct{} // closed after err is set
	err   error
}

// start runs it once more.
func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := p.make()
	cmd.Stdout, cmd.Stderr = log, log
	if err := spawner.Start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended, p.err = cmd, ended, nil
	go func() { // ends with the process
		p.err = cmd.Wait()
		close(ended)
	}()
	return nil
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal does nothing to a process that has ended.
func (p *process) signal(s syscall.Signal) {
	if p.running() {
		_ = p.cmd.Process.Signal(s)
	}
}

// pause holds the process as it is until go.
func (p *process) pause()     { p.signal(syscall.SIGSTOP) }
func (p *process) continues() { p.signal(syscall.SIGCONT) }

// kill ends the process as a power cut would.
func (p *process) kill() {
	if p.running() {
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

// stop asks the process to end; the error says how it did.
func (p *process) stop() error {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		p.kill()
		return errors.New(p.name + " does not end on SIGTERM")
	}
}

// words are the last lines of what the process has said.
func (p *process) words(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// freeAddresses are loopback addresses on which nobody listens. Their ports are below those that a system gives to
// connections (from 32768 on Linux): a process that ends finds its port free when it comes back, however many
// connections are made in the meantime.
func freeAddresses(t testing.TB, n int) []string {
	t.Helper()
	const lowest, ports = 12_000, 20_000
	var out []string
	for range ports {
		address := fmt.Sprintf("127.0.0.1:%d", lowest+int(nextPort.Add(1))%ports)
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue // somebody has it
		}
		_ = l.Close()
		if out = append(out, address); len(out) == n {
			return out
		}
	}
	t.Fatalf("there are no %d free ports from %d to %d", n, lowest, lowest+ports)
	return nil
}

// nextPort is where to look next, so that no port is given twice. Where it begins differs, for runs at the same time.
var nextPort = func() *atomic.Int64 {
	begin := new(atomic.Int64)
	begin.Store(int64(os.Getpid()) * 97)
	return begin
}()

func writeFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// until waits for something that must come, looking again and again.
func until(t testing.TB, what string, within time.Duration, holds func() error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := holds()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > within {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
