package dex_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/dex"
)

const client = "clientID: " + clientID + "\nclientSecret: " + clientSecret + "\n"

// example is a kind of upstream, with the configuration by which it is asked, what it answers, and whom that makes.
type example struct {
	kind, config string // %s is the address of the imitation
	answers      map[string]any
	idClaims     map[string]any
	trouble      func(in *imitation) func(http.ResponseWriter, *http.Request) bool
	want         connector.Identity
	user         string // the path at which the user is read
}

type object = map[string]any

var examples = []example{
	{
		kind: "github", config: client + "orgs: [{name: crew, teams: [ops]}, {name: guests}]\nteamNameField: both",
		answers: object{
			"/user": object{"id": 4711, "login": "ann", "name": "Ann Example"},
			"/user/emails": []object{
				{"email": "old@example.test", "verified": true},
				{"email": "ann@example.test", "verified": true, "primary": true},
			},
			"/orgs/crew/members/ann": nil,
			"/user/teams": []object{
				{"name": "ops", "slug": "ops", "organization": object{"login": "crew"}},
				{"name": "dev", "slug": "dev", "organization": object{"login": "crew"}},
			},
		},
		want: connector.Identity{UserID: "4711", Name: "Ann Example", Username: "ann", PreferredUsername: "ann",
			Email: "ann@example.test", EmailVerified: true, Groups: []string{"crew:ops", "crew:ops"}},
		user: "/user",
	},
	{
		kind: "gitlab", config: client + "baseURL: %s\ngroups: [crew]",
		answers: object{
			"/api/v4/user":    object{"id": 12, "name": "Ann Example", "username": "ann", "email": "ann@example.test"},
			"/oauth/userinfo": object{"groups": []string{"crew", "guests"}},
		},
		want: connector.Identity{UserID: "12", Name: "Ann Example", Username: "ann", PreferredUsername: "ann",
			Email: "ann@example.test", EmailVerified: true, Groups: []string{"crew"}},
		user: "/api/v4/user",
	},
	{
		kind: "gitea", config: client + "baseURL: %s\norgs: [{name: crew, teams: [ops]}]\nuseLoginAsID: true",
		answers: object{
			"/api/v1/user":       object{"id": 5, "full_name": "Ann Example", "login": "ann", "email": "ann@example.test"},
			"/api/v1/user/teams": []object{{"name": "ops", "organization": object{"username": "crew"}}},
		},
		want: connector.Identity{UserID: "ann", Name: "Ann Example", Username: "ann", PreferredUsername: "ann",
			Email: "ann@example.test", EmailVerified: true, Groups: []string{"crew", "crew:ops"}},
		user: "/api/v1/user",
	},
	{
		kind: "bitbucket-cloud", config: client + "teams: [crew]",
		answers: object{
			"/2.0/user": object{"username": "ann", "uuid": "{b-1}"},
			"/2.0/user/emails": object{"values": []object{
				{"is_primary": true, "is_confirmed": true, "email": "ann@example.test"},
			}},
			"/2.0/user/workspaces": object{"values": []object{{"workspace": object{"slug": "crew"}}}},
		},
		want: connector.Identity{UserID: "{b-1}", Name: "ann", Email: "ann@example.test", EmailVerified: true,
			Groups: []string{"crew"}},
		user: "/2.0/user",
	},
	{
		kind: "linkedin", config: client,
		answers: object{
			"/v2/me":           object{"id": "li-1", "localizedFirstName": "Ann", "localizedLastName": "Example"},
			"/v2/emailAddress": object{"elements": []object{{"handle~": object{"emailAddress": "ann@example.test"}}}},
		},
		want: connector.Identity{UserID: "li-1", Name: "Ann Example", Email: "ann@example.test", EmailVerified: true},
		user: "/v2/me",
	},
	{
		kind: "microsoft", config: client + "tenant: crew.example\napiURL: %[1]s\ngraphURL: %[1]s\ngroups: [ops]\n" +
			"preferredUsernameField: mailNickname\nuseGroupsAsWhitelist: true",
		answers: object{
			"/v1.0/me": object{"id": "ms-1", "displayName": "Ann Example", "userPrincipalName": "ann@example.test",
				"mailNickname": "ann"},
			"/v1.0/me/getMemberGroups":        object{"value": []string{"g1", "g2"}},
			"/v1.0/directoryObjects/getByIds": object{"value": []object{{"displayName": "ops"}, {"displayName": "dev"}}},
		},
		want: connector.Identity{UserID: "ms-1", Name: "Ann Example", Username: "ann", PreferredUsername: "ann",
			Email: "ann@example.test", EmailVerified: true, Groups: []string{"ops"}},
		user: "/v1.0/me",
	},
	{
		kind: "oauth", config: client + "authorizationURL: %[1]s/authorize\ntokenURL: %[1]s/token\nuserInfoURL: %[1]s/me\n" +
			"userIDKey: sub\nclaimMapping: {userNameKey: name}",
		answers: object{"/me": object{"sub": "o-1", "name": "Ann Example", "preferred_username": "ann",
			"email": "ann@example.test", "email_verified": false, "groups": []string{"crew"}}},
		want: connector.Identity{UserID: "o-1", Name: "Ann Example", Username: "ann", PreferredUsername: "ann",
			Email: "ann@example.test", Groups: []string{"crew"}},
		user: "/me",
	},
	{
		kind: "openshift", config: client + "issuer: %s\ngroups: [crew]",
		answers: object{"/apis/user.openshift.io/v1/users/~": object{
			"metadata": object{"name": "ann", "uid": "os-1"}, "groups": []string{"crew", "guests"},
		}},
		want: connector.Identity{UserID: "os-1", Name: "ann", Username: "ann", PreferredUsername: "ann", Email: "ann",
			Groups: []string{"crew", "guests"}},
		user: "/apis/user.openshift.io/v1/users/~",
	},
	{
		kind: "google", config: client + "hostedDomains: [example.test]\ngroups: [ops@example.test]\n" +
			"serviceAccountFilePath: GOOGLE\ndomainToAdminEmail: {'*': boss@example.test}",
		answers: object{"/admin/directory/v1/groups": object{"groups": []object{{"email": "ops@example.test"}}}},
		idClaims: object{"iss": "https://accounts.google.com", "sub": "g-1", "aud": clientID, "name": "Ann Example",
			"email": "ann@example.test", "email_verified": true, "hd": "example.test",
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()},
		want: connector.Identity{UserID: "g-1", Name: "Ann Example", Email: "ann@example.test", EmailVerified: true,
			Groups: []string{"ops@example.test"}},
		user: "/admin/directory/v1/groups",
	},
	{
		kind: "keystone", config: "keystoneHost: %s\ndomain: default\nkeystoneUsername: boss\nkeystonePassword: hunter2-boss",
		answers: object{}, trouble: keystone,
		want: connector.Identity{UserID: "k-1", Name: "ann", Email: "ann@example.test", EmailVerified: true,
			Groups: []string{"crew"}},
		user: "/v3/users/k-1",
	},
	{
		kind: "atlassian-crowd", config: client + "baseURL: %s\ngroups: [crew]\npreferredUsernameField: name",
		answers: object{}, trouble: crowd,
		want: connector.Identity{UserID: "c-1", Name: "ann", Username: "ann", PreferredUsername: "ann",
			Email: "ann@example.test", EmailVerified: true, Groups: []string{"crew"}},
		user: "/rest/usermanagement/1/user",
	},
}

// keystone answers as version 3 of the Identity API of OpenStack.
func keystone(in *imitation) func(http.ResponseWriter, *http.Request) bool {
	passwords := map[string]string{"ann": "hunter2-ann", "boss": "hunter2-boss"}
	return func(w http.ResponseWriter, r *http.Request) bool {
		in.mu.Lock()
		gone := in.answers["gone"] != nil
		in.mu.Unlock()
		switch path := r.URL.Path; {
		case path == "/v3/auth/tokens/" || path == "/v3/auth/tokens":
			var asked struct {
				Auth struct {
					Identity struct {
						Password struct {
							User struct{ Name, Password string }
						}
					}
				}
			}
			_ = json.NewDecoder(r.Body).Decode(&asked)
			user := asked.Auth.Identity.Password.User
			if passwords[user.Name] == "" || passwords[user.Name] != user.Password {
				http.Error(w, `{"error": {"message": "ann@example.test"}}`, http.StatusUnauthorized)
				return true
			}
			w.Header().Set("X-Subject-Token", accessToken)
			w.WriteHeader(http.StatusCreated)
			reply(w, object{"token": object{"user": object{"id": "k-1", "name": user.Name}}})
		case r.Header.Get("X-Auth-Token") != accessToken:
			http.Error(w, "{}", http.StatusUnauthorized)
		case gone:
			http.Error(w, "{}", http.StatusNotFound)
		case path == "/v3/users/k-1":
			reply(w, object{"user": object{"id": "k-1", "name": "ann", "email": "ann@example.test"}})
		case path == "/v3/users/k-1/groups":
			reply(w, object{"groups": []object{{"id": "1", "name": "crew"}}})
		}
		return true
	}
}

// crowd answers as the REST API of Atlassian Crowd.
func crowd(in *imitation) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		in.mu.Lock()
		gone := in.answers["gone"] != nil
		in.mu.Unlock()
		if id, secret, _ := r.BasicAuth(); id != clientID || secret != clientSecret {
			http.Error(w, "Application failed to authenticate", http.StatusUnauthorized)
			return true
		}
		switch strings.TrimPrefix(r.URL.Path, "/rest/usermanagement/1") {
		case "/session":
			var asked struct{ Username, Password string }
			_ = json.NewDecoder(r.Body).Decode(&asked)
			checks := r.URL.Query().Get("validate-password") != "false"
			if checks && (asked.Username != "ann" || asked.Password != "hunter2-ann") {
				w.WriteHeader(http.StatusBadRequest)
				reply(w, object{"reason": "INVALID_USER_AUTHENTICATION", "message": "ann@example.test"})
				return true
			}
			w.WriteHeader(http.StatusCreated)
			reply(w, object{"token": accessToken, "user": object{"name": "ann"}})
		case "/user":
			if gone {
				http.Error(w, `{"reason": "USER_NOT_FOUND", "message": "ann@example.test"}`, http.StatusNotFound)
				return true
			}
			reply(w, object{"key": "c-1", "name": r.URL.Query().Get("username"), "email": "ann@example.test", "active": true})
		case "/user/group/nested":
			reply(w, object{"groups": []object{{"name": "crew"}, {"name": "guests"}}})
		}
		return true
	}
}

// begin makes the connector of an example before a fresh imitation.
func (e example) begin(t *testing.T, change func(*dex.Spec)) (*imitation, connector.Connector) {
	t.Helper()
	answers := object{}
	for path, answer := range e.answers {
		answers[path] = answer
	}
	in := imitate(t, answers)
	in.idClaims = e.idClaims
	if e.trouble != nil {
		in.trouble = e.trouble(in)
	}
	config := e.config
	if strings.Contains(config, "%") {
		config = fmt.Sprintf(config, in.URL)
	}
	if strings.Contains(config, "GOOGLE") {
		config = strings.ReplaceAll(config, "GOOGLE", serviceAccount(t))
	}
	s := spec(t, e.kind, config)
	s.Ask = time.Hour
	if e.kind == "oauth" {
		s.Ask = 0
	}
	if change != nil {
		change(&s)
	}
	return in, open(t, s)
}

var accountKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// serviceAccount writes the key of a service account of Google.
func serviceAccount(t *testing.T) string {
	t.Helper()
	data, err := json.Marshal(object{
		"type": "service_account", "client_email": "reader@example.test", "token_uri": "https://oauth2.googleapis.com/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{
			Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(accountKey()),
		})),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func withoutData(who connector.Identity) connector.Identity {
	who.Data = nil
	return who
}

func refusal(t *testing.T, err error) connector.RefusedError {
	t.Helper()
	var refused *connector.RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("not a verdict: %v", err)
	}
	silent(t, err)
	return *refused
}

// faulty is an error that is no verdict.
func faulty(t *testing.T, err error) {
	t.Helper()
	var refused *connector.RefusedError
	if err == nil || errors.As(err, &refused) {
		t.Fatalf("not a fault: %v", err)
	}
	silent(t, err)
}

// silent is an error that quotes nobody.
func silent(t *testing.T, err error) {
	t.Helper()
	for _, said := range []string{"ann", "hunter2", "example.test", "boss"} {
		if strings.Contains(err.Error(), said) {
			t.Errorf("%q tells %q", err, said)
		}
	}
}

func TestEveryKindSignsInAndIsAskedAgain(t *testing.T) {
	for _, e := range examples {
		t.Run(e.kind, func(t *testing.T) {
			in, c := e.begin(t, nil)
			who, err := signIn(t.Context(), t, c)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(withoutData(who), e.want) {
				t.Errorf("got  %+v\nwant %+v", withoutData(who), e.want)
			}
			again, refreshes := connector.Refresher(nil), false
			if c.Redirect != nil {
				again, refreshes = c.Redirect.(connector.Refresher)
			} else {
				again, refreshes = c.Password.(connector.Refresher)
			}
			if !refreshes {
				if e.kind != "oauth" {
					t.Error("cannot be asked again")
				}
				return
			}
			now, err := again.Refresh(t.Context(), who)
			if err != nil || !reflect.DeepEqual(withoutData(now), e.want) || now.Data == nil {
				t.Fatalf("asked again: %+v, %v", now, err)
			}
			in.set(func() {
				trouble := in.trouble
				in.trouble = func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path == e.user {
						http.Error(w, "ann@example.test hunter2", http.StatusInternalServerError)
						return true
					}
					return trouble != nil && trouble(w, r)
				}
			})
			_, err = again.Refresh(t.Context(), now)
			faulty(t, err)
			if e.kind == "google" {
				return // its token endpoint alone says no, as in the next test
			}
			in.set(func() {
				in.answers["gone"] = true
				in.trouble = func(w http.ResponseWriter, r *http.Request) bool {
					if e.trouble != nil {
						return e.trouble(in)(w, r)
					}
					if r.URL.Path == e.user {
						w.WriteHeader(http.StatusUnauthorized)
						reply(w, object{"error": object{"code": "InvalidAuthenticationToken", "message": "ann@example.test"}})
					}
					return r.URL.Path == e.user
				}
			})
			_, err = again.Refresh(t.Context(), now)
			_ = refusal(t, err)
		})
	}
}

// Nothing is asked for that is not needed: a token that lives long is worth stealing.
func TestWithoutRefreshUpstreamNothingIsRemembered(t *testing.T) {
	for _, e := range examples {
		_, c := e.begin(t, func(s *dex.Spec) { s.Ask = 0 })
		who, err := signIn(t.Context(), t, c)
		if err != nil {
			t.Fatal(e.kind, err)
		}
		if who.Data != nil {
			t.Errorf("%s remembers %d bytes", e.kind, len(who.Data))
		}
	}
}

func TestGoogleComparesTheNonce(t *testing.T) {
	at := slices.IndexFunc(examples, func(e example) bool { return e.kind == "google" })
	for name, nonce := range map[string]any{"missing": nil, "replayed": "of-another-sign-in", "no text": 7} {
		e := examples[at]
		claims := object{"nonce": nonce}
		for claim, value := range e.idClaims {
			claims[claim] = value
		}
		e.idClaims = claims
		_, c := e.begin(t, nil)
		_, err := signIn(t.Context(), t, c)
		if refused := refusal(t, err); !strings.Contains(refused.Reason, "nonce") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQuestionsAreFitted(t *testing.T) {
	for kind, want := range map[string]url.Values{
		"github":    {"login": {"ann"}, "prompt": {"select_account"}},
		"google":    {"login_hint": {"ann"}, "prompt": {"consent select_account"}, "access_type": {"offline"}},
		"microsoft": {"login_hint": {"ann"}, "prompt": {"login"}},
	} {
		at := slices.IndexFunc(examples, func(e example) bool { return e.kind == kind })
		_, c := examples[at].begin(t, nil)
		ask := newAsk()
		ask.Fresh, ask.LoginHint = true, "ann"
		away, err := c.Redirect.Start(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(away.URL)
		if err != nil || len(away.Keep) > 1024 || u.Query().Get("state") != ask.State {
			t.Fatal(away, err)
		}
		for name := range want {
			if got := u.Query().Get(name); got != want.Get(name) {
				t.Errorf("%s: %s is %q", kind, name, got)
			}
		}
	}
}

func TestPasswordKindsTellWrongPasswords(t *testing.T) {
	for _, e := range examples {
		if e.kind != "keystone" && e.kind != "atlassian-crowd" {
			continue
		}
		_, c := e.begin(t, nil)
		for _, try := range [][2]string{
			{"ann", "wrong"}, {"eve", "hunter2-ann"}, {"ann", ""}, {"", "hunter2-ann"}, {"ann\x00", "hunter2-ann"},
		} {
			if who, right, err := c.Password.Login(t.Context(), try[0], try[1]); right || err != nil {
				t.Errorf("%s: %q: %+v, %v", e.kind, try, who, err)
			}
		}
		account := c.Password.Account("ann")
		for _, same := range []string{"ANN", " ann ", "a\u200bnn", "ａｎｎ", "änn"} {
			if c.Password.Account(same) != account {
				t.Errorf("%q is another account", same)
			}
		}
		if c.Password.Account("a nn") == account {
			t.Error("two accounts are one")
		}
		if _, known := c.Password.User("ann"); known {
			t.Error("known before they have signed in")
		}
	}
	at := slices.IndexFunc(examples, func(e example) bool { return e.kind == "atlassian-crowd" })
	in, c := examples[at].begin(t, nil)
	_, right, err := c.Password.Login(t.Context(), "ann&username=boss", "hunter2-ann")
	if right || err != nil || len(in.asked) > 0 {
		t.Errorf("a name that would be part of the address: %v, %v, asked %q", right, err, in.asked)
	}
}

func TestAuthproxyBelievesItsProxyAlone(t *testing.T) {
	c := open(t, spec(t, "authproxy", "userHeader: X-Forwarded-User\nstaticGroups: [default]"))
	ask := newAsk()
	away, err := c.Redirect.Start(t.Context(), ask)
	if want := callbacks("authproxy")[0] + "?state=" + ask.State; err != nil || away.URL != want {
		t.Fatalf("%q, %v", away.URL, err)
	}
	back := httptest.NewRequest(http.MethodGet, away.URL, nil)
	back.RemoteAddr = "192.0.2.1:1234"
	_, err = c.Redirect.Finish(t.Context(), ask, away.Keep, back)
	faulty(t, err) // the proxy lets everybody through
	back.Header.Set("X-Forwarded-User", "ann@example.test")
	back.Header.Set("X-Remote-Group", "crew, ops")
	who, err := c.Redirect.Finish(t.Context(), ask, away.Keep, back)
	want := connector.Identity{
		UserID: "ann@example.test", Name: "ann@example.test", Username: "ann@example.test",
		PreferredUsername: "ann@example.test", Email: "ann@example.test", EmailVerified: true,
		Groups: []string{"crew", "ops", "default"},
	}
	if err != nil || !reflect.DeepEqual(who, want) {
		t.Errorf("%+v, %v", who, err)
	}
	back.RemoteAddr = "203.0.113.9:1234"
	_, err = c.Redirect.Finish(t.Context(), ask, away.Keep, back)
	_ = refusal(t, err)
}

// An upstream may need an administrator's consent before it tells of groups.
func TestGroupsAreNotAskedForWhenTheyAreSkipped(t *testing.T) {
	for kind, permission := range map[string]string{
		"microsoft": "directory.read.all", "github": "read:org", "gitlab": "openid", "keystone": "", "atlassian-crowd": "",
	} {
		at := slices.IndexFunc(examples, func(e example) bool { return e.kind == kind })
		for _, skips := range []bool{false, true} {
			e := examples[at]
			for _, required := range []string{
				"groups: [crew]", "groups: [ops]", "useGroupsAsWhitelist: true",
				"orgs: [{name: crew, teams: [ops]}, {name: guests}]",
			} {
				e.config = strings.Replace(e.config, required, "", 1)
			}
			_, c := e.begin(t, func(s *dex.Spec) { s.SkipGroups = skips })
			if permission != "" {
				away, err := c.Redirect.Start(t.Context(), newAsk())
				if err != nil || strings.Contains(away.URL, url.QueryEscape(permission)) == skips {
					t.Errorf("%s, skipGroups %v: %s, %v", kind, skips, away.URL, err)
				}
			}
			who, err := signIn(t.Context(), t, c)
			if err != nil || skips && len(who.Groups) > 0 || !skips && kind != "github" && len(who.Groups) == 0 {
				t.Errorf("%s, skipGroups %v: %q, %v", kind, skips, who.Groups, err)
			}
		}
	}
	for kind, config := range map[string]string{
		"openshift":       client + "issuer: https://a.test",
		"atlassian-crowd": client + "baseURL: https://a.test\ngroups: [crew]",
	} {
		s := spec(t, kind, config)
		s.SkipGroups = true
		if _, faults := dex.New(s); len(faults) != 1 || !strings.Contains(faults[0].Message, "skipGroups") {
			t.Errorf("%s: %+v", kind, faults)
		}
	}
}
