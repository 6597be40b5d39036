// Package doctor looks at an installation as an operator would, and says what is wrong with it, or soon will be, and
// what to do.
//
// # Two sides
//
// What can be seen from outside is found where `warifu doctor` runs ([Outside]): names and addresses, the certificate
// that the issuer really presents, redirects, discovery, clocks, and what a proxy makes of a request. What only a
// running server knows it finds itself ([Inside]), and tells by its admin API: etcd, keys, plugins, deliveries,
// secrets. Files are looked at ([Files]) by whoever has the configuration. The same [Finding] comes of all three.
//
//	warifu doctor ─┬─ Files, Outside ──────────────────────── issuer, as apps and browsers see it
//	               └─ admin API ─ Inside ─ storage, plugins      │
//	                      └─ probe ──────────────────────────────┘
//
// # The probe
//
// Whether a proxy passes on whom it serves, only the server behind it can tell. So the server hands out a short-lived
// sealed string, and tells whoever sends it in the header [ProbeHeader] what arrived of that very request ([Arrived]),
// in the header [ArrivedHeader] of the reply. Any replica does, and nobody learns anything about somebody else's
// request.
//
// # Invariants
//
//   - Nothing is changed, and no finding holds a secret.
//   - Each check has a deadline of its own; one that cannot be made in time is [Unknown], and holds up no other.
//   - Nothing that a peer says is trusted for more than its words: replies are read to a limit.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// State is what a finding amounts to.
type State string

// States of findings.
const (
	Fine    State = "ok"
	Warning State = "warning" // it will be wrong, or is for some
	Wrong   State = "wrong"
	Unknown State = "unknown" // it could not be found out
)

// Finding is what a check has seen.
type Finding struct {
	// Check is a stable name, such as certificate.
	Check string `json:"check" doc:"What was looked at: a stable name, such as certificate."`
	State State  `json:"state" enum:"ok,warning,wrong,unknown" doc:"warning: it will be wrong, or is for some. unknown: it could not be found out."`
	Seen  string `json:"seen" doc:"What was seen, in words."`
	// Remedy is empty where all is well.
	Remedy string `json:"remedy,omitempty" doc:"What to do about it. Left out where all is well."`
}

func fine(format string, args ...any) Finding {
	return Finding{State: Fine, Seen: fmt.Sprintf(format, args...)}
}

func warning(remedy, format string, args ...any) Finding {
	return Finding{State: Warning, Seen: fmt.Sprintf(format, args...), Remedy: remedy}
}

func wrong(remedy, format string, args ...any) Finding {
	return Finding{State: Wrong, Seen: fmt.Sprintf(format, args...), Remedy: remedy}
}

func unknown(remedy, format string, args ...any) Finding {
	return Finding{State: Unknown, Seen: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Check looks at one thing.
type Check struct {
	Name string
	// Within is how long it may take; 0: [Patience].
	Within time.Duration
	// Look finds what there is to be said; the name is added where there is none. An error is that it could not be found
	// out.
	Look func(ctx context.Context) ([]Finding, error)
}

// Patience is how long a check may take by itself.
const Patience = 5 * time.Second

// Run makes the checks, all at once, and returns what they have found in their order. None outlives ctx.
func Run(ctx context.Context, checks ...Check) []Finding {
	found := make([][]Finding, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { found[i] = c.run(ctx) })
	}
	all.Wait()
	out := []Finding{}
	for _, f := range found {
		out = append(out, f...)
	}
	return out
}

// run makes a check, and does not wait for one that goes on behind its deadline: that ends by itself, and is not heard.
func (c Check) run(ctx context.Context) []Finding {
	within := c.Within
	if within == 0 {
		within = Patience
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	type result struct {
		findings []Finding
		err      error
	}
	done := make(chan result, 1)
	go func() { // ends with the check
		defer cancel()
		findings, err := c.Look(ctx)
		done <- result{findings, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		select {
		case r = <-done:
		default:
			r.err = ctx.Err()
		}
	}
	if errors.Is(r.err, context.DeadlineExceeded) {
		r.findings = append(r.findings, unknown("try again; what it waits for is slow, or does not answer",
			"this was not found out within %s", within))
	} else if r.err != nil {
		r.findings = append(r.findings, unknown("", "this cannot be found out: %s", r.err))
	}
	for i := range r.findings {
		if r.findings[i].Check == "" { // it may come from a server, which has named it
			r.findings[i].Check = c.Name
		}
	}
	return r.findings
}

// Worst is the state of the worst finding: wrong, then warning, then unknown.
func Worst(findings []Finding) State {
	rank := map[State]int{Fine: 0, Unknown: 1, Warning: 2, Wrong: 3}
	worst := Fine
	for _, f := range findings {
		if rank[f.State] > rank[worst] {
			worst = f.State
		}
	}
	return worst
}
