package server_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// These benchmarks drive the real handler on embedded etcd, without a network in between. What their figures are to be
// measured by is in BenchmarkOfBare. All of them, and the ratios in a table:
//
//	make bench

// post is one request to the handler, with more headers as name, value pairs; it fails the benchmark on any status but
// 200 and 201.
func post(b *testing.B, h http.Handler, path string, form url.Values, header ...string) map[string]any {
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if w.Code != http.StatusOK && w.Code != http.StatusCreated {
		b.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		b.Fatal(err)
	}
	return out
}

// callers is how many call at once where many do.
const callers = 64

// bothWays runs a benchmark with one caller, where etcd's write to disk decides, and with many, where the processor
// does. Each caller starts with what prepare gives it, before the clock runs, and hands the outcome of each call to its
// next one. The processor's time for each operation, of the whole process, is reported beside the clock's.
func bothWays[S any](b *testing.B, prepare func() S, call func(b *testing.B, state S) S) {
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		state, spent := prepare(), processorTime(b)
		for b.Loop() {
			state = call(b, state)
		}
		b.ReportMetric(float64(processorTime(b)-spent)/float64(b.N), "cpu-ns/op")
	})
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		states := make(chan S, callers)
		for range callers {
			states <- prepare()
		}
		b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
		spent := processorTime(b)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			state := <-states
			for pb.Next() {
				state = call(b, state)
			}
		})
		b.ReportMetric(float64(processorTime(b)-spent)/float64(b.N), "cpu-ns/op")
	})
}

// processorTime is what this process has used so far, in nanoseconds.
func processorTime(b *testing.B) int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func BenchmarkRefresh(b *testing.B) {
	p := newBenchIDP(b)
	first := func() string { return p.grantTokens(b)["refresh_token"].(string) }
	bothWays(b, first, func(b *testing.B, token string) string {
		return post(b, p.handler, "/oauth/token", p.withClient(url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {token}}))["refresh_token"].(string)
	})
}

// BenchmarkRefreshOpenID is BenchmarkRefresh with an ID token that tells about the user, by the algorithm of its
// client: what that costs is the difference.
func BenchmarkRefreshOpenID(b *testing.B) {
	p := newBenchIDP(b)
	for _, alg := range idTokenAlgs {
		c, secret := p.at(b).register("bench-"+strings.ToLower(alg), func(c *storage.Client) {
			c.IDTokenSignedResponseAlg = alg
		})
		q := &benchIDP{p.as(c, secret), p.handler}
		first := func() string {
			return post(b, q.handler, "/oauth/token", q.withClient(url.Values{"grant_type": {"authorization_code"},
				"code": {q.signedIn(b, "openid profile email").code(b)}, "redirect_uri": {callback}}))["refresh_token"].(string)
		}
		b.Run(alg, func(b *testing.B) {
			bothWays(b, first, func(b *testing.B, token string) string {
				got := post(b, q.handler, "/oauth/token", q.withClient(url.Values{
					"grant_type": {"refresh_token"}, "refresh_token": {token}}))
				if got["id_token"] == nil {
					b.Fatal("no ID token")
				}
				return got["refresh_token"].(string)
			})
		})
	}
}

// BenchmarkRefreshDPoP is BenchmarkRefresh with a proof for each request, whose making by the client is in the figure:
// one ES256 signature. The server verifies one more than without.
func BenchmarkRefreshDPoP(b *testing.B) {
	p := newBenchIDP(b)
	d := p.prover()
	header, claims := d.parts(http.MethodPost, "/oauth/token")
	header["alg"] = "ES256"
	head := inJSON(b, header)
	first := func() string { return p.grantTokens(b)["refresh_token"].(string) }
	bothWays(b, first, func(b *testing.B, token string) string {
		body := inJSON(b, map[string]any{"jti": storage.NewGrantID(), "htm": claims["htm"], "htu": claims["htu"],
			"iat": time.Now().Unix(), "nonce": p.nonce(b)})
		return post(b, p.handler, "/oauth/token", p.withClient(url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {token}}), "DPoP", d.signRaw(head, body))["refresh_token"].(string)
	})
}

// nonce is the one that clients are told.
func (p *benchIDP) nonce(b *testing.B) string {
	w := httptest.NewRecorder()
	// Refused before anything else is done
	p.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/oauth/token", nil))
	if w.Header().Get("DPoP-Nonce") == "" {
		b.Fatal("no nonce")
	}
	return w.Header().Get("DPoP-Nonce")
}

func BenchmarkCodeExchange(b *testing.B) {
	p := newBenchIDP(b)
	for _, scope := range []string{"threads:read", "openid", "openid profile email"} {
		b.Run(strings.NewReplacer(":", "-", " ", "+").Replace(scope), func(b *testing.B) {
			session := p.signedIn(b, scope)
			bothWays(b, func() *benchSession { return session }, func(b *testing.B, session *benchSession) *benchSession {
				// The code comes from the real authorization endpoint, which asks storage once and stores nothing.
				post(b, p.handler, "/oauth/token", p.withClient(url.Values{
					"grant_type": {"authorization_code"}, "code": {session.code(b)}, "redirect_uri": {callback}}))
				return session
			})
		})
	}
}

// BenchmarkClientCredentials is with a secret, which stores nothing, and with an assertion, whose jti is stored.
func BenchmarkClientCredentials(b *testing.B) {
	p := newBenchIDP(b)
	b.Run("secret", func(b *testing.B) {
		s := p.at(b).service("batch")
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"}, "client_id": {s.client.ID},
			"client_secret": {s.secret}}
		bothWays(b, func() url.Values { return form }, func(b *testing.B, form url.Values) url.Values {
			post(b, p.handler, "/oauth/token", form)
			return form
		})
	})
	b.Run("assertion", func(b *testing.B) {
		k := p.at(b).keyed("key-app", "EdDSA")
		bothWays(b, func() *idp { return k }, func(b *testing.B, k *idp) *idp {
			post(b, p.handler, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"},
				// Made here as well: add what a signature costs
				"client_assertion": {k.assertion("EdDSA", nil)}, "client_assertion_type": {jwtBearer}})
			return k
		})
	})
}

func BenchmarkIntrospection(b *testing.B) {
	p := newBenchIDP(b)
	token := p.grantTokens(b)["access_token"].(string)
	bothWays(b, func() string { return token }, func(b *testing.B, token string) string {
		if post(b, p.handler, "/oauth/introspect", p.withClient(url.Values{"token": {token}}))["active"] != true {
			b.Fatal("not active")
		}
		return token
	})
}

func BenchmarkJWKS(b *testing.B) {
	p := newBenchIDP(b)
	bothWays(b, func() string { return "/oauth/jwks" }, func(b *testing.B, path string) string {
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
		return path
	})
}

// benchIDP calls the handler of an idp directly.
type benchIDP struct {
	*idp
	handler http.Handler
}

func newBenchIDP(b *testing.B) *benchIDP {
	b.Helper()
	p := newIDPOn(b, storagetest.Alone(b))
	return &benchIDP{p, p.handler}
}

func (p *benchIDP) withClient(form url.Values) url.Values {
	form.Set("client_id", p.client.ID)
	form.Set("client_secret", p.secret)
	return form
}

// benchSession is a signed-in browser whose user has allowed the scope.
type benchSession struct {
	p       *benchIDP
	request string
	cookies []*http.Cookie
}

func (p *benchIDP) signedIn(b *testing.B, scope string) *benchSession {
	b.Helper()
	br := p.browser()
	br.code("scope", scope)
	u, err := url.Parse(p.issuer)
	if err != nil {
		b.Fatal(err)
	}
	return &benchSession{p, p.authorizeURL("scope", scope), br.http.Jar.Cookies(u)}
}

func (s *benchSession) code(b *testing.B) string {
	req := httptest.NewRequest(http.MethodGet, s.request, nil)
	for _, c := range s.cookies {
		req.AddCookie(c)
	}
	w := httptest.NewRecorder()
	s.p.handler.ServeHTTP(w, req)
	location, err := w.Result().Location()
	if err != nil {
		b.Fatalf("no code: %d", w.Code)
	}
	return location.Query().Get("code")
}

func (p *benchIDP) grantTokens(b *testing.B) map[string]any {
	b.Helper()
	code := p.signedIn(b, "threads:read").code(b)
	return post(b, p.handler, "/oauth/token", p.withClient(url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}))
}

// How long a wrong password takes, by whose it is: at a name that nobody has, of the configuration, of managed
// accounts, and of those whose hash came from elsewhere. spread-% is the difference of the first quintiles. By turns,
// so that all meet the same machine:
//
//	go test -run '^$' -bench WrongPassword -benchtime 200x ./server
func BenchmarkWrongPassword(b *testing.B) {
	p := newIDP(b, withManaged)
	p.clock.stop()
	elsewhere, err := bcrypt.GenerateFromPassword([]byte(userPassword), 8)
	if err != nil {
		b.Fatal(err)
	}
	p.managed("ours", "ours@app.test", "", factor.HashPassword(userPassword))
	p.managed("elsewhere", "elsewhere@app.test", "", string(elsewhere))
	names := map[string]string{"nobody": "nobody@app.test", "static": userEmail, "managed": "ours@app.test",
		"elsewhere": "elsewhere@app.test"}
	agent := p.browser()
	form := agent.get(p.authorizeURL())
	took := make(map[string][]time.Duration)
	for i := 0; b.Loop(); i++ {
		if i%5 == 0 {
			p.clock.forward(15 * time.Minute) // nobody is locked
			form = agent.get(p.authorizeURL())
		}
		for name, login := range names {
			begun := time.Now()
			if got := agent.signIn(form, login, "wrong"); got.status != http.StatusUnprocessableEntity {
				b.Fatalf("%s: %d", name, got.status)
			}
			took[name] = append(took[name], time.Since(begun))
		}
	}
	shortest, longest := time.Hour, time.Duration(0)
	for name, all := range took {
		slices.Sort(all)
		usual := all[len(all)/5] // what else the machine does makes some slower
		shortest, longest = min(shortest, usual), max(longest, usual)
		b.ReportMetric(float64(usual)/float64(time.Millisecond), name+"-ms")
	}
	b.ReportMetric(100*float64(longest-shortest)/float64(shortest), "spread-%")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkForwardAuth is what each request to an app behind forward auth costs.
func BenchmarkForwardAuth(b *testing.B) {
	p := newBehind(b)
	guest := p.visitor()
	const page = "https://" + wikiHost + "/"
	guest.enters(page)
	req := p.request(http.MethodGet, p.issuer+"/auth/verify", "", "X-Forwarded-Host", wikiHost, "X-Forwarded-Proto",
		"https",
		"X-Forwarded-Uri", "/", "Cookie", "__Host-warifu_app="+guest.hostCookies(page)["__Host-warifu_app"])
	for b.Loop() {
		w := httptest.NewRecorder()
		r := req.Clone(b.Context())
		r.RemoteAddr = "127.0.0.1:1"
		p.handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
	}
}
