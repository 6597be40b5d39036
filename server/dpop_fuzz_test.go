package server_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

// FuzzDPoP sends headers and claims of a proof, signed by the key of its jwk, and whole headers, to the endpoints that
// take proofs: no fault of ours, and no token for anything but a proof as it must be.
func FuzzDPoP(f *testing.F) {
	p := newFuzzed(f)
	d := p.informed()
	issued := d.tokens("openid")
	header, claims := d.parts(http.MethodPost, "/oauth/token")
	header["alg"] = "ES256"
	head, body := inJSON(f, header), inJSON(f, claims)
	for _, seed := range [][2]string{
		{head, `{}`}, {`{}`, body}, {`{"typ":"dpop+jwt","alg":"none"}`, body},
		{`{"typ":"dpop+jwt","alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`, body},
		{strings.Replace(head, `"kty":"EC"`, `"kty":"EC","d":"AAAA"`, 1), body}, {strings.Replace(head, "P-256", "P-521", 1),
			body}, {strings.Replace(head, `"alg"`, `"crit":["b64"],"b64":false,"alg"`, 1), body},
		{head, strings.Replace(body, `"htm":"POST"`, `"htm":"GET"`, 1)},
		{head, strings.Replace(body, `"iat":`, `"iat":-1e308,"x":`, 1)},
		{head, strings.Replace(body, `"htu":"http`, `"htu":"http:\u002f\u002f[::1`, 1)},
		{head, strings.Replace(body, `"nonce":"wfn_`, `"nonce":"wfr_`, 1)}, {head + head, body}, {"[]", "[]"}, {"", ""},
		{"\x00", "\xff"}, {`{"typ":"dpop+jwt","alg":"RS256","jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"}}`, body},
	} {
		f.Add(seed[0], seed[1], "")
	}
	for _, whole := range []string{"", "..", "a.b.c", "eyJ.eyJ.", strings.Repeat(".", 100), "\x00", "a, b"} {
		f.Add("", "", whole)
	}
	f.Fuzz(func(t *testing.T, header, claims, whole string) {
		proof := whole
		if proof == "" {
			proof = d.signRaw(header, claims)
		}
		for _, path := range []string{"/oauth/token", "/oauth/userinfo"} {
			form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {issued.text("refresh_token")},
				"resource": {"https://unknown.test"}, "client_id": {p.client.ID}, "client_secret": {p.secret}}
			req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", formType)
			req.Header["Dpop"] = []string{proof}
			if path == "/oauth/userinfo" {
				req = httptest.NewRequest(http.MethodGet, path, nil)
				req.Header["Dpop"] = []string{proof}
				req.Header.Set("Authorization", "DPoP "+issued.text("access_token"))
			}
			got := p.serveOnce(req)
			if faults := p.log.faults(); faults != "" || got.Code >= 500 || got.Code < 400 {
				t.Errorf("%s: %d %s\n%s", path, got.Code, got.Body, faults)
			}
			if found := anyToken.FindString(got.Body.String()); found != "" {
				t.Errorf("%s: %d %s", path, got.Code, got.Body)
			}
			if got.Header().Get("DPoP-Nonce") == "" {
				t.Errorf("%s: no nonce", path)
			}
		}
	})
}

// signRaw makes a JWS of any header and claims.
func (d *prover) signRaw(header, claims string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, d.key.(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		d.p.t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// inJSON is v as a text.
func inJSON(t testing.TB, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// FuzzIntrospection sends bodies and headers to introspection, as a resource server, as an app, and as they are: no
// fault of ours, and nothing is said of a token that is not the asker's.
func FuzzIntrospection(f *testing.F) {
	p := newFuzzed(f, withFilesAPI)
	runs := p.as(p.register("runs-api", func(c *storage.Client) { c.ResourceIdentifiers = []string{runsAPI} }))
	access, refresh := p.tokens("scope", "openid").text("access_token"), p.tokens().text("refresh_token")
	for _, body := range []string{
		"", "token=" + access, "token=" + refresh, "token=" + access + "&token_type_hint=refresh_token", "token=a.b.c",
		"token=" + strings.Repeat(".", 100),
		"token=" + access[:len(access)-2], "token=x&client_id=" + filesID + "&client_secret=x", "token=x&token=y",
		"token=%ff", "client_assertion=a.b.c&token=x", "resource=x&resource=y&token=x",
	} {
		for _, accept := range []string{"", "application/token-introspection+jwt", "a/b;q=\"", ",,;=",
			"application/token-introspection+jwt;q=0.0"} {
			f.Add(body, accept)
		}
	}
	f.Fuzz(func(t *testing.T, body, accept string) {
		for _, authorization := range []string{"", basic(filesID, filesSecret), basic(runs.client.ID, runs.secret)} {
			req := httptest.NewRequest(http.MethodPost, "/oauth/introspect", strings.NewReader(body))
			req.Header.Set("Content-Type", formType)
			req.Header["Accept"] = []string{accept}
			if authorization != "" {
				req.Header.Set("Authorization", authorization)
			}
			got := p.serveOnce(req)
			if faults := p.log.faults(); faults != "" || got.Code >= 500 && got.Code != http.StatusServiceUnavailable {
				t.Errorf("%d %s\n%s", got.Code, got.Body, faults)
			}
			if authorization == "" && got.Code == http.StatusOK {
				t.Errorf("nobody was told: %s", got.Body)
			}
			said := got.Body.String()
			if got.Header().Get("Content-Type") == "application/token-introspection+jwt" {
				said = inJSON(t, claimsOf(t, said)["token_introspection"])
			}
			if got.Code == http.StatusOK && strings.TrimSpace(said) != inactive {
				t.Errorf("%s", got.Body)
			}
			if got.Header().Get("Cache-Control") != "no-store" {
				t.Error("may be cached")
			}
		}
	})
}
