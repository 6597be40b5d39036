// Command warifu is an OpenID Connect and OAuth 2 authorization server that registers apps from their app.yml.
//
// # Rooms
//
// This package has no logic beyond that of a command line: it builds what the other packages offer from a
// configuration (package config) in instance.go, wiring.go and listen.go, and speaks to a running server through its
// admin API (client.go). `warifu dev` and `warifu serve` build the same instance; dev only generates its
// configuration.
//
// # Invariants
//
//   - Data goes to stdout, messages to stderr. Exit codes: 0 done, 1 failed, 2 plan, drift or doctor found something, 3
//     invalid input, also a configuration or manifest that cannot be read, 4 server unreachable.
//   - No secret is in argv, in the environment of another process, or in a log.
//   - Every goroutine belongs to an instance's group and ends with its context.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/admin"
)

func main() {
	os.Exit(run(untilSignal(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// errTerminated is why the context of the program has ended: by SIGTERM, as supervisors send it, and not by Ctrl-C.
var errTerminated = errors.New("terminated")

// untilSignal is the context of the program. A second signal ends the process at once.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the first signal, or with the process
		why := context.Canceled
		if <-signals == syscall.SIGTERM {
			why = errTerminated
		}
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		cancel(why)
	}()
	return ctx
}

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitChanges     = 2
	exitInvalid     = 3
	exitUnreachable = 4
)

// errChanges ends a plan that found changes. It sets the exit code and prints nothing.
var errChanges = errors.New("the plan has changes")

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the program: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{stdin: stdin, stdout: stdout, stderr: stderr, environ: os.Environ()}
	root := c.root()
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err == nil || errors.Is(err, errChanges) {
		return exitCode(err)
	}
	if !c.started { // cobra did not reach one of our commands
		err = usageError{err}
	}
	c.path = command.CommandPath()
	c.report(err)
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	var faults manifests.Faults
	var problem *admin.Problem
	var unreachable *unreachableError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errChanges):
		return exitChanges
	case errors.As(err, &unreachable):
		return exitUnreachable
	case errors.As(err, &usage), errors.As(err, &faults):
		return exitInvalid
	case errors.As(err, &problem) && (problem.Status == 400 || problem.Status == 413 || problem.Status == 422):
		return exitInvalid
	default:
		return exitFailed
	}
}

// report writes to stderr what went wrong, one fault per line, so that editors and terminals find them.
func (c *cli) report(err error) {
	var faults manifests.Faults
	var problem *admin.Problem
	var usage usageError
	var refused *refusedError
	switch {
	case errors.As(err, &faults):
		for _, f := range faults {
			c.say("%s", f)
		}
	case errors.As(err, &problem):
		for _, f := range problem.Faults {
			c.say("%s", faultOf(f))
		}
		c.say("%s %s", c.paint(c.stderr, red, "error:"), problem.Detail)
		if problem.Remedy != "" {
			c.say("%s", problem.Remedy)
		}
		if problem.Status == http.StatusConflict || problem.Status == http.StatusUnprocessableEntity { // what was sent
			c.hint(problem.RequestID)
		}
	default:
		c.say("%s %s", c.paint(c.stderr, red, "error:"), err)
		if errors.As(err, &usage) {
			c.say("See %s --help.", cmp.Or(c.path, "warifu"))
		}
		if errors.As(err, &refused) {
			c.hint(refused.requestID)
		}
	}
}
