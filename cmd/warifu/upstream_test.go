package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/connectortest"
)

// visitor is somebody with a browser, of which the scripts are off. It stops where it is sent to an app.
type visitor struct {
	t    testing.TB
	s    *serving
	http *http.Client
	// stays: it stops where it is sent to an identity provider, too.
	stays bool
	// before is called before each request.
	before func(*http.Request)

	callback string   // the last answer of an identity provider
	ticket   string   // what it is asked for (RFC 4559)
	url      *url.URL // of what it sees
	status   int
	page     *page
	body     []byte
	took     time.Duration
}

func (s *serving) visitor(t testing.TB) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{t: t, s: s, http: &http.Client{Jar: jar, Timeout: patience}}
	v.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if v.stops(r.URL) {
			return http.ErrUseLastResponse
		}
		v.goes(r)
		return nil
	}
	return v
}

func (v *visitor) stops(at *url.URL) bool {
	return strings.HasSuffix(at.Host, ".example.com") || v.stays && v.s.issuer != at.Scheme+"://"+at.Host
}

func (v *visitor) goes(r *http.Request) {
	if strings.HasPrefix(r.URL.String(), v.s.issuer+"/callback/") {
		v.callback = r.URL.String()
	}
	if v.before != nil {
		v.before(r)
	}
}

// do sends a request and goes on to what is shown, or to the address of an app.
func (v *visitor) do(r *http.Request) *visitor {
	v.t.Helper()
	began := time.Now()
	for range 10 {
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Accept-Language", "en")
		v.goes(r)
		resp, err := v.http.Do(r)
		if err != nil {
			v.t.Fatal(err)
		}
		v.body, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			v.t.Fatal(err)
		}
		v.url, v.status, v.ticket = resp.Request.URL, resp.StatusCode, resp.Header.Get("WWW-Authenticate")
		if to, err := resp.Location(); err == nil {
			v.url = to
		}
		if v.page, err = readPage(v.url, v.body); err != nil {
			v.t.Fatal(err)
		}
		if v.page.onward == nil {
			break
		}
		if v.stops(v.page.onward) {
			v.url = v.page.onward
			break
		}
		if r, err = http.NewRequest(http.MethodGet, v.page.onward.String(), nil); err != nil {
			v.t.Fatal(err)
		}
	}
	v.took = time.Since(began)
	return v
}

func (v *visitor) get(address string) *visitor {
	v.t.Helper()
	r, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	return v.do(r)
}

// verifierOfVisitors is the PKCE secret of all of them.
const verifierOfVisitors = "of-no-use-to-anybody-of-no-use-to-anybody-of-no-use"

// opens begins a sign-in at an app.
func (v *visitor) opens(app string, more ...string) *visitor {
	v.t.Helper()
	challenge := sha256.Sum256([]byte(verifierOfVisitors))
	q := url.Values{"response_type": {"code"}, "client_id": {app}, "redirect_uri": {"https://" + app + ".example.com/cb"},
		"scope": {"openid profile email groups offline_access"}, "state": {"x"}, "code_challenge_method": {"S256"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return v.get(v.s.issuer + "/oauth/authorize?" + q.Encode())
}

// by presses the button of a connector.
func (v *visitor) by(id string) *visitor {
	v.t.Helper()
	return v.follows(v.s.issuer + "/oauth/connect/" + id + "?")
}

// fills in the form with name and password.
func (v *visitor) fills(login, password string) *visitor {
	v.t.Helper()
	if v.page.form == nil || v.page.form.password == "" {
		v.t.Fatalf("no form for a password: %d %s at %s\n%s", v.status, v.page.words(), v.url, v.body)
	}
	v.page.form.values.Set(v.page.form.login, login)
	return v.submits(v.page.form.password, password)
}

// submits sends the form on the page, with one more field.
func (v *visitor) submits(name, value string) *visitor {
	v.t.Helper()
	if v.page.form == nil {
		v.t.Fatalf("no form: %d %s at %s\n%s", v.status, v.page.words(), v.url, v.body)
	}
	f := *v.page.form
	if name != "" {
		f.values.Set(name, value)
	}
	r, err := http.NewRequest(http.MethodPost, f.action.String(), strings.NewReader(f.values.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", v.url.Scheme+"://"+v.url.Host)
	return v.do(r)
}

// carries sends the form of a page that does so by itself where there are scripts.
func (v *visitor) carries() *visitor {
	v.t.Helper()
	return v.submits("", "")
}

// follows a link to an address that begins so.
func (v *visitor) follows(prefix string) *visitor {
	v.t.Helper()
	for _, to := range v.links() {
		if strings.HasPrefix(to.String(), prefix) {
			return v.get(to.String())
		}
	}
	v.t.Fatalf("no link to %s: %d %s at %s\n%s", prefix, v.status, v.page.words(), v.url, v.body)
	return nil
}

func (v *visitor) links() []*url.URL {
	v.t.Helper()
	root, err := html.Parse(strings.NewReader(string(v.body)))
	if err != nil {
		v.t.Fatal(err)
	}
	var links []*url.URL
	for n := range root.Descendants() {
		if to := attribute(n, "href"); n.Type == html.ElementNode && to != "" {
			if address, err := v.url.Parse(to); err == nil {
				links = append(links, address)
			}
		}
	}
	return links
}

// signedIn is what the app gets for the code with which the browser comes back.
func (v *visitor) signedIn(app string) map[string]any {
	v.t.Helper()
	code := v.url.Query().Get("code")
	if code == "" || v.url.Host != app+".example.com" {
		v.t.Fatalf("not signed in, but at %s: %d %s\n%s", v.url, v.status, v.page.words(), v.body)
	}
	return v.token(url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {app},
		"redirect_uri": {"https://" + app + ".example.com/cb"}, "code_verifier": {verifierOfVisitors}})
}

func (v *visitor) token(ask url.Values) map[string]any {
	v.t.Helper()
	resp, err := http.PostForm(v.s.issuer+"/oauth/token", ask)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var reply map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		v.t.Fatal(err)
	}
	return reply
}

// claimsOf are those of an ID token.
func claimsOf(t testing.TB, reply map[string]any) map[string]any {
	t.Helper()
	token, _ := reply["id_token"].(string)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no ID token: %v", reply)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func groupsIn(claims map[string]any) []string {
	var groups []string
	list, _ := claims["groups"].([]any)
	for _, g := range list {
		groups = append(groups, fmt.Sprint(g))
	}
	slices.Sort(groups)
	return groups
}

// soon is the ten seconds that a fault may take, and what a machine adds that has other things to do.
const soon = 15 * time.Second

// unavailable checks that the page says of a connector that it does not answer, in time, with the other ways beside it.
func (v *visitor) unavailable(what, name string) {
	v.t.Helper()
	if v.status != http.StatusServiceUnavailable || !strings.Contains(v.page.alert, name) || v.took > soon {
		v.t.Errorf("%s: status %d after %v, %q", what, v.status, v.took, v.page.words())
	}
}

const upstreamManifest = `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: NAME}
spec:
  version: 1.0.1
  oauth:
    clientName: NAME
    clientId: NAME
    public: true
    redirectUris: ["https://NAME.example.com/cb"]
    scopes: [openid, profile, email, groups, offline_access]
    consent: skip
    ACCESS
`

const withAnn = "enablePasswordDB: true\nstaticPasswords:\n" +
	"  - {email: ann@example.com, userID: ann, hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n"

// serveUpstreams serves with these connectors beside ann, who has a password here. The app board is for everybody, late
// for the group company.
func serveUpstreams(t *testing.T, connectors string) *serving {
	t.Helper()
	s := serveReloadable(t, func(*serving) string { return withAnn + connectors })
	for name, access := range map[string]string{"board": "autoEnv: false", "late": "access: {groups: [company]}"} {
		manifest := strings.NewReplacer("NAME", name, "ACCESS", access).Replace(upstreamManifest)
		file := filepath.Join(s.dir, "apps", name+".yml")
		if err := os.WriteFile(file+".new", []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	s.says(t, `msg="app applied" app=board (?s:.*)msg="app applied" app=board|app=board(?s:.*)app=board`)
	s.says(t, `msg="app applied" app=late`)
	return s
}

// ldapConnector is a connector of the directory, as the configuration has it.
func ldapConnector(d *connectortest.Slapd, id, groups, more string) string {
	nested := `""`
	if groups == "groups" {
		nested = "member"
	}
	return fmt.Sprintf(`  - type: ldap
    id: %s
    name: Staff (%s)
    %s
    config:
      host: %s
      rootCA: %s
      bindDN: %s
      bindPW: %s
      usernamePrompt: Staff number
      userSearch:
        baseDN: ou=people,%s
        username: [uid, mail]
        idAttr: uid
        emailAttr: mail
        nameAttr: cn
        preferredUsernameAttr: uid
      groupSearch:
        baseDN: ou=%s,%s
        userMatchers: [{userAttr: DN, groupAttr: member, recursionGroupAttr: %s}]
        nameAttr: cn
`, id, id, more, d.AddrTLS, d.CA.File, connectortest.ReaderDN, connectortest.ReaderPassword, connectortest.BaseDN,
		groups, connectortest.BaseDN, nested)
}

func TestUpstreamLDAP(t *testing.T) {
	t.Parallel()
	d := connectortest.StartSlapd(t, connectortest.Entries())
	s := serveUpstreams(t, "connectors:\n"+ldapConnector(d, "staff", "groups", `groups: [team, "comp*"]`)+
		ldapConnector(d, "crowd", "many", "groups: ['*']")+ldapConnector(d, "few", "many", "groups: ['group0000*']"))

	t.Run("groups", func(t *testing.T) {
		v := s.visitor(t).opens("late").by("staff")
		if !strings.Contains(string(v.body), "Staff number") {
			t.Errorf("the form does not ask for the staff number:\n%s", v.body)
		}
		claims := claimsOf(t, v.fills("jane@example.org", "jane's password").signedIn("late"))
		if want := connector.SubjectsHashed.Of("staff", "jane"); claims["sub"] != want || claims["name"] != "Jane Doe" ||
			claims["email"] != "jane@example.org" || claims["email_verified"] != true || claims["preferred_username"] != "jane" {
			t.Errorf("claims %v, want sub %s", claims, want)
		}
		if got, want := groupsIn(claims), []string{"company", "team"}; !slices.Equal(got, want) {
			t.Errorf("groups %v, want %v", got, want)
		}
	})
	t.Run("a group that is missing", func(t *testing.T) {
		v := s.visitor(t)
		claims := claimsOf(t, v.opens("board", "connector_id", "staff").fills("john", "john's password").signedIn("board"))
		if groups := groupsIn(claims); len(groups) > 0 {
			t.Errorf("groups %v, which the configuration does not keep", groups)
		}
		if v.opens("late"); v.status != http.StatusForbidden {
			t.Errorf("john, who is not in company, gets %d %s at %s", v.status, v.page.words(), v.url)
		}
	})
	t.Run("a name in Japanese", func(t *testing.T) {
		v := s.visitor(t).opens("board", "connector_id", "staff").fills("山田", "山田's password")
		if claims := claimsOf(t, v.signedIn("board")); claims["name"] != "山田 太郎" {
			t.Errorf("claims %v", claims)
		}
	})
	t.Run("who may not", func(t *testing.T) {
		for login, password := range map[string]string{"jane": "wrong", "nobody": "jane's password", "*": "jane's password",
			"jane)(uid=*": "jane's password", "john": "", "nopass": "nopass's password"} {
			v := s.visitor(t).opens("board", "connector_id", "staff").fills(login, password)
			if v.url.Host == "board.example.com" || v.status < 400 || v.status >= 500 || v.page.alert == "" {
				t.Errorf("%q %q: %d %s at %s", login, password, v.status, v.page.words(), v.url)
			}
		}
	})
	t.Run("10,000 groups", func(t *testing.T) {
		v := s.visitor(t).opens("board", "connector_id", "crowd").fills("crowd", "crowd's password")
		if v.status != http.StatusForbidden || v.page.alert == "" {
			t.Errorf("%d %s at %s", v.status, v.page.words(), v.url)
		}
		s.says(t, `connector=crowd.*10000`)
		few := s.visitor(t).opens("board", "connector_id", "few").fills("crowd", "crowd's password")
		claims := claimsOf(t, few.signedIn("board"))
		if groups := groupsIn(claims); len(groups) != 10 || groups[9] != "group00009" {
			t.Errorf("groups %v", groups)
		}
	})
	t.Run("a directory that is away", func(t *testing.T) {
		v := s.visitor(t)
		reply := v.opens("board", "connector_id", "staff").fills("jane", "jane's password").signedIn("board")
		form := s.visitor(t).opens("board", "connector_id", "staff")
		d.Pause()
		form.fills("jane", "jane's password").unavailable("stopped", "Staff (staff)")
		// Others are not affected, nor are those who have signed in.
		here := s.visitor(t).opens("board", "connector_id", "local").fills("ann@example.com", "password")
		if claims := claimsOf(t, here.signedIn("board")); claims["sub"] != "ann" {
			t.Errorf("ann: %v", claims)
		}
		reply = v.token(url.Values{"grant_type": {"refresh_token"}, "client_id": {"board"},
			"refresh_token": {fmt.Sprint(reply["refresh_token"])}})
		if claims := claimsOf(t, reply); claims["name"] != "Jane Doe" {
			t.Errorf("a refresh while the directory is stopped: %v", claims)
		}
		d.Resume()
		claimsOf(t, form.fills("jane", "jane's password").signedIn("board"))
		d.Kill()
		form = s.visitor(t).opens("board", "connector_id", "staff").fills("jane", "jane's password")
		form.unavailable("killed", "Staff (staff)")
		d.Start(t)
		claimsOf(t, form.fills("jane", "jane's password").signedIn("board"))
	})
	for _, secret := range []string{"jane", "uid=", "dc=example", "'s password", connectortest.ReaderPassword, "山田"} {
		if strings.Contains(s.said.String(), secret) {
			t.Errorf("the log says %q", secret)
		}
	}
}

// A browser that has a ticket is signed in without a form; one that has none gets the form, in two steps.
func TestUpstreamKerberos(t *testing.T) {
	t.Parallel()
	d := connectortest.StartSlapd(t, connectortest.Entries())
	k := connectortest.StartKDC(t, "EXAMPLE.ORG")
	k.AddUser(t, "jane", "jane's")
	s := serveUpstreams(t, "connectors:\n"+ldapConnector(d, "sso", "groups", "")+fmt.Sprintf(
		"      kerberos: {enabled: true, fallbackToPassword: true, keytabPath: %s}\n", k.AddService(t, "HTTP/localhost")))

	known := s.visitor(t)
	if known.opens("late").by("sso"); known.status != http.StatusUnauthorized || known.ticket != "Negotiate" {
		t.Fatalf("asked for a ticket: %d %q at %s", known.status, known.ticket, known.url)
	}
	known.before = func(r *http.Request) {
		if strings.Contains(r.URL.Path, "/oauth/connect/") {
			r.Header.Set("Authorization", k.Ticket(t, "jane", "jane's", "HTTP/localhost"))
		}
	}
	claims := claimsOf(t, known.get(known.url.String()).signedIn("late"))
	if groups := groupsIn(claims); claims["name"] != "Jane Doe" || !slices.Contains(groups, "company") {
		t.Errorf("claims %v", claims)
	}

	other := s.visitor(t).opens("late").by("sso")
	if other.status != http.StatusUnauthorized {
		t.Errorf("asked for a ticket: %d", other.status)
	}
	other.get(other.url.String()).fills("jane", "jane's password").signedIn("late")

	forged := s.visitor(t)
	forged.before = func(r *http.Request) { r.Header.Set("Authorization", "Negotiate YIIabcdefg") }
	if forged.opens("late").by("sso"); forged.page.form == nil || forged.page.form.password == "" {
		t.Errorf("with a forged ticket: %d %s at %s", forged.status, forged.page.words(), forged.url)
	}
}
