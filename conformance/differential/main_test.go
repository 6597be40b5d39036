package differential

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// warifu is the binary, under that name. Only TestMain writes it.
var warifu string

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "differential:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "warifu-differential-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // nothing follows from what it leaves behind
	if _, err := exec.LookPath("slapd"); err != nil {
		return 0, fmt.Errorf("slapd is missing: apt-get install -y slapd")
	}
	warifu = filepath.Join(dir, "warifu")
	const variable = "WARIFU_E2E_BINARY"
	binary := os.Getenv(variable)
	if binary == "" {
		return 0, fmt.Errorf("name the binary in %s, as make differential does", variable)
	}
	if err := os.Unsetenv(variable); err != nil { // it is no variable of a configuration
		return 0, err
	}
	if err := os.Symlink(binary, warifu); err != nil { // by the name that commands have
		return 0, err
	}
	return m.Run(), nil
}

// process is a server that runs until the test ends, or stop is called.
type process struct {
	cmd  *exec.Cmd
	said bytes.Buffer
	done chan struct{}
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.said, &p.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		_ = cmd.Wait() // how it ends after a signal says nothing
		close(p.done)
	}()
	t.Cleanup(p.stop)
	return p
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// answers waits until an address does.
func (p *process) answers(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-p.done:
			t.Fatalf("%s has ended:\n%s", p.cmd.Path, p.said.String())
		case <-ctx.Done():
			p.stop()
			t.Fatalf("%s does not answer:\n%s", address, p.said.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freeAddress is one on loopback that nobody uses now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fill puts values into a text.
func fill(text string, values ...string) string { return strings.NewReplacer(values...).Replace(text) }
