// Package broken is an OpenID provider with one thing wrong, so that a test suite can show that it would notice.
//
// It is a reverse proxy in front of a good provider, whose issuer it keeps: the suite is told to connect to it in place
// of the good one. A [Fault] changes requests on their way in, answers on their way out, or answers by itself; with
// none, nothing is changed. Claims are changed with care: the ID token is signed again, with a key that the proxy adds
// to the provider's JWK Set, so that nothing but the claim is wrong.
package broken

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// Provider is a good provider with a fault.
type Provider struct {
	fault    Fault
	issuer   string
	upstream http.RoundTripper
	proxy    *httputil.ReverseProxy
	key      jose.JSONWebKey
	curve    jose.JSONWebKey   // another key, for ES256
	paths    map[string]string // of endpoints, by their name in metadata, and of jwks_uri and discovery

	// Backchannel is where faults of logout tokens send them. The good provider must not send any.
	Backchannel string

	mu   sync.Mutex // guards kept
	kept map[string]string
}

// Fault is one thing that is wrong.
type Fault struct {
	Name string
	// ask changes a request; tell changes an answer, whose body is what it returns; alone answers itself, or returns
	// false.
	ask   func(*Provider, *http.Request)
	tell  func(*Provider, *http.Request, *http.Response, []byte) []byte
	alone func(*Provider, http.ResponseWriter, *http.Request) bool
}

// key and curve sign what the proxy changes. One each is enough for all, and making it takes long.
var key = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

var curve = sync.OnceValues(func() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
})

// New makes a provider. transport reaches the good one under its issuer.
func New(issuer string, transport http.RoundTripper, fault Fault) (*Provider, error) {
	target, err := url.Parse(issuer)
	if err != nil {
		return nil, fmt.Errorf("parse the issuer: %w", err)
	}
	private, err := key()
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	point, err := curve()
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	p := &Provider{
		fault: fault, issuer: issuer, upstream: transport, kept: map[string]string{},
		key:   jose.JSONWebKey{Key: private, KeyID: "broken", Algorithm: string(jose.RS256), Use: "sig"},
		curve: jose.JSONWebKey{Key: point, KeyID: "broken-curve", Algorithm: string(jose.ES256), Use: "sig"},
	}
	if err := p.discover(); err != nil {
		return nil, err
	}
	p.proxy = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, target.Host
			r.Out.Header.Del("Accept-Encoding") // answers are read
		},
		ModifyResponse: p.answer,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return p, nil
}

// discover learns where the endpoints are.
func (p *Provider) discover() error {
	client := &http.Client{Transport: p.upstream}
	resp, err := client.Get(strings.TrimSuffix(p.issuer, "/") + "/.well-known/openid-configuration")
	if err != nil {
		return fmt.Errorf("discover the good provider: %w", err)
	}
	defer resp.Body.Close()
	var metadata map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&metadata); err != nil {
		return fmt.Errorf("read the good provider's metadata: %w", err)
	}
	p.paths = map[string]string{"discovery": resp.Request.URL.Path}
	for name, value := range metadata {
		if text, ok := value.(string); ok && (strings.HasSuffix(name, "_endpoint") || name == "jwks_uri") {
			if u, err := url.Parse(text); err == nil {
				p.paths[name] = u.Path
			}
		}
	}
	return nil
}

// at says whether a request is for an endpoint.
func (p *Provider) at(r *http.Request, name string) bool { return r.URL.Path == p.paths[name] }

// keep remembers a value under a name; recall gives it.
func (p *Provider) keep(name, value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept[name] = value
}

func (p *Provider) recall(name string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	value, ok := p.kept[name]
	return value, ok
}

func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.fault.alone != nil && p.fault.alone(p, w, r) {
		return
	}
	if p.fault.ask != nil {
		p.fault.ask(p, r)
	}
	p.proxy.ServeHTTP(w, r)
}

func (p *Provider) answer(resp *http.Response) error {
	if p.fault.tell == nil {
		return nil
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	body = p.fault.tell(p, resp.Request, resp, body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

// form reads the form of a POST, and leaves it where it was.
func form(r *http.Request) url.Values {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return url.Values{}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return url.Values{}
	}
	return values
}

// setForm replaces the form of a POST.
func setForm(r *http.Request, values url.Values) { setBody(r, []byte(values.Encode())) }

func setBody(r *http.Request, body []byte) {
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
}

// object changes a JSON object.
func object(body []byte, change func(map[string]any)) []byte {
	var v map[string]any
	if json.Unmarshal(body, &v) != nil {
		return body
	}
	change(v)
	out, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return out
}

// claimsOf reads the claims of a JWT; nil when it is none.
func claimsOf(token string) map[string]any { return partOf(token, 1) }

// keyOf reads the kid of a JWT.
func keyOf(token string) string {
	kid, _ := partOf(token, 0)["kid"].(string)
	return kid
}

func partOf(token string, n int) map[string]any {
	var part map[string]any
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[n])
	if err != nil || json.Unmarshal(text, &part) != nil {
		return nil
	}
	return part
}

// signed makes a JWT with the proxy's key.
func (p *Provider) signed(key jose.SigningKey, claims map[string]any) string {
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		return ""
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return ""
	}
	signature, err := signer.Sign(text)
	if err != nil {
		return ""
	}
	token, err := signature.CompactSerialize()
	if err != nil {
		return ""
	}
	return token
}

func (p *Provider) own() jose.SigningKey { return jose.SigningKey{Algorithm: jose.RS256, Key: p.key} }
