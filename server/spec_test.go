package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The flow that app developers were promised, as their page writes it: no state, no PKCE, no redirect_uri in the
// exchange, JSON bodies.
func TestPromisedFlow(t *testing.T) {
	p := newIDP(t)
	code := p.code("state", "")
	exchange := p.json("/oauth/token", `{"grant_type":"authorization_code","code":"`+code+`","client_id":"`+p.client.ID+
		`","client_secret":"`+p.secret+`"}`)
	if exchange.status != http.StatusOK {
		t.Fatalf("exchange: %d %s", exchange.status, exchange.raw)
	}
	if exchange.text("token_type") != "Bearer" || exchange.json["expires_in"] != 3600.0 ||
		exchange.text("scope") != "threads:read" {
		t.Errorf("token reply: %s", exchange.raw)
	}
	if _, has := exchange.json["id_token"]; has {
		t.Error("an ID token without openid")
	}
	if exchange.header.Get("Cache-Control") != "no-store" {
		t.Error("the token reply may be cached")
	}
	refreshed := p.json("/oauth/token", `{"grant_type":"refresh_token","refresh_token":"`+exchange.text("refresh_token")+
		`","client_id":"`+p.client.ID+`","client_secret":"`+p.secret+`"}`)
	if refreshed.status != http.StatusOK || refreshed.text("refresh_token") == exchange.text("refresh_token") ||
		refreshed.json["expires_in"] != 3600.0 {
		t.Fatalf("refresh: %d %s", refreshed.status, refreshed.raw)
	}
	again := p.refresh(exchange.text("refresh_token"))
	again.wants(t, "a refresh token is good once", http.StatusBadRequest, "invalid_grant")
}

func (p *idp) json(path, body string) reply {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, p.issuer+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	return p.send(req)
}

// Every row of the promised table of errors, at its place.
func TestPromisedErrors(t *testing.T) {
	p := newIDP(t)
	t.Run("invalid_client", func(t *testing.T) {
		got := p.exchange(p.code(), "client_id", p.client.ID, "client_secret", "wrong")
		got.wants(t, "wrong secret", http.StatusUnauthorized, "invalid_client")
		if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
			t.Error("no challenge")
		}
		page := p.browser().get(p.authorizeURL("client_id", "stranger"))
		if page.status != http.StatusBadRequest || !strings.Contains(page.body, "invalid_client") || page.location != nil {
			t.Errorf("unknown client at authorize: %d", page.status)
		}
	})
	t.Run("invalid_grant", func(t *testing.T) {
		p.exchange("garbage").wants(t, "invalid code", http.StatusBadRequest, "invalid_grant")
		code := p.code()
		p.clock.forward(61 * time.Second)
		p.exchange(code).wants(t, "expired code", http.StatusBadRequest, "invalid_grant")
	})
	redirected := func(t *testing.T, got page, code string) {
		t.Helper()
		if got.location == nil || got.status != http.StatusSeeOther && got.status != http.StatusOK {
			t.Fatalf("not redirected: %d %s", got.status, got.body)
		}
		q := got.location.Query()
		if !strings.HasPrefix(got.location.String(), callback) || q.Get("error") != code ||
			q.Get("error_description") == "" ||
			q.Get("state") != "state-1" || q.Get("iss") != p.issuer || q.Has("code") {
			t.Errorf("redirected to %s", got.location)
		}
	}
	t.Run("invalid_scope", func(t *testing.T) {
		redirected(t, p.browser().get(p.authorizeURL("scope", "threads:read repos:write")), "invalid_scope")
		redirected(t, p.browser().get(p.authorizeURL("scope", "")), "invalid_scope")
		redirected(t, p.browser().get(p.authorizeURL("scope", "nonsense")), "invalid_scope")
	})
	t.Run("access_denied", func(t *testing.T) {
		b := p.browser()
		consent := b.follow(b.signIn(b.get(p.authorizeURL("scope", "runs:write")), userEmail, userPassword))
		redirected(t, b.decide(consent, "deny"), "access_denied")
	})
	t.Run("unauthorized_client", func(t *testing.T) {
		got := p.browser().get(p.authorizeURL("redirect_uri", "https://evil.test/callback"))
		if got.status != http.StatusBadRequest || got.location != nil || !strings.Contains(got.body, "unauthorized_client") {
			t.Errorf("%d to %v", got.status, got.location)
		}
		if !strings.Contains(got.body, got.header.Get("X-Request-Id")) || got.header.Get("X-Request-Id") == "" {
			t.Error("the page does not say its request id")
		}
	})
	for _, secret := range []string{p.secret, userPassword} {
		if strings.Contains(p.log.String(), secret) {
			t.Error("a secret was logged")
		}
	}
}

func TestConsentIsRemembered(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	got := b.get(p.authorizeURL())
	if got.location == nil || got.location.Query().Get("code") == "" {
		t.Fatalf("asked again for what was allowed: %d", got.status)
	}
	more := b.get(p.authorizeURL("scope", "threads:read runs:write"))
	if !strings.Contains(more.body, "Start runs") || !strings.Contains(more.body, `name="decision"`) {
		t.Fatalf("more scopes were not asked for: %d %s", more.status, more.body)
	}
	if got = b.decide(more, "allow"); got.location == nil || got.location.Query().Get("code") == "" {
		t.Fatalf("no code: %d", got.status)
	}
	// In another browser, the same user is not asked again.
	other := p.browser()
	got = other.follow(other.signIn(other.get(p.authorizeURL("scope", "runs:write")), userEmail, userPassword))
	if got.location == nil || got.location.Query().Get("code") == "" {
		t.Errorf("asked again in another browser: %d", got.status)
	}
}

func TestOpenID(t *testing.T) {
	p := newIDP(t)
	got := p.tokens("scope", "openid email", "nonce", "n-1")
	if got.text("id_token") == "" {
		t.Fatal("no ID token")
	}
	info := p.userinfo(got.text("access_token"))
	if info.status != http.StatusOK || info.text("sub") != "user-ann" || info.text("email") != userEmail ||
		info.json["email_verified"] != true {
		t.Errorf("userinfo: %d %s", info.status, info.raw)
	}
	if _, has := info.json["name"]; has {
		t.Error("the name without the scope profile")
	}
}

func (p *idp) userinfo(token string) reply {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodGet, p.issuer+"/oauth/userinfo", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return p.send(req)
}

func TestIntrospectionAndRevocation(t *testing.T) {
	p := newIDP(t)
	for _, kind := range []string{"access_token", "refresh_token"} {
		got := p.tokens("scope", "openid threads:read")
		if !p.active(got.text("access_token")) || !p.active(got.text("refresh_token")) {
			t.Fatal("fresh tokens are not active")
		}
		if revoked := p.call("/oauth/revoke", url.Values{"token": {got.text(kind)}}); revoked.status != http.StatusOK {
			t.Fatalf("revocation: %d %s", revoked.status, revoked.raw)
		}
		if p.active(got.text("access_token")) || p.active(got.text("refresh_token")) {
			t.Error("active after the revocation")
		}
		p.refresh(got.text("refresh_token")).wants(t, "revoked", http.StatusBadRequest, "invalid_grant")
		if info := p.userinfo(got.text("access_token")); info.status != http.StatusUnauthorized {
			t.Errorf("userinfo after the revocation: %d", info.status)
		}
	}
}
