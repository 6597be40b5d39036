package dex

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	dexsaml "github.com/dexidp/dex/connector/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/warifu/warifu/server/connector"
)

// An answer is taken if the response is signed, or its assertion, or both.
func TestSAMLSignsIn(t *testing.T) {
	t.Parallel()
	c := openSAML(t, samlSpec(nil))
	want := connector.Identity{UserID: "ada", Name: "Ada Lovelace", Email: "ada@example.com", EmailVerified: true,
		Groups: []string{"staff", "analysts"}}
	for name, signs := range map[string][2]bool{
		"assertion signed": {false, true}, "response signed": {true, false}, "both signed": {true, true},
	} {
		answer := newSAMLAnswer()
		answer.signResponse, answer.signAssertion = signs[0], signs[1]
		if who, err := finishSAML(t, c, answer.text(t)); err != nil || !reflect.DeepEqual(who, want) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
}

func TestSAMLRequest(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{
		"":             "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
		"emailAddress": "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
		"unspecified":  "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
		"urn:oasis:names:tc:SAML:2.0:nameid-format:transient": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
	} {
		c := openSAML(t, samlSpec(map[string]any{"nameIDPolicyFormat": format, "entityIssuer": "https://warifu.example/sp"}))
		away, err := c.Start(context.Background(), connector.Ask{State: "state", Fresh: true})
		if err != nil || away.URL != "https://idp.example/sso" || away.Post["RelayState"] != "state" || len(away.Keep) > 200 {
			t.Fatalf("%+v, %v", away, err)
		}
		text, err := base64.StdEncoding.DecodeString(away.Post["SAMLRequest"])
		if err != nil {
			t.Fatal(err)
		}
		var request saml.AuthnRequest
		if err := xml.Unmarshal(text, &request); err != nil {
			t.Fatal(err)
		}
		var keep samlKept
		if err := json.Unmarshal(away.Keep, &keep); err != nil || keep.Request != request.ID || len(request.ID) < 40 {
			t.Errorf("%+v of %s, %v", keep, request.ID, err)
		}
		if request.AssertionConsumerServiceURL != samlCallback || request.Destination != away.URL ||
			request.Issuer.Value != "https://warifu.example/sp" || *request.NameIDPolicy.Format != want ||
			request.ProtocolBinding != saml.HTTPPostBinding || request.ForceAuthn == nil || !*request.ForceAuthn {
			t.Errorf("%s", text)
		}
	}
}

// A certificate of ca may be one of several, and has to be valid.
func TestSAMLCertificates(t *testing.T) {
	t.Parallel()
	old := newSAMLSigner(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	file := filepath.Join(t.TempDir(), "ca.pem")
	all := slices.Concat(strangerSAMLSigner().pem(), []byte("\nsubject=idp\n"), theSAMLSigner().pem(), old.pem(),
		[]byte("\n\n"))
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	c := openSAML(t, samlSpec(map[string]any{"ca": file, "caData": nil}))
	for name, signer := range map[string]*samlSigner{"one": theSAMLSigner(), "the other": strangerSAMLSigner()} {
		answer := newSAMLAnswer()
		answer.signer = signer
		if _, err := finishSAML(t, c, answer.text(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		answer.finish = func(r *etree.Element) { // which of them it is, the answer need not say
			signature := r.FindElement("./Assertion/Signature")
			signature.RemoveChild(signature.FindElement("./KeyInfo"))
		}
		if _, err := finishSAML(t, c, answer.text(t)); err != nil {
			t.Errorf("%s, not named: %v", name, err)
		}
	}
	answer := newSAMLAnswer()
	answer.signer = old
	_, err := finishSAML(t, c, answer.text(t))
	if verdict := refused(t, err); !strings.Contains(verdict.Reason, "has expired") {
		t.Error(verdict.Reason)
	}
}

func TestSAMLTakesSHA1IfTheConfigurationDoes(t *testing.T) {
	t.Parallel()
	answer := newSAMLAnswer()
	answer.method = dsig.RSASHA1SignatureMethod
	who, err := finishSAML(t, openSAML(t, samlSpec(map[string]any{"insecureAcceptSHA1": true})), answer.text(t))
	if err != nil || who.UserID != "ada" {
		t.Errorf("%+v, %v", who, err)
	}
}

func TestSAMLFreshness(t *testing.T) {
	t.Parallel()
	c := openSAML(t, samlSpec(nil))
	finish := func(signedIn time.Time) error {
		answer := newSAMLAnswer()
		answer.assertion.AuthnStatements[0].AuthnInstant = signedIn
		_, err := c.Finish(t.Context(), connector.Ask{Fresh: true}, keptOf(samlRequest), posted(t, answer.text(t)))
		return err
	}
	if err := finish(time.Now()); err != nil {
		t.Error(err)
	}
	if verdict := refused(t, finish(time.Now().Add(-time.Minute))); !strings.Contains(verdict.Reason, "ForceAuthn") {
		t.Error(verdict.Reason)
	}
}

// How and when the provider found out who somebody is counts only where the configuration trusts it.
func TestSAMLTrustUpstream(t *testing.T) {
	t.Parallel()
	for _, trust := range []bool{false, true} {
		spec := samlSpec(nil)
		spec.TrustUpstream = trust
		answer := newSAMLAnswer()
		who, err := finishSAML(t, openSAML(t, spec), answer.text(t))
		at := answer.assertion.AuthnStatements[0].AuthnInstant
		if err != nil || who.AuthTime.Equal(at) != trust || (who.ACR == "urn:mfa") != trust || who.AMR != nil {
			t.Errorf("trusted %v: %+v, %v", trust, who, err)
		}
	}
}

func TestSAMLConfiguration(t *testing.T) {
	t.Parallel()
	const notACertificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	file := filepath.Join(t.TempDir(), "ca.pem")
	for name, c := range map[string]struct {
		config map[string]any
		path   string
		code   string
	}{
		"no ssoURL":                 {map[string]any{"ssoURL": ""}, "ssoURL", "required"},
		"ssoURL":                    {map[string]any{"ssoURL": "javascript:alert(1)"}, "ssoURL", "value"},
		"no usernameAttr":           {map[string]any{"usernameAttr": ""}, "usernameAttr", "required"},
		"no emailAttr":              {map[string]any{"emailAttr": ""}, "emailAttr", "required"},
		"redirectURI":               {map[string]any{"redirectURI": samlCallback + "x"}, "redirectURI", "value"},
		"nameIDPolicyFormat":        {map[string]any{"nameIDPolicyFormat": "persistant"}, "nameIDPolicyFormat", "value"},
		"no certificate":            {map[string]any{"caData": nil}, "caData", "required"},
		"two places":                {map[string]any{"ca": file}, "caData", "value"},
		"no file":                   {map[string]any{"ca": file, "caData": nil}, "ca", "file"},
		"empty":                     {map[string]any{"caData": []byte{}}, "caData", "value"},
		"no PEM":                    {map[string]any{"caData": []byte("x")}, "caData", "value"},
		"something after":           {map[string]any{"caData": append(theSAMLSigner().pem(), "x"...)}, "caData", "value"},
		"no certificate in the PEM": {map[string]any{"caData": []byte(notACertificate)}, "caData", "value"},
		"unknown key":               {map[string]any{"usernameAttribute": "cn"}, "usernameAttribute", "unknown-key"},
		"another type":              {map[string]any{"allowedGroups": "staff"}, "allowedGroups", "type"},
		"not in base64":             {map[string]any{"caData": "-----BEGIN CERTIFICATE-----"}, "caData", "type"},
		"unsigned answers": {
			map[string]any{"insecureSkipSignatureValidation": true}, "insecureSkipSignatureValidation", "value",
		},
		"groups of nobody": {
			map[string]any{"allowedGroups": []string{"a"}, "groupsAttr": ""}, "groupsAttr", "required",
		},
	} {
		_, faults := New(samlSpec(c.config))
		if len(faults) != 1 || faults[0].Path != c.path || faults[0].Code != c.code || faults[0].Message == "" {
			t.Errorf("%s: %+v", name, faults)
		}
	}
	spec := samlSpec(map[string]any{"redirectURI": ""})
	if c := openSAML(t, spec); c.provider.AcsURL.String() != samlCallback {
		t.Error(c.provider.AcsURL)
	}
	spec.Type = "samlExperimental"
	openSAML(t, spec)
	spec.Ask = time.Minute
	if _, faults := New(spec); len(faults) != 1 {
		t.Errorf("refreshUpstream: %+v", faults)
	}
}

// Every key of Dex's is one of ours, with a value of the same kind.
func TestSAMLHasDexsKeys(t *testing.T) {
	t.Parallel()
	keys := func(of reflect.Type) map[string]string {
		found := map[string]string{}
		for i := range of.NumField() {
			found[of.Field(i).Tag.Get("json")] = of.Field(i).Type.String()
		}
		return found
	}
	dexs, ours := keys(reflect.TypeFor[dexsaml.Config]()), keys(reflect.TypeFor[samlConfig]())
	delete(ours, "insecureAcceptSHA1")
	if !maps.Equal(dexs, ours) {
		t.Errorf("%v, and ours %v", dexs, ours)
	}
}
