package dex

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/keytab"
	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/server/connector"
)

// Whoever runs Dex brings their configuration along: every kind opens from all the keys that Dex has for it.
func TestEveryKindOpensFromItsDocumentedConfiguration(t *testing.T) {
	text, err := os.ReadFile("testdata/documented.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var documented []struct {
		Type   string
		Config any
	}
	if err := yaml.Unmarshal([]byte(documentedFiles(t).Replace(string(text))), &documented); err != nil {
		t.Fatal(err)
	}
	keys := map[string][]string{}
	for _, d := range documented {
		data, err := json.Marshal(d.Config)
		if err != nil {
			t.Fatal(err)
		}
		keys[d.Type] = append(keys[d.Type], keysIn("", d.Config)...)
		made, faults := New(Spec{
			Type: d.Type, ID: "an-id", Config: data, Trusted: func(string) bool { return true },
			Callbacks: []string{"https://login.example.test/callback/an-id", "https://login.example.test/callback"},
		})
		if len(faults) > 0 || made.ID != "an-id" || (made.Password == nil) == (made.Redirect == nil) {
			t.Errorf("%s: %+v", d.Type, faults)
			continue
		}
		upstreams := map[string]bool{"google": true, "openshift": true} // are asked when they are opened
		if made.Redirect != nil && !upstreams[d.Type] {
			ask := connector.Ask{State: "s", Nonce: "n"}
			if away, err := made.Redirect.Start(t.Context(), ask); err != nil || !strings.Contains(away.URL, "state=s") {
				t.Errorf("%s: %q, %v", d.Type, away.URL, err)
			}
		}
	}
	for _, k := range kinds {
		if k.name == "oidc" || strings.HasPrefix(k.name, "saml") {
			continue // have tests of their own
		}
		for _, key := range keysOf("", reflect.TypeOf(k.config()).Elem()) {
			if !slices.Contains(keys[k.name], key) {
				t.Errorf("%s: the key %s is in none of the documented configurations", k.name, key)
			}
		}
	}
}

// keysIn are the paths of all keys in a value, without the numbers of lists.
func keysIn(path string, value any) (keys []string) {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			at := join(path, key)
			keys = append(append(keys, at), keysIn(at, below)...)
		}
	case []any:
		for _, item := range v {
			keys = append(keys, keysIn(path, item)...)
		}
	}
	return keys
}

// keysOf are the paths of all keys that a configuration takes.
func keysOf(path string, t reflect.Type) (keys []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	names, fields := fieldsOf(t)
	for i, name := range names {
		at := join(path, name)
		keys = append(append(keys, at), keysOf(at, t.Field(fields[i]).Type)...)
	}
	return keys
}

// documentedFiles writes the files that the documented configurations name.
func documentedFiles(t *testing.T) *strings.Replacer {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(data []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now(),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
		Bytes: must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))})
	accountKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	accountPEM := &pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(accountKey))}
	account := map[string]string{
		"type": "service_account", "client_email": "a@b.test", "private_key": string(pem.EncodeToMemory(accountPEM)),
	}
	table := keytab.New()
	if err := table.AddEntry("HTTP/login.example.test", "EXAMPLE.TEST", "password", time.Now(), 1, 18); err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(
		"CADATA", base64.StdEncoding.EncodeToString(certificate), "CA\n", write("ca.pem", certificate)+"\n",
		"[CA]", fmt.Sprintf("[%s]", filepath.Join(dir, "ca.pem")), "CERT", write("cert.pem", certificate),
		"KEYTAB", write("keytab", must(table.Marshal())),
		"KEY\n", write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY",
			Bytes: must(x509.MarshalECPrivateKey(key))}))+"\n",
		"ACCOUNT", write("account.json", must(json.Marshal(account))), "TOKEN", write("token", []byte("jwt")))
}
