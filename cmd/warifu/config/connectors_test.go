package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/connector"
)

// written makes a configuration with connectors, in a directory of its own.
func written(t *testing.T, connectors string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	text := smallest + "storage: {config: {dataDir: " + dir + "}}\n" + connectors
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// faultsOf are the faults of a configuration, each as line:column: message [code].
func faultsOf(t *testing.T, file string, environ ...string) string {
	t.Helper()
	_, err := Read(file, environ)
	var faults strictyaml.Faults
	if err != nil && !errors.As(err, &faults) {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "%s [%s]\n", strings.TrimPrefix(f.String(), file+":"), f.Code)
	}
	return b.String()
}

// What Dex's code would lose without a word has its place, in lists as well.
func TestFaultsBelowConfigHaveTheirPlace(t *testing.T) {
	file := written(t, `connectors:
  - type: ldap
    id: ldap
    name: LDAP
    config:
      host: ldap.example.com:636
      bindDm: cn=admin
      bindPW: 12345
      userSearch:
        baseDm: ou=people
        username: uid
      groupSearch:
        baseDN: ou=groups
        userMatchers:
          - userAttr: DN
            groupAtr: member
  - type: oidc
    id: other
    name: Other
    refreshUpstream: 15m
    config: {issuer: "https://login.example.com", clientID: warifu, clientSecret: x, redirectURI: "https://id.example.com/cb"}
  - {type: ldpa, id: x, name: X}
  - {type: oauth, id: plain, name: Plain, refreshUpstream: 15m, config: {clientID: a, clientSecret: b, tokenURL: "https://a.test/", authorizationURL: "https://a.test/", userInfoURL: "https://a.test/"}}
  - {type: github, id: ldap, name: Twin, config: {clientID: $UNSET_ID, orgs: [{nam: x}]}}
`)
	got := faultsOf(t, file)
	for _, want := range []string{
		`10:7: connectors[0].config.bindDm `, `(did you mean "bindDN"?) [unknown-key]`,
		`11:7: connectors[0].config.bindPW must be a text: put the number in quotes [type]`,
		`13:9: connectors[0].config.userSearch.baseDm `,
		`19:13: connectors[0].config.groupSearch.userMatchers[0].groupAtr `, `(did you mean "groupAttr"?) [unknown-key]`,
		`24:86: connectors[1].config.redirectURI must be `,
		`25:12: connectors[2].type must be one of `, `but is "ldpa" (did you mean "ldap"?) [value]`,
		`26:73: connectors[3].config is of a type that cannot be asked again about its users`,
		`27:24: connectors[4].id is the same as connectors[0].id`,
		`27:51: connectors[4].config.clientID needs the variable UNSET_ID `,
		`27:80: connectors[4].config.orgs[0].nam `, `(did you mean "name"?)`,
		`connectors[4].config.clientSecret is required`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no fault %q in:\n%s", want, got)
		}
	}
}

const anUpstream = `connectors:
  - type: oidc
    id: example
    name: Example
    config:
      issuer: ${HOST}/realms/a
      clientID: cost$$5$
      scopes: [$SCOPE, "^x$|y"]
      %s
`

// All faults are told at once: those of an id do not hide those of the settings.
func TestConfigOfAConnectorIsReadWhateverItsIDIs(t *testing.T) {
	file := written(t, `connectors:
  - {type: github, id: hub, name: Hub, config: {clientID: a, clientSecret: b}}
  - {type: github, id: hub, name: Hub, config: {clientID: a, clientSecret: b, orgz: x}}
  - {type: github, id: a/b, name: Hub, config: {clientID: a, clientSecret: b, orgz: x, redirectURI: "https://x.test/cb"}}
`)
	want := `6:24: connectors[1].id is the same as connectors[0].id [duplicate]
6:79: connectors[1].config.orgz is not a key of this type of connector (did you mean "org"?) [unknown-key]
7:24: connectors[2].id must be 1 to 64 letters, digits and -._~, but is "a/b" [value]
7:79: connectors[2].config.orgz is not a key of this type of connector (did you mean "org"?) [unknown-key]
`
	if got := faultsOf(t, file); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// Variables stand for their values in all texts below config, as with Dex, and nowhere else; a secret may be in a file.
func TestSecretsOfConnectorsComeFromTheEnvironmentOrAFile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"HOST=https://login.example.com", "SCOPE=groups", "SECRET=it's \"$HOST\""}
	for line, want := range map[string]string{
		"clientSecret: $SECRET":              `it's \"$HOST\"`,
		"clientSecretFile: " + secret:        "from the file",
		`clientSecretFile: "` + secret + `"`: "from the file",
	} {
		s, err := Read(written(t, fmt.Sprintf(anUpstream, line)), environ)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.TrimSpace(string(s.upstreams[0].Spec.Config)), `{"clientID":"cost$5$","clientSecret":"`+want+
			`","issuer":"https://login.example.com/realms/a","scopes":["groups","^x$|y"]}`; got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
		made, err := s.Upstreams(slog.New(slog.DiscardHandler), nil)
		if err != nil || len(made) != 1 || made[0].ID != "example" || made[0].Name != "Example" || made[0].Redirect == nil {
			t.Errorf("made %+v, %v", made, err)
		}
		if ids := s.ConnectorIDs(); !slices.Equal(ids, []string{"local", "example"}) {
			t.Errorf("ids: %v", ids)
		}
		if !reflect.DeepEqual(s.Config.Connectors[0].Config["issuer"], "${HOST}/realms/a") {
			t.Error("the configuration itself has changed")
		}
	}
}

func TestMissingSecretsOfConnectorsAreFaults(t *testing.T) {
	for line, want := range map[string]string{
		"clientSecret: $SECRET": "12:7: connectors[0].config.clientSecret needs the variable SECRET of the environment, " +
			"which is not set (write $$ for a dollar sign that does not begin a variable) [variable]\n",
		"clientSecretFile: /nowhere/secret": "12:7: connectors[0].config.clientSecretFile names /nowhere/secret, " +
			"which does not exist [file]\n",
		"clientSecretFile: [a]": "12:7: connectors[0].config.clientSecretFile must be the name of a file [type]\n",
		"clientSecretFile: /a\n      clientSecret: b": "12:7: connectors[0].config.clientSecretFile and " +
			"clientSecret exclude each other [pair]\n",
	} {
		file := written(t, fmt.Sprintf(anUpstream, line))
		if got := faultsOf(t, file, "HOST=https://login.example.com", "SCOPE=groups"); got != want {
			t.Errorf("%s:\n%swant\n%s", line, got, want)
		}
	}
}

// With subject: dex, people of staticPasswords have the subject that Dex gives them.
func TestSubjectsOfDex(t *testing.T) {
	file := written(t, `enablePasswordDB: true
subject: dex
staticPasswords:
  - {email: a@example.com, userID: 08a8684b-db88-4b73-90a9-3cd1661f5466, hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}
  - {email: b@example.com, userID: B b, hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}
`)
	s, err := Read(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Users[0].UserID, "CiQwOGE4Njg0Yi1kYjg4LTRiNzMtOTBhOS0zY2QxNjYxZjU0NjYSBWxvY2Fs"; got != want {
		t.Errorf("subject %s, want %s", got, want)
	}
	if got, want := s.Users[1].UserID, connector.DexSubject("local", "B b"); got != want {
		t.Errorf("subject %s, want %s", got, want)
	}
}

// What is read again is compared: connectors by all that they are made of, secrets in files and the environment
// included.
func TestChangesOfAConfiguration(t *testing.T) {
	read := func(connectors string, environ ...string) *Settings {
		t.Helper()
		s, err := Read(written(t, connectors), append(environ, "WARIFU_STORAGE_CONFIG_DATA_DIR=/tmp"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := func(id, secret string) string {
		return "  - {type: github, id: " + id + ", name: " + id + ", config: {clientID: a, clientSecret: \"" + secret +
			"\"}}\n"
	}
	start := read("connectors:\n"+one("a", "$A")+one("b", "b")+one("c", "c"), "A=1")
	for _, c := range []struct {
		name string
		next *Settings
		want Changes
	}{
		{"nothing", read("connectors:\n"+one("a", "$A")+one("b", "b")+one("c", "c"), "A=1"), Changes{}},
		{"a secret", read("connectors:\n"+one("a", "$A")+one("b", "b")+one("c", "c"), "A=2"),
			Changes{Changed: []string{"a"}}},
		{"all", read("connectors:\n" + one("d", "d") + one("b", "x")), Changes{Added: []string{"d"}, Changed: []string{"b"},
			Removed: []string{"a", "c"}}},
		{"order", read("connectors:\n" + one("b", "b") + one("a", "1") + one("c", "c")), Changes{Order: true}},
		{"others", read("connectors:\n" + one("a", "1") + one("b", "b") + one("c", "c") + "enablePasswordDB: true\n" +
			"expiry: {codes: 30s}\noauth2: {alwaysShowLoginScreen: true}\n"),
			Changes{Keys: []string{"enablePasswordDB", "expiry.codes", "oauth2.alwaysShowLoginScreen"}}},
		{"addresses", read("connectors:\n" + one("a", "1") + one("b", "b") + one("c", "c") +
			"admin: {socket: /tmp/x/admin.sock}\n"),
			Changes{Restart: []Waiting{{"admin.socket", waits("admin.socket")}}}},
	} {
		if got := c.next.Since(start, start); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// warifu dev takes connectors too.
func TestDevTakesConnectors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dev.yaml")
	text := "connectors:\n  - {type: github, id: hub, name: Hub, config: {clientID: a, clientSecret: $B}}\n" +
		"subject: dex\nmfa: {demand: required}\n" +
		"mail: {server: 'localhost:25', tls: none, from: warifu@example.com}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	base := Default()
	base.Issuer, base.Web.HTTP = "http://localhost:5556", "127.0.0.1:0"
	base.Storage.Config.DataDir = t.TempDir()
	s, err := ReadDev(base, file, []string{"B=b"})
	if err != nil {
		t.Fatal(err)
	}
	if made, err := s.Upstreams(slog.New(slog.DiscardHandler), nil); err != nil || len(made) != 1 || made[0].ID != "hub" {
		t.Errorf("%+v, %v", made, err)
	}
}
