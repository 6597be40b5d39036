package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/warifu/warifu/conformance/local"
)

// apache takes directory, address, issuer, client id, client secret, certificate and backend: the configuration that
// the README of mod_auth_openidc shows, before a backend.
const apache = `ServerName localhost
ServerRoot %[1]s
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
Mutex file:%[1]s
Listen %[2]s
ErrorLog /dev/stderr
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule auth_openidc_module /usr/lib/apache2/modules/mod_auth_openidc.so
User www-data
Group www-data

OIDCProviderMetadataURL %[3]s/.well-known/openid-configuration
OIDCClientID %[4]s
OIDCClientSecret %[5]s
OIDCRedirectURI http://%[2]s/protected/redirect_uri
OIDCCryptoPassphrase of-a-test
OIDCScope "openid email profile"
OIDCPKCEMethod S256
OIDCCABundlePath %[6]s
OIDCRefreshAccessTokenBeforeExpiry 4

<Location /protected/>
  AuthType openid-connect
  Require claim email:ann@example.com
</Location>
<Location /protected/other>
  AuthType openid-connect
  Require claim email:bob@example.com
</Location>
ProxyPass /protected/ %[7]s/
`

func TestModAuthOpenIDC(t *testing.T) {
	const install = "apt-get install --no-install-recommends apache2 libapache2-mod-auth-openidc"
	need(t, "/usr/sbin/apache2", install)
	if _, err := os.Stat("/usr/lib/apache2/modules/mod_auth_openidc.so"); err != nil {
		t.Fatalf("mod_auth_openidc is missing; install it with: %s", install)
	}
	c := register(t, "apache")
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{
			"sub": r.Header.Get("OIDC_CLAIM_sub"), "email": r.Header.Get("OIDC_CLAIM_email"),
			"token": r.Header.Get("OIDC_access_token"),
		})
	}))
	t.Cleanup(backend.Close)
	dir, listen := t.TempDir(), freeAddress(t)
	config, certificate := filepath.Join(dir, "apache.conf"), filepath.Join(dir, "ca.pem")
	pem, err := os.ReadFile(server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(certificate, pem, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} { // www-data reads the certificate
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Appendf(nil, apache, dir, listen, c.Issuer, c.ClientID, c.ClientSecret, certificate, backend.URL)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nil, nil, "/usr/sbin/apache2", "-f", config, "-DFOREGROUND")
	address := "http://" + listen
	until(t, "Apache listens", answers(address+"/"))

	b := server.Browser()
	page, err := b.Visit(address + "/protected/page")
	if err != nil {
		t.Fatal(err)
	}
	shows(t, page, map[string]any{"sub": local.UserID, "email": local.Login})
	var first struct{ Token string }
	if err := json.Unmarshal([]byte(page), &first); err != nil {
		t.Fatal(err)
	}
	until(t, "the access token is replaced before it expires", func() bool {
		page, err := b.Visit(address + "/protected/page")
		if err != nil {
			t.Fatal(err)
		}
		var now struct{ Token string }
		return json.Unmarshal([]byte(page), &now) == nil && now.Token != first.Token
	})
	if _, err := b.Visit(address + "/protected/other"); err == nil {
		t.Error("a user whom the claim leaves out is let through")
	}
}
