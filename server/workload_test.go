package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/server/workload"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// platform issues tokens to workloads, as a cluster or a CI does, and publishes its keys by TLS.
type platform struct {
	*httptest.Server
	mu    sync.Mutex // guards key and kid
	key   crypto.Signer
	kid   string
	asked atomic.Int64
	// hang holds every reply until it is closed; nil: none.
	hang atomic.Pointer[chan struct{}]
}

func newPlatform(t testing.TB) *platform {
	t.Helper()
	p := &platform{kid: "k"}
	p.rotate(t, "k")
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": p.URL, "jwks_uri": p.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if held := p.hang.Load(); held != nil {
			select {
			case <-*held:
			case <-r.Context().Done():
			}
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		_, _ = w.Write([]byte(jwksOf(t, publicJWK(p.key, p.kid))))
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rotate signs with another key from now on.
func (p *platform) rotate(t testing.TB, kid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.kid = newKey(t), kid
}

// trustingPlatforms is a server that trusts platforms, whose certificates are all the same.
func trustingPlatforms(t testing.TB, platforms ...*platform) *idp {
	return newIDP(t, trustPlatforms(platforms...))
}

func trustPlatforms(platforms ...*platform) func(*server.Config) {
	return func(c *server.Config) {
		roots := x509.NewCertPool()
		for _, p := range platforms {
			c.TrustedIssuers = append(c.TrustedIssuers, workload.Issuer{Name: p.URL})
			roots.AddCert(p.Certificate())
		}
		c.Outbound = outbound.New(outbound.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			RootCAs: roots})
		c.GrantTypes = append(server.DefaultGrantTypes(), oauth.GrantTokenExchange)
	}
}

const webAccount = "system:serviceaccount:shop:web"

// running is p seen by an app that is a workload.
func (p *idp) running(app string, ids ...oauth.WorkloadIdentity) *idp {
	p.t.Helper()
	registered, _ := p.register(app, func(c *storage.Client) {
		c.Secrets, c.TokenEndpointAuthMethod, c.Identities = nil, oauth.AuthWorkload, ids
		c.GrantTypes = []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials,
			oauth.GrantTokenExchange}
		c.TokenExchangeAudiences = []string{"https://files.example.com"}
	})
	return p.as(registered, "")
}

func (p *platform) is(subject string) oauth.WorkloadIdentity {
	return oauth.WorkloadIdentity{Issuer: p.URL, Subject: subject}
}

// claims are those of a projected token, with changes; nil leaves a claim out.
func (p *platform) claims(q *idp, changes map[string]any) map[string]any {
	now := q.clock.now()
	claims := map[string]any{
		"iss": p.URL, "sub": webAccount, "aud": []string{q.issuer}, "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(),
		"nbf": now.Unix(), "jti": "the-same-each-time", "kubernetes.io": map[string]any{"namespace": "shop"},
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// token is one of a workload.
func (p *platform) token(q *idp, changes map[string]any) string {
	q.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	return signedBy(q.t, p.key, jose.ES256, map[string]any{"kid": p.kid}, p.claims(q, changes))
}

// A workload signs people in, refreshes and asks for itself with the one token that it has, as often as it likes, and
// nothing of that writes more than it would with a secret.
func TestWorkloadNeedsNoSecret(t *testing.T) {
	cluster := newPlatform(t)
	p := trustingPlatforms(t, cluster)
	w := p.running("shop", cluster.is(webAccount))
	token := cluster.token(p, nil)
	own := w.asserting("/oauth/token", token, forItself("threads:read"))
	if own.status != http.StatusOK {
		t.Fatalf("client credentials: %d %s", own.status, own.raw)
	}
	if sub := claimsOf(t, own.text("access_token"))["sub"]; sub != w.client.ID {
		t.Errorf("the sub is %v, not the client", sub)
	}
	p.tokens("scope", "openid") // the keys that sign ID tokens are there
	fetched := cluster.asked.Load()
	var got reply
	code := w.code("scope", "openid threads:read")
	for rule, c := range map[string]struct {
		form url.Values
		more []string
		want storagetest.Counts
	}{
		"client credentials": {forItself("threads:read"), nil, storagetest.Counts{Reads: 1}},
		"code":               {redeeming(code), []string{"client_id", w.client.ID}, storagetest.Counts{Proposals: 1}},
	} {
		if n := p.etcd.Count(func() {
			got = w.asserting("/oauth/token", token, c.form,
				c.more...)
		}); got.status != http.StatusOK || n != c.want {
			t.Fatalf("%s: %d, %+v instead of %+v: %s", rule, got.status, n, c.want, got.raw)
		}
		if next := got.text("refresh_token"); next != "" {
			if n := p.etcd.Count(func() {
				got = w.asserting("/oauth/token", token,
					refreshing(next))
			}); got.status != http.StatusOK ||
				n != (storagetest.Counts{Proposals: 1}) {
				t.Errorf("refresh: %d %s %+v", got.status, got.raw, n)
			}
			access := url.Values{"token": {got.text("access_token")}}
			if intro := w.asserting("/oauth/introspect", token, access); intro.json["active"] != true {
				t.Errorf("introspection: %d %s", intro.status, intro.raw)
			}
			if revoked := w.asserting("/oauth/revoke", token, access); revoked.status != http.StatusOK {
				t.Errorf("revocation: %d %s", revoked.status, revoked.raw)
			}
		}
	}
	if n := cluster.asked.Load(); n != fetched {
		t.Errorf("the issuer was asked %d times while its keys were current", n-fetched)
	}
	if got := p.as(w.client, "").machine("/oauth/token", url.Values{"grant_type": {"client_credentials"},
		"scope":     {"threads:read"},
		"client_id": {w.client.ID}}); got.status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", got.status)
	}
}

// What is not a token of the workload opens nothing, and who shows it learns nothing of why. Each line is an attack.
func TestThreatWorkloadTokens(t *testing.T) {
	cluster, other := newPlatform(t), newPlatform(t)
	stranger := newPlatform(t) // whom nobody trusts
	p := trustingPlatforms(t, cluster, other)
	w := p.running("shop", cluster.is(webAccount))
	keys := testKeys()
	k := p.keyed("key-app", "ES256")
	issued := p.tokens("scope", "openid")
	public, err := x509.MarshalPKIXPublicKey(cluster.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	signed := func(key any, alg jose.SignatureAlgorithm, header map[string]any, changes map[string]any) string {
		return signedBy(t, key, alg, header, cluster.claims(p, changes))
	}
	genuine := cluster.token(p, nil)
	parts := strings.Split(genuine, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"k"}`))
	own := newKey(t)
	ownJWK := jose.JSONWebKey{Key: own.Public(), KeyID: "k"}
	now := p.clock.now()
	for name, token := range map[string]string{
		"another issuer, which nobody trusts":  stranger.token(p, nil),
		"another cluster's, with the same kid": other.token(p, nil),
		"another cluster's key in its name":    signed(other.key, jose.ES256, map[string]any{"kid": "k"}, nil),
		"a slash behind the issuer":            cluster.token(p, map[string]any{"iss": cluster.URL + "/"}),
		"the issuer in capitals":               cluster.token(p, map[string]any{"iss": strings.ToUpper(cluster.URL)}),
		"no issuer":                            cluster.token(p, map[string]any{"iss": nil}),
		"the beginning of the subject":         cluster.token(p, map[string]any{"sub": webAccount[:len(webAccount)-1]}),
		"something behind the subject":         cluster.token(p, map[string]any{"sub": webAccount + "-2"}),
		"something before the subject":         cluster.token(p, map[string]any{"sub": "x" + webAccount}),
		"the subject in capitals":              cluster.token(p, map[string]any{"sub": strings.ToUpper(webAccount)}),
		"a line break behind the subject":      cluster.token(p, map[string]any{"sub": webAccount + "\n"}),
		"a line break in the subject":          cluster.token(p, map[string]any{"sub": "x\n" + webAccount}),
		"a star":                               cluster.token(p, map[string]any{"sub": "*"}),
		"a list as subject":                    cluster.token(p, map[string]any{"sub": []string{webAccount}}),
		"alg none":                             none + "." + parts[1] + ".",
		"alg none with the signature":          none + "." + parts[1] + "." + parts[2],
		"HS256 with the public key":            signed(public, jose.HS256, map[string]any{"kid": "k"}, nil),
		"HS256 with the public key as PEM": signed(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
			jose.HS256, map[string]any{"kid": "k"}, nil),
		"a key of its own in its header": signed(own, jose.ES256, map[string]any{"kid": "k", "jwk": ownJWK}, nil),
		"jku": signed(own, jose.ES256, map[string]any{"kid": "k", "jku": stranger.URL +
			"/keys"}, nil),
		"x5u": signed(own, jose.ES256, map[string]any{"kid": "k", "x5u": stranger.URL +
			"/keys"}, nil),
		"the token of the stranger's key": signed(stranger.key, jose.ES256, map[string]any{"kid": "k"}, nil),
		"no kid, another key":             signed(own, jose.ES256, nil, nil),
		"claims that were changed": parts[0] + "." +
			base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(decoded(t, parts[1]), "shop", "shoq", 1))) + "." +
			parts[2],
		"an ID token of this server":           issued.text("id_token"),
		"an access token of this server":       issued.text("access_token"),
		"the assertion of a client with a key": k.assertion("ES256", nil),
		"an assertion in its own name": signedBy(t, keys["ES256"], jose.ES256, map[string]any{"kid": "k"},
			w.assertionClaims(nil)),
		"a huge token": cluster.token(p,
			map[string]any{"pad": strings.Repeat("x", workload.MaxToken)}),
		"nothing like a token": "x.y.z",
		"as many dots as fit":  strings.Repeat(".", 4000),
	} {
		for _, id := range [][]string{{"client_id", w.client.ID}, nil} {
			if id == nil && strings.Contains(name, "a client with a key") {
				continue // it is good, as that client's
			}
			got := w.asserting("/oauth/token", token, forItself("threads:read"), id...)
			if got.status != http.StatusUnauthorized || got.text("error") != "invalid_client" ||
				got.text("error_description") != "unknown client, or wrong client credentials" {
				t.Errorf("%s (%v): %d %s", name, id, got.status, got.raw)
			}
		}
	}
	// What the issuer has signed and says something else is refused with the reason.
	for name, changes := range map[string]map[string]any{
		"another audience":        {"aud": []string{"https://kubernetes.default.svc"}},
		"another audience beside": {"aud": []string{p.issuer, "https://kubernetes.default.svc"}},
		"no audience":             {"aud": nil},
		"an audience with slash":  {"aud": p.issuer + "/"},
		"the token endpoint":      {"aud": p.issuer + "/oauth/token"},
		"expired":                 {"exp": now.Add(-time.Second).Unix()},
		"no end":                  {"exp": nil},
		"an end in a year":        {"exp": now.AddDate(1, 0, 0).Unix()},
		"not yet valid":           {"nbf": now.Add(time.Minute).Unix()},
		"issued in the future":    {"iat": now.Add(time.Minute).Unix()},
	} {
		got := w.asserting("/oauth/token", cluster.token(p, changes), forItself("threads:read"))
		if got.status != http.StatusUnauthorized || got.text("error") != "invalid_client" ||
			!strings.HasPrefix(got.text("error_description"), "the token of the workload was refused: ") {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
	for name, typ := range map[string]string{"an access token of the issuer": "at+jwt", "a proof": "dpop+jwt"} {
		got := w.asserting("/oauth/token", signed(cluster.key, jose.ES256, map[string]any{"kid": "k", "typ": typ}, nil),
			forItself("threads:read"))
		if got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
	// As that of another client, the token is as good as none.
	for name, id := range map[string]string{"a client with a key": k.client.ID, "a client with a secret": p.client.ID} {
		if got := w.asserting("/oauth/token", genuine, forItself("threads:read"), "client_id",
			id); got.status != http.StatusUnauthorized {
			t.Errorf("cross-use, %s: %d %s", name, got.status, got.raw)
		}
	}
	if got := w.asserting("/oauth/token", genuine, forItself("threads:read"), "client_id",
		w.client.ID); got.status != http.StatusOK {
		t.Errorf("the genuine token, after all that: %d %s", got.status, got.raw)
	}
}

func decoded(t *testing.T, part string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Two apps are never one workload, whichever replica takes them in; one that gives it up lets another have it.
func TestThreatTwoAppsWithOneIdentity(t *testing.T) {
	cluster := newPlatform(t)
	p := trustingPlatforms(t, cluster)
	w := p.running("shop", cluster.is(webAccount))
	second := &storage.Client{ID: "second", App: "second", Client: w.client.Client}
	if err := p.store.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: "second", ClientID: "second"},
		Client: second}); err == nil ||
		!strings.Contains(err.Error(), "belongs to app shop") {
		t.Fatalf("a second app with the workload: %v", err)
	}
	token := cluster.token(p, nil)
	p.update("shop", func(c *storage.Client) { c.Identities = []oauth.WorkloadIdentity{cluster.is("another")} })
	if got := w.asserting("/oauth/token", token, forItself("threads:read")); got.status != http.StatusUnauthorized {
		t.Errorf("a workload that was taken out: %d %s", got.status, got.raw)
	}
	if err := p.store.CommitRelease(t.Context(), storage.Release{App: storage.App{Name: "second", ClientID: "second"},
		Client: second}); err != nil {
		t.Fatal(err)
	}
	got := w.asserting("/oauth/token", token, forItself("threads:read"))
	if got.status != http.StatusOK || claimsOf(t, got.text("access_token"))["client_id"] != "second" {
		t.Errorf("the workload is another app now: %d %s", got.status, got.raw)
	}
}

// A job exchanges the token of its platform for a token of the app's own, for the APIs that the manifest lists.
func TestWorkloadExchangesItsToken(t *testing.T) {
	ci := newPlatform(t)
	p := newIDP(t, trustPlatforms(ci), func(c *server.Config) {
		c.ResourceServers = []server.ResourceServer{{Identifier: "https://files.example.com"},
			{Identifier: "https://other.example.com"}}
	})
	w := p.running("deploy", ci.is("job"))
	keyed := p.keyed("key-app", "ES256", func(c *storage.Client) {
		c.GrantTypes = append(c.GrantTypes, oauth.GrantTokenExchange)
	})
	token := ci.token(p, map[string]any{"sub": "job", "exp": p.clock.now().Add(2 * time.Minute).Unix()})
	form := func(more ...string) url.Values {
		out := url.Values{"grant_type": {oauth.GrantTokenExchange}, "subject_token": {token},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}, "audience": {"https://files.example.com"}}
		for i := 0; i < len(more); i += 2 {
			if out.Set(more[i], more[i+1]); more[i+1] == "" {
				out.Del(more[i])
			}
		}
		return out
	}
	var got reply
	p.machine("/oauth/token", form()) // the keys of the issuer are known from now on
	if n := p.etcd.Count(func() { got = p.machine("/oauth/token", form()) }); got.status != http.StatusOK ||
		n != (storagetest.Counts{Reads: 1}) {
		t.Fatalf("%d %s %+v", got.status, got.raw, n)
	}
	claims := claimsOf(t, got.text("access_token"))
	if claims["sub"] != w.client.ID || claims["client_id"] != w.client.ID ||
		claims["aud"] != "https://files.example.com" || claims["act"] != nil ||
		claims["scope"] != "threads:read runs:write" || got.json["expires_in"].(float64) > 120 ||
		got.text("issued_token_type") != "urn:ietf:params:oauth:token-type:access_token" ||
		got.text("refresh_token") != "" {
		t.Errorf("%s\n%v", got.raw, claims)
	}
	if got := w.asserting("/oauth/token", token, form("scope", "runs:write", "client_id",
		w.client.ID)); got.status != http.StatusOK || got.text("scope") != "runs:write" {
		t.Errorf("with an assertion as well: %d %s", got.status, got.raw)
	}
	if got := w.asserting("/oauth/revoke", token,
		url.Values{"token": {got.text("access_token")}}); got.status != http.StatusOK {
		t.Errorf("revocation: %d %s", got.status, got.raw)
	}
	for rule, c := range map[string]struct {
		form   url.Values
		status int
		code   string
	}{
		"an API that is not listed": {form("audience", "https://other.example.com"), http.StatusBadRequest,
			"invalid_target"},
		"no API":              {form("audience", ""), http.StatusBadRequest, "invalid_target"},
		"a scope about users": {form("scope", "openid"), http.StatusBadRequest, "invalid_scope"},
		"an actor": {form("actor_token", token, "actor_token_type",
			"urn:ietf:params:oauth:token-type:jwt"), http.StatusBadRequest, "invalid_request"},
		"another workload": {form("subject_token", ci.token(p, map[string]any{"sub": "job2"})),
			http.StatusUnauthorized, "invalid_client"},
		"another client's id": {form("client_id", keyed.client.ID), http.StatusUnauthorized,
			"invalid_client"},
		"with a secret in the body": {form("client_id", p.client.ID, "client_secret", p.secret),
			http.StatusBadRequest, "unauthorized_client"},
		"the token as an access token": {form("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
			http.StatusUnauthorized, "invalid_client"},
		"a grant for which it is no credential": {form("grant_type", "client_credentials", "scope", "runs:write"),
			http.StatusUnauthorized, "invalid_client"},
	} {
		if got := p.machine("/oauth/token", c.form); got.status != c.status || got.text("error") != c.code {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
	if got := keyed.asserting("/oauth/token", keyed.assertion("ES256", nil),
		form()); got.status != http.StatusBadRequest || got.text("error") != "invalid_request" {
		t.Errorf("of a client that is no workload: %d %s", got.status, got.raw)
	}
}

// Nobody makes a client of themselves that is a workload.
func TestThreatStrangerRegistersAWorkload(t *testing.T) {
	ci := newPlatform(t)
	p := newIDP(t, trustPlatforms(ci), func(c *server.Config) { c.Registration = &server.Registration{} })
	for method, status := range map[string]int{"workload": http.StatusBadRequest,
		"client_secret_basic": http.StatusCreated} {
		body, err := json.Marshal(map[string]any{
			"redirect_uris": []string{callback}, "token_endpoint_auth_method": method,
			"identities": []any{map[string]string{"issuer": ci.URL, "subject": "job"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := p.send(p.request(http.MethodPost, p.issuer+"/oauth/register", string(body), "Content-Type",
			"application/json"))
		if got.status != status {
			t.Errorf("%s: %d %s", method, got.status, got.raw)
		}
	}
	if got := p.asserting("/oauth/token", ci.token(p, map[string]any{"sub": "job"}),
		forItself("threads:read")); got.status != http.StatusUnauthorized {
		t.Errorf("by a workload that a registration names: %d %s", got.status, got.raw)
	}
}

// Whoever operates the server learns by which rule a token was refused, and by which line.
func TestExplainNamesTheRuleOfWorkloads(t *testing.T) {
	cluster, silent := newPlatform(t), newPlatform(t)
	e := newExplained(t, trustPlatforms(cluster, silent))
	w := e.running("shop", cluster.is(webAccount), silent.is("job"),
		oauth.WorkloadIdentity{Issuer: "https://gone.example.com", Subject: "job"})
	silent.Close()
	for _, c := range []struct {
		name, code, rule, about, key string
		token                        string
	}{
		{"an issuer that is no longer trusted", "invalid_client", oauth.RuleWorkloadIssuer, "https://gone.example.com",
			"trustedIssuers",
			cluster.token(e.idp, map[string]any{"iss": "https://gone.example.com", "sub": "job"})},
		{"another workload", "invalid_client", oauth.RuleWorkloadIdentity, cluster.URL + " " + webAccount +
			"2", "spec.oauth.identities",
			cluster.token(e.idp, map[string]any{"sub": webAccount + "2"})},
		{"another key", "invalid_client", oauth.RuleWorkloadSignature, cluster.URL, "trustedIssuers",
			signedBy(t, newKey(t), jose.ES256, map[string]any{"kid": "k"}, cluster.claims(e.idp, nil))},
		{"another audience", "invalid_client", oauth.RuleWorkloadClaims, "", "",
			cluster.token(e.idp, map[string]any{"aud": "x"})},
		{"an issuer that is away", "temporarily_unavailable", oauth.RuleWorkloadKeys, silent.URL, "trustedIssuers",
			silent.token(e.idp, map[string]any{"sub": "job"})},
	} {
		explains := func(how, code string, of reply) {
			got := e.of(of.header)
			why := got.Reasons[0]
			if got.Error != code || why.Rule != c.rule || why.Asked != c.about || c.key != "" && why.Key != c.key {
				t.Errorf("%s, %s: %+v", c.name, how, got)
			}
		}
		explains("as an assertion", c.code, w.asserting("/oauth/token", c.token, forItself("threads:read"),
			"client_id", w.client.ID))
		if c.code == "invalid_client" {
			c.code = "invalid_request" // the client is who it says
		}
		explains("as a subject token", c.code, w.asserting("/oauth/token", cluster.token(e.idp, nil), url.Values{
			"grant_type": {oauth.GrantTokenExchange}, "audience": {"https://files.example.com"},
			"subject_token": {c.token}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}}))
	}
}
