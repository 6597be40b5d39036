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
  resourceServers: [{id: billing, identifier: https://billing.example.com, secretFile: `+secretFile(t, longSecret)+`}]
  registration: {enabled: true, initialAccessTokenFiles: [`+secretFile(t, longSecret)+`]}
  clientIDMetadataDocuments: true
`)
	if err != nil {
		t.Fatal(err)
	}
	got := settings.Provider
	if !slices.Equal(got.GrantTypes, []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantTokenExchange}) {
		t.Errorf("grant types: %v", got.GrantTypes)
	}
	if want := (server.ResourceServer{ID: "billing", Identifier: "https://billing.example.com", Secret: longSecret}); len(got.ResourceServers) != 1 || got.ResourceServers[0] != want {
		t.Errorf("resource servers: %d", len(got.ResourceServers))
	}
	if got.Registration == nil || !slices.Equal(got.Registration.InitialAccessTokens, []string{longSecret}) || !got.ClientIDMetadataDocuments || got.Outbound == nil {
		t.Error("registration, documents or outbound are not as configured")
	}
	if len(settings.Warnings) > 0 {
		t.Errorf("warnings: %v", settings.Warnings)
	}
}

func TestOAuth2IsCarefulByDefault(t *testing.T) {
	settings, err := wired(t, "")
	if err != nil {
		t.Fatal(err)
	}
	got := settings.Provider
	if !slices.Equal(got.GrantTypes, server.DefaultGrantTypes()) || slices.Contains(got.GrantTypes, oauth.GrantTokenExchange) ||
		got.Registration != nil || got.ClientIDMetadataDocuments || len(got.ResourceServers) > 0 {
		t.Errorf("%+v", got)
	}
	if _, err := got.Outbound.Get(context.Background(), "http://127.0.0.1:1/", "", 1); !errors.Is(err, outbound.ErrRefused) {
		t.Errorf("loopback: %v", err)
	}
}

func TestOpenRegistrationIsWarnedOf(t *testing.T) {
	settings, err := wired(t, "oauth2: {registration: {enabled: true}}\n")
	if err != nil {
		t.Fatal(err)
	}
	got, warnings := settings.Provider.Registration, settings.Warnings
	if got == nil || len(got.InitialAccessTokens) > 0 || len(warnings) != 1 || !strings.Contains(warnings[0].String(), "anyone can register") || warnings[0].Line != 3 {
		t.Errorf("%+v, %v", got, warnings)
	}
}

func TestSecretsOfOAuth2AreLongFiles(t *testing.T) {
	short, nowhere := secretFile(t, "swordfish"), filepath.Join(t.TempDir(), "nowhere")
	for text, want := range map[string]string{
		"oauth2: {resourceServers: [{id: a, identifier: urn:a, secretFile: " + short + "}]}\n":   "oauth2.resourceServers[0].secretFile names " + short + ", which must hold at least 32 characters",
		"oauth2: {resourceServers: [{id: a, identifier: urn:a, secretFile: " + nowhere + "}]}\n": "oauth2.resourceServers[0].secretFile names " + nowhere + ", which does not exist",
		"oauth2: {registration: {enabled: true, initialAccessTokenFiles: [" + short + "]}}\n":    "oauth2.registration.initialAccessTokenFiles[0] names " + short + ", which must hold",
		"outbound: {caFile: " + nowhere + "}\n":                                                  "outbound.caFile names " + nowhere + ", which does not exist",
		"outbound: {caFile: " + short + "}\n":                                                    "outbound.caFile names " + short + ", which holds no PEM certificate",
	} {
		if _, err := wired(t, text); err == nil || !strings.Contains(err.Error(), "c.yaml:3:") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "swordfish") {
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
		"WARIFU_OAUTH2_GRANT_TYPES=authorization_code,refresh_token,client_credentials", "WARIFU_OAUTH2_CLIENT_ID_METADATA_DOCUMENTS=true",
		"WARIFU_OAUTH2_REGISTRATION_ENABLED=true", "WARIFU_OAUTH2_REGISTRATION_INITIAL_ACCESS_TOKEN_FILES=/a, /b",
		"WARIFU_OUTBOUND_ALLOW=10.0.0.0/8,fd00::/8", "WARIFU_OUTBOUND_CA_FILE=/ca.pem",
	})
	if err != nil {
		t.Fatal(err)
	}
	o := cfg.OAuth2
	if len(o.GrantTypes) != 3 || !o.ClientIDMetadataDocuments || !o.Registration.Enabled || !slices.Equal(o.Registration.InitialAccessTokenFiles, []string{"/a", "/b"}) ||
		!slices.Equal(cfg.Outbound.Allow, []string{"10.0.0.0/8", "fd00::/8"}) || cfg.Outbound.CAFile != "/ca.pem" {
		t.Errorf("%+v %+v", o, cfg.Outbound)
	}
	_, err = parse("c.yaml", []byte(smallest), []string{"WARIFU_OAUTH2_GRANT_TYPES=authorization_code", "WARIFU_OUTBOUND_ALLOW=10.0.0.1"})
	want := `$WARIFU_OAUTH2_GRANT_TYPES: oauth2.grantTypes must hold refresh_token: it cannot be switched off
$WARIFU_OUTBOUND_ALLOW: outbound.allow[0] must be a network, as in 10.0.0.0/8, but is "10.0.0.1" (did you mean "10.0.0.1/32"?)`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v", err)
	}
}

// Packages server and manifests do not know each other: what one offers, the other must let apps ask for.
func TestManifestsKnowEveryGrantType(t *testing.T) {
	for _, name := range oauth.GrantTypes() {
		text := "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: a}\nspec:\n  version: 1.0.0\n  oauth: {clientName: A, scopes: [openid], " +
			"redirectUris: [https://a.example/], grantTypes: [authorization_code, \"" + name + "\"]}\n"
		if name == oauth.GrantAuthorizationCode {
			text = strings.Replace(text, "authorization_code, ", "", 1)
		}
		if _, faults := manifests.Parse("app.yml", []byte(text), manifests.Options{GrantTypes: oauth.GrantTypes()}); len(faults) > 0 {
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
