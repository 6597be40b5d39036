package dex

import (
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/crewjam/saml"
	dexconnector "github.com/dexidp/dex/connector"
	dexsaml "github.com/dexidp/dex/connector/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/warifu/warifu/server/connector"
)

// dexsSAML is what Dex's connector says of a response.
func dexsSAML(t *testing.T, config dexsaml.Config, response, request string) (dexconnector.Identity, error) {
	t.Helper()
	made, err := config.Open("sso", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return made.(dexconnector.SAMLConnector).HandlePOST(dexconnector.Scopes{Groups: true},
		base64.StdEncoding.EncodeToString([]byte(response)), request)
}

// isDexsSAML compares what Dex says of somebody with what we say.
func isDexsSAML(dexs dexconnector.Identity, ours connector.Identity) bool {
	return reflect.DeepEqual(ours, connector.Identity{UserID: dexs.UserID, Name: dexs.Username,
		PreferredUsername: dexs.PreferredUsername, Email: dexs.Email, EmailVerified: dexs.EmailVerified, Groups: dexs.Groups})
}

// The same answer is the same person with the same groups as with Dex's connector, which is run beside ours.
func TestSAMLTellsTheSameAsDex(t *testing.T) {
	t.Parallel()
	attributes := func(list ...saml.Attribute) func(*samlAnswer) {
		return func(a *samlAnswer) { a.assertion.AttributeStatements[0].Attributes = list }
	}
	mail, cn := attribute("mail", "ada@example.com"), attribute("cn", "Ada Lovelace")
	for name, c := range map[string]struct {
		change func(*samlAnswer)
		config map[string]any
	}{
		"usual":          {},
		"no groupsAttr":  {config: map[string]any{"groupsAttr": ""}},
		"allowed":        {config: map[string]any{"allowedGroups": []string{"staff", "board"}}},
		"allowed, alone": {config: map[string]any{"allowedGroups": []string{"staff", "board"}, "filterGroups": true}},
		"not allowed":    {config: map[string]any{"allowedGroups": []string{"board"}}},
		"filter alone":   {config: map[string]any{"filterGroups": true}},
		"delimiter": {
			change: attributes(mail, cn, attribute("groups", "a, b,c d", "e")),
			config: map[string]any{"groupsDelim": ","},
		},
		"long delimiter": {
			change: attributes(mail, cn, attribute("groups", "a||b")),
			config: map[string]any{"groupsDelim": "||"},
		},
		"missing groups": {change: attributes(mail, cn)},
		"missing, delim": {change: attributes(mail, cn), config: map[string]any{"groupsDelim": ","}},
		"missing mail":   {change: attributes(cn, attribute("groups", "a"))},
		"missing name":   {change: attributes(mail, attribute("groups", "a"))},
		"no values":      {change: attributes(mail, cn, attribute("groups"))},
		"mail twice": {
			change: attributes(
				attribute("mail"), attribute("mail", "first@example.com", "second@example.com"), mail, cn, attribute("groups", "a"),
			),
		},
		"empty first": {
			change: attributes(attribute("mail", "", "second@example.com"), cn, attribute("groups", "a")),
		},
		"groups twice": {
			change: attributes(
				mail, cn, attribute("groups", "a", "b"), attribute("x", "y"), attribute("groups", "b", "c"),
			),
		},
		"spaces": {
			change: attributes(
				attribute("mail", " ada@example.com\n"), attribute("cn", "\tAda  Lovelace "), attribute("groups", " a "),
			),
		},
		"other alphabets": {
			change: attributes(
				attribute("mail", "ada@例え.jp"), attribute("cn", "エイダ & <Ada>"), attribute("groups", "社員", `"q"`),
			),
		},
		"FriendlyName": {
			change: attributes(
				saml.Attribute{Name: "urn:oid:0.9.2342.19200300.100.1.3", FriendlyName: "mail", Values: mail.Values},
				cn, attribute("groups", "a"),
			),
		},
		"case of a name": {change: attributes(attribute("Mail", "x@example.com"), cn, attribute("groups", "a"))},
		"two statements": {change: func(a *samlAnswer) {
			a.assertion.AttributeStatements = append(a.assertion.AttributeStatements, saml.AttributeStatement{
				Attributes: []saml.Attribute{attribute("groups", "more"), attribute("mail", "other@example.com")}})
		}},
		"no statement": {change: func(a *samlAnswer) { a.assertion.AttributeStatements = nil }},
		"NameID with spaces": {change: func(a *samlAnswer) {
			a.assertion.Subject.NameID.Value = "\n  CN=ada,O=Example  \n"
		}},
		"NameID of an e-mail": {change: func(a *samlAnswer) {
			a.assertion.Subject.NameID = &saml.NameID{Format: string(saml.EmailAddressNameIDFormat), Value: "Ada@Example.com"}
		}, config: map[string]any{"nameIDPolicyFormat": "emailAddress"}},
		"empty NameID": {change: func(a *samlAnswer) { a.assertion.Subject.NameID.Value = "" }},
		"no ssoIssuer": {change: func(a *samlAnswer) {
			a.response.Issuer = nil
			a.assertion.Issuer.Value = "any"
		}, config: map[string]any{"ssoIssuer": ""}},
		"no issuer of a response": {change: func(a *samlAnswer) { a.response.Issuer = nil }},
		"entityIssuer": {change: func(a *samlAnswer) {
			a.assertion.Conditions.AudienceRestrictions[0].Audience.Value = "urn:sp"
		}, config: map[string]any{"entityIssuer": "urn:sp"}},
		"no destination": {change: func(a *samlAnswer) { a.response.Destination = "" }},
		"NotBefore, by the skew": {change: func(a *samlAnswer) {
			a.assertion.Conditions.NotBefore = time.Now().Add(samlSkew - 5*time.Second)
		}},
		"NotOnOrAfter by the skew": {change: func(a *samlAnswer) {
			a.assertion.Conditions.NotOnOrAfter = time.Now().Add(5*time.Second - samlSkew)
		}},
	} {
		for _, signsResponse := range []bool{false, true} {
			if signsResponse && name == "no destination" {
				continue // saml-bindings-2.0-os section 3.5.5.2 demands it of a signed one; Dex does not
			}
			spec := samlSpec(c.config)
			answer := newSAMLAnswer()
			answer.signResponse, answer.signAssertion = signsResponse, !signsResponse
			if c.change != nil {
				c.change(answer)
			}
			response := answer.text(t)
			var config dexsaml.Config
			if err := json.Unmarshal(spec.Config, &config); err != nil {
				t.Fatal(err)
			}
			dexs, dexsErr := dexsSAML(t, config, response, samlRequest)
			ours, err := finishSAML(t, openSAML(t, spec), response)
			if (err == nil) != (dexsErr == nil) || err == nil && !isDexsSAML(dexs, ours) {
				t.Errorf("%s: Dex's %+v, %v; ours %+v, %v", name, dexs, dexsErr, ours, err)
			}
		}
	}
}

// The answers that Dex tests its own connector with: those that we take are the same person, and of the others it is
// known why.
func TestSAMLTakesDexsOwnAnswers(t *testing.T) {
	t.Parallel()
	const dexs = "github.com/dexidp/dex/connector/saml"
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", dexs).Output()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(strings.TrimSpace(string(out)), "testdata")
	type provider struct{ ca, callback, request, at string }
	okta := provider{"okta-ca.pem", "http://127.0.0.1:5556/dex/callback", "6zmm5mguyebwvajyf2sdwwcw6m",
		"2017-04-04T04:34:59Z"}
	// Dex signed these itself, hours after they were answered.
	signed := provider{"ca.crt", okta.callback, okta.request, "2017-04-04T07:34:59Z"}
	idp := provider{"idp-cert.pem", "http://localhost:5556/dex/callback", "_fd1b3ef9-ec09-44a7-a66b-0d39c250f6a0",
		"2017-02-01T00:00:00Z"}
	oam := provider{"oam-ca.pem", "http://127.0.0.1:5556/callback", "_e66b3a98-831c-4c96-5706-b63fe0549624",
		"2026-07-03T00:00:00Z"}
	for file, c := range map[string]struct {
		provider
		reason string // of the refusal; "" if it is taken
	}{
		"okta-resp.xml": {okta, ""},
		// Dex takes the first assertion that is signed. There is to be one.
		"two-assertions-first-signed.xml": {signed, "2 assertions"},
		"idp-resp-signed-assertion0.xml":  {idp, "2 assertions"},
		// Dex takes SHA-1 and a signature that does not say what it is over, and looks at no IssueInstant.
		"good-resp.xml":                             {signed, "SHA-1"},
		"tampered-resp.xml":                         {signed, "SHA-1"},
		"good-resp.tmpl":                            {signed, "SHA-1"},
		"assertion-signed.xml":                      {signed, "expired"},
		"idp-resp-signed-message-and-assertion.xml": {idp, "SHA-1"},
		"idp-resp-signed-message.xml":               {idp, "SHA-1"},
		"idp-resp-signed-assertion.xml":             {idp, "expired"},
		"oam-resp.xml":                              {oam, "expired"},
		// Dex refuses these as well.
		"bad-status.xml": {signed, "the provider says"},
		"idp-resp.xml":   {idp, "neither"},
		"gen.sh":         {signed, "well-formed"},
	} {
		response, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		spec := samlSpec(map[string]any{
			"ca": filepath.Join(folder, c.ca), "caData": nil, "ssoIssuer": "",
			"emailAttr": "email", "usernameAttr": "Name", "groupsAttr": "", "redirectURI": c.callback,
		})
		spec.Callbacks = []string{c.callback}
		made := openSAML(t, spec)
		made.provider.Clock = dsig.NewFakeClockAt(at)
		who, err := made.Finish(t.Context(), connector.Ask{}, keptOf(c.request), posted(t, string(response)))
		if c.reason != "" {
			if verdict := refused(t, err); !strings.Contains(verdict.Reason, c.reason) {
				t.Errorf("%s: %s", file, verdict.Reason)
			}
			continue
		}
		const eric = "eric.chiang+okta@coreos.com"
		want := connector.Identity{UserID: eric, Name: "Eric", Email: eric, EmailVerified: true}
		if err != nil || !reflect.DeepEqual(who, want) {
			t.Errorf("%s: %+v, %v", file, who, err)
		}
	}
}
