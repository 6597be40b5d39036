//go:build kubernetes

package kubetest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestServerMakesTokensOfServiceAccounts(t *testing.T) {
	c := Start(t)
	ns := c.Namespace(t)
	c.ServiceAccount(t, ns, "web")
	token := c.TokenOf(t, ns, "web", "https://id.example.com", 10*time.Minute)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Iss, Sub string
		Aud      []string
		Iat, Exp int64
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.Iss != c.Issuer || claims.Sub != "system:serviceaccount:"+ns+":web" || len(claims.Aud) != 1 ||
		claims.Aud[0] != "https://id.example.com" || claims.Exp-claims.Iat != 600 {
		t.Fatalf("%s", payload)
	}
	// Whoever is authenticated finds the keys.
	own := c.TokenOf(t, ns, "web", "", 10*time.Minute)
	status, answer, err := c.Ask(t.Context(), own, http.MethodGet, "/.well-known/openid-configuration", nil)
	if err != nil || status != http.StatusOK {
		t.Fatal(status, err, string(answer))
	}
	var discovery struct {
		Issuer string
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(answer, &discovery); err != nil || discovery.Issuer != c.Issuer ||
		discovery.JWKS != c.URL+"/openid/v1/jwks" {
		t.Fatalf("%s %v", answer, err)
	}
	// And may nothing else.
	status, answer, err = c.Ask(t.Context(), own, http.MethodGet, "/api/v1/namespaces/"+ns+"/secrets", nil)
	if err != nil || status != http.StatusForbidden {
		t.Fatal(status, err, string(answer))
	}
}

func TestWorkloadsAreRolledOut(t *testing.T) {
	c := Start(t)
	ns := c.Namespace(t)
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		w := Workload{Kind: kind, Namespace: ns, Name: strings.ToLower(kind), Replicas: 2}
		c.Deploy(t, w)
		c.RollOut(t, w)
		now := c.Do(t, http.MethodGet, w.Path(), nil)
		if Field(now, "status", "observedGeneration") != Field(now, "metadata", "generation") {
			t.Errorf("%s: %v", kind, now["status"])
		}
	}
}
