package e2e

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/warifu/warifu/conformance/local"
)

// A resource server that is told nothing but the issuer and its own identifier. It takes JWTs of the type JWT alone, so
// its manifest asks for that type.
func TestSpringResourceServer(t *testing.T) {
	need(t, "mvn", "apt-get install maven openjdk-17-jdk-headless")
	need(t, "keytool", "apt-get install maven openjdk-17-jdk-headless")
	const audience = "https://threads.example.com/api"
	register(t, "spring-api", "resourceIdentifiers: ["+audience+"]", "accessTokenType: JWT")
	token := tokens(t, register(t, "spring-caller"), []string{"openid", "threads:read"},
		oauth2.SetAuthURLParam("resource", audience))

	target, trust, listen := filepath.Join(cache(t), "spring"), filepath.Join(t.TempDir(), "trust.p12"), freeAddress(t)
	build(t, "spring", "mvn", "--batch-mode", "--quiet", "-Dtarget="+target, "package")
	build(t, ".", "keytool", "-importcert", "-noprompt", "-file", server.CAFile, "-keystore", trust,
		"-storepass", "changeit")
	run(t, []string{"OAUTH_ISSUER=" + server.Issuer, "AUDIENCE=" + audience}, nil, "java", "-Djavax.net.ssl.trustStore="+
		trust,
		"-Djavax.net.ssl.trustStorePassword=changeit", "-jar", filepath.Join(target, "spring.jar"),
		"--server.address=127.0.0.1", "--server.port="+listen[strings.LastIndex(listen, ":")+1:])
	me := "http://" + listen + "/me"
	until(t, "Spring listens", answers(me))

	status, page := called(t, me, token.AccessToken)
	if status != http.StatusOK {
		t.Fatalf("with an access token: status %d: %s", status, page)
	}
	shows(t, page, map[string]any{"sub": local.UserID, "scopes": []any{"SCOPE_openid", "SCOPE_threads:read"}})
	other := tokens(t, register(t, "spring-caller"), []string{"openid"})
	if status, _ := called(t, me, other.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("with an access token for somebody else: status %d", status)
	}
}

// called calls an API with an access token.
func called(t *testing.T, address, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate") + string(body)
}
