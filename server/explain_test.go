package server_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// explained is a server whose refusals an operator can ask about.
type explained struct {
	*idp
	admin http.Handler
	said  []string // every explanation so far, as JSON
}

func newExplained(t *testing.T, change ...func(*server.Config)) *explained {
	t.Helper()
	refusals := admin.NewRefusals(1000)
	p := newIDP(t, append(change, func(c *server.Config) { c.Refused = refusals.Add })...)
	e := &explained{idp: p}
	e.admin = admin.New(admin.Config{
		Store: p.store, Issuer: p.issuer, Refusals: refusals, Logger: slog.New(slog.DiscardHandler),
	})
	return e
}

// written gives the client's app a manifest with lines.
func (e *explained) written(source string, lines map[string]storage.Place) {
	e.t.Helper()
	view, err := e.store.App(e.t.Context(), e.client.App)
	if err != nil {
		e.t.Fatal(err)
	}
	view.App.Source, view.App.Lines = source, lines
	if err := e.store.CommitRelease(e.t.Context(), storage.Release{App: *view.App}); err != nil {
		e.t.Fatal(err)
	}
}

// of asks why the request of a reply was refused.
func (e *explained) of(header http.Header) admin.Explanation {
	e.t.Helper()
	id := header.Get("X-Request-Id")
	w := httptest.NewRecorder()
	e.admin.ServeHTTP(w, httptest.NewRequestWithContext(e.t.Context(), "GET", "/v1/refusals/"+id, nil))
	var out admin.Explanation
	if w.Code != http.StatusOK || id == "" {
		e.t.Errorf("explaining %q: %d %s", id, w.Code, w.Body)
		return admin.Explanation{Reasons: make([]admin.Reason, 1)}
	}
	e.said = append(e.said, w.Body.String())
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || len(out.Reasons) != 1 {
		e.t.Fatalf("%v in %s", err, w.Body)
	}
	return out
}

// What apps meet most is explained by the rule that refused. That some test is refused by every rule, and with which
// codes, is what runAll sees to.
func TestExplainNamesTheRuleOfEveryError(t *testing.T) {
	e := newExplained(t)
	e.clock.begin()
	e.written("apps/app.yml", map[string]storage.Place{
		"spec": {4, 1}, "spec.oauth": {6, 3}, "spec.oauth.redirectUris": {9, 5}, "spec.oauth.scopes": {12, 5},
	})
	other := e.as(e.register("other", func(*storage.Client) {}))
	public := e.as(e.register("public", func(c *storage.Client) { c.Public = true }))
	machine := e.as(e.register("machine", func(c *storage.Client) {
		c.TokenEndpointAuthMethod, c.GrantTypes, c.RedirectURIs = "client_secret_basic",
			[]string{oauth.GrantClientCredentials}, nil
	}))
	lost := e.as(e.register("lost", func(c *storage.Client) { c.Scopes = append(c.Scopes, "gone:read") }))
	token := func(form ...string) func() http.Header {
		values := url.Values{}
		for i := 0; i < len(form); i += 2 {
			values.Set(form[i], form[i+1])
		}
		return func() http.Header { return e.call("/oauth/token", values).header }
	}
	authorize := func(p *idp, changes ...string) func() http.Header {
		return func() http.Header { return p.browser().get(p.authorizeURL(changes...)).header }
	}
	withoutCodes := e.as(e.register("without-codes", func(c *storage.Client) {
		c.GrantTypes = []string{oauth.GrantClientCredentials}
	}))
	for _, c := range []struct {
		name, code, rule string
		do               func() http.Header
	}{
		{"client is unknown", "invalid_client", oauth.RuleClientUnknown, token("client_id", "nobody", "client_secret", "x",
			"grant_type", "refresh_token", "refresh_token", "x")},
		{"client is unknown, in a browser", "invalid_client", oauth.RuleClientUnknown,
			authorize(e.idp, "client_id", "nobody")},
		{"no client at all", "invalid_client", oauth.RuleClientMissing, func() http.Header {
			return e.send(e.request("POST", e.issuer+"/oauth/token", "grant_type=refresh_token", "Content-Type",
				formType)).header
		}},
		{"wrong secret", "invalid_client", oauth.RuleClientSecretWrong, token("client_id", e.client.ID, "client_secret",
			other.secret, "grant_type", "authorization_code", "code", "x")},
		{"no secret", "invalid_client", oauth.RuleClientAuthMethod, token("client_id", e.client.ID, "grant_type",
			"authorization_code", "code", "x")},
		{"secret of a public client", "invalid_client", oauth.RuleClientAuthMethod, token("client_id", public.client.ID,
			"client_secret", "x", "grant_type", "authorization_code", "code", "x")},
		{"secret in the body", "invalid_client", oauth.RuleClientAuthMethod, func() http.Header {
			return machine.call("/oauth/token", url.Values{"grant_type": {"client_credentials"},
				"scope": {"threads:read"}}).header
		}},
		{"header cannot be read", "invalid_client", oauth.RuleClientAuthMalformed, func() http.Header {
			return e.send(e.request("POST", e.issuer+"/oauth/token", "grant_type=refresh_token", "Content-Type", formType,
				"Authorization", "Basic %%%")).header
		}},

		{"made-up code", "invalid_grant", oauth.RuleCodeInvalid, func() http.Header { return e.exchange("made-up").header }},
		{"expired code", "invalid_grant", oauth.RuleCodeExpired, func() http.Header {
			code := e.code()
			e.clock.forward(2 * time.Minute)
			return e.exchange(code).header
		}},
		{"used code", "invalid_grant", oauth.RuleCodeUsed, func() http.Header {
			code := e.code()
			e.exchange(code)
			return e.exchange(code).header
		}},
		{"code of another client", "invalid_grant", oauth.RuleCodeOtherClient,
			func() http.Header { return other.exchange(e.code()).header }},
		{"another redirect URI", "invalid_grant", oauth.RuleRedirectURIDiffers, func() http.Header {
			return e.exchange(e.code(), "redirect_uri", "http://localhost:1/").header
		}},
		{"wrong verifier", "invalid_grant", oauth.RulePKCEMismatch, func() http.Header {
			code := e.code("code_challenge", challengeOf(verifier), "code_challenge_method", "S256")
			return e.exchange(code, "code_verifier", verifier+"x").header
		}},
		{"no verifier", "invalid_grant", oauth.RulePKCEMismatch, func() http.Header {
			return e.exchange(e.code("code_challenge", challengeOf(verifier), "code_challenge_method", "S256")).header
		}},
		{"a verifier without a challenge", "invalid_grant", oauth.RulePKCEUnexpected, func() http.Header {
			return e.exchange(e.code(), "code_verifier", verifier).header
		}},
		{"made-up refresh token", "invalid_grant", oauth.RuleRefreshTokenInvalid,
			func() http.Header { return e.refresh("made-up").header }},
		{"refresh token of another client", "invalid_grant", oauth.RuleRefreshTokenOtherClient, func() http.Header {
			return other.refresh(e.tokens().text("refresh_token")).header
		}},
		{"used refresh token", "invalid_grant", oauth.RuleRefreshTokenUsed, func() http.Header {
			first := e.tokens().text("refresh_token")
			second := e.refresh(first).text("refresh_token")
			e.clock.forward(time.Minute)
			e.refresh(second)
			return e.refresh(first).header
		}},
		{"revoked refresh token", "invalid_grant", oauth.RuleRefreshTokenRevoked, func() http.Header {
			got := e.tokens().text("refresh_token")
			e.call("/oauth/revoke", url.Values{"token": {got}})
			return e.refresh(got).header
		}},
		{"expired refresh token", "invalid_grant", oauth.RuleRefreshTokenExpired, func() http.Header {
			got := e.tokens().text("refresh_token")
			e.clock.forward(366 * 24 * time.Hour)
			return e.refresh(got).header
		}},

		{"no scope", "invalid_scope", oauth.RuleScopeMissing, authorize(e.idp, "scope", "")},
		{"scope that is not registered", "invalid_scope", oauth.RuleScopeNotInManifest,
			authorize(e.idp, "scope", "threads:write")},
		{"an ID token for an app that does not trust it", "invalid_scope", oauth.RuleScopePeer,
			authorize(e.idp, "scope", "openid audience:server:client_id:"+other.client.ID)},
		{"scope that the server does not have", "invalid_scope", oauth.RuleScopeNotInCatalogue,
			authorize(lost, "scope", "gone:read")},
		{"more than was granted", "invalid_scope", oauth.RuleScopeBeyondGrant, func() http.Header {
			return e.refresh(e.tokens().text("refresh_token"), "scope", "threads:read runs:write").header
		}},
		{"a user's scope for the client itself", "invalid_scope", oauth.RuleScopeAboutUser, func() http.Header {
			req := e.request("POST", e.issuer+"/oauth/token", "grant_type=client_credentials&scope=openid", "Content-Type",
				formType)
			req.SetBasicAuth(machine.client.ID, machine.secret)
			return e.send(req).header
		}},

		{"the user says no", "access_denied", oauth.RuleUserDenied, func() http.Header {
			b, got := e.signedIn("bob@app.test") // who has allowed nothing yet
			return b.decide(got, "deny").header
		}},
		{"the user does not sign in", "access_denied", oauth.RuleSignInCancelled, func() http.Header {
			b := e.browser()
			got := b.get(e.authorizeURL())
			action, form := b.form(got, "cancel")
			form.Set("cancel", "cancel")
			return b.post(action, form).header
		}},

		{"redirect URI that is not registered", "unauthorized_client", oauth.RuleRedirectURIUnregistered,
			authorize(e.idp, "redirect_uri", callback+"/")},
		{"no second factor, where the app has come to demand one", "invalid_grant", oauth.RuleFactorNeeded,
			func() http.Header {
				code := e.code()
				e.demands("my-app", oauth.MFARequired)
				defer e.demands("my-app", "")
				return e.exchange(code).header
			}},
		{"no second factor, silently", "login_required", oauth.RuleFactorNeeded, func() http.Header {
			b := e.browser()
			e.exchange(b.code())
			e.demands("my-app", oauth.MFARequired)
			defer e.demands("my-app", "")
			return b.get(e.authorizeURL("prompt", "none")).header
		}},

		{"grant type that is not registered", "unauthorized_client", oauth.RuleGrantTypeUnregistered,
			token("grant_type", "client_credentials", "scope", "threads:read")},
		{"grant type of the token endpoint alone", "unauthorized_client", oauth.RuleGrantTypeUnregistered,
			authorize(withoutCodes)},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t, e.idp.t = t, t
			got := e.of(c.do())
			if why := got.Reasons[0]; why.Rule != c.rule || got.Error != c.code {
				t.Errorf("%s by %q, want %s by %s", got.Error, why.Rule, c.code, c.rule)
			}
		})
	}
	e.t, e.idp.t = t, t

	// What the rule looked at, what was meant, and the line that decides.
	for name, c := range map[string]struct {
		url                        string
		asked, nearest, key, place string
	}{
		"redirect URI": {e.authorizeURL("redirect_uri", callback+"/"), callback + "/", callback, "spec.oauth.redirectUris",
			"apps/app.yml:9:5"},
		"scope": {e.authorizeURL("scope", "threads:write"), "threads:write", "threads:read", "spec.oauth.scopes",
			"apps/app.yml:12:5"},
	} {
		got := e.of(e.browser().get(c.url).header)
		if why := got.Reasons[0]; why.Asked != c.asked || why.Nearest != c.nearest || why.Key != c.key ||
			why.Place != c.place {
			t.Errorf("%s: %+v", name, why)
		}
		if got.Endpoint != "/oauth/authorize" || got.ClientID != e.client.ID || got.App != "my-app" ||
			got.Params["response_type"] != "code" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// So is what devices, and clients with keys, are refused.
func TestExplainNamesTheRuleOfDevicesAndKeys(t *testing.T) {
	e := newExplained(t)
	e.idp = withDevices(e.idp)
	e.clock.stop()
	other := e.as(e.register("other", func(c *storage.Client) {
		c.GrantTypes = []string{oauth.GrantAuthorizationCode, deviceGrant}
	}))
	keyed := e.keyed("keyed-app", "ES256")
	asserting := func(assertion string) http.Header {
		return keyed.asserting("/oauth/token", assertion, forItself("threads:read")).header
	}
	dpop := e.as(e.register("dpop-app", func(c *storage.Client) { c.DPoPBoundAccessTokens = true }))
	mine, foreign := dpop.informed(), dpop.informed()
	for _, c := range []struct {
		code, rule string
		do         func() http.Header
	}{
		{"invalid_client", oauth.RuleAssertionSignature, func() http.Header {
			return asserting(signedBy(t, newKey(t), jose.ES256, map[string]any{"kid": "k"}, keyed.assertionClaims(nil)))
		}},
		{"invalid_client", oauth.RuleAssertionClaims, func() http.Header {
			return asserting(keyed.assertion("ES256",
				map[string]any{"aud": "x"}))
		}},
		{"invalid_client", oauth.RuleAssertionUsed, func() http.Header {
			once := keyed.assertion("ES256", nil)
			asserting(once)
			return asserting(once)
		}},
		{"invalid_grant", oauth.RuleDeviceCodeInvalid, func() http.Header {
			return e.poll(e.device(), "device_code",
				"made-up").header
		}},
		{"invalid_grant", oauth.RuleDeviceCodeOtherClient, func() http.Header { return other.poll(e.device()).header }},
		{"slow_down", oauth.RuleDevicePollEarly, func() http.Header {
			device := e.device()
			e.poll(device)
			return e.pollNow(device).header
		}},
		{"expired_token", oauth.RuleDeviceCodeExpired, func() http.Header {
			device := e.device()
			e.clock.forward(time.Hour)
			return e.poll(device).header
		}},
		{"access_denied", oauth.RuleUserDenied, func() http.Header {
			device, b := e.device(), e.browser()
			b.decide(b.reach(device, userEmail), "deny")
			return e.poll(device).header
		}},
		{"invalid_grant", oauth.RuleDeviceCodeUsed, func() http.Header {
			device := e.device()
			e.approve(device)
			e.poll(device)
			return e.poll(device).header
		}},
		{"invalid_dpop_proof", oauth.RuleProofMissing, func() http.Header { return dpop.exchange(dpop.code()).header }},
		{"invalid_grant", oauth.RuleProofKey, func() http.Header {
			return foreign.exchange(dpop.code("dpop_jkt", mine.thumbprint())).header
		}},
		{"invalid_token", oauth.RuleAccessTokenScheme, func() http.Header {
			return dpop.userinfo(mine.exchange(dpop.code("scope", "openid")).text("access_token")).header
		}},
		{"insufficient_scope", oauth.RuleScopeOpenID, func() http.Header {
			return e.userinfo(e.tokens("scope", "threads:read").text("access_token")).header
		}},
		{"invalid_scope", oauth.RuleScopeTooMany, func() http.Header {
			var scopes strings.Builder
			for i := range 65 {
				fmt.Fprintf(&scopes, "x%d ", i)
			}
			return e.browser().get(e.authorizeURL("scope", scopes.String())).header
		}},
		{"invalid_client", oauth.RuleClientRemoved, func() http.Header {
			b := e.browser()
			page := b.get(e.authorizeURL())
			e.deleteApp()
			return b.signIn(page, userEmail, userPassword).header
		}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			if got := e.of(c.do()); got.Reasons[0].Rule != c.rule || got.Error != c.code {
				t.Errorf("%s by %q, want %s", got.Error, got.Reasons[0].Rule, c.code)
			}
		})
	}
}

// What is told of a refusal fits what was wrong: another rule, place or remedy would send the operator elsewhere.
func TestExplainSaysWhatWasWrong(t *testing.T) {
	e := newExplained(t, func(c *server.Config) {
		c.ResourceServers = []server.ResourceServer{{ID: "api", Identifier: "https://api.test/v1",
			Secret: strings.Repeat("x", 32)},
			{Identifier: "https://rsa.test", AccessTokenAlg: oauth.AlgRS256}}
		c.Registration = &server.Registration{}
	})
	e.clock.begin()
	public := e.as(e.register("public", func(c *storage.Client) { c.Public = true }))
	e.register("speaks", func(c *storage.Client) { c.ResourceIdentifiers = []string{"https://speaks.test/"} })
	own := e.itself(e.registration(`{"redirect_uris":["` + callback + `"]}`))
	typo := e.client.ID[:len(e.client.ID)-1] + "_"
	token := func(form ...string) func() http.Header {
		values := url.Values{}
		for i := 0; i < len(form); i += 2 {
			values.Set(form[i], form[i+1])
		}
		return func() http.Header {
			got := e.call("/oauth/token", values)
			if strings.Contains(got.raw, e.client.ID) {
				t.Errorf("the reply tells what is near: %s", got.raw)
			}
			return got.header
		}
	}
	get := func(address string) func() http.Header {
		return func() http.Header { return e.browser().get(address).header }
	}
	register := func(members string) func() http.Header {
		return func() http.Header { return e.dynamic("POST", e.issuer+"/oauth/register", "", members).header }
	}
	for _, c := range []struct {
		name, rule, nearest, key, said string
		do                             func() http.Header
	}{
		{"a client id that is almost right", oauth.RuleClientUnknown, e.client.ID, "", "",
			token("client_id", typo, "client_secret", "x", "grant_type", "refresh_token", "refresh_token", "x")},
		{"in a browser", oauth.RuleClientUnknown, e.client.ID, "", "", get(e.authorizeURL("client_id", typo))},
		{"a resource server of the configuration", oauth.RuleResourceUnknown, "https://api.test/v1", "oauth2.resourceServers",
			"", get(e.authorizeURL("resource", "https://api.test/v2"))},
		{"resource servers with different forms", oauth.RuleResourceForms, "https://api.test/v1", "", "https://rsa.test",
			func() http.Header {
				code := e.browser().codeFor(e.withResources("threads:read", "https://api.test/v1", "https://rsa.test"))
				return e.asking(url.Values{"grant_type": {"authorization_code"}, "code": {code}}).header
			}},
		{"a resource server that is a client", oauth.RuleResourceUnknown, "https://speaks.test/", "oauth2.resourceServers",
			"", get(e.authorizeURL("resource", "https://speaks.test/x"))},
		{"logout of no client", oauth.RuleClientUnknown, "", "", "'nosuch'", get(e.issuer +
			"/oauth/logout?client_id=nosuch")},
		{"introspection by a public client", oauth.RuleIntrospectionPublic, "", "spec.oauth.public", "", func() http.Header {
			return e.machine("/oauth/introspect", url.Values{"client_id": {public.client.ID}, "token": {"x"}}).header
		}},
		{"a secret of a public client", oauth.RuleClientAuthMethod, "none", "spec.oauth.public", "",
			token("client_id", public.client.ID, "client_secret", "x", "grant_type", "authorization_code", "code", "x")},
		{"a resource server's secret", oauth.RuleResourceServerSecret, "", "oauth2.resourceServers", "", func() http.Header {
			return e.machine("/oauth/introspect", url.Values{"client_id": {"api"}, "client_secret": {"x"},
				"token": {"x"}}).header
		}},
		{"a grant type that there is nowhere", oauth.RuleGrantTypeUnknown, "", "", "", token("grant_type", "password")},
		{"a slip in a grant type", oauth.RuleGrantTypeUnknown, "refresh_token", "", "", token("grant_type", "refresh-token")},
		{"a grant type without its namespace", oauth.RuleGrantTypeUnknown, oauth.GrantDeviceCode, "", "",
			token("grant_type", "device_code")},
		{"a grant type that is off", oauth.RuleGrantTypeOff, "", "oauth2.grantTypes", "",
			token("grant_type", oauth.GrantTokenExchange)},
		{"a refresh token of an earlier client", oauth.RuleClientReturned, "", "", "", func() http.Header {
			got := e.tokens().text("refresh_token")
			e.call("/oauth/revoke", url.Values{"token": {got}})
			e.clock.forward(time.Minute)
			e.update(e.client.App, func(c *storage.Client) { c.Returned = e.clock.now() })
			return e.refresh(got).header
		}},
		{"a registration access token", oauth.RuleRegistrationAccessToken, "", "", "", func() http.Header {
			return e.dynamic("GET", e.issuer+"/oauth/register/"+own.client.ID, "x", "").header
		}},
		{"a scope that this server does not have", oauth.RuleScopeCeiling, "", "oauth2.registration.scopes",
			"not a scope that this server has for clients", get(own.authorizeURL("scope", "x"))},
		{"a redirect URI of a registration", oauth.RuleRedirectURIUnregistered, callback, "redirect_uris",
			"add it to redirect_uris of the client's registration",
			get(own.authorizeURL("redirect_uri", callback+"/"))},
		{"a registration that is no object", oauth.RuleBodyMalformed, "", "", "the body must be a JSON object",
			register("[]")},
		{"all faults at once", "redirect-uri-loopback", "https://app.test/", "redirect_uris[0]", "; logo_uri must be",
			register(`{"logo_uri":"x","redirect_uris":["http://app.test/"]}`)},
		{"keys of which none can be used", "key-type", "P-256", "jwks.keys[0].crv", "jwks.keys[1].kid", register(
			`{"redirect_uris":["` + callback +
				`"],"token_endpoint_auth_method":"private_key_jwt","jwks":{"keys":[{"kty":"EC","crv":"P-384","x":"AA","y":"AA"},` +
				`{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":1}]}}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t, e.idp.t = t, t
			of := e.of(c.do())
			why := of.Reasons[0]
			if why.Rule != c.rule || why.Nearest != c.nearest || why.Key != c.key || !strings.Contains(why.Said, c.said) {
				t.Errorf("%+v", why)
			}
			if of.App == "" && strings.Contains(why.Said+why.Meaning+why.Remedy, "app.yml") {
				t.Errorf("there is no manifest: %+v", why)
			}
		})
	}
	e.t, e.idp.t = t, t
}

// What is shown again with a word of warning, and what has no error code, is explained as well.
func TestExplainOfPages(t *testing.T) {
	e := newExplained(t)
	e.clock.stop()
	b := e.browser()
	got := b.get(e.authorizeURL())
	action, form := b.form(got, "password")
	form.Set("login", userEmail)
	form.Set("password", "canary-password")
	wrong := b.post(action, form)
	locked := b.post(action, form)
	for n := 0; locked.status != http.StatusTooManyRequests && n < 100; n++ {
		locked = b.post(action, form)
	}
	put := e.send(e.request("PUT", e.issuer+"/oauth/authorize", ""))
	missing := e.send(e.request("GET", e.issuer+"/oauth/userinfo", ""))
	nowhere := e.send(e.request("GET", e.issuer+"/no/such/page", "", "Accept", "text/html"))
	foreign := b.do(e.request("POST", action, "", "Content-Type", formType, "Sec-Fetch-Site", "cross-site"))
	for _, c := range []struct {
		header     http.Header
		rule, code string
	}{
		{wrong.header, oauth.RuleSignInWrong, ""}, {locked.header, oauth.RuleSignInLocked, ""},
		{put.header, oauth.RuleMethodNotAllowed, "invalid_request"}, {missing.header, oauth.RuleAccessTokenMissing, ""},
		{nowhere.header, oauth.RulePathUnknown, "invalid_request"}, {foreign.header, oauth.RuleFormForeign,
			"invalid_request"},
	} {
		if got := e.of(c.header); got.Reasons[0].Rule != c.rule || got.Error != c.code {
			t.Errorf("%s, not %s: %+v", c.rule, c.code, got)
		}
	}
	for _, said := range e.said {
		if strings.Contains(said, "canary") || strings.Contains(said, userEmail) {
			t.Error(said)
		}
	}
}
