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
	if asked.Get("redirect_uri") != "https://"+wikiHost+"/.warifu/callback" ||
		asked.Get("code_challenge_method") != "S256" {
		t.Errorf("%v", asked)
	}
	consent := b.follow(b.signIn(b.get(first.location.String()), userEmail, userPassword))
	if consent.asks() != "decision" || !strings.Contains(consent.body, "Wiki") ||
		!strings.Contains(consent.body, wikiHost) {
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
		{"by user name", app(func(c *storage.Client) { c.ForwardAuthUser = oauth.ForwardUserUsername }), 200, "ann | Ann | " +
			userEmail + " | a%2Cb,staff"},
		{"a user name that would be smoothed", ann(func(u *storage.User) { u.Username = "ann " }), 403, ""},
		{"one that would be cut", ann(func(u *storage.User) { u.Username = strings.Repeat("a", 300) }), 403, ""},
		{"one that hides something", ann(func(u *storage.User) { u.Username = "a\u200bnn" }), 403, ""},
		{"none", ann(func(u *storage.User) { u.Username = "" }), 403, ""},
		{"in Japanese", ann(func(u *storage.User) { u.Username, u.Name = "安", "安\r\nX: y" }), 200, "安 | 安 X: y | " +
			userEmail + " | a%2Cb,staff"},
		{"by address", app(func(c *storage.Client) { c.ForwardAuthUser = oauth.ForwardUserEmail }), 200, userEmail +
			" | 安 X: y | " + userEmail + " | a%2Cb,staff"},
		{"an address that nobody has verified", ann(func(u *storage.User) { u.EmailVerified = false }), 403, ""},
		{"by subject again", app(func(c *storage.Client) { c.ForwardAuthUser = "" }), 200, sub +
			" | 安 X: y |  | a%2Cb,staff"},
		{"those groups of the filter", app(func(c *storage.Client) { c.GroupFilter = []string{"st*"} }), 200, sub +
			" | 安 X: y |  | staff"},
		{"a group that is not one line", func() { p.member("user-ann", "staff", "st\naff", "st100%") }, 200, sub +
			" | 安 X: y |  | st100%25,staff"},
		{"no scopes but openid", app(func(c *storage.Client) { c.Scopes = []string{"openid"} }), 200, sub + " |  |  | "},
	} {
		c.change()
		if got := b.get(page); got.status != c.status || c.status == 200 && got.told() != c.want {
			t.Errorf("%s: %d, the app is told %s, want %d %s", c.rule, got.status, got.told(), c.status, c.want)
		}
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
		{"a page, of a browser that says so", "GET", "", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest",
			"document"}, 303},
		{"only its header", "HEAD", "", nil, 303},
		{"a form", "POST", "", nil, 401},
		{"another method", "DELETE", "", nil, 401},
		{"a script", "GET", "", []string{"Accept", "application/json"}, 401},
		{"anything", "GET", "", []string{"Accept", "*/*"}, 401},
		{"a script that wants a page", "GET", "", []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, 401},
		{"a picture", "GET", "", []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 401},
		{"a frame", "GET", "", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 401},
		{"an old frame", "GET", "", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "frame"}, 401},
		{"a WebSocket", "GET", "", []string{"Sec-Fetch-Mode", "websocket", "Upgrade", "websocket", "Connection", "Upgrade"},
			401},
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
		if got := b.do(p.request(method, page, "", "Accept", "*/*")); got.status != http.StatusOK ||
			got.header.Get("Remote-User") == "" {
			t.Errorf("%s with a sign-in: %d %s", method, got.status, got.body)
		}
	}
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
	if why := e.of(script.header).Reasons[0]; script.status != http.StatusUnauthorized ||
		why.Rule != oauth.RuleForwardSignIn {
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
		{"another state", with(func(q url.Values) { q.Set("state", "x") }), b, oauth.RuleForwardReturn,
			"could not be finished", 400},
		{"no", with(func(q url.Values) { q.Set("error", "access_denied") }), b, oauth.RuleForwardAnswer, "You said no", 200},
		{"a fault", with(func(q url.Values) { q.Set("error", "server_error") }), b, oauth.RuleForwardAnswer,
			"Not available", 503},
		{"late", with(func(q url.Values) { q.Set("error", "temporarily_unavailable") }), b, oauth.RuleForwardAnswer,
			"Not available", 503},
		{"another error", with(func(q url.Values) { q.Set("error", "x") }), b, oauth.RuleForwardAnswer,
			"could not be finished", 400},
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
		for _, want := range []string{c.says, failed.header.Get("X-Request-Id"), `href="` + app + `"`, "Back to " +
			wikiHost} {
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
	if left := b.hostCookies(app); done.status != http.StatusSeeOther || left["__Host-warifu_app"] == "" ||
		len(left) != 1 {
		t.Errorf("signed in: %d, and the browser keeps %d cookies", done.status, len(left))
	}
	p.update("wiki", func(c *storage.Client) { c.AccessMFA = oauth.MFADemands()[0] })
	if got := b.do(p.request(http.MethodGet, app, "", "Accept", "*/*")); got.status != http.StatusUnauthorized ||
		!strings.Contains(got.body, "second factor") {
		t.Errorf("a second factor is demanded: %d %s", got.status, got.body)
	}
	// A proxy that takes a yes or a no alone is told one.
	b.http.Transport = behindProxy{p: p, more: "/status"}
	if got := b.do(p.request(http.MethodGet, app, "", "X-Forwarded-Uri",
		"/.warifu/../a")); got.status != http.StatusForbidden {
		t.Errorf("a path of this server's, to nginx: %d", got.status)
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
	if got = b.follow(got); got.status != http.StatusBadRequest || !strings.HasPrefix(got.address, p.issuer+
		"/auth/stopped") {
		t.Errorf("%s: %d %s", got.address, got.status, shown(got.body))
	}
}

// Where no proxy is trusted, the log says so of each app, once, and what to do; not with each request.
func TestForwardAuthWithoutTrustedProxiesIsLogged(t *testing.T) {
	p := newIDP(t).withAllScopes()
	look := func() int {
		p.handler.(*server.Server).Applied(t.Context())
		return strings.Count(p.log.String(), "level=WARN msg=\"no proxy is allowed to ask about apps behind forward "+
			"auth")
	}
	if n := look(); n != 0 {
		t.Errorf("without such an app there are %d lines", n)
	}
	p.register("wiki", func(c *storage.Client) { stands(c, "Wiki", wikiHost) })
	for range 3 {
		p.visitor().get("https://" + wikiHost + "/")
		if n := look(); n != 1 || !strings.Contains(p.log.String(), "web.trustedProxies") ||
			!strings.Contains(p.log.String(), "apps=wiki\n") {
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

// cookieNamed is a cookie that an answer sets.
func cookieNamed(got page, name string) *http.Cookie {
	for _, c := range (&http.Response{Header: got.header}).Cookies() {
		if c.Name == name {
			return c
		}
	}
	return &http.Cookie{}
}

// What a proxy is told is a text with the id of the request, and nothing besides: no page of this server, no challenge
// that a browser would answer with a dialog, and no other header than each answer has.
func TestForwardAuthRefusesInText(t *testing.T) {
	e := newExplained(t, trustsLoopback)
	p := e.withAllScopes()
	p.register("wiki", func(c *storage.Client) { stands(c, "Wiki", wikiHost) })
	const app = "https://" + wikiHost + "/"
	known := p.visitor()
	known.enters(app)
	ask := func(b *browser, more string, header ...string) page {
		b.http.Transport = behindProxy{p: p, more: more}
		return b.do(p.request(http.MethodGet, app, "", header...))
	}
	const nobody, nothing = "nobody has signed in to this app in this browser, or the sign-in has ended",
		"there is nothing at this address"
	p.etcd.Inject(func(bool, bool) error { return errors.New("etcd is away") })
	fault := ask(known, "")
	p.etcd.Inject(nil)
	for _, c := range []struct {
		name   string
		got    page
		status int
		text   string
		rule   string // "": it is a step, which is not kept
	}{
		{"a fault", fault, 503, "storage does not answer; try again later", oauth.RuleStorageUnavailable},
		{"another host", ask(known, "", "X-Forwarded-Host", "other.test"), 403,
			"no app.yml lists the host other.test in spec.oauth.forwardAuth.hosts", oauth.RuleForwardHost},
		{"yes or no", ask(p.visitor(), "/status"), 401, nobody, ""},
		{"a script", ask(p.visitor(), "", "Accept", "*/*"), 401, nobody, oauth.RuleForwardSignIn},
		{"below", ask(known, "", "X-Forwarded-Uri", "/.warifu/other"), 404, nothing, oauth.RuleForwardRequest},
		{"below, yes or no", ask(known, "/status", "X-Forwarded-Uri", "/.warifu/other"), 403, nothing,
			oauth.RuleForwardRequest},
	} {
		got := c.got
		if want := c.text + "\nrequest " + got.header.Get("X-Request-Id") + "\n"; got.status != c.status || got.body != want {
			t.Errorf("%s: %d %q, want %d %q", c.name, got.status, got.body, c.status, want)
		}
		names := slices.Sorted(maps.Keys(got.header))
		if want := []string{"Cache-Control", "Content-Length", "Content-Type", "Date", "Pragma", "Referrer-Policy",
			"X-Content-Type-Options", "X-Request-Id"}; !slices.Equal(names, want) {
			t.Errorf("%s: %v", c.name, got.header)
		}
		if c.rule != "" {
			if why := e.of(got.header).Reasons[0]; why.Rule != c.rule {
				t.Errorf("%s: %+v", c.name, why)
			}
		}
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
	if got := b.get(page); got.status != http.StatusServiceUnavailable || got.header["Remote-User"] != nil ||
		got.location != nil {
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
