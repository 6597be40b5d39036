package dex

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"golang.org/x/oauth2"
)

// maxAnswer is how much of an answer of an upstream is read.
const maxAnswer = 4 << 20

const (
	tooMuch   = "the answer is longer than is read"
	elsewhere = "the answer leads to another host"
)

// bounded reads no more than maxAnswer of an answer: Dex's code reads to the end.
type bounded struct{ nonce *nonce }

// nonce is looked for in the ID token of a token endpoint's answer; nil is not.
type nonce struct {
	want  string
	right atomic.Bool // an ID token had it
	wrong atomic.Bool
}

// clientContext has Dex's code use an HTTP client of ours, unless it makes one of its own.
func clientContext(ctx context.Context, n *nonce) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: bounded{n}})
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if carriesSecrets(r) && leadsElsewhere(r, resp) {
		_ = resp.Body.Close()
		return nil, errors.New(elsewhere)
	}
	resp.Body = &boundedBody{resp.Body, maxAnswer}
	if b.nonce == nil || r.Method != http.MethodPost || resp.StatusCode != http.StatusOK {
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if err := b.nonce.check(body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// carriesSecrets: oauth2 adds the token to each request, those that follow a redirect included.
func carriesSecrets(r *http.Request) bool {
	return r.Method != http.MethodGet || r.Header.Get("Authorization") != "" || r.Header.Get("X-Auth-Token") != ""
}

// leadsElsewhere reports whether an answer is a redirect to another host, or to one without TLS.
func leadsElsewhere(r *http.Request, resp *http.Response) bool {
	if resp.StatusCode/100 != 3 {
		return false
	}
	to, err := resp.Location()
	return err == nil && (to.Host != r.URL.Host || to.Scheme != r.URL.Scheme)
}

// check compares the nonce of the ID token, if there is one, before anything is believed of it. Whoever asked for the
// token verifies its signature.
func (n *nonce) check(answer []byte) error {
	var tokens struct {
		IDToken string `json:"id_token"`
	}
	if json.Unmarshal(answer, &tokens) != nil || tokens.IDToken == "" {
		return nil
	}
	var claims struct {
		Nonce string `json:"nonce"`
	}
	parts := strings.Split(tokens.IDToken, ".")
	if len(parts) == 3 {
		if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(payload, &claims) // an unreadable one has no nonce
		}
	}
	if claims.Nonce == "" || claims.Nonce != n.want {
		n.wrong.Store(true)
		return errors.New("the nonce is another one")
	}
	n.right.Store(true)
	return nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New(tooMuch)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// discovered reads a discovery document to the end, within the time that ctx leaves, before Dex's code reads it without
// any bound.
func discovered(ctx context.Context, client *http.Client, address string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return plain{errors.New("reading the discovery document: the address is not one")}
	}
	resp, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("failed to get provider: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := &boundedBody{resp.Body, maxAnswer}
	var document map[string]any
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("failed to get provider: %d", resp.StatusCode)
	}
	if err := json.NewDecoder(body).Decode(&document); err != nil {
		return fmt.Errorf("failed to get provider: decode: %w", err)
	}
	if text, _ := document["authorization_endpoint"].(string); text == "" {
		return plain{errors.New("reading the discovery document: it names no authorization_endpoint")}
	}
	return nil
}
