package plugins

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/warifu/warifu/plugins/child"
)

const (
	// Lines that a plugin may print on stdout before the handshake.
	maxPreamble = 100
	// How long the pipes of a dead plugin may still deliver, for example
	// because a child of its own holds them.
	pipeGrace = 500 * time.Millisecond
)

var handshakeLine = regexp.MustCompile(`^[0-9]+\|[0-9]+\|[a-z]+\|`)

// runner is one plugin process, in the shape that go-plugin wants
// (runner.Runner). It differs from go-plugin's own in that it starts the process
// from the spawner's thread and in a process group, owns the pipes so that
// nothing a plugin leaves behind can block the host, reads stderr itself, and
// accepts only sockets in the private directory.
type runner struct {
	cmd       *exec.Cmd
	spawn     *child.Spawner
	log       *pluginLog
	socketDir string

	stdoutR *io.PipeReader // the handshake line, for go-plugin
	stdoutW *io.PipeWriter
	stderrR *io.PipeReader // nothing, for go-plugin: the log reads the real one
	stderrW *io.PipeWriter

	exited chan struct{} // closed when the process has ended and err is set
	err    error
	pid    int

	mu      sync.Mutex  // owns what follows
	process *os.Process // nil before the start, and once the number may be another's
	killed  bool        // also before the start
}

func newRunner(cmd *exec.Cmd, spawn *child.Spawner, log *pluginLog, socketDir string) *runner {
	r := &runner{cmd: cmd, spawn: spawn, log: log, socketDir: socketDir, exited: make(chan struct{})}
	r.stdoutR, r.stdoutW = io.Pipe()
	r.stderrR, r.stderrW = io.Pipe()
	return r
}

func (r *runner) Start(context.Context) error {
	outR, outW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make the stdout pipe: %w", err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		_, _ = outR.Close(), outW.Close()
		return fmt.Errorf("make the stderr pipe: %w", err)
	}
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = nil, outW, errW
	child.OwnGroup(r.cmd)
	err = r.spawn.Start(r.cmd)
	_, _ = outW.Close(), errW.Close()
	if err != nil {
		_, _ = outR.Close(), errR.Close()
		if errors.Is(err, os.ErrClosed) {
			err = ErrClosed
		}
		return fmt.Errorf("start the process: %w", err)
	}
	r.started(r.cmd.Process)
	var readers sync.WaitGroup
	readers.Go(func() { r.forwardStdout(outR) })
	readers.Go(func() { r.log.drain(errR, "stderr") })
	go r.reap(&readers, outR, errR)
	return nil
}

func (r *runner) started(p *os.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.process, r.pid = p, p.Pid
	if r.killed {
		child.KillGroup(p.Pid)
	}
}

// reap waits for the end of the process, takes what is left of its group with
// it, and lets the readers finish. It is the runner's last goroutine.
func (r *runner) reap(readers *sync.WaitGroup, pipes ...*os.File) {
	if child.AwaitExit(r.pid) {
		r.mu.Lock()
		child.KillGroup(r.process.Pid)
		r.process = nil
		r.mu.Unlock()
	}
	r.err = r.cmd.Wait()
	close(r.exited)
	for _, pipe := range pipes {
		_ = pipe.SetReadDeadline(time.Now().Add(pipeGrace)) // a pipe that has no deadline is closed below
	}
	readers.Wait()
	for _, pipe := range pipes {
		_ = pipe.Close()
	}
	_, _ = r.stdoutW.Close(), r.stderrW.Close()
}

// forwardStdout gives go-plugin the handshake line and the log everything else,
// so that a plugin that prints too early or too much still works.
func (r *runner) forwardStdout(pipe io.Reader) {
	reader := bufio.NewReaderSize(pipe, 4096)
	for range maxPreamble {
		line, err := readLine(reader)
		if handshakeLine.Match(line) {
			_, _ = r.stdoutW.Write(append(line, '\n')) // fails only when go-plugin is gone
			r.log.drain(reader, "stdout")
			return
		}
		if len(line) > 0 {
			r.log.line(line, "stdout before the handshake")
		}
		if err != nil {
			return
		}
	}
	_, _ = io.WriteString(r.stdoutW, "stdout is full of other things\n")
	r.log.drain(reader, "stdout")
}

// kill ends the process and its group at once. Safe to call at any time.
func (r *runner) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	if r.process != nil {
		child.KillGroup(r.process.Pid)
	}
}

// running reports whether the process has not ended.
func (r *runner) running() bool {
	select {
	case <-r.exited:
		return false
	default:
		return true
	}
}

// Wait, Kill, ID and the rest are for go-plugin.

func (r *runner) Wait(context.Context) error {
	<-r.exited
	return r.err
}

func (r *runner) Kill(context.Context) error {
	r.kill()
	return nil
}

func (r *runner) ID() string            { return strconv.Itoa(r.pid) }
func (r *runner) Name() string          { return r.cmd.Path }
func (r *runner) Stdout() io.ReadCloser { return r.stdoutR }
func (r *runner) Stderr() io.ReadCloser { return r.stderrR }

func (r *runner) Diagnose(context.Context) string { return "" }

// PluginToHost refuses every address that is not a socket in the directory that
// was made for this process: the plugin cannot point the host somewhere else.
func (r *runner) PluginToHost(network, address string) (string, string, error) {
	if runtime.GOOS == "windows" && network == "tcp" {
		return network, address, nil // go-plugin has nothing else there
	}
	if network != "unix" || filepath.Dir(filepath.Clean(address)) != filepath.Clean(r.socketDir) {
		return "", "", errors.New("the plugin listens outside its socket directory")
	}
	return network, address, nil
}

func (r *runner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
