package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
)

// change is what a module asks for beyond what every registration has.
type change func(map[string]any)

// set is a member of the registration request.
func set(name string, value any) change { return func(m map[string]any) { m[name] = value } }

// refreshing asks for refresh tokens.
func refreshing(m map[string]any) { m["grant_types"] = []string{"authorization_code", "refresh_token"} }

// callback is the redirect URI of clients that register themselves.
func (t *trial) callback() string {
	if t.cfg.BaseURL != "" {
		return t.cfg.BaseURL + "/callback"
	}
	return t.cfg.Clients.Client.RedirectURI
}

// registrationRequest is what a client sends (OpenID Connect Dynamic Client Registration 1.0 section 2). The key is of
// the client, which publishes it in the request; unless a change says otherwise.
func (t *trial) registrationRequest(auth string, key any, changes ...change) map[string]any {
	request := map[string]any{
		"client_name": "Conformance " + t.id, "grant_types": []string{"authorization_code"},
		"response_types": []string{"code"},
		"redirect_uris":  []string{t.callback()}, "contacts": []string{"certification@oidf.org"}, "jwks": key,
		"token_endpoint_auth_method": auth,
	}
	for _, c := range changes {
		c(request)
	}
	return request
}

// callRegistration posts a registration request.
func (t *trial) callRegistration(p *provider, request map[string]any) *reply {
	if p.text("registration_endpoint") == "" {
		t.skipf("the provider has no registration_endpoint")
	}
	body, err := json.Marshal(request)
	if err != nil {
		t.stopf("", "encode the registration request: %v", err)
	}
	return t.call(http.MethodPost, t.endpoint(p, "registration_endpoint").String(), "application/json", string(body),
		t.cfg.Registration.InitialAccessToken)
}

// register registers a client, checks the answer, and takes it away when the module ends.
func (t *trial) register(p *provider, auth string, changes ...change) *client {
	methods, given := p.list("token_endpoint_auth_methods_supported")
	t.check(!given && auth == secretBasic || slices.Contains(methods, auth), "OIDCD-3", "the provider supports %s", auth)
	c := &client{auth: auth, key: t.clientKey(0, "")}
	got := t.callRegistration(p, t.registrationRequest(auth, json.RawMessage(publicSet(c.key)), changes...))
	t.check(got.json(), "OIDCR-3.2", "the registration response is application/json")
	c.registration = got.object()
	if code, _ := c.registration["error"].(string); code != "" {
		t.stopf("OIDCR-3.2", "registration is refused: %s: %v", code, c.registration["error_description"])
	}
	t.check(got.status == http.StatusCreated, "OIDCR-3.2", "registration answers with status 201, not %d", got.status)
	m := metadata(c.registration)
	c.ID, c.Secret = m.text("client_id"), m.text("client_secret")
	t.must(c.ID != "", "OIDCR-3.2", "the registration response has client_id")
	if c.Secret != "" {
		_, ok := c.registration["client_secret_expires_at"].(float64)
		t.check(ok, "OIDCR-3.2", "the registration response has client_secret_expires_at, as it has client_secret")
	}
	t.must(c.Secret != "" || auth == privateKeyJWT, "OIDCR-3.2",
		"the registration response has the client_secret that %s needs", auth)
	t.management(c)
	if uris, _ := m.list("redirect_uris"); len(uris) > 0 {
		c.RedirectURI = uris[0]
	} else {
		t.stopf("OIDCR-3.2", "the registration response has no redirect_uris")
	}
	return c
}

// management checks the credentials for the client configuration endpoint, which come together or not at all, and
// unregisters the client when the module ends.
func (t *trial) management(c *client) {
	m := metadata(c.registration)
	address, token := m.text("registration_client_uri"), m.text("registration_access_token")
	t.check((address == "") == (token == ""), "OIDCR-3.2",
		"registration_client_uri and registration_access_token come together")
	if address == "" {
		return
	}
	u, err := url.Parse(address)
	t.must(err == nil && u.Scheme == "https" && u.Host != "", "OIDCR-3.2", "registration_client_uri, %q, is an https URL",
		address)
	t.cleanup(func() {
		got := t.call(http.MethodDelete, address, "", "", token)
		t.should(got.status == http.StatusNoContent, "RFC7592-2.3", "the client can be unregistered: status %d", got.status)
	})
}

// registrationRefused registers what must be refused, with one of the error codes; another code is warned of.
func (t *trial) registrationRefused(p *provider, ref string, codes []string, changes ...change) {
	key := t.clientKey(0, "")
	got := t.callRegistration(p, t.registrationRequest(t.plan.Auth, json.RawMessage(publicSet(key)), changes...))
	if got.status == http.StatusCreated {
		c := &client{registration: got.object()}
		t.management(c)
	}
	t.check(got.json(), ref, "the answer is application/json")
	t.check(got.status == http.StatusBadRequest, ref, "registration is refused with status 400, not %d", got.status)
	code, _ := got.object()["error"].(string)
	t.should(slices.Contains(codes, code), "OIDCR-3.3", "the error, %q, is one of %v", code, codes)
}
