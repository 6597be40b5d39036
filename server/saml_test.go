package server_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/connectortest"
	"github.com/warifu/warifu/server/connector/dex"
)

// samlUpstream is a server with a SAML provider beside its own users, which sends its answers to an address below the
// issuer.
func samlUpstream(t *testing.T, callback string) (*idp, *connectortest.SAML) {
	t.Helper()
	up := connectortest.StartSAML(t)
	p := newIDP(t, func(c *server.Config) {
		keys := up.Config(c.Issuer)
		keys["redirectURI"] = c.Issuer + callback
		config, err := json.Marshal(keys)
		if err != nil {
			t.Fatal(err)
		}
		made, faults := dex.New(dex.Spec{Type: "saml", ID: "sso", Config: config, Logger: slog.New(slog.DiscardHandler),
			Callbacks: []string{c.Issuer + "/callback/sso", c.Issuer + "/callback"}})
		if len(faults) > 0 {
			t.Fatalf("%+v", faults)
		}
		made.Name, made.Groups = "SSO", []string{"kept *"}
		c.Connectors = append(c.Connectors, made)
	})
	// The provider is told of us as operators do it.
	resp, document := p.raw(http.MethodGet, p.issuer+"/callback/sso/metadata")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/samlmetadata+xml" ||
		!strings.Contains(document, `"`+p.issuer+callback+`"`) {
		t.Fatalf("%s %s: %s", resp.Status, resp.Header.Get("Content-Type"), document)
	}
	up.Trust(t, []byte(document))
	return p.withAllScopes(), up
}

// carried is the form that a page posts, and where.
func (b *browser) carried(got page, field string) (to string, fields map[string]string) {
	b.p.t.Helper()
	to, form := b.form(got, field)
	fields = map[string]string{}
	for name := range form {
		fields[name] = form.Get(name)
	}
	return to, fields
}

func samlClient(b *browser) *http.Client { return &http.Client{Jar: b.http.Jar} }

// A SAML provider answers by a form of its own, with which a browser sends no cookie of ours that is SameSite=Lax. So
// it gets a page that posts the same once more, and with that the cookies come.
func TestSigningInAtASAMLProvider(t *testing.T) {
	p, up := samlUpstream(t, "/callback/sso")
	ada := connectortest.Person{UID: "ada", Name: "Ada Lovelace", Email: "ada@example.com"}
	groups := []string{"kept one", "kept two"}
	for i := range 600 { // more than a person may be in here
		groups = append(groups, fmt.Sprintf("CN=some other department %d,OU=groups,DC=example,DC=com", i))
	}
	up.Add(t, ada, groups...)

	b := p.browser()
	asked := b.press(b.follow(b.get(p.authorizeURL("scope", "openid email profile groups"))), "sso")
	to, fields := b.carried(asked, "SAMLRequest")
	if to != up.URL+"/sso" || len(fields["RelayState"]) != 43 {
		t.Fatalf("%d to %s: %v", asked.status, to, fields)
	}
	answer := up.SignIn(t, samlClient(b), fields, ada)
	if len(answer.Get("SAMLResponse")) < 100<<10 {
		t.Fatal("the answer is not as large as this test wants it")
	}

	// As a browser posts it from the provider's page.
	stranger := &browser{p, &http.Client{Transport: p.transport, CheckRedirect: b.http.CheckRedirect}}
	crossed := stranger.post(p.issuer+"/callback/sso", answer)
	here, carried := b.carried(crossed, "SAMLResponse")
	if policy := crossed.header.Get("Content-Security-Policy"); crossed.status != http.StatusOK ||
		!strings.HasPrefix(here, p.issuer+"/callback/sso?") || !strings.Contains(policy, "form-action 'self'") ||
		carried["SAMLResponse"] != answer.Get("SAMLResponse") || carried["RelayState"] != answer.Get("RelayState") ||
		len(crossed.header["Set-Cookie"]) > 0 {
		t.Fatalf("%d to %q, %v", crossed.status, here, crossed.header)
	}
	// In another browser that leads nowhere, and to no circle either.
	elsewhere := p.browser().post(here, answer)
	if elsewhere.status != http.StatusBadRequest || strings.Contains(elsewhere.body, "SAMLResponse") {
		t.Errorf("in another browser: %d %s", elsewhere.status, shown(elsewhere.body))
	}
	// There is an end to what is taken, and carried back.
	huge := url.Values{"RelayState": {"x"}, "SAMLResponse": {strings.Repeat("A", 256<<10)}}
	got := p.browser().post(p.issuer+"/callback/sso", huge)
	if got.status != http.StatusBadRequest || len(got.body) > 64<<10 {
		t.Errorf("huge: %d with %d bytes", got.status, len(got.body))
	}
	cookies := b.http.Jar.Cookies(mustURL(t, p.issuer))
	got = b.follow(b.post(here, answer))
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	claims := claimsOf(t, p.exchange(b.answered(got, "signed in")).text("id_token"))
	told, _ := claims["groups"].([]any)
	if claims["sub"] != connector.SubjectsHashed.Of("sso", ada.Email) || claims["email"] != ada.Email ||
		claims["email_verified"] != true || claims["name"] != ada.Name || len(told) != 2 || claims["amr"] != nil {
		t.Errorf("%v", claims)
	}
	// The same answer once more: this browser has lost the cookie. And with the cookie as it was, the state is burnt.
	if got := b.post(here, answer); got.status != http.StatusBadRequest {
		t.Errorf("once more: %d %s", got.status, shown(got.body))
	}
	replayed := p.browser()
	replayed.http.Jar.SetCookies(mustURL(t, p.issuer), cookies)
	if got := replayed.post(here, answer); got.status != http.StatusForbidden || got.location != nil {
		t.Errorf("replayed with its cookies: %d to %v %s", got.status, got.location, shown(got.body))
	}

	// What the provider starts itself has no state of ours.
	resp, err := samlClient(b).Get(up.Unasked(t, p.issuer, ""))
	if err != nil {
		t.Fatal(err)
	}
	unasked := connectortest.FormOf(t, resp)
	crossed = stranger.post(p.issuer+"/callback/sso", unasked)
	here, _ = b.carried(crossed, "SAMLResponse")
	if got := b.post(here, unasked); got.status != http.StatusBadRequest {
		t.Errorf("unasked: %d %s", got.status, shown(got.body))
	}
	// Nor can it be slipped under a question that another one has asked.
	_, fields = b.carried(b.press(b.follow(b.get(p.authorizeURL("prompt", "login"))), "sso"), "SAMLRequest")
	unasked.Set("RelayState", fields["RelayState"])
	got = b.post(p.issuer+"/callback/sso", unasked)
	if got.status != http.StatusForbidden || !strings.Contains(got.body, "SSO") {
		t.Errorf("slipped under a question: %d %s", got.status, shown(got.body))
	}
	log := p.log.String()
	if !strings.Contains(log, "InResponseTo") || strings.Contains(log, "ada@") || strings.Contains(log, "Lovelace") {
		t.Errorf("the log: %s", log)
	}
}

// Who brings a connector along from Dex has its address registered at the provider: that which all connectors share.
func TestASAMLProviderAnswersAtDexsAddress(t *testing.T) {
	p, up := samlUpstream(t, "/callback")
	ada := connectortest.Person{UID: "ada", Name: "Ada Lovelace", Email: "ada@example.com"}
	up.Add(t, ada, "kept one")
	b := p.browser()
	_, fields := b.carried(b.press(b.follow(b.get(p.authorizeURL())), "sso"), "SAMLRequest")
	answer := up.SignIn(t, samlClient(b), fields, ada)
	stranger := &browser{p, &http.Client{Transport: p.transport, CheckRedirect: b.http.CheckRedirect}}
	here, _ := b.carried(stranger.post(p.issuer+"/callback", answer), "SAMLResponse")
	got := b.follow(b.post(here, answer))
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	b.answered(got, "signed in")
}

// Whoever asks for the metadata of what has none finds nothing.
func TestMetadataOfAnotherConnector(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	for _, id := range []string{"up", "local", "nobody"} {
		if resp, _ := p.raw(http.MethodGet, p.issuer+"/callback/"+id+"/metadata"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", id, resp.Status)
		}
	}
}
