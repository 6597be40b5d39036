//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is the deadline of every wait for a process. It is for what never comes, not for what is slow.
const patience = 60 * time.Second

// process is a running server.
type process struct {
	cmd   *exec.Cmd
	ready ready
	took  time.Duration // from start to ready
	words *transcript   // what it says on stderr

	ended chan struct{} // closed after err is set
	err   error
}

// ready is the line that `warifu dev -o json` prints when it is ready.
type ready struct {
	Issuer string `json:"issuer"`
	Admin  string `json:"admin"`
	User   struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	} `json:"user"`
	Invitation struct {
		Email string `json:"email"`
		Link  string `json:"link"`
	} `json:"invitation"`
	Apps []struct {
		Name     string `json:"name"`
		ClientID string `json:"clientId"`
		Targets  []struct {
			Kind    string `json:"kind"`
			Name    string `json:"name"`
			Runtime string `json:"runtime"`
			Env     string `json:"env"`
			URL     string `json:"url"`
		} `json:"targets"`
	} `json:"apps"`
}

// startDev runs `warifu dev` on a manifest until it says that it is ready. more are further flags.
func startDev(data, listen, file string, more ...string) (*process, error) {
	args := append([]string{"dev", "--data", data, "--listen", listen, "-o", "json", "-f", file}, more...)
	p := &process{cmd: exec.Command(suite.binary, args...), words: &transcript{}, ended: make(chan struct{})}
	p.cmd.Stderr = p.words
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	first := make(chan []byte, 1)
	go func() { // ends with the process
		lines := bufio.NewReader(stdout)
		if line, err := lines.ReadBytes('\n'); err == nil {
			first <- line
		}
		_, _ = io.Copy(io.Discard, lines)
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	select {
	case line := <-first:
		p.took = time.Since(start)
		if err := json.Unmarshal(line, &p.ready); err != nil {
			return nil, errors.Join(fmt.Errorf("warifu dev is ready, but says %q: %w", line, err), p.end())
		}
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("warifu dev ended before it was ready: %w\n%s", p.err, p.words)
	case <-time.After(patience):
		return nil, errors.Join(fmt.Errorf("warifu dev is not ready\n%s", p.words), p.end())
	}
}

// dev is startDev for a test, which the server ends with.
func dev(t testing.TB, data, listen, file string, more ...string) *process {
	t.Helper()
	p, err := startDev(data, listen, file, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// end asks the process to end, and says what was wrong with how it did. One that has ended already is left alone.
func (p *process) end() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s does not end on SIGTERM\n%s", p.cmd.Args[1], p.words), p.cmd.Process.Kill())
	}
	if p.err != nil {
		return fmt.Errorf("%s ended with: %w\n%s", p.cmd.Args[1], p.err, p.words)
	}
	return nil
}

// kill ends the process as a power cut would, and waits until its plugins are gone, too.
func (p *process) kill(t *testing.T) {
	t.Helper()
	children, err := childrenOf(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(children) == 0 {
		t.Error("the server runs no plugin processes")
	}
	var gone []func() error
	for _, pid := range children {
		wait, err := ending(pid)
		if err != nil {
			t.Fatal(err)
		}
		gone = append(gone, wait)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	for _, wait := range gone {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
}

// command runs another command of the program to its end, and gives its stdout.
func command(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), suite.binary, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("warifu %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.String()
}

// envFile is the env file of the Worker of an app.
func (p *process) envFile(app string) (string, error) {
	for _, a := range p.ready.Apps {
		for _, target := range a.Targets {
			if a.Name == app && target.Kind == "worker" {
				return target.Env, nil
			}
		}
	}
	return "", fmt.Errorf("the ready line names no worker of %s", app)
}

// transcript keeps what a process says.
type transcript struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
	want []wanted
}

// wanted is a text that somebody waits for.
type wanted struct {
	text string
	seen chan struct{}
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.text.Write(b)
	for i, w := range s.want {
		if w.seen != nil && bytes.Contains(s.text.Bytes(), []byte(w.text)) {
			close(w.seen)
			s.want[i].seen = nil
		}
	}
	return n, err
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until text was said by a process that runs.
func (s *transcript) await(t testing.TB, p *process, text string) {
	t.Helper()
	seen := make(chan struct{})
	s.mu.Lock()
	if strings.Contains(s.text.String(), text) {
		close(seen)
	} else {
		s.want = append(s.want, wanted{text, seen})
	}
	s.mu.Unlock()
	select {
	case <-seen:
	case <-p.ended:
		t.Fatalf("%s ended: %v\n%s", p.cmd.Args[1], p.err, s)
	case <-time.After(patience):
		t.Fatalf("waited for %q in:\n%s", text, s)
	}
}

// freeAddress is a loopback address on which nobody listens, for a program that has to be told one.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}
