package dex

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/connectortest"
)

// A real provider and a browser of HTTP between: from Start, through the provider's sign-in page, to Finish.
func TestSAMLEndToEnd(t *testing.T) {
	t.Parallel()
	idp := connectortest.StartSAML(t)
	ada := connectortest.Person{UID: "ada", Name: "Ada Lovelace", Email: "ada@example.com"}
	idp.Add(t, ada, "staff", "analysts")
	var c *samlConnector
	keeps := map[string][]byte{}
	here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			question := connector.Ask{State: ask().State, Fresh: r.FormValue("fresh") != ""}
			away, err := c.Start(r.Context(), question)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			keeps[question.State] = away.Keep
			writeJSON(w, away)
			return
		}
		_ = r.ParseForm()
		who, err := c.Finish(r.Context(), connector.Ask{State: r.PostForm.Get("RelayState")},
			keeps[r.PostForm.Get("RelayState")], r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		writeJSON(w, who)
	}))
	t.Cleanup(here.Close)
	config := idp.Config(here.URL)
	config["redirectURI"] = here.URL + "/callback"
	spec := samlSpec(config)
	spec.Callbacks, spec.TrustUpstream = []string{here.URL + "/callback"}, true
	c = openSAML(t, spec)
	_, metadata, err := c.Describe()
	if err != nil {
		t.Fatal(err)
	}
	idp.Trust(t, metadata)

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	get := func(address string) (away connector.Away) {
		resp, err := browser.Get(address)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		defer func() { _ = resp.Body.Close() }()
		if err := json.NewDecoder(resp.Body).Decode(&away); err != nil {
			t.Fatal(err)
		}
		return away
	}
	post := func(address string, form url.Values) *http.Response {
		resp, err := browser.PostForm(address, form)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}

	away := get(here.URL)
	answer := idp.SignIn(t, browser, away.Post, ada)
	if answer.Get("RelayState") != away.Post["RelayState"] {
		t.Fatalf("the provider's page: %v", answer)
	}
	resp := post(here.URL+"/callback", answer)
	var who connector.Identity
	if err := json.NewDecoder(resp.Body).Decode(&who); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	_ = resp.Body.Close()
	if age := time.Since(who.AuthTime); age < 0 || age > time.Minute {
		t.Errorf("signed in %s ago", age)
	}
	who.AuthTime = time.Time{}
	if want := (connector.Identity{UserID: "ada@example.com", Name: "Ada Lovelace", Email: "ada@example.com",
		EmailVerified: true, Groups: []string{"staff", "analysts"},
		ACR: "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"}); !reflect.DeepEqual(who, want) {
		t.Errorf("%+v", who)
	}

	// The provider remembers the browser, so a second sign-in needs no page, unless it is to be anew.
	away = get(here.URL)
	second := idp.SignIn(t, browser, away.Post, connectortest.Person{})
	resp = post(here.URL+"/callback", second)
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	_ = resp.Body.Close()
	away = get(here.URL + "?fresh=1")
	if again := idp.Form(t, browser, url.Values{"SAMLRequest": {away.Post["SAMLRequest"]}}); again.Has("SAMLResponse") {
		t.Error("asked to have the person sign in anew, the provider did not")
	}

	// An answer to one question is none to another, and there is none without a question.
	isRefused := func(form url.Values) {
		t.Helper()
		resp := post(here.URL+"/callback", form)
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "InResponseTo") {
			t.Errorf("%s: %s", resp.Status, body)
		}
	}
	other := get(here.URL)
	second.Set("RelayState", other.Post["RelayState"])
	isRefused(second)
	resp, err = browser.Get(idp.Unasked(t, here.URL, other.Post["RelayState"]))
	if err != nil {
		t.Fatal(err)
	}
	unasked := connectortest.FormOf(t, resp)
	if text, _ := base64.StdEncoding.DecodeString(unasked.Get("SAMLResponse")); !bytes.Contains(text, []byte("ada@")) {
		t.Fatalf("the provider starts nothing itself: %v", unasked)
	}
	unasked.Set("RelayState", other.Post["RelayState"])
	isRefused(unasked)
}
