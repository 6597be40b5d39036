package dex

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/warifu/warifu/server/connector"
)

const (
	samlCallback = "https://warifu.example/callback/sso"
	samlIssuer   = "https://idp.example/idp"
	samlRequest  = "id-0123456789abcdef"
)

// samlSigner signs as an identity provider does.
type samlSigner struct {
	key         *rsa.PrivateKey
	certificate *x509.Certificate
}

func newSAMLSigner(notBefore, notAfter time.Time) *samlSigner {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "idp"}, NotBefore: notBefore, NotAfter: notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &samlSigner{key, certificate}
}

// theSAMLSigner is the one that the connectors of these tests know; strangerSAMLSigner, one that they do not.
var (
	theSAMLSigner = sync.OnceValue(func() *samlSigner {
		return newSAMLSigner(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	})
	strangerSAMLSigner = sync.OnceValue(func() *samlSigner {
		return newSAMLSigner(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	})
)

func (s *samlSigner) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.certificate.Raw})
}

// sign returns a copy of el that has a signature.
func (s *samlSigner) sign(t *testing.T, el *etree.Element, method string) *etree.Element {
	t.Helper()
	signing, err := dsig.NewSigningContext(crypto.Signer(s.key), [][]byte{s.certificate.Raw})
	if err != nil {
		t.Fatal(err)
	}
	signing.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	if err := signing.SetSignatureMethod(method); err != nil {
		t.Fatal(err)
	}
	signed, err := signing.SignEnveloped(el)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// samlAnswer is what the provider answers to samlRequest, unless it is changed.
type samlAnswer struct {
	response  saml.Response
	assertion saml.Assertion
	// what is signed, by whom, and how
	signResponse, signAssertion bool
	signer                      *samlSigner
	method                      string
	// edit changes the assertion before it is signed; finish changes all of it afterwards.
	edit, finish func(*etree.Element)
}

func attribute(name string, values ...string) saml.Attribute {
	a := saml.Attribute{Name: name, NameFormat: "urn:oasis:names:tc:SAML:2.0:attrname-format:unspecified"}
	for _, value := range values {
		a.Values = append(a.Values, saml.AttributeValue{Type: "xs:string", Value: value})
	}
	return a
}

func newSAMLAnswer() *samlAnswer {
	now := time.Now().UTC().Truncate(time.Second)
	issuer := saml.Issuer{Value: samlIssuer}
	return &samlAnswer{
		response: saml.Response{
			ID: "id-" + strings.ToLower(rand.Text()), InResponseTo: samlRequest, Version: "2.0", IssueInstant: now,
			Destination: samlCallback, Issuer: &issuer,
			Status: saml.Status{StatusCode: saml.StatusCode{Value: saml.StatusSuccess}},
		},
		assertion: saml.Assertion{
			ID: "id-" + strings.ToLower(rand.Text()), IssueInstant: now, Version: "2.0", Issuer: issuer,
			Subject: &saml.Subject{
				NameID: &saml.NameID{Format: string(saml.PersistentNameIDFormat), Value: "ada"},
				SubjectConfirmations: []saml.SubjectConfirmation{{
					Method: samlBearer,
					SubjectConfirmationData: &saml.SubjectConfirmationData{
						InResponseTo: samlRequest, Recipient: samlCallback, NotOnOrAfter: now.Add(time.Minute),
					},
				}},
			},
			Conditions: &saml.Conditions{
				NotBefore: now.Add(-time.Minute), NotOnOrAfter: now.Add(time.Minute),
				AudienceRestrictions: []saml.AudienceRestriction{{Audience: saml.Audience{Value: samlCallback}}},
			},
			AuthnStatements: []saml.AuthnStatement{{
				AuthnInstant: now.Add(-time.Second),
				AuthnContext: saml.AuthnContext{AuthnContextClassRef: &saml.AuthnContextClassRef{Value: "urn:mfa"}},
			}},
			AttributeStatements: []saml.AttributeStatement{{Attributes: []saml.Attribute{
				attribute("mail", "ada@example.com"), attribute("cn", "Ada Lovelace"), attribute("groups", "staff", "analysts"),
			}}},
		},
		signAssertion: true, signer: theSAMLSigner(), method: dsig.RSASHA256SignatureMethod,
	}
}

// element is the answer as a tree.
func (a *samlAnswer) element(t *testing.T) *etree.Element {
	t.Helper()
	assertion := a.assertion.Element()
	if a.edit != nil {
		a.edit(assertion)
	}
	if a.signAssertion {
		assertion = a.signer.sign(t, assertion, a.method)
	}
	response := a.response.Element()
	response.AddChild(assertion)
	if a.signResponse {
		response = a.signer.sign(t, response, a.method)
	}
	if a.finish != nil {
		a.finish(response)
	}
	return response
}

// text is the answer as it is written.
func (a *samlAnswer) text(t *testing.T) string {
	t.Helper()
	return written(t, a.element(t))
}

func written(t *testing.T, el *etree.Element) string {
	t.Helper()
	document := etree.NewDocument()
	document.SetRoot(el)
	text, err := document.WriteToString()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// samlSpec is a connector that knows theSAMLSigner, with keys of the configuration put over the usual ones.
func samlSpec(config map[string]any) Spec {
	raw, err := json.Marshal(over(map[string]any{
		"ssoURL": "https://idp.example/sso", "ssoIssuer": samlIssuer, "caData": theSAMLSigner().pem(),
		"usernameAttr": "cn", "emailAttr": "mail", "groupsAttr": "groups", "redirectURI": samlCallback,
	}, config))
	if err != nil {
		panic(err)
	}
	return Spec{Type: "saml", ID: "sso", Config: raw, Logger: slog.New(slog.DiscardHandler),
		Callbacks: []string{samlCallback, "https://warifu.example/callback"}}
}

// openSAML makes the connector of s.
func openSAML(t *testing.T, s Spec) *samlConnector {
	t.Helper()
	made, faults := New(s)
	if len(faults) > 0 {
		t.Fatalf("faults: %+v", faults)
	}
	return made.Redirect.(*samlConnector)
}

// keptOf is what Start would have kept of samlRequest.
func keptOf(request string) []byte {
	keep, err := json.Marshal(samlKept{Request: request, Begun: time.Now().Unix()})
	if err != nil {
		panic(err)
	}
	return keep
}

// posted is the request with which the browser comes back.
func posted(t *testing.T, response string) *http.Request {
	t.Helper()
	form := url.Values{"SAMLResponse": {base64.StdEncoding.EncodeToString([]byte(response))}, "RelayState": {"state"}}
	r := httptest.NewRequest(http.MethodPost, samlCallback, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if err := r.ParseForm(); err != nil {
		t.Fatal(err)
	}
	return r
}

// finishSAML hands a response to Finish.
func finishSAML(t *testing.T, c *samlConnector, response string) (connector.Identity, error) {
	t.Helper()
	return c.Finish(context.Background(), connector.Ask{State: "state"}, keptOf(samlRequest), posted(t, response))
}

// confirmation is how the assertion is bound to the request.
func (a *samlAnswer) confirmation() *saml.SubjectConfirmationData {
	return a.assertion.Subject.SubjectConfirmations[0].SubjectConfirmationData
}
