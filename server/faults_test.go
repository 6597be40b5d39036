package server_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

const faultText = "etcdserver: injected at 10.0.0.7"

// nth makes the n-th request to etcd fail from now on, once, before or after etcd has done it. Fired says whether it
// came to that.
func (p *idp) nth(n int64, afterwards bool) (fired *atomic.Bool) {
	var seen atomic.Int64
	fired = new(atomic.Bool)
	p.etcd.Inject(func(_, sent bool) error {
		if sent != afterwards || seen.Add(1) != n {
			return nil
		}
		fired.Store(true)
		return errors.New(faultText)
	})
	return fired
}

// answer is what a faulted request got, of a browser or a machine.
type answer struct {
	status int
	body   string
	header http.Header
}

func ofPage(got page) answer   { return answer{got.status, got.body, got.header} }
func ofReply(got reply) answer { return answer{got.status, got.raw, got.header} }

// Each request of each kind meets a fault of storage at each of its steps. It says 503 and no more; when the fault is
// over, the same thing works, unless etcd had done it before the fault and it can be done only once.
func TestStorageFaults(t *testing.T) {
	p := newIDP(t, withManaged)
	p.clock.stop()
	p.restart()
	people := 0
	somebody := func(p *idp) (id, login string) {
		people++
		id = fmt.Sprintf("somebody-%d", people)
		p.managed(id, id+"@app.test", "", string(userHash()))
		return id, id + "@app.test"
	}
	for _, c := range []struct {
		rule string
		// prepare returns the request, and what must hold once storage is well again; done says that etcd did it all the
		// same.
		prepare func(p *idp) (request func() answer, afterwards func(t *testing.T, done bool))
		fine    int // status when the fault did not matter
	}{
		{"code exchange", func(p *idp) (func() answer, func(*testing.T, bool)) {
			code := p.code()
			return func() answer { return ofReply(p.exchange(code)) }, func(t *testing.T, done bool) {
				got := p.exchange(code)
				if !done && got.status != http.StatusOK {
					t.Errorf("the code does not work any more: %d %s", got.status, got.raw)
				}
				if done { // the reply is lost: to hand out tokens again would be to accept a replay
					got.wants(t, "the code was redeemed", http.StatusBadRequest, "invalid_grant")
				}
			}
		}, 200},
		{"refresh", func(p *idp) (func() answer, func(*testing.T, bool)) {
			token := p.tokens().text("refresh_token")
			return func() answer { return ofReply(p.refresh(token)) }, func(t *testing.T, done bool) {
				got := p.refresh(token)
				if !done && got.status != http.StatusOK {
					t.Errorf("the token does not work any more: %d %s", got.status, got.raw)
				}
				if done { // without a reuse interval the successor is lost, and this is a replay
					got.wants(t, "the token was used", http.StatusBadRequest, "invalid_grant")
				}
			}
		}, 200},
		{"introspection", func(p *idp) (func() answer, func(*testing.T, bool)) {
			token := p.tokens().text("access_token")
			return func() answer { return ofReply(p.call("/oauth/introspect", url.Values{"token": {token}})) },
				func(t *testing.T, _ bool) {
					if !p.active(token) {
						t.Error("not active any more")
					}
				}
		}, 200},
		{"introspection of a refresh token", func(p *idp) (func() answer, func(*testing.T, bool)) {
			token := p.tokens().text("refresh_token")
			return func() answer { return ofReply(p.call("/oauth/introspect", url.Values{"token": {token}})) },
				func(t *testing.T, _ bool) {
					if !p.active(token) {
						t.Error("not active any more")
					}
				}
		}, 200},
		{"userinfo", func(p *idp) (func() answer, func(*testing.T, bool)) {
			token := p.tokens("scope", "openid").text("access_token")
			return func() answer { return ofReply(p.userinfo(token)) }, func(t *testing.T, _ bool) {
				if got := p.userinfo(token); got.status != http.StatusOK {
					t.Errorf("%d %s", got.status, got.raw)
				}
			}
		}, 200},
		{"revocation", func(p *idp) (func() answer, func(*testing.T, bool)) {
			token := p.tokens().text("refresh_token")
			revoke := func() reply { return p.call("/oauth/revoke", url.Values{"token": {token}}) }
			return func() answer { return ofReply(revoke()) }, func(t *testing.T, done bool) {
				if p.active(token) == done {
					t.Errorf("active %v", !done)
				}
				if got := revoke(); got.status != http.StatusOK || p.active(token) {
					t.Errorf("%d, active %v", got.status, p.active(token))
				}
			}
		}, 200},
		{"code exchange with an assertion", func(p *idp) (func() answer, func(*testing.T, bool)) {
			k := p.asKeyed("key-app")
			code, assertion := k.code(), k.assertion("ES256", nil)
			exchange := func() reply { return k.asserting("/oauth/token", assertion, redeeming(code)) }
			return func() answer { return ofReply(exchange()) }, func(t *testing.T, done bool) {
				got := exchange()
				if !done && got.status != http.StatusOK {
					t.Errorf("code or assertion do not work any more: %d %s", got.status, got.raw)
				}
				if done {
					got.wants(t, "both were used", http.StatusUnauthorized, "invalid_client")
				}
			}
		}, 200},
		{"refresh with an assertion", func(p *idp) (func() answer, func(*testing.T, bool)) {
			k := p.asKeyed("key-app")
			token := k.asserting("/oauth/token", k.assertion("ES256", nil), redeeming(k.code())).text("refresh_token")
			assertion := k.assertion("ES256", nil)
			refresh := func() reply { return k.asserting("/oauth/token", assertion, refreshing(token)) }
			return func() answer { return ofReply(refresh()) }, func(t *testing.T, done bool) {
				got := refresh()
				if !done && got.status != http.StatusOK {
					t.Errorf("token or assertion do not work any more: %d %s", got.status, got.raw)
				}
				if done {
					got.wants(t, "both were used", http.StatusUnauthorized, "invalid_client")
				}
			}
		}, 200},
		{"client credentials", func(p *idp) (func() answer, func(*testing.T, bool)) {
			s := p.asService("batch")
			return func() answer { return ofReply(s.call("/oauth/token", forItself("threads:read"))) },
				func(t *testing.T, _ bool) {
					if got := s.call("/oauth/token", forItself("threads:read")); got.status != http.StatusOK {
						t.Errorf("%d %s", got.status, got.raw)
					}
				}
		}, 200},
		{"client credentials with an assertion", func(p *idp) (func() answer, func(*testing.T, bool)) {
			k := p.asKeyed("key-app")
			assertion := k.assertion("ES256", nil)
			ask := func() reply { return k.asserting("/oauth/token", assertion, forItself("threads:read")) }
			return func() answer { return ofReply(ask()) }, func(t *testing.T, done bool) {
				got := ask()
				if !done && got.status != http.StatusOK {
					t.Errorf("the assertion does not work any more: %d %s", got.status, got.raw)
				}
				if done {
					got.wants(t, "it was used", http.StatusUnauthorized, "invalid_client")
				}
			}
		}, 200},
		{"a client's own token", func(p *idp) (func() answer, func(*testing.T, bool)) {
			s := p.asService("batch")
			token := s.call("/oauth/token", forItself("threads:read")).text("access_token")
			return func() answer { return ofReply(s.call("/oauth/introspect", url.Values{"token": {token}})) },
				func(t *testing.T, _ bool) {
					if !s.active(token) {
						t.Error("not active any more")
					}
				}
		}, 200},
		{"revocation of a client's own token", func(p *idp) (func() answer, func(*testing.T, bool)) {
			s := p.asService("batch")
			token := s.call("/oauth/token", forItself("threads:read")).text("access_token")
			revoke := func() reply { return s.call("/oauth/revoke", url.Values{"token": {token}}) }
			return func() answer { return ofReply(revoke()) }, func(t *testing.T, done bool) {
				if s.active(token) == done {
					t.Errorf("active %v", !done)
				}
				if got := revoke(); got.status != http.StatusOK || s.active(token) {
					t.Errorf("%d, active %v", got.status, s.active(token))
				}
			}
		}, 200},
		{"a client that memory does not know", func(p *idp) (func() answer, func(*testing.T, bool)) {
			return func() answer { return ofReply(p.exchange("x", "client_id", "unknown", "client_secret", "x")) },
				func(t *testing.T, _ bool) {
					p.exchange("x", "client_id", "unknown", "client_secret", "x").wants(t, "unknown", http.StatusUnauthorized,
						"invalid_client")
				}
		}, 401},
		{"authorize with an unknown client", func(p *idp) (func() answer, func(*testing.T, bool)) {
			b, address := p.browser(), p.authorizeURL("client_id", "unknown")
			return func() answer { return ofPage(b.get(address)) }, func(t *testing.T, _ bool) {
				b.get(address).wants(t, "unknown", http.StatusBadRequest, "invalid_client")
			}
		}, 400},
		{"authorize when all is known", func(p *idp) (func() answer, func(*testing.T, bool)) {
			b := p.browser()
			b.code()
			return func() answer { return ofPage(b.get(p.authorizeURL("prompt", "none"))) }, func(t *testing.T, _ bool) {
				b.answered(b.get(p.authorizeURL("prompt", "none")), "afterwards")
			}
		}, 303},
		{"sign-in", func(p *idp) (func() answer, func(*testing.T, bool)) {
			b := p.browser()
			signIn := b.get(p.authorizeURL())
			return func() answer { return ofPage(b.signIn(signIn, userEmail, userPassword)) }, func(t *testing.T, _ bool) {
				if b.cookie("session") != "" {
					t.Error("signed in by a request that failed")
				}
				if got := b.follow(b.signIn(signIn, userEmail, userPassword)); got.asks() != "decision" {
					t.Errorf("%d", got.status)
				}
			}
		}, 303},
		{"sign-in to a managed account whose hash is made anew", func(p *idp) (func() answer, func(*testing.T, bool)) {
			_, login := somebody(p)
			b := p.browser()
			signIn := b.get(p.authorizeURL())
			return func() answer { return ofPage(b.signIn(signIn, login, userPassword)) }, func(t *testing.T, _ bool) {
				if b.cookie("session") != "" {
					t.Error("signed in by a request that failed")
				}
				if got := b.follow(b.signIn(signIn, login, userPassword)); got.asks() != "decision" {
					t.Errorf("%d", got.status)
				}
			}
		}, 303},
		{"first of two factors", func(p *idp) (func() answer, func(*testing.T, bool)) {
			id, login := somebody(p)
			p.enrol(id)
			b := p.browser()
			signIn := b.get(p.authorizeURL())
			return func() answer { return ofPage(b.signIn(signIn, login, userPassword)) }, func(t *testing.T, _ bool) {
				if b.cookie("half") != "" {
					t.Error("half signed in by a request that failed")
				}
				if got := b.follow(b.signIn(signIn, login, userPassword)); !strings.Contains(got.body, `name="code"`) {
					t.Errorf("%d", got.status)
				}
			}
		}, 303},
		{"second factor", func(p *idp) (func() answer, func(*testing.T, bool)) {
			id, login := somebody(p)
			_, recovery := p.enrol(id)
			b := p.browser()
			asked := b.follow(b.signIn(b.get(p.authorizeURL()), login, userPassword))
			return func() answer { return ofPage(b.prove(asked, "recovery", recovery[0])) }, func(t *testing.T, done bool) {
				if b.cookie("session") != "" {
					t.Error("signed in by a request that failed")
				}
				again := b.follow(b.prove(asked, "recovery", recovery[0]))
				if again.asks() != "decision" && done { // the reply is lost, and the code is used up
					again = b.follow(b.prove(asked, "recovery", recovery[1]))
				}
				if again.asks() != "decision" {
					t.Errorf("%d %s", again.status, shown(again.body))
				}
			}
		}, 303},
		{"factor page", func(p *idp) (func() answer, func(*testing.T, bool)) {
			id, login := somebody(p)
			p.enrol(id)
			b := p.browser()
			to := b.signIn(b.get(p.authorizeURL()), login, userPassword).location.String()
			return func() answer { return ofPage(b.get(to)) }, func(t *testing.T, _ bool) {
				if got := b.get(to); !strings.Contains(got.body, `name="code"`) {
					t.Errorf("%d", got.status)
				}
			}
		}, 200},
		{"consent", func(p *idp) (func() answer, func(*testing.T, bool)) {
			b, consent := p.signedIn(userEmail)
			return func() answer { return ofPage(b.decide(consent, "allow")) }, func(t *testing.T, _ bool) {
				b.answered(b.decide(consent, "allow"), "afterwards")
			}
		}, 303},
		{"consent to a pushed request", func(p *idp) (func() answer, func(*testing.T, bool)) {
			b := p.browser()
			consent := b.follow(b.signIn(b.get(p.pushedURL(p.push())), userEmail, userPassword))
			return func() answer { return ofPage(b.decide(consent, "allow")) }, func(t *testing.T, _ bool) {
				b.answered(b.decide(consent, "allow"), "afterwards")
			}
		}, 303},
		{"a pushed request when all is known", func(p *idp) (func() answer, func(*testing.T, bool)) {
			b := p.browser()
			b.code()
			address := p.pushedURL(p.push())
			return func() answer { return ofPage(b.get(address)) }, func(t *testing.T, done bool) {
				if got := b.get(address); done && got.status != http.StatusSeeOther {
					got.wants(t, "it was answered", http.StatusBadRequest, "invalid_request_uri")
				} else {
					b.answered(got, "afterwards")
				}
			}
		}, 303},
		{"not you", func(p *idp) (func() answer, func(*testing.T, bool)) {
			b := p.browser()
			b.code()
			consent := b.get(p.authorizeURL("prompt", "consent"))
			return func() answer { return ofPage(b.decide(consent, "switch")) }, func(t *testing.T, _ bool) {
				if got := b.follow(b.decide(consent, "switch")); got.asks() != "password" {
					t.Errorf("%d", got.status)
				}
			}
		}, 303},
	} {
		t.Run(c.rule, func(t *testing.T) {
			p.t = t
			prepare := func() (func() answer, func(*testing.T, bool)) {
				if _, err := p.etcd.Client.Delete(t.Context(), p.etcd.Prefix+"consents/", clientv3.WithPrefix()); err != nil {
					t.Fatal(err)
				}
				request, check := c.prepare(p)
				// The one before is done. etcd's client and its in-process server may wait for each other for ever when hundreds
				// of watches end at once.
				p.store.Close()
				p.restart() // which has no shared leases yet: granting one is a step that can fail, too
				return request, check
			}
			request, _ := prepare()
			all := p.etcd.Count(func() { request() })
			steps, met := all.Proposals+all.Reads, 0
			for _, afterwards := range []bool{false, true} {
				for n := int64(1); n <= steps; n++ {
					request, check := prepare()
					fired := p.nth(n, afterwards)
					got := request()
					p.etcd.Inject(nil)
					if !fired.Load() {
						t.Fatalf("step %d of %d was not taken", n, steps)
					}
					met++
					if strings.Contains(got.body, "injected") || strings.Contains(got.body, "etcd") ||
						strings.Contains(got.body, "10.0.0.7") {
						t.Errorf("fault %d shows: %s", n, got.body)
					}
					if got.status == c.fine {
						continue
					}
					if got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "temporarily_unavailable") {
						t.Errorf("fault %d: %d %s", n, got.status, shown(got.body))
					}
					for _, verdict := range []string{"invalid_grant", "invalid_client", "invalid_token", `"active"`, "access_token"} {
						if strings.Contains(got.body, verdict) {
							t.Errorf("fault %d: a verdict: %s", n, got.body)
						}
					}
					check(t, afterwards && n == steps)
				}
			}
			if met == 0 {
				t.Error("nothing was asked of storage")
			}
		})
	}
}

// With a reuse interval, a client whose reply was lost gets the same successor by trying again.
func TestLostReplyOfARefresh(t *testing.T) {
	p := newIDP(t, func(c *server.Config) { c.Lifetimes.RefreshReuse = 30 * time.Second })
	p.clock.stop()
	token := p.refresh(p.tokens().text("refresh_token")).text("refresh_token")
	fired := p.nth(1, true)
	lost := p.refresh(token)
	p.etcd.Inject(nil)
	lost.wants(t, "the fault", http.StatusServiceUnavailable, "temporarily_unavailable")
	if !fired.Load() || lost.header.Get("Retry-After") == "" {
		t.Error("no fault, or no word of when to try again")
	}
	got := p.refresh(token)
	if got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	if next := p.refresh(got.text("refresh_token")); next.status != http.StatusOK {
		t.Errorf("the successor: %d %s", next.status, next.raw)
	}
}

// While storage is away for long, nothing is decided; afterwards everything is as it was.
func TestOutage(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	code := b.code("scope", "openid")
	got := p.exchange(b.code("scope", "openid"))
	other := p.browser()
	signIn := other.get(p.authorizeURL())
	p.etcd.Inject(func(bool, bool) error { return errors.New(faultText) })
	told := p.refresh(got.text("refresh_token"))
	for range 3 {
		for rule, r := range map[string]reply{
			"exchange": p.exchange(code), "refresh": p.refresh(got.text("refresh_token")),
			"userinfo":      p.userinfo(got.text("access_token")),
			"introspection": p.call("/oauth/introspect", url.Values{"token": {got.text("access_token")}}),
			"revocation":    p.call("/oauth/revoke", url.Values{"token": {got.text("access_token")}}),
		} {
			r.wants(t, rule, http.StatusServiceUnavailable, "temporarily_unavailable")
		}
		for rule, pg := range map[string]page{
			"authorize": b.get(p.authorizeURL()), "sign-in": other.signIn(signIn, userEmail, userPassword),
		} {
			pg.wants(t, rule, http.StatusServiceUnavailable, "temporarily_unavailable")
		}
	}
	// What memory can say, it says: keys, discovery, and the first page.
	if len(p.jwks().Keys) == 0 || p.browser().get(p.authorizeURL()).asks() != "password" {
		t.Error("what needs no storage does not work")
	}
	if ready := p.send(p.request(http.MethodGet, p.issuer+"/readyz", "")); ready.status != http.StatusServiceUnavailable {
		t.Errorf("ready: %d", ready.status)
	}
	p.etcd.Inject(nil)
	if ready := p.send(p.request(http.MethodGet, p.issuer+"/readyz", "")); ready.status != http.StatusOK {
		t.Errorf("not ready: %d", ready.status)
	}
	if p.exchange(code).status != http.StatusOK || !p.active(got.text("access_token")) ||
		p.refresh(got.text("refresh_token")).status != http.StatusOK {
		t.Error("the outage left something behind")
	}
	grants, _, err := p.store.Grants(t.Context(), storage.GrantQuery{})
	if err != nil || len(grants) != 2 {
		t.Errorf("%d grants, %v", len(grants), err)
	}
	if !regexp.MustCompile(
		`level=ERROR msg="request failed" endpoint=/oauth/token error="refresh: .*injected.*request_id=` +
			told.header.Get("X-Request-Id")).MatchString(p.log.String()) {
		t.Error("the operator was not told what happened to that request")
	}
}
