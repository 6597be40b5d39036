package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/conformance/local"
)

// world is what the templates can ask for: the suite, the server under test, and the clients.
type world struct {
	Suite    string // base URL of the suite
	Issuer   string
	Resource string // URL of an API that takes our access tokens
	Login    string // of the one user
	Password string
	Token    string // with which clients register, and have the operator's word

	server *local.Server
	api    *resource
	log    *os.File
	keys   map[string]crypto.Signer
}

// settings are the server's beside those of package local. The API is the audience of tokens that were asked for
// without one. Clients register with a token: those that nobody vouches for get no errors by redirect.
const settings = `oauth2:
  resourceServers: [{id: api, identifier: $ISSUER, secretFile: api.secret}]
  registration: {enabled: true, initialAccessTokenFiles: [registration.token]}
`

// newWorld starts the server with the clients of apps.yml, and the API.
func newWorld(ctx context.Context, opts options, suiteCertificates []*x509.Certificate) (_ *world, err error) {
	w := &world{Suite: opts.suite, Login: local.Login, Password: local.Password, Token: rand.Text() + rand.Text(),
		keys: make(map[string]crypto.Signer)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	var authorities []byte
	for _, c := range suiteCertificates {
		authorities = append(authorities, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if w.log, err = os.Create(filepath.Join(opts.report, "warifu.log")); err != nil {
		return nil, err
	}
	secret := rand.Text() + rand.Text()
	if w.server, err = local.Start(ctx, local.Options{
		Binary: opts.warifu, Config: settings, Authorities: authorities, Log: w.log,
		Files: map[string][]byte{"api.secret": []byte(secret), "registration.token": []byte(w.Token)},
	}); err != nil {
		return nil, err
	}
	w.Issuer = w.server.Issuer
	if w.api, err = listen(w.server, secret); err != nil {
		return nil, err
	}
	w.Resource = w.api.url
	apps, err := w.expand(filepath.Join(opts.dir, "apps.yml"))
	if err != nil {
		return nil, err
	}
	return w, w.server.Apply(apps)
}

func (w *world) close() error {
	var errs []error
	if w.api != nil {
		errs = append(errs, w.api.server.Close())
	}
	if w.server != nil {
		errs = append(errs, w.server.Stop())
	}
	if w.log != nil {
		errs = append(errs, w.log.Close())
	}
	return errors.Join(errs...)
}

// prepare does what a module asks the operator for, before it goes on.
func (w *world) prepare(module string) error {
	if module != "oidcc-server-rotate-keys" {
		return nil
	}
	_, err := w.server.Run("keys", "rotate", "RS256", "--now", "--yes")
	return err
}

// Credentials are a client's, as JSON members: "client_id": …, "client_secret": ….
func (w *world) Credentials(app string) (string, error) {
	c, err := w.server.Credentials(app)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret,omitempty"`
	}{c.ClientID, c.ClientSecret})
	return strings.Trim(string(text), "{}"), err
}

// Alg is the algorithm of a client of FAPI, which allows several. The first one's is of RSA: with it alone the suite
// can sign with RS256 as well, which has to be refused.
func (w *world) Alg(name string) string {
	if name == "first" {
		return string(jose.PS256)
	}
	return string(jose.ES256)
}

func newKey(alg string) (crypto.Signer, error) {
	if alg == string(jose.PS256) {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// Keys is a JWK Set with the private key of a client. Each name has one key.
func (w *world) Keys(name string) (string, error) { return w.jwks(name, false) }

// PublicKeys is the JWK Set that a client registers.
func (w *world) PublicKeys(name string) (string, error) { return w.jwks(name, true) }

func (w *world) jwks(name string, public bool) (string, error) {
	if w.keys[name] == nil {
		key, err := newKey(w.Alg(name))
		if err != nil {
			return "", err
		}
		w.keys[name] = key
	}
	jwk := jose.JSONWebKey{Key: w.keys[name], KeyID: name, Algorithm: w.Alg(name), Use: "sig"}
	if public {
		jwk = jwk.Public()
	}
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk}})
	return string(text), err
}

func certificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	return out, nil
}
