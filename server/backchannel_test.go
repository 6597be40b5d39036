package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

const eventLogout = "http://schemas.openid.net/event/backchannel-logout"

// signedOutOf is p whose user has signed in at its app and out again: the outbox is filled. It gives the ID token.
func (p *idp) signedOutOf() string {
	p.t.Helper()
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	b.get(p.logoutURL("id_token_hint", id)).signedOut(p.t, "sign-out")
	return id
}

func (p *idp) outbox() []storage.Logout {
	p.t.Helper()
	list, err := p.store.Logouts(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return list
}

func (p *idp) audited(action string) []storage.AuditEntry {
	p.t.Helper()
	entries, _, err := p.store.Audit(p.t.Context(), storage.AuditQuery{})
	if err != nil {
		p.t.Fatal(err)
	}
	return slices.DeleteFunc(entries, func(e storage.AuditEntry) bool { return e.Action != action })
}

// run lets the server do what it does in the background, until the test ends.
func (p *idp) run() {
	ctx, stop := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.handler.(*server.Server).Run(ctx); err != nil {
			p.t.Error(err)
		}
	})
	p.t.Cleanup(func() { stop(); running.Wait() })
}

// A logout token says what Back-Channel Logout 1.0 section 2.4 wants, signed like the client's ID tokens.
func TestLogoutToken(t *testing.T) {
	for _, c := range []struct {
		alg, subject string
	}{{"", ""}, {"ES256", ""}, {"EdDSA", oauth.SubjectPairwise}} {
		t.Run(c.alg+c.subject, func(t *testing.T) {
			back := newReceiver(t)
			p := logoutIDP(t, func(app *storage.Client) {
				app.BackchannelLogoutURI, app.IDTokenSignedResponseAlg, app.SubjectType = back.URL+"/logout?app=1", c.alg, c.subject
				app.RedirectURIs = []string{callback}
			})
			id := p.signedOutOf()
			p.sendLogouts()
			p.sendLogouts()
			if len(back.tokens()) != 1 || len(p.outbox()) != 0 {
				t.Fatalf("%d tokens, %d left", len(back.tokens()), len(p.outbox()))
			}
			if body := back.got[0]; len(body) != 1 {
				t.Errorf("more than the token was sent: %v", body)
			}
			token := back.tokens()[0]
			parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA})
			if err != nil {
				t.Fatal(err)
			}
			keys := p.jwks().Key(parsed.Headers[0].KeyID)
			if len(keys) != 1 || parsed.Claims(keys[0], &map[string]any{}) != nil {
				t.Fatal("the published keys do not verify it")
			}
			header, claims := takenApart(t, token)
			idHeader, idClaims := takenApart(t, id)
			if header["typ"] != "logout+jwt" || header["alg"] != idHeader["alg"] || header["kid"] != idHeader["kid"] {
				t.Errorf("header %v, of the ID token %v", header, idHeader)
			}
			for _, name := range []string{"iss", "sub", "aud", "sid"} {
				if claims[name] != idClaims[name] || claims[name] == nil {
					t.Errorf("%s is %v, in the ID token %v", name, claims[name], idClaims[name])
				}
			}
			iat, exp := claims["iat"].(float64), claims["exp"].(float64)
			events, _ := claims["events"].(map[string]any)
			if exp <= iat || exp-iat > 120 || claims["jti"] == "" || fmt.Sprint(events[eventLogout]) != "map[]" ||
				len(events) != 1 || claims["nonce"] != nil || len(claims) != 8 {
				t.Errorf("claims %v", claims)
			}
			if p.good(token) {
				t.Error("it passes for an access token")
			}
			p.browser().get(p.logoutURL("id_token_hint", token)).wants(t, "it passes for an ID token", http.StatusBadRequest,
				"invalid_request")
		})
	}
}

// What tells an app of a logout calls the session by the name that this app knows: one for each sector of pairwise
// apps.
func TestLogoutTokensNameSessionsBySector(t *testing.T) {
	back := newReceiver(t)
	p := logoutIDP(t)
	with := func(name, host, subject string) *idp {
		return p.as(p.register(name, func(c *storage.Client) {
			c.RedirectURIs, c.SubjectType, c.BackchannelLogoutURI = []string{host + "/callback"}, subject, back.URL
			c.FrontchannelLogoutURI, c.FrontchannelLogoutSessionRequired = host+"/front/"+name, true
		}))
	}
	b := p.browser()
	sids, hint := map[string]string{}, ""
	for _, c := range []struct{ name, host, subject string }{
		{"one", "https://app.test", oauth.SubjectPairwise}, {"two", "https://app.test", oauth.SubjectPairwise},
		{"three", "https://other.test", oauth.SubjectPairwise}, {"four", "https://app.test", ""},
		{"five", "https://other.test", ""},
	} {
		q := with(c.name, c.host, c.subject)
		code := (&browser{q, b.http}).code("scope", "openid", "redirect_uri", c.host+"/callback")
		hint = q.exchange(code, "redirect_uri", c.host+"/callback").text("id_token")
		sids[c.name], _ = claimsOf(t, hint)["sid"].(string)
		sids[q.client.ID] = sids[c.name]
	}
	if sids["one"] == "" || sids["one"] != sids["two"] || sids["one"] == sids["three"] || sids["one"] == sids["four"] ||
		sids["three"] == sids["five"] || sids["four"] != sids["five"] {
		t.Errorf("sids %v", sids)
	}
	got := b.get(p.logoutURL("id_token_hint", hint))
	got.signedOut(t, "sign-out")
	for _, frame := range got.elements(t, "iframe") {
		u, err := url.Parse(frame["src"])
		if err != nil {
			t.Fatal(err)
		}
		if name := strings.TrimPrefix(u.Path, "/front/"); u.Query().Get("sid") != sids[name] {
			t.Errorf("the frame of %s names the session %s", name, u.Query().Get("sid"))
		}
	}
	p.sendLogouts()
	if len(back.tokens()) != 5 {
		t.Errorf("%d tokens", len(back.tokens()))
	}
	for _, token := range back.tokens() {
		if claims := claimsOf(t, token); claims["sid"] != sids[claims["aud"].(string)] {
			t.Errorf("the token of %v names the session %v", claims["aud"], claims["sid"])
		}
	}
}

// Told is each app that the session was used with, once, and no other.
func TestWhoIsToldOfALogout(t *testing.T) {
	a, b, apart, never := newReceiver(t), newReceiver(t), newReceiver(t), newReceiver(t)
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = a.URL })
	with := func(name, uri string) *idp {
		return p.as(p.register(name, func(c *storage.Client) { c.BackchannelLogoutURI = uri }))
	}
	second, api, silent := with("second", b.URL), with("api", apart.URL), with("silent", "")
	with("never", never.URL)
	user := p.browser()
	at := func(q *idp, scope string) reply { return q.exchange((&browser{q, user.http}).code("scope", scope)) }
	id := at(p, "openid").text("id_token")
	at(p, "openid offline_access") // the same app again
	at(second, "openid")
	at(api, "threads:read") // no sign-in
	at(silent, "openid")
	revoked := at(second, "openid") // whose app has already left
	if got := second.call("/oauth/revoke",
		url.Values{"token": {revoked.text("refresh_token")}}); got.status != http.StatusOK {
		t.Fatal(got.status)
	}
	user.get(p.logoutURL("id_token_hint", id)).signedOut(t, "sign-out")
	p.sendLogouts()
	for name, got := range map[string]struct {
		r    *receiver
		want int
	}{"first": {a, 1}, "second": {b, 1}, "no openid": {apart, 0}, "never used": {never, 0}} {
		if n := len(got.r.tokens()); n != got.want {
			t.Errorf("%s: told %d times, want %d", name, n, got.want)
		}
	}
	if claimsOf(t, a.tokens()[0])["aud"] != p.client.ID || claimsOf(t, b.tokens()[0])["aud"] != second.client.ID ||
		len(p.outbox()) != 0 {
		t.Error("the tokens are mixed up, or something is left to be sent")
	}
}

// What fails is tried again, later and later, for about an hour; then it is given up, and the audit log says so. Who
// refuses the token is not asked that often.
func TestLogoutIsTriedAgain(t *testing.T) {
	for rule, c := range map[string]struct {
		status, attempts int
		within           time.Duration
	}{
		"500": {500, 8, 70 * time.Minute}, "503": {503, 8, 70 * time.Minute}, "429": {429, 8, 70 * time.Minute},
		"a redirect": {302, 3, time.Minute}, "400": {400, 3, time.Minute}, "404": {404, 3, time.Minute},
	} {
		t.Run(rule, func(t *testing.T) {
			back := newReceiver(t)
			p := logoutIDP(t, func(app *storage.Client) { app.BackchannelLogoutURI = back.URL })
			p.clock.stop()
			back.answers(c.status)
			p.signedOutOf()
			start, last := p.clock.now(), 0
			for len(p.outbox()) > 0 && p.clock.now().Sub(start) < 3*time.Hour {
				p.sendLogouts()
				p.sendLogouts() // not before its time
				if n := len(back.tokens()); n > last+1 {
					t.Fatalf("attempt %d came too early", n)
				} else if n > last {
					last = n
				}
				p.clock.forward(5 * time.Second)
			}
			if took := p.clock.now().Sub(start); len(back.tokens()) != c.attempts || took > c.within {
				t.Errorf("%d attempts in %s", len(back.tokens()), took)
			}
			if e := p.audited(storage.AuditLogoutFailed); len(e) != 1 || e[0].App != "my-app" ||
				e[0].Outcome != storage.OutcomeFailed ||
				e[0].Reason != fmt.Sprintf("status %d", c.status) || !strings.Contains(e[0].Detail, p.client.ID) {
				t.Errorf("audit: %+v", e)
			}
		})
	}
	for _, status := range []int{200, 204} {
		back := newReceiver(t)
		p := logoutIDP(t, func(app *storage.Client) { app.BackchannelLogoutURI = back.URL })
		p.clock.stop()
		back.answers(503)
		p.signedOutOf()
		p.sendLogouts()
		back.answers(status)
		p.clock.forward(time.Minute)
		p.sendLogouts()
		tokens := back.tokens()
		if len(tokens) != 2 || len(p.outbox()) != 0 || len(p.audited(storage.AuditLogoutFailed)) != 0 {
			t.Fatalf("%d: %d tokens, %d left", status, len(tokens), len(p.outbox()))
		}
		if first, second := claimsOf(t, tokens[0]), claimsOf(t, tokens[1]); first["jti"] == second["jti"] ||
			second["exp"].(float64) <= first["exp"].(float64) {
			t.Error("the second attempt sends a token that is used or old")
		}
	}
}

// Nothing is lost when the server dies between the end of the session and the sending.
func TestLogoutSurvivesARestart(t *testing.T) {
	back := newReceiver(t)
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = back.URL })
	p.clock.stop()
	id := p.signedOutOf()
	if len(back.tokens()) != 0 {
		t.Fatal("sent by itself")
	}
	p.restart()
	p.sendLogouts()
	if got := back.tokens(); len(got) != 1 || claimsOf(t, got[0])["sid"] != claimsOf(t, id)["sid"] {
		t.Errorf("%d tokens", len(got))
	}
	// Dead between the claim and the answer: the claim ends by itself, and another replica sends.
	p.signedOutOf()
	if _, err := p.store.ClaimLogout(t.Context(), p.outbox()[0], p.clock.now().Add(30*time.Second)); err != nil {
		t.Fatal(err)
	}
	p.restart()
	p.sendLogouts()
	if len(back.tokens()) != 1 {
		t.Error("sent what somebody else has claimed")
	}
	p.clock.forward(31 * time.Second)
	p.sendLogouts()
	if len(back.tokens()) != 2 || len(p.outbox()) != 0 {
		t.Error("not sent after the claim has ended")
	}
}

// The running server sends at once, and an app that hangs delays no other.
func TestLogoutIsSentAtOnce(t *testing.T) {
	back := newReceiver(t)
	hang := make(chan struct{})
	arrived := make(chan struct{}, 100)
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-hang
	}))
	t.Cleanup(hanging.Close)
	t.Cleanup(func() { close(hang) })
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = hanging.URL })
	good := p.as(p.register("good", func(c *storage.Client) {
		c.BackchannelLogoutURI, c.PostLogoutRedirectURIs = back.URL, []string{afterLogout}
	}))
	p.run()
	p.signedOutOf()
	<-arrived
	for range 3 {
		good.signedOutOf()
		<-back.came
	}
	if n := len(back.tokens()); n != 3 {
		t.Errorf("%d tokens", n)
	}
}

// Replicas that look into the outbox at once send each entry once.
func TestReplicasSendEachLogoutOnce(t *testing.T) {
	back := newReceiver(t)
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = back.URL })
	q, r := p.replica(p.etcd.Client), p.replica(p.etcd.Client)
	for range 5 {
		p.signedOutOf()
	}
	together(12, func(i int) { []*idp{p, q, r}[i%3].sendLogouts() })
	seen := map[any]bool{}
	for _, token := range back.tokens() {
		seen[claimsOf(t, token)["sid"]] = true
	}
	if len(back.tokens()) != 5 || len(seen) != 5 || len(p.outbox()) != 0 {
		t.Errorf("%d tokens of %d sessions, %d left", len(back.tokens()), len(seen), len(p.outbox()))
	}
}

// The address is the client's as it is registered when the token is sent; who is gone is not told.
func TestLogoutOfAClientThatHasChanged(t *testing.T) {
	old, moved := newReceiver(t), newReceiver(t)
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = old.URL })
	p.signedOutOf()
	p.update("my-app", func(c *storage.Client) { c.BackchannelLogoutURI = moved.URL })
	p.sendLogouts()
	if len(old.tokens()) != 0 || len(moved.tokens()) != 1 {
		t.Errorf("told %d at the old address, %d at the new", len(old.tokens()), len(moved.tokens()))
	}
	p.signedOutOf()
	p.update("my-app", func(c *storage.Client) { c.BackchannelLogoutURI = "" })
	p.sendLogouts()
	if len(p.outbox()) != 0 || len(moved.tokens()) != 1 {
		t.Errorf("without an address: %d left, %d told", len(p.outbox()), len(moved.tokens()))
	}
	p.update("my-app", func(c *storage.Client) { c.BackchannelLogoutURI = moved.URL })
	p.signedOutOf()
	p.deleteApp()
	p.sendLogouts()
	if len(p.outbox()) != 0 || len(moved.tokens()) != 1 || len(p.audited(storage.AuditLogoutFailed)) != 0 {
		t.Errorf("removed: %d left, %d told", len(p.outbox()), len(moved.tokens()))
	}
}

// Back-channel logout reaches no address that is not public, follows no redirect, and reads little (SSRF).
func TestBackchannelLogoutSSRF(t *testing.T) {
	inside := newReceiver(t)
	p := newIDP(t, func(c *server.Config) { c.Outbound = outbound.New(outbound.Options{}) })
	p.clock.stop()
	tried := 0
	for rule, address := range map[string]string{
		"loopback": inside.URL, "loopback by name": strings.Replace(inside.URL, "127.0.0.1", "localhost", 1),
		"https to loopback": strings.Replace(inside.URL, "http:", "https:", 1),
		"private":           "https://10.0.0.1/", "metadata": "http://169.254.169.254/", "file": "file:///etc/passwd",
		"user info": "https://a:b@127.0.0.1/", "unspecified": "https://0.0.0.0/",
	} {
		p.update("my-app", func(c *storage.Client) { c.BackchannelLogoutURI = address })
		p.signedOutOf()
		p.sendLogouts()
		tried++
		if list := p.outbox(); len(list) != tried || slices.ContainsFunc(list, func(l storage.Logout) bool {
			return l.Attempts != 1
		}) {
			t.Errorf("%s: %+v", rule, list)
		}
	}
	redirecting := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	t.Cleanup(redirecting.Close)
	p = logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = redirecting.URL })
	p.signedOutOf()
	p.sendLogouts()
	if len(inside.tokens()) != 0 || len(p.outbox()) != 1 {
		t.Error("a redirect was followed, or taken for a yes")
	}
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(endless.Close)
	p = logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = endless.URL })
	p.signedOutOf()
	p.sendLogouts()
	if len(p.outbox()) != 0 {
		t.Error("200 with a long body is a yes all the same")
	}
}

// A fault of storage at any step of the sending: the client is told in the end, at least once.
func TestFaultsWhileALogoutIsSent(t *testing.T) {
	for _, sent := range []bool{false, true} {
		for n := int64(1); n <= 3; n++ {
			back := newReceiver(t)
			p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = back.URL })
			p.clock.stop()
			p.signedOutOf()
			fired := p.nth(n, sent)
			err := p.handler.(*server.Server).SendLogouts(t.Context())
			p.etcd.Inject(nil)
			if err == nil || !fired.Load() {
				t.Fatalf("fault %d was not met: %v", n, err)
			}
			p.clock.forward(time.Minute)
			p.sendLogouts()
			if told := len(back.tokens()); told == 0 || told > 2 || len(p.outbox()) != 0 {
				t.Errorf("fault %d, sent %v: told %d times, %d left", n, sent, told, len(p.outbox()))
			}
		}
	}
}

// A fault of storage while a session ends: 503, and nothing has happened, or all of it.
func TestFaultsOfLogout(t *testing.T) {
	back := newReceiver(t)
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = back.URL })
	p.clock.stop()
	p.tokens("scope", "openid") // the shared leases are there
	for rule, c := range map[string]struct {
		steps int64
		ask   func(b *browser, id string) func() page
	}{
		"with a hint": {3, func(b *browser, id string) func() page {
			return func() page { return b.get(p.logoutURL("id_token_hint", id, "post_logout_redirect_uri", afterLogout)) }
		}},
		"after the question": {3, func(b *browser, _ string) func() page {
			question := b.get(p.logoutURL("client_id", p.client.ID, "post_logout_redirect_uri", afterLogout))
			return func() page { return b.decide(question, "signout") }
		}},
		"the question": {1, func(b *browser, _ string) func() page { return func() page { return b.get(p.logoutURL()) } }},
		"front page":   {1, func(b *browser, _ string) func() page { return func() page { return b.get(p.issuer + "/") } }},
	} {
		for _, sent := range []bool{false, true} {
			for n := int64(1); n <= c.steps; n++ {
				b := p.browser()
				got := p.exchange(b.code("scope", "openid"))
				before, request := len(p.outbox()), c.ask(b, got.text("id_token"))
				fired := p.nth(n, sent)
				answer := request()
				p.etcd.Inject(nil)
				if !fired.Load() {
					t.Fatalf("%s: step %d was not taken", rule, n)
				}
				answer.wants(t, rule, http.StatusServiceUnavailable, "temporarily_unavailable")
				if strings.Contains(answer.body, "injected") || answer.header.Get("Set-Cookie") != "" {
					t.Errorf("%s: fault %d shows, or took the cookie", rule, n)
				}
				ended := n == c.steps && c.steps > 1 && sent
				if state, want := fmt.Sprint(b.signedInHere(), p.active(got.text("access_token")), len(p.outbox())-before),
					map[bool]string{false: "true true 0", true: "false false 1"}[ended]; state != want {
					t.Errorf("%s: fault %d, sent %v: %s, want %s", rule, n, sent, state, want)
				}
				if c.steps > 1 {
					if again := request(); again.location == nil || again.location.String() != afterLogout || b.signedInHere() {
						t.Errorf("%s: afterwards: %d to %v", rule, again.status, again.location)
					}
				}
			}
		}
	}
}

// While storage is away for long, the running sender waits for it, and sends then.
func TestLogoutSenderOutlastsAnOutage(t *testing.T) {
	back := newReceiver(t)
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = back.URL })
	p.signedOutOf()
	looked := make(chan struct{}, 1000)
	var well atomic.Bool
	p.etcd.Inject(func(bool, bool) error {
		if well.Load() {
			return nil
		}
		looked <- struct{}{}
		return errors.New(faultText)
	})
	p.run()
	<-looked
	well.Store(true)
	p.etcd.Inject(nil)
	p.signedOutOf() // which wakes the sender
	<-back.came
	<-back.came
	if len(back.tokens()) != 2 {
		t.Errorf("%d tokens", len(back.tokens()))
	}
}
