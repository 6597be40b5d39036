package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

func TestPKCE(t *testing.T) {
	p := newIDP(t)
	challenge := challengeOf(verifier)
	with := func(p *idp) string { return p.code("code_challenge", challenge, "code_challenge_method", "S256") }
	public := p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))

	t.Run("the right verifier", func(t *testing.T) {
		p := p.at(t)
		if got := p.exchange(with(p), "code_verifier", verifier); got.status != http.StatusOK {
			t.Errorf("%d %s", got.status, got.raw)
		}
		public := public.at(t)
		got := public.exchange(with(public), "code_verifier", verifier, "client_id", public.client.ID)
		if got.status != http.StatusOK {
			t.Errorf("public: %d %s", got.status, got.raw)
		}
		if again := public.refresh(got.text("refresh_token"), "client_id", public.client.ID); again.status != http.StatusOK {
			t.Errorf("refresh of a public client: %d %s", again.status, again.raw)
		}
	})
	t.Run("challenge dropped at the exchange", func(t *testing.T) {
		p := p.at(t)
		code := with(p)
		p.exchange(code).wants(t, "no verifier", http.StatusBadRequest, "invalid_grant")
		p.exchange(code, "code_verifier", "").wants(t, "an empty verifier", http.StatusBadRequest, "invalid_grant")
	})
	t.Run("challenge dropped at the authorization", func(t *testing.T) {
		p := p.at(t)
		p.exchange(p.code(), "code_verifier", verifier).wants(t, "verifier without challenge", http.StatusBadRequest,
			"invalid_grant")
	})
	t.Run("wrong verifiers do not burn the code", func(t *testing.T) {
		p := p.at(t)
		code := with(p)
		for rule, wrong := range map[string]string{
			"another one": strings.Repeat("x", 43), "42 characters": verifier[:42], "129 characters": strings.Repeat("x", 129),
			"the challenge itself": challenge, "more at its end": verifier + "A", "not unreserved": verifier[:42] +
				"!", "space": verifier + " ",
		} {
			p.exchange(code, "code_verifier", wrong).wants(t, rule, http.StatusBadRequest, "invalid_grant")
		}
		if got := p.exchange(code, "code_verifier", verifier); got.status != http.StatusOK {
			t.Errorf("the right one afterwards: %d %s", got.status, got.raw)
		}
	})
	t.Run("a verifier of the wrong length fits no challenge", func(t *testing.T) {
		p := p.at(t)
		for _, length := range []int{42, 129} {
			own := strings.Repeat("v", length)
			code := p.code("code_challenge", challengeOf(own), "code_challenge_method", "S256")
			p.exchange(code, "code_verifier", own).wants(t, "its own challenge", http.StatusBadRequest, "invalid_grant")
		}
		for _, length := range []int{43, 128} {
			own := strings.Repeat("v", length)
			code := p.code("code_challenge", challengeOf(own), "code_challenge_method", "S256")
			if got := p.exchange(code, "code_verifier", own); got.status != http.StatusOK {
				t.Errorf("%d characters: %d %s", length, got.status, got.raw)
			}
		}
	})
	t.Run("challenges that are refused", func(t *testing.T) {
		p := p.at(t)
		for rule, change := range map[string][]string{
			"plain":                      {"code_challenge", verifier, "code_challenge_method", "plain"},
			"no method, which is plain":  {"code_challenge", challenge},
			"unknown method":             {"code_challenge", challenge, "code_challenge_method", "S512"},
			"method in lower case":       {"code_challenge", challenge, "code_challenge_method", "s256"},
			"method without a challenge": {"code_challenge_method", "S256"},
			"42 characters":              {"code_challenge", challenge[:42], "code_challenge_method", "S256"},
			"129 characters":             {"code_challenge", strings.Repeat("c", 129), "code_challenge_method", "S256"},
			"padded":                     {"code_challenge", challenge[:42] + "=", "code_challenge_method", "S256"},
		} {
			p.redirected(p.browser().get(p.authorizeURL(change...)), rule, "invalid_request")
		}
	})
	t.Run("a public client must", func(t *testing.T) {
		public := public.at(t)
		public.redirected(public.browser().get(public.authorizeURL()), "no challenge", "invalid_request")
		code := with(public)
		public.exchange(code, "client_id", public.client.ID).wants(t, "no verifier", http.StatusBadRequest, "invalid_grant")
	})
	t.Run("the challenge of another request", func(t *testing.T) {
		p := p.at(t)
		other := strings.Repeat("o", 50)
		mine := p.code("code_challenge", challengeOf(other), "code_challenge_method", "S256")
		theirs := with(p)
		p.exchange(theirs, "code_verifier", other).wants(t, "a code with another code's verifier", http.StatusBadRequest,
			"invalid_grant")
		p.exchange(mine, "code_verifier", verifier).wants(t, "and the other way round", http.StatusBadRequest,
			"invalid_grant")
	})
}

// A client that talks to several servers learns from iss who answers (RFC 9207), in success and in error.
func TestMixUpIss(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	got := b.follow(b.signIn(b.get(p.authorizeURL()), userEmail, userPassword))
	p.redirected(b.decide(got, "deny"), "denied", "access_denied")
	got = b.decide(got, "allow")
	if b.answered(got, "allowed"); got.location.Query().Get("iss") != p.issuer {
		t.Errorf("answered to %s", got.location)
	}
	p.redirected(b.get(p.authorizeURL("response_type", "token")), "unsupported", "unsupported_response_type")
}

// The issuer is what the configuration says, whatever a request says about the host that it was sent to.
func TestForwardedHostChangesNothing(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	b.code()
	forged := []string{
		"X-Forwarded-Host", "evil.test", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", "/evil", "X-Forwarded-For",
		"127.0.0.1",
		"Forwarded", "host=evil.test;proto=https", "X-Original-URL", "/oauth/jwks", "X-Rewrite-URL", "/oauth/jwks",
		"X-Host", "evil.test",
		"X-HTTP-Method-Override", "DELETE",
	}
	plain := p.send(p.request(http.MethodGet, p.issuer+"/.well-known/openid-configuration", ""))
	req := p.request(http.MethodGet, p.issuer+"/.well-known/openid-configuration", "", forged...)
	req.Host = "evil.test"
	if got := p.send(req); got.raw != plain.raw || strings.Contains(got.raw, "evil") {
		t.Errorf("discovery: %s", got.raw)
	}
	for rule, address := range map[string]string{"answer": p.authorizeURL(), "error": p.authorizeURL("scope", "x")} {
		req := p.request(http.MethodGet, address, "", forged...)
		for _, c := range b.http.Jar.Cookies(req.URL) {
			req.AddCookie(c)
		}
		req.Host = "evil.test"
		got := b.do(req)
		if got.location == nil || got.location.Query().Get("iss") != p.issuer ||
			!strings.HasPrefix(got.location.String(), callback) {
			t.Errorf("%s: redirected to %v", rule, got.location)
		}
	}
	req = p.request(http.MethodGet, p.authorizeURL(), "", forged...)
	req.Host = "evil.test"
	if got := p.browser().do(req); got.asks() != "password" || strings.Contains(got.body, "evil") {
		t.Errorf("the page: %d %s", got.status, got.body)
	}
	if issued := p.exchange(b.code()); !strings.HasPrefix(claimsOf(t, issued.text("access_token"))["iss"].(string),
		p.issuer) {
		t.Error("the issuer of a token")
	}
}
