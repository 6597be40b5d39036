package server_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/server/workload"
)

// An issuer replaces its keys without a restart of this server; who names keys that nobody has does not make it ask
// without end; and an issuer that hangs is a 503 for its own workloads alone.
func TestKeysOfIssuers(t *testing.T) {
	cluster, other := newPlatform(t), newPlatform(t)
	p := trustingPlatforms(t, cluster, other)
	w, o := p.running("shop", cluster.is(webAccount)), p.running("other", other.is("job"))
	works := func(rule string, q *idp, token string, status int) {
		t.Helper()
		if got := q.asserting("/oauth/token", token, forItself("threads:read")); got.status != status {
			t.Errorf("%s: %d %s, not %d", rule, got.status, got.raw, status)
		}
	}
	before := cluster.token(p, nil)
	works("the first key", w, before, http.StatusOK)
	p.clock.forward(time.Minute)
	cluster.rotate(t, "k2")
	works("the next key", w, cluster.token(p, nil), http.StatusOK)
	works("the key before", w, before, http.StatusUnauthorized)
	p.clock.forward(time.Minute)
	asked := cluster.asked.Load()
	for range 50 {
		works("a key that nobody has", w, signedBy(t, newKey(t), jose.ES256, map[string]any{"kid": rand.Text()},
			cluster.claims(p, nil)),
			http.StatusUnauthorized)
	}
	if n := cluster.asked.Load() - asked; n > 3 {
		t.Errorf("50 tokens with made-up kids made the server ask %d times", n)
	}
	held := make(chan struct{})
	cluster.hang.Store(&held)
	defer close(held)
	p.clock.forward(11 * time.Minute)
	works("keys that are a while old, while the issuer hangs", w, cluster.token(p, nil), http.StatusOK)
	cluster.rotate(t, "k3")
	var all sync.WaitGroup
	for range 20 { // more than may wait
		all.Go(func() {
			got := w.asserting("/oauth/token", cluster.token(p, nil), forItself("threads:read"))
			if got.status != http.StatusServiceUnavailable || got.text("error") != "temporarily_unavailable" ||
				got.header.Get("Retry-After") == "" {
				t.Errorf("a kid that is not known, while the issuer hangs: %d %s", got.status, got.raw)
			}
		})
	}
	works("somebody else, meanwhile", o, other.token(p, map[string]any{"sub": "job"}), http.StatusOK)
	p.tokens("scope", "openid")
	all.Wait()
}

// What an issuer proves ends when it is taken out of the configuration; what it is known by stays when it is not.
func TestIssuerTakenOutOfTheConfiguration(t *testing.T) {
	cluster, other := newPlatform(t), newPlatform(t)
	p := trustingPlatforms(t, cluster, other)
	w := p.running("shop", cluster.is(webAccount))
	token := cluster.token(p, nil)
	got := w.asserting("/oauth/token", token, redeeming(w.code()))
	if got.status != http.StatusOK {
		t.Fatal(got.raw)
	}
	asked := cluster.asked.Load()
	p.reload(func(c *server.Config) { c.TrustedIssuers = nil; trustPlatforms(cluster)(c) })
	got = w.asserting("/oauth/token", token, refreshing(got.text("refresh_token")))
	if got.status != http.StatusOK || cluster.asked.Load() != asked {
		t.Errorf("another issuer was taken out: %d %s, and the keys were asked for %d times", got.status, got.raw,
			cluster.asked.Load()-asked)
	}
	p.reload(func(c *server.Config) { c.TrustedIssuers = nil; trustPlatforms(other)(c) })
	for rule, form := range map[string]url.Values{
		"a refresh": refreshing(got.text("refresh_token")), "a token of its own": forItself("threads:read"),
	} {
		if got := w.asserting("/oauth/token", token, form, "client_id", w.client.ID); got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
}

// The keys of a SPIFFE trust domain are in a file that changes; its tokens have no issuer, and its keys sign for no
// other domain. A cluster's own address is asked with its certificates and a token. The forms of tokens of GitHub
// Actions and GitLab CI are imitated after their documentation.
func TestPlatforms(t *testing.T) {
	cluster := newPlatform(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	svid := newKey(t)
	bundle := func(key crypto.Signer, kid string) string {
		return jwksOf(t, jose.JSONWebKey{Key: key.Public(), KeyID: kid, Use: "jwt-svid"})
	}
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/openid/v1/jwks" || r.Header.Get("Authorization") != "Bearer token-of-the-cluster" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(jwksOf(t, publicJWK(cluster.key, "k"))))
	}))
	t.Cleanup(api.Close)
	const advertised = "https://kubernetes.default.svc.cluster.local"
	p := newIDP(t, func(c *server.Config) {
		c.TrustedIssuers = []workload.Issuer{
			{Name: "spiffe://example.org", JWKSFile: write("bundle.json", bundle(svid, "s1")), Audience: "warifu"},
			{Name: advertised, Kubernetes: &workload.Kubernetes{Server: api.URL,
				TokenFile: write("token", "token-of-the-cluster\n"),
				CAFile: write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
					Bytes: api.Certificate().Raw})))}},
			{Name: cluster.URL, JWKSURI: cluster.URL + "/keys"},
		}
		roots := x509.NewCertPool()
		roots.AddCert(cluster.Certificate())
		c.Outbound = outbound.New(outbound.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			RootCAs: roots})
	})
	w := p.running("shop", oauth.WorkloadIdentity{Issuer: "spiffe://example.org",
		Subject: "spiffe://example.org/ns/shop/sa/web"},
		oauth.WorkloadIdentity{Issuer: advertised, Subject: webAccount},
		cluster.is("repo:example/shop:environment:production"),
		cluster.is("project_path:example/shop:ref_type:branch:ref:main"))
	ask := func(rule, token string, status int) {
		t.Helper()
		if got := w.asserting("/oauth/token", token, forItself("threads:read")); got.status != status {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
	spiffe := func(key crypto.Signer, kid string, changes map[string]any) string {
		changes = maps.Clone(changes)
		changes["iss"] = nil
		return signedBy(t, key, jose.ES256, map[string]any{"kid": kid, "typ": "JOSE"}, cluster.claims(p, changes))
	}
	id := map[string]any{"sub": "spiffe://example.org/ns/shop/sa/web", "aud": []string{"warifu"}}
	ask("a JWT-SVID", spiffe(svid, "s1", id), http.StatusOK)
	ask("for this server's issuer, where the configuration says another audience",
		spiffe(svid, "s1", map[string]any{"sub": id["sub"]}), http.StatusUnauthorized)
	ask("another path", spiffe(svid, "s1", map[string]any{"sub": "spiffe://example.org/ns/shop/sa/web2", "aud": "warifu"}),
		http.StatusUnauthorized)
	ask("another trust domain", spiffe(svid, "s1", map[string]any{"sub": "spiffe://example.org.evil.test/ns/shop/sa/web",
		"aud": "warifu"}), http.StatusUnauthorized)
	ask("the key of the cluster", spiffe(cluster.key, "k", id), http.StatusUnauthorized)
	next := newKey(t)
	write("bundle.json", bundle(next, "s2"))
	p.clock.forward(time.Minute)
	ask("the next key in the file", spiffe(next, "s2", id), http.StatusOK)
	ask("the key before", spiffe(svid, "s1", id), http.StatusUnauthorized)
	ask("a service account, by the API's own address", cluster.token(p, map[string]any{"iss": advertised}), http.StatusOK)
	ask("GitHub Actions", cluster.token(p, map[string]any{
		"sub": "repo:example/shop:environment:production", "aud": p.issuer, "ref": "refs/heads/main",
		"repository":       "example/shop",
		"repository_owner": "example", "run_id": "1", "environment": "production",
		"job_workflow_ref": "example/shop/.github/workflows/d.yml@refs/heads/main",
		"exp":              p.clock.now().Add(5 * time.Minute).Unix(), "kubernetes.io": nil}), http.StatusOK)
	ask("GitHub Actions, another environment", cluster.token(p,
		map[string]any{"sub": "repo:example/shop:environment:production-2", "aud": p.issuer}),
		http.StatusUnauthorized)
	ask("GitLab CI", cluster.token(p, map[string]any{
		"sub": "project_path:example/shop:ref_type:branch:ref:main", "aud": p.issuer, "namespace_path": "example",
		"project_path": "example/shop",
		"ref":          "main", "ref_type": "branch", "ref_protected": "true", "pipeline_source": "push", "user_login": "ann",
		"kubernetes.io": nil}), http.StatusOK)
	if log := p.log.String(); strings.Contains(log, "token-of-the-cluster") {
		t.Error("the token of the cluster is in the log")
	}
}
