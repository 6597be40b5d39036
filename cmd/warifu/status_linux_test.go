package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/warifu/warifu/cmd/warifu/config"
)

func resize(t *testing.T, screen *os.File, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// In a terminal the view is drawn in place, within the window; when the server ends, that is said, and the next one is
// found. Ctrl-C ends it well, and leaves the terminal as it was.
func TestStatusIsDrawnInPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := func(address string) *started {
		return startServer(t, dir, address, func(cfg *config.Config) {})
	}
	s := serve("127.0.0.1:0")
	screen, program := terminal(t)
	resize(t, screen, 60, 9)
	cmd := exec.Command("warifu", "--admin", filepath.Join(dir, "a.sock"), "status", "-w")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.Env = append(os.Environ(), "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = program.Close() // the child has it
	drawn, ended := newLines(), make(chan struct{})
	go func() { // ends with the child
		defer close(ended)
		buffer := make([]byte, 4096)
		for {
			n, err := screen.Read(buffer)
			if n > 0 {
				_, _ = drawn.Write(buffer[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	shows := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := drawn.await(ctx, ended, regexp.MustCompile(want)); err != nil {
			t.Fatalf("%v, and no %q:\n%q", err, want, drawn)
		}
	}
	shows(`(?s)\x1b\[\?1049h.*\x1b\[H.*deliveries.*none.*etcd.*ok`)
	address := strings.TrimPrefix(s.cfg.Issuer, "http://")
	s.terminate(nil)
	s.wait(t)
	shows(`no server answers at .{10}`)
	resize(t, screen, 40, 5)
	shows(`the window is too small`)
	s = serve(address)
	shows(`(?s)no server answers.*\x1b\[H[^\n]*warifu \S+[^\n]*\n[^\n]*deliveries`)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	<-ended
	_, last, found := strings.Cut(drawn.String(), "\x1b[?25h\x1b[?1049l")
	if !found || !strings.Contains(last, "deliveries") {
		t.Errorf("the terminal is not as it was: %q", drawn)
	}
	painted := regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)
	for frame := range strings.SplitSeq(drawn.String(), "\x1b[H") {
		for l := range strings.SplitSeq(frame, "\n") {
			if n := columnsOf(strings.Trim(painted.ReplaceAllString(l, ""), "\r")); n > 60 && !strings.Contains(l, "\x1b[?") {
				t.Errorf("a line of %d columns: %q", n, l)
			}
		}
	}
	s.terminate(nil)
	s.wait(t)
}

func TestTextIsCutToColumns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		columns int
		want    string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"日本語", 6, "日本語"}, {"日本語", 5, "日本…"}, {"日本語", 4, "日…"},
		{"a", 0, ""}, {"", 0, ""}} {
		if got, whole := cut(c.text, c.columns); got != c.want || whole != (got == c.text) {
			t.Errorf("%q in %d columns: %q %t", c.text, c.columns, got, whole)
		}
	}
}
