package dex

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"

	"github.com/warifu/warifu/server/connector"
)

// TestOIDCAtAnotherProvider signs in at a provider that is not ours, the example of zitadel/oidc, is asked again, and
// signs out there.
func TestOIDCAtAnotherProvider(t *testing.T) {
	t.Parallel()
	var provider http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		provider.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	storage.RegisterClients(storage.WebClient("at-zitadel", clientSecret, callback))
	provider = exampleop.SetupServer(server.URL, storage.NewStorage(storage.NewUserStore("https://localhost:443/")), nil,
		false)

	s := oidcSpecAt(t, server.URL, map[string]any{"clientID": "at-zitadel", "getUserInfo": true})
	s.Ask = time.Hour
	c := open(t, s)
	question := ask()
	away, err := c.Start(context.Background(), question)
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(next.URL.String(), callback) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	form, err := browser.Get(away.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = form.Body.Close()
	done, err := browser.PostForm(form.Request.URL.String(), url.Values{"username": {"test-user2"},
		"password": {"verysecure"}, "id": {form.Request.URL.Query().Get("authRequestID")}})
	if err != nil {
		t.Fatal(err)
	}
	_ = done.Body.Close()
	back := done.Header.Get("Location")
	if !strings.HasPrefix(back, callback) {
		t.Fatalf("%s at %s, to %q", done.Status, done.Request.URL.Path, back)
	}
	who, err := c.Finish(context.Background(), question, away.Keep, httptest.NewRequest(http.MethodGet, back, nil))
	if err != nil {
		t.Fatal(err)
	}
	again := func(who connector.Identity) {
		t.Helper()
		if who.UserID != "id2" || who.Name != "Test User2" || who.Email != "test-user2@zitadel.ch" || !who.EmailVerified ||
			who.PreferredUsername != "test-user2" || who.Data == nil {
			t.Errorf("%+v", who)
		}
	}
	again(who)
	_, err = c.Finish(context.Background(), question, away.Keep, httptest.NewRequest(http.MethodGet, back, nil))
	_ = refused(t, err) // the code has been used
	now, err := c.Refresh(context.Background(), who)
	if err != nil {
		t.Fatal(err)
	}
	again(now)
	if string(now.Data) == string(who.Data) {
		t.Error("the refresh token has not changed")
	}
	_, err = c.Refresh(context.Background(), who) // with the one that was spent
	_ = refused(t, err)
	out, err := c.SignOutURL(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	left, err := browser.Get(out)
	if err != nil {
		t.Fatal(err)
	}
	_ = left.Body.Close()
	if left.StatusCode != http.StatusOK || !strings.HasSuffix(left.Request.URL.Path, "logged-out") {
		t.Errorf("%s at %s", left.Status, left.Request.URL)
	}
}
