package server_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

const afterLogout = "https://app.test/bye"

// receiver is an app's side of logout: what it was sent, and what it answers.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []url.Values // bodies of back-channel requests
	status int
	came   chan struct{}
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{status: http.StatusOK, came: make(chan struct{}, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := req.ParseForm(); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, req.PostForm)
		w.WriteHeader(r.status)
		r.came <- struct{}{}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answers(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// tokens are the logout tokens that came.
func (r *receiver) tokens() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, form := range r.got {
		out = append(out, form.Get("logout_token"))
	}
	return out
}

// loopbackAllowed lets the server reach the receivers of a test.
func loopbackAllowed(c *server.Config) {
	c.Outbound = outbound.New(outbound.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

// logoutIDP has an app that may send people back after a logout.
func logoutIDP(t testing.TB, change ...func(*storage.Client)) *idp {
	p := newIDP(t, loopbackAllowed)
	p.update("my-app", func(c *storage.Client) {
		c.Scopes = append(c.Scopes, "offline_access")
		c.PostLogoutRedirectURIs = []string{afterLogout, "http://localhost:*"}
		for _, f := range change {
			f(c)
		}
	})
	return p
}

// logoutURL is a logout request with parameters as name, value pairs; a value of "" leaves the parameter out.
func (p *idp) logoutURL(params ...string) string {
	query := url.Values{}
	for i := 0; i < len(params); i += 2 {
		if params[i+1] != "" {
			query.Set(params[i], params[i+1])
		}
	}
	return p.issuer + "/oauth/logout?" + query.Encode()
}

// send looks into the outbox of logouts once.
func (p *idp) sendLogouts() {
	p.t.Helper()
	if err := p.handler.(*server.Server).SendLogouts(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// signedInHere says whether b has a session.
func (b *browser) signedInHere() bool {
	b.p.t.Helper()
	got := b.get(b.p.authorizeURL("prompt", "none"))
	if got.location == nil {
		b.p.t.Fatalf("no answer: %d", got.status)
	}
	return got.location.Query().Get("error") != "login_required"
}

// signedOut checks the page after a logout, which sends nobody anywhere.
func (got page) signedOut(t testing.TB, rule string) {
	t.Helper()
	if got.status != http.StatusOK || got.location != nil || !strings.Contains(got.body, "<h1>You are signed out</h1>") {
		t.Errorf("%s: %d to %v\n%s", rule, got.status, got.location, shown(got.body))
	}
}

// exerciseLogout uses what discovery says of logout.
func (p *idp) exerciseLogout(doc map[string]any, exercised map[string]bool) {
	p.t.Helper()
	q := logoutIDP(p.t)
	back, front := newReceiver(p.t), newReceiver(p.t)
	q.update("my-app", func(c *storage.Client) {
		c.BackchannelLogoutURI, c.BackchannelLogoutSessionRequired = back.URL, true
		c.FrontchannelLogoutURI, c.FrontchannelLogoutSessionRequired = front.URL, true
	})
	b := q.browser()
	id := q.exchange(b.code("scope", "openid")).text("id_token")
	address, _ := doc["end_session_endpoint"].(string)
	path, below := strings.CutPrefix(address, p.issuer)
	if !below {
		p.t.Fatalf("end_session_endpoint is %q", address)
	}
	got := b.get(q.issuer + path + "?id_token_hint=" + id)
	got.signedOut(p.t, "at end_session_endpoint")
	exercised["end_session_endpoint"] = true
	q.sendLogouts()
	sid := claimsOf(q.t.(*testing.T), id)["sid"].(string)
	for name, works := range map[string]bool{
		"backchannel_logout_supported": len(back.tokens()) == 1,
		"backchannel_logout_session_supported": len(back.tokens()) == 1 &&
			claimsOf(q.t.(*testing.T), back.tokens()[0])["sid"] == sid,
		"frontchannel_logout_supported":         strings.Contains(got.body, `<iframe class="app-frame" src="`+front.URL),
		"frontchannel_logout_session_supported": strings.Contains(got.body, "sid="+sid),
	} {
		exercised[name] = true
		if doc[name] != true || !works {
			p.t.Errorf("%s: %v, works: %v", name, doc[name], works)
		}
	}
}

// A session ends without a question only for an ID token of that very session; everybody else is asked.
func TestLogoutQuestion(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	other := p.exchange(p.browser().code("scope", "openid")).text("id_token")
	for rule, params := range map[string][]string{
		"nothing":             {},
		"client_id":           {"client_id", p.client.ID},
		"with an address":     {"client_id", p.client.ID, "post_logout_redirect_uri", afterLogout, "state", "s"},
		"state alone":         {"state", "s"},
		"of another session":  {"id_token_hint", other},
		"hints at the user":   {"logout_hint", userEmail},
		"hint, other session": {"id_token_hint", other, "post_logout_redirect_uri", afterLogout},
	} {
		got := b.get(p.logoutURL(params...))
		if got.status != http.StatusOK || got.asks() != "decision" || !strings.Contains(got.body, userEmail) {
			t.Errorf("%s: %d to %v\n%s", rule, got.status, got.location, shown(got.body))
		}
	}
	if !b.signedInHere() {
		t.Fatal("signed out by asking")
	}
	got := b.get(p.logoutURL("id_token_hint", id, "post_logout_redirect_uri", afterLogout, "state", "a b&c"))
	if got.status != http.StatusSeeOther || got.location.String() != afterLogout+"?state=a+b%26c" {
		t.Errorf("%d to %v\n%s", got.status, got.location, shown(got.body))
	}
	if b.signedInHere() || b.cookie("session") != "" {
		t.Error("still signed in")
	}
}

// Where people go afterwards: only to an address that is registered for the client, byte for byte.
func TestAfterALogout(t *testing.T) {
	p := logoutIDP(t)
	for _, c := range []struct {
		rule, redirect, state, want string
	}{
		{"registered", afterLogout, "s", afterLogout + "?state=s"},
		{"no state", afterLogout, "", afterLogout},
		{"a long state", afterLogout, strings.Repeat("ü&", 512), afterLogout + "?state=" + strings.Repeat("%C3%BC%26", 512)},
		{"any local port", "http://localhost:4711/bye", "s", "http://localhost:4711/bye?state=s"},
		{"no address", "", "", ""},
		{"state alone", "", "s", ""},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			b := p.browser()
			id := p.exchange(b.code("scope", "openid")).text("id_token")
			address := p.logoutURL("id_token_hint", id, "client_id", p.client.ID, "post_logout_redirect_uri",
				c.redirect, "state", c.state)
			got := page{}
			if method == http.MethodGet {
				got = b.get(address)
			} else {
				u, err := url.Parse(address)
				if err != nil {
					t.Fatal(err)
				}
				if got = b.post(p.issuer+"/oauth/logout", u.Query()); got.location == nil {
					t.Fatalf("%s by POST: %d", c.rule, got.status)
				}
				got = b.get(got.location.String())
			}
			switch {
			case c.want == "":
				got.signedOut(t, c.rule)
			case got.location == nil || got.location.String() != c.want || !strings.Contains(got.header.Get("Cache-Control"),
				"no-store"):
				t.Errorf("%s: %d to %v, want %s", c.rule, got.status, got.location, c.want)
			}
			if b.signedInHere() {
				t.Errorf("%s: still signed in", c.rule)
			}
		}
	}
}

// Whoever has no session is not asked, and whoever has nothing to be asked about goes on.
func TestLogoutWithoutASession(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	b.get(p.logoutURL("id_token_hint", id)).signedOut(t, "the session")
	for rule, params := range map[string][]string{"again": {"id_token_hint", id}, "nothing": {},
		"client_id": {"client_id", p.client.ID}} {
		for who, b := range map[string]*browser{"signed out": b, "never here": p.browser()} {
			b.get(p.logoutURL(params...)).signedOut(t, who+": "+rule)
			got := b.get(p.logoutURL(append(params, "client_id", p.client.ID, "post_logout_redirect_uri", afterLogout,
				"state", "s")...))
			if got.location == nil || got.location.String() != afterLogout+"?state=s" {
				t.Errorf("%s: %s: %d to %v", who, rule, got.status, got.location)
			}
		}
	}
	stale := p.browser()
	stale.code("scope", "openid")
	p.clock.forward(25 * time.Hour)
	stale.get(p.logoutURL()).signedOut(t, "a session that has run out")
	odd := p.browser()
	odd.plant("session", "wfk_x")
	odd.get(p.logoutURL()).signedOut(t, "a cookie of garbage")
}

// An ID token is a hint as long as its session lasts: expired, of whatever algorithm, with whatever subject, after the
// keys have changed and after the user has signed in again.
func TestIDTokenHints(t *testing.T) {
	for rule, change := range map[string]func(*storage.Client){
		"RS256": func(*storage.Client) {}, "ES256": func(c *storage.Client) { c.IDTokenSignedResponseAlg = "ES256" },
		"EdDSA": func(c *storage.Client) { c.IDTokenSignedResponseAlg = "EdDSA" }, "pairwise": func(c *storage.Client) {
			c.SubjectType = oauth.SubjectPairwise
		},
	} {
		t.Run(rule, func(t *testing.T) {
			p := logoutIDP(t, change, func(c *storage.Client) { c.RedirectURIs = []string{callback} })
			p.clock.stop()
			p.rotate()
			b := p.browser()
			p.clock.forward(30*24*time.Hour - time.Minute) // then the next keys sign
			id := p.exchange(b.code("scope", "openid")).text("id_token")
			for range 3 {
				p.clock.forward(7 * time.Hour)
				p.rotate()
			}
			if got := b.get(p.logoutURL("id_token_hint", id, "post_logout_redirect_uri", afterLogout)); got.location == nil ||
				got.location.String() != afterLogout {
				t.Errorf("%d to %v\n%s", got.status, got.location, shown(got.body))
			}
			if b.signedInHere() {
				t.Error("still signed in")
			}
		})
	}
	p := logoutIDP(t)
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	b.follow(b.signIn(b.get(p.authorizeURL("prompt", "login")), userEmail, userPassword))
	again := p.exchange(b.code("scope", "openid")).text("id_token")
	if claimsOf(t, id)["sid"] != claimsOf(t, again)["sid"] {
		t.Error("the session did not go on when its user signed in again")
	}
	b.get(p.logoutURL("id_token_hint", id)).signedOut(t, "from before the user signed in again")
}

// HEAD asks what GET would do, and does not do it.
func TestHeadDoesNotSignOut(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	if got := b.do(p.request(http.MethodHead, p.logoutURL("id_token_hint", id), "")); got.status != http.StatusOK {
		t.Errorf("%d", got.status)
	}
	if !b.signedInHere() {
		t.Error("signed out")
	}
	for path, allowed := range map[string]string{"/oauth/logout": "GET, HEAD, POST", "/oauth/signout": "POST"} {
		got := b.do(p.request(http.MethodPut, p.issuer+path, ""))
		if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != allowed {
			t.Errorf("%s: %d, Allow %q", path, got.status, got.header.Get("Allow"))
		}
	}
}

// The question, in both languages, and its two answers.
func TestLogoutQuestionAnswered(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	b.code("scope", "openid")
	question := b.get(p.logoutURL("client_id", p.client.ID, "post_logout_redirect_uri", afterLogout, "state", "s",
		"ui_locales", "ja"))
	if !strings.Contains(question.body, "ログアウトしますか") || !strings.Contains(question.body, "My App") {
		t.Errorf("not in Japanese, or without the app:\n%s", shown(question.body))
	}
	inEnglish := b.get(p.logoutURL("client_id", p.client.ID, "ui_locales", "ja", "lang", "en"))
	if !strings.Contains(inEnglish.body, "<h1>Sign out of ") {
		t.Errorf("not in English:\n%s", shown(inEnglish.body))
	}
	stays := b.decide(question, "stay")
	if stays.status != http.StatusOK || !strings.Contains(stays.body, "You are still signed in") ||
		!strings.Contains(stays.body, `href="`+afterLogout+`"`) {
		t.Errorf("stay: %d to %v\n%s", stays.status, stays.location, shown(stays.body))
	}
	if !b.signedInHere() {
		t.Fatal("stay signs out")
	}
	for _, decision := range []string{"", "yes", "allow"} {
		b.decide(question, decision).wants(t, "decision "+decision, http.StatusBadRequest, "invalid_request")
	}
	got := b.decide(question, "signout")
	if got.location == nil || got.location.String() != afterLogout+"?state=s" || b.signedInHere() {
		t.Errorf("sign out: %d to %v", got.status, got.location)
	}
	// Once more, as after a press of the back button.
	if got := b.decide(question, "signout"); got.location == nil || got.location.String() != afterLogout+"?state=s" {
		t.Errorf("again: %d to %v", got.status, got.location)
	}
}

// What changed while the user was asked counts.
func TestLogoutQuestionOvertaken(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	b.code("scope", "openid")
	ask := func() page {
		return b.get(p.logoutURL("client_id", p.client.ID, "post_logout_redirect_uri", afterLogout))
	}
	forAnn := ask()
	b.follow(b.signIn(b.get(p.authorizeURL("prompt", "login")), "bob@app.test", userPassword))
	got := b.decide(forAnn, "signout")
	if got.asks() != "decision" || !strings.Contains(got.body, "bob@app.test") || strings.Contains(got.body, userEmail) {
		t.Errorf("bob was signed out by what ann was asked: %d to %v\n%s", got.status, got.location, shown(got.body))
	}
	forBob := ask()
	p.update("my-app", func(c *storage.Client) { c.PostLogoutRedirectURIs = nil })
	b.decide(forBob, "signout").signedOut(t, "the address was removed")
	p.update("my-app", func(c *storage.Client) { c.PostLogoutRedirectURIs = []string{afterLogout} })
	b.code("scope", "openid")
	gone := ask()
	p.deleteApp()
	b.decide(gone, "signout").signedOut(t, "the app was removed")
}

// The front page says who is signed in, and lets them sign out.
func TestLanding(t *testing.T) {
	p := logoutIDP(t)
	b := p.browser()
	if got := b.get(p.issuer + "/"); got.status != http.StatusOK || strings.Contains(got.body, "/oauth/logout") {
		t.Errorf("nobody is signed in: %d", got.status)
	}
	b.code()
	got := b.get(p.issuer + "/")
	if !strings.Contains(got.body, userEmail) || !strings.Contains(got.body, `href="/oauth/logout"`) {
		t.Fatalf("%d\n%s", got.status, shown(got.body))
	}
	if ja := b.get(p.issuer + "/?lang=ja"); !strings.Contains(ja.body, ">ログアウト</a>") {
		t.Error("not in Japanese")
	}
	b.get(p.issuer + "/?lang=en")
	b.decide(b.get(p.issuer+"/oauth/logout"), "signout").signedOut(t, "from the front page")
	if got := b.get(p.issuer + "/"); strings.Contains(got.body, userEmail) {
		t.Error("still signed in")
	}
	// An account that was disabled or removed meanwhile has left already.
	for rule, end := range map[string]func(){
		"disabled": func() { p.putUser(storage.User{ID: "user-ann", Email: userEmail, Disabled: true}) },
		"removed": func() {
			if _, err := p.etcd.Client.Delete(t.Context(), p.etcd.Prefix+"users/user-bob"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		b, login := p.browser(), map[string]string{"disabled": userEmail, "removed": "bob@app.test"}[rule]
		b.follow(b.signIn(b.get(p.authorizeURL()), login, userPassword))
		end()
		b.get(p.issuer+"/oauth/logout").signedOut(t, rule)
		if b.cookie("session") != "" {
			t.Errorf("%s: the browser keeps its cookie", rule)
		}
	}
}

// An issuer with a path has its logout below that path, too.
func TestLogoutBelowAPath(t *testing.T) {
	p := newIDP(t, loopbackAllowed, func(c *server.Config) { c.Issuer += "/tenant" })
	b := p.browser()
	b.code("scope", "openid")
	if got := b.get(p.issuer + "/"); !strings.Contains(got.body, `href="/tenant/oauth/logout"`) {
		t.Error(shown(got.body))
	}
	b.decide(b.get(p.logoutURL()), "signout").signedOut(t, "below a path")
}
