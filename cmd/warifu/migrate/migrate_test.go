package migrate

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	dexstorage "github.com/dexidp/dex/storage"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/manifests/strictyaml"
)

var update = flag.Bool("update", false, "write the golden files")

// fixtures are the shapes of all configurations that Dex's repository has, and of those with which others run it.
var fixtures = []struct {
	file, issuer string
	environ      []string
	faulty       bool
}{
	{file: "dev.yaml"}, {file: "dist.yaml"}, {file: "docker.yaml.tmpl", faulty: true}, {file: "docker.yaml"},
	{file: "ad-kubelogin.yaml"}, {file: "grpc-client.yaml"}, {file: "kubernetes.yaml"}, {file: "ldap.yaml"},
	{file: "oidc-conformance.yaml.tmpl", faulty: true}, {file: "oidc-conformance.yaml"},
	{file: "argocd-cm.yaml"},
	{file: "kubeflow.yaml", issuer: "https://kubeflow.example.com/dex",
		environ: []string{"OIDC_CLIENT_ID=kubeflow-oidc-authservice"}},
	{file: "gangway.yaml"}, {file: "helm-values.yaml"}, {file: "secret.yaml"}, {file: "everything.yaml"},
	{file: "faults.yaml", faulty: true}, {file: "unclear.yaml", faulty: true}, {file: "nothing.yaml", faulty: true},
}

// TestConfigurationsOfDex: each migrates, with each key that is left over named, or is refused with the places of its
// faults.
func TestConfigurationsOfDex(t *testing.T) {
	for _, f := range fixtures {
		t.Run(f.file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", f.file))
			if err != nil {
				t.Fatal(err)
			}
			const dir = "/etc/warifu"
			result, err := Dex(f.file, data, Options{Dir: dir, Issuer: f.issuer, Environ: f.environ})
			var faults strictyaml.Faults
			if (err != nil) != f.faulty || err != nil && !errors.As(err, &faults) {
				t.Fatalf("error: %v", err)
			}
			golden(t, f.file+".txt", shown(result, faults))
			if err == nil {
				checkWritten(t, f.file, data, Options{Issuer: f.issuer, Environ: f.environ})
			}
		})
	}
}

var random = regexp.MustCompile(`(?m)^[A-Za-z0-9+/]{43}=$`)

// shown is all that a migration says and writes.
func shown(r *Result, faults strictyaml.Faults) []byte {
	var b bytes.Buffer
	for _, f := range faults {
		fmt.Fprintf(&b, "%s [%s]\n", f, f.Code)
	}
	if r == nil {
		return b.Bytes()
	}
	for _, l := range r.Leftovers {
		fmt.Fprintln(&b, l)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(&b, "note:", n)
	}
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "# %s\n%s\n", s.Why, s.Command)
	}
	for _, f := range r.Files {
		mode := ""
		if f.Secret {
			mode = " (secret)"
		}
		fmt.Fprintf(&b, "-- %s%s --\n%s", f.Path, mode, random.ReplaceAll(f.Content, []byte("(random)")))
	}
	return b.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it was (see with: go test ./cmd/warifu/migrate -update && git diff):\n%s", name, got)
	}
}

// checkWritten writes a migration, makes what is said to be missing, and holds it to what `warifu config validate` and
// `warifu plan` say.
func checkWritten(t *testing.T, name string, data []byte, o Options) {
	t.Helper()
	o.Dir = t.TempDir()
	result, err := Dex(name, data, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := result.Write(o.Dir); err != nil {
		t.Fatal(err)
	}
	settings, err := config.Read(filepath.Join(o.Dir, "config.yaml"), append(o.Environ, "GITHUB_CLIENT_ID=id",
		"GITHUB_CLIENT_SECRET=secret", "DEX_GITHUB_CLIENTSECRET=secret", "ANOTHER_SECRET_OIDC_OKTA_CLIENTSECRET=secret"))
	var faults strictyaml.Faults
	if err != nil && !errors.As(err, &faults) {
		t.Fatal(err)
	}
	for _, f := range faults {
		if f.Code != "file" { // those of Dex are not on this machine
			t.Errorf("warifu config validate: %s", f)
		}
	}
	if apps, _ := filepath.Glob(filepath.Join(o.Dir, "apps", "*.yml")); err == nil && len(apps) > 0 {
		_, faults := manifests.Load([]string{filepath.Join(o.Dir, "apps")}, nil, options(settings.Config))
		if errs := faults.Errors(); len(errs) > 0 {
			t.Errorf("warifu plan: %s", errs)
		}
	}
	for _, f := range result.Files {
		info, err := os.Stat(filepath.Join(o.Dir, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		if f.Secret && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %o", f.Path, info.Mode().Perm())
		}
		if !f.Secret && bytes.Contains(f.Content, []byte("ZXhhbXBsZS1hcHAtc2VjcmV0")) {
			t.Errorf("%s holds the secret of a client", f.Path)
		}
	}
	for _, s := range result.Steps {
		if strings.Contains(s.Command, "ZXhhbXBsZS1hcHAtc2VjcmV0") {
			t.Errorf("a command holds the secret of a client: %s", s.Command)
		}
	}
	if err := result.Write(o.Dir); err == nil || !strings.Contains(err.Error(), "config.yaml is there already") {
		t.Errorf("written twice: %v", err)
	}
}

// TestAllKeysOfAClientAreKnown holds the keys of clients to those that Dex has.
func TestAllKeysOfAClientAreKnown(t *testing.T) {
	var b strings.Builder
	b.WriteString(minimal + "staticClients:\n- secret: 0123456789abcdef\n")
	kind := reflect.TypeFor[dexstorage.Client]()
	for i := range kind.NumField() {
		key, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
		switch {
		case key == "secret", key == "secretEnv", key == "idEnv":
		case kind.Field(i).Type.Kind() == reflect.Slice:
			fmt.Fprintf(&b, "  %s: [https://app.example.com/callback]\n", key)
		case kind.Field(i).Type.Kind() == reflect.Bool:
			fmt.Fprintf(&b, "  %s: false\n", key)
		case kind.Field(i).Type.Kind() == reflect.String:
			fmt.Fprintf(&b, "  %s: standalone\n", key)
		default:
			fmt.Fprintf(&b, "  %s: {}\n", key)
		}
	}
	result, err := Dex("dex.yaml", []byte(b.String()), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range result.Leftovers {
		if strings.Contains(l.Reason, "no such key") {
			t.Error(l)
		}
	}
}

// minimal is what no configuration goes without.
const minimal = "issuer: https://id.example.com\nstorage: {type: memory}\nweb: {http: 127.0.0.1:0}\n"

// TestReferencesToTheEnvironment: what Dex takes from variables is not looked up, and no command holds other text.
func TestReferencesToTheEnvironment(t *testing.T) {
	const text = minimal + `
connectors:
- type: ldap
  id: ldap
  name: LDAP
  config:
    host: $HOST:636
    bindDN: cn=reader
    bindPW: 'a$1b$$c'
    userSearch: {baseDN: "dc=example", username: uid, idAttr: uid, emailAttr: mail}
enablePasswordDB: true
staticPasswords:
- {email: ann@example.com, userID: ann, hashFromEnv: 'A"; rm -rf /; "'}
`
	for _, c := range []struct {
		name, environ, want string
		steps               string
	}{
		{"expanded", "HOST=elsewhere.example.com", "host: $HOST:636", `: "${HOST:?}" && export HOST`},
		{"not expanded", "DEX_EXPAND_ENV=false", "host: $$HOST:636", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Dex("dex.yaml", []byte(text), Options{Dir: "/etc/warifu", Environ: []string{c.environ}})
			if err != nil {
				t.Fatal(err)
			}
			said := string(shown(r, nil))
			if !strings.Contains(said, c.want) || strings.Contains(said, "elsewhere") {
				t.Errorf("want %q in:\n%s", c.want, said)
			}
			if c.steps != "" && !strings.Contains(said, c.steps) {
				t.Errorf("want the step %q in:\n%s", c.steps, said)
			}
			for _, s := range r.Steps {
				if strings.Contains(s.Command, "rm -rf") {
					t.Errorf("a command holds text of the file: %s", s.Command)
				}
			}
		})
	}
}

// TestALogoComesAlongWhereItsFileIs finds it as Dex does: below the directory of its pages.
func TestALogoComesAlongWhereItsFileIs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "themes", "coreos", "logo.svg")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><path d="M0 0h8v8z"/></svg>`
	if err := os.WriteFile(file, []byte(svg), 0o644); err != nil {
		t.Fatal(err)
	}
	text := minimal + "frontend: {dir: " + dir + ", theme: coreos, logoURL: theme/logo.svg, issuer: Example}\n"
	r, err := Dex("dex.yaml", []byte(text), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	said := string(shown(r, nil))
	if !strings.Contains(said, "logoFile: "+file) || !strings.Contains(said, "name: Example") {
		t.Error(said)
	}
}

// TestAnotherIssuer: what has to be told elsewhere is named.
func TestAnotherIssuer(t *testing.T) {
	const text = minimal + `
connectors:
- type: github
  id: github
  name: GitHub
  config: {clientID: a, clientSecret: b, redirectURI: "https://id.example.com/callback"}
`
	r, err := Dex("dex.yaml", []byte(text), Options{Dir: t.TempDir(), Issuer: "https://new.example.com/auth"})
	if err != nil {
		t.Fatal(err)
	}
	said := string(shown(r, nil))
	for _, want := range []string{
		"issuer: https://new.example.com/auth\n", "redirectURI: https://new.example.com/auth/callback\n",
		"dex.yaml:1:1: issuer is https://new.example.com/auth from now on",
		"connectors[0].config.redirectURI is https://new.example.com/auth/callback from now on",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("want %q in:\n%s", want, said)
		}
	}
}

// TestNothingIsHalfWritten: a file that cannot be written takes those before it away.
func TestNothingIsHalfWritten(t *testing.T) {
	r, err := Dex("dex.yaml", []byte(minimal), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "apps"), nil, 0o600); err != nil { // where a directory has to be
		t.Fatal(err)
	}
	r.Files = append(r.Files, File{Path: "apps/one.yml"})
	if err := r.Write(dir); err == nil {
		t.Fatal("it was written")
	}
	if _, err := os.Stat(filepath.Join(dir, "config.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("config.yaml is left: %v", err)
	}
}

// TestSecondFactorsStayDemanded: an app is told of nobody who would not have got in at Dex by a second factor.
func TestSecondFactorsStayDemanded(t *testing.T) {
	const start = minimal + `
staticClients:
- {id: app, name: App, secret: 0123456789abcdef0123456789abcdef, redirectURIs: [https://app.example.com/callback], %s}
mfa:
  authenticators: [{id: phone, type: TOTP}, {id: key, type: webauthn}, {id: some, type: TOTP, connectorTypes: [ldap]}]
  %s
`
	for _, c := range []struct{ rule, client, all, want, left string }{
		{"nothing is asked for", "public: false", "defaultMFAChain: []", "", ""},
		{"the default", "public: false", "defaultMFAChain: [phone]", "mfa: required", ""},
		{"a chain of its own", "mfaChain: [key]", "defaultMFAChain: [phone]", "mfa: phishing-resistant", ""},
		{"all of the chain", "mfaChain: [key, phone]", "defaultMFAChain: []", "mfa: phishing-resistant", ""},
		{"an empty chain is one", "mfaChain: []", "defaultMFAChain: [key]", "", ""},
		{"not for everybody", "mfaChain: [some]", "defaultMFAChain: []", "", "mfa.authenticators[2].connectorTypes"},
		{"not there", "mfaChain: [gone, phone]", "defaultMFAChain: []", "mfa: required", "staticClients[0].mfaChain[0]"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			r, err := Dex("dex.yaml", fmt.Appendf(nil, start, c.client, c.all), Options{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			said := string(shown(r, nil))
			if c.want != "" && !strings.Contains(said, "access:\n      "+c.want) || c.want == "" &&
				strings.Contains(said, "access:") {
				t.Errorf("want %q in:\n%s", c.want, said)
			}
			if !strings.Contains(said, c.left) {
				t.Errorf("%s is not named:\n%s", c.left, said)
			}
		})
	}
}
