//go:build faults

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// load is what clients and operators do at the replicas while a cell has its fault, and what they saw.
type load struct {
	stage *stage
	row   *row
	// at are the addresses that clients use; those of the replicas unless something is in front of them.
	at   []string
	http *http.Client

	mu        sync.Mutex // guards what follows
	histories []*history
	chains    []*chain
	tokens    map[string]bool // all that were handed out
	worst     time.Duration   // that an answer took

	apps atomic.Int64
	stop context.CancelFunc
	done sync.WaitGroup
}

// reply is what a client got.
type reply struct {
	outcome outcome
	unsent  bool // nobody was there to take the request: nothing has happened
	fields  map[string]any
}

func (r reply) text(name string) string {
	text, _ := r.fields[name].(string)
	return text
}

// newLoad is a load without anybody in it yet.
func newLoad(s *stage, r *row) *load {
	l := &load{stage: s, row: r, tokens: make(map[string]bool), stop: func() {}}
	for _, replica := range s.replicas {
		l.at = append(l.at, replica.base)
	}
	l.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return l
}

// start has so many clients go through the lives of grants, one use tokens of the app itself, one have several tabs,
// and operators deploy apps, until end.
func (l *load) start(clients int) {
	do := make([]func(context.Context), clients, clients+3)
	for i := range do {
		do[i] = l.life
	}
	l.runs(append(do, l.own, l.tabs(), l.deploy)...)
}

// runs does each again and again, until end.
func (l *load) runs(do ...func(context.Context)) {
	ctx, stop := context.WithCancel(l.stage.t.Context())
	l.stop = stop
	for _, one := range do {
		l.done.Go(func() {
			for ctx.Err() == nil {
				one(ctx)
			}
		})
	}
}

// end stops the load, looks at every grant once more, and checks all histories.
func (l *load) end() {
	l.stop()
	l.done.Wait()
	var all sync.WaitGroup
	next := make(chan *chain)
	for range 8 {
		all.Go(func() {
			for c := range next {
				c.look(l.any())
			}
		})
	}
	for _, c := range l.chains {
		next <- c
	}
	close(next)
	all.Wait()
	l.http.CloseIdleConnections()
	for _, h := range l.histories {
		if wrong := h.check(); wrong != "" {
			l.row.violation("%s", wrong)
		}
	}
}

// history begins one.
func (l *load) history(h *history) *history {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.what = fmt.Sprintf("%s %d", h.what, len(l.histories))
	l.histories = append(l.histories, h)
	return h
}

// any is the address of one of the replicas.
func (l *load) any() string { return l.at[rand.IntN(len(l.at))] }

// pause is the time that a client takes between two requests.
func pause(ctx context.Context) {
	select {
	case <-time.After(time.Duration(2+rand.IntN(10)) * time.Millisecond):
	case <-ctx.Done():
	}
}

// call sends one request as the app. Requests are seen through when the load ends: their outcome is to be known.
func (l *load) call(base, path string, form url.Values) reply {
	return l.callAs(l.stage.app, base, path, form)
}

func (l *load) callAs(app credentials, base, path string, form url.Values) reply {
	req, err := http.NewRequest(http.MethodPost, base+path, strings.NewReader(form.Encode()))
	if err != nil {
		l.stage.t.Error(err)
		return reply{}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(app.ID), url.QueryEscape(app.Secret))
	start := time.Now()
	resp, err := l.http.Do(req)
	if err != nil {
		l.took(start)
		return l.failed(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	l.took(start)
	if err != nil {
		return l.failed(err)
	}
	got := reply{}
	if len(body) > 0 && json.Unmarshal(body, &got.fields) != nil && resp.StatusCode == http.StatusOK {
		l.row.violation("%s answers %q", path, body)
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		got.outcome = granted
		if active, is := got.fields["active"].(bool); is && !active {
			got.outcome = refused
		}
	case resp.StatusCode == http.StatusBadRequest && got.text("error") == "invalid_grant":
		got.outcome = refused
	case resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests ||
		resp.StatusCode == http.StatusBadGateway: // of what is in front
		l.row.fault(fmt.Sprint(resp.StatusCode))
	default:
		l.row.violation("%s answers %d %s", path, resp.StatusCode, bytes.TrimSpace(body))
	}
	return got
}

func (l *load) took(since time.Time) {
	took := time.Since(since)
	l.row.operation()
	l.mu.Lock()
	l.worst = max(l.worst, took)
	l.mu.Unlock()
}

// slowest is how long an answer has taken so far, at most.
func (l *load) slowest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worst
}

// failed counts a request without an answer.
func (l *load) failed(err error) reply {
	class, unsent := classOf(err)
	l.row.fault(class)
	return reply{unsent: unsent}
}

// classOf names the way in which a request failed. unsent: nobody took it.
func classOf(err error) (class string, unsent bool) {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused", true
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout", false
	}
	return "cut", false
}

// fresh notes tokens that nobody may have got before.
func (l *load) fresh(r reply) {
	for _, name := range []string{"access_token", "refresh_token"} {
		token := r.text(name)
		l.mu.Lock()
		twice := token != "" && l.tokens[token]
		l.tokens[token] = true
		l.mu.Unlock()
		if twice {
			l.row.violation("the same %s was handed out twice", name)
		}
	}
}

// chain is a grant as its client knows it.
type chain struct {
	load *load
	*history
	code string

	mu      sync.Mutex     // guards what follows
	refresh map[int]string // refresh tokens by generation
	access  map[int]string
	newest  int
}

// token is the refresh token of a generation.
func (c *chain) token(generation int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refresh[generation]
}

// has keeps what a reply brought.
func (c *chain) has(generation int, r reply) {
	if r.outcome != granted {
		return
	}
	c.load.fresh(r)
	if r.text("refresh_token") == "" || r.text("access_token") == "" {
		c.load.row.violation("%s: a reply without tokens", c.what)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh[generation], c.access[generation] = r.text("refresh_token"), r.text("access_token")
	c.newest = max(c.newest, generation)
}

// op does one operation of the grant's history. What nobody took is no part of it.
func (c *chain) op(in input, send func() reply) reply {
	call := time.Now()
	got := send()
	if got.unsent {
		return got
	}
	c.noted(in, call, got.outcome)
	return got
}

func (c *chain) exchange(base string) reply {
	got := c.op(input{verb: exchange}, func() reply {
		return c.load.call(base, "/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {c.code},
			"redirect_uri": {callback}, "code_verifier": {verifier}})
	})
	c.has(1, got)
	return got
}

func (c *chain) use(base string, generation int) reply {
	got := c.op(input{refresh, generation}, func() reply {
		return c.load.call(base, "/oauth/token", url.Values{"grant_type": {"refresh_token"},
			"refresh_token": {c.token(generation)}})
	})
	c.has(generation+1, got)
	return got
}

func (c *chain) revoke(base string, generation int) reply {
	c.mu.Lock()
	token := c.refresh[generation]
	if rand.IntN(2) == 0 {
		token = c.access[generation]
	}
	c.mu.Unlock()
	return c.op(input{revoke, generation}, func() reply {
		return c.load.call(base, "/oauth/revoke", url.Values{"token": {token}})
	})
}

// look asks about the tokens of the newest generation. A question without an answer is no part of the history.
func (c *chain) look(base string) {
	c.mu.Lock()
	generation, access := c.newest, c.access[c.newest]
	c.mu.Unlock()
	if generation == 0 {
		return
	}
	c.question(base, input{introspects, generation}, c.token(generation))
	c.question(base, input{tokenLives, generation}, access)
}

func (c *chain) question(base string, in input, token string) {
	call := time.Now()
	if got := c.load.call(base, "/oauth/introspect", url.Values{"token": {token}}); got.outcome != unknown {
		c.noted(in, call, got.outcome)
	}
}

// chain begins the history of the grant that a code stands for.
func (l *load) chain(code string) *chain {
	c := &chain{load: l, history: l.history(&history{what: "grant", model: grantModel}), code: code,
		refresh: make(map[int]string), access: make(map[int]string)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chains = append(l.chains, c)
	return c
}

// code gets somebody a code at one of the replicas. When there is none, that is noted, and some time has passed.
func (l *load) code(ctx context.Context, of *person) (code string, got bool) {
	code, err := of.code(ctx, l.any())
	if err == nil {
		return code, true
	}
	if ctx.Err() == nil {
		class, _ := classOf(err)
		l.row.fault("no code: " + class)
	}
	pause(ctx)
	return "", false
}

// life is one grant from its code to its end.
func (l *load) life(ctx context.Context) {
	code, got := l.code(ctx, l.stage.person)
	if !got {
		return
	}
	c := l.chain(code)
	twice := rand.IntN(10) == 0 // two send the same code
	for range 3 {
		if twice {
			together(func() { c.exchange(l.any()) }, func() { c.exchange(l.any()) })
		} else {
			c.exchange(l.any())
		}
		if c.newest > 0 || ctx.Err() != nil {
			break
		}
		pause(ctx)
	}
	if c.newest == 0 {
		return
	}
	lost := 0 // outcomes that are unknown; each one makes the history harder to check
	for range 1 + rand.IntN(5) {
		pause(ctx)
		generation := c.newest
		var got reply
		switch rand.IntN(8) {
		case 0: // two use the same token
			together(func() { got = c.use(l.any(), generation) }, func() { c.use(l.any(), generation) })
		case 1: // it is used while the grant is revoked
			together(func() { got = c.use(l.any(), generation) }, func() { c.revoke(l.any(), generation) })
		default:
			got = c.use(l.any(), generation)
		}
		if rand.IntN(3) == 0 {
			c.look(l.any())
		}
		if got.outcome == unknown && !got.unsent {
			lost++
		}
		if got.outcome == refused || lost > 3 || ctx.Err() != nil {
			break
		}
	}
	pause(ctx)
	switch rand.IntN(4) {
	case 0:
		c.revoke(l.any(), c.newest)
	case 1:
		c.use(l.any(), 1+rand.IntN(c.newest)) // a replay, if it is not the newest
	case 2:
		c.exchange(l.any()) // a replay
	default:
		return
	}
	c.look(l.any())
	if rand.IntN(2) == 0 {
		c.use(l.any(), c.newest)
		c.look(l.any())
	}
}

// own is a token of the app itself, which every replica knows.
func (l *load) own(ctx context.Context) {
	pause(ctx)
	got := l.call(l.any(), "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"}})
	l.fresh(got)
	if got.outcome != granted {
		return
	}
	if seen := l.call(l.any(), "/oauth/introspect",
		url.Values{"token": {got.text("access_token")}}); seen.outcome == refused {
		l.row.violation("a token of the app itself is not active")
	}
}

// deploy is the beginning of an app: versions are applied and its secret is replaced, by two operators at a time.
func (l *load) deploy(ctx context.Context) {
	name := fmt.Sprintf("app-%d", l.apps.Add(1))
	versions := l.history(&history{what: "versions of " + name, model: appModel})
	secrets := l.history(&history{what: "secrets of " + name, model: secretModel})
	manifest := func(version string) string {
		return strings.NewReplacer("name: shop", "name: "+name, "version: 1.0.0", "version: "+version, "Shop",
			name).Replace(shop)
	}
	apply := func(version string) bool {
		var got asked
		call := time.Now()
		got = l.ask(http.MethodPost, "/v1/apply", applying(manifest(version)))
		if class, unsent := classOf(got.err); got.err != nil && unsent {
			l.row.fault("admin " + class)
			return false
		}
		versions.noted(deployment{version}, call, deployed{outcome: l.adminOutcome(got)})
		return got.status == http.StatusOK
	}
	read := func() {
		call := time.Now()
		got := l.ask(http.MethodGet, "/v1/apps/"+name, nil)
		if got.status == http.StatusNotFound {
			versions.noted(deployment{}, call, deployed{outcome: granted})
			return
		}
		if l.adminOutcome(got) != granted {
			return
		}
		var app struct {
			Version string `json:"version"`
			Secrets []struct {
				ID string `json:"id"`
			} `json:"secrets"`
		}
		if err := json.Unmarshal(got.body, &app); err != nil {
			l.row.violation("describe app: %v", err)
			return
		}
		versions.noted(deployment{}, call, deployed{granted, app.Version})
		if len(app.Secrets) == 1 {
			secrets.noted(false, call, rotated{outcome: granted, now: app.Secrets[0].ID})
		}
	}
	rotate := func() {
		call := time.Now()
		got := l.ask(http.MethodPost, "/v1/apps/"+name+"/rotate", map[string]any{"compromised": true})
		if class, unsent := classOf(got.err); got.err != nil && unsent {
			l.row.fault("admin " + class)
			return
		}
		var ids struct{ Secret, Previous string }
		out := rotated{outcome: l.adminOutcome(got)}
		if out.outcome == granted {
			if err := json.Unmarshal(got.body, &ids); err != nil {
				l.row.violation("rotate: %v", err)
			}
			out.previous, out.now = ids.Previous, ids.Secret
		}
		secrets.noted(true, call, out)
	}
	if pause(ctx); !apply("1.0.0") {
		return
	}
	for i := range 4 {
		if ctx.Err() != nil {
			return
		}
		pause(ctx)
		together(func() { apply(fmt.Sprintf("1.1.%d", i)) }, func() { apply(fmt.Sprintf("1.2.%d", i)) }, read)
		pause(ctx)
		together(rotate, read)
	}
	read()
}

// ask asks the admin API of one of the replicas.
func (l *load) ask(method, path string, body any) asked {
	start := time.Now()
	got := l.stage.replicas[rand.IntN(len(l.stage.replicas))].ask(l.stage.t.Context(), method, path, body)
	l.took(start)
	return got
}

// adminOutcome judges a reply of the admin API.
func (l *load) adminOutcome(got asked) outcome {
	switch {
	case got.err != nil:
		class, _ := classOf(got.err)
		l.row.fault("admin " + class)
	case got.status == http.StatusOK:
		return granted
	case got.status == http.StatusConflict:
		return refused
	case got.status == http.StatusServiceUnavailable && got.code != "":
		l.row.fault("admin 503")
	default:
		l.row.violation("admin API: %s", got)
	}
	return unknown
}

// together runs all at once and returns when all are done.
func together(do ...func()) {
	var all sync.WaitGroup
	for _, one := range do {
		all.Go(one)
	}
	all.Wait()
}

// recovers measures how long it takes, from now, until everything works at every replica; it must, within the limit.
func (l *load) recovers(t testing.TB, within time.Duration) {
	t.Helper()
	start := time.Now()
	var last error
	for {
		err := l.works(t.Context())
		if err == nil {
			break
		}
		last = err
		if time.Since(start) > within {
			l.row.violation("not well again within %s: %v", within, err)
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(start)
	if l.row.recovered(took); took > 5*time.Second {
		l.row.note("until then: %v", last)
	}
}

// works does each thing once at each replica.
func (l *load) works(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	quiet := &load{stage: l.stage, row: newRow(""), at: l.at, http: l.http, tokens: make(map[string]bool)}
	for i, replica := range l.stage.replicas {
		if err := replica.ready(); err != nil {
			return fmt.Errorf("%s is not ready: %w", replica.name, err)
		}
		base := l.at[i%len(l.at)]
		code, err := l.stage.person.code(ctx, base)
		if err != nil {
			return fmt.Errorf("%s: %w", replica.name, err)
		}
		c := quiet.chain(code)
		if c.exchange(base).outcome != granted || c.use(base, 1).outcome != granted || c.revoke(base, 2).outcome != granted {
			return fmt.Errorf("%s: the life of a grant: %s", replica.name, strings.Join(strings.Fields(quiet.row.String()), " "))
		}
		if got := replica.ask(ctx, http.MethodPost, "/v1/apply", applying(shop)); got.status != http.StatusOK &&
			got.status != http.StatusConflict {
			return fmt.Errorf("%s: apply: %s", replica.name, got)
		}
	}
	return nil
}
