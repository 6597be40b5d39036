package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(storagetest.Main(m)) }

const day = 24 * time.Hour

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *authority) issue(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) authority(t *testing.T, name string) *authority {
	cert, key := a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(1000 * day), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return &authority{cert, key}
}

// server is a certificate for localhost that was made some time ago and ends in some time.
func (a *authority) server(t *testing.T, ends time.Duration, more ...func(*x509.Certificate)) tls.Certificate {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().Add(ends - 90*day),
		NotAfter: time.Now().Add(ends), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	for _, m := range more {
		m(template)
	}
	cert, key := a.issue(t, template)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// listen serves with TLS, and returns the issuer there.
func listen(t *testing.T, cert tls.Certificate, handler func(issuer string) http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	issuer := "https://" + s.Listener.Addr().String()
	s.Config.Handler = handler(issuer)
	s.StartTLS()
	t.Cleanup(s.Close)
	return issuer
}

// provider has discovery and keys, and is another one's if issuer is.
func provider(issuer string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathDiscovery, func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": "https://" + r.Host + "/jwks"})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"keys":[{"kid":"one"}]}`))
	})
	return mux
}

// found is a finding of a check that says something.
func found(findings []Finding, check string, state State, says string) bool {
	for _, f := range findings {
		if f.Check == check && f.State == state && strings.Contains(f.Seen, says) && (state == Fine || f.Remedy != "") {
			return true
		}
	}
	return false
}

func shown(findings []Finding) string {
	var out strings.Builder
	for _, f := range findings {
		_, _ = fmt.Fprintf(&out, "%s %s: %s -> %s\n", f.State, f.Check, f.Seen, f.Remedy)
	}
	return out.String()
}

func TestCertificatesThatArePresented(t *testing.T) {
	t.Parallel()
	root := new(authority).authority(t, "Root")
	between := root.authority(t, "Between")
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	aia := func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://ca.example.com/between.cer"} }
	for name, c := range map[string]struct {
		cert  tls.Certificate
		state State
		says  string
	}{
		"fine":    {root.server(t, 60*day+time.Minute), Fine, "ends in 60 days"},
		"ended":   {root.server(t, -50*time.Hour), Wrong, "ended 2 days ago"},
		"soon":    {root.server(t, 10*day+time.Minute), Warning, "ends in 10 days"},
		"not yet": {root.server(t, 91*day), Wrong, "is not valid before"},
		"six days": {root.server(t, 5*day, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-day) }), Fine,
			"ends in 4 days"},
		"name": {root.server(t, 60*day, func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = []string{"other.example.com"}, nil
		}), Wrong, "is for other.example.com, and not for 127.0.0.1"},
		"alone":     {between.server(t, 60*day, aia), Wrong, "is sent without the certificate of its issuer, Between"},
		"strangers": {new(authority).authority(t, "Stranger").server(t, 60*day), Wrong, "does not know who vouches for"},
	} {
		issuer := listen(t, c.cert, provider)
		findings := Run(t.Context(), Outside{Issuer: issuer, Roots: roots}.Checks(t.Context())...)
		if !found(findings, "certificate", c.state, c.says) {
			t.Errorf("%s:\n%s", name, shown(findings))
		}
		if refused := name != "fine" && name != "six days" && name != "soon"; refused != found(findings, "discovery", Wrong,
			"apps do not get") {
			t.Errorf("%s, apps:\n%s", name, shown(findings))
		}
	}
}

func TestRedirectsAndWhoAnswers(t *testing.T) {
	t.Parallel()
	root := new(authority).authority(t, "Root")
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	cert := root.server(t, 60*day)
	redirect := func(to func(issuer string, r *http.Request) string) func(string) http.Handler {
		return func(issuer string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, to(issuer, r), http.StatusMovedPermanently)
			})
		}
	}
	status := func(code int) func(string) http.Handler {
		return func(string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		}
	}
	for name, c := range map[string]struct {
		handler func(string) http.Handler
		says    string
	}{
		"to itself": {redirect(func(issuer string, r *http.Request) string { return issuer + r.URL.Path }), "go in a circle"},
		"two": {redirect(func(issuer string, r *http.Request) string {
			return issuer + map[bool]string{true: "/other", false: pathDiscovery}[r.URL.Path == pathDiscovery]
		}), "go in a circle"},
		"to http": {redirect(func(issuer string, r *http.Request) string {
			return "http" + strings.TrimPrefix(issuer, "https") + r.URL.Path
		}), "https is redirected to http"},
		"to sign-in": {func(issuer string) http.Handler {
			mux := http.NewServeMux()
			mux.Handle(pathDiscovery, http.RedirectHandler(issuer+"/login", http.StatusFound))
			mux.HandleFunc("/login", func(http.ResponseWriter, *http.Request) {})
			return mux
		}, "redirected to another path"},
		"elsewhere": {func(string) http.Handler { return provider("https://id.example.com") },
			`says that the issuer is "https://id.example.com"`},
		"no backend": {status(502), "reaches no server"}, "forbidden": {status(403), "answers 403, and not this server"},
		"a page": {status(200), "is not the metadata"},
		"stripped": {func(string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for _, h := range []string{"X-Request-Id: 0", "X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer"} {
					key, value, _ := strings.Cut(h, ": ")
					w.Header().Set(key, value)
				}
				w.WriteHeader(404)
			})
		}, "does not know that address"},
	} {
		issuer := listen(t, cert, c.handler)
		findings := Run(t.Context(), Outside{Issuer: issuer, Roots: roots}.Checks(t.Context())...)
		if !found(findings, "discovery", Wrong, c.says) {
			t.Errorf("%s:\n%s", name, shown(findings))
		}
	}
	issuer := listen(t, cert, provider)
	keys := func(kid string) func(context.Context) []string {
		return func(context.Context) []string { return []string{kid} }
	}
	late := func() time.Time { return time.Now().Add(40 * time.Second) }
	findings := Run(t.Context(), Outside{Issuer: issuer, Roots: roots, Keys: keys("two"),
		Now: late}.Checks(t.Context())...)
	if !found(findings, "discovery", Wrong, "the key two, with which the server signs") ||
		!found(findings, "clock", Wrong, "behind") {
		t.Error(shown(findings))
	}
	findings = Run(t.Context(), Outside{Issuer: issuer, Roots: roots, Keys: keys("one")}.Checks(t.Context())...)
	if Worst(findings) != Fine || !found(findings, "clock", Fine, "agree") {
		t.Error(shown(findings))
	}
	s := &outside{Outside: Outside{Now: time.Now}, client: http.DefaultClient}
	open := httptest.NewServer(provider("http://id.example.com"))
	defer open.Close()
	if f := s.unprotected(t.Context(), open.URL+pathDiscovery); f[0].State != Warning ||
		!strings.Contains(f[0].Seen, "without TLS") {
		t.Error(f)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	findings = Run(t.Context(), Outside{Issuer: "https://" + closed.Addr().String(), Roots: roots}.Checks(t.Context())...)
	if !found(findings, "certificate", Wrong, "nobody answers at") || !found(findings, "discovery", Wrong,
		"nobody answers at") {
		t.Error(shown(findings))
	}
}

func TestProxiesAreJudgedByWhatArrives(t *testing.T) {
	t.Parallel()
	user := netip.MustParseAddr("198.51.100.9")
	for name, c := range map[string]struct {
		arrived Arrived
		state   State
		says    string
	}{
		"none": {Arrived{Peer: "127.0.0.1:999", ForwardedFor: []string{forged}}, Fine, "no proxy is between"},
		"good": {Arrived{Peer: "10.0.0.1:5", Trusted: true, Address: user, ForwardedFor: []string{forged +
			", 198.51.100.9"}}, Fine, "(this one is 198.51.100.9)"},
		"untrusted": {Arrived{Peer: "10.0.0.1:5", ForwardedFor: []string{forged + ", 198.51.100.9"}}, Wrong,
			"not among web.trustedProxies"},
		"from inside": {Arrived{Peer: "10.0.0.1:5", Trusted: true, Address: netip.MustParseAddr(forged),
			ForwardedFor: []string{forged + ", 10.0.0.2"}}, Fine, "10.0.0.2, which is among web.trustedProxies"},
		"as it came": {Arrived{Peer: "10.0.0.1:5", Trusted: true, Address: netip.MustParseAddr(forged),
			ForwardedFor: []string{forged}}, Wrong, "as clients write it"},
		"strips":      {Arrived{Peer: "10.0.0.1:5", Trusted: true}, Wrong, "does not pass X-Forwarded-For on"},
		"strips too":  {Arrived{Peer: "10.0.0.1:5"}, Wrong, "passes no X-Forwarded-For on"},
		"adds none":   {Arrived{Peer: "10.0.0.1:5", ForwardedFor: []string{forged}}, Wrong, "adds nothing"},
		"behind NAT":  {Arrived{Peer: "10.0.0.1:5", TLS: true, ForwardedFor: []string{forged}}, Fine, "is ignored"},
		"IPv6 mapped": {Arrived{Peer: "[::ffff:10.0.0.1]:5", Trusted: true}, Wrong, "the proxy 10.0.0.1 does"},
	} {
		text := c.arrived.Header()
		arrived, err := readArrived(text)
		if err != nil {
			t.Fatal(err)
		}
		if f := judgeProxy(arrived, "127.0.0.1:999"); len(f) != 1 || f[0].State != c.state ||
			!strings.Contains(f[0].Seen, c.says) {
			t.Errorf("%s: %s", name, shown(f))
		}
	}
}

func TestFilesThatOthersGetAtAndCertificatesThatEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	leaf := new(authority).authority(t, "Root").server(t, -time.Hour)
	cert := write("cert.pem", 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}))
	all := filepath.Join(dir, "all")
	if err := errors.Join(os.Mkdir(all, 0o700), os.Chmod(all, 0o777), os.WriteFile(filepath.Join(all, "key"), nil,
		0o600)); err != nil {
		t.Fatal(err)
	}
	files := Files{Data: dir, Embedded: true, Certificates: []File{{"web.tlsCert", cert, "id.example.com"}},
		Secrets: []File{
			{Key: "one", Name: write("one", 0o604, nil)}, {Key: "two", Name: write("two", 0o660, nil)},
			{Key: "three", Name: write("three", 0o640, nil)},
			{Key: "four", Name: filepath.Join(dir, "none")}, {Key: "five", Name: filepath.Join(all, "key")},
		}}
	findings := Run(t.Context(), files.Checks()...)
	if !found(findings, "files", Wrong, "get at one (") || !found(findings, "files", Warning, "can replace two (") ||
		!found(findings, "files", Wrong, "can replace five (") || strings.Contains(shown(findings), "three") ||
		strings.Contains(shown(findings), "four") ||
		!found(findings, "certificate", Wrong, "web.tlsCert ("+cert+") ended 1 hour ago") ||
		!found(findings, "certificate", Warning, "and not for id.example.com") {
		t.Error(shown(findings))
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "three"), 4242, -1); err != nil {
			t.Fatal(err)
		}
		if f := Run(t.Context(), files.Checks()...); !found(f, "files", Warning, "three ("+filepath.Join(dir, "three")+
			") belongs to the user 4242") {
			t.Error(shown(f))
		}
	}
}

// A check that hangs holds up no other, and is said to.
func TestChecksThatHang(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	findings := Run(t.Context(),
		Check{Name: "deaf", Within: time.Millisecond, Look: func(context.Context) ([]Finding, error) {
			<-release
			return nil, nil
		}},
		Check{Name: "slow", Within: time.Millisecond, Look: func(ctx context.Context) ([]Finding, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		Check{Name: "broken", Look: func(context.Context) ([]Finding, error) {
			return []Finding{fine("half of it")},
				errors.New("no more")
		}})
	for _, want := range []string{"unknown deaf: this was not found out within 1ms", "unknown slow: this was not",
		"ok broken: half of it", "unknown broken: this cannot be found out: no more"} {
		if !strings.Contains(shown(findings), want) {
			t.Errorf("no %q:\n%s", want, shown(findings))
		}
	}
	if Worst(findings) != Unknown || Worst(nil) != Fine {
		t.Error(Worst(findings))
	}
}

// An etcd that is full, as a cluster that this process does not keep: its alarm is seen, and so are keys that are
// missing.
func TestEtcdWithAnAlarm(t *testing.T) {
	t.Parallel()
	discard := slog.New(slog.DiscardHandler)
	embedded, err := storage.Embedding{Dir: t.TempDir(), Quota: 4 << 20}.Open(t.Context(), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	kek, err := storage.NewKEK(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.New(t.Context(), embedded.Client, storage.Options{KEK: kek, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	inside := Inside{Store: store, Schedules: []storage.KeySchedule{{Use: storage.UseES256, Period: day,
		Overlap: time.Hour}},
		Plugins: func(context.Context) []Plugin {
			return []Plugin{{Name: "well", Kind: "hook", Version: "1.2.3"}, {Name: "ill", Kind: "runtime",
				Err: errors.New("it exited")}}
		},
		Upstreams: []Upstream{{ID: "away", Address: "127.0.0.1:1"}}}
	findings := Run(t.Context(), inside.Checks()...)
	if !found(findings, "etcd", Fine, "embedded etcd 3.") || !found(findings, "keys", Wrong, "no ES256 key is in use") ||
		!found(findings, "plugins", Fine, "well 1.2.3") || !found(findings, "plugins", Wrong, "the runtime ill does not "+
		"run: it exited") ||
		!found(findings, "connectors", Warning, "the connector away does not reach 127.0.0.1:1") {
		t.Error(shown(findings))
	}
	if err := store.RotateKeys(t.Context(), true, inside.Schedules...); err != nil {
		t.Fatal(err)
	}
	inside.Now = func() time.Time { return time.Now().Add(time.Hour) }
	if f := Run(t.Context(), inside.Checks()...); !found(f, "keys", Warning, "has no successor") {
		t.Error(shown(f))
	}
	if err := store.RotateKeys(t.Context(), false, inside.Schedules...); err != nil {
		t.Fatal(err)
	}
	inside.Now = func() time.Time { return time.Now().Add(26 * time.Hour) }
	if f := Run(t.Context(), inside.Checks()...); !found(f, "keys", Warning, "was to be replaced 2 hours ago") {
		t.Error(shown(f))
	}
	value := make([]byte, 200<<10)
	for i := range 1000 {
		if _, err = embedded.Client.Put(t.Context(), fmt.Sprintf("filler %d", i), string(value)); err != nil {
			break
		}
	}
	if f := Run(t.Context(), inside.Checks()...); err == nil || !found(f, "etcd", Wrong, "storage is full") {
		t.Error(err, shown(f))
	}
}

// An app whose env does not come through, whose old secret is in use until it ends, and whose users are sent to their
// own machine; and one that waits for somebody.
func TestAppsThatNeedSomebody(t *testing.T) {
	t.Parallel()
	store, now := storagetest.New(t).Store(), time.Now().UTC()
	commit := func(name string, change func(*storage.SecretRotation), deliveries ...storage.Delivery) {
		t.Helper()
		c := &storage.Client{ID: name, App: name, CreatedAt: now, UpdatedAt: now, Client: oauth.Client{ClientName: name,
			RedirectURIs: []string{"https://" + name + ".example.com/cb", "http://localhost:3000/cb"}}}
		for range 2 {
			secret, _ := store.NewClientSecret(name)
			c.Secrets = append(c.Secrets, secret)
		}
		rotation := &storage.SecretRotation{ClientID: name, App: name, SecretID: c.Secrets[1].ID, Previous: c.Secrets[0].ID,
			StartedAt: now.Add(-3 * day), Grace: day}
		change(rotation)
		if err := store.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: name, ClientID: name}, Client: c,
			Deliveries: deliveries, Rotation: rotation}); err != nil {
			t.Fatal(err)
		}
		store.NoteUse(name, rotation.Previous)
	}
	target := func(name string) storage.Target { return storage.Target{Kind: "worker", Name: name} }
	commit("ends", func(r *storage.SecretRotation) {
		r.ServedAt, r.UsedAt, r.RetiresAt = now.Add(-2*day), now.Add(-2*day), now.Add(5*time.Hour+time.Minute)
	}, storage.Delivery{App: "ends", Target: target("a"), Generation: 2, State: storage.DeliveryFailed,
		Error: "no such host"},
		storage.Delivery{App: "ends", Target: target("b"), Generation: 2, Serving: 1, State: storage.DeliveryRolling,
			Since: now.Add(-time.Hour)},
		storage.Delivery{App: "ends", Target: target("c"), Generation: 2, Serving: 1, State: storage.DeliveryRolling,
			Since: now})
	commit("waits", func(*storage.SecretRotation) {})
	commit("well", func(r *storage.SecretRotation) { r.StartedAt = now })
	if err := store.FlushUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	findings := Run(t.Context(), Inside{Store: store}.Checks()...)
	if !found(findings, "secrets", Warning, "a secret of ends ends in 5 hours, and was used") ||
		!found(findings, "secrets", Warning, "the secret of waits has been changing for 3 days") ||
		!found(findings, "deliveries", Wrong, "worker/a of ends does not have its env (failed): no such host") ||
		!found(findings, "deliveries", Warning, "the env of worker/b of ends has been under way for 1 hour (rolling, "+
			"generation 1 of 2)") ||
		!found(findings, "redirects", Warning, "may listen: ends, waits, well") {
		t.Error(shown(findings))
	}
	if text := shown(findings); strings.Contains(text, "worker/c") || strings.Contains(text, "secret of well") {
		t.Error(text)
	}
}

// Apps behind forward auth need a proxy that may ask about them.
func TestAppsThatNoProxyMayAskAbout(t *testing.T) {
	t.Parallel()
	store := storagetest.New(t).Store()
	if text := shown(Run(t.Context(), Inside{Store: store, NoProxies: true}.Checks()...)); strings.Contains(text,
		"forward") {
		t.Errorf("without such an app: %s", text)
	}
	now := time.Now().UTC()
	c := &storage.Client{ID: "wiki-1", App: "wiki", CreatedAt: now, UpdatedAt: now,
		Client: oauth.Client{ClientName: "Wiki"}}
	c.ForwardAuthHosts = []string{"wiki.example.com"}
	if err := store.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: "wiki", ClientID: c.ID},
		Client: c}); err != nil {
		t.Fatal(err)
	}
	findings := Run(t.Context(), Inside{Store: store, NoProxies: true}.Checks()...)
	i := slices.IndexFunc(findings, func(f Finding) bool { return f.Check == "forward-auth" })
	if !found(findings, "forward-auth", Wrong, "every request to them is refused: wiki") ||
		!strings.Contains(findings[i].Remedy, "web.trustedProxies") {
		t.Error(shown(findings))
	}
	if findings := Run(t.Context(), Inside{Store: store}.Checks()...); !found(findings, "forward-auth", Fine, "1") {
		t.Error(shown(findings))
	}
}

// An etcd that is too old is to be upgraded, and not looked for.
func TestEtcdThatIsTooOld(t *testing.T) {
	found := Etcd(storage.Health{}, fmt.Errorf("connect to etcd: a is etcd 3.4.0, which is %w: upgrade it",
		storage.ErrOldEtcd))
	if f := found[0]; f.State != Wrong || strings.Contains(f.Seen, "does not answer") ||
		!strings.Contains(f.Remedy, "upgrade etcd") {
		t.Errorf("%+v", f)
	}
}

// An issuer that is none is said once, with the one that is meant.
func TestIssuerWithASlash(t *testing.T) {
	found := Run(t.Context(), Outside{Issuer: "https://id.example.com/"}.Checks(t.Context())...)
	if len(found) != 1 || strings.Contains(found[0].Seen, "issuer must") ||
		found[0].Remedy != "write https://id.example.com" {
		t.Errorf("%+v", found)
	}
}
