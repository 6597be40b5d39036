package server_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

// machine posts a form with headers of its own.
func (p *idp) machine(path string, form url.Values, header ...string) reply {
	p.t.Helper()
	return p.send(p.request(http.MethodPost, p.issuer+path, form.Encode(), append([]string{"Content-Type", formType},
		header...)...))
}

// The operator learns that a client is there and disabled, wherever it is refused.
func TestExplainOfADisabledClient(t *testing.T) {
	e := newExplained(t)
	token := e.tokens("scope", "openid").text("access_token")
	e.update("my-app", func(c *storage.Client) { c.Disabled = true })
	for code, header := range map[string]http.Header{
		"invalid_client":  e.exchange("x").header,
		"invalid_request": e.browser().get(e.logoutURL("client_id", e.client.ID)).header,
		"invalid_token":   e.userinfo(token).header,
	} {
		if got := e.of(header); got.Error != code || got.Reasons[0].Rule != oauth.RuleClientDisabled {
			t.Errorf("%s: %+v", code, got)
		}
	}
	for name, address := range map[string]string{"authorization": e.authorizeURL(), "start": e.startURL()} {
		got := e.browser().get(address)
		got.wants(t, name, http.StatusBadRequest, "invalid_client")
		if why := e.of(got.header).Reasons[0]; why.Rule != oauth.RuleClientDisabled {
			t.Errorf("%s: %+v", name, why)
		}
	}
}

// Whoever fails to authenticate learns nothing of why.
func TestWrongSecretAndUnknownClientLookTheSame(t *testing.T) {
	p := newIDP(t)
	disabled, disabledSecret := p.register("disabled-app", func(*storage.Client) {})
	p.update("disabled-app", func(c *storage.Client) { c.Disabled = true })
	public, _ := p.register("public-app", func(c *storage.Client) { c.Public = true })
	for path, form := range map[string]url.Values{
		"/oauth/token":      {"grant_type": {"refresh_token"}, "refresh_token": {"x"}},
		"/oauth/introspect": {"token": {"x"}},
		"/oauth/revoke":     {"token": {"x"}},
		"/oauth/par":        {"response_type": {"code"}, "redirect_uri": {callback}, "scope": {"threads:read"}},

		"/oauth/device_authorization": {"scope": {"threads:read"}},
	} {
		var first *reply
		for _, c := range []struct{ rule, id, secret string }{
			{"wrong secret", p.client.ID, "wfs_" + strings.Repeat("A", 43)},
			{"almost the secret", p.client.ID, p.secret[:len(p.secret)-1]},
			{"more than the secret", p.client.ID, p.secret + "A"},
			{"unknown client", "my-app-aaaaaaaaaaaa", p.secret},
			{"a client id that no client could have", strings.Repeat("x", 300), p.secret},
			{"disabled client", disabled.ID, disabledSecret},
			{"a secret from a public client", public.ID, p.secret},
			{"another client's secret", p.client.ID, disabledSecret},
		} {
			for _, inHeader := range []bool{true, false} {
				sent, header := url.Values{}, []string(nil)
				for name, values := range form {
					sent[name] = values
				}
				if inHeader {
					header = []string{"Authorization", basic(c.id, c.secret)}
				} else {
					sent.Set("client_id", c.id)
					sent.Set("client_secret", c.secret)
				}
				got := p.machine(path, sent, header...)
				got.wants(t, path+" "+c.rule, http.StatusUnauthorized, "invalid_client")
				if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic realm=") ||
					got.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s %s: headers %v", path, c.rule, got.header)
				}
				got.header.Del("X-Request-Id")
				got.header.Del("Date")
				if first == nil {
					first = &got
				}
				if got.raw != first.raw || len(got.header) != len(first.header) {
					t.Errorf("%s %s: %s %v, others get %s %v", path, c.rule, got.raw, got.header, first.raw, first.header)
				}
			}
		}
	}
}

func TestClientAuthentication(t *testing.T) {
	p := newIDP(t)
	public, _ := p.register("public-app", func(c *storage.Client) { c.Public = true })
	grant := func(more ...string) url.Values {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"wfr_x"}}
		for i := 0; i < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		return form
	}
	right := basic(p.client.ID, p.secret)
	for _, c := range []struct {
		rule   string
		form   url.Values
		header []string
		status int
		code   string
	}{
		{"Basic", grant(), []string{"Authorization", right}, 400, "invalid_grant"},
		{"Basic, the scheme in lower case", grant(), []string{"Authorization", "basic " + right[6:]}, 400, "invalid_grant"},
		{"Basic and the same client_id", grant("client_id", p.client.ID), []string{"Authorization", right},
			400, "invalid_grant"},
		{"Basic and another client_id", grant("client_id", public.ID), []string{"Authorization", right}, 400,
			"invalid_request"},
		{"body", grant("client_id", p.client.ID, "client_secret", p.secret), nil, 400, "invalid_grant"},
		{"public client", grant("client_id", public.ID), nil, 400, "invalid_grant"},
		{"public client, empty secret", grant("client_id", public.ID, "client_secret", ""), nil, 400, "invalid_grant"},
		{"two methods", grant("client_id", p.client.ID, "client_secret", p.secret), []string{"Authorization", right}, 400,
			"invalid_request"},
		{"two methods, secret alone in the body", grant("client_secret", p.secret), []string{"Authorization", right}, 400,
			"invalid_request"},
		{"two Authorization headers", grant(), []string{"Authorization", right, "Authorization", right}, 400,
			"invalid_request"},
		{"no client at all", grant(), nil, 401, "invalid_client"},
		{"a secret without client_id", grant("client_secret", p.secret), nil, 401, "invalid_client"},
		{"confidential without a secret", grant("client_id", p.client.ID), nil, 401, "invalid_client"},
		{"confidential with an empty secret", grant("client_id", p.client.ID, "client_secret", ""), nil, 401,
			"invalid_client"},
		{"Basic with an empty secret", grant(), []string{"Authorization", basic(p.client.ID, "")}, 401, "invalid_client"},
		{"Basic that is no base64", grant(), []string{"Authorization", "Basic !"}, 401, "invalid_client"},
		{"Basic without a colon", grant(), []string{"Authorization", "Basic " +
			base64.StdEncoding.EncodeToString([]byte(p.client.ID))}, 401, "invalid_client"},
		{"Basic with a broken escape", grant(), []string{"Authorization", "Basic " +
			base64.StdEncoding.EncodeToString([]byte("%zz:%zz"))}, 401, "invalid_client"},
		{"Bearer", grant("client_id", public.ID), []string{"Authorization", "Bearer " + p.secret}, 401, "invalid_client"},
		{"assertion", grant("client_id", p.client.ID, "client_assertion", "a.b.c", "client_assertion_type",
			"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), nil, 401, "invalid_client"},
		{"assertion without client_id", grant("client_assertion", "a.b.c", "client_assertion_type",
			"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), nil, 401, "invalid_client"},
		{"assertion beside Basic", grant("client_assertion", "a.b.c"), []string{"Authorization", right}, 400,
			"invalid_request"},
	} {
		got := p.machine("/oauth/token", c.form, c.header...)
		got.wants(t, c.rule, c.status, c.code)
		if (c.status == http.StatusUnauthorized) != (got.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: WWW-Authenticate %q", c.rule, got.header.Get("WWW-Authenticate"))
		}
	}
}

// RFC 6749 section 2.3.1: id and secret are form-encoded before they go into Basic.
func TestBasicWithOddCharacters(t *testing.T) {
	p := newIDP(t)
	odd, secret := p.register("odd-app", func(c *storage.Client) { c.ID = "odd:app %+/é&=" })
	q := p.as(odd, secret)
	code := q.code()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}
	if got := q.machine("/oauth/token", form, "Authorization", basic(odd.ID, secret)); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
	raw := "Basic " + base64.StdEncoding.EncodeToString([]byte(odd.ID+":"+secret))
	q.machine("/oauth/token", form, "Authorization", raw).wants(t, "not encoded: the colon splits it elsewhere",
		http.StatusUnauthorized, "invalid_client")
}

// Credentials and parameters in an address end up in logs.
func TestQueryStringIsRefused(t *testing.T) {
	p := newIDP(t)
	code := p.code()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}
	credentials := url.Values{"client_id": {p.client.ID}, "client_secret": {p.secret}}
	p.machine("/oauth/token?"+credentials.Encode(), form).wants(t, "credentials", http.StatusBadRequest, "invalid_request")
	p.machine("/oauth/token?"+form.Encode(), credentials).wants(t, "parameters", http.StatusBadRequest, "invalid_request")
	p.machine("/oauth/token?x=y", form, "Authorization", basic(p.client.ID, p.secret)).wants(t, "anything",
		http.StatusBadRequest, "invalid_request")
	p.machine("/oauth/introspect?token=x", credentials).wants(t, "introspection", http.StatusBadRequest, "invalid_request")
	p.machine("/oauth/revoke?token=x", credentials).wants(t, "revocation", http.StatusBadRequest, "invalid_request")
	if got := p.exchange(code); got.status != http.StatusOK {
		t.Errorf("the code was spoilt: %d %s", got.status, got.raw)
	}
}

func TestMethodsOfMachineEndpoints(t *testing.T) {
	p := newIDP(t)
	for path, allow := range map[string]string{
		"/oauth/token": "POST", "/oauth/introspect": "POST", "/oauth/revoke": "POST", "/oauth/userinfo": "GET, POST",
		"/oauth/jwks":                       "GET, HEAD",
		"/.well-known/openid-configuration": "GET, HEAD", "/.well-known/oauth-authorization-server": "GET, HEAD",
		"/oauth/authorize": "GET, HEAD, POST", "/oauth/continue": "GET, HEAD", "/oauth/signin": "POST",
		"/oauth/consent": "POST", "/signin": "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			if strings.Contains(allow, method) || (method == "HEAD" && strings.Contains(allow, "GET")) {
				continue
			}
			got := p.send(p.request(method, p.issuer+path, ""))
			if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != allow {
				t.Errorf("%s %s: %d, Allow %q", method, path, got.status, got.header.Get("Allow"))
			}
		}
	}
}

func TestGrantTypes(t *testing.T) {
	p := newIDP(t)
	for grantType, code := range map[string]string{
		"": "invalid_request", "password": "unsupported_grant_type", "client_credentials": "unauthorized_client",
		"implicit": "unsupported_grant_type",
		"urn:ietf:params:oauth:grant-type:jwt-bearer":     "unsupported_grant_type",
		"urn:ietf:params:oauth:grant-type:device_code":    "unauthorized_client", // on, but not registered
		"urn:ietf:params:oauth:grant-type:token-exchange": "unsupported_grant_type",
		"Authorization_Code":                              "unsupported_grant_type",
		"authorization_code ":                             "unsupported_grant_type",
		"nonsense\"\\\x7f":                                "unsupported_grant_type",
	} {
		got := p.call("/oauth/token", url.Values{"grant_type": {grantType}, "assertion": {"x"}, "subject_token": {"x"},
			"device_code": {"x"}})
		got.wants(t, "grant type "+grantType, http.StatusBadRequest, code)
	}
	for rule, form := range map[string]url.Values{
		"no code":          {"grant_type": {"authorization_code"}, "redirect_uri": {callback}},
		"no refresh token": {"grant_type": {"refresh_token"}},
	} {
		p.call("/oauth/token", form).wants(t, rule, http.StatusBadRequest, "invalid_request")
	}
	for _, path := range []string{"/oauth/introspect", "/oauth/revoke"} {
		p.call(path, url.Values{}).wants(t, path+" without a token", http.StatusBadRequest, "invalid_request")
	}
}

// CVE-2026-16093 and its kin: what was not registered opens nothing, at any endpoint, although it is right.
func TestRegisteredMethodIsEnforced(t *testing.T) {
	p := newIDP(t)
	type app struct {
		rule  string
		works string // the methods that must work
		as    *idp
	}
	with := func(name, method string, more ...func(*storage.Client)) *idp {
		return p.as(p.register(name, func(c *storage.Client) {
			c.TokenEndpointAuthMethod = method
			c.JWKS = jwksOf(t, publicJWK(testKeys()["ES256"], "k")) // whatever is registered, there are keys
			for _, f := range more {
				f(c)
			}
		}))
	}
	public := func(c *storage.Client) { c.Public = true }
	apps := []app{
		{"nothing registered", "basic post", with("a", "")},
		{"client_secret_basic", "basic", with("b", "client_secret_basic")},
		{"client_secret_post", "post", with("c", "client_secret_post")},
		{"private_key_jwt, and it has a secret", "key", with("d", "private_key_jwt")},
		{"public", "none", with("e", "", public)},
		{"public, none", "none", with("f", "none", public)},
		{"none, but not public", "", with("g", "none")},
		{"public, but client_secret_post", "", with("h", "client_secret_post", public)},
		{"public, but private_key_jwt", "", with("i", "private_key_jwt", public)},
		{"what nobody knows", "", with("j", "tls_client_auth")},
	}
	for _, a := range apps {
		for path, form := range map[string]url.Values{
			"/oauth/token":      {"grant_type": {"refresh_token"}, "refresh_token": {"x"}},
			"/oauth/introspect": {"token": {"x"}},
			"/oauth/revoke":     {"token": {"x"}},
		} {
			for _, method := range []string{"basic", "post", "key", "none"} {
				secret, sent, header := a.as.secret, url.Values{}, []string(nil)
				if secret == "" {
					secret = p.secret // a public client has none
				}
				switch method {
				case "basic":
					header = []string{"Authorization", basic(a.as.client.ID, secret)}
				case "post":
					sent.Set("client_id", a.as.client.ID)
					sent.Set("client_secret", secret)
				case "key":
					sent.Set("client_assertion", a.as.assertion("ES256", nil))
					sent.Set("client_assertion_type", jwtBearer)
				case "none":
					sent.Set("client_id", a.as.client.ID)
				}
				for name, values := range form {
					sent[name] = values
				}
				got := p.machine(path, sent, header...)
				want := strings.Contains(a.works, method) && (method != "none" || path != "/oauth/introspect")
				if works := got.text("error") != "invalid_client"; works != want {
					t.Errorf("%s: %s by %s: %d %s", a.rule, path, method, got.status, got.raw)
				}
				if !want && got.text("error_description") != "unknown client, or wrong client credentials" {
					t.Errorf("%s: %s by %s: tells why: %s", a.rule, path, method, got.raw)
				}
			}
		}
	}
}
