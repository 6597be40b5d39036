package dex

import (
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"

	dex "github.com/dexidp/dex/connector"
	"github.com/dexidp/dex/connector/oauth"
)

// Whoever had Dex's connector before has the same users, with the same claims.
func TestOAuthTellsTheSameAsDex(t *testing.T) {
	var body, access string
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token": %q, "token_type": "bearer"}`, access)
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+access {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, body)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	usual := oauth.Config{
		ClientID: "a", ClientSecret: "b", RedirectURI: "https://login.example.test/callback",
		AuthorizationURL: server.URL + "/authorize", TokenURL: server.URL + "/token", UserInfoURL: server.URL + "/me",
	}
	named := usual
	named.UserIDKey = "sub"
	named.ClaimMapping.UserNameKey, named.ClaimMapping.PreferredUsernameKey = "name", "login"
	named.ClaimMapping.EmailKey, named.ClaimMapping.EmailVerifiedKey = "mail", "mail_verified"
	named.ClaimMapping.GroupsKey = "roles"
	jwt := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"groups": ["t"], "roles": [{"name": "u"}, "é"]}`)) +
		".sig"
	for _, config := range []oauth.Config{usual, named} {
		theirs, err := config.Open("id", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := openOAuth(&config, config.RedirectURI)
		if err != nil {
			t.Fatal(err)
		}
		for _, access = range []string{"opaque", jwt, "e30.===.sig", "a.b"} {
			for _, body = range []string{
				`{"id": "1", "sub": "2", "user_name": "Ann", "name": "Anna", "preferred_username": "ann", "login": "anna",
				  "email": "a@b.test", "email_verified": true, "mail": "c@d.test", "groups": ["a", {"name": "b"}, 1, "a"]}`,
				`{"id": 12345678901, "sub": 1.5, "roles": ["c"], "mail_verified": "true", "groups": "a"}`,
				`{"id": 7, "sub": 7, "user_name": 8, "email": null, "email_verified": 1, "groups": [[], {"name": 1}]}`,
				`{}`, `null`, `[]`, `{"id": true, "sub": {}}`, `{"id": null, "sub": null}`, `nonsense`,
			} {
				ask := func(c dex.Connector) (dex.Identity, error) {
					back := httptest.NewRequest(http.MethodGet, "/callback?code=c", nil)
					who, err := c.(dex.CallbackConnector).HandleCallback(dex.Scopes{Groups: true}, nil, back)
					slices.Sort(who.Groups)
					return who, err
				}
				want, wrong := ask(theirs)
				got, err := ask(ours)
				if (err == nil) != (wrong == nil) || err == nil && !reflect.DeepEqual(got, want) {
					t.Errorf("%s %s:\n got %+v, %v\nwant %+v, %v", body, access, got, err, want, wrong)
				}
			}
		}
	}
}
