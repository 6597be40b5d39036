package dex_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server/connector"
)

func TestARevokedRefreshTokenIsAVerdict(t *testing.T) {
	for _, e := range examples {
		if e.kind != "google" && e.kind != "gitlab" {
			continue
		}
		in, c := e.begin(t, nil)
		who, err := signIn(t.Context(), t, c)
		if err != nil {
			t.Fatal(e.kind, err)
		}
		in.set(func() {
			in.trouble = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/token") {
					return false
				}
				denied(w, http.StatusBadRequest, "invalid_grant")
				return true
			}
		})
		_, err = c.Redirect.(connector.Refresher).Refresh(t.Context(), who)
		_ = refusal(t, err)
	}
}

func TestWhoIsInNoneOfTheGroupsIsRefused(t *testing.T) {
	for kind, change := range map[string][2]string{
		"github": {"orgs: [{name: crew, teams: [ops]}, {name: guests}]", "orgs: [{name: crew, teams: [boss]}]"},
		"gitlab": {"groups: [crew]", "groups: [bosses]"}, "gitea": {"name: crew", "name: bosses"},
		"bitbucket-cloud": {"teams: [crew]", "teams: [bosses]"}, "microsoft": {"groups: [ops]", "groups: [bosses]"},
		"openshift": {"groups: [crew]", "groups: [bosses]"}, "atlassian-crowd": {"groups: [crew]", "groups: [bosses]"},
		"google": {"hostedDomains: [example.test]", "hostedDomains: [bosses.test]"},
	} {
		at := slices.IndexFunc(examples, func(e example) bool { return e.kind == kind })
		e := examples[at]
		e.config = strings.Replace(e.config, change[0], change[1], 1)
		_, c := e.begin(t, nil)
		_, err := signIn(t.Context(), t, c)
		t.Log(kind, err)
		_ = refusal(t, err)
	}
}

// What is wrong with an upstream is never said to be wrong with a person, and recovers.
func TestTroubleOfAnUpstreamIsAFault(t *testing.T) {
	troubles := map[string]func(http.ResponseWriter, *http.Request, <-chan struct{}) bool{
		"500": func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) bool {
			http.Error(w, "ann@example.test hunter2", http.StatusInternalServerError)
			return true
		},
		"garbage": func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) bool {
			_, _ = w.Write([]byte("<html>ann@example.test hunter2</html>"))
			return true
		},
		"nobody": func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) bool {
			_, _ = w.Write([]byte("{}"))
			return true
		},
		"hangs": func(_ http.ResponseWriter, r *http.Request, ended <-chan struct{}) bool {
			select {
			case <-r.Context().Done():
			case <-ended:
			}
			return true
		},
		"breaks off": func(http.ResponseWriter, *http.Request, <-chan struct{}) bool { panic(http.ErrAbortHandler) },
	}
	for _, e := range examples {
		for name, trouble := range troubles {
			t.Run(e.kind+"/"+name, func(t *testing.T) {
				in, c := e.begin(t, nil)
				before := in.trouble // nobody has asked it yet
				if _, err := signIn(t.Context(), t, c); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				in.set(func() {
					in.trouble = func(w http.ResponseWriter, r *http.Request) bool {
						browses := strings.Contains(r.URL.Path, "/authoriz")
						if token := strings.Contains(strings.ToLower(r.URL.Path), "token"); browses || token && e.trouble == nil {
							return false
						}
						if name == "nobody" && r.URL.Path != e.user {
							return before != nil && before(w, r)
						}
						return trouble(w, r, in.ended)
					}
				})
				_, err := signIn(ctx, t, c)
				switch {
				case name != "nobody":
					faulty(t, err)
				case err == nil && e.kind != "keystone": // an answer without an e-mail address is an answer there
					t.Error("signed in as nobody")
				}
				in.set(func() { in.trouble = before })
				if _, err := signIn(t.Context(), t, c); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}

func TestAnswersOfOthersAreRefused(t *testing.T) {
	for _, kind := range []string{"github", "google", "oauth"} {
		at := slices.IndexFunc(examples, func(e example) bool { return e.kind == kind })
		_, c := examples[at].begin(t, nil)
		ask := newAsk()
		away, err := c.Redirect.Start(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		for name, q := range map[string]url.Values{
			"mix-up":            {"code": {"c"}, "iss": {"https://attacker.test"}},
			"two codes":         {"code": {"c", "d"}},
			"two issuers":       {"code": {"c"}, "iss": {"https://github.com", "https://attacker.test"}},
			"no code":           {},
			"a code of nobody":  {"code": {"c"}},
			"login_required":    {"error": {"login_required"}},
			"denied by another": {"error": {"access_denied"}, "iss": {"https://attacker.test"}},
		} {
			back := httptest.NewRequest(http.MethodGet, "https://login.example.test/callback?"+q.Encode(), nil)
			_, err := c.Redirect.Finish(t.Context(), ask, away.Keep, back)
			if refusal(t, err).Cancelled {
				t.Errorf("%s, %s: cancelled", kind, name)
			}
		}
		denied := httptest.NewRequest(http.MethodGet, "https://login.example.test/callback?error=access_denied", nil)
		if _, err := c.Redirect.Finish(t.Context(), ask, away.Keep, denied); !refusal(t, err).Cancelled {
			t.Errorf("%s: not cancelled", kind)
		}
		for _, code := range []string{"server_error", "unauthorized_client", "ann@example.test"} {
			broken := httptest.NewRequest(http.MethodGet, "https://login.example.test/callback?error="+code, nil)
			_, err := c.Redirect.Finish(t.Context(), ask, away.Keep, broken)
			faulty(t, err)
		}
	}
}

func TestAWrongClientSecretIsAFault(t *testing.T) {
	for _, e := range examples {
		e.config = strings.Replace(e.config, clientSecret, "another", 1)
		if e.kind == "keystone" {
			continue // has none
		}
		_, c := e.begin(t, nil)
		_, err := signIn(t.Context(), t, c)
		t.Log(e.kind, err)
		faulty(t, err)
	}
}

func TestCertificatesOfOwnAuthorities(t *testing.T) {
	certificate := certify()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pemOf(certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	inline := base64.StdEncoding.EncodeToString(pemOf(certificate))
	for kind, config := range map[string]string{
		"github": client + "hostName: git.example.test\nrootCA: " + path,
		"gitlab": client + "rootCAData: " + inline,
		"oauth": client + "authorizationURL: https://a.test\ntokenURL: https://a.test\nuserInfoURL: https://a.test\n" +
			"rootCAs: [" + path + ", " + inline + "]",
		"openshift": client + "issuer: https://a.test\nrootCA: " + path,
		"ldap":      someLDAP + "rootCAData: " + inline,
	} {
		open(t, spec(t, kind, config))
	}
}

func TestTokensDoNotFollowARedirectToAnotherHost(t *testing.T) {
	var told atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "" || strings.Contains(string(body), "hunter2") {
			told.Store(true)
		}
	}))
	defer other.Close()
	at := slices.IndexFunc(examples, func(e example) bool { return e.kind == "gitea" })
	for _, path := range []string{"/api/v1/user", "/login/oauth/access_token"} {
		in, c := examples[at].begin(t, nil)
		in.set(func() {
			in.trouble = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == path {
					http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
				}
				return r.URL.Path == path
			}
		})
		_, err := signIn(t.Context(), t, c)
		faulty(t, err)
	}
	if told.Load() {
		t.Error("another host was told")
	}
}

// An upstream that never stops answering takes no more than a bounded answer.
func TestEndlessAnswersAreCut(t *testing.T) {
	at := slices.IndexFunc(examples, func(e example) bool { return e.kind == "gitea" })
	in, c := examples[at].begin(t, nil)
	in.set(func() {
		in.trouble = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/api/v1/user" {
				return false
			}
			w.WriteHeader(http.StatusTeapot) // of which Dex's code reads all
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return true
				}
			}
		}
	})
	_, err := signIn(t.Context(), t, c)
	faulty(t, err)
}
