package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const initialToken = "an-initial-access-token-of-32-chars"

func openToAll(c *server.Config) { c.Registration = &server.Registration{} }

// register sends metadata to the registration endpoint, with a bearer token or without.
func (p *idp) dynamic(method, address, token, body string) reply {
	p.t.Helper()
	req := p.request(method, address, body)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return p.send(req)
}

func (p *idp) registration(body string) reply {
	p.t.Helper()
	got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", body)
	if got.status != http.StatusCreated {
		p.t.Fatalf("registration: %d %s", got.status, got.raw)
	}
	return got
}

// itself is p seen by a client that registered itself.
func (p *idp) itself(got reply) *idp {
	p.t.Helper()
	c, err := p.store.Client(p.t.Context(), got.text("client_id"))
	if err != nil {
		p.t.Fatal(err)
	}
	return p.as(c, got.text("client_secret"))
}

func TestRegistrationIsOffUnlessTurnedOn(t *testing.T) {
	p := newIDP(t)
	if got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", `{"redirect_uris":["`+callback+
		`"]}`); got.status != http.StatusNotFound {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if got := p.send(p.request(http.MethodGet, p.issuer+"/.well-known/openid-configuration",
		"")); got.json["registration_endpoint"] != nil {
		t.Error("discovery names an endpoint that is off")
	}
}

func TestRegisteredClientWorks(t *testing.T) {
	p := newIDP(t, openToAll)
	if got := p.send(p.request(http.MethodGet, p.issuer+"/.well-known/openid-configuration", "")); got.text(
		"registration_endpoint") != p.issuer+"/oauth/register" {
		t.Errorf("discovery: %s", got.raw)
	}
	got := p.registration(`{"redirect_uris":["` + callback +
		`"],"client_name":"Itself","unknown_member":{"a":1},"client_name#ja":"自分"}`)
	for name, want := range map[string]any{
		"client_name": "Itself", "token_endpoint_auth_method": "client_secret_basic", "client_secret_expires_at": 0.0,
		"scope": "openid profile email address phone offline_access", "subject_type": "public",
		"id_token_signed_response_alg": "RS256",
	} {
		if got.json[name] != want {
			t.Errorf("%s: %v, want %v", name, got.json[name], want)
		}
	}
	if got.text("client_id") == "" || got.text("client_secret") == "" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("reply: %s", got.raw)
	}
	q := p.itself(got)
	form := url.Values{"grant_type": {"authorization_code"}, "code": {q.code("scope", "openid email")},
		"redirect_uri": {callback}, "client_id": {""}}
	form.Del("client_id")
	req := q.request(http.MethodPost, p.issuer+"/oauth/token", form.Encode(), "Content-Type", formType)
	req.SetBasicAuth(q.client.ID, q.secret)
	if tokens := q.send(req); tokens.status != http.StatusOK || tokens.text("id_token") == "" {
		t.Errorf("exchange: %d %s", tokens.status, tokens.raw)
	}
}

func TestRegistrationWantsAnInitialAccessToken(t *testing.T) {
	p := newIDP(t, func(c *server.Config) {
		c.Registration = &server.Registration{InitialAccessTokens: []string{initialToken, "another-" + initialToken}}
	})
	body := `{"redirect_uris":["` + callback + `"]}`
	for _, wrong := range []string{"", "x", initialToken + "x"} {
		got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", wrong, body)
		got.wants(t, "wrong initial access token", http.StatusUnauthorized, "invalid_token")
		if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Error("no challenge")
		}
	}
	for _, right := range []string{initialToken, "another-" + initialToken} {
		if got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", right, body); got.status != http.StatusCreated {
			t.Errorf("%d %s", got.status, got.raw)
		}
	}
}

func TestOwnerManagesRegistration(t *testing.T) {
	p := newIDP(t, openToAll)
	got := p.registration(`{"redirect_uris":["` + callback + `"],"client_name":"Before"}`)
	id, secret, token, at := got.text("client_id"), got.text("client_secret"), got.text("registration_access_token"),
		got.text("registration_client_uri")
	if read := p.dynamic(http.MethodGet, at, token, ""); read.status != http.StatusOK ||
		read.text("client_secret") != secret || read.text("client_name") != "Before" {
		t.Errorf("read: %d %s", read.status, read.raw)
	}
	for rule, body := range map[string]string{
		"without client_id":   `{"redirect_uris":["` + callback + `"]}`,
		"another client's id": `{"client_id":"` + p.client.ID + `","redirect_uris":["` + callback + `"]}`,
		"another secret":      `{"client_id":"` + id + `","client_secret":"x","redirect_uris":["` + callback + `"]}`,
	} {
		p.dynamic(http.MethodPut, at, token, body).wants(t, rule, http.StatusBadRequest, "invalid_client_metadata")
	}
	put := p.dynamic(http.MethodPut, at, token, `{"client_id":"`+id+`","client_secret":"`+secret+
		`","redirect_uris":["https://app.test/other"],"client_name":"After"}`)
	if put.status != http.StatusOK || put.text("client_name") != "After" || put.text("client_secret") != secret {
		t.Errorf("replace: %d %s", put.status, put.raw)
	}
	if page := p.itself(got).browser().get(p.itself(got).authorizeURL("scope",
		"openid")); page.status != http.StatusBadRequest {
		t.Errorf("the redirect URI from before still works: %d", page.status)
	}
	// Without a secret, and with a new one afterwards.
	keyed := p.dynamic(http.MethodPut, at, token, `{"client_id":"`+id+`","redirect_uris":["`+callback+
		`"],"token_endpoint_auth_method":"none"}`)
	if keyed.status != http.StatusOK || keyed.json["client_secret"] != nil ||
		keyed.json["client_secret_expires_at"] != nil {
		t.Errorf("public: %d %s", keyed.status, keyed.raw)
	}
	again := p.dynamic(http.MethodPut, at, token, `{"client_id":"`+id+`","redirect_uris":["`+callback+`"]}`)
	if again.text("client_secret") == "" || again.text("client_secret") == secret {
		t.Error("a client that has a secret again has the one from before, or none")
	}
	if gone := p.dynamic(http.MethodDelete, at, token, ""); gone.status != http.StatusNoContent {
		t.Errorf("delete: %d %s", gone.status, gone.raw)
	}
	p.dynamic(http.MethodGet, at, token, "").wants(t, "deleted", http.StatusUnauthorized, "invalid_token")
	if page := p.browser().get(p.issuer + "/oauth/authorize?client_id=" + id); page.status != http.StatusBadRequest {
		t.Errorf("a deleted client authorizes: %d", page.status)
	}
}

// A registration access token opens one client, and never one of an app.
func TestStrangerManagesNothing(t *testing.T) {
	p := newIDP(t, openToAll)
	one := p.registration(`{"redirect_uris":["` + callback + `"]}`)
	other := p.registration(`{"redirect_uris":["` + callback + `"]}`)
	for rule, at := range map[string]string{
		"another client": other.text("registration_client_uri"), "an app's client": p.issuer + "/oauth/register/" +
			p.client.ID,
		"no client": p.issuer + "/oauth/register/nobody", "an escaped path": p.issuer + "/oauth/register/a%2Fb",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			for _, token := range []string{one.text("registration_access_token"), "", p.secret} {
				p.dynamic(method, at, token, `{"client_id":"x"}`).wants(t, method+" "+rule, http.StatusUnauthorized,
					"invalid_token")
			}
		}
	}
}

func TestRegistrationRefuses(t *testing.T) {
	p := newIDP(t, openToAll)
	refused := func(code string, member string) {
		t.Helper()
		body := `{"redirect_uris":["` + callback + `"],` + member + `}`
		if strings.HasPrefix(member, `"redirect_uris"`) { // a member comes once
			body = "{" + member + "}"
		}
		p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", body).wants(t, member, http.StatusBadRequest, code)
	}
	for _, uri := range []string{
		"http://app.test/cb", "https://app.test/cb#f", "javascript:alert(1)", "data:text/html,x", "https://u@app.test/",
		"com.app:/cb",
		"http://localhost:*", "https://*.app.test/", "https://app.test/../cb", "", "/cb",
	} {
		refused("invalid_redirect_uri", fmt.Sprintf(`"redirect_uris":[%q]`, uri))
		refused("invalid_redirect_uri", fmt.Sprintf(`"post_logout_redirect_uris":[%q]`, uri))
	}
	refused("invalid_redirect_uri", `"redirect_uris":[]`)
	refused("invalid_redirect_uri", `"redirect_uris":["https://app.test/`+strings.Repeat(`x","https://app.test/`, 40)+`"]`)
	for _, member := range []string{
		`"client_name":"a\u202eb"`, `"client_name":"` + strings.Repeat("x", 101) + `"`,
		`"grant_types":["implicit"]`, `"grant_types":["password"]`,
		`"grant_types":["urn:ietf:params:oauth:grant-type:token-exchange"]`,
		`"grant_types":["client_credentials"],"response_types":[]`, `"response_types":["token"]`,
		`"response_types":["code","code id_token"]`, `"application_type":"desktop"`,
		`"token_endpoint_auth_method":"client_secret_jwt"`, `"token_endpoint_auth_method":"private_key_jwt"`,
		`"token_endpoint_auth_method":"none","grant_types":["client_credentials"],"response_types":[]`,
		`"jwks":{"keys":[]}`, `"jwks":{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, `"jwks":"x"`,
		`"jwks":{"keys":[]},"jwks_uri":"https://app.test/jwks"`,
		`"jwks_uri":"http://app.test/jwks"`, `"jwks_uri":"file:///etc/passwd"`, `"logo_uri":"javascript:alert(1)"`,
		`"tos_uri":"data:text/html,x"`,
		`"policy_uri":"http://app.test/"`, `"logo_uri":"https://app.test/\"><script>"`,
		`"initiate_login_uri":"http://app.test/login"`,
		`"backchannel_logout_uri":"http://app.test/"`, `"frontchannel_logout_uri":"https://evil.test/"`,
		`"subject_type":"secret"`, `"subject_type":"pairwise","redirect_uris":["https://a.test/","https://b.test/"]`,
		`"sector_identifier_uri":"https://127.0.0.1:1/x"`, `"sector_identifier_uri":"http://app.test/"`,
		`"id_token_signed_response_alg":"none"`, `"id_token_signed_response_alg":"HS256"`,
		`"userinfo_signed_response_alg":"none"`,
		`"request_object_signing_alg":"HS256"`, `"id_token_encrypted_response_alg":"RSA-OAEP"`,
		`"default_max_age":-1`, `"default_max_age":9300000000`, `"grant_types":["authorization_code","client_credentials"]`,
		`"jwks":{"keys":[` + jwkText(t, testKeys()["ES256"].Public()) + `,` + jwkText(t, testKeys()["RS256"]) + `]}`,
		`"default_max_age":"soon"`, `"redirect_uris":"` + callback + `"`,
	} {
		refused("invalid_client_metadata", member)
	}
	for rule, body := range map[string]string{"no JSON": "x", "an array": "[]", "nothing": "", "a string": `"x"`,
		"too much": `{"a":"` + strings.Repeat("x", 70<<10) + `"}`} {
		got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", body)
		got.wants(t, rule, http.StatusBadRequest, "invalid_client_metadata")
	}
	if got := p.send(p.request(http.MethodPost, p.issuer+"/oauth/register", "a=b", "Content-Type",
		formType)); got.status != http.StatusBadRequest {
		t.Errorf("a form: %d", got.status)
	}
	if got := p.send(p.request(http.MethodGet, p.issuer+"/oauth/register",
		"")); got.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", got.status)
	}
	clients, err := p.store.Clients(t.Context())
	if err != nil || len(clients) != 1 {
		t.Errorf("%d clients are stored, %v", len(clients), err)
	}
}

// The document at sector_identifier_uri has to list the redirect URIs; it is fetched from public addresses only.
func TestRegistrationChecksSector(t *testing.T) {
	listed := []string{"https://a.test/", "https://b.test/"}
	docs := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(listed)
	}))
	t.Cleanup(docs.Close)
	p := newIDP(t, openToAll, func(c *server.Config) {
		c.Outbound = outbound.New(outbound.Options{
			Allow:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			RootCAs: docs.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		})
	})
	body := func(uris string) string {
		return `{"redirect_uris":` + uris + `,"subject_type":"pairwise","sector_identifier_uri":"` + docs.URL + `"}`
	}
	p.registration(body(`["https://a.test/","https://b.test/"]`))
	p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", body(`["https://a.test/","https://c.test/"]`)).
		wants(t, "a redirect URI that is not listed", http.StatusBadRequest, "invalid_client_metadata")
}

func TestRegistrationFloodIsSlowedDown(t *testing.T) {
	p := newIDP(t, openToAll)
	busy := 0
	for range 200 {
		switch got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", `{"redirect_uris":["`+callback+
			`"]}`); got.status {
		case http.StatusCreated:
		case http.StatusServiceUnavailable:
			busy++
		default:
			t.Fatalf("%d %s", got.status, got.raw)
		}
	}
	if busy == 0 {
		t.Error("200 registrations at once were all taken")
	}
}

// One client that registered itself does not make this server write as often as it likes either.
func TestReplacementFloodIsSlowedDown(t *testing.T) {
	p := newIDP(t, openToAll)
	got := p.registration(`{"redirect_uris":["` + callback + `"]}`)
	body := `{"client_id":"` + got.text("client_id") + `","redirect_uris":["` + callback + `"]}`
	taken := 0
	for range 100 {
		switch again := p.dynamic(http.MethodPut, got.text("registration_client_uri"), got.text("registration_access_token"),
			body); again.status {
		case http.StatusOK:
			taken++
		case http.StatusServiceUnavailable:
		default:
			t.Fatalf("%d %s", again.status, again.raw)
		}
	}
	if taken == 0 || taken > 50 {
		t.Errorf("of 100 replacements at once, %d were taken", taken)
	}
}

func TestRegistrationFaults(t *testing.T) {
	p := newIDP(t, openToAll)
	got := p.registration(`{"redirect_uris":["` + callback + `"]}`)
	p.etcd.Inject(func(bool, bool) error { return errors.New("down") })
	body := `{"client_id":"` + got.text("client_id") + `","redirect_uris":["` + callback + `"]}`
	for method, at := range map[string]string{
		http.MethodPost: p.issuer + "/oauth/register", http.MethodPut: got.text("registration_client_uri"),
		http.MethodDelete: got.text("registration_client_uri"),
	} {
		p.dynamic(method, at, got.text("registration_access_token"), body).wants(t, method, http.StatusServiceUnavailable,
			"temporarily_unavailable")
	}
	p.etcd.Inject(nil)
	if read := p.dynamic(http.MethodGet, got.text("registration_client_uri"), got.text("registration_access_token"),
		""); read.status != http.StatusOK {
		t.Errorf("after the fault: %d %s", read.status, read.raw)
	}
}

// A replacement at a replica that has not heard of another one replaces nothing.
func TestReplacementsOfTheSameRegistration(t *testing.T) {
	p := newIDP(t, openToAll)
	got := p.registration(`{"redirect_uris":["` + callback + `"]}`)
	behind := p.replica(p.lagging())
	put := func(p *idp, name string) reply {
		return p.dynamic(http.MethodPut, got.text("registration_client_uri"), got.text("registration_access_token"),
			`{"client_id":"`+got.text("client_id")+`","redirect_uris":["`+callback+`"],"client_name":"`+name+`"}`)
	}
	if first := put(p, "First"); first.status != http.StatusOK {
		t.Fatalf("%d %s", first.status, first.raw)
	}
	put(behind, "Second").wants(t, "the second", http.StatusServiceUnavailable, "temporarily_unavailable")
	if c, err := p.store.Client(t.Context(), got.text("client_id")); err != nil || c.ClientName != "First" {
		t.Errorf("%+v, %v", c, err)
	}
}

// Where as many clients have registered themselves as there may be, no more do.
func TestRegistrationsThatAreTooMany(t *testing.T) {
	etcd := storagetest.Many(t)
	const batch = 100
	for n := 0; n < storage.MaxRegistrations; n += batch {
		var puts []clientv3.Op
		for i := n; i < n+batch; i++ {
			c := storage.Client{ID: fmt.Sprintf("client-%05d", i), RegistrationToken: []byte("x"), UpdatedAt: time.Now()}
			record, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			puts = append(puts, clientv3.OpPut(etcd.Prefix+"clients/"+c.ID, string(record)))
		}
		if _, err := etcd.Client.Txn(t.Context()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	p := newIDPOn(t, etcd, openToAll)
	p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", `{"redirect_uris":["`+callback+`"]}`).
		wants(t, "one more", http.StatusServiceUnavailable, "temporarily_unavailable")
}

func TestRegisteredSecretsAreNotInTheDatabase(t *testing.T) {
	p := newIDP(t, openToAll)
	got := p.registration(`{"redirect_uris":["` + callback + `"]}`)
	for _, secret := range []string{got.text("client_secret"), got.text("registration_access_token")} {
		if strings.Contains(p.etcd.Dump(), secret) {
			t.Errorf("%.4s… is in the database", secret)
		}
	}
}

// Tokens without anybody's consent are for clients that somebody let in.
func TestClientCredentialsOfARegisteredClient(t *testing.T) {
	p := newIDP(t, func(c *server.Config) {
		c.Registration = &server.Registration{InitialAccessTokens: []string{initialToken}}
	})
	got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", initialToken,
		`{"grant_types":["client_credentials"],"scope":"runs:write","token_endpoint_auth_method":"client_secret_post","jwks":null}`)
	if got.status != http.StatusCreated {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	if token := p.itself(got).call("/oauth/token", url.Values{"grant_type": {"client_credentials"},
		"scope": {"runs:write"}}); token.status != http.StatusOK {
		t.Errorf("%d %s", token.status, token.raw)
	}
}

// Nobody registers into somebody else's sector (OpenID Connect Core 1.0 section 8.1), at once or later.
func TestRegistrationIntoAnotherSector(t *testing.T) {
	p := newIDP(t, openToAll)
	const pairwise = `"subject_type":"pairwise"`
	for rule, members := range map[string]string{
		"a device that needs no redirect URI": `"redirect_uris":["https://other.test/cb"],"grant_types":["authorization_code","` + deviceGrant + `"]`,
		"loopback beside it":                  `"redirect_uris":["https://other.test/cb","http://127.0.0.1:8080/cb"]`,
	} {
		p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", `{`+pairwise+`,`+members+`}`).wants(t, rule,
			http.StatusBadRequest, "invalid_client_metadata")
	}
	replace := func(got reply, members string) reply {
		return p.dynamic(http.MethodPut, got.text("registration_client_uri"), got.text("registration_access_token"),
			`{"client_id":"`+got.text("client_id")+`",`+members+`}`)
	}
	mine := `"redirect_uris":["` + callback + `"]`
	own, public := p.registration(`{`+pairwise+`,`+mine+`}`), p.registration(`{`+mine+`}`)
	p.registration(`{` + pairwise + `,"redirect_uris":["http://127.0.0.1:8080/cb"]}`)
	for rule, got := range map[string]reply{
		"another host":         replace(own, pairwise+`,"redirect_uris":["https://other.test/cb"]`),
		"public subjects":      replace(own, mine),
		"from public subjects": replace(public, pairwise+`,"redirect_uris":["https://other.test/cb"]`),
	} {
		got.wants(t, rule, http.StatusBadRequest, "invalid_client_metadata")
	}
	for rule, got := range map[string]reply{
		"another page of the host": replace(own, pairwise+`,"redirect_uris":["https://app.test/other"]`),
		"public as before":         replace(public, `"redirect_uris":["https://other.test/cb"]`),
	} {
		if got.status != http.StatusOK {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
}

func jwkText(t *testing.T, key any) string {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "k"})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func FuzzRegistration(f *testing.F) {
	p := newIDP(f, openToAll)
	f.Add(`{"redirect_uris":["https://app.test/cb"],"grant_types":["authorization_code"]}`)
	f.Add(`{"redirect_uris":[null],"jwks":{"keys":[{}]},"default_max_age":1e99}`)
	f.Fuzz(func(t *testing.T, body string) {
		p := p.at(t)
		req := p.request(http.MethodPost, p.issuer+"/oauth/register", body, "Content-Type", "application/json")
		if got := p.send(req); got.status != http.StatusCreated && got.status != http.StatusBadRequest &&
			got.status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", got.status, got.raw)
		}
	})
}
