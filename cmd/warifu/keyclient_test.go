package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// A key that an app.yml registers is the one with which the app authenticates, and there is no other way for it.
func TestKeyOfAManifestAuthenticates(t *testing.T) {
	i := testInstance(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := json.Marshal(jose.JSONWebKey{Key: &key.PublicKey, KeyID: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf(`apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: service}
spec:
  version: 1.0.0
  oauth:
    clientName: Service
    scopes: [files:read]
    grantTypes: [client_credentials]
    tokenEndpointAuthMethod: private_key_jwt
    tokenEndpointAuthSigningAlg: ES256
    jwks: {keys: [%s]}
`, public)
	if resp := i.ask(t, "POST", "/v1/apply", documents(t, nil, manifest)); resp.StatusCode != http.StatusOK {
		t.Fatalf("apply: %s", resp.Status)
	}
	view, err := i.store.App(t.Context(), "service")
	if err != nil {
		t.Fatal(err)
	}
	id := view.Client.ID
	assertion := func(signs *ecdsa.PrivateKey) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: signs, KeyID: "mine"}},
			nil)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		text, err := jwt.Signed(signer).Claims(jwt.Claims{
			Issuer: id, Subject: id, Audience: jwt.Audience{i.cfg.Issuer}, ID: rand.Text(), IssuedAt: jwt.NewNumericDate(now),
			Expiry: jwt.NewNumericDate(now.Add(time.Minute)),
		}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	for name, c := range map[string]struct {
		form url.Values
		want int
	}{
		"signed": {url.Values{"client_assertion_type": {jwtBearer}, "client_assertion": {assertion(key)}},
			http.StatusOK},
		"another key": {url.Values{"client_assertion_type": {jwtBearer}, "client_assertion": {assertion(stranger)}},
			http.StatusUnauthorized},
		"a secret":        {url.Values{"client_id": {id}, "client_secret": {"swordfish"}}, http.StatusUnauthorized},
		"an empty secret": {url.Values{"client_id": {id}, "client_secret": {""}}, http.StatusUnauthorized},
		"nothing":         {url.Values{"client_id": {id}}, http.StatusUnauthorized},
	} {
		c.form.Set("grant_type", "client_credentials")
		c.form.Set("scope", "files:read")
		resp, err := http.PostForm(i.cfg.Issuer+"/oauth/token", c.form)
		if err != nil {
			t.Fatal(err)
		}
		var reply struct {
			Token string `json:"access_token"`
			Error string `json:"error"`
		}
		err = json.NewDecoder(resp.Body).Decode(&reply)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != c.want || (reply.Token != "") != (c.want == http.StatusOK) {
			t.Errorf("%s: %s %s, %v", name, resp.Status, reply.Error, err)
		}
	}
}
