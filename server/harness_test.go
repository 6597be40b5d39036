package server_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
)

// restart puts a new server on the same records in the place of p's, as after a crash. Browsers made before it still
// see the old one.
func (p *idp) restart() {
	p.t.Helper()
	p.store = p.etcd.Store(func(o *storage.Options) { o.Now = p.clock.now })
	p.serve(p.store)
}

// replica is another server on the same records; its store opens with client.
func (p *idp) replica(client *clientv3.Client) *idp {
	p.t.Helper()
	store, err := storage.New(p.t.Context(), client, storage.Options{
		Prefix: p.etcd.Prefix, KEK: p.etcd.KEK, Logger: slog.New(slog.DiscardHandler), Now: p.clock.now})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(store.Close)
	q := *p
	q.store = store
	q.serve(store)
	return &q
}

func (p *idp) serve(store *storage.Store) {
	p.t.Helper()
	p.cfg.Store = store
	srv, err := server.New(p.t.Context(), p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.handler, p.transport = srv, direct{p}
}

// reload puts another configuration in force, while requests under way go on. p.cfg stays as it is.
func (p *idp) reload(change func(*server.Config)) {
	p.t.Helper()
	cfg := p.cfg
	change(&cfg)
	next, err := p.handler.(*server.Server).With(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	next.TakeOver()
	p.handler = next
}

// lagging is an etcd client whose watches never bring anything: what opens on it stays with what it has listed.
func (p *idp) lagging() *clientv3.Client {
	c := clientv3.NewCtxClient(context.Background())
	c.KV, c.Lease, c.Watcher = p.etcd.Client.KV, p.etcd.Client.Lease, silent{p.etcd.Client.Watcher}
	return c
}

type silent struct{ clientv3.Watcher }

func (silent) Watch(ctx context.Context, _ string, _ ...clientv3.OpOption) clientv3.WatchChan {
	events := make(chan clientv3.WatchResponse)
	context.AfterFunc(ctx, func() { close(events) })
	return events
}

// withManaged lets managed accounts sign in with their passwords, beside the users of the configuration.
func withManaged(c *server.Config) {
	c.Connectors[0].Password = connector.NewLocal(c.Connectors[0].Password.(*connector.Static),
		server.ManagedAccounts(c.Store))
}

// managed makes a managed account.
func (p *idp) managed(id, email, username, hash string) *storage.Account {
	p.t.Helper()
	a, err := p.store.PutAccount(p.t.Context(), storage.User{ID: id, Email: email, Username: username}, nil,
		&storage.FactorChange{Next: storage.Factors{Password: storage.Password{Hash: hash, At: p.clock.now()}}},
		storage.AuditEntry{Action: storage.AuditUserApplied, Detail: "user " + id})
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// as is p seen by another of its clients.
func (p *idp) as(c *storage.Client, secret string) *idp {
	q := *p
	q.client, q.secret = c, secret
	return &q
}

// at is p in a subtest.
func (p *idp) at(t testing.TB) *idp {
	q := *p
	q.t = t
	return &q
}

// wants checks an error page: its status and code, and that nobody is sent anywhere.
func (got page) wants(t testing.TB, rule string, status int, code string) {
	t.Helper()
	if got.status != status || !strings.Contains(got.body, "<code>"+code+"</code>") {
		t.Errorf("%s: status %d, want %d with %s\n%s", rule, got.status, status, code, shown(got.body))
	}
	if got.header.Get("Location") != "" {
		t.Errorf("%s: redirected to %s", rule, got.header.Get("Location"))
	}
}

// shown is the beginning of what a page says.
func shown(body string) string {
	_, main, found := strings.Cut(body, "<main>")
	if !found {
		main = body
	}
	return main[:min(len(main), 1500)]
}

// redirected checks an error that the app is told at its redirect URI.
func (p *idp) redirected(got page, rule, code string) {
	p.t.Helper()
	if got.location == nil || got.status != http.StatusSeeOther && got.status != http.StatusOK {
		p.t.Errorf("%s: status %d, want a redirect with %s\n%s", rule, got.status, code, shown(got.body))
		return
	}
	q := got.location.Query()
	if !strings.HasPrefix(got.location.String(), callback+"?") || q.Get("error") != code ||
		q.Get("error_description") == "" ||
		q.Get("iss") != p.issuer || q.Has("code") {
		p.t.Errorf("%s: redirected to %s, want %s", rule, got.location, code)
	}
}

// answered takes the code from an answer to the app.
func (b *browser) answered(got page, rule string) string {
	b.p.t.Helper()
	if got.location == nil || got.location.Query().Get("code") == "" {
		b.p.t.Errorf("%s: no code: status %d, location %v\n%s", rule, got.status, got.location, shown(got.body))
		return ""
	}
	return got.location.Query().Get("code")
}

// asks says what a page asks for: password, decision, or nothing.
func (got page) asks() string {
	for _, field := range []string{"password", "decision"} {
		if strings.Contains(got.body, `name="`+field+`"`) {
			return field
		}
	}
	return ""
}

// signedIn is a browser in which somebody has signed in and has not decided anything.
func (p *idp) signedIn(login string) (*browser, page) {
	p.t.Helper()
	b := p.browser()
	got := b.follow(b.signIn(b.get(p.authorizeURL()), login, userPassword))
	if got.asks() != "decision" {
		p.t.Fatalf("no consent page: %d %s", got.status, shown(got.body))
	}
	return b, got
}

// cookieName is what browsers call one of the server's cookies, such as session.
func (p *idp) cookieName(name string) string {
	return p.handler.(*server.Server).CookieName("warifu_" + name)
}

// cookie is the value of a cookie that b holds.
func (b *browser) cookie(name string) string {
	b.p.t.Helper()
	name = b.p.cookieName(name)
	u, err := url.Parse(b.p.issuer + "/oauth/authorize")
	if err != nil {
		b.p.t.Fatal(err)
	}
	for _, c := range b.http.Jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// plant sets a cookie in b, as somebody else might.
func (b *browser) plant(name, value string) {
	b.p.t.Helper()
	b.plantAs(b.p.cookieName(name), value)
}

func (b *browser) plantAs(name, value string) {
	b.p.t.Helper()
	u, err := url.Parse(b.p.issuer + "/")
	if err != nil {
		b.p.t.Fatal(err)
	}
	b.http.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

// request makes a request of a browser or a machine by hand.
func (p *idp) request(method, address, body string, header ...string) *http.Request {
	p.t.Helper()
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return req
}

const formType = "application/x-www-form-urlencoded"

// together runs do n times at once and returns when all are done.
func together(n int, do func(i int)) {
	var start, all sync.WaitGroup
	start.Add(1)
	for i := range n {
		all.Go(func() {
			start.Wait()
			do(i)
		})
	}
	start.Done()
	all.Wait()
}
