package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/net/html"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // libraries that take no logger
	os.Exit(runAll(m))
}

// idp is an identity provider under test, with one app and one user.
type idp struct {
	t      testing.TB
	etcd   *storagetest.Etcd
	store  *storage.Store
	issuer string
	log    *logBuffer
	clock  *clock

	// cfg is what the server was built of; transport leads to it.
	cfg       server.Config
	handler   http.Handler
	transport http.RoundTripper
	client    *storage.Client
	secret    string
}

// clock is real time, stopped or moved forward by a test.
type clock struct {
	mu      sync.Mutex
	stopped time.Time
	ahead   time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped.IsZero() {
		return c.stopped.Add(c.ahead)
	}
	return time.Now().Add(c.ahead)
}

// stop is for what must not be torn apart by the end of a five minutes' bucket or window.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = time.Now()
}

// begin stops at the beginning of the next bucket, for what goes forward and must not meet the end of one.
func (c *clock) begin() {
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = c.stopped.Truncate(5 * time.Minute).Add(5 * time.Minute)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// sealedOrSigned finds codes, tokens, client secrets, cookies and pending requests.
var sealedOrSigned = regexp.MustCompile(`wf[a-z]_[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]{16,}`)

// direct leads to the handler without a socket, for issuers on hosts that do not exist.
type direct struct{ p *idp }

func (d direct) RoundTrip(req *http.Request) (*http.Response, error) {
	inbound := req.Clone(req.Context())
	var err error
	if inbound.URL, err = url.ParseRequestURI(req.URL.RequestURI()); err != nil {
		return nil, err
	}
	if inbound.Host == "" {
		inbound.Host = req.URL.Host
	}
	inbound.RequestURI = req.URL.RequestURI()
	if inbound.Body == nil {
		inbound.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	d.p.handler.ServeHTTP(rec, inbound)
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}

// logBuffer keeps what was logged, to be searched for secrets.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

const (
	userEmail    = "ann@app.test"
	userPassword = "correct horse"
	callback     = "https://app.test/callback"
)

// newIDP starts a server on loopback; change alters its configuration.
func newIDP(t testing.TB, change ...func(*server.Config)) *idp {
	t.Helper()
	return newIDPOn(t, storagetest.New(t), change...)
}

// userHash is made once: even the cheapest takes a while.
var userHash = sync.OnceValue(func() []byte {
	hash, err := bcrypt.GenerateFromPassword([]byte(userPassword), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return hash
})

// newIDPOn is newIDP on any etcd.
func newIDPOn(t testing.TB, etcd *storagetest.Etcd, change ...func(*server.Config)) *idp {
	t.Helper()
	p := &idp{t: t, etcd: etcd, log: &logBuffer{}, clock: &clock{}}
	p.store = p.etcd.Store(func(o *storage.Options) { o.Now = p.clock.now })
	listener := httptest.NewUnstartedServer(nil)
	p.issuer = "http://" + listener.Listener.Addr().String()
	static, err := connector.NewStatic([]connector.StaticUser{
		{Identity: connector.Identity{UserID: "user-ann", Email: userEmail, Username: "ann", Name: "Ann", EmailVerified: true,
			Profile: annProfile, Address: annAddress}, Hash: userHash()},
		{Identity: connector.Identity{UserID: "user-bob", Email: "bob@app.test"}, Hash: userHash()},
	})
	if err != nil {
		t.Fatal(err)
	}
	var users []storage.User
	for _, id := range static.Identities() {
		users = append(users, server.UserRecord(id))
	}
	if err := p.store.SyncUsers(t.Context(), connector.StaticName, users); err != nil {
		t.Fatal(err)
	}
	cfg := server.Config{
		Issuer: p.issuer, Store: p.store, Connectors: local(static), Scopes: server.DefaultScopes(),
		Lifetimes: server.DefaultLifetimes(), Logger: slog.New(server.LogHandler(slog.NewTextHandler(p.log,
			&slog.HandlerOptions{Level: slog.LevelDebug}))), Now: p.clock.now,
	}
	for _, c := range change {
		c(&cfg)
	}
	cfg.Refused = seeing(cfg.Refused)
	p.transport = http.DefaultTransport
	if !strings.HasPrefix(cfg.Issuer, p.issuer) {
		p.transport = direct{p}
	}
	p.issuer, p.cfg = cfg.Issuer, cfg
	srv, err := server.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener.Config.Handler, p.handler = srv.Live(), srv
	listener.Start()
	t.Cleanup(listener.Close)
	t.Cleanup(func() {
		if found := sealedOrSigned.FindString(p.log.String()); found != "" {
			t.Errorf("the log holds a secret that begins with %.12s", found)
		}
	})
	p.client, p.secret = p.register("my-app", func(*storage.Client) {})
	return p
}

// local is the connector of the configuration's users, alone.
func local(static connector.Password) []connector.Connector {
	return []connector.Connector{{ID: connector.StaticName, Password: static}}
}

// register stores an app with its client.
func (p *idp) register(app string, change func(*storage.Client)) (*storage.Client, string) {
	p.t.Helper()
	id := storage.NewClientID(app)
	record, secret := p.store.NewClientSecret(id)
	c := &storage.Client{
		ID: id, App: app, Secrets: []storage.ClientSecret{record},
		Client: oauth.Client{
			ClientName: "My App", RedirectURIs: []string{callback, "http://localhost:*"}, Scopes: []string{"threads:read",
				"runs:write", "openid", "email", "profile"},
		},
	}
	change(c)
	if c.Public {
		c.Secrets, secret = nil, ""
	}
	if err := p.store.CommitRelease(p.t.Context(), storage.Release{App: storage.App{Name: app, ClientID: c.ID},
		Client: c}); err != nil {
		p.t.Fatal(err)
	}
	stored, err := p.store.Client(p.t.Context(), c.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	return stored, secret
}

// update changes a client's record as an apply would.
func (p *idp) update(app string, change func(*storage.Client)) {
	p.t.Helper()
	view, err := p.store.App(p.t.Context(), app)
	if err != nil {
		p.t.Fatal(err)
	}
	c := *view.Client
	change(&c)
	if err := p.store.CommitRelease(p.t.Context(), storage.Release{App: *view.App, Client: &c}); err != nil {
		p.t.Fatal(err)
	}
}

// browser is a user agent with cookies that shows each redirect to the test.
type browser struct {
	p    *idp
	http *http.Client
}

func (p *idp) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return &browser{p, &http.Client{Transport: p.transport, Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// page is an answer to a browser.
type page struct {
	status   int
	header   http.Header
	body     string
	location *url.URL
	address  string
}

func (b *browser) do(req *http.Request) page {
	b.p.t.Helper()
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "text/html")
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.p.t.Fatal(err)
	}
	got := page{status: resp.StatusCode, header: resp.Header, body: string(body), address: req.URL.String()}
	if got.location, err = resp.Location(); err != nil {
		got.location = onwardOf(b.p.t, got)
	}
	header := 0
	for name, values := range got.header {
		for _, value := range values {
			header += len(name) + len(": \r\n") + len(value)
		}
	}
	if header > 4<<10-200 { // what a server and a proxy add
		b.p.t.Errorf("%s %s: a header of %d bytes: a proxy with 4 KB for it gives up", req.Method, req.URL.Path, header)
	}
	return got
}

// onwardOf is where a page goes by itself, as a redirect would; nil when it stays.
func onwardOf(t testing.TB, got page) *url.URL {
	t.Helper()
	_, content, goes := strings.Cut(got.body, `<meta http-equiv="refresh" content="0;url=`)
	if !goes || got.status != http.StatusOK {
		return nil
	}
	address, _, _ := strings.Cut(content, `"`)
	to, err := url.Parse(html.UnescapeString(address))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func (b *browser) get(address string) page {
	b.p.t.Helper()
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		b.p.t.Fatal(err)
	}
	return b.do(req)
}

func (b *browser) post(address string, form url.Values) page {
	b.p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		b.p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(req)
}

// form finds the form of a page that has a field or button of that name: where it goes, and its hidden fields.
func (b *browser) form(got page, field string) (string, url.Values) {
	b.p.t.Helper()
	root, err := html.Parse(strings.NewReader(got.body))
	if err != nil {
		b.p.t.Fatal(err)
	}
	attr := func(n *html.Node, key string) string {
		for _, a := range n.Attr {
			if a.Key == key {
				return a.Val
			}
		}
		return ""
	}
	for form := range root.Descendants() {
		if form.Data != "form" {
			continue
		}
		hidden, found := url.Values{}, false
		for n := range form.Descendants() {
			if attr(n, "name") == field {
				found = true
			}
			if n.Data == "input" && attr(n, "type") == "hidden" {
				hidden.Add(attr(n, "name"), attr(n, "value"))
			}
		}
		if found {
			base, err := url.Parse(got.address)
			if err != nil {
				b.p.t.Fatal(err)
			}
			action, err := base.Parse(attr(form, "action"))
			if err != nil {
				b.p.t.Fatal(err)
			}
			return action.String(), hidden
		}
	}
	b.p.t.Fatalf("no form with %q on the page (status %d):\n%s", field, got.status, got.body)
	return "", nil
}

// signIn fills in the sign-in page.
func (b *browser) signIn(got page, login, password string) page {
	b.p.t.Helper()
	action, form := b.form(got, "password")
	form.Set("login", login)
	form.Set("password", password)
	return b.post(action, form)
}

// decide presses a button of the consent page.
func (b *browser) decide(got page, decision string) page {
	b.p.t.Helper()
	action, form := b.form(got, "decision")
	form.Set("decision", decision)
	return b.post(action, form)
}

// follow goes where the answer sends the browser, while that is the provider itself.
func (b *browser) follow(got page) page {
	b.p.t.Helper()
	for range 5 {
		if got.location == nil || !strings.HasPrefix(got.location.String(), b.p.issuer) {
			return got
		}
		got = b.get(got.location.String())
	}
	b.p.t.Fatal("redirected in a circle")
	return got
}

// authorizeURL is a request of the app, with changes as name, value pairs; a value of "" leaves the parameter out.
func (p *idp) authorizeURL(changes ...string) string {
	params := url.Values{
		"client_id": {p.client.ID}, "redirect_uri": {callback}, "response_type": {"code"},
		"scope": {"threads:read"}, "state": {"state-1"},
	}
	for i := 0; i < len(changes); i += 2 {
		params.Set(changes[i], changes[i+1])
		if changes[i+1] == "" {
			params.Del(changes[i])
		}
	}
	return p.issuer + "/oauth/authorize?" + params.Encode()
}

// code walks the pages until the app has its code.
func (p *idp) code(changes ...string) string {
	p.t.Helper()
	return p.browser().code(changes...)
}

func (b *browser) code(changes ...string) string {
	b.p.t.Helper()
	got := b.follow(b.get(b.p.authorizeURL(changes...)))
	if strings.Contains(got.body, `name="password"`) {
		got = b.follow(b.signIn(got, userEmail, userPassword))
	}
	if strings.Contains(got.body, `name="decision"`) {
		got = b.follow(b.decide(got, "allow"))
	}
	if got.location == nil || got.location.Query().Get("code") == "" {
		b.p.t.Fatalf("no code: status %d, location %v\n%s", got.status, got.location, got.body)
	}
	return got.location.Query().Get("code")
}

// reply is an answer to a machine.
type reply struct {
	status int
	header http.Header
	raw    string
	json   map[string]any
}

func (r reply) text(name string) string {
	v, _ := r.json[name].(string)
	return v
}

// call sends form to an endpoint; the client authenticates in the body unless form says otherwise.
func (p *idp) call(path string, form url.Values) reply {
	p.t.Helper()
	if !form.Has("client_id") {
		form.Set("client_id", p.client.ID)
		form.Set("client_secret", p.secret)
	}
	req, err := http.NewRequest(http.MethodPost, p.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return p.send(req)
}

func (p *idp) send(req *http.Request) reply {
	p.t.Helper()
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	got := reply{status: resp.StatusCode, header: resp.Header, raw: string(body)}
	if len(body) > 0 && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(body, &got.json); err != nil {
			p.t.Fatalf("%v in %q", err, body)
		}
	}
	return got
}

func (p *idp) exchange(code string, more ...string) reply {
	p.t.Helper()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return p.call("/oauth/token", form)
}

func (p *idp) refresh(token string, more ...string) reply {
	p.t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return p.call("/oauth/token", form)
}

// tokens walks the whole flow.
func (p *idp) tokens(changes ...string) reply {
	p.t.Helper()
	got := p.exchange(p.code(changes...))
	if got.status != http.StatusOK {
		p.t.Fatalf("exchange: %d %s", got.status, got.raw)
	}
	return got
}

// active asks introspection about a token.
func (p *idp) active(token string) bool {
	p.t.Helper()
	got := p.call("/oauth/introspect", url.Values{"token": {token}})
	if got.status != http.StatusOK {
		p.t.Fatalf("introspection: %d %s", got.status, got.raw)
	}
	active, _ := got.json["active"].(bool)
	return active
}

// wants checks an OAuth error.
func (r reply) wants(t testing.TB, rule string, status int, code string) {
	t.Helper()
	if r.status != status || r.text("error") != code {
		t.Errorf("%s: %d %s, want %d %s", rule, r.status, r.raw, status, code)
	}
	if r.text("access_token") != "" || r.text("refresh_token") != "" {
		t.Errorf("%s: tokens in an error", rule)
	}
}

const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Somebody who does not want to sign in can go back to the app, which is told so.
func TestSignInCanBeCancelled(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	action, form := b.form(b.get(p.authorizeURL()), "cancel")
	form.Set("cancel", "yes")
	p.redirected(b.post(action, form), "cancelled", "access_denied")
	form.Set("form", "wff_garbage")
	if got := b.post(action, form); got.status != http.StatusForbidden {
		t.Errorf("a form that is not ours: %d", got.status)
	}
}
