package dex

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// oidcKeys are the keys of a provider (OpenID Connect Core 1.0 section 10.1). They are fetched when a token says that
// it is signed with one that is not known yet. A key that is of no use here is left out, not a reason to have none (RFC
// 7517 section 5): providers show some with curves that hardly anybody knows.
type oidcKeys struct {
	client  *http.Client
	address string

	mu   sync.Mutex // owns keys
	keys []jose.JSONWebKey
}

var errNoKey = errors.New("no key of the provider fits the signature")

// verify is what a JWS says that one of these algorithms signs.
func (k *oidcKeys) verify(ctx context.Context, token string) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, oidcAlgs)
	if err != nil || len(signed.Signatures) != 1 {
		return nil, errNoKey
	}
	k.mu.Lock()
	known := k.keys
	k.mu.Unlock()
	if payload, fits := fitting(known, signed); fits {
		return payload, nil
	}
	if known, err = k.fetch(ctx); err != nil {
		return nil, keyFault{err}
	}
	k.mu.Lock()
	k.keys = known
	k.mu.Unlock()
	if payload, fits := fitting(known, signed); fits {
		return payload, nil
	}
	return nil, errNoKey
}

// keyFault tells that keys could not be had: no verdict about a token.
type keyFault struct{ error }

func fitting(keys []jose.JSONWebKey, signed *jose.JSONWebSignature) ([]byte, bool) {
	header := signed.Signatures[0].Header
	for _, key := range keys {
		if header.KeyID != "" && header.KeyID != key.KeyID || key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := signed.Verify(key); err == nil {
			return payload, true
		}
	}
	return nil, false
}

func (k *oidcKeys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	body, _, err := fetched(ctx, k.client, k.address, "")
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("is not understood")
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if err := json.Unmarshal(raw, &key); err == nil && key.IsPublic() && key.Use != "enc" {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// fetched is a document and its type.
func fetched(ctx context.Context, client *http.Client, address, bearer string) ([]byte, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, "", fmt.Errorf("make request: %w", err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err //nolint:wrapcheck // scrubbed by the caller
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return body, resp.Header.Get("Content-Type"), err
}
