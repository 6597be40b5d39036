package config

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
)

// wired is what a server is built of.
func wired(t *testing.T, text string) (*Settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte(smallest+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Read(file, nil)
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const longSecret = "0123456789abcdef0123456789abcdef"

func TestOAuth2IsWired(t *testing.T) {
	settings, err := wired(t, `
oauth2:
  grantTypes: [authorization_code, refresh_token, "urn:ietf:params:oauth:grant-type:token-exchange"]
  idTokenClaims: standard
  resourceServers:
    - {id: billing, identifier: https://billing.example.com, secretFile: `+secretFile(t, longSecret)+`}
    - {identifier: https://spring.example.com, accessTokenType: JWT, accessTokenAlg: RS256}
  registration: {enabled: true, scopes: [openid, "threads:read"], initialAccessTokenFiles: [`+secretFile(t, longSecret)+`]}
  clientIDMetadataDocuments: true
`)
	if err != nil {
		t.Fatal(err)
	}
	got := settings.Provider
	if !slices.Equal(got.GrantTypes, []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken,
		oauth.GrantTokenExchange}) {
		t.Errorf("grant types: %v", got.GrantTypes)
	}
	if want := []server.ResourceServer{{ID: "billing", Identifier: "https://billing.example.com", Secret: longSecret},
		{Identifier: "https://spring.example.com", AccessTokenType: "JWT", AccessTokenAlg: "RS256"}}; !slices.Equal(
		got.ResourceServers, want) {
		t.Errorf("resource servers: %d", len(got.ResourceServers))
	}
	if got.IDTokenClaims != oauth.IDTokenStandard {
		t.Errorf("claims of ID tokens: %s", got.IDTokenClaims)
	}
	if got.Registration == nil || !slices.Equal(got.Registration.InitialAccessTokens, []string{longSecret}) ||
		!got.ClientIDMetadataDocuments || got.Outbound == nil {
		t.Error("registration, documents or outbound are not as configured")
	}
	if !slices.Equal(got.RegistrationScopes, []string{"openid", "threads:read"}) {
		t.Errorf("scopes of registrations: %q", got.RegistrationScopes)
	}
	if len(settings.Warnings) > 0 {
		t.Errorf("warnings: %v", settings.Warnings)
	}
}

// What clients without a manifest may ask for is of the catalogue; and a resource server is one, in whichever spelling.
func TestScopesOfRegistrationsAreOfTheCatalogue(t *testing.T) {
	secret := secretFile(t, longSecret)
	for text, want := range map[string]string{
		"oauth2: {registration: {scopes: [openid, 'threads:reed']}}": `oauth2.registration.scopes[1] is "threads:reed", which is not a scope of the catalogue (scopes) (did you mean "threads:read"?)`,
		"oauth2: {registration: {scopes: []}}": "oauth2.registration.scopes is empty: list what such " +
			"clients may ask for, or leave it out for all of the catalogue",
		"oauth2: {registration: {scopes: [openid, openid]}}": "oauth2.registration.scopes[1] is listed twice",
		"oauth2: {resourceServers: [{id: a, identifier: 'https://a.example.com', secretFile: " + secret +
			"}, {id: b, identifier: 'https://A.example.com:443/', secretFile: " + secret +
			"}]}": "oauth2.resourceServers[1].identifier is the same as oauth2.resourceServers[0].identifier",
	} {
		if _, err := wired(t, text+"\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if settings, err := wired(t, ""); err != nil || settings.Provider.RegistrationScopes != nil {
		t.Errorf("nothing configured: %v", err)
	}
}

// The key was true or false before it had hosts.
func TestClientDocumentsAreOnByOneWordOrForSomeHosts(t *testing.T) {
	for text, want := range map[string]ClientDocuments{
		"true": {Enabled: true}, "false": {}, "": {}, "{}": {Enabled: true},
		"{enabled: false, deny: [a.test]}":        {Deny: []string{"a.test"}},
		"{allow: ['*.a.test'], deny: [b.a.test]}": {Enabled: true, Allow: []string{"*.a.test"}, Deny: []string{"b.a.test"}},
	} {
		settings, err := wired(t, "oauth2: {clientIDMetadataDocuments: "+text+"}\n")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := settings.Provider
		if !reflect.DeepEqual(settings.OAuth2.ClientIDMetadataDocuments, want) ||
			got.ClientIDMetadataDocuments != want.Enabled ||
			!slices.Equal(got.ClientDocumentHosts.Allow, want.Allow) || !slices.Equal(got.ClientDocumentHosts.Deny, want.Deny) {
			t.Errorf("%s: %+v", text, settings.OAuth2.ClientIDMetadataDocuments)
		}
	}
	for _, text := range []string{"yes", "\"yes\"", "1", "[a.test]"} {
		if _, err := wired(t, "oauth2: {clientIDMetadataDocuments: "+text+"}\n"); err == nil ||
			!strings.Contains(err.Error(), "oauth2.clientIDMetadataDocuments must be") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestOAuth2IsCarefulByDefault(t *testing.T) {
	settings, err := wired(t, "")
	if err != nil {
		t.Fatal(err)
	}
	got := settings.Provider
	if !slices.Equal(got.GrantTypes, server.DefaultGrantTypes()) ||
		slices.Contains(got.GrantTypes, oauth.GrantTokenExchange) ||
		got.Registration != nil || got.ClientIDMetadataDocuments || len(got.ResourceServers) > 0 {
		t.Errorf("%+v", got)
	}
	if _, err := got.Outbound.Get(context.Background(), "http://127.0.0.1:1/", "", 1); !errors.Is(err,
		outbound.ErrRefused) {
		t.Errorf("loopback: %v", err)
	}
}

func TestOpenRegistrationIsWarnedOf(t *testing.T) {
	settings, err := wired(t, "oauth2: {registration: {enabled: true}}\n")
	if err != nil {
		t.Fatal(err)
	}
	got, warnings := settings.Provider.Registration, settings.Warnings
	if got == nil || len(got.InitialAccessTokens) > 0 || len(warnings) != 1 || !strings.Contains(warnings[0].String(),
		"anyone can register") || warnings[0].Line != 3 {
		t.Errorf("%+v, %v", got, warnings)
	}
}

func TestSecretsOfOAuth2AreLongFiles(t *testing.T) {
	short, nowhere := secretFile(t, "swordfish"), filepath.Join(t.TempDir(), "nowhere")
	for text, want := range map[string]string{
		"oauth2: {resourceServers: [{id: a, identifier: urn:a, secretFile: " + short +
			"}]}\n": "oauth2.resourceServers[0].secretFile names " + short + ", which must hold at least 32 characters",
		"oauth2: {resourceServers: [{id: a, identifier: urn:a, secretFile: " + nowhere +
			"}]}\n": "oauth2.resourceServers[0].secretFile names " + nowhere + ", which does not exist",
		"oauth2: {registration: {enabled: true, initialAccessTokenFiles: [" + short +
			"]}}\n": "oauth2.registration.initialAccessTokenFiles[0] names " + short + ", which must hold",
		"outbound: {caFile: " + nowhere + "}\n": "outbound.caFile names " +
			nowhere + ", which does not exist",
		"outbound: {caFile: " + short + "}\n": "outbound.caFile names " +
			short + ", which holds no PEM certificate",
	} {
		if _, err := wired(t, text); err == nil || !strings.Contains(err.Error(), "c.yaml:3:") ||
			!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What outbound allows is reached, by plain http too, and the authorities are those of caFile.
func TestOutboundIsWired(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	ca := secretFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	settings, err := wired(t, "outbound: {allow: [127.0.0.0/8], caFile: "+ca+"}\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{plain.URL, secure.URL} {
		if _, err := settings.Provider.Outbound.Get(t.Context(), address, "", 10); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestOAuth2FromTheEnvironment(t *testing.T) {
	cfg, err := parse("c.yaml", []byte(smallest), []string{
		"WARIFU_OAUTH2_GRANT_TYPES=authorization_code,refresh_token,client_credentials",
		"WARIFU_OAUTH2_CLIENT_ID_METADATA_DOCUMENTS=true",
		"WARIFU_OAUTH2_CLIENT_ID_METADATA_DOCUMENTS_DENY=a.test,*.b.test",
		"WARIFU_OAUTH2_REGISTRATION_ENABLED=true", "WARIFU_OAUTH2_REGISTRATION_INITIAL_ACCESS_TOKEN_FILES=/a, /b",
		"WARIFU_OUTBOUND_ALLOW=10.0.0.0/8,fd00::/8", "WARIFU_OUTBOUND_CA_FILE=/ca.pem",
	})
	if err != nil {
		t.Fatal(err)
	}
	o := cfg.OAuth2
	if len(o.GrantTypes) != 3 || !o.ClientIDMetadataDocuments.Enabled || !slices.Equal(o.ClientIDMetadataDocuments.Deny,
		[]string{"a.test", "*.b.test"}) || !o.Registration.Enabled || !slices.Equal(o.Registration.InitialAccessTokenFiles,
		[]string{"/a", "/b"}) ||
		!slices.Equal(cfg.Outbound.Allow, []string{"10.0.0.0/8", "fd00::/8"}) || cfg.Outbound.CAFile != "/ca.pem" {
		t.Errorf("%+v %+v", o, cfg.Outbound)
	}
	_, err = parse("c.yaml", []byte(smallest), []string{"WARIFU_OAUTH2_GRANT_TYPES=authorization_code",
		"WARIFU_OUTBOUND_ALLOW=10.0.0.1"})
	want := `$WARIFU_OAUTH2_GRANT_TYPES: oauth2.grantTypes must hold refresh_token: it cannot be switched off
$WARIFU_OUTBOUND_ALLOW: outbound.allow[0] must be a network, as in 10.0.0.0/8, but is "10.0.0.1" (did you mean "10.0.0.1/32"?)`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v", err)
	}
}

// Packages server and manifests do not know each other: what one offers, the other must let apps ask for.
func TestManifestsKnowEveryGrantType(t *testing.T) {
	for _, name := range oauth.GrantTypes() {
		text := "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: a}\nspec:\n  version: 1.0.0\n" +
			"  oauth: {clientName: A, scopes: [openid], " +
			"redirectUris: [https://a.example/], grantTypes: [authorization_code, \"" + name + "\"]}\n"
		if name == oauth.GrantTokenExchange {
			text = strings.Replace(text, "]}\n", "], tokenExchangeAudiences: [urn:a]}\n", 1)
		}
		if name == oauth.GrantAuthorizationCode {
			text = strings.Replace(text, "authorization_code, ", "", 1)
		}
		if _, faults := manifests.Parse("app.yml", []byte(text), manifests.Options{GrantTypes: oauth.GrantTypes()}); len(
			faults) > 0 {
			t.Errorf("%s: %v", name, faults)
		}
		if _, faults := manifests.Parse("app.yml", []byte(text), manifests.Options{}); len(faults) > 0 {
			t.Errorf("%s, without a server at hand: %v", name, faults)
		}
		if !bytes.Contains(manifests.Schema(), []byte(`"`+name+`"`)) {
			t.Errorf("the schema does not know %s", name)
		}
	}
}

// Both know OpenID Connect's scopes: manifests by name, the server by what it tells users of them.
func TestStandardScopesAreThoseOfEveryCatalogue(t *testing.T) {
	if got := server.ScopeNames(nil); !slices.Equal(got, oauth.StandardScopes()) {
		t.Errorf("an empty catalogue has %q", got)
	}
}
