package config

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/oauth"
)

func TestOAuth2FromTheEnvironment(t *testing.T) {
	cfg, err := Parse("c.yaml", []byte(smallest), []string{
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
	_, err = Parse("c.yaml", []byte(smallest), []string{"WARIFU_OAUTH2_GRANT_TYPES=authorization_code", "WARIFU_OUTBOUND_ALLOW=10.0.0.1"})
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
