package server_test

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Whatever becomes of a request: the assertion that it came with is used up.
func TestAssertionIsUsedOnce(t *testing.T) {
	p := newIDP(t)
	k := p.keyed("key-app", "ES256")
	refresh := k.asserting("/oauth/token", k.assertion("ES256", nil), redeeming(k.code())).text("refresh_token")
	used := k.code()
	if got := k.asserting("/oauth/token", k.assertion("ES256", nil), redeeming(used)); got.status != http.StatusOK {
		t.Fatal(got.raw)
	}
	for _, c := range []struct {
		rule, path string
		form       url.Values
		status     int
	}{
		{"code", "/oauth/token", redeeming(k.code()), 200},
		{"code replayed", "/oauth/token", redeeming(used), 400},
		{"garbage for a code", "/oauth/token", redeeming("wfc_x"), 400},
		{"no code", "/oauth/token", url.Values{"grant_type": {"authorization_code"}}, 400},
		{"refresh", "/oauth/token", refreshing(refresh), 200},
		{"garbage for a refresh token", "/oauth/token", refreshing("x"), 400},
		{"refresh for more scopes", "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh},
			"scope": {"x"}}, 400},
		{"no grant type", "/oauth/introspect", url.Values{"token": {"x"}}, 200},
		{"client credentials", "/oauth/token", forItself("threads:read"), 200},
		{"client credentials without scope", "/oauth/token", forItself(""), 400},
		{"introspection", "/oauth/introspect", url.Values{"token": {refresh}}, 200},
		{"revocation", "/oauth/revoke", url.Values{"token": {"x"}}, 200},
		{"pushed request", "/oauth/par", url.Values{"response_type": {"code"}, "redirect_uri": {callback},
			"scope": {"threads:read"}}, 201},
		{"pushed request that is wrong", "/oauth/par", url.Values{"response_type": {"code"}, "redirect_uri": {callback},
			"scope": {"x"}}, 400},
		{"device authorization", "/oauth/device_authorization", url.Values{"scope": {"threads:read"}}, 400},
		{"a poll with garbage", "/oauth/token", url.Values{"grant_type": {oauth.GrantDeviceCode}, "device_code": {"wfd_x"}},
			400},
		{"a poll without a device code", "/oauth/token", url.Values{"grant_type": {oauth.GrantDeviceCode}}, 400},
	} {
		assertion := k.assertion("ES256", nil)
		if got := k.asserting(c.path, assertion, c.form); got.status != c.status {
			t.Errorf("%s: %d %s", c.rule, got.status, got.raw)
		}
		k.asserting(c.path, assertion, c.form).wants(t, c.rule+", again", http.StatusUnauthorized, "invalid_client")
		k.asserting("/oauth/token", assertion, forItself("threads:read")).wants(t, c.rule+", elsewhere",
			http.StatusUnauthorized, "invalid_client")
	}
	// A replayed assertion harms nothing: the code that it comes with stays good, and a used one's grant alive.
	spent := k.assertion("ES256", nil)
	code := k.code()
	first := k.asserting("/oauth/token", spent, redeeming(code))
	k.asserting("/oauth/token", spent, redeeming(code)).wants(t, "both replayed", http.StatusUnauthorized,
		"invalid_client")
	if next := k.asserting("/oauth/token", k.assertion("ES256", nil),
		refreshing(first.text("refresh_token"))); next.status != http.StatusOK {
		t.Errorf("a replayed assertion killed a grant: %d %s", next.status, next.raw)
	}
	code = k.code()
	k.asserting("/oauth/token", spent, redeeming(code)).wants(t, "a fresh code with a spent assertion",
		http.StatusUnauthorized, "invalid_client")
	if got := k.asserting("/oauth/token", k.assertion("ES256", nil), redeeming(code)); got.status != http.StatusOK {
		t.Errorf("a spent assertion burnt a code: %d %s", got.status, got.raw)
	}
	// The same jti of another client is another one.
	other := p.keyed("other-app", "EdDSA")
	mine, theirs := k.assertion("ES256", map[string]any{"jti": "same"}),
		other.assertion("EdDSA", map[string]any{"jti": "same"})
	if got := k.asserting("/oauth/token", mine, forItself("threads:read")); got.status != http.StatusOK {
		t.Error(got.raw)
	}
	if got := other.asserting("/oauth/token", theirs, forItself("threads:read")); got.status != http.StatusOK {
		t.Errorf("another client's jti: %d %s", got.status, got.raw)
	}
}

// A client that is told to use a nonce (RFC 9449 section 8) may send the very same request again, its assertion as
// well. Then it is used.
func TestAssertionOutlivesTheWishForANonce(t *testing.T) {
	p, _ := newExchanger(t)
	k := p.keyed("key-app", "ES256", func(c *storage.Client) {
		c.GrantTypes = append(c.GrantTypes, oauth.GrantTokenExchange)
		c.ResourceIdentifiers, c.TokenExchangeAudiences = []string{"https://key-app.test"}, []string{filesAPI}
	})
	refresh := k.asserting("/oauth/token", k.assertion("ES256", nil), redeeming(k.code())).text("refresh_token")
	subject := p.tokens("resource", "https://key-app.test").text("access_token")
	for rule, form := range map[string]url.Values{
		"code": redeeming(k.code()), "refresh": refreshing(refresh), "client credentials": forItself("threads:read"),
		"token exchange": {"grant_type": {oauth.GrantTokenExchange}, "subject_token": {subject},
			"subject_token_type": {accessType}, "resource": {filesAPI}},
	} {
		form.Set("client_assertion", k.assertion("ES256", nil))
		form.Set("client_assertion_type", jwtBearer)
		d := k.prover()
		if got := d.token(form); got.status != http.StatusOK || got.text("token_type") != "DPoP" || d.nonce == "" {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
		d.token(form).wants(t, rule+", again", http.StatusUnauthorized, "invalid_client")
	}
}

// One assertion, 32 requests at once, at two replicas: one is served.
func TestAssertionRaced(t *testing.T) {
	p := newIDP(t)
	k := p.keyed("key-app", "ES256")
	replicas := []*idp{k, k.replica(p.etcd.Client)}
	codes := make([]string, 32)
	b := k.browser()
	for i := range codes {
		codes[i] = b.code()
	}
	one := b.code()
	refresh := k.asserting("/oauth/token", k.assertion("ES256", nil), redeeming(b.code())).text("refresh_token")
	for rule, form := range map[string]func(i int) url.Values{
		"codes":              func(i int) url.Values { return redeeming(codes[i]) },
		"one code":           func(int) url.Values { return redeeming(one) },
		"refresh":            func(int) url.Values { return refreshing(refresh) },
		"client credentials": func(int) url.Values { return forItself("threads:read") },
	} {
		var won, refused atomic.Int64
		assertion := k.assertion("ES256", nil)
		together(32, func(i int) {
			switch got := replicas[i%2].asserting("/oauth/token", assertion, form(i)); got.text("error") {
			case "":
				won.Add(1)
			case "invalid_client":
				refused.Add(1)
			default:
				t.Errorf("%s: %d %s", rule, got.status, got.raw)
			}
		})
		if won.Load() != 1 || refused.Load() != 31 {
			t.Errorf("%s: %d served, %d refused", rule, won.Load(), refused.Load())
		}
	}
}

// A client's record that changed since costs another attempt, and no second assertion; a key that was removed is
// refused.
func TestAssertionAtALaggingReplica(t *testing.T) {
	for _, c := range []struct {
		rule   string
		change func(*storage.Client)
		status int
		code   string
	}{
		{"renamed", func(c *storage.Client) { c.ClientName = "New" }, 200, ""},
		{"another key", func(c *storage.Client) { c.JWKS = jwksOf(t, publicJWK(testKeys()["EdDSA"], "k")) }, 401,
			"invalid_client"},
		{"another method", func(c *storage.Client) { c.TokenEndpointAuthMethod = "client_secret_basic" }, 401,
			"invalid_client"},
		{"another algorithm", func(c *storage.Client) { c.TokenEndpointAuthSigningAlg = "EdDSA" }, 401, "invalid_client"},
		{"disabled", func(c *storage.Client) { c.Disabled = true }, 401, "invalid_client"},
		{"no grant type", func(c *storage.Client) { c.GrantTypes = []string{"urn:x"} }, 400, "unauthorized_client"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			p := newIDP(t)
			k := p.keyed("key-app", "ES256")
			code := k.code()
			refresh := k.asserting("/oauth/token", k.assertion("ES256", nil), redeeming(k.code())).text("refresh_token")
			lagging := []*idp{k.replica(p.lagging()), k.replica(p.lagging()), k.replica(p.lagging())}
			p.update("key-app", c.change)
			for i, form := range []url.Values{redeeming(code), refreshing(refresh), forItself("threads:read")} {
				assertion := k.assertion("ES256", nil)
				got := lagging[i].asserting("/oauth/token", assertion, form)
				if got.status != c.status || got.text("error") != c.code {
					t.Errorf("%s: %d %s", form.Get("grant_type"), got.status, got.raw)
				}
				if c.status == http.StatusOK {
					k.asserting("/oauth/token", assertion, form).wants(t, "again", http.StatusUnauthorized, "invalid_client")
				}
			}
		})
	}
}

// A client that registered itself cannot fill storage with the marks of its assertions.
func TestAssertionsOfStrangersAreBounded(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	known := p.keyed("known", "EdDSA")
	stranger := p.keyed("stranger", "EdDSA", func(c *storage.Client) {
		c.RegistrationToken = []byte("of a client that registered itself")
	})
	garbage := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"wfr_x"}}
	busy := 0
	for range 250 {
		if got := stranger.asserting("/oauth/token", stranger.assertion("EdDSA", nil),
			garbage); got.status == http.StatusServiceUnavailable {
			busy++
		}
		known.asserting("/oauth/token", known.assertion("EdDSA", nil), garbage).wants(t, "an app's client",
			http.StatusBadRequest, "invalid_grant")
	}
	marks, err := p.etcd.Client.Get(t.Context(), p.etcd.Prefix+"spent/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || busy != 50 || marks.Count != 450 {
		t.Errorf("%d assertions were refused, %d marks are there, %v", busy, marks.Count, err)
	}
}

// CVE-2025-2559: what is remembered of assertions is small, ends soon, and is nowhere but in etcd.
func TestAssertionJTIsAreBounded(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	k := p.keyed("key-app", "EdDSA")
	jti := strings.Repeat("j", 256)
	for range 20 {
		changes := map[string]any{"jti": rand.Text() + jti[26:], "exp": p.clock.now().Add(time.Hour).Unix()}
		if got := k.asserting("/oauth/token", k.assertion("EdDSA", changes),
			forItself("threads:read")); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.raw)
		}
	}
	marks, err := p.etcd.Client.Get(t.Context(), p.etcd.Prefix+"spent/", clientv3.WithPrefix())
	if err != nil || len(marks.Kvs) != 20 {
		t.Fatalf("%d marks, %v", len(marks.Kvs), err)
	}
	leases := make(map[int64]bool)
	for _, kv := range marks.Kvs {
		leases[kv.Lease] = true
		// A digest has three equal letters now and then; a jti here has two hundred.
		if mark := string(kv.Key) + string(kv.Value); len(mark) > len(p.etcd.Prefix)+100 || strings.Contains(mark, jti[:20]) {
			t.Errorf("a mark of %d bytes: %s %s", len(kv.Key)+len(kv.Value), kv.Key, kv.Value)
		}
	}
	for lease := range leases {
		if left, err := p.etcd.Client.TimeToLive(t.Context(), clientv3.LeaseID(lease)); err != nil || left.TTL > 75*60 {
			t.Errorf("%+v, %v", left, err)
		}
	}
	if len(leases) != 1 {
		t.Errorf("%d leases for 20 assertions", len(leases))
	}
}
