//go:build faults

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// The browser tabs of an app with a reuse interval share a refresh token, and do not tell each other of the next one.
// None of them is ever refused, and there is one next token for all: whoever sends one that was used before gets the
// newest, and the same as the others.

// tabsManifest is that of the app.
var tabsManifest = strings.Replace(shop, "name: shop", "name: tabs", 1) + "    refreshTokens: {reuseInterval: 1m}\n"

// handed is the outcome of using a refresh token, with the next one.
type handed struct {
	outcome
	next string
}

// newestUnknown stands for a refresh token that nobody has got yet.
const newestUnknown = "?"

// tabsModel takes the refresh token that is used; empty: the code is redeemed. Its state is all refresh tokens of the
// grant, the newest last.
var tabsModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		tokens, sent, got := strings.Fields(state.(string)), in.(string), out.(handed)
		last := len(tokens) - 1
		knows := func(token string) bool { return slices.Contains(tokens, token) }
		next := got.next
		if got.outcome == unknown {
			next = newestUnknown
		}
		switch {
		case got.outcome == refused:
			return false, state
		case sent == "":
			return last < 0, next
		case last < 0:
			return false, state
		case tokens[last] == newestUnknown && !knows(sent): // another tab has got it
			tokens[last] = sent
			return !knows(next), strings.Join(append(tokens, next), " ")
		case sent == tokens[last]:
			return !knows(next), strings.Join(append(tokens, next), " ")
		case !knows(sent):
			return false, state
		case got.outcome == unknown:
			return true, state
		case tokens[last] == newestUnknown && !knows(next):
			tokens[last] = next
			return true, strings.Join(tokens, " ")
		}
		return next == tokens[last], state
	},
	DescribeOperation: func(in, out any) string {
		got := out.(handed)
		return fmt.Sprintf("use %.12q: %s %.12q", in, got.outcome, got.next)
	},
}

// tabs gives what the tabs of a browser do with one grant.
func (l *load) tabs() func(context.Context) {
	t := l.stage.t
	l.stage.replicas[0].apply(t, tabsManifest)
	app := l.stage.replicas[0].credentials(t, "tabs")
	person := newPerson(l.stage.issuer, app)
	return func(ctx context.Context) {
		code, got := l.code(ctx, person)
		if !got {
			return
		}
		h := l.history(&history{what: "tabs", model: tabsModel})
		var mu sync.Mutex
		var held []string
		lost := 0
		send := func(token string, form url.Values) {
			call := time.Now()
			got := l.callAs(app, l.any(), "/oauth/token", form)
			if got.unsent {
				return
			}
			h.noted(token, call, handed{got.outcome, got.text("refresh_token")})
			mu.Lock()
			defer mu.Unlock()
			if got.outcome == unknown {
				lost++
			}
			if next := got.text("refresh_token"); next != "" && !slices.Contains(held, next) {
				held = append(held, next)
			}
		}
		send("", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback},
			"code_verifier": {verifier}})
		for range 1 + rand.IntN(5) {
			if len(held) == 0 || lost > 3 || ctx.Err() != nil { // each one that is lost makes the history harder to check
				return
			}
			pause(ctx)
			tab := func() {
				mu.Lock()
				token := held[max(0, len(held)-1-rand.IntN(3))]
				mu.Unlock()
				send(token, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
			}
			together(tab, tab, tab)
		}
	}
}
