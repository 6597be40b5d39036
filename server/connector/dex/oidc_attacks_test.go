package dex

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Each is an answer that is not to be believed.
func TestOIDCRefuses(t *testing.T) {
	t.Parallel()
	another, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	none := func(p *provider) string {
		payload := strings.Split(p.idToken(""), ".")[1]
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + payload + "."
	}
	claim := func(name string, value any) func(*provider) {
		return func(p *provider) { p.claims = map[string]any{name: value} }
	}
	userinfo := func(name string, value any) func(*provider) {
		return func(p *provider) { p.userinfo = map[string]any{name: value} }
	}
	answer := func(changes map[string]string) func(*provider) {
		return func(p *provider) { p.answer = changes }
	}
	config := map[string]any{"getUserInfo": true}
	for name, c := range map[string]struct {
		change func(p *provider)
		reason string
	}{
		"mix-up: an answer of another issuer": {answer(map[string]string{"iss": "https://attacker.example"}), "(iss)"},
		"mix-up: an error of another issuer": {answer(map[string]string{
			"iss": "https://attacker.example", "error": "access_denied", "code": "",
		}), "(iss)"},
		"mix-up: no issuer, although the metadata promises it": {func(p *provider) {
			p.metadata = map[string]any{"authorization_response_iss_parameter_supported": true}
		}, "(iss)"},
		"no code":                         {answer(map[string]string{"code": ""}), "no code"},
		"a code that another sign-in got": {answer(map[string]string{"code": "x"}), "invalid_grant"},
		"no ID token": {func(p *provider) {
			p.response = map[string]any{"id_token": nil}
		}, "no ID token"},
		"no nonce":                             {claim("nonce", nil), "nonce"},
		"the nonce of another sign-in":         {claim("nonce", rand.Text()), "nonce"},
		"an ID token for another client":       {claim("aud", "another"), "audience"},
		"an ID token for several, without azp": {claim("aud", []string{clientID, "x"}), "(azp)"},
		"an ID token issued to another client": {claim("azp", "another"), "(azp)"},
		"an ID token of another issuer":        {claim("iss", "https://x.example"), "provider"},
		"an ID token that has expired":         {claim("exp", 1), "expired"},
		"an ID token of no time":               {claim("iat", nil), "(iat)"},
		"an ID token of the future":            {claim("nbf", time.Now().Add(time.Hour).Unix()), "nbf"},
		"an ID token about nobody":             {claim("sub", nil), "names no user"},
		"an ID token of another access token":  {claim("at_hash", "AAAA"), "at_hash"},
		"an ID token without a signature":      {func(p *provider) { p.raw = none(p) }, "algorithm"},
		"an ID token signed with the secret":   {func(p *provider) { p.alg = jose.HS256 }, "algorithm"},
		"an algorithm that is not advertised":  {func(p *provider) { p.alg = jose.PS256 }, "algorithm"},
		"a nonce that is a list":               {claim("nonce", []string{"a"}), "nonce"},
		"a signature by a key that is not in the set": {func(p *provider) {
			p.raw = (&provider{Server: p.Server, key: another, kid: "1", alg: jose.RS256}).idToken("")
		}, "signature"},
		"no JWT":                                 {func(p *provider) { p.raw = "garbage" }, "not valid"},
		"userinfo about another person":          {userinfo("sub", "eve"), "(sub)"},
		"userinfo about nobody":                  {userinfo("sub", nil), "(sub)"},
		"a claim that is missing":                {claim("name", nil), "name"},
		"an e-mail of which nothing is verified": {claim("email_verified", nil), "email_verified"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			p.set(func() { c.change(p) })
			_, err := signIn(t, open(t, oidcSpec(t, p, config)), ask())
			if verdict := refused(t, err); !strings.Contains(verdict.Reason, c.reason) || verdict.Cancelled {
				t.Errorf("%+v", verdict)
			}
		})
	}
}

// An ID token that was valid for one question is not for the next: a nonce is not replayed.
func TestOIDCRefusesAReplayedIDToken(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, nil))
	first := ask()
	p.set(func() { p.raw = p.idToken(first.Nonce) })
	if _, err := signIn(t, c, first); err != nil {
		t.Fatal(err)
	}
	_, err := signIn(t, c, ask())
	if verdict := refused(t, err); !strings.Contains(verdict.Reason, "nonce") {
		t.Error(verdict)
	}
}

// A code that somebody else got is not exchanged: the verifier is in the browser that began.
func TestOIDCRefusesTheCodeOfAnotherBrowser(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, nil))
	mine, theirs := ask(), ask()
	awayMine, err := c.Start(context.Background(), mine)
	if err != nil {
		t.Fatal(err)
	}
	awayTheirs, err := c.Start(context.Background(), theirs)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Finish(context.Background(), mine, awayMine.Keep, callbackOf(t, awayTheirs.URL))
	_ = refused(t, err)
	twice := httptest.NewRequest(http.MethodGet, callback+"?code=a&code=b", nil)
	_, err = c.Finish(context.Background(), mine, awayMine.Keep, twice)
	if verdict := refused(t, err); !strings.Contains(verdict.Reason, "more than once") {
		t.Error(verdict)
	}
}

func TestOIDCErrorsOfTheAuthorizationEndpoint(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, nil))
	with := func(code string) error {
		p.set(func() {
			p.answer = map[string]string{"code": "", "error": code, "error_description": "Ada Lovelace may not"}
		})
		_, err := signIn(t, c, ask())
		if err == nil || strings.Contains(err.Error(), "Ada") {
			t.Errorf("%s: %v", code, err)
		}
		return err
	}
	if verdict := refused(t, with("access_denied")); !verdict.Cancelled {
		t.Error("access_denied: not cancelled")
	}
	if verdict := refused(t, with("login_required")); verdict.Cancelled {
		t.Error("login_required: cancelled")
	}
	faulty(t, with("server_error"))
	faulty(t, with("invalid_scope"))
}

// A provider that lets somebody in without asking, although it was to ask, is found out where it says so.
func TestOIDCFreshness(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	c := open(t, oidcSpec(t, p, nil))
	fresh := ask()
	fresh.Fresh = true
	for _, ago := range []time.Duration{time.Hour, 10 * time.Second} {
		p.set(func() { p.claims = map[string]any{"auth_time": time.Now().Add(-ago).Unix()} })
		_, err := signIn(t, c, fresh)
		if verdict := refused(t, err); !strings.Contains(verdict.Reason, "auth_time") {
			t.Error(ago, verdict)
		}
	}
	if _, err := signIn(t, c, ask()); err != nil {
		t.Error(err)
	}
	for _, clock := range []time.Duration{0, -time.Minute, time.Minute} { // the provider's
		now := time.Now().Add(clock).Unix()
		p.set(func() { p.claims = map[string]any{"auth_time": now, "iat": now} })
		if _, err := signIn(t, c, fresh); err != nil {
			t.Error(clock, err)
		}
	}
}
