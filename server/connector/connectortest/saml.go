package connectortest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"html/template"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/crewjam/saml/samlidp"
	"golang.org/x/net/html"
)

// SAML is an identity provider of SAML 2.0 that runs: crewjam's samlidp. It calls people by their e-mail addresses, and
// signs what it answers and the assertion in it.
type SAML struct {
	URL string
	// PEM is the certificate by which it signs.
	PEM []byte
}

// StartSAML starts one in which nobody is known yet.
func StartSAML(t testing.TB) *SAML {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test IdP"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	var idp http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { idp.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	idp, err = samlidp.New(samlidp.Options{
		URL: *at, Signer: key, Certificate: certificate, Store: &samlidp.MemoryStore{},
		Logger: log.New(io.Discard, "", 0), LoginFormTemplate: template.Must(template.New("").Parse(
			`<form method="post" action="{{.URL}}"><input name="SAMLRequest" value="{{.SAMLRequest}}">` +
				`<input name="RelayState" value="{{.RelayState}}"><input name="user"><input name="password"></form>`)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &SAML{URL: server.URL, PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// Config is the configuration of a connector for it, which it calls entity.
func (s *SAML) Config(entity string) map[string]any {
	return map[string]any{
		"ssoURL": s.URL + "/sso", "ssoIssuer": s.URL + "/metadata", "caData": s.PEM, "entityIssuer": entity,
		"nameIDPolicyFormat": "emailAddress", "usernameAttr": "urn:oid:2.5.4.3",
		"emailAttr": "urn:oid:1.3.6.1.4.1.5923.1.1.1.6", "groupsAttr": "urn:oid:1.3.6.1.4.1.5923.1.1.1.1",
	}
}

// Add makes a person known, with groups.
func (s *SAML) Add(t testing.TB, p Person, groups ...string) {
	t.Helper()
	user, err := json.Marshal(map[string]any{"name": p.UID, "password": p.Password(), "email": p.Email,
		"common_name": p.Name, "groups": groups})
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, "/users/"+p.UID, user)
}

// Trust makes a service provider known, by its metadata.
func (s *SAML) Trust(t testing.TB, metadata []byte) {
	t.Helper()
	s.put(t, "/services/here", metadata)
}

// Unasked is where the provider itself starts a sign-in at a service provider.
func (s *SAML) Unasked(t testing.TB, entity, relayState string) string {
	t.Helper()
	shortcut, err := json.Marshal(map[string]any{"service_provider": entity, "relay_state": relayState})
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, "/shortcuts/here", shortcut)
	return s.URL + "/login/here"
}

func (s *SAML) put(t testing.TB, path string, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= http.StatusMultipleChoices {
		t.Fatalf("%s: %s", path, resp.Status)
	}
}

// SignIn posts a request to the provider, as browser, and signs somebody in there if it asks who that is. It returns
// the form that the provider then has the browser post.
func (s *SAML) SignIn(t testing.TB, browser *http.Client, fields map[string]string, p Person) url.Values {
	t.Helper()
	form := url.Values{}
	for name, value := range fields {
		form.Set(name, value)
	}
	answer := s.Form(t, browser, form)
	if answer.Has("password") {
		answer.Set("user", p.UID)
		answer.Set("password", p.Password())
		answer = s.Form(t, browser, answer)
	}
	if !answer.Has("SAMLResponse") {
		t.Fatalf("the provider does not answer, but asks for %v", answer)
	}
	return answer
}

// Form posts a form to the provider, and returns the one on the page that is the reply.
func (s *SAML) Form(t testing.TB, browser *http.Client, form url.Values) url.Values {
	t.Helper()
	resp, err := browser.PostForm(s.URL+"/sso", form)
	if err != nil {
		t.Fatal(err)
	}
	return FormOf(t, resp)
}

// FormOf reads the fields on a page.
func FormOf(t testing.TB, resp *http.Response) url.Values {
	t.Helper()
	defer func() { _ = resp.Body.Close() }()
	page, err := html.Parse(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	form := url.Values{}
	for node := range page.Descendants() {
		if node.Data != "input" {
			continue
		}
		var name, value string
		for _, attribute := range node.Attr {
			switch attribute.Key {
			case "name":
				name = attribute.Val
			case "value":
				value = attribute.Val
			}
		}
		if name != "" {
			form.Set(name, value)
		}
	}
	return form
}
