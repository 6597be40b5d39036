//go:build e2e

package clients

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	httphelper "github.com/zitadel/oidc/v3/pkg/http"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/warifu/warifu/conformance/local"
)

// shown answers with JSON, or with the error.
func shown(w http.ResponseWriter, answer map[string]any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// trusting is an HTTP client that trusts the server's certificate.
func trusting() *http.Client {
	return &http.Client{Timeout: 10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.Roots}}}
}

// An app on golang.org/x/oauth2 and coreos/go-oidc. They neither introspect nor revoke nor sign out.
func TestLibraryOfGo(t *testing.T) {
	c := register(t, "go-oidc")
	ctx := gooidc.ClientContext(t.Context(), trusting())
	provider, err := gooidc.NewProvider(ctx, c.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)
	config := oauth2.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret, Endpoint: provider.Endpoint(), RedirectURL: app.URL + "/callback",
		Scopes: []string{gooidc.ScopeOpenID, "email", gooidc.ScopeOfflineAccess},
	}
	state, nonce, verifier := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, config.AuthCodeURL(state, gooidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)),
			http.StatusSeeOther)
	})
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		answer, err := func() (map[string]any, error) {
			if r.FormValue("state") != state {
				return nil, errors.New("another state")
			}
			token, err := config.Exchange(ctx, r.FormValue("code"), oauth2.VerifierOption(verifier))
			if err != nil {
				return nil, err
			}
			raw, _ := token.Extra("id_token").(string)
			id, err := provider.Verifier(&gooidc.Config{ClientID: c.ClientID}).Verify(ctx, raw)
			if err != nil {
				return nil, err
			}
			if err := id.VerifyAccessToken(token.AccessToken); err != nil || id.Nonce != nonce {
				return nil, errors.Join(errors.New("at_hash or nonce"), err)
			}
			refreshed, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
			if err != nil {
				return nil, err
			}
			info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(refreshed))
			if err != nil {
				return nil, err
			}
			return map[string]any{"sub": id.Subject, "email": info.Email,
				"refreshed": refreshed.RefreshToken != token.RefreshToken}, nil
		}()
		shown(w, answer, err)
	})
	mux.HandleFunc("GET /service", func(w http.ResponseWriter, _ *http.Request) {
		service := clientcredentials.Config{
			ClientID: c.ClientID, ClientSecret: c.ClientSecret, TokenURL: provider.Endpoint().TokenURL,
			Scopes: []string{"threads:read"}}
		token, err := service.Token(ctx)
		shown(w, map[string]any{"active": token.Valid()}, err)
	})
	b := newBrowser(t)
	for _, w := range []walk{{"/", map[string]any{"sub": local.UserID, "email": local.Login, "refreshed": true}}, own} {
		checkPage(t, w, b.visit(app.URL+w.path))
	}
}

// An app on the relying party of zitadel/oidc.
func TestLibraryOfZitadel(t *testing.T) {
	c := register(t, "zitadel")
	mux := http.NewServeMux()
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)
	key := []byte(rand.Text()[:16])
	cookies := httphelper.NewCookieHandler(key, key, httphelper.WithUnsecure())
	party, err := rp.NewRelyingPartyOIDC(t.Context(), c.Issuer, c.ClientID, c.ClientSecret, app.URL+"/callback",
		[]string{"openid", "profile", "email", "offline_access"},
		rp.WithCookieHandler(cookies), rp.WithPKCE(cookies), rp.WithHTTPClient(trusting()), rp.WithSigningAlgsFromDiscovery())
	if err != nil {
		t.Fatal(err)
	}
	service, err := rp.NewRelyingPartyOIDC(t.Context(), c.Issuer, c.ClientID, c.ClientSecret, "", []string{"threads:read"},
		rp.WithHTTPClient(trusting()))
	if err != nil {
		t.Fatal(err)
	}
	var idToken string
	finish := func(ctx context.Context, tokens *oidc.Tokens[*oidc.IDTokenClaims], info *oidc.UserInfo) (map[string]any,
		error) {
		idToken = tokens.IDToken
		refreshed, err := rp.RefreshTokens[*oidc.IDTokenClaims](ctx, party, tokens.RefreshToken, "", "")
		if err != nil {
			return nil, err
		}
		if err := rp.RevokeToken(ctx, party, refreshed.RefreshToken, "refresh_token"); err != nil {
			return nil, err
		}
		_, err = rp.Userinfo[*oidc.UserInfo](ctx, refreshed.AccessToken, "Bearer", info.Subject, party)
		return map[string]any{"sub": tokens.IDTokenClaims.Subject, "email": info.Email,
			"refreshed": refreshed.RefreshToken != tokens.RefreshToken, "revoked": err != nil}, nil
	}
	mux.Handle("GET /{$}", rp.AuthURLHandler(rand.Text, party))
	mux.Handle("GET /callback", rp.CodeExchangeHandler(rp.UserinfoCallback(
		func(w http.ResponseWriter, r *http.Request, tokens *oidc.Tokens[*oidc.IDTokenClaims], _ string, _ rp.RelyingParty,
			info *oidc.UserInfo) {
			answer, err := finish(r.Context(), tokens, info)
			shown(w, answer, err)
		}), party))
	mux.HandleFunc("GET /logout", func(w http.ResponseWriter, r *http.Request) {
		to, err := rp.EndSession(r.Context(), party, idToken, app.URL+"/signed-out", "bye", "", nil)
		if err != nil {
			shown(w, nil, err)
			return
		}
		http.Redirect(w, r, to.String(), http.StatusSeeOther)
	})
	mux.HandleFunc("GET /signed-out", func(w http.ResponseWriter, r *http.Request) {
		shown(w, map[string]any{"state": r.FormValue("state")}, nil)
	})
	mux.HandleFunc("GET /service", func(w http.ResponseWriter, r *http.Request) {
		token, err := rp.ClientCredentials(r.Context(), service, nil)
		shown(w, map[string]any{"active": token.Valid()}, err)
	})
	b := newBrowser(t)
	for _, w := range []walk{
		{"/", map[string]any{"sub": local.UserID, "email": local.Login, "refreshed": true, "revoked": true}}, signOut, own} {
		checkPage(t, w, b.visit(app.URL+w.path))
	}
}
