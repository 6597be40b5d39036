//go:build faults

package faults

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What happens to a grant, as its clients see it, is a history: operations that overlap in time, each with its outcome.
// It is right if the operations could have happened one at a time, each between its call and its reply, with the
// outcomes that [grantModel] gives (linearizability). An operation whose outcome is not known happened at some time
// after its call, or never: its reply is at the end of time, where it contradicts nothing. So a lost acknowledgement is
// a contradiction, and so are two successors of one refresh token, and tokens after an acknowledged revocation.

// verb is what was asked.
type verb int

const (
	exchange    verb = iota // a code is redeemed
	refresh                 // a refresh token of some generation is used
	revoke                  // the grant is revoked by one of its tokens
	introspects             // is a refresh token of some generation active?
	tokenLives              // is an access token active?
)

func (v verb) String() string {
	return [...]string{"exchange", "refresh", "revoke", "introspect refresh token", "introspect access token"}[v]
}

// outcome is how it ended.
type outcome int

const (
	unknown outcome = iota // done, or not, or to be done yet
	granted                // tokens, active, or revoked
	refused                // invalid_grant, or not active
)

func (o outcome) known() bool { return o != unknown }

func (o outcome) String() string { return [...]string{"?", "yes", "no"}[o] }

type input struct {
	verb       verb
	generation int // of the refresh token
}

// grantState is a grant: of no generation before its code is redeemed, and dead once it was revoked or replayed.
type grantState struct {
	generation int
	dead       bool
}

// step does one operation on a grant. It reports whether that can have this outcome.
func (g grantState) step(in input, out outcome) (bool, grantState) {
	alive := g.generation > 0 && !g.dead
	killed := grantState{g.generation, true}
	after, yes := g, false
	switch in.verb {
	case exchange:
		if after = killed; g.generation == 0 && !g.dead {
			after, yes = grantState{generation: 1}, true
		}
	case refresh:
		switch {
		case alive && in.generation == g.generation:
			after, yes = grantState{generation: g.generation + 1}, true
		case alive && in.generation < g.generation:
			after = killed
		case alive || g.generation == 0:
			return out == unknown, g // nobody can have got such a token yet
		}
	case revoke:
		after, yes = killed, true
	case introspects:
		yes = alive && in.generation == g.generation
	case tokenLives:
		yes = alive
	}
	return out == unknown || yes == (out == granted), after
}

var grantModel = porcupine.Model{
	Init: func() any { return grantState{} },
	Step: func(state, in, out any) (bool, any) {
		return state.(grantState).step(in.(input), out.(outcome))
	},
	DescribeOperation: func(in, out any) string {
		i := in.(input)
		return fmt.Sprintf("%s %d: %s", i.verb, i.generation, out.(outcome))
	},
}

// deployment is one operation on an app: a version is applied, or read.
type deployment struct {
	apply string // empty: it is read
}

// deployed is its outcome.
type deployed struct {
	outcome
	version string // that was read
}

// appModel is a register: what was applied last is what is read.
var appModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		d, got := in.(deployment), out.(deployed)
		switch {
		case d.apply == "":
			return got.outcome == unknown || got.version == state, state
		case got.outcome == refused: // it says that nothing was changed
			return true, state
		}
		return true, d.apply
	},
	DescribeOperation: func(in, out any) string {
		d, got := in.(deployment), out.(deployed)
		return fmt.Sprintf("apply %q: %s %s", d.apply, got.outcome, got.version)
	},
}

// rotated is the outcome of replacing the secret of an app at once, or of reading which one it has.
type rotated struct {
	outcome
	previous, now string
}

// secretState is the secret that an app has: empty when nobody knows, after a rotation whose outcome is unknown. ended
// are those that it never has again.
type secretState struct{ now, ended string }

func (s secretState) has(id string) (bool, secretState) {
	if s.now != "" && s.now != id || strings.Contains(s.ended, id) {
		return false, s
	}
	return true, secretState{id, s.ended}
}

// secretModel takes true for a rotation and false for a reading.
var secretModel = porcupine.Model{
	Init: func() any { return secretState{} },
	Step: func(state, in, out any) (bool, any) {
		s, got := state.(secretState), out.(rotated)
		switch {
		case got.outcome == refused:
			return true, s
		case got.outcome == unknown && in.(bool):
			return true, secretState{"", s.ended + " " + s.now}
		case got.outcome == unknown:
			return true, s
		case !in.(bool):
			return s.has(got.now)
		}
		held, s := s.has(got.previous)
		return held, secretState{got.now, s.ended + " " + got.previous}
	},
	DescribeOperation: func(in, out any) string {
		got := out.(rotated)
		return fmt.Sprintf("rotate %v: %s %s -> %s", in, got.outcome, got.previous, got.now)
	},
}

// history is what happened to one thing.
type history struct {
	what  string
	model porcupine.Model

	mu  sync.Mutex // guards ops
	ops []porcupine.Operation
}

// began is the beginning of time.
var began = time.Now()

// noted adds an operation that has just ended.
func (h *history) noted(in any, call time.Time, out interface{ known() bool }) {
	end := int64(math.MaxInt64)
	if out.known() {
		end = time.Since(began).Nanoseconds()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{Input: in, Call: call.Sub(began).Nanoseconds(), Output: out, Return: end})
}

// check says what is wrong with the history; "" is nothing.
func (h *history) check() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	result := porcupine.CheckOperationsTimeout(h.model, h.ops, 20*time.Second)
	if result == porcupine.Ok {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: the history cannot have happened (%s):", h.what, result)
	for _, op := range h.ops {
		end := "never"
		if op.Return != math.MaxInt64 {
			end = fmt.Sprintf("%.3fs", time.Duration(op.Return).Seconds())
		}
		fmt.Fprintf(&b, "\n    %.3fs to %s  %s", time.Duration(op.Call).Seconds(), end,
			h.model.DescribeOperation(op.Input, op.Output))
	}
	return b.String()
}

// The models refuse what they are there to find.
func TestModels(t *testing.T) {
	type op struct {
		in        any
		out       any
		call, end int64
	}
	const never = math.MaxInt64
	for _, c := range []struct {
		rule  string
		model porcupine.Model
		right bool
		ops   []op
	}{
		{"one after the other", grantModel, true, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{refresh, 1}, granted, 2, 3}, {input{refresh, 2}, granted, 4, 5},
			{input{revoke, 3}, granted, 6, 7}, {input{refresh, 3}, refused, 8, 9}}},
		{"two successors", grantModel, false, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{refresh, 1}, granted, 2, 5}, {input{refresh, 1}, granted, 3, 6}}},
		{"a code redeemed twice", grantModel, false, []op{
			{input{exchange, 0}, granted, 0, 5}, {input{exchange, 0}, granted, 1, 6}}},
		{"a replay that does not end the grant", grantModel, false, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{refresh, 1}, granted, 2, 3}, {input{refresh, 1}, refused, 4, 5},
			{input{refresh, 2}, granted, 6, 7}}},
		{"a refresh after a revocation", grantModel, false, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{revoke, 1}, granted, 2, 3}, {input{refresh, 1}, granted, 4, 5}}},
		{"a refresh beside a revocation", grantModel, true, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{revoke, 1}, granted, 2, 6}, {input{refresh, 1}, granted, 3, 5}}},
		{"a lost acknowledgement", grantModel, false, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{refresh, 1}, granted, 2, 3}, {input{introspects, 2}, refused, 4, 5}}},
		{"a token that lives after a revocation", grantModel, false, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{revoke, 1}, granted, 2, 3}, {input{tokenLives, 1}, granted, 4, 5}}},
		{"an unknown refresh that happened", grantModel, true, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{refresh, 1}, unknown, 2, never}, {input{refresh, 1}, refused, 3, 4}}},
		{"an unknown refresh that did not", grantModel, true, []op{
			{input{exchange, 0}, granted, 0, 1}, {input{refresh, 1}, unknown, 2, never}, {input{refresh, 1}, granted, 3, 4}}},
		{"an unknown exchange that happened late", grantModel, true, []op{
			{input{exchange, 0}, unknown, 0, never}, {input{exchange, 0}, granted, 3, 4}, {input{refresh, 1}, refused, 5, 6}}},
		{"tabs with one successor", tabsModel, true, []op{
			{"", handed{granted, "1"}, 0, 1}, {"1", handed{granted, "2"}, 2, 5}, {"1", handed{granted, "2"}, 3, 6},
			{"2", handed{granted, "3"}, 7, 8}, {"1", handed{granted, "3"}, 9, 10}}},
		{"tabs with two", tabsModel, false, []op{
			{"", handed{granted, "1"}, 0, 1}, {"1", handed{granted, "2"}, 2, 5}, {"1", handed{granted, "3"}, 3, 6}}},
		{"a tab that gets what is old", tabsModel, false, []op{
			{"", handed{granted, "1"}, 0, 1}, {"1", handed{granted, "2"}, 2, 3}, {"2", handed{granted, "3"}, 4, 5},
			{"1", handed{granted, "2"}, 6, 7}}},
		{"a tab that is refused", tabsModel, false, []op{
			{"", handed{granted, "1"}, 0, 1}, {"1", handed{granted, "2"}, 2, 3}, {"1", handed{outcome: refused}, 4, 5}}},
		{"tabs of which one was lost", tabsModel, true, []op{
			{"", handed{granted, "1"}, 0, 1}, {"1", handed{outcome: unknown}, 2, never}, {"1", handed{granted, "2"}, 3, 4},
			{"2", handed{outcome: unknown}, 5, never}, {"1", handed{granted, "3"}, 6, 7}, {"3", handed{granted, "4"}, 8, 9}}},
		{"a version that is lost", appModel, false, []op{
			{deployment{"1"}, deployed{outcome: granted}, 0, 1}, {deployment{"2"}, deployed{outcome: granted}, 2, 3},
			{deployment{}, deployed{granted, "1"}, 4, 5}}},
		{"a version that was unknown", appModel, true, []op{
			{deployment{"1"}, deployed{outcome: granted}, 0, 1}, {deployment{"2"}, deployed{outcome: unknown}, 2, never},
			{deployment{}, deployed{granted, "1"}, 4, 5}, {deployment{}, deployed{granted, "2"}, 6, 7}}},
		{"a secret that comes back", secretModel, false, []op{
			{true, rotated{granted, "a", "b"}, 0, 1}, {true, rotated{outcome: unknown}, 2, never},
			{false, rotated{granted, "", "a"}, 3, 4}}},
		{"a rotation that was unknown", secretModel, true, []op{
			{true, rotated{granted, "a", "b"}, 0, 1}, {true, rotated{outcome: unknown}, 2, never},
			{false, rotated{granted, "", "c"}, 3, 4}}},
	} {
		h := &history{what: c.rule, model: c.model}
		for _, o := range c.ops {
			h.ops = append(h.ops, porcupine.Operation{Input: o.in, Output: o.out, Call: o.call, Return: o.end})
		}
		if wrong := h.check(); (wrong == "") != c.right {
			t.Errorf("%s: found %q", c.rule, wrong)
		}
	}
}
