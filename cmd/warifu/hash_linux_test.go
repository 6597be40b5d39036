package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal: what a person types and sees, and the program's side.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// sees reads what the terminal shows until that ends with a text.
func sees(t *testing.T, person *os.File, end string) string {
	t.Helper()
	var shown []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(shown, []byte(end)) {
		if _, err := person.Read(one); err != nil {
			t.Fatalf("%v after %q", err, shown)
		}
		shown = append(shown, one...)
	}
	return string(shown)
}

func echoes(t *testing.T, program *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func TestHashDoesNotShowThePassword(t *testing.T) {
	for name, c := range map[string]struct {
		second, says string
		code         int
	}{
		"typed twice":       {"correct horse", "", exitDone},
		"another one again": {"correct house", "the two passwords differ", exitInvalid},
	} {
		person, program := terminal(t)
		var out bytes.Buffer
		code := make(chan int, 1)
		go func() { code <- run(t.Context(), []string{"hash"}, program, &out, program) }() // ends with the second line
		shown := sees(t, person, "Password: ")
		for echoes(t, program) { // what is typed before is shown, as everywhere
			runtime.Gosched()
		}
		_, _ = person.WriteString("correct horse\n")
		shown += sees(t, person, "Again: ")
		for echoes(t, program) {
			runtime.Gosched()
		}
		_, _ = person.WriteString(c.second + "\n")
		if got := <-code; got != c.code {
			t.Errorf("%s: exit code %d", name, got)
		}
		if shown += sees(t, person, "\n"); c.says != "" {
			shown += sees(t, person, c.says)
		}
		if strings.Contains(shown, "horse") || !echoes(t, program) {
			t.Errorf("%s: the terminal shows %q, and echoes afterwards: %t", name, shown, echoes(t, program))
		}
		hash := strings.TrimSpace(out.String())
		if c.code == exitDone && bcrypt.CompareHashAndPassword([]byte(hash), []byte("correct horse")) != nil {
			t.Errorf("%s: prints %q", name, hash)
		}
	}
}

// Ctrl-C leaves a terminal that shows what is typed.
func TestInterruptedHashLeavesTheTerminalAsItWas(t *testing.T) {
	person, program := terminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"hash"}, program, &bytes.Buffer{}, program) }() // ends with ctx
	sees(t, person, "Password: ")
	for echoes(t, program) {
		runtime.Gosched()
	}
	cancel()
	if got := <-code; got != exitFailed || !echoes(t, program) {
		t.Errorf("exit code %d, and it echoes: %t", got, echoes(t, program))
	}
}
