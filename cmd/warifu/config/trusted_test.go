package config

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/workload"
)

const publicKeys = `{"keys":[{"kty":"EC","crv":"P-256","use":"jwt-svid","kid":"s","x":"QKrvCEV6Mx2cNcXBBaofJDA_36FzhbWtmZBJ5bSsvAg","y":"O5fAdi6gy-jsPH1fZL7UTiJ7A5peKV7H3TOsFzf7PBg"}]}`

func TestTrustedIssuersAreWired(t *testing.T) {
	bundle, token := secretFile(t, publicKeys), secretFile(t, "token-of-the-cluster")
	settings, err := wired(t, "trustedIssuers:\n- {issuer: \"spiffe://example.org\", jwksFile: "+bundle+
		", audience: warifu}\n"+
		"- {issuer: \"https://k.example.com\", kubernetes: {server: \"https://10.0.0.1:6443\", tokenFile: "+token+
		"}, algorithms: [RS256]}\n"+
		"- issuer: https://ci.example.com/\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []workload.Issuer{
		{Name: "spiffe://example.org", JWKSFile: bundle, Audience: "warifu"},
		{Name: "https://k.example.com", Kubernetes: &workload.Kubernetes{Server: "https://10.0.0.1:6443", TokenFile: token},
			Algorithms: []string{"RS256"}},
		{Name: "https://ci.example.com/"},
	}
	if got := settings.Provider.TrustedIssuers; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := (Cluster{Enabled: true}).api(); *got != (workload.Kubernetes{Server: inCluster, CAFile: inClusterCA,
		TokenFile: inClusterToken}) {
		t.Errorf("in the cluster itself: %+v", got)
	}
}

func TestFilesOfTrustedIssuersAreLookedAt(t *testing.T) {
	nowhere, empty := filepath.Join(t.TempDir(), "nowhere"), secretFile(t, `{"keys":[]}`)
	private := secretFile(t, "-----BEGIN PRIVATE KEY-----\nswordfish\n")
	symmetric := secretFile(t, `{"keys":[{"kty":"oct","k":"c3dvcmRmaXNo"}]}`)
	for text, want := range map[string]string{
		"jwksFile: " + nowhere:   ".jwksFile names " + nowhere + ", which does not exist",
		"jwksFile: " + empty:     "which has no public key",
		"jwksFile: " + symmetric: "which has no public key",
		"jwksFile: " + private:   "which holds a private key",
		"kubernetes: {caFile: " + empty + "}": ".kubernetes.caFile names " + empty +
			", which holds no PEM certificate",
		"kubernetes: {tokenFile: " + nowhere + "}":       ".kubernetes.tokenFile names " + nowhere,
		"kubernetes: {server: \"https://user:p@host/\"}": ".kubernetes.server must be an https URL",
	} {
		_, err := wired(t, "trustedIssuers: [{issuer: \"https://ci.example.com\", "+text+"}]\n")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
