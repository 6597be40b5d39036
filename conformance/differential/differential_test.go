package differential

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// The client, which has the same id and secret at both.
const (
	clientID     = "example-app"
	clientSecret = "ZXhhbXBsZS1hcHAtc2VjcmV0"
)

// config is what Dex runs with.
const config = `issuer: {issuer}
storage: {type: memory}
web: {http: "{address}"}
oauth2: {skipApprovalScreen: true}
enablePasswordDB: true
staticPasswords:
- email: ann@example.com
  username: ann
  name: Ann Example
  preferredUsername: annie
  userID: 08a8684b-db88-4b73-90a9-3cd1661f5466
  groups: [team-a, team-a/admins]
  hash: "{hash}"
- {email: bob@example.com, username: bob, userID: "2", emailVerified: false, hash: "{hash}"}
- {email: Carol@Example.com, userID: carol/3, groups: [team-b], hash: "{hash}"}
connectors:
- type: ldap
  id: ldap
  name: By DN
  config: &directory
    host: "{ldap}"
    insecureNoSSL: true
    bindDN: cn=root,dc=example,dc=org
    bindPW: root
    userSearch: &people
      baseDN: ou=people,dc=example,dc=org
      filter: "(objectClass=inetOrgPerson)"
      username: uid
      idAttr: DN
      emailAttr: mail
      nameAttr: cn
    groupSearch:
      baseDN: ou=groups,dc=example,dc=org
      filter: "(objectClass=groupOfNames)"
      userMatchers: [{userAttr: DN, groupAttr: member}]
      nameAttr: cn
- type: ldap
  id: ldap.by-uid
  name: By uid
  config:
    <<: *directory
    userSearch:
      <<: *people
      idAttr: uid
      preferredUsernameAttr: displayName
      emailAttr: ""
      emailSuffix: mail.example.org
- type: oidc
  id: oidc
  name: OpenID
  config: &provider
    issuer: "{provider}"
    clientID: both
    clientSecret: upstream-secret
    redirectURI: "{issuer}/callback"
    insecureSkipEmailVerified: true
- type: oidc
  id: oidc-groups
  name: OpenID with groups
  config:
    <<: *provider
    scopes: [profile, email, groups]
    insecureEnableGroups: true
    getUserInfo: true
    userNameKey: email
    userIDKey: email
- type: oidc
  id: oidc-mapped
  name: OpenID with other claims
  config:
    <<: *provider
    scopes: [profile, email, groups]
    insecureEnableGroups: true
    overrideClaimMapping: true
    claimMapping: {preferred_username: name, email: preferred_username}
    claimModifications:
      newGroupFromClaims: [{prefix: role, delimiter: "_", clearDelimiter: true, claims: [name, email_verified]}]
      filterGroupClaims: {groupsFilter: "^(one|role.*)$"}
- type: oidc
  id: oidc-strict
  name: OpenID with verified addresses
  config:
    <<: *provider
    insecureSkipEmailVerified: false
- type: oauth
  id: oauth
  name: OAuth
  config:
    clientID: both
    clientSecret: upstream-secret
    redirectURI: "{issuer}/callback"
    authorizationURL: "{oauth}/authorize"
    tokenURL: "{oauth}/token"
    userInfoURL: "{oauth}/user"
    userIDKey: login
    claimMapping:
      userNameKey: real_name
      preferredUsernameKey: login
      emailKey: mail
      emailVerifiedKey: mail_verified
      groupsKey: teams
- type: saml
  id: saml
  name: SAML
  config:
    ssoURL: "{saml}/sso"
    ssoIssuer: "{saml}/metadata"
    caData: "{certificate}"
    entityIssuer: "{issuer}/callback"
    redirectURI: "{issuer}/callback"
    nameIDPolicyFormat: emailAddress
    usernameAttr: urn:oid:2.5.4.3
    emailAttr: urn:oid:1.3.6.1.4.1.5923.1.1.1.6
    groupsAttr: urn:oid:1.3.6.1.4.1.5923.1.1.1.1
- type: saml
  id: saml-filtered
  name: SAML with fewer groups
  config:
    ssoURL: "{saml}/sso"
    caData: "{certificate}"
    entityIssuer: "{issuer}/callback"
    redirectURI: "{issuer}/callback"
    nameIDPolicyFormat: emailAddress
    usernameAttr: urn:oid:2.5.4.3
    emailAttr: urn:oid:1.3.6.1.4.1.5923.1.1.1.6
    groupsAttr: urn:oid:1.3.6.1.4.1.5923.1.1.1.1
    allowedGroups: [staff, others]
    filterGroups: true
staticClients:
- id: example-app
  name: Example App
  secret: ZXhhbXBsZS1hcHAtc2VjcmV0
  redirectURIs: [http://127.0.0.1:5555/callback]
`

// people are who signs in by which connector, and who is refused by both.
var people = []struct {
	connector, login string
	refused          bool
}{
	{"local", "ann@example.com", false}, {"local", "ANN@example.com", false}, {"local", "bob@example.com", false},
	{"local", "carol@example.com", false}, {"local", "nobody@example.com", true},
	{"ldap", "ann", false}, {"ldap", "jiro", false}, {"ldap", "pat", false}, {"ldap", "nomail", true},
	{"ldap", "nobody", true},
	{"ldap.by-uid", "ann", false}, {"ldap.by-uid", "jiro", true}, {"ldap.by-uid", "nomail", true},
	{"oidc", "up@example.com", false}, {"oidc", "unverified@example.com", false},
	{"oidc-groups", "up@example.com", false}, {"oidc-groups", "unverified@example.com", false},
	{"oidc-mapped", "up@example.com", false},
	{"oidc-strict", "up@example.com", false}, {"oidc-strict", "unverified@example.com", false},
	{"oauth", "", false},
	{"saml", "ada", false}, {"saml-filtered", "ada", false},
}

// learnt is what an app learns of somebody.
type learnt map[string]any

// groups are those of somebody, in order.
func (l learnt) groups() []string {
	var groups []string
	list, _ := l["groups"].([]any)
	for _, group := range list {
		groups = append(groups, fmt.Sprint(group))
	}
	slices.Sort(groups)
	return groups
}

// claims that must be equal.
var claims = []string{"iss", "aud", "sub", "email", "email_verified", "name", "preferred_username", "groups"}

func TestAppsLearnTheSameFromDexAndFromWarifu(t *testing.T) {
	address := freeAddress(t)
	issuer := "http://" + address + "/dex"
	dir := t.TempDir()
	saml, certificate := startSAML(t, issuer+"/callback")
	file := write(t, filepath.Join(dir, "dex.yaml"), fill(config, "{issuer}", issuer, "{address}", address,
		"{hash}", passwordHash, "{ldap}", startDirectory(t), "{provider}", startProvider(t, issuer+"/callback"),
		"{oauth}", startOAuth(t), "{saml}", saml, "{certificate}", certificate))

	stop := startDex(t, file)
	want := everybody(t, issuer, false) // a refresh never ends at Dex with storage in memory: it waits for its own lock
	stop()

	server := migrated(t, file, filepath.Join(dir, "warifu"), issuer)
	got := everybody(t, issuer, true)
	for i, p := range people {
		t.Run(p.connector+"/"+p.login, func(t *testing.T) {
			if (want[i] == nil) != p.refused || (got[i] == nil) != p.refused {
				t.Fatalf("Dex tells %v, warifu %v", want[i], got[i])
			}
			same(t, "warifu, unlike Dex", want[i], got[i], claims)
			if want[i] == nil {
				t.Log("both refuse")
			} else if !t.Failed() {
				t.Logf("the same: %v", got[i])
			}
		})
	}
	if t.Failed() {
		t.Log(server.said.String())
	}
}

// migrated runs `warifu migrate dex` and all the commands that it prints.
func migrated(t *testing.T, file, out, issuer string) *process {
	t.Helper()
	path := "PATH=" + filepath.Dir(warifu) + ":" + os.Getenv("PATH")
	migrate := exec.Command(warifu, "migrate", "dex", file, "--out", out)
	steps, err := migrate.Output()
	if err != nil {
		t.Fatalf("warifu migrate dex: %v", err)
	}
	var server *process
	var exports []string
	for line := range strings.Lines(string(steps)) {
		line = strings.TrimSpace(line)
		shell := exec.Command("sh", "-ec", strings.Join(append(exports, line), "\n"))
		shell.Env = append(os.Environ(), path)
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "export "):
			exports = append(exports, line)
		case strings.HasPrefix(line, "warifu serve "):
			shell = exec.Command("sh", "-ec", "exec "+line)
			shell.Env = append(os.Environ(), path)
			server = start(t, shell)
			server.answers(t, issuer+"/.well-known/openid-configuration")
		default:
			if said, err := shell.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", line, err, said)
			}
		}
	}
	return server
}

// everybody signs in, and returns what an app learns of each; nil of whoever is refused.
func everybody(t *testing.T, issuer string, refresh bool) []learnt {
	t.Helper()
	provider, err := oidc.NewProvider(t.Context(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	client := &oauth2.Config{
		ClientID: clientID, ClientSecret: clientSecret, RedirectURL: redirectURI, Endpoint: provider.Endpoint(),
		Scopes: []string{"openid", "profile", "email", "groups", "offline_access"},
	}
	all := make([]learnt, len(people))
	for i, p := range people {
		state, nonce := fmt.Sprintf("state-%d", i), fmt.Sprintf("nonce-%d", i)
		address := client.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.SetAuthURLParam("connector_id", p.connector))
		back, err := signIn(t, address, p.login, password)
		if err != nil || back.Get("error") != "" {
			t.Logf("%s by %s is refused: %v %v", p.login, p.connector, err, back)
			continue
		}
		if back.Get("state") != state {
			t.Fatalf("the state is %q", back.Get("state"))
		}
		all[i] = exchanged(t, provider, client, back.Get("code"), nonce, refresh)
	}
	return all
}

// exchanged trades a code for tokens and verifies the ID token; userinfo, and a refresh, say the same.
func exchanged(t *testing.T, provider *oidc.Provider, client *oauth2.Config, code, nonce string, refresh bool) learnt {
	t.Helper()
	token, err := client.Exchange(t.Context(), code)
	if err != nil {
		t.Fatal(err)
	}
	first := verified(t, provider, token, nonce)
	info, err := provider.UserInfo(t.Context(), oauth2.StaticTokenSource(token))
	if err != nil {
		t.Fatal(err)
	}
	said := make(learnt)
	if err := info.Claims(&said); err != nil {
		t.Fatal(err)
	}
	same(t, "userinfo", first, said, claims[2:])
	if refresh {
		token.Expiry = token.Expiry.AddDate(-1, 0, 0) // so that it is refreshed
		again, err := client.TokenSource(t.Context(), token).Token()
		if err != nil {
			t.Fatal(err)
		}
		same(t, "a refresh", first, verified(t, provider, again, ""), claims)
	}
	return first
}

// same compares some claims. Groups are a set: Dex leaves the claim out where there are none, and tells them in the
// order in which it came by them, which with some connectors is another one each time.
func same(t *testing.T, where string, want, got learnt, claims []string) {
	t.Helper()
	for _, name := range claims {
		if name == "groups" && slices.Equal(want.groups(), got.groups()) {
			continue
		}
		if !reflect.DeepEqual(want[name], got[name]) {
			t.Errorf("%s: %s is %#v, want %#v", where, name, got[name], want[name])
		}
	}
}

func verified(t *testing.T, provider *oidc.Provider, token *oauth2.Token, nonce string) learnt {
	t.Helper()
	raw, _ := token.Extra("id_token").(string)
	idToken, err := provider.Verifier(&oidc.Config{ClientID: clientID}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if nonce != "" && idToken.Nonce != nonce {
		t.Errorf("the nonce is %q", idToken.Nonce)
	}
	said := make(learnt)
	if err := idToken.Claims(&said); err != nil {
		t.Fatal(err)
	}
	return said
}
