package conformance

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/conformance/local"
)

// TestAtAnotherWarifu signs in at a warifu whose connector is another warifu: an app is told who the person is in the
// other one's words, of the groups those that the configuration keeps, and how and when they proved it there.
func TestAtAnotherWarifu(t *testing.T) {
	if *issuer != "" || *config != "" {
		return
	}
	t.Parallel()
	ownSuite(t, nil) // has started the other one
	upstream := own.server
	deploy := func(redirectURI, after string) local.Credentials {
		t.Helper()
		c, err := upstream.Deploy("downstream", "clientName: Downstream", "redirectUris: ["+redirectURI+"]",
			"postLogoutRedirectUris: ["+after+"]", "scopes: [openid, profile, email, groups]")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// Its address is not known yet
	known := deploy("https://downstream.example/callback", "https://downstream.example/out")
	server, err := local.Start(t.Context(), local.Options{
		Binary: upstream.Binary, Files: map[string][]byte{"upstream.secret": []byte(known.ClientSecret)},
		Config: fmt.Sprintf(`trusted: [app]
connectors:
  - type: oidc
    id: upstream
    name: The other one
    trustUpstream: true
    groups: [staff]
    config: {issuer: %q, clientID: %q, clientSecretFile: upstream.secret, rootCAs: [%q], getUserInfo: true,
      scopes: [profile, email, groups], insecureEnableGroups: true}
`, upstream.Issuer, known.ClientID, upstream.CAFile),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	deploy(server.Issuer+"/callback/upstream", server.Issuer+"/oauth/logout")

	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.URL.RawQuery)
	}))
	t.Cleanup(page.Close)
	back := strings.Replace(page.URL, "127.0.0.1", "localhost", 1) + "/callback"
	app, err := server.Deploy("app", "clientName: App", "redirectUris: ["+back+"]",
		"scopes: [openid, profile, email, groups]", "consent: skip")
	if err != nil {
		t.Fatal(err)
	}
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	browser := server.Browser(upstream)
	answer, err := browser.Visit(server.Issuer + "/oauth/authorize?" + url.Values{
		"client_id": {app.ClientID}, "redirect_uri": {back}, "response_type": {"code"}, "state": {"s"}, "nonce": {"n"},
		"scope": {"openid profile email groups"}, "code_challenge_method": {"S256"}, "connector_id": {"upstream"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])},
	}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	told, err := url.ParseQuery(answer)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.Roots}}}
	resp, err := client.PostForm(server.Issuer+"/oauth/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {told.Get("code")}, "redirect_uri": {back},
		"code_verifier": {verifier}, "client_id": {app.ClientID}, "client_secret": {app.ClientSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var tokens struct {
		IDToken string `json:"id_token"`
		Error   string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&tokens); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s; the answer was %q", resp.Status, err, tokens.Error, answer)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(tokens.IDToken, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Sub, Name, Email string
		EmailVerified    bool   `json:"email_verified"`
		PreferredUser    string `json:"preferred_username"`
		Groups, AMR      []string
		AuthTime         int64 `json:"auth_time"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.Name != local.Name || claims.Email != local.Login || !claims.EmailVerified ||
		claims.PreferredUser != "ann" ||
		len(claims.Sub) != 32 || fmt.Sprint(claims.Groups) != "[staff]" || fmt.Sprint(claims.AMR) != "[pwd]" ||
		time.Since(time.Unix(claims.AuthTime, 0)) > time.Hour {
		t.Errorf("%s", payload)
	}
}
