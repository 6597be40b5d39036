package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/warifu/warifu/conformance/local"
)

// authority is a certificate for kube-apiserver's authenticator.
type authority []byte

func (a authority) CurrentCABundleContent() []byte { return a }

// kubeconfig is where client-go keeps its tokens.
type kubeconfig map[string]string

func (k kubeconfig) Persist(config map[string]string) error {
	for key, value := range config {
		k[key] = value
	}
	return nil
}

// The authenticator of kube-apiserver, with --oidc-username-claim=email and --oidc-groups-claim=groups, and client-go
// with the auth provider oidc. That takes an ID token that ends within ten seconds for one that has expired: here it
// refreshes before each request.
func TestKubernetes(t *testing.T) {
	c := register(t, "kubernetes")
	certificate, err := os.ReadFile(server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	var none string
	tokenAuthenticator, err := oidc.New(t.Context(), oidc.Options{
		JWTAuthenticator: apiserver.JWTAuthenticator{
			Issuer: apiserver.Issuer{URL: c.Issuer, Audiences: []string{c.ClientID}},
			ClaimMappings: apiserver.ClaimMappings{
				Username: apiserver.PrefixedClaimOrExpression{Claim: "email", Prefix: &none},
				Groups:   apiserver.PrefixedClaimOrExpression{Claim: "groups", Prefix: &none},
			},
		},
		CAContentProvider: authority(certificate),
	})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the authenticator has read discovery", func() bool { return tokenAuthenticator.HealthCheck() == nil })
	authenticator := bearertoken.New(tokenAuthenticator)
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, known, err := authenticator.AuthenticateRequest(r)
		if err != nil || !known {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			t.Errorf("kube-apiserver refuses: %v", err)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"name": who.User.GetName(), "groups": who.User.GetGroups()})
	}))
	t.Cleanup(cluster.Close)

	signedIn := tokens(t, c, []string{"openid", "email", "groups"})
	idToken, _ := signedIn.Extra("id_token").(string)
	stored := kubeconfig{}
	client, err := rest.HTTPClientFor(&rest.Config{
		Host: cluster.URL,
		AuthProvider: &api.AuthProviderConfig{Name: "oidc", Config: map[string]string{
			"idp-issuer-url": c.Issuer, "idp-certificate-authority": server.CAFile, "client-id": c.ClientID,
			"client-secret": c.ClientSecret, "id-token": idToken, "refresh-token": signedIn.RefreshToken,
		}},
		AuthConfigPersister: stored,
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{signedIn.RefreshToken: true}
	for range 3 {
		resp, err := client.Get(cluster.URL + "/whoami")
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		shows(t, string(page), map[string]any{"name": local.Login, "groups": []any{"admins", "staff"}})
		if seen[stored["refresh-token"]] {
			t.Error("client-go has not refreshed")
		}
		seen[stored["refresh-token"]] = true
	}
}
