package server_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// The next request after something has ended goes to the sign-in, whatever the browser holds.
func TestThreatForwardAuthOutlivesWhatItIsFor(t *testing.T) {
	p := newBehind(t)
	const page = "https://" + wikiHost + "/"
	for _, c := range []struct {
		rule   string
		end    func(b *browser)
		repair func()
	}{
		{"the user is no longer admitted", func(*browser) {
			p.update("wiki", func(c *storage.Client) { c.AccessGroups = []string{"admins"} })
		}, func() { p.update("wiki", func(c *storage.Client) { c.AccessGroups = nil }) }},
		{"the user has left the group", func(*browser) {
			p.update("wiki", func(c *storage.Client) { c.AccessGroups = []string{"staff"} })
			p.member("user-ann")
		}, func() {
			p.update("wiki", func(c *storage.Client) { c.AccessGroups = nil })
			p.member("user-ann", "staff")
		}},
		{"a second factor is demanded", func(*browser) {
			p.update("wiki", func(c *storage.Client) { c.AccessMFA = oauth.MFADemands()[0] })
		}, func() { p.update("wiki", func(c *storage.Client) { c.AccessMFA = "" }) }},
		{"the user has signed out", func(b *browser) {
			b.decide(b.get(p.issuer+"/oauth/logout"), "signout")
		}, func() {}},
		{"the grant was taken back", func(*browser) {
			grants, _, err := p.store.Grants(t.Context(), storage.GrantQuery{UserID: "user-ann"})
			if err != nil || len(grants) == 0 {
				t.Fatal(grants, err)
			}
			for _, g := range grants {
				if _, err := p.store.RevokeGrant(t.Context(), g,
					storage.AuditEntry{Action: storage.AuditGrantRevoked}); err != nil {
					t.Fatal(err)
				}
			}
		}, func() {}},
		{"the host is no longer the app's", func(*browser) {
			p.update("wiki", func(c *storage.Client) { c.ForwardAuthHosts = []string{wikiLocal} })
		}, func() {
			p.update("wiki", func(c *storage.Client) { c.ForwardAuthHosts = []string{wikiHost, wikiLocal} })
		}},
		{"the app may no longer sign people in", func(*browser) {
			p.update("wiki", func(c *storage.Client) { c.Scopes = []string{"profile"} })
		}, func() {
			p.update("wiki", func(c *storage.Client) { c.Scopes = []string{"openid", "profile", "email", "groups"} })
		}},
		{"the cookie is too old", func(*browser) { p.clock.forward(server.DefaultLifetimes().Session + time.Minute) },
			func() {}},
		{"the user is gone", func(*browser) { p.syncs(map[string]string{"user-bob": userPassword}) }, func() {}},
	} {
		b := p.visitor()
		if got := b.enters(page); got.status != http.StatusOK {
			t.Fatalf("%s: %d %s", c.rule, got.status, got.body)
		}
		c.end(b)
		got := b.get(page)
		if got.status != http.StatusSeeOther && got.status != http.StatusForbidden || got.header["Remote-User"] != nil {
			t.Errorf("%s: %d %v", c.rule, got.status, got.header)
		}
		script := p.request(http.MethodGet, page, "", "Accept", "*/*")
		if got := b.do(script); got.status != http.StatusUnauthorized && got.status != http.StatusForbidden {
			t.Errorf("%s, to a script: %d", c.rule, got.status)
		}
		c.repair()
	}
}

// Threat: what tells the app who the user is comes with the request, or what is asked about is not what comes.
func TestThreatForwardAuthOfForgedHeaders(t *testing.T) {
	p := newBehind(t)
	b := p.visitor()
	const page = "https://" + wikiHost + "/"
	if got := b.enters(page); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for _, name := range []string{"Remote-User", "remote-user", "Remote_User", "REMOTE_USER", "Remote.User",
		"Remote~User", "Remote-Name",
		"Remote-Email", "Remote_Email", "Remote-Groups", "remote_groups", "Remote!Groups"} {
		req := p.request(http.MethodGet, page, "")
		req.Header[name] = []string{""}
		if got := b.do(req); got.status != http.StatusForbidden || got.header["Remote-User"] != nil {
			t.Errorf("a request with %s: %d %v", name, got.status, got.header)
		}
	}
	for _, c := range []struct {
		rule   string
		header []string
		status int
	}{
		{"in upper case, and with its port", []string{"X-Forwarded-Host", "WIKI.test:443"}, 200},
		{"a WebSocket, as some call it", []string{"X-Forwarded-Proto", "wss"}, 200},
		{"two hosts", []string{"X-Forwarded-Host", wikiHost, "X-Forwarded-Host", blogHost}, 403},
		{"two hosts in one", []string{"X-Forwarded-Host", wikiHost + ", " + blogHost}, 403},
		{"no host", []string{"X-Forwarded-Host", ""}, 403},
		{"a dot", []string{"X-Forwarded-Host", wikiHost + "."}, 403},
		{"a port that is not listed", []string{"X-Forwarded-Host", wikiHost + ":8443"}, 403},
		{"the port of http", []string{"X-Forwarded-Host", wikiHost + ":80"}, 403},
		{"a host that nobody lists", []string{"X-Forwarded-Host", "www." + wikiHost}, 403},
		{"an identifier", []string{"X-Forwarded-Host", "forward-auth://" + wikiHost}, 403},
		{"a user", []string{"X-Forwarded-Host", "x@" + wikiHost}, 403},
		{"by http", []string{"X-Forwarded-Proto", "http"}, 403},
		{"two schemes", []string{"X-Forwarded-Proto", "https, http"}, 403},
		{"no scheme", []string{"X-Forwarded-Proto", ""}, 403},
		{"no path", []string{"X-Forwarded-Uri", ""}, 403},
		{"two paths", []string{"X-Forwarded-Uri", "/", "X-Forwarded-Uri", "/.warifu/callback"}, 403},
		{"an address for a path", []string{"X-Forwarded-Uri", "https://" + blogHost + "/"}, 403},
		{"a path that is no path", []string{"X-Forwarded-Uri", "/%zz"}, 403},
	} {
		req := p.request(http.MethodGet, page, "", c.header...)
		if got := b.do(req); got.status != c.status || c.status != 200 && got.header["Remote-User"] != nil {
			t.Errorf("%s: %d %s", c.rule, got.status, got.body)
		}
	}
	for _, path := range []string{"/.warifu/", "/.warifu/x", "/%2ewarifu/x", "/.warifu/../a"} {
		if got := b.do(p.request(http.MethodGet, page, "", "X-Forwarded-Uri", path)); got.status != http.StatusNotFound {
			t.Errorf("%s, which is this server's: %d", path, got.status)
		}
	}
	p.reload(func(c *server.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	if got := b.get(page); got.status != http.StatusForbidden || !strings.Contains(got.body, "web.trustedProxies") ||
		strings.Contains(got.body, "<") || got.header["Remote-User"] != nil {
		t.Errorf("asked by a stranger: %d %s", got.status, got.body)
	}
	// Also one that says that it speaks for a proxy.
	if got := b.do(p.request(http.MethodGet, page, "", "X-Forwarded-For",
		"192.0.2.1")); got.status != http.StatusForbidden {
		t.Errorf("asked by a stranger for a proxy: %d", got.status)
	}
}

// Threat: what one browser or host was given is used at another; an answer comes twice; a sign-in leads elsewhere.
func TestThreatForwardAuthReplayed(t *testing.T) {
	p := newBehind(t)
	const wiki, other, foreign = "https://" + wikiHost + "/", "http://" + wikiLocal + "/", "https://" + blogHost + "/"
	b := p.visitor()
	begun := b.get(wiki)
	back := b.follow(b.signIn(b.get(begun.location.String()), userEmail, userPassword))
	back = b.decide(back, "allow") // to the callback
	answer := back.location
	if answer == nil || answer.Path != "/.warifu/callback" || answer.Host != wikiHost {
		t.Fatalf("%d %v", back.status, answer)
	}
	at := func(address string) string {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		u.Path, u.RawQuery = answer.Path, answer.RawQuery
		return u.String()
	}
	stopped := func(rule string, got page) {
		t.Helper()
		if got.location == nil || !strings.HasPrefix(got.location.String(), p.issuer+"/auth/stopped?") ||
			got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %v %v", rule, got.status, got.location, got.header["Set-Cookie"])
		}
	}
	stopped("the answer in a browser that did not ask", p.visitor().get(answer.String()))
	stopped("the answer at the other host of the app", b.get(at(other)))
	stopped("the answer at another app", b.get(at(foreign)))
	began := p.visitor()
	began.get(wiki) // has a cookie of its own
	if got := began.get(answer.String()); got.location == nil || got.location.String() != wiki ||
		got.header.Get("Set-Cookie") != "" {
		t.Errorf("the answer in another browser that asked: %d %v %v", got.status, got.location, got.header)
	}
	changed := *answer
	query := changed.Query()
	query.Set("code", "wfc_garbage")
	changed.RawQuery = query.Encode()
	stopped("another code", b.get(changed.String()))
	query.Del("code")
	query.Set("error", "access_denied")
	changed.RawQuery = query.Encode()
	stopped("a refusal", b.get(changed.String()))
	if got := b.get(answer.String()); got.location == nil || got.location.String() != wiki ||
		got.header.Get("Set-Cookie") == "" {
		t.Fatalf("the answer: %d %v", got.status, got.location)
	}
	held := b.hostCookies(wiki)["__Host-warifu_app"]
	for range 2 {
		if got := b.get(answer.String()); got.location == nil || got.location.String() != wiki ||
			got.header.Get("Set-Cookie") != "" {
			t.Errorf("the answer once more: %d %v", got.status, got.location)
		}
	}
	if got := b.get(wiki); got.status != http.StatusOK {
		t.Errorf("after it has come once more: %d", got.status)
	}
	// The cookie of one host at another, as an app there could send it.
	for _, c := range []struct{ address, name string }{{other, "warifu_app_8080"}, {foreign, "__Host-warifu_app"}} {
		thief := p.visitor()
		req := p.request(http.MethodGet, c.address, "", "Cookie", c.name+"="+held)
		if got := thief.do(req); got.status != http.StatusSeeOther || got.header["Remote-User"] != nil {
			t.Errorf("the cookie at %s: %d", c.address, got.status)
		}
	}
	twice := p.request(http.MethodGet, wiki, "", "Cookie", "__Host-warifu_app="+held+"; __Host-warifu_app="+held)
	if got := p.visitor().do(twice); got.status != http.StatusSeeOther {
		t.Errorf("two cookies: %d", got.status)
	}
	// A code in the hands of somebody who has what any app knows.
	late := p.visitor()
	second := late.follow(late.signIn(late.get(late.get(wiki).location.String()), userEmail, userPassword))
	if second.location == nil {
		t.Fatalf("%d %s", second.status, shown(second.body))
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {second.location.Query().Get("code")},
		"redirect_uri": {"https://" + wikiHost + "/.warifu/callback"}, "client_id": {p.store.AtHost(wikiHost).ID}}
	p.call("/oauth/token", form).wants(t, "an app without a secret asks for tokens", http.StatusUnauthorized,
		"invalid_client")
	form.Set("client_id", p.client.ID)
	form.Set("client_secret", p.secret)
	p.call("/oauth/token", form).wants(t, "another app asks for tokens", http.StatusBadRequest, "invalid_grant")
	// Nobody is led away from the app.
	for _, uri := range []string{"//evil.test/x", "/\\evil.test", "/@evil.test", "/?to=https://evil.test", "/" +
		strings.Repeat("a", 3000)} {
		got := late.do(p.request(http.MethodGet, wiki, "", "X-Forwarded-Uri", uri))
		if got.location == nil {
			t.Errorf("%.20s: %d", uri, got.status)
			continue
		}
		got = late.follow(late.get(got.location.String()))
		if got.location == nil || got.location.Host != wikiHost || got.location.Path != "/.warifu/callback" {
			t.Errorf("%.20s: %v", uri, got.location)
			continue
		}
		fresh := late.get(got.location.String())
		if fresh.location == nil || fresh.location.Host != wikiHost || fresh.location.Scheme != "https" {
			t.Errorf("%.20s: comes back to %v", uri, fresh.location)
		}
		late.http.Jar.SetCookies(begun.location, nil)
		late = late.without(wiki, "__Host-warifu_app")
	}
}

// without takes a cookie from a browser.
func (b *browser) without(address, name string) *browser {
	b.p.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		b.p.t.Fatal(err)
	}
	b.http.Jar.SetCookies(u, []*http.Cookie{{Name: name, Path: "/", MaxAge: -1, Secure: true}})
	return b
}

// Threat: another site makes a browser sign out. The address asks, at the server's own page, and changes nothing.
func TestThreatForwardAuthSignedOutByAnotherSite(t *testing.T) {
	p := newBehind(t)
	const page = "https://" + wikiHost + "/"
	b := p.visitor()
	b.enters(page)
	got := b.get(page + ".warifu/logout")
	if got.location == nil || !strings.HasPrefix(got.location.String(), p.issuer+"/oauth/logout?client_id=") ||
		got.header.Get("Set-Cookie") != "" {
		t.Fatalf("%d %v", got.status, got.location)
	}
	question := b.get(got.location.String())
	if question.asks() != "decision" || !strings.Contains(question.body, "Wiki") {
		t.Fatalf("%d %s", question.status, shown(question.body))
	}
	if got := b.get(page); got.status != http.StatusOK {
		t.Errorf("nobody has said so: %d", got.status)
	}
	b.decide(question, "signout")
	if got := b.get(page); got.status != http.StatusSeeOther {
		t.Errorf("signed out: %d", got.status)
	}
}

// Whoever writes offline_access into the address on the way has no sign-in that outlives the session.
func TestThreatForwardAuthOutlivesTheSession(t *testing.T) {
	p := newBehind(t)
	p.update("wiki", func(c *storage.Client) { c.Scopes = append(c.Scopes, "offline_access") })
	const wiki = "https://" + wikiHost + "/"
	b := p.visitor()
	asked := b.get(wiki).location
	query := asked.Query()
	query.Set("scope", query.Get("scope")+" offline_access")
	asked.RawQuery = query.Encode()
	if got := b.enters(asked.String()); got.status != http.StatusOK || got.address != wiki {
		t.Fatalf("%s: %d", got.address, got.status)
	}
	b.decide(b.get(p.issuer+"/oauth/logout"), "signout")
	if got := b.get(wiki); got.status != http.StatusSeeOther {
		t.Errorf("signed out: %d", got.status)
	}
}
