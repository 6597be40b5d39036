package broken

import (
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// userinfo changes successful answers of the userinfo endpoint.
func userinfo(name string, change func(map[string]any)) Fault {
	return Fault{Name: name, tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
		if p.at(r, "userinfo_endpoint") && resp.StatusCode == http.StatusOK {
			return object(body, change)
		}
		return body
	}}
}

func userinfoFaults() []Fault {
	return []Fault{
		userinfo("userinfo-sub-other", put("sub", "somebody-else")),
		userinfo("userinfo-sub-missing", drop("sub")),
		userinfo("userinfo-email-missing", drop("email")),
		userinfo("userinfo-name-missing", drop("name")),
		userinfo("userinfo-email-verified-text", put("email_verified", "true")),
		userinfo("userinfo-updated-at-text", put("updated_at", "2026-01-01")),
		userinfo("userinfo-updated-at-milliseconds", put("updated_at", time.Now().UnixMilli())),
		userinfo("userinfo-phone-empty", put("phone_number", "")),
		userinfo("userinfo-address-text", put("address", "Somewhere")),
		signedUserinfo("userinfo-signed-badly", func(_ *Provider, raw string) string {
			head, signature, _ := cutLast(raw)
			bytes, err := base64.RawURLEncoding.DecodeString(signature)
			if err != nil || len(bytes) == 0 {
				return raw
			}
			bytes[0] ^= 1
			return head + "." + base64.RawURLEncoding.EncodeToString(bytes)
		}),
		signedUserinfo("userinfo-signed-with-es256", func(p *Provider, raw string) string {
			return p.signed(jose.SigningKey{Algorithm: jose.ES256, Key: p.curve}, claimsOf(raw))
		}),
		signedUserinfo("userinfo-signed-for-others", func(p *Provider, raw string) string {
			claims := claimsOf(raw)
			claims["aud"] = "another-client"
			return p.signed(p.own(), claims)
		}),
		signedUserinfo("userinfo-signed-with-nonce", func(p *Provider, raw string) string {
			claims := claimsOf(raw)
			claims["nonce"] = "unasked"
			return p.signed(p.own(), claims)
		}),
		{Name: "userinfo-untyped", tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
			if p.at(r, "userinfo_endpoint") {
				resp.Header.Set("Content-Type", "text/plain")
			}
			return body
		}},
		{Name: "userinfo-by-get-only", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			return p.at(r, "userinfo_endpoint") && r.Method != http.MethodGet &&
				fails(w, http.StatusMethodNotAllowed, "invalid_request")
		}},
		{Name: "token-outlives-code", tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
			if !p.at(r, "userinfo_endpoint") {
				return body
			}
			if resp.StatusCode == http.StatusOK {
				p.keep(r.Header.Get("Authorization"), string(body))
				return body
			}
			if first, ok := p.recall(r.Header.Get("Authorization")); ok {
				resp.StatusCode = http.StatusOK
				return []byte(first)
			}
			return body
		}},
	}
}

// signedUserinfo changes signed answers of the userinfo endpoint.
func signedUserinfo(name string, change func(p *Provider, raw string) string) Fault {
	return Fault{Name: name, tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
		switch {
		case p.at(r, "jwks_uri"):
			return p.publish(p.publish(body, p.key.Public()), p.curve.Public())
		case p.at(r, "userinfo_endpoint") && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/jwt"):
			return []byte(change(p, string(body)))
		}
		return body
	}}
}
