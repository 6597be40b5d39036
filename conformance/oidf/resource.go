package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/warifu/warifu/conformance/local"
)

// resource is an API that takes the access tokens of the server under test, bound to a key or not (RFC 6750, RFC 9449
// section 7): the plans of FAPI call one. It asks introspection about each token.
type resource struct {
	issuer string
	secret string // with which it introspects
	url    string
	client *http.Client
	server *http.Server
	used   sync.Map // jti of proofs
}

const resourcePath = "/things"

// listen starts one beside the server. secret is what the server knows it by.
func listen(server *local.Server, secret string) (*resource, error) {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return nil, err
	}
	a := &resource{
		issuer: server.Issuer, secret: secret,
		url: fmt.Sprintf("https://localhost:%d%s", l.Addr().(*net.TCPAddr).Port, resourcePath),
		client: &http.Client{Timeout: 10 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.Roots}}},
	}
	a.server = &http.Server{Handler: http.HandlerFunc(a.serve), ReadHeaderTimeout: 5 * time.Second, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{server.Certificate}, MinVersion: tls.VersionTLS13,
	}}
	go func() { _ = a.server.ServeTLS(l, "", "") }() // ends with Close
	return a, nil
}

func (a *resource) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if id := r.Header.Get("X-Fapi-Interaction-Id"); id != "" {
		w.Header().Set("X-Fapi-Interaction-Id", id)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	scope, err := a.judge(r, strings.ToLower(scheme), token)
	if err != nil {
		w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token", algs="ES256 PS256 EdDSA"`)
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_token", "error_description": err.Error()})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"things": []string{}, "scope": scope})
}

// judge says whether a request may be answered: the token is active, and is shown as it is bound.
func (a *resource) judge(r *http.Request, scheme, token string) (string, error) {
	if token == "" || r.URL.Query().Has("access_token") {
		return "", errors.New("no token in the Authorization header")
	}
	about, err := a.introspect(r.Context(), token)
	if err != nil || !about.Active {
		return "", errors.Join(errors.New("the token is not active"), err)
	}
	if about.Confirmation.Thumbprint == "" {
		if scheme != "bearer" {
			return "", errors.New("a bearer token is shown as Bearer")
		}
		return about.Scope, nil
	}
	if scheme != "dpop" {
		return "", errors.New("a token that is bound to a key is shown as DPoP")
	}
	return about.Scope, a.proof(r, token, about.Confirmation.Thumbprint)
}

// at says whether an address is this API's, however it is spelled, whatever its query and fragment.
func (a *resource) at(address string) bool {
	u, err := url.Parse(address)
	return err == nil && strings.EqualFold(u.Scheme+"://"+u.Host, strings.TrimSuffix(a.url, resourcePath)) &&
		u.Path == resourcePath
}

type introspected struct {
	Active       bool   `json:"active"`
	Scope        string `json:"scope"`
	Confirmation struct {
		Thumbprint string `json:"jkt"`
	} `json:"cnf"`
}

func (a *resource) introspect(ctx context.Context, token string) (about introspected, err error) {
	form := strings.NewReader(url.Values{"token": {token}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.issuer+"/oauth/introspect", form)
	if err != nil {
		return about, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("api", a.secret)
	resp, err := a.client.Do(req)
	if err != nil {
		return about, err
	}
	err = errors.Join(json.NewDecoder(resp.Body).Decode(&about), resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("introspection: status %d", resp.StatusCode)
	}
	return about, err
}

// proof checks a DPoP proof (RFC 9449 section 4.3).
func (a *resource) proof(r *http.Request, token, thumbprint string) error {
	proofs := r.Header.Values("DPoP")
	if len(proofs) != 1 {
		return errors.New("one DPoP proof is needed")
	}
	parsed, err := jwt.ParseSigned(proofs[0], []jose.SignatureAlgorithm{jose.ES256, jose.PS256, jose.EdDSA})
	if err != nil || len(parsed.Headers) != 1 || parsed.Headers[0].JSONWebKey == nil ||
		parsed.Headers[0].ExtraHeaders[jose.HeaderType] != "dpop+jwt" {
		return errors.New("the DPoP proof is not one")
	}
	key := parsed.Headers[0].JSONWebKey
	var claims struct {
		ID     string          `json:"jti"`
		Method string          `json:"htm"`
		URL    string          `json:"htu"`
		Issued jwt.NumericDate `json:"iat"`
		Hash   string          `json:"ath"`
	}
	if err := parsed.Claims(key, &claims); err != nil {
		return errors.New("the DPoP proof is not signed by its key")
	}
	print, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(token))
	age := time.Since(claims.Issued.Time())
	_, used := a.used.LoadOrStore(claims.ID, true)
	switch {
	case base64.RawURLEncoding.EncodeToString(print) != thumbprint:
		return errors.New("the token is bound to another key")
	case claims.Hash != base64.RawURLEncoding.EncodeToString(hash[:]):
		return errors.New("ath is not the token's")
	case used:
		return errors.New("the DPoP proof was used before")
	case claims.Method != r.Method || !a.at(claims.URL) || claims.ID == "":
		return errors.New("the DPoP proof is for another request")
	case age > 2*time.Minute || age < -time.Minute:
		return errors.New("the DPoP proof is too old or too new")
	}
	return nil
}
