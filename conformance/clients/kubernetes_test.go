//go:build e2e && kubernetes

package clients

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/warifu/warifu/conformance/local"
	"github.com/warifu/warifu/plugins/kubetest"
)

// An app on Kubernetes has no secret: it signs people in, refreshes and asks for itself with the token that the cluster
// has issued to its service account. The cluster is a real kube-apiserver, asked for its keys at its own address, with
// its certificate and with the token of warifu's service account; the token of the app is what a kubelet would project.
func TestAppOnKubernetesHasNoSecret(t *testing.T) {
	cluster := kubetest.Start(t)
	t.Cleanup(kubetest.Stop)
	namespace := cluster.Namespace(t)
	for _, name := range []string{"warifu", "web", "other"} {
		cluster.ServiceAccount(t, namespace, name)
	}
	ca, err := os.ReadFile(cluster.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := local.Start(t.Context(), local.Options{
		Binary: os.Getenv("WARIFU_E2E_BINARY"), Log: &log,
		Files: map[string][]byte{"cluster.pem": ca, "cluster.token": []byte(cluster.TokenOf(t, namespace,
			"warifu", "", time.Hour))},
		Config: fmt.Sprintf("trustedIssuers: [{issuer: %q, kubernetes: {server: %q, caFile: cluster.pem, tokenFile: "+
			"cluster.token}}]\n"+
			"oauth2: {grantTypes: [authorization_code, refresh_token, client_credentials, "+
			"\"urn:ietf:params:oauth:grant-type:token-exchange\"],\n"+
			"  resourceServers: [{identifier: \"https://api.example.com/\"}]}\n", cluster.Issuer, cluster.URL),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the server said:\n%s", &log)
		}
	})
	c, err := s.Deploy("shop", "clientName: shop",
		`grantTypes: [authorization_code, refresh_token, client_credentials, "urn:ietf:params:oauth:grant-type:token-exchange"]`,
		`redirectUris: ["http://127.0.0.1:*"]`, `scopes: [openid, profile, email, offline_access, "threads:read"]`,
		`tokenExchangeAudiences: ["https://api.example.com/"]`, "tokenEndpointAuthMethod: workload",
		fmt.Sprintf("identities: [{issuer: %q, subject: %q}]", cluster.Issuer, "system:serviceaccount:"+namespace+":web"))
	if err != nil {
		t.Fatal(err)
	}
	if c.ClientSecret != "" {
		t.Error("the app has a secret")
	}
	file := filepath.Join(t.TempDir(), "token")
	project := func(account, audience string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(cluster.TokenOf(t, namespace, account, audience, time.Hour)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	project("web", s.Issuer)
	visit := (&browser{t, s.Browser()}).visit

	modules(t)
	app := announced(t, c, "node", filepath.Join("node", "workload.js"), "OAUTH_ISSUER="+s.Issuer, "NODE_EXTRA_CA_CERTS="+
		s.CAFile,
		"OAUTH_CLIENT_ASSERTION_FILE="+file)
	for _, w := range []walk{{"/", everything}, own, {"/exchange", map[string]any{"own": true,
		"aud": "https://api.example.com/"}}} {
		checkPage(t, w, visit(app+w.path))
	}

	ctx := gooidc.ClientContext(t.Context(), &http.Client{Timeout: 10 * time.Second, Transport: &asserting{file: file,
		base: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Roots}}}})
	provider, err := gooidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	signsIn(t, ctx, provider, c, visit)
	service := clientcredentials.Config{ClientID: c.ClientID, TokenURL: provider.Endpoint().TokenURL,
		Scopes:    []string{"threads:read"},
		AuthStyle: oauth2.AuthStyleInParams}
	for _, wrong := range []struct{ rule, account, audience string }{
		{"of another service account", "other", s.Issuer}, {"for the cluster itself", "web", ""}, {"for somebody else", "web",
			"https://other.example.com"},
	} {
		project(wrong.account, wrong.audience)
		if _, err := service.Token(ctx); err == nil || !strings.Contains(err.Error(), "invalid_client") {
			t.Errorf("a token %s: %v", wrong.rule, err)
		}
	}
	project("web", s.Issuer)
	if _, err := service.Token(ctx); err != nil {
		t.Errorf("the renewed token: %v", err)
	}
	if _, err := s.Run("rotate", "shop"); err == nil || !strings.Contains(err.Error(), "nothing to rotate") {
		t.Errorf("rotate: %v", err)
	}
	if strings.Contains(log.String(), "eyJ") {
		t.Error("a token is in the log")
	}
}

// signsIn is an app on golang.org/x/oauth2: whoever visits it is signed in, and it refreshes.
func signsIn(t *testing.T, ctx context.Context, provider *gooidc.Provider, c local.Credentials,
	visit func(string) string) {
	t.Helper()
	mux := http.NewServeMux()
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)
	endpoint := provider.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	config := oauth2.Config{ClientID: c.ClientID, Endpoint: endpoint, RedirectURL: app.URL + "/callback",
		Scopes: []string{"openid", "email", "offline_access"}}
	verifier := oauth2.GenerateVerifier()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)), http.StatusSeeOther)
	})
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		token, err := config.Exchange(ctx, r.FormValue("code"), oauth2.VerifierOption(verifier))
		if err != nil {
			shown(w, nil, err)
			return
		}
		refreshed, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
		if err != nil {
			shown(w, nil, err)
			return
		}
		info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(refreshed))
		if err != nil {
			shown(w, nil, err)
			return
		}
		shown(w, map[string]any{"sub": info.Subject, "refreshed": refreshed.RefreshToken != token.RefreshToken}, nil)
	})
	checkPage(t, walk{"/", map[string]any{"sub": local.UserID, "refreshed": true}}, visit(app.URL+"/"))
}

// asserting adds the token of a workload to each form that is posted: golang.org/x/oauth2 has no place for it where it
// refreshes.
type asserting struct {
	file string
	base http.RoundTripper
}

func (a *asserting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost {
		return a.base.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(a.file)
	if err != nil {
		return nil, err
	}
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", string(token))
	next := r.Clone(r.Context())
	next.Body, next.ContentLength = io.NopCloser(strings.NewReader(form.Encode())), int64(len(form.Encode()))
	return a.base.RoundTrip(next)
}
