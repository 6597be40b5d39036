package conformance

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Ways of a client to authenticate (OpenID Connect Core 1.0 section 9).
const (
	secretBasic   = "client_secret_basic"
	secretPost    = "client_secret_post"
	privateKeyJWT = "private_key_jwt"
)

// client is a registered client in the hands of a module.
type client struct {
	Client
	auth string
	key  jose.JSONWebKey // of private_key_jwt and signed request objects
	// audience of client assertions: the issuer when set, otherwise the token endpoint
	toIssuer bool

	registration map[string]any // the answer of dynamic registration; nil for other clients
}

// static takes a client of the configuration.
func (t *trial) static(c Client, auth string, p *provider) *client {
	methods, given := p.list("token_endpoint_auth_methods_supported")
	t.check(!given && auth == secretBasic || slices.Contains(methods, auth), "OIDCD-3", "the provider supports %s", auth)
	return &client{Client: c, auth: auth}
}

// keyring has RSA keys for clients, as making them takes long. Modules share keys; those that replace one take another.
type keyring struct {
	mu   sync.Mutex // guards made
	made []*rsa.PrivateKey
}

// clientKey is the nth key of the suite; kid is its id, which may be empty.
func (t *trial) clientKey(n int, kid string) jose.JSONWebKey {
	ring := t.suite.keys
	ring.mu.Lock()
	defer ring.mu.Unlock()
	for len(ring.made) <= n {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.stopf("", "make a key: %v", err)
		}
		ring.made = append(ring.made, key)
	}
	return jose.JSONWebKey{Key: ring.made[n], KeyID: kid, Algorithm: string(jose.RS256), Use: "sig"}
}

func publicSet(keys ...jose.JSONWebKey) []byte {
	set := jose.JSONWebKeySet{}
	for _, key := range keys {
		set.Keys = append(set.Keys, key.Public())
	}
	text, err := json.Marshal(set)
	if err != nil {
		return nil
	}
	return text
}

// sign makes a compact JWS of claims.
func (t *trial) sign(key jose.JSONWebKey, typ string, claims any) string {
	opts := (&jose.SignerOptions{})
	if typ != "" {
		opts = opts.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key}, opts)
	if err != nil {
		t.stopf("", "make a signer: %v", err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.stopf("", "encode claims: %v", err)
	}
	signature, err := signer.Sign(text)
	if err != nil {
		t.stopf("", "sign claims: %v", err)
	}
	token, err := signature.CompactSerialize()
	if err != nil {
		t.stopf("", "write a JWT: %v", err)
	}
	return token
}

// assertion is a client assertion (OpenID Connect Core 1.0 section 9, private_key_jwt).
func (c *client) assertion(t *trial, p *provider) string {
	now := time.Now()
	audience := p.text("token_endpoint")
	if c.toIssuer {
		audience = p.text("issuer")
	}
	return t.sign(c.key, "", map[string]any{
		"iss": c.ID, "sub": c.ID, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	})
}

// tokenRequest posts to the token endpoint, as the client.
func (t *trial) tokenRequest(p *provider, c *client, form url.Values) *reply {
	sent := url.Values{}
	for name, values := range form {
		sent[name] = values
	}
	header := http.Header{}
	switch c.auth {
	case secretBasic:
		r := &http.Request{Header: header}
		r.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(c.Secret)) // RFC 6749 section 2.3.1
	case secretPost:
		sent.Set("client_id", c.ID)
		sent.Set("client_secret", c.Secret)
	case privateKeyJWT:
		sent.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		sent.Set("client_assertion", c.assertion(t, p))
	}
	body := sent.Encode()
	req, err := http.NewRequest(http.MethodPost, t.endpoint(p, "token_endpoint").String(), strings.NewReader(body))
	if err != nil {
		t.stopf("", "token_endpoint: %v", err)
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return t.send(req, body)
}
