package server_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// FuzzAssertion sends assertions: as they are, or as the payload of one that the client has signed. No fault of ours,
// no token.
func FuzzAssertion(f *testing.F) {
	p := newFuzzed(f)
	k := p.keyed("key-app", "ES256")
	claims := `{"iss":"` + k.client.ID + `","sub":"` + k.client.ID + `","aud":"` + p.issuer + `","jti":"j","exp":`
	for _, signed := range []bool{true, false} {
		for _, seed := range []string{
			"", "a.b.c", "..", "{}", "[]", "null", claims + "1}", claims + "1e300}", claims + "-1}", claims + `"x"}`, claims +
				"null}", claims + `1,"exp":2}`,
			strings.Replace(claims, `"aud":"`, `"aud":["x","`, 1) + `1}`, strings.Replace(claims, p.issuer, "\\ud800", 1) +
				"9999999999}",
			`{"sub":"` + k.client.ID + `"}`, `{"sub":"my-app"}`, `{"sub":{"a":[]}}`, "\xff\x00", strings.Repeat("[", 5000),
			`{"aud":[[[[]]]],"sub":"` + k.client.ID + `"}`,
			"eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsiLCJjcml0IjpbImV4cCJdfQ.e30.AAAA",
			k.assertion("EdDSA", nil),
		} {
			f.Add(seed, signed, "")
			f.Add(seed, signed, k.client.ID)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: testKeys()["ES256"],
		KeyID: "k"}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, assertion string, signed bool, clientID string) {
		if signed {
			object, err := signer.Sign([]byte(assertion))
			if err != nil {
				t.Fatal(err)
			}
			if assertion, err = object.CompactSerialize(); err != nil {
				t.Fatal(err)
			}
		}
		form := url.Values{"client_assertion": {assertion}, "client_assertion_type": {jwtBearer},
			"grant_type": {"client_credentials"}, "scope": {"threads:read"}, "token": {"x"}}
		if clientID != "" {
			form.Set("client_id", clientID)
		}
		for _, path := range []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke"} {
			req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", formType)
			got := p.serveOnce(req)
			if faults := p.log.faults(); faults != "" || got.Code >= 500 && got.Code != http.StatusServiceUnavailable {
				t.Errorf("%s: %d %s\n%s", path, got.Code, got.Body, faults)
			}
			if got.Code == http.StatusOK || anyToken.MatchString(got.Body.String()) {
				t.Errorf("%s: %d %s", path, got.Code, got.Body)
			}
		}
	})
}
