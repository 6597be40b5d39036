package server_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// The promised example posts JSON. It is one object, in which each name comes once, or it is refused.
func TestJSONBodies(t *testing.T) {
	p := newIDP(t)
	id, secret := quoted(t, p.client.ID), quoted(t, p.secret)
	credentials := `"client_id":` + id + `,"client_secret":` + secret
	grant := `"grant_type":"refresh_token","refresh_token":"wfr_x"`
	for rule, body := range map[string]string{
		"duplicate name":                 `{` + grant + `,` + credentials + `,"client_id":` + id + `}`,
		"duplicate name, other spelling": `{` + grant + `,` + credentials + `,"client\u005fid":` + id + `}`,
		"a list of what comes once":      `{` + grant + `,"client_id":[` + id + `,"other"],"client_secret":` + secret + `}`,
		"deep nesting":                   `{"x":` + strings.Repeat(`[`, 20000),
		"trailing object":                `{` + grant + `,` + credentials + `}{}`,
		"trailing text":                  `{` + grant + `,` + credentials + `} x`,
		"list at the top":                `[{` + grant + `,` + credentials + `}]`,
		"string at the top":              `"grant_type"`,
		"cut":                            `{` + grant + `,` + credentials,
		"comma at the end":               `{` + grant + `,` + credentials + `,}`,
		"single quotes":                  `{'grant_type':'refresh_token'}`,
		"NUL":                            `{` + grant + `,"client_id":"a\u0000","client_secret":` + secret + `}`,
		"a form":                         "grant_type=refresh_token&refresh_token=wfr_x",
	} {
		p.json("/oauth/token", body).wants(t, rule, http.StatusBadRequest, "invalid_request")
	}
	p.json("/oauth/token", " {"+grant+","+credentials+"}\n").wants(t, "white space around is fine", http.StatusBadRequest,
		"invalid_grant")
	// What JSON clients send beside text means what a form would say.
	for rule, body := range map[string]string{
		"a number":                   `{` + grant + `,` + credentials + `,"expires_in":3600}`,
		"a flag":                     `{` + grant + `,` + credentials + `,"x":true}`,
		"null":                       `{` + grant + `,` + credentials + `,"scope":null,"resource":[null]}`,
		"a list of one":              `{` + grant + `,"client_id":[` + id + `],"client_secret":` + secret + `}`,
		"an object that nobody asks": `{` + grant + `,` + credentials + `,"x":{"y":["z"]}}`,
		"a byte order mark":          "\ufeff{" + grant + `,` + credentials + `}`,
	} {
		p.json("/oauth/token", body).wants(t, rule, http.StatusBadRequest, "invalid_grant")
	}
	if got := p.json("/oauth/introspect", `{"token":"x",`+credentials+
		`}`); strings.TrimSpace(got.raw) != `{"active":false}` {
		t.Errorf("introspection by JSON: %d %s", got.status, got.raw)
	}
	if got := p.json("/oauth/revoke", `{"token":"x",`+credentials+`}`); got.status != http.StatusOK {
		t.Errorf("revocation by JSON: %d %s", got.status, got.raw)
	}
	code := p.code()
	req := p.request(http.MethodPost, p.issuer+"/oauth/token", `{"grant_type":"authorization_code","code":`+
		quoted(t, code)+`}`,
		"Content-Type", "application/json", "Authorization", basic(p.client.ID, p.secret))
	if got := p.send(req); got.status != http.StatusOK {
		t.Errorf("JSON with Basic: %d %s", got.status, got.raw)
	}
	p.saysWhatFormsSay()
}

// saysWhatFormsSay: lists of scopes and resources, numbers and objects are read for what they are, not only let pass.
func (p *idp) saysWhatFormsSay() {
	t := p.t
	t.Helper()
	credentials := `"client_id":` + quoted(t, p.client.ID) + `,"client_secret":` + quoted(t, p.secret)
	refresh := func(more string) reply {
		return p.json("/oauth/token", `{"grant_type":"refresh_token","refresh_token":`+
			quoted(t, p.tokens("scope", "threads:read runs:write").text("refresh_token"))+`,`+credentials+more+`}`)
	}
	if got := refresh(`,"scope":["threads:read","runs:write"]`); got.text("scope") != "threads:read runs:write" {
		t.Errorf("a list of scopes: %d %s", got.status, got.raw)
	}
	if got := refresh(`,"scope":null,"resource":[]`); got.status != http.StatusOK {
		t.Errorf("nothing: %d %s", got.status, got.raw)
	}
	refresh(`,"scope":["threads:read","files:write"]`).wants(t, "a scope beyond the grant", http.StatusBadRequest,
		"invalid_scope")
	refresh(`,"resource":[`+quoted(t, p.issuer)+`,"https://other.test"]`).wants(t, "a resource of two",
		http.StatusBadRequest, "invalid_target")
	push := `{"response_type":"code","redirect_uri":` + quoted(t, callback) + `,"scope":["openid","email"],` + credentials
	if got := p.json("/oauth/par", push+
		`,"max_age":600,"claims":{"id_token":{"email":null}}}`); got.status != http.StatusCreated {
		t.Errorf("a pushed request: %d %s", got.status, got.raw)
	}
	p.json("/oauth/par", push+`,"claims":{"id_token":1}}`).wants(t, "claims that are wrong", http.StatusBadRequest,
		"invalid_request")
	p.json("/oauth/par", push+`,"max_age":-600}`).wants(t, "a negative age", http.StatusBadRequest, "invalid_request")
	bare := p.send(p.request(http.MethodPost, p.issuer+"/oauth/userinfo", "", "Content-Type", "application/json",
		"Authorization", "Bearer "+p.tokens("scope", "openid").text("access_token")))
	if bare.status != http.StatusOK {
		t.Errorf("userinfo by POST without a body: %d %s", bare.status, bare.raw)
	}
}

func quoted(t testing.TB, text string) string {
	t.Helper()
	raw, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestContentTypes(t *testing.T) {
	p := newIDP(t)
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"wfr_x"}, "client_id": {p.client.ID},
		"client_secret": {p.secret}}.Encode()
	for contentType, code := range map[string]string{
		formType: "invalid_grant", formType + "; charset=UTF-8": "invalid_grant",
		"APPLICATION/X-WWW-FORM-URLENCODED": "invalid_grant",
		"":                                  "invalid_request", "text/plain": "invalid_request",
		"multipart/form-data; boundary=x": "invalid_request",
		"application/xml":                 "invalid_request",
		"application/jsonp":               "invalid_request", "application/json": "invalid_request",
		"nonsense":             "invalid_request",
		formType + "; charset": "invalid_request",
	} {
		req := p.request(http.MethodPost, p.issuer+"/oauth/token", form, "Content-Type", contentType)
		p.send(req).wants(t, contentType, http.StatusBadRequest, code)
	}
	for rule, body := range map[string]string{"broken escape": "grant_type=%zz", "not UTF-8": "grant_type=%ff",
		"NUL": "grant_type=a%00", "semicolons": "grant_type=a;b=c"} {
		req := p.request(http.MethodPost, p.issuer+"/oauth/token", body, "Content-Type", formType, "Authorization",
			basic(p.client.ID, p.secret))
		p.send(req).wants(t, rule, http.StatusBadRequest, "invalid_request")
	}
}

func TestHugeBodies(t *testing.T) {
	p := newIDP(t)
	huge := strings.Repeat("x", 64<<10)
	for _, path := range []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/userinfo"} {
		form := url.Values{"token": {huge}, "access_token": {huge}, "client_id": {p.client.ID}, "client_secret": {p.secret}}
		p.machine(path, form).wants(t, path, http.StatusRequestEntityTooLarge, "invalid_request")
		p.json(path, `{"token":"`+huge+`"}`).wants(t, path+", JSON", http.StatusRequestEntityTooLarge, "invalid_request")
		many := p.send(p.request(http.MethodPost, p.issuer+path, strings.Repeat("a&", 30<<10), "Content-Type", formType))
		if many.status != http.StatusBadRequest && many.status != http.StatusUnauthorized {
			t.Errorf("%s with 30,000 parameters: %d %s", path, many.status, many.raw)
		}
	}
	b := p.browser()
	action, form := b.form(b.get(p.authorizeURL()), "password")
	form.Set("password", huge)
	if got := b.post(action, form); got.status != http.StatusRequestEntityTooLarge && got.status != http.StatusBadRequest {
		t.Errorf("sign-in: %d", got.status)
	}
	if got := p.browser().post(p.issuer+"/oauth/authorize",
		url.Values{"state": {huge}}); got.status != http.StatusBadRequest {
		t.Errorf("authorize by POST: %d", got.status)
	}
}

// Floods of scopes, languages and prompts cost one short error.
func TestFloodsAreCapped(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	var many []string
	for i := range 65 {
		many = append(many, "s"+strings.Repeat("x", i+1))
	}
	p.redirected(b.get(p.authorizeURL("scope", strings.Join(many, " "))), "many scopes", "invalid_scope")
	got := b.get(p.authorizeURL("scope", strings.Repeat("threads:read ", 1000)))
	if got.asks() != "password" {
		t.Errorf("one scope many times: %d", got.status)
	}
	p.redirected(b.get(p.authorizeURL("scope", strings.Repeat("x", 8000))), "a long scope", "invalid_scope")
	p.redirected(b.get(p.authorizeURL("prompt", strings.Repeat("login x", 1000))), "many prompts", "invalid_request")
	p.redirected(b.get(p.authorizeURL("nonce", strings.Repeat("n", 513))), "a long nonce", "invalid_request")
	for _, locales := range []string{strings.Repeat("ja-", 4000), strings.Repeat("x-y ", 3000),
		strings.Repeat("-", 12000)} {
		if got := b.get(p.authorizeURL("ui_locales", locales)); got.asks() != "password" {
			t.Errorf("ui_locales: %d", got.status)
		}
		req := p.request(http.MethodGet, p.authorizeURL(), "", "Accept-Language", strings.ReplaceAll(locales, " ", ","))
		if got := b.do(req); got.asks() != "password" {
			t.Errorf("Accept-Language: %d", got.status)
		}
	}
	if got := b.get(p.authorizeURL("login_hint", strings.Repeat("h", 10000))); got.asks() != "password" ||
		len(got.body) > 40000 {
		t.Errorf("login_hint: %d, %d bytes", got.status, len(got.body))
	}
	for _, path := range []string{"/oauth/authorize", "/oauth/continue", "/", "/oauth/jwks", "/oauth/token",
		"/oauth/userinfo"} {
		got := b.get(p.issuer + path + "?x=" + strings.Repeat("x", 20<<10))
		if got.status != http.StatusBadRequest && got.status != http.StatusRequestURITooLong {
			t.Errorf("%s with a query of 20 KiB: %d", path, got.status)
		}
	}
	code := b.code()
	p.exchange(code, "code_verifier", strings.Repeat("v", 30000)).wants(t, "a long verifier", http.StatusBadRequest,
		"invalid_grant")
	first := p.exchange(code).text("refresh_token")
	p.refresh(first, "scope", strings.Repeat("a b ", 8000)).wants(t, "many scopes at the refresh", http.StatusBadRequest,
		"invalid_scope")
}
