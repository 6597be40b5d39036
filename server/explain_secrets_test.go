package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
)

// Whatever a request brings along, no explanation says it again.
func TestExplainHoldsNoSecret(t *testing.T) {
	e := newExplained(t)
	tokens := e.tokens("scope", "openid threads:read")
	code := e.code("state", "canary-state", "nonce", "canary-nonce", "login_hint", "canary-hint")
	secrets := []string{
		e.secret, code, tokens.text("access_token"), tokens.text("refresh_token"), tokens.text("id_token"), verifier,
		"canary-state", "canary-nonce", "canary-hint", "canary-password", "canary-verifier", "canary-assertion",
		"canary-unknown",
	}
	everything := func(grant string) url.Values {
		return url.Values{
			"grant_type": {grant}, "code": {code + "x"}, "refresh_token": {tokens.text("refresh_token") + "x"},
			"code_verifier": {"canary-verifier"},
			"subject_token": {tokens.text("access_token")}, "token": {tokens.text("access_token")}, "state": {"canary-state"},
			"password": {"canary-password"}, "id_token_hint": {tokens.text("id_token")}, "unheard_of": {"canary-unknown"},
		}
	}
	var headers []http.Header
	for _, grant := range []string{"authorization_code", "refresh_token", "password", "client_credentials", ""} {
		headers = append(headers, e.call("/oauth/token", everything(grant)).header)
	}
	wrong := everything("authorization_code")
	wrong.Set("client_id", e.secret) // the two were swapped
	wrong.Set("client_secret", e.client.ID)
	headers = append(headers, e.call("/oauth/token", wrong).header)
	asserted := everything("authorization_code")
	asserted.Set("client_id", e.client.ID)
	asserted.Set("client_assertion", "canary-assertion")
	asserted.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	headers = append(headers, e.call("/oauth/token", asserted).header)
	// Secrets where they do not belong.
	misplaced := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.text("refresh_token")},
		"scope": {e.secret}, "resource": {code}}
	headers = append(headers, e.call("/oauth/token", misplaced).header)
	for _, changes := range [][]string{
		{"redirect_uri", "https://app.test/" + code}, {"scope", e.secret}, {"client_id", e.secret},
		{"response_type", tokens.text("access_token")},
		{"prompt", code}, {"id_token_hint", tokens.text("id_token") + "x"}, {"request", tokens.text("id_token")},
	} {
		headers = append(headers, e.browser().get(e.authorizeURL(append([]string{"state", "canary-state", "nonce",
			"canary-nonce"}, changes...)...)).header)
	}
	userinfo := e.request("GET", e.issuer+"/oauth/userinfo", "", "Authorization", "Bearer "+
		tokens.text("access_token")+"x")
	headers = append(headers, e.send(userinfo).header)
	b := e.browser()
	page := b.get(e.authorizeURL())
	action, form := b.form(page, "password")
	form.Set("password", "canary-password")
	form.Set("login", userEmail)
	form.Del("form")
	headers = append(headers, b.post(action, form).header)
	for _, header := range headers {
		e.of(header)
	}
	if len(e.said) != len(headers) {
		t.Errorf("%d of %d are explained", len(e.said), len(headers))
	}
	for _, said := range e.said {
		for _, secret := range secrets {
			if strings.Contains(said, secret) || len(secret) > 60 && strings.Contains(said, secret[:40]) {
				t.Errorf("%q is in %s", secret, said)
			}
		}
	}
}

// A password, a code or a token in an address is told nowhere again: not by explain, not in the log, not in the reply
// and not on a page, with whatever parameter it comes.
func TestAddressesInRequestsTellNoSecret(t *testing.T) {
	e := newExplained(t, func(c *server.Config) { c.ClientIDMetadataDocuments = true })
	const address = "https://u:canary-pw@my.example.com/cb?code=canary-code#access_token=canary-token"
	long := "https://u:" + strings.Repeat("canary-pw", 100) + "@my.example.com/cb"
	var headers []http.Header
	look := func(header http.Header, body string) {
		headers = append(headers, header)
		if strings.Contains(body, "canary") {
			t.Errorf("the reply %s", body)
		}
	}
	for _, uri := range []string{address, long, "https://127.0.0.1:1/client?token=canary-token"} {
		for _, changes := range [][]string{{"redirect_uri", uri}, {"resource", uri}, {"client_id", uri}} {
			got := e.browser().get(e.authorizeURL(changes...))
			look(got.header, got.body+got.header.Get("Location"))
		}
		got := e.browser().get(e.issuer + "/oauth/logout?" + url.Values{"client_id": {e.client.ID},
			"post_logout_redirect_uri": {uri}}.Encode())
		look(got.header, got.body)
		got = e.browser().get(e.issuer + "/oauth/logout?" +
			url.Values{"client_id": {uri}, "post_logout_redirect_uri": {uri}}.Encode())
		look(got.header, got.body)
		for _, form := range []url.Values{
			{"grant_type": {"authorization_code"}, "code": {e.code()}, "redirect_uri": {uri}},
			{"grant_type": {"refresh_token"}, "refresh_token": {e.tokens().text("refresh_token")}, "resource": {uri}},
			{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {uri}, "client_secret": {"x"}},
		} {
			reply := e.call("/oauth/token", form)
			look(reply.header, reply.raw)
		}
		reply := e.call("/oauth/par", url.Values{"response_type": {"code"}, "scope": {"openid"}, "redirect_uri": {uri}})
		if look(reply.header, reply.raw); strings.ContainsAny(reply.text("error_description"), `"\`) ||
			reply.text("error_description") == "" {
			t.Errorf("error_description %s", reply.raw)
		}
	}
	for _, header := range headers {
		e.of(header)
	}
	for _, said := range append(e.said, e.log.String()) {
		if strings.Contains(said, "canary") {
			t.Errorf("told: %s", said)
		}
	}
}
