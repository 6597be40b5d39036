package plugins

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// What callers tell apart with errors.Is.
var (
	// ErrStale: the target has a newer generation or fence. Observe it, and
	// push with a newer one only if you still own its delivery.
	ErrStale = errors.New("the target has a newer generation or fence")
	// ErrDigestConflict: the target has this generation with other content.
	ErrDigestConflict = errors.New("the target has this generation with another digest")
	// ErrInvalid: the same request can never succeed.
	ErrInvalid = errors.New("refused as invalid")
	// ErrUnavailable: the plugin is not running or what it needs is not there;
	// later may be better. A push that ended like this may have happened.
	ErrUnavailable = errors.New("unavailable")
	// ErrDeadline: no answer in time. Observe before pushing again.
	ErrDeadline = errors.New("no answer in time")
	// ErrContract: the plugin answered what the contract does not allow.
	ErrContract = errors.New("the answer breaks the plugin contract")
	// ErrClosed: the host has been closed.
	ErrClosed = errors.New("the plugin host is closed")
)

// Culprit names the plugin that an error is about, as the configuration calls it; empty if it is about none.
func Culprit(err error) string {
	var backoff *BackoffError
	var start *StartError
	var call *CallError
	switch {
	case errors.As(err, &backoff):
		return backoff.Plugin
	case errors.As(err, &start):
		return start.Plugin
	case errors.As(err, &call):
		return call.Plugin
	}
	return ""
}

// CallError is a call that a running plugin refused or did not answer. It
// unwraps to one of the errors above, or to the caller's context error.
type CallError struct {
	Plugin  string // its configured name
	Op      string // Evaluate, PushEnv, ...
	Message string // the plugin's words, scrubbed and shortened; may be empty
	Err     error
}

func (e *CallError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("plugin %q: %s: %v", e.Plugin, e.Op, e.Err)
	}
	if strings.HasPrefix(e.Message, e.Err.Error()) { // the author wrapped the same error
		return fmt.Sprintf("plugin %q: %s: %s", e.Plugin, e.Op, e.Message)
	}
	return fmt.Sprintf("plugin %q: %s: %v: %s", e.Plugin, e.Op, e.Err, e.Message)
}

func (e *CallError) Unwrap() error { return e.Err }

// StartError is a plugin that could not be started: what is wrong, where, and
// what to do.
type StartError struct {
	Plugin  string
	Path    string
	Problem string
	Remedy  string
	Err     error // may be nil
}

func (e *StartError) Error() string {
	text := fmt.Sprintf("plugin %q (%s): %s", e.Plugin, e.Path, e.Problem)
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

func (e *StartError) Unwrap() error { return e.Err }

// BackoffError is a call made while a plugin that died is not started again
// yet. It is an ErrUnavailable.
type BackoffError struct {
	Plugin  string
	Since   time.Time // of the first failure in this row
	NextTry time.Time
	Cause   error // the last failure
}

func (e *BackoffError) Error() string {
	return fmt.Sprintf("plugin %q: not running since %s, next try at %s: %v", e.Plugin,
		e.Since.Format(time.RFC3339), e.NextTry.Format(time.RFC3339), e.Cause)
}

// Is makes a BackoffError an ErrUnavailable.
func (e *BackoffError) Is(target error) bool { return target == ErrUnavailable }

func (e *BackoffError) Unwrap() error { return e.Cause }
