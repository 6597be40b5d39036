//go:build kubernetes

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/conformance/local"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/kubetest"
)

// A real server with this runtime as its plugin: an app is applied, runs with its secret, the secret is rotated, and in
// the end the app needs none. What its pods have is asked of the controller; with that the app gets tokens.
func TestServerDeploysRotatesAndDeletesAnApp(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	w.ServiceAccount(t, w.namespace, "web")
	w.ServiceAccount(t, w.namespace, "issuer")
	binaries := built(t)
	ca, err := os.ReadFile(w.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	log := &said{}
	s, err := local.Start(t.Context(), local.Options{
		Binary: binaries.warifu, Log: log,
		Files: map[string][]byte{"cluster.pem": ca, "cluster.token": []byte(w.TokenOf(t, w.namespace,
			"issuer", "", time.Hour))},
		Config: fmt.Sprintf("trustedIssuers: [{issuer: %q, kubernetes: {server: %q, caFile: cluster.pem, tokenFile: "+
			"cluster.token}}]\n"+
			"oauth2: {grantTypes: [authorization_code, refresh_token, client_credentials]}\n"+
			"plugins: {runtimes: [{name: kubernetes, path: %q, config: {kubeconfig: %q}}]}\n", w.Issuer, w.URL, binaries.plugin,
			w.kubeconfig),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the server said:\n%s", log)
		}
	})
	of := w.workload("Deployment", "web", at)
	w.Deploy(t, of)
	c := w.control(t)
	apply := func(method string) {
		t.Helper()
		if err := s.Apply(fmt.Appendf(nil, "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: %s}\nspec:\n"+
			"  version: 1.0.0\n"+
			"  oauth:\n    clientName: Shop\n    autoEnv: true\n    grantTypes: [client_credentials]\n"+
			"    scopes: [\"threads:read\"]\n    %s\n"+
			"  containers: {web: {port: 8080}}\n", appName, method)); err != nil {
			t.Fatal(err)
		}
	}
	// runs waits until the app's pod has another environment than before, and gives it.
	stamp := ""
	runs := func() map[string]string {
		t.Helper()
		w.until(t, "a pod with the new environment runs", func() bool {
			pod := c.running(of.Name)
			return pod != nil && pod.template != stamp && pod.env["OAUTH_CLIENT_ID"] != ""
		})
		pod := c.running(of.Name)
		stamp = pod.template
		return pod.env
	}
	client := &http.Client{Timeout: 10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Roots}}}
	token := func(env map[string]string, more ...string) error {
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {env["OAUTH_CLIENT_ID"]},
			"scope": {"threads:read"}}
		for i := 0; i < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		if secret := env["OAUTH_CLIENT_SECRET"]; secret != "" {
			form.Set("client_secret", secret)
		}
		resp, err := client.PostForm(env["OAUTH_ISSUER"]+"/oauth/token", form)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }() // read to its end
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%d %s", resp.StatusCode, answer)
		}
		return err
	}

	apply("tokenEndpointAuthMethod: client_secret_post")
	first := runs()
	if err := token(first); err != nil {
		t.Errorf("with the secret of the Secret: %v", err)
	}
	if has, err := s.Credentials(appName); err != nil || has.ClientSecret != first["OAUTH_CLIENT_SECRET"] {
		t.Errorf("the pod has another secret (%v)", err)
	}
	if _, err := s.Run("rotate", appName, "--grace", "0s", "--wait"); err != nil {
		t.Fatal(err)
	}
	second := runs()
	if err := token(second); err != nil || first["OAUTH_CLIENT_SECRET"] == second["OAUTH_CLIENT_SECRET"] {
		t.Errorf("with the secret that was rotated in: %v", err)
	}
	w.until(t, "the old secret is retired", func() bool {
		err := token(first)
		return err != nil && strings.Contains(err.Error(), "invalid_client")
	})

	// From now on without a secret.
	subject := "system:serviceaccount:" + w.namespace + ":web"
	apply(fmt.Sprintf("tokenEndpointAuthMethod: workload\n    identities: [{issuer: %q, subject: %q}]", w.Issuer, subject))
	third := runs()
	if third["OAUTH_CLIENT_SECRET"] != "" || third[variableAssertion] == "" {
		t.Error("the pod has a secret, or no path of a token")
	}
	var projected struct {
		Audience, Path    string
		ExpirationSeconds int
	}
	volumes, _ := kubetest.Field(w.Do(t, http.MethodGet, of.Path(), nil), "spec", "template", "spec", "volumes").([]any)
	if len(volumes) == 1 {
		sources, _ := kubetest.Field(volumes[0].(map[string]any), "projected", "sources").([]any)
		if err := remarshal(kubetest.Field(sources[0].(map[string]any), "serviceAccountToken"), &projected); err != nil {
			t.Fatal(err)
		}
	}
	if projected.Audience != s.Issuer || projected.Path != filepath.Base(third[variableAssertion]) {
		t.Fatalf("the pod gets %+v", projected)
	}
	const assertion = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// As a kubelet does
	jwt := w.TokenOf(t, w.namespace, "web", projected.Audience, time.Duration(projected.ExpirationSeconds)*time.Second)
	if err := token(third, "client_assertion_type", assertion, "client_assertion", jwt); err != nil {
		t.Errorf("with the token of the service account: %v", err)
	}
	if err := token(second); err == nil {
		t.Error("the secret still counts")
	}

	if _, err := s.Run("delete", "app", appName, "--yes"); err != nil {
		t.Fatal(err)
	}
	w.until(t, "everything of the app is gone", func() bool {
		return w.Get(t, w.secretPath(at)) == nil && len(w.serving(t, of, "main")) == 0
	})
	for _, value := range []string{first["OAUTH_CLIENT_SECRET"], second["OAUTH_CLIENT_SECRET"], jwt} {
		if value == "" || strings.Contains(log.String(), value) {
			t.Error("the server's log holds a secret")
		}
	}
	out, err := s.Run("get", "deliveries", "-o", "json")
	if err != nil || json.Valid(out) && bytes.Contains(out, []byte(plugins.TargetContainer+"/web")) {
		t.Errorf("deliveries %s %v", out, err)
	}
}

// binaries are the programs as they are shipped.
type binaries struct{ warifu, plugin string }

func built(t *testing.T) binaries {
	t.Helper()
	out := binaries{os.Getenv("WARIFU_E2E_BINARY"), os.Getenv("WARIFU_RUNTIME_KUBERNETES")}
	for _, file := range []string{out.warifu, out.plugin} {
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("WARIFU_E2E_BINARY and WARIFU_RUNTIME_KUBERNETES name no programs: %v; run make kubernetes", err)
		}
	}
	return out
}

// said is a log that is read while the server writes it.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}
