package dex_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/dex"
)

// callbacks are those of a server at https://login.example.test for a connector that is called by its type.
func callbacks(id string) []string {
	return []string{"https://login.example.test/callback/" + id, "https://login.example.test/callback"}
}

// spec is a connector of the configuration, with what stands below config as YAML.
func spec(t *testing.T, kind, config string) dex.Spec {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(config), &value); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return dex.Spec{
		Type: kind, ID: kind, Config: data, Callbacks: callbacks(kind),
		Trusted: func(remoteAddr string) bool { return remoteAddr == "192.0.2.1:1234" },
	}
}

// open makes a connector without a fault.
func open(t *testing.T, s dex.Spec) connector.Connector {
	t.Helper()
	made, faults := dex.New(s)
	if len(faults) > 0 {
		t.Fatalf("%s: %+v", s.Type, faults)
	}
	return made
}

const someLDAP = `
host: ldap.example.test:636
bindDN: cn=reader,dc=example
bindPW: reads
userSearch: {baseDN: "ou=people,dc=example", username: uid, idAttr: uid, emailAttr: mail}
`

func TestEverythingThatIsWrongWithAConfigurationIsSaidAtOnce(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate, but hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind, config string
		want         []string // path, code, suggestion
	}{
		{"ldap", "", []string{"host required", "userSearch.baseDN required", "userSearch.emailAttr required",
			"userSearch.idAttr required", "userSearch.username required"}},
		{"ldap", someLDAP + `
bindPw: x
hots: x
rootCa: ` + empty + `
kerberos: {enabled: true, keytabPat: /x}
groupSearch:
  {baseDN: ou=groups, filter: objectClass=group, scope: subs, userMatchers: [{userAttr: DN, groupAtr: member}]}`,
			[]string{
				"bindPw unknown-key", "groupSearch.filter value", "groupSearch.nameAttr required", "groupSearch.scope value sub",
				"groupSearch.userMatchers[0].groupAtr unknown-key groupAttr", "groupSearch.userMatchers[0].groupAttr required",
				"hots unknown-key host", "kerberos.keytabPat unknown-key keytabPath", "kerberos.keytabPath required",
				"rootCA file"}},
		{"ldap", strings.Replace(someLDAP, "username: uid", "username: {a: b}", 1) + "insecureNoSSL: 'yes'\nstartTLS: 1",
			[]string{"insecureNoSSL type", "startTLS type", "userSearch.username type"}},
		{"ldap", strings.Replace(someLDAP, "username: uid", "username: [uid, mail]", 1) + "rootCAData: '%%%'",
			[]string{"rootCAData type"}},
		{"ldap", someLDAP + "insecureNoSSL: true\nstartTLS: true\nclientKey: /nowhere",
			[]string{"clientCert required", "startTLS value"}},
		{"github", "clientID: 1234\norgs: [{teams: [a]}, b]\nteamNameField: slugs\nrootCA: /nowhere", []string{
			"clientID type", "clientSecret required", "orgs[0].name required", "orgs[1] type", "rootCA value",
			"teamNameField value slug"}},
		{"github", "[]", []string{" type"}},
		{"github", "clientID: a\nclientSecret: b\nredirectURI: https://elsewhere.test/callback",
			[]string{"redirectURI value https://login.example.test/callback/github"}},
		{"github", "clientID: a\nclientId: a\nclientSecret: b", []string{"clientId unknown-key"}},
		{"google", "clientID: a\nclientSecret: b\ndomainToAdminEmail: {'*': [x]}", []string{`domainToAdminEmail["*"] type`}},
		{"google", "clientID: a\nclientSecret: b\ngroups: [staff]\nserviceAccountFilePath: " + empty,
			[]string{"domainToAdminEmail required", "groups value", "serviceAccountFilePath file"}},
		{"microsoft", "clientID: a\nclientAssertion: /nowhere\ngroups: [staff]\npreferredUsernameField: emial",
			[]string{"clientAssertion file", "groups value", "preferredUsernameField value email"}},
		{"oauth", "clientID: a\ntokenURL: example.test\nclaimMapping: {emailkey: e, mail: f}", []string{
			"authorizationURL required", "claimMapping.mail unknown-key", "tokenURL value", "userInfoURL required"}},
		{"atlassian-crowd", "baseURL: ftp://crowd", []string{"baseURL value", "clientID required", "clientSecret required"}},
		{"authproxy", "userHeader: 'a b'\nuserIdHeaders: x", []string{
			"userHeader value", "userIdHeaders unknown-key userIDHeader"}},
		{"nonsense", "", []string{" value"}},
	} {
		_, faults := dex.New(spec(t, c.kind, c.config))
		var got []string
		for _, f := range faults {
			got = append(got, strings.TrimRight(fmt.Sprintf("%s %s %s", f.Path, f.Code, f.Suggestion), " "))
			if f.Message == "" || strings.Contains(f.Message, "hunter2") {
				t.Errorf("%s: %q", f.Path, f.Message)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %s:\n got %q\nwant %q", c.kind, c.config, got, c.want)
		}
	}
}

func TestAuthproxyNeedsTrustedProxies(t *testing.T) {
	s := spec(t, "authproxy", "{}")
	s.Trusted = nil
	if _, faults := dex.New(s); len(faults) != 1 || !strings.Contains(faults[0].Message, "web.trustedProxies") {
		t.Errorf("%+v", faults)
	}
}
