package runtimeworkers

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/warifu/warifu/plugins/child"
)

// process is one workerd. Its goroutines end with it.
type process struct {
	cmd       *exec.Cmd
	started   time.Time
	output    *output
	transport *http.Transport // to its private socket, a connection a request
	ready     chan struct{}   // closed when it listens
	exited    chan struct{}   // closed when it is gone
	err       error           // why; to be read after exited

	mu      sync.Mutex // owns what follows
	pending int        // requests that it has not answered in full
	idle    chan struct{}
}

// begin and done count requests.
func (p *process) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending++
}

func (p *process) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending--
	if p.pending == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// silent is closed when no request is pending. The process gets no new ones.
func (p *process) silent() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := make(chan struct{})
	if p.pending == 0 {
		close(idle)
	} else {
		p.idle = idle
	}
	return idle
}

// gone reports whether the process has ended, or is about to: its last thread may
// live on for a moment after it has closed a connection.
func (p *process) gone() bool {
	timer := time.NewTimer(dyingLimit)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		return false
	}
}

// dyingLimit is how long a process that breaks off connections may take to end.
const dyingLimit = 500 * time.Millisecond

// launch says what a new workerd gets.
type launch struct {
	binary  string
	config  string // with values
	sockets string // a directory for the private socket
	output  *output
}

// partingLimit is how long a workerd without requests may take to end.
const partingLimit = time.Second

// Numbers of what a workerd is handed, in its own table.
const (
	socketFD  = 3
	controlFD = 4
	configFD  = 5
)

// start starts a workerd and waits until it listens. When it does not, or ctx
// ends first, it is gone again. A *problem is the Worker's fault.
func (l launch) start(ctx context.Context, from *child.Spawner, limit time.Duration) (*process, error) {
	socket, path, err := privateSocket(l.sockets)
	if err != nil {
		return nil, err
	}
	p, err := l.begin(from, socket, path)
	_ = socket.Close() // the child has its own; when that ends, dialing fails
	if err != nil {
		_ = os.Remove(path) // nobody listens
		return nil, err
	}
	go p.wait(path)
	return p, p.await(ctx, limit)
}

// privateSocket makes a socket that only this user can reach.
func privateSocket(dir string) (*os.File, string, error) {
	path := filepath.Join(dir, "w"+rand.Text()[:8])
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, "", fmt.Errorf("make a socket for workerd: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer func() { _ = l.Close() }() // the file has the socket
	file, err := l.File()
	if err != nil {
		_ = os.Remove(path) // nobody listens
		return nil, "", fmt.Errorf("copy the socket: %w", err)
	}
	return file, path, nil
}

// begin starts the program.
func (l launch) begin(from *child.Spawner, socket *os.File, path string) (*process, error) {
	config, configPath, err := configFile(l.config, configFD, l.sockets)
	if err != nil {
		return nil, err
	}
	defer func() { _ = config.Close() }() // it was written, or nobody needs it
	control, childs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the control pipe: %w", err)
	}
	cmd := exec.Command(l.binary, "serve", configPath, "--socket-fd", fmt.Sprintf("http=%d", socketFD), "--control-fd",
		fmt.Sprint(controlFD))
	cmd.Env = []string{} // nothing of ours
	cmd.ExtraFiles = []*os.File{socket, childs, config}
	cmd.Stdout, cmd.Stderr = l.output, l.output
	cmd.WaitDelay = time.Second
	p := &process{cmd: cmd, started: time.Now(), output: l.output, ready: make(chan struct{}), exited: make(chan struct{})}
	p.transport = &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				return nil, err
			}
			return answered{conn}, nil
		}}
	err = from.Start(cmd)
	_ = childs.Close() // the child has its own
	if err != nil {
		_ = control.Close() // nobody writes to it
		discardConfig(config)
		return nil, &problem{message: fmt.Sprintf("workerd cannot be started: %v", err), retryable: true,
			remedy: "check the path of workerd in the runtime's config"}
	}
	go p.readControl(control, config)
	return p, nil
}

// wait owns cmd.Wait.
func (p *process) wait(socket string) {
	p.err = p.cmd.Wait()
	_ = os.Remove(socket) // goes with its directory otherwise
	close(p.exited)
}

// answered is a connection to a workerd that may answer a request without reading
// its body, and close. net/http would take the failed write for the outcome; what
// there is to read is.
type answered struct{ net.Conn }

func (c answered) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return len(p), nil
	}
	return n, err
}

// readControl closes ready at the listen event and reads on to the end. The
// configuration has been read at the first event, or never will be.
func (p *process) readControl(control io.ReadCloser, config *os.File) {
	defer func() { _ = control.Close() }() // read to its end
	defer discardConfig(config)
	var once sync.Once
	lines := bufio.NewScanner(control)
	for lines.Scan() {
		var event struct {
			Event string `json:"event"`
		}
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.Event == "listen" {
			once.Do(func() { close(p.ready) })
		}
	}
}

func (p *process) await(ctx context.Context, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.exited:
		return &problem{message: "the Worker does not start: " + p.why(),
			remedy: "correct the script or its settings; the old Worker serves on", retryable: true}
	case <-timer.C:
		p.kill()
		return &problem{message: fmt.Sprintf("the Worker did not listen within %s", limit), retryable: true,
			remedy: "see whether its script does much at the top level, or the machine is overloaded"}
	case <-ctx.Done():
		p.kill()
		return ctx.Err()
	}
}

// why is what an ended process said last, or how it ended. Call it after exited.
func (p *process) why() string {
	if said := p.output.said(); said != "" {
		return said
	}
	if p.err != nil {
		return p.err.Error()
	}
	return "workerd ended without a word"
}

// kill ends it at once and waits for that.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // gone already: fine
	<-p.exited
}

// finish lets it answer the requests that it has, for at most grace, and then
// tells it to end; a second later it is killed. It does not wait. No request may
// be given to it any more.
func (p *process) finish(grace time.Duration) {
	silent := p.silent()
	go func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-silent:
		case <-timer.C:
		case <-p.exited:
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already: fine
		timer.Reset(partingLimit)
		select {
		case <-p.exited:
		case <-timer.C:
			p.kill()
		}
	}()
}
