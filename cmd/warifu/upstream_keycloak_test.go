//go:build upstreams

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warifu/warifu/server/connector/connectortest"
)

// keycloak is a Keycloak of the test's own, which keeps its database while it is stopped.
type keycloak struct {
	program, dir, address string
	cmd                   *exec.Cmd
	log                   *os.File
}

// startingKeycloak is how long it may take, on a machine that has other things to do.
const startingKeycloak = 10 * time.Minute

func startKeycloak(t *testing.T) *keycloak {
	t.Helper()
	home := os.Getenv("WARIFU_KEYCLOAK")
	if home == "" {
		t.Fatal("WARIFU_KEYCLOAK must name the directory of Keycloak: make upstreams gets it")
	}
	connectortest.Need(t, "java", "apt-get install -y openjdk-17-jre-headless")
	k := &keycloak{program: filepath.Join(home, "bin", "kc.sh"), dir: t.TempDir(),
		address: "http://127.0.0.1:" + connectortest.FreePort(t)}
	k.start(t)
	t.Cleanup(k.kill)
	return k
}

func (k *keycloak) start(t *testing.T) {
	t.Helper()
	began := time.Now()
	var err error
	if k.log, err = os.Create(filepath.Join(k.dir, "log")); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(k.address)
	if err != nil {
		t.Fatal(err)
	}
	k.cmd = exec.Command("sh", k.program, "start-dev", "--http-host=127.0.0.1", "--http-port="+at.Port(),
		"--hostname="+k.address, "--db-url=jdbc:h2:file:"+filepath.Join(k.dir, "db")+";NON_KEYWORDS=VALUE")
	k.cmd.Env = append(os.Environ(), "JAVA_OPTS_KC_HEAP=-Xms64m -Xmx512m", "KC_BOOTSTRAP_ADMIN_USERNAME=admin",
		"KC_BOOTSTRAP_ADMIN_PASSWORD=admin")
	k.cmd.Stdout, k.cmd.Stderr = k.log, k.log
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		resp, err := (&http.Client{Timeout: 5 * time.Second}).Get(k.address + "/realms/master")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				t.Logf("Keycloak is ready after %v", time.Since(began).Round(time.Second))
				return
			}
		}
		if time.Since(began) > startingKeycloak {
			said, _ := os.ReadFile(k.log.Name())
			k.kill()
			t.Fatalf("Keycloak does not answer: %v\n%s", err, said)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// kill ends it with the processes that its script has started.
func (k *keycloak) kill() {
	if k.cmd != nil {
		_ = syscall.Kill(-k.cmd.Process.Pid, syscall.SIGKILL)
		_ = k.cmd.Wait()
		_ = k.log.Close()
		k.cmd = nil
	}
}

func (k *keycloak) signal(s syscall.Signal) { _ = syscall.Kill(-k.cmd.Process.Pid, s) }

// admin asks the admin API. What it answers, if anything, goes into reply.
func (k *keycloak) admin(t *testing.T, method, path string, body, reply any) {
	t.Helper()
	resp, err := http.PostForm(k.address+"/realms/master/protocol/openid-connect/token", url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"admin"}, "password": {"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, k.address+"/admin/realms"+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token.AccessToken)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s %v", method, path, answer.Status, said, err)
	}
	if reply != nil {
		if err := json.Unmarshal(said, reply); err != nil {
			t.Fatal(err)
		}
	}
}

// realm makes the realm staff with people, groups, and a server as its client, of OpenID Connect and of SAML.
func (k *keycloak) realm(t *testing.T, issuer string) {
	t.Helper()
	type m = map[string]any
	person := func(name string, groups ...string) m {
		return m{"username": name, "enabled": true, "email": name + "@example.org", "emailVerified": true, "firstName": name,
			"lastName": "Doe", "groups": groups, "realmRoles": []string{"default-roles-staff"},
			"credentials": []m{{"type": "password", "value": name + "'s password", "temporary": false}}}
	}
	mapper := func(protocol, name, kind string, config m) m {
		return m{"name": name, "protocol": protocol, "protocolMapper": kind, "config": config}
	}
	k.admin(t, http.MethodPost, "", m{
		"realm": "staff", "enabled": true, "sslRequired": "none", "loginWithEmailAllowed": true,
		"groups": []m{{"name": "team"}, {"name": "company"}, {"name": "secret"}},
		"users":  []m{person("jane", "/team", "/company", "/secret"), person("john", "/team")},
		"clients": []m{{
			"clientId": "warifu", "secret": "the secret of warifu", "redirectUris": []string{issuer + "/callback/keycloak"},
			"attributes": m{"post.logout.redirect.uris": issuer + "/*", "pkce.code.challenge.method": "S256"},
			"protocolMappers": []m{mapper("openid-connect", "groups", "oidc-group-membership-mapper", m{
				"claim.name": "groups", "full.path": "false", "id.token.claim": "true", "access.token.claim": "true",
				"userinfo.token.claim": "true"})},
		}, {
			"clientId": issuer, "protocol": "saml", "redirectUris": []string{issuer + "/callback/saml"},
			"attributes": m{"saml.assertion.signature": "true", "saml.server.signature": "true",
				"saml.client.signature": "false", "saml.force.post.binding": "true", "saml.authnstatement": "true",
				"saml_name_id_format":       "persistent",
				"saml_force_name_id_format": "true"},
			"protocolMappers": []m{
				mapper("saml", "name", "saml-user-property-mapper", m{"user.attribute": "username", "attribute.name": "name"}),
				mapper("saml", "email", "saml-user-property-mapper", m{"user.attribute": "email", "attribute.name": "email"}),
				mapper("saml", "groups", "saml-group-membership-mapper",
					m{"attribute.name": "groups", "full.path": "false", "single": "true"}),
			},
		}},
	}, nil)
}

// certificate is that by which the realm signs assertions, in a file.
func (k *keycloak) certificate(t *testing.T) (file string) {
	t.Helper()
	resp, err := http.Get(k.address + "/realms/staff/protocol/saml/descriptor")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var descriptor struct {
		Certificate string `xml:"IDPSSODescriptor>KeyDescriptor>KeyInfo>X509Data>X509Certificate"`
	}
	if err := xml.NewDecoder(resp.Body).Decode(&descriptor); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "saml.pem")
	text := "-----BEGIN CERTIFICATE-----\n" + descriptor.Certificate + "\n-----END CERTIFICATE-----\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// user gives the id of somebody.
func (k *keycloak) user(t *testing.T, name string) string {
	t.Helper()
	var found []struct {
		ID string `json:"id"`
	}
	k.admin(t, http.MethodGet, "/staff/users?exact=true&username="+name, nil, &found)
	if len(found) != 1 {
		t.Fatalf("%d are %s", len(found), name)
	}
	return found[0].ID
}

func TestUpstreamKeycloak(t *testing.T) {
	k := startKeycloak(t)
	s := serveUpstreams(t, "")
	defer func() {
		if t.Failed() {
			t.Log(s.said)
		}
	}()
	k.realm(t, s.issuer)
	s.write(t, withAnn+fmt.Sprintf(`connectors:
  - type: oidc
    id: keycloak
    name: Keycloak
    groups: [team, company]
    refreshUpstream: 1m
    config:
      issuer: %s/realms/staff
      clientID: warifu
      clientSecret: the secret of warifu
      insecureEnableGroups: true
  - type: saml
    id: saml
    name: Keycloak by SAML
    groups: [team, company]
    config:
      ssoURL: %s/realms/staff/protocol/saml
      ssoIssuer: %s/realms/staff
      entityIssuer: %s
      ca: %s
      usernameAttr: name
      emailAttr: email
      groupsAttr: groups
      nameIDPolicyFormat: persistent
`, k.address, k.address, k.address, s.issuer, k.certificate(t)))
	s.says(t, `connectors_added=`)

	v := s.visitor(t)
	var refreshToken string
	t.Run("sign in", func(t *testing.T) {
		v.t = t
		reply := v.opens("late").by("keycloak").fills("jane", "jane's password").signedIn("late")
		claims := claimsOf(t, reply)
		if claims["name"] != "jane Doe" || claims["email"] != "jane@example.org" || claims["email_verified"] != true {
			t.Errorf("claims %v", claims)
		}
		if got, want := groupsIn(claims), []string{"company", "team"}; !slices.Equal(got, want) {
			t.Errorf("groups %v, want %v", got, want)
		}
		refreshToken = fmt.Sprint(reply["refresh_token"])
	})
	t.Run("who is in no such group", func(t *testing.T) {
		john := s.visitor(t).opens("late").by("keycloak").fills("john", "john's password")
		if john.status != http.StatusForbidden {
			t.Errorf("%d %s at %s", john.status, john.page.words(), john.url)
		}
	})
	t.Run("a callback that is replayed", func(t *testing.T) {
		thief := s.visitor(t)
		jane := s.visitor(t)
		jane.before = func(r *http.Request) { // it has the address, and is first
			if strings.HasPrefix(r.URL.Path, "/callback/") && thief.url == nil {
				thief.get(r.URL.String())
			}
		}
		jane.opens("board").by("keycloak").fills("jane", "jane's password").signedIn("board")
		if thief.url == nil || thief.status != http.StatusBadRequest {
			t.Errorf("another browser: %d %s at %s", thief.status, thief.page.words(), thief.url)
		}
		if jane.get(jane.callback); jane.status != http.StatusBadRequest {
			t.Errorf("twice: %d %s at %s", jane.status, jane.page.words(), jane.url)
		}
	})
	t.Run("SAML", func(t *testing.T) {
		jane := s.visitor(t).opens("late").by("saml").carries().fills("jane", "jane's password").carries()
		claims := claimsOf(t, jane.signedIn("late"))
		if claims["email"] != "jane@example.org" || claims["name"] != "jane" {
			t.Errorf("claims %v", claims)
		}
		if got, want := groupsIn(claims), []string{"company", "team"}; !slices.Equal(got, want) {
			t.Errorf("groups %v, want %v", got, want)
		}
	})
	t.Run("sign out", func(t *testing.T) {
		there := s.visitor(t)
		there.opens("board").by("keycloak").fills("jane", "jane's password").signedIn("board")
		there.get(s.issuer+"/oauth/logout").submits("decision", "signout")
		there.follows(k.address)
		if !strings.HasPrefix(there.url.String(), s.issuer) { // it asks whether it is meant
			there.submits("", "")
		}
		if !strings.HasPrefix(there.url.String(), s.issuer) {
			t.Errorf("Keycloak does not send back: %d at %s\n%s", there.status, there.url, there.body)
		}
		if there.opens("board").by("keycloak"); there.page.form == nil || there.page.form.password == "" {
			t.Errorf("Keycloak does not ask for the password: %d at %s", there.status, there.url)
		}
	})
	t.Run("away", func(t *testing.T) {
		k.signal(syscall.SIGSTOP)
		waiting := s.visitor(t)
		waiting.stays = true
		waiting.opens("board", "connector_id", "keycloak")
		k.signal(syscall.SIGCONT)
		k.kill()
		answer := url.Values{"code": {"x"}, "state": {waiting.url.Query().Get("state")},
			"iss": {k.address + "/realms/staff"}}
		waiting.get(s.issuer+"/callback/keycloak?"+answer.Encode()).unavailable("killed", "Keycloak")
		// Who is signed in stays so, and gets new tokens.
		v.t = t
		reply := v.token(url.Values{"grant_type": {"refresh_token"}, "client_id": {"late"}, "refresh_token": {refreshToken}})
		if claims := claimsOf(t, reply); claims["name"] != "jane Doe" {
			t.Errorf("a refresh meanwhile: %v", claims)
		}
		refreshToken = fmt.Sprint(reply["refresh_token"])
		k.start(t)
		s.visitor(t).opens("board").by("keycloak").fills("jane", "jane's password").signedIn("board")
	})
	t.Run("somebody who is disabled there", func(t *testing.T) {
		v.t = t
		k.admin(t, http.MethodPut, "/staff/users/"+k.user(t, "jane"), map[string]any{"enabled": false}, nil)
		for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Second) {
			if v.opens("late", "prompt", "none"); v.url.Query().Get("error") == "login_required" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("she is signed in after five minutes: %d at %s", v.status, v.url)
			}
		}
		reply := v.token(url.Values{"grant_type": {"refresh_token"}, "client_id": {"late"}, "refresh_token": {refreshToken}})
		if reply["error"] != "invalid_grant" {
			t.Errorf("her refresh token: %v", reply)
		}
	})
}
