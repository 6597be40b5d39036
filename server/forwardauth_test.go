package server_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Hosts of the apps of these tests: the first and the second are the wiki, the third is the blog. Each is before the
// same proxy.
const (
	wikiHost  = "wiki.test"
	wikiLocal = "localhost:8080"
	blogHost  = "blog.test"
)

// behindProxy stands for a proxy before apps, as the handler sees one: what goes to their hosts is asked about, and the
// answer is the browser's. An answer of 200 is the app's. The e2e tests have real ones.
type behindProxy struct {
	p *idp
	// more follows the path of the question.
	more string
}

func (b behindProxy) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasPrefix(req.URL.String(), b.p.issuer) {
		return b.p.transport.RoundTrip(req)
	}
	question, err := http.NewRequestWithContext(req.Context(), http.MethodGet, b.p.issuer+"/auth/verify"+b.more, nil)
	if err != nil {
		return nil, err
	}
	question.Header = req.Header.Clone()
	for name, value := range map[string]string{"X-Forwarded-Host": req.URL.Host, "X-Forwarded-Proto": req.URL.Scheme,
		"X-Forwarded-Uri": req.URL.RequestURI(), "X-Forwarded-Method": req.Method} {
		if _, set := question.Header[name]; !set {
			question.Header.Set(name, value)
		}
	}
	resp, err := b.p.transport.RoundTrip(question)
	if err == nil {
		resp.Request = req
	}
	return resp, err
}

func trustsLoopback(c *server.Config) {
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// newBehind is an identity provider with a wiki and a blog behind forward auth, and a proxy that it trusts.
func newBehind(t testing.TB, change ...func(*server.Config)) *idp {
	p := newIDP(t, append([]func(*server.Config){trustsLoopback}, change...)...).withAllScopes()
	p.register("wiki", func(c *storage.Client) { stands(c, "Wiki", wikiHost, wikiLocal) })
	p.register("blog", func(c *storage.Client) { stands(c, "Blog", blogHost) })
	p.member("user-ann", "staff", "a,b")
	return p
}

// stands makes c an app behind forward auth and nothing else.
func stands(c *storage.Client, name string, hosts ...string) {
	c.ClientName, c.RedirectURIs, c.Secrets = name, nil, nil
	c.Scopes, c.ForwardAuthHosts = []string{"openid", "profile", "email", "groups"}, hosts
}

// visitor is a browser that sees the apps through the proxy.
func (p *idp) visitor() *browser {
	b := p.browser()
	b.http.Transport = behindProxy{p: p}
	return b
}

// enters goes to an address of an app, and signs in on the way, as whom the pages ask to.
func (b *browser) enters(address string) page {
	b.p.t.Helper()
	got := b.get(address)
	for range 8 {
		switch {
		case got.location != nil:
			got = b.get(got.location.String())
		case got.asks() == "password":
			got = b.signIn(got, userEmail, userPassword)
		case got.asks() == "decision":
			got = b.decide(got, "allow")
		default:
			return got
		}
	}
	b.p.t.Fatalf("%s: no end of redirects", address)
	return got
}

// told are the headers by which an app knows its user, in one line.
func (got page) told() string {
	var all []string
	for _, name := range []string{"Remote-User", "Remote-Name", "Remote-Email", "Remote-Groups"} {
		values, is := got.header[name]
		if !is || len(values) != 1 {
			return fmt.Sprintf("%s is %q", name, values)
		}
		all = append(all, values[0])
	}
	return strings.Join(all, " | ")
}

// hostCookies are the cookies that a browser has at an address, by name.
func (b *browser) hostCookies(address string) map[string]string {
	b.p.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		b.p.t.Fatal(err)
	}
	held := make(map[string]string)
	for _, c := range b.http.Jar.Cookies(u) {
		held[c.Name] = c.Value
	}
	return held
}

// An app that knows no OAuth: the first page leads to the sign-in and the question of consent, and back to where the
// browser was; then each request goes through, with what the app may know of the user.
func TestForwardAuthSignsInAndTellsTheApp(t *testing.T) {
	p := newBehind(t)
	b := p.visitor()
	const page = "https://" + wikiHost + "/a%2Fb//c?q=1&r=%2F..%2F"
	first := b.get(page)
	if first.status != http.StatusSeeOther || !strings.HasPrefix(first.location.String(), p.issuer+"/oauth/authorize?") ||
		first.header.Get("Strict-Transport-Security") != "" || first.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %v", first.status, first.location, first.header)
	}
	asked := first.location.Query()
	if asked.Get("redirect_uri") != "https://"+wikiHost+"/.warifu/callback" || asked.Get("code_challenge_method") != "S256" {
		t.Errorf("%v", asked)
	}
	consent := b.follow(b.signIn(b.get(first.location.String()), userEmail, userPassword))
	if consent.asks() != "decision" || !strings.Contains(consent.body, "Wiki") || !strings.Contains(consent.body, wikiHost) {
		t.Fatalf("the question of consent: %d %s", consent.status, shown(consent.body))
	}
	if refused := b.decide(consent, "deny"); refused.location == nil {
		t.Fatalf("%d", refused.status)
	} else if got := b.follow(b.get(refused.location.String())); got.status != http.StatusOK ||
		!strings.HasPrefix(got.address, p.issuer+"/auth/stopped?error=access_denied") {
		t.Errorf("said no: %s: %d %s", got.address, got.status, shown(got.body))
	}
	got := b.enters(page)
	if got.status != http.StatusOK || got.address != page {
		t.Fatalf("%s: %d %s", got.address, got.status, got.body)
	}
	sub := got.header.Get("Remote-User")
	if got.told() != sub+" | Ann | "+userEmail+" | a%2Cb,staff" || sub == "" {
		t.Errorf("the app is told %s", got.told())
	}
	if c := got.header.Get("Set-Cookie"); c != "" {
		t.Errorf("the app's answer would set %s", c)
	}
	held := b.hostCookies(page)
	if !strings.HasPrefix(held["__Host-warifu_app"], "wfg_") {
		t.Errorf("the browser has %v", slices.Sorted(maps.Keys(held)))
	}
	for _, at := range []string{"https://" + blogHost + "/", "http://" + wikiLocal + "/x"} {
		if held := b.hostCookies(at); len(held) != 0 {
			t.Errorf("%s has got cookies of another host: %v", at, held)
		}
	}
	if got := b.enters("http://" + wikiLocal + "/x"); got.status != http.StatusOK || got.header.Get("Remote-User") != sub {
		t.Errorf("at the app's other host: %d %s", got.status, got.told())
	}
	// The cookies of one host, in one browser, are named by the port.
	if held := b.hostCookies("http://" + wikiLocal); !strings.HasPrefix(held["warifu_app_8080"], "wfg_") {
		t.Errorf("the browser has %v", slices.Sorted(maps.Keys(held)))
	}
	grants := p.operator(http.MethodGet, "/v1/grants")
	if !strings.Contains(fmt.Sprint(grants), "wiki") {
		t.Errorf("nobody sees the grant: %v", grants)
	}
}

// What the app compares is told as it is or not at all.
func TestForwardAuthTellsWhatTheAppMayKnow(t *testing.T) {
	p := newBehind(t)
	b := p.visitor()
	const page = "https://" + wikiHost + "/"
	sub := b.enters(page).header.Get("Remote-User")
	ann := func(change func(*storage.User)) func() {
		return func() {
			u, err := p.store.User(t.Context(), "user-ann")
			if err != nil {
				t.Fatal(err)
			}
			change(u)
			p.putUser(*u)
		}
	}
	app := func(change func(*storage.Client)) func() { return func() { p.update("wiki", change) } }
	for _, c := range []struct {
		rule   string
		change func()
		status int
		want   string
	}{
		{"as registered", func() {}, 200, sub + " | Ann | " + userEmail + " | a%2Cb,staff"},
		{"by user name", app(func(c *storage.Client) { c.ForwardAuthUser = oauth.ForwardUserUsername }), 200, "ann | Ann | " + userEmail + " | a%2Cb,staff"},
		{"a user name that would be smoothed", ann(func(u *storage.User) { u.Username = "ann " }), 403, ""},
		{"one that would be cut", ann(func(u *storage.User) { u.Username = strings.Repeat("a", 300) }), 403, ""},
		{"one that hides something", ann(func(u *storage.User) { u.Username = "a\u200bnn" }), 403, ""},
		{"none", ann(func(u *storage.User) { u.Username = "" }), 403, ""},
		{"in Japanese", ann(func(u *storage.User) { u.Username, u.Name = "安", "安\r\nX: y" }), 200, "安 | 安 X: y | " + userEmail + " | a%2Cb,staff"},
		{"by address", app(func(c *storage.Client) { c.ForwardAuthUser = oauth.ForwardUserEmail }), 200, userEmail + " | 安 X: y | " + userEmail + " | a%2Cb,staff"},
		{"an address that nobody has verified", ann(func(u *storage.User) { u.EmailVerified = false }), 403, ""},
		{"by subject again", app(func(c *storage.Client) { c.ForwardAuthUser = "" }), 200, sub + " | 安 X: y |  | a%2Cb,staff"},
		{"those groups of the filter", app(func(c *storage.Client) { c.GroupFilter = []string{"st*"} }), 200, sub + " | 安 X: y |  | staff"},
		{"a group that is not one line", func() { p.member("user-ann", "staff", "st\naff", "st100%") }, 200, sub + " | 安 X: y |  | st100%25,staff"},
		{"no scopes but openid", app(func(c *storage.Client) { c.Scopes = []string{"openid"} }), 200, sub + " |  |  | "},
	} {
		c.change()
		if got := b.get(page); got.status != c.status || c.status == 200 && got.told() != c.want {
			t.Errorf("%s: %d, the app is told %s, want %d %s", c.rule, got.status, got.told(), c.status, c.want)
		}
	}
}

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
				if _, err := p.store.RevokeGrant(t.Context(), g, storage.AuditEntry{Action: storage.AuditGrantRevoked}); err != nil {
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
		{"the cookie is too old", func(*browser) { p.clock.forward(server.DefaultLifetimes().Session + time.Minute) }, func() {}},
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
	for _, name := range []string{"Remote-User", "remote-user", "Remote_User", "REMOTE_USER", "Remote.User", "Remote~User", "Remote-Name",
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
	if got := b.do(p.request(http.MethodGet, page, "", "X-Forwarded-For", "192.0.2.1")); got.status != http.StatusForbidden {
		t.Errorf("asked by a stranger for a proxy: %d", got.status)
	}
}

// A redirect is for what a browser is going to show; all else is told that nobody has signed in.
func TestForwardAuthRedirectsNavigationsAlone(t *testing.T) {
	p := newBehind(t)
	const page = "https://" + wikiHost + "/"
	for _, c := range []struct {
		rule, method, more string
		header             []string
		status             int
	}{
		{"a page", "GET", "", nil, 303},
		{"a page, of a browser that says so", "GET", "", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 303},
		{"only its header", "HEAD", "", nil, 303},
		{"a form", "POST", "", nil, 401},
		{"another method", "DELETE", "", nil, 401},
		{"a script", "GET", "", []string{"Accept", "application/json"}, 401},
		{"anything", "GET", "", []string{"Accept", "*/*"}, 401},
		{"a script that wants a page", "GET", "", []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, 401},
		{"a picture", "GET", "", []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 401},
		{"a frame", "GET", "", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 401},
		{"an old frame", "GET", "", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "frame"}, 401},
		{"a WebSocket", "GET", "", []string{"Sec-Fetch-Mode", "websocket", "Upgrade", "websocket", "Connection", "Upgrade"}, 401},
		{"a page with a query that is the browser's", "GET", "?answer=status", nil, 303},
		{"the proxy asks for a status", "GET", "/status", nil, 401},
	} {
		b := p.visitor()
		b.http.Transport = behindProxy{p: p, more: c.more}
		got := b.do(p.request(c.method, page, "", c.header...))
		if got.status != c.status || got.header["Remote-User"] != nil {
			t.Errorf("%s: %d %s, want %d", c.rule, got.status, got.body, c.status)
		}
		if left := len(b.hostCookies(page)); c.status == 401 && left > 0 {
			t.Errorf("%s: a sign-in that does not begin leaves %d cookies", c.rule, left)
		}
	}
	b := p.visitor()
	b.enters(page)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		if got := b.do(p.request(method, page, "", "Accept", "*/*")); got.status != http.StatusOK || got.header.Get("Remote-User") == "" {
			t.Errorf("%s with a sign-in: %d %s", method, got.status, got.body)
		}
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
		if got.location == nil || !strings.HasPrefix(got.location.String(), p.issuer+"/auth/stopped?") || got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %v %v", rule, got.status, got.location, got.header["Set-Cookie"])
		}
	}
	stopped("the answer in a browser that did not ask", p.visitor().get(answer.String()))
	stopped("the answer at the other host of the app", b.get(at(other)))
	stopped("the answer at another app", b.get(at(foreign)))
	began := p.visitor()
	began.get(wiki) // has a cookie of its own
	if got := began.get(answer.String()); got.location == nil || got.location.String() != wiki || got.header.Get("Set-Cookie") != "" {
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
	if got := b.get(answer.String()); got.location == nil || got.location.String() != wiki || got.header.Get("Set-Cookie") == "" {
		t.Fatalf("the answer: %d %v", got.status, got.location)
	}
	held := b.hostCookies(wiki)["__Host-warifu_app"]
	for range 2 {
		if got := b.get(answer.String()); got.location == nil || got.location.String() != wiki || got.header.Get("Set-Cookie") != "" {
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
	p.call("/oauth/token", form).wants(t, "an app without a secret asks for tokens", http.StatusUnauthorized, "invalid_client")
	form.Set("client_id", p.client.ID)
	form.Set("client_secret", p.secret)
	p.call("/oauth/token", form).wants(t, "another app asks for tokens", http.StatusBadRequest, "invalid_grant")
	// Nobody is led away from the app.
	for _, uri := range []string{"//evil.test/x", "/\\evil.test", "/@evil.test", "/?to=https://evil.test", "/" + strings.Repeat("a", 3000)} {
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

// What people are shown of a sign-in that came to nothing is true, leads back to the app, and has the id of the request
// that failed, which an operator can explain.
func TestForwardAuthSaysWhyItCameToNothing(t *testing.T) {
	e := newExplained(t, trustsLoopback)
	p := e.withAllScopes()
	p.register("wiki", func(c *storage.Client) { stands(c, "Wiki", wikiHost) })
	const app = "https://" + wikiHost + "/"
	b := p.visitor()
	script := b.do(p.request(http.MethodGet, app, "", "Accept", "*/*"))
	if why := e.of(script.header).Reasons[0]; script.status != http.StatusUnauthorized || why.Rule != oauth.RuleForwardSignIn {
		t.Errorf("a script: %d %+v", script.status, why)
	}
	answer := b.decide(b.follow(b.signIn(b.get(b.get(app).location.String()), userEmail, userPassword)), "allow").location
	with := func(change func(url.Values)) string {
		query := answer.Query()
		change(query)
		return app + ".warifu/callback?" + query.Encode()
	}
	for _, c := range []struct {
		name, address string
		browser       *browser
		rule, says    string
		status        int
	}{
		{"no cookie", answer.String(), p.visitor(), oauth.RuleForwardCookies, "keeps no cookies", 400},
		{"another state", with(func(q url.Values) { q.Set("state", "x") }), b, oauth.RuleForwardReturn, "could not be finished", 400},
		{"no", with(func(q url.Values) { q.Set("error", "access_denied") }), b, oauth.RuleForwardAnswer, "You said no", 200},
		{"a fault", with(func(q url.Values) { q.Set("error", "server_error") }), b, oauth.RuleForwardAnswer, "Not available", 503},
		{"another code", with(func(q url.Values) { q.Set("code", "x") }), b, "", "could not be finished", 400},
	} {
		failed := c.browser.get(c.address)
		if failed.location == nil {
			t.Errorf("%s: %d %s", c.name, failed.status, failed.body)
			continue
		}
		why := e.of(failed.header)
		if c.rule != "" && why.Reasons[0].Rule != c.rule || why.App == "" {
			t.Errorf("%s: %+v", c.name, why)
		}
		page := c.browser.get(failed.location.String() + "&lang=en")
		for _, want := range []string{c.says, failed.header.Get("X-Request-Id"), `href="` + app + `"`, "Back to " + wikiHost} {
			if page.status != c.status || !strings.Contains(page.body, want) {
				t.Errorf("%s: %d without %q: %s", c.name, page.status, want, shown(page.body))
			}
		}
	}
	forged := b.get(p.issuer + "/auth/stopped?reason=server_error&host=evil.test&request=CALL-0120-000-000&error=pay")
	for _, never := range []string{"evil.test", "0120", "pay", "fault is ours"} {
		if strings.Contains(shown(forged.body), never) { // but in the links to the other language
			t.Errorf("a forged address says %s: %s", never, shown(forged.body))
		}
	}
	done := b.get(answer.String())
	if left := b.hostCookies(app); done.status != http.StatusSeeOther || left["__Host-warifu_app"] == "" || len(left) != 1 {
		t.Errorf("signed in: %d, and the browser keeps %d cookies", done.status, len(left))
	}
	p.update("wiki", func(c *storage.Client) { c.AccessMFA = oauth.MFADemands()[0] })
	if got := b.do(p.request(http.MethodGet, app, "", "Accept", "*/*")); got.status != http.StatusUnauthorized || !strings.Contains(got.body, "second factor") {
		t.Errorf("a second factor is demanded: %d %s", got.status, got.body)
	}
	// A proxy that takes a yes or a no alone is told one.
	b.http.Transport = behindProxy{p: p, more: "/status"}
	if got := b.do(p.request(http.MethodGet, app, "", "X-Forwarded-Uri", "/.warifu/../a")); got.status != http.StatusForbidden {
		t.Errorf("a path of this server's, to nginx: %d", got.status)
	}
}

// Threat: another site makes a browser sign out. The address asks, at the server's own page, and changes nothing.
func TestThreatForwardAuthSignedOutByAnotherSite(t *testing.T) {
	p := newBehind(t)
	const page = "https://" + wikiHost + "/"
	b := p.visitor()
	b.enters(page)
	got := b.get(page + ".warifu/logout")
	if got.location == nil || !strings.HasPrefix(got.location.String(), p.issuer+"/oauth/logout?client_id=") || got.header.Get("Set-Cookie") != "" {
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

// A browser that keeps no cookies is told so once, and not sent in a circle.
func TestForwardAuthWithoutCookies(t *testing.T) {
	p := newBehind(t)
	b := p.visitor()
	const page = "https://" + wikiHost + "/"
	begun := b.get(page)
	back := b.decide(b.follow(b.signIn(b.get(begun.location.String()), userEmail, userPassword)), "allow")
	got := b.without(page, "__Host-warifu_away").get(back.location.String())
	if got = b.follow(got); got.status != http.StatusBadRequest || !strings.HasPrefix(got.address, p.issuer+"/auth/stopped") {
		t.Errorf("%s: %d %s", got.address, got.status, shown(got.body))
	}
}

// Where no proxy is trusted, the log says so of each app, once, and what to do; not with each request.
func TestForwardAuthWithoutTrustedProxiesIsLogged(t *testing.T) {
	p := newIDP(t).withAllScopes()
	look := func() int {
		p.handler.(*server.Server).Applied(t.Context())
		return strings.Count(p.log.String(), "level=WARN msg=\"no proxy may ask about apps behind forward auth")
	}
	if n := look(); n != 0 {
		t.Errorf("without such an app there are %d lines", n)
	}
	p.register("wiki", func(c *storage.Client) { stands(c, "Wiki", wikiHost) })
	for range 3 {
		p.visitor().get("https://" + wikiHost + "/")
		if n := look(); n != 1 || !strings.Contains(p.log.String(), "web.trustedProxies") || !strings.Contains(p.log.String(), "apps=wiki\n") {
			t.Errorf("with one app there are %d lines: %s", n, p.log)
		}
	}
	p.register("blog", func(c *storage.Client) { stands(c, "Blog", blogHost) })
	if n := look(); n != 2 || !strings.Contains(p.log.String(), "apps=blog\n") {
		t.Errorf("with another app there are %d lines: %s", n, p.log)
	}
	p.reload(trustsLoopback)
	if n := look(); n != 2 {
		t.Errorf("with a trusted proxy there are %d lines", n)
	}
	p.reload(func(c *server.Config) { c.TrustedProxies = nil })
	if n := look(); n != 3 || !strings.Contains(p.log.String(), "apps=\"blog, wiki\"") {
		t.Errorf("without one again there are %d lines: %s", n, p.log)
	}
}

// grantsOf are the live grants of ann to an app.
func (p *idp) grantsOf(clientID string) int {
	p.t.Helper()
	grants, _, err := p.store.Grants(p.t.Context(), storage.GrantQuery{UserID: "user-ann", ClientID: clientID})
	if err != nil {
		p.t.Fatal(err)
	}
	return len(grants)
}

// A browser that has lost the app's cookie gets another one, and nothing piles up: what it had there ends, and nothing
// else does.
func TestForwardAuthReplacesWhatTheBrowserHad(t *testing.T) {
	p := newBehind(t)
	p.clock.begin()
	const wiki, local, blog = "https://" + wikiHost + "/", "http://" + wikiLocal + "/", "https://" + blogHost + "/"
	b, elsewhere := p.visitor(), p.visitor()
	for _, at := range []string{wiki, local, blog} {
		b.enters(at)
		elsewhere.enters(at)
	}
	app := p.store.AtHost(wikiHost).ID
	var before string
	for range 3 {
		before = b.hostCookies(wiki)["__Host-warifu_app"]
		p.clock.forward(2 * time.Minute)
		if got := b.without(wiki, "__Host-warifu_app").enters(wiki); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if n := p.grantsOf(app); n != 4 {
		t.Errorf("two browsers at two hosts of the app have %d grants", n)
	}
	for _, visit := range []struct {
		of *browser
		at string
	}{{b, wiki}, {b, local}, {b, blog}, {elsewhere, wiki}, {elsewhere, local}, {elsewhere, blog}} {
		if got := visit.of.get(visit.at); got.status != http.StatusOK {
			t.Errorf("%s: %d", visit.at, got.status)
		}
	}
	old := p.request(http.MethodGet, wiki, "", "Cookie", "__Host-warifu_app="+before)
	if got := p.visitor().do(old); got.status != http.StatusSeeOther {
		t.Errorf("the cookie that was lost: %d", got.status)
	}
}

// Tabs that were opened at once come back at once, none of them with the app's cookie: whichever cookie the browser
// keeps of those that it gets, all are signed in.
func TestForwardAuthOfManyTabsAtOnce(t *testing.T) {
	p := newBehind(t)
	p.clock.begin()
	const wiki = "https://" + wikiHost + "/"
	b := p.visitor()
	b.enters(wiki)
	p.clock.forward(2 * time.Minute)
	b.without(wiki, "__Host-warifu_app")
	var answers []*http.Request
	for range 3 {
		back := b.get(b.get(wiki).location.String())
		if back.location == nil || back.location.Path != "/.warifu/callback" {
			t.Fatalf("%d %v", back.status, back.location)
		}
		answers = append(answers, p.request(http.MethodGet, back.location.String(), "", "Cookie",
			"__Host-warifu_away="+b.hostCookies(wiki)["__Host-warifu_away"]))
	}
	var kept []string
	for _, answer := range answers {
		tab := p.visitor()
		if got := tab.do(answer); got.location == nil || got.location.String() != wiki {
			t.Fatalf("%d %v", got.status, got.location)
		}
		kept = append(kept, tab.hostCookies(wiki)["__Host-warifu_app"])
	}
	for i, cookie := range kept {
		if got := p.visitor().do(p.request(http.MethodGet, wiki, "", "Cookie", "__Host-warifu_app="+cookie)); got.status != http.StatusOK {
			t.Errorf("with the cookie of tab %d: %d", i, got.status)
		}
	}
	p.clock.forward(2 * time.Minute)
	b.enters(wiki)
	if n := p.grantsOf(p.store.AtHost(wikiHost).ID); n != 1 {
		t.Errorf("after the next sign-in there are %d grants", n)
	}
}

// The end that operators and users are told is the true one: that of the session, at which it comes.
func TestForwardAuthEndsWithTheSession(t *testing.T) {
	for _, grants := range [][]string{nil, {oauth.GrantAuthorizationCode}} {
		p := newBehind(t, func(c *server.Config) { c.Lifetimes.RefreshIdle = time.Hour })
		p.clock.begin()
		p.update("wiki", func(c *storage.Client) { c.GrantTypes = grants })
		const wiki, blog = "https://" + wikiHost + "/", "https://" + blogHost + "/"
		b := p.visitor()
		b.enters(blog)
		p.clock.forward(20 * time.Hour)
		consent := b.get(b.get(wiki).location.String())
		if consent.asks() != "decision" || strings.Contains(consent.body, "without use") ||
			!strings.Contains(consent.body, "until you sign out in this browser, for 4 hours at most") {
			t.Errorf("the question of consent: %s", consent.body)
		}
		back := b.decide(consent, "allow")
		got := b.get(back.location.String())
		if age := cookieNamed(got, "__Host-warifu_app").MaxAge; age != 4*3600 {
			t.Errorf("the cookie lasts for %d s", age)
		}
		ends := p.clock.now().Add(4 * time.Hour).Truncate(time.Millisecond)
		listed := fmt.Sprint(p.operator(http.MethodGet, "/v1/grants"))
		if !strings.Contains(listed, "expiresAt:"+ends.UTC().Format(time.RFC3339Nano)) {
			t.Errorf("operators are not told that it ends at %v: %s", ends.UTC(), listed)
		}
		p.clock.forward(4*time.Hour - time.Second)
		for _, at := range []string{wiki, blog} {
			if got := b.get(at); got.status != http.StatusOK {
				t.Errorf("%s before the end of the session: %d", at, got.status)
			}
		}
		p.clock.forward(2 * time.Second)
		if got := b.follow(b.get(wiki)); got.asks() != "password" {
			t.Errorf("after the end of the session: %d %s", got.status, shown(got.body))
		}
	}
}

// cookieNamed is a cookie that an answer sets.
func cookieNamed(got page, name string) *http.Cookie {
	for _, c := range (&http.Response{Header: got.header}).Cookies() {
		if c.Name == name {
			return c
		}
	}
	return &http.Cookie{}
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

// A fault of storage is no verdict: nobody is let through, and nobody is sent to sign in.
func TestForwardAuthWhileStorageIsAway(t *testing.T) {
	p := newBehind(t)
	b := p.visitor()
	const page = "https://" + wikiHost + "/"
	b.enters(page)
	p.etcd.Inject(func(bool, bool) error { return errors.New("etcd is away") })
	defer p.etcd.Inject(nil)
	if got := b.get(page); got.status != http.StatusServiceUnavailable || got.header["Remote-User"] != nil || got.location != nil {
		t.Errorf("%d %v", got.status, got.header)
	}
}

// What the server says of itself is the same, with apps behind forward auth and without.
func TestForwardAuthDoesNotChangeDiscovery(t *testing.T) {
	p := newIDP(t)
	before := p.document(p.issuer + "/.well-known/openid-configuration").raw
	p.register("wiki", func(c *storage.Client) { stands(c, "Wiki", wikiHost) })
	if after := p.document(p.issuer + "/.well-known/openid-configuration").raw; after != before {
		t.Errorf("%s\n%s", before, after)
	}
	if got := p.send(p.request(http.MethodGet, p.issuer+"/auth/verify", "")); got.status != http.StatusForbidden {
		t.Errorf("without trusted proxies: %d", got.status)
	}
}
