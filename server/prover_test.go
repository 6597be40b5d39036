package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/storage"
)

// prover makes DPoP proofs of one key (RFC 9449), with the nonce that it was told last.
type prover struct {
	p     *idp
	alg   jose.SignatureAlgorithm
	key   crypto.Signer
	nonce string
}

func (p *idp) prover() *prover {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return &prover{p: p, alg: jose.ES256, key: key}
}

// informed is a prover that knows a nonce.
func (p *idp) informed() *prover {
	d := p.prover()
	d.nonce = p.proofNonce()
	return d
}

// proofNonce is the nonce that the server gives to everybody.
func (p *idp) proofNonce() string {
	p.t.Helper()
	nonce := p.call("/oauth/token", url.Values{}).header.Get("DPoP-Nonce")
	if nonce == "" {
		p.t.Fatal("no nonce")
	}
	return nonce
}

func (d *prover) jwk() map[string]any {
	raw, err := json.Marshal(jose.JSONWebKey{Key: d.key.Public()})
	if err != nil {
		d.p.t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		d.p.t.Fatal(err)
	}
	return out
}

// thumbprint is the key's (RFC 7638).
func (d *prover) thumbprint() string {
	sum, err := (&jose.JSONWebKey{Key: d.key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		d.p.t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// parts are header and claims of a proof for a request.
func (d *prover) parts(method, path string) (header, claims map[string]any) {
	claims = map[string]any{"jti": storage.NewGrantID(), "htm": method, "htu": d.p.issuer +
		path, "iat": d.p.clock.now().Unix()}
	if d.nonce != "" {
		claims["nonce"] = d.nonce
	}
	return map[string]any{"typ": "dpop+jwt", "jwk": d.jwk()}, claims
}

// proof is for a request without an access token, or with one, whose hash it holds then. Changes are name, value pairs
// of claims; nil leaves one out.
func (d *prover) proof(method, path, token string, changes ...any) string {
	d.p.t.Helper()
	header, claims := d.parts(method, path)
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	for i := 0; i < len(changes); i += 2 {
		if claims[changes[i].(string)] = changes[i+1]; changes[i+1] == nil {
			delete(claims, changes[i].(string))
		}
	}
	return signedBy(d.p.t, d.key, d.alg, header, claims)
}

// token sends a form to the token endpoint with a proof; p's client authenticates unless form says otherwise. Told to
// use a nonce it does, as clients must.
func (d *prover) token(form url.Values) reply {
	d.p.t.Helper()
	if !form.Has("client_id") {
		form.Set("client_id", d.p.client.ID)
		if d.p.secret != "" {
			form.Set("client_secret", d.p.secret)
		}
	}
	got := d.p.machine("/oauth/token", form, "DPoP", d.proof(http.MethodPost, "/oauth/token", ""))
	if told := got.header.Get("DPoP-Nonce"); got.text("error") == "use_dpop_nonce" && told != d.nonce {
		d.nonce = told
		return d.p.machine("/oauth/token", form, "DPoP", d.proof(http.MethodPost, "/oauth/token", ""))
	}
	return got
}

func (d *prover) exchange(code string, more ...string) reply {
	d.p.t.Helper()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return d.token(form)
}

func (d *prover) refresh(token string) reply {
	d.p.t.Helper()
	return d.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// tokens walks the whole flow.
func (d *prover) tokens(scope string) reply {
	d.p.t.Helper()
	got := d.exchange(d.p.code("scope", scope))
	if got.status != http.StatusOK {
		d.p.t.Fatalf("exchange: %d %s", got.status, got.raw)
	}
	return got
}

// bound checks that a reply's access token is bound to d's key.
func (d *prover) bound(got reply, rule string) {
	d.p.t.Helper()
	if got.status != http.StatusOK || got.text("token_type") != "DPoP" {
		d.p.t.Errorf("%s: %d %s", rule, got.status, got.raw)
		return
	}
	if cnf := fmt.Sprint(claimsOf(d.p.t, got.text("access_token"))["cnf"]); cnf != fmt.Sprint(
		map[string]any{"jkt": d.thumbprint()}) {
		d.p.t.Errorf("%s: cnf %s, want %s", rule, cnf, d.thumbprint())
	}
}

// publicApp is p seen by a public client.
func (p *idp) publicApp() *idp {
	p.t.Helper()
	return p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
}

// publicCode is a code of a public client, which must use PKCE.
func (p *idp) publicCode(more ...string) string {
	p.t.Helper()
	return p.code(append([]string{"client_id", p.client.ID, "code_challenge", challengeOf(verifier),
		"code_challenge_method", "S256"}, more...)...)
}
