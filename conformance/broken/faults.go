package broken

import (
	"encoding/base64"
	"encoding/json"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Faults are all that is known to go wrong, by name.
func Faults() map[string]Fault {
	all := map[string]Fault{}
	for _, group := range [][]Fault{idTokenFaults(), tokenFaults(), requestFaults(), responseFaults(), userinfoFaults(),
		metadataFaults(), logoutFaults(), registrationFaults()} {
		for _, f := range group {
			all[f.Name] = f
		}
	}
	return all
}

// token changes successful answers of the token endpoint, and publishes the proxy's key.
func token(name string, change func(p *Provider, r *http.Request, answer map[string]any)) Fault {
	return Fault{Name: name, tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
		switch {
		case p.at(r, "jwks_uri"):
			return p.publish(p.publish(body, p.key.Public()), p.curve.Public())
		case p.at(r, "token_endpoint") && resp.StatusCode == http.StatusOK:
			return object(body, func(answer map[string]any) { change(p, r, answer) })
		}
		return body
	}}
}

// refreshed is the ID token of the sign-in, where an answer is that to a refresh: an ID token without a nonce, or none.
func (p *Provider) refreshed(answer map[string]any) (first string, ok bool) {
	if raw, is := answer["id_token"].(string); is && claimsOf(raw)["nonce"] != nil {
		p.keep("id", raw)
		return "", false
	}
	return p.recall("id")
}

func (p *Provider) publish(body []byte, key jose.JSONWebKey) []byte {
	return object(body, func(set map[string]any) {
		keys, _ := set["keys"].([]any)
		set["keys"] = append(keys, key)
	})
}

// claim changes the claims of ID tokens.
func claim(name string, change func(claims map[string]any)) Fault {
	return token(name, func(p *Provider, _ *http.Request, answer map[string]any) {
		if raw, ok := answer["id_token"].(string); ok {
			claims := claimsOf(raw)
			change(claims)
			answer["id_token"] = p.signed(p.own(), claims)
		}
	})
}

// drop takes a claim out; put sets it.
func drop(name string) func(map[string]any) { return func(m map[string]any) { delete(m, name) } }

func put(name string, value any) func(map[string]any) {
	return func(m map[string]any) { m[name] = value }
}

func idTokenFaults() []Fault {
	return []Fault{
		{Name: "none"},
		claim("signed-anew", func(map[string]any) {}), // nothing is wrong with that
		claim("nonce-other", put("nonce", "another")),
		claim("nonce-missing", drop("nonce")),
		claim("nonce-unasked", put("nonce", "unasked")),
		claim("aud-other", put("aud", []string{"another-client"})),
		claim("aud-more-without-azp", func(c map[string]any) {
			c["aud"] = []any{c["aud"], "another-client"}
			flatten(c)
			delete(c, "azp")
		}),
		claim("iss-other", put("iss", "https://another.example.com")),
		claim("sub-missing", drop("sub")),
		claim("exp-past", put("exp", time.Now().Add(-time.Hour).Unix())),
		claim("exp-missing", drop("exp")),
		claim("exp-milliseconds", func(c map[string]any) { c["exp"] = time.Now().Add(time.Hour).UnixMilli() }),
		claim("iat-missing", drop("iat")),
		claim("iat-past", func(c map[string]any) { c["iat"] = time.Now().Add(-time.Hour).Unix() }),
		claim("auth-time-missing", drop("auth_time")),
		claim("auth-time-random", func(c map[string]any) { c["auth_time"] = time.Now().Unix() - mathrand.Int64N(1e6) }),
		claim("at-hash-other", put("at_hash", "AAAAAAAAAAAAAAAAAAAAAA")),
		claim("name-unasked", put("name", "Ann Example")),
		claim("email-verified-text", put("email_verified", "true")),
		token("signature-other", func(_ *Provider, _ *http.Request, answer map[string]any) {
			raw, _ := answer["id_token"].(string)
			if head, signature, ok := cutLast(raw); ok {
				bytes, err := base64.RawURLEncoding.DecodeString(signature)
				if err == nil && len(bytes) > 0 {
					bytes[0] ^= 1
					answer["id_token"] = head + "." + base64.RawURLEncoding.EncodeToString(bytes)
				}
			}
		}),
		token("alg-none", func(_ *Provider, _ *http.Request, answer map[string]any) {
			raw, _ := answer["id_token"].(string)
			if parts := strings.Split(raw, "."); len(parts) == 3 {
				answer["id_token"] = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
			}
		}),
		token("alg-hs256", func(p *Provider, r *http.Request, answer map[string]any) {
			raw, _ := answer["id_token"].(string)
			_, secret, _ := r.BasicAuth()
			answer["id_token"] = p.signed(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret)}, claimsOf(raw))
		}),
		token("alg-es256", func(p *Provider, _ *http.Request, answer map[string]any) {
			raw, _ := answer["id_token"].(string)
			answer["id_token"] = p.signed(jose.SigningKey{Algorithm: jose.ES256, Key: p.curve}, claimsOf(raw))
		}),
		token("kid-missing", func(p *Provider, _ *http.Request, answer map[string]any) {
			raw, _ := answer["id_token"].(string)
			answer["id_token"] = p.signed(jose.SigningKey{Algorithm: jose.RS256, Key: p.key.Key}, claimsOf(raw))
		}),
		token("kid-unknown", func(p *Provider, _ *http.Request, answer map[string]any) {
			raw, _ := answer["id_token"].(string)
			stray := p.key
			stray.KeyID = "nowhere"
			answer["id_token"] = p.signed(jose.SigningKey{Algorithm: jose.RS256, Key: stray}, claimsOf(raw))
		}),
	}
}

// flatten makes one list of an audience that was a list already.
func flatten(c map[string]any) {
	var all []any
	for _, v := range c["aud"].([]any) {
		if inner, ok := v.([]any); ok {
			all = append(all, inner...)
		} else {
			all = append(all, v)
		}
	}
	c["aud"] = all
}

func cutLast(raw string) (head, signature string, ok bool) {
	at := strings.LastIndex(raw, ".")
	if at < 0 {
		return "", "", false
	}
	return raw[:at], raw[at+1:], true
}

func tokenFaults() []Fault {
	member := func(name, member string, value any) Fault {
		return token(name, func(_ *Provider, _ *http.Request, answer map[string]any) {
			answer[member] = value
			if value == nil {
				delete(answer, member)
			}
		})
	}
	return []Fault{
		member("id-token-missing", "id_token", nil),
		member("access-token-missing", "access_token", nil),
		member("token-type-other", "token_type", "mac"),
		member("expires-in-text", "expires_in", "3600"),
		member("expires-in-missing", "expires_in", nil),
		{Name: "token-stored", tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
			if p.at(r, "token_endpoint") {
				resp.Header.Del("Cache-Control")
				resp.Header.Del("Pragma")
			}
			return body
		}},
		{Name: "code-twice", ask: keepForm, tell: func(p *Provider, r *http.Request, resp *http.Response,
			body []byte) []byte {
			code := r.Header.Get(codeHeader)
			if !p.at(r, "token_endpoint") || code == "" {
				return body
			}
			if resp.StatusCode == http.StatusOK {
				p.keep(code, string(body))
				return body
			}
			return again(p, resp, body, code)
		}},
		{Name: "code-twice-other-error", tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
			if p.at(r, "token_endpoint") && resp.StatusCode != http.StatusOK {
				return object(body, put("error", "invalid_request"))
			}
			return body
		}},
		{Name: "code-twice-server-error", tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
			if p.at(r, "token_endpoint") && resp.StatusCode != http.StatusOK {
				resp.StatusCode = http.StatusInternalServerError
			}
			return body
		}},
		{Name: "refresh-by-anybody", tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
			if p.at(r, "token_endpoint") && resp.StatusCode != http.StatusOK {
				resp.StatusCode = http.StatusOK
				return []byte(`{"access_token":"stolen","token_type":"Bearer","expires_in":3600}`)
			}
			return body
		}},
		token("refresh-same-id-token", func(p *Provider, _ *http.Request, answer map[string]any) {
			if first, refreshed := p.refreshed(answer); refreshed {
				answer["id_token"] = first
			}
		}),
		token("refresh-other-sub", func(p *Provider, _ *http.Request, answer map[string]any) {
			if first, refreshed := p.refreshed(answer); refreshed {
				claims := claimsOf(first)
				claims["sub"], claims["iat"] = "somebody-else", time.Now().Unix()
				answer["id_token"] = p.signed(p.own(), claims)
			}
		}),
		{Name: "secret-post-refused", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			return p.at(r, "token_endpoint") && form(r).Has("client_secret") &&
				fails(w, http.StatusUnauthorized, "invalid_client")
		}},
		{Name: "pkce-refused", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			return p.at(r, "token_endpoint") && form(r).Has("code_verifier") &&
				fails(w, http.StatusBadRequest, "invalid_request")
		}},
	}
}

// codeHeader carries the code of an exchange to where its answer is changed; nobody else reads it.
const codeHeader = "Broken-Code"

func keepForm(p *Provider, r *http.Request) {
	if p.at(r, "token_endpoint") {
		r.Header.Set(codeHeader, form(r).Get("code"))
	}
}

// again gives the first answer for a code once more.
func again(p *Provider, resp *http.Response, body []byte, code string) []byte {
	first, ok := p.recall(code)
	if !ok {
		return body
	}
	resp.StatusCode = http.StatusOK
	return []byte(first)
}

func fails(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code})
	return true
}
