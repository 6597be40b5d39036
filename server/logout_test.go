package server_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/warifu/warifu/server"
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
		"backchannel_logout_supported":          len(back.tokens()) == 1,
		"backchannel_logout_session_supported":  len(back.tokens()) == 1 && claimsOf(q.t.(*testing.T), back.tokens()[0])["sid"] == sid,
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
	if b.signedInHere() || b.cookie("warifu_session") != "" {
		t.Error("still signed in")
	}
}
