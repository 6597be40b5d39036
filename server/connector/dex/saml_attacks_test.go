package dex

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/warifu/warifu/server/connector"
)

// wrongSAMLAnswers are answers of which one thing is wrong, by what it is, with words of the reason.
var wrongSAMLAnswers = map[string]struct {
	change func(*samlAnswer)
	config map[string]any
	reason string
}{
	"unsigned": {change: func(a *samlAnswer) {
		a.signAssertion = false
	}, reason: "neither the response nor its assertion is signed"},
	"of a stranger": {change: func(a *samlAnswer) {
		a.signer = strangerSAMLSigner()
	}, reason: "certificate that is not in ca"},
	"tampered": {change: func(a *samlAnswer) {
		a.finish = func(r *etree.Element) { r.FindElement("//NameID").SetText("eve") }
	}, reason: "signature is wrong"},
	"tampered beside its signature": {change: func(a *samlAnswer) {
		a.signResponse, a.signAssertion = true, false
		a.finish = func(r *etree.Element) { r.CreateAttr("InResponseTo", samlRequest+"x") }
	}, reason: "signature is wrong"},
	"signature of the response removed, and the response changed": {change: func(a *samlAnswer) {
		a.response.InResponseTo = "id-another"
	}, reason: "InResponseTo"},
	"SHA-1": {change: func(a *samlAnswer) { a.method = dsig.RSASHA1SignatureMethod }, reason: "insecureAcceptSHA1"},
	"SHA-1 in the assertion of a signed response": {change: func(a *samlAnswer) {
		a.signResponse = true
		a.finish = func(r *etree.Element) {
			method := r.FindElement("./Assertion/Signature/SignedInfo/SignatureMethod")
			method.CreateAttr("Algorithm", dsig.RSASHA1SignatureMethod)
		}
	}, reason: "signature is wrong"},
	"HMAC with the certificate as the key": {change: func(a *samlAnswer) {
		a.finish = func(r *etree.Element) {
			r.FindElement("//SignatureMethod").CreateAttr("Algorithm", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256")
		}
	}, reason: "signature is wrong"},
	"signature over nothing": {change: func(a *samlAnswer) {
		a.finish = func(r *etree.Element) { r.FindElement("//Reference").CreateAttr("URI", "") }
	}, reason: "signature is wrong"},
	"empty signature": {change: func(a *samlAnswer) {
		a.finish = func(r *etree.Element) {
			signature := r.FindElement("./Assertion/Signature")
			for _, child := range signature.ChildElements() {
				signature.RemoveChild(child)
			}
		}
	}, reason: "signature is wrong"},
	"issuer of another": {change: func(a *samlAnswer) {
		a.assertion.Issuer.Value = "https://evil.example"
	}, reason: "its issuer is not ssoIssuer"},
	"issuer of another, of the response": {change: func(a *samlAnswer) {
		a.response.Issuer = &saml.Issuer{Value: "https://evil.example"}
	}, reason: "its issuer is not ssoIssuer"},
	"two issuers, of which none is asked": {change: func(a *samlAnswer) {
		a.response.Issuer = &saml.Issuer{Value: "https://evil.example"}
	}, config: map[string]any{"ssoIssuer": ""}, reason: "two issuers"},
	"wrong audience": {change: func(a *samlAnswer) {
		a.assertion.Conditions.AudienceRestrictions[0].Audience.Value = "https://other.example"
	}, reason: "its audience is not " + samlCallback},
	"audience, where entityIssuer is set": {
		config: map[string]any{"entityIssuer": "https://warifu.example/sp"},
		reason: "its audience is not https://warifu.example/sp",
	},
	"no audience": {change: func(a *samlAnswer) {
		a.assertion.Conditions.AudienceRestrictions = nil
	}, reason: "audience"},
	"one audience restriction of two": {change: func(a *samlAnswer) {
		a.assertion.Conditions.AudienceRestrictions = append(a.assertion.Conditions.AudienceRestrictions,
			saml.AudienceRestriction{Audience: saml.Audience{Value: "https://other.example"}})
	}, reason: "audience"},
	"wrong recipient": {change: func(a *samlAnswer) {
		a.confirmation().Recipient = "https://other.example/acs"
	}, reason: "Recipient is not " + samlCallback},
	"wrong destination": {change: func(a *samlAnswer) {
		a.response.Destination = "https://other.example/acs"
	}, reason: "Destination"},
	"started by the identity provider": {change: func(a *samlAnswer) {
		a.response.InResponseTo, a.confirmation().InResponseTo = "", ""
	}, reason: "InResponseTo"},
	"started by the identity provider, in a response that says otherwise": {change: func(a *samlAnswer) {
		a.confirmation().InResponseTo = ""
	}, reason: "InResponseTo"},
	"to another request": {change: func(a *samlAnswer) {
		a.response.InResponseTo, a.confirmation().InResponseTo = "id-x", "id-x"
	}, reason: "InResponseTo"},
	"expired conditions": {change: func(a *samlAnswer) {
		a.assertion.Conditions.NotOnOrAfter = time.Now().Add(-samlSkew - 2*time.Second)
	}, reason: "expired"},
	"expired confirmation": {change: func(a *samlAnswer) {
		a.confirmation().NotOnOrAfter = time.Now().Add(-samlSkew - 2*time.Second)
	}, reason: "expired"},
	"confirmation without an end": {change: func(a *samlAnswer) {
		a.confirmation().NotOnOrAfter = time.Time{}
	}, reason: "expired"},
	"issued long ago": {change: func(a *samlAnswer) {
		a.assertion.IssueInstant = time.Now().Add(-time.Hour)
	}, reason: "expired"},
	"not valid yet": {change: func(a *samlAnswer) {
		a.assertion.Conditions.NotBefore = time.Now().Add(samlSkew + 5*time.Second)
	}, reason: "not valid yet"},
	"no conditions": {change: func(a *samlAnswer) { a.assertion.Conditions = nil }, reason: "Web Browser SSO Profile"},
	"no subject":    {change: func(a *samlAnswer) { a.assertion.Subject = nil }, reason: "Web Browser SSO Profile"},
	"no NameID": {change: func(a *samlAnswer) {
		a.assertion.Subject.NameID = nil
	}, reason: "Web Browser SSO Profile"},
	"long NameID": {change: func(a *samlAnswer) {
		a.assertion.Subject.NameID.Value = strings.Repeat("x", 1025)
	}, reason: "NameID has 1025 bytes"},
	"empty NameID": {change: func(a *samlAnswer) {
		a.assertion.Subject.NameID.Value = ""
	}, reason: "NameID has 0 bytes"},
	"no statement": {change: func(a *samlAnswer) { a.assertion.AuthnStatements = nil }, reason: "AuthnStatement"},
	"holder of a key": {change: func(a *samlAnswer) {
		a.assertion.Subject.SubjectConfirmations[0].Method = "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"
	}, reason: "bearer"},
	"SAML 1": {change: func(a *samlAnswer) {
		a.edit = func(el *etree.Element) { el.CreateAttr("Version", "1.1") }
	}, reason: "not SAML 2.0"},
	"provider refuses": {change: func(a *samlAnswer) {
		a.response.Status.StatusCode = saml.StatusCode{
			Value: saml.StatusResponder, StatusCode: &saml.StatusCode{Value: saml.StatusAuthnFailed},
		}
	}, reason: `the provider says "Responder" "AuthnFailed"`},
	"unknown condition": {change: func(a *samlAnswer) {
		a.edit = func(el *etree.Element) { el.FindElement("//Conditions").CreateElement("saml:Condition") }
	}, reason: "conditions that this server does not know"},
	"no e-mail address": {
		config: map[string]any{"emailAttr": "email"},
		reason: `the attribute "email" is missing or empty (emailAttr says which one to take). There are: "mail", "cn", "gr`,
	},
	"no name": {config: map[string]any{"usernameAttr": "Cn"}, reason: `the attribute "Cn" is missing`},
	"no groups": {
		config: map[string]any{"groupsAttr": "memberOf"},
		reason: `the attribute "memberOf" is missing`,
	},
	"not allowed": {config: map[string]any{"allowedGroups": []string{"board"}}, reason: "allowedGroups"},
}

func TestSAMLRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range wrongSAMLAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := newSAMLAnswer()
			if c.change != nil {
				c.change(answer)
			}
			who, err := finishSAML(t, openSAML(t, samlSpec(c.config)), answer.text(t))
			verdict := refused(t, err)
			if !strings.Contains(verdict.Reason, c.reason) || !reflect.DeepEqual(who, connector.Identity{}) {
				t.Errorf("%s; %+v", verdict.Reason, who)
			}
			for _, secret := range []string{"ada", "Lovelace", "eve"} {
				if strings.Contains(verdict.Reason, secret) {
					t.Errorf("the reason names a person: %s", verdict.Reason)
				}
			}
		})
	}
}

func TestSAMLRefusesWhatIsNoAnswer(t *testing.T) {
	t.Parallel()
	c := openSAML(t, samlSpec(nil))
	good := newSAMLAnswer().text(t)
	empty := newSAMLAnswer().response.Element()
	for name, response := range map[string]string{
		"nothing": " ", "text": "SAML", "JSON": `{"a":1}`, "HTML": "<html></html>",
		"another message":        `<samlp:LogoutResponse xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"/>`,
		"half":                   good[:len(good)/2],
		"two documents":          good + good,
		"no assertion":           written(t, theSAMLSigner().sign(t, empty, dsig.RSASHA256SignatureMethod)),
		"UTF-16":                 `<?xml version="1.0" encoding="UTF-16"?>` + good,
		"an encrypted assertion": strings.Replace(good, "<saml:Assertion", "<saml:EncryptedAssertion/><saml:Assertion", 1),
		"an encrypted NameID":    strings.Replace(good, "<saml:NameID", `<saml:EncryptedID/><saml:NameID`, 1),
	} {
		who, err := finishSAML(t, c, response)
		if verdict := refused(t, err); who.UserID != "" || strings.Contains(verdict.Reason, "ada") {
			t.Errorf("%s: %s", name, verdict.Reason)
		}
	}
	for name, r := range map[string]*http.Request{
		"no form":    httptest.NewRequest(http.MethodPost, samlCallback, nil),
		"by GET":     httptest.NewRequest(http.MethodGet, samlCallback+"?SAMLResponse=PHg+", nil),
		"not base64": func() *http.Request { r := posted(t, ""); r.PostForm.Set("SAMLResponse", "<x/>"); return r }(),
	} {
		if _, err := c.Finish(t.Context(), connector.Ask{}, keptOf(samlRequest), r); refused(t, err).Reason == "" {
			t.Errorf("%s: no reason", name)
		}
	}
	_, err := c.Finish(t.Context(), connector.Ask{}, []byte("{}"), posted(t, good))
	faulty(t, err)
}

// What an answer tells is for the one request of the one browser: Finish itself keeps nothing, so the same answer to
// the same request is the same verdict, and who calls it burns the state with which the request travels.
func TestSAMLRefusesAReplayToAnotherRequest(t *testing.T) {
	t.Parallel()
	c := openSAML(t, samlSpec(nil))
	answer := newSAMLAnswer().text(t)
	if _, err := finishSAML(t, c, answer); err != nil {
		t.Fatal(err)
	}
	away, err := c.Start(t.Context(), connector.Ask{State: "state"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Finish(t.Context(), connector.Ask{State: "state"}, away.Keep, posted(t, answer))
	if verdict := refused(t, err); !strings.Contains(verdict.Reason, "InResponseTo") {
		t.Error(verdict.Reason)
	}
}

// wrapped are the eight ways of signature wrapping (Somorovsky and others, "On Breaking SAML: Be Whoever You Want to
// Be", USENIX Security 2012, numbered as in SAML Raider), and more of the kind, each with a signed answer about ada
// that is made one about eve.
var wrapped = map[string]struct {
	signsResponse bool
	wrap          func(response *etree.Element)
}{
	"XSW1: the response inside the signature of a forged one": {true, func(response *etree.Element) {
		original, signature := evil(response)
		signature.AddChild(original)
	}},
	"XSW2: the response beside the signature of a forged one": {true, func(response *etree.Element) {
		original, signature := evil(response)
		response.InsertChildAt(signature.Index(), original)
	}},
	"XSW3: a forged assertion before the signed one": {false, func(response *etree.Element) {
		assertion := response.FindElement("./Assertion")
		forged := assertion.Copy()
		forge(forged, true)
		response.InsertChildAt(assertion.Index(), forged)
	}},
	"XSW4: the signed assertion inside a forged one": {false, func(response *etree.Element) {
		assertion := response.FindElement("./Assertion")
		forged := assertion.Copy()
		forge(forged, true)
		response.RemoveChild(assertion)
		forged.AddChild(assertion)
		response.AddChild(forged)
	}},
	"XSW5: a forged assertion with the signature of one that follows": {false, func(response *etree.Element) {
		assertion := response.FindElement("./Assertion")
		original := assertion.Copy()
		original.RemoveChild(original.FindElement("./Signature"))
		forge(assertion, false)
		response.AddChild(original)
	}},
	"XSW6: a forged assertion with the signed one in its signature": {false, func(response *etree.Element) {
		assertion := response.FindElement("./Assertion")
		original := assertion.Copy()
		original.RemoveChild(original.FindElement("./Signature"))
		forge(assertion, false)
		assertion.FindElement("./Signature").AddChild(original)
	}},
	"XSW7: a forged assertion in Extensions": {false, func(response *etree.Element) {
		assertion := response.FindElement("./Assertion")
		forged := assertion.Copy()
		forge(forged, true)
		extensions := etree.NewElement("samlp:Extensions")
		extensions.AddChild(forged)
		response.InsertChildAt(assertion.Index(), extensions)
	}},
	"XSW8: the signed assertion in an Object of the signature of a forged one": {false, func(response *etree.Element) {
		assertion := response.FindElement("./Assertion")
		original := assertion.Copy()
		original.RemoveChild(original.FindElement("./Signature"))
		forge(assertion, false)
		assertion.FindElement("./Signature").CreateElement("ds:Object").AddChild(original)
	}},
	"a forged assertion of the same ID": {false, func(response *etree.Element) {
		assertion := response.FindElement("./Assertion")
		forged := assertion.Copy()
		forged.RemoveChild(forged.FindElement("./Signature"))
		forged.FindElement("//NameID").SetText("eve")
		response.InsertChildAt(assertion.Index(), forged)
	}},
	"an unsigned assertion after the signed one": {false, func(response *etree.Element) {
		forged := response.FindElement("./Assertion").Copy()
		forge(forged, true)
		response.AddChild(forged)
	}},
	"a second assertion in a signed response": {true, func(response *etree.Element) {
		forged := response.FindElement("./Assertion").Copy()
		forge(forged, false)
		response.AddChild(forged)
	}},
	"a NameID beside the signed one": {false, func(response *etree.Element) {
		id := response.FindElement("//NameID")
		forged := id.Copy()
		forged.SetText("eve")
		id.Parent().InsertChildAt(id.Index(), forged)
	}},
	"an attribute beside the signed ones": {false, func(response *etree.Element) {
		statement := response.FindElement("//AttributeStatement")
		mail := attribute("mail", "eve@example.com")
		statement.InsertChildAt(0, mail.Element())
	}},
}

// evil makes response one about eve, and takes its signature from the original.
func evil(response *etree.Element) (original, signature *etree.Element) {
	original = response.Copy()
	original.RemoveChild(original.FindElement("./Signature"))
	response.CreateAttr("ID", "id-evil")
	forge(response.FindElement("./Assertion"), false)
	return original, response.FindElement("./Signature")
}

// forge makes an assertion one about eve.
func forge(assertion *etree.Element, unsigned bool) {
	assertion.CreateAttr("ID", "id-evil-assertion")
	assertion.FindElement("./Subject/NameID").SetText("eve")
	if signature := assertion.FindElement("./Signature"); unsigned && signature != nil {
		assertion.RemoveChild(signature)
	}
}

func TestSAMLRefusesSignatureWrapping(t *testing.T) {
	t.Parallel()
	c := openSAML(t, samlSpec(nil))
	for name, attack := range wrapped {
		answer := newSAMLAnswer()
		answer.signResponse, answer.signAssertion, answer.finish = attack.signsResponse, !attack.signsResponse, attack.wrap
		response := answer.text(t)
		if !strings.Contains(response, "eve") || !strings.Contains(response, "ada") {
			t.Fatalf("%s is no attack: %s", name, response)
		}
		who, err := finishSAML(t, c, response)
		if verdict := refused(t, err); who.UserID != "" || verdict.Reason == "" {
			t.Errorf("%s: %+v", name, who)
		}
		// It does not hang on the outline alone.
		assertion, err := c.provider.ParseXMLResponse([]byte(response), []string{samlRequest}, c.provider.AcsURL)
		if err == nil && assertion.Subject.NameID.Value != "ada" {
			t.Errorf("%s: without the outline, it is %s", name, assertion.Subject.NameID.Value)
		}
	}
}

// Exclusive canonicalization leaves comments out, so they can be put into what is signed; a reader that takes the text
// up to the comment takes the name of somebody else (CVE-2017-11427 and its kin).
func TestSAMLReadsPastCommentsInTheNameID(t *testing.T) {
	t.Parallel()
	c := openSAML(t, samlSpec(nil))
	for _, between := range []string{"<!---->", "<!-- x -->", "<?x y?>", "<![CDATA[]]>"} {
		answer := newSAMLAnswer()
		answer.assertion.Subject.NameID.Value = "ada@example.com.evil.example"
		response := strings.ReplaceAll(answer.text(t), "ada@example.com.evil", "ada@example.com"+between+".evil")
		who, err := finishSAML(t, c, response)
		if err == nil && who.UserID != "ada@example.com.evil.example" || err != nil && refused(t, err).Reason == "" {
			t.Errorf("%s: %q, %v", between, who.UserID, err)
		}
	}
}

func TestSAMLRefusesEntitiesAndDocumentTypes(t *testing.T) {
	t.Parallel()
	c := openSAML(t, samlSpec(nil))
	answer := newSAMLAnswer().text(t)
	laughs := `<!DOCTYPE r [<!ENTITY a0 "lol">`
	for i := 1; i < 30; i++ {
		laughs += fmt.Sprintf(`<!ENTITY a%d "&a%d;&a%d;&a%d;">`, i, i-1, i-1, i-1)
	}
	for name, response := range map[string]string{
		"document type":           `<!DOCTYPE r>` + answer,
		"document type of others": `<!DOCTYPE r SYSTEM "https://evil.example/dtd">` + answer,
		"external entity": `<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>` +
			strings.Replace(answer, ">ada<", ">&x;<", 1),
		"external entity, in no place of the text": `<!DOCTYPE r [<!ENTITY % x SYSTEM "file:///etc/passwd">%x;]>` + answer,
		"a billion laughs":                         laughs + "]>" + strings.Replace(answer, ">ada<", ">&a29;<", 1),
		"unknown entity":                           strings.Replace(answer, ">ada<", ">&x;<", 1),
		"document type inside":                     strings.Replace(answer, ">ada<", "><!DOCTYPE r>ada<", 1),
	} {
		if _, err := finishSAML(t, c, response); refused(t, err).Reason == "" {
			t.Errorf("%s: no reason", name)
		}
	}
}

// What an answer costs has a bound, before anything of it is believed.
func TestSAMLBoundsWhatAnswersCost(t *testing.T) {
	// Not parallel: it measures what is allocated.
	c := openSAML(t, samlSpec(nil))
	answer := newSAMLAnswer().text(t)
	inside := func(text string) string { return strings.Replace(answer, "<saml:Subject>", text+"<saml:Subject>", 1) }
	room := maxSAMLResponse - len(answer) - 1000
	declared := new(strings.Builder)
	for i := 0; declared.Len() < room/2; i++ {
		fmt.Fprintf(declared, ` xmlns:n%d="urn:%d"`, i, i)
	}
	for name, c2 := range map[string]struct {
		response string
		most     uint64
	}{
		"huge":                            {answer + strings.Repeat(" ", 64<<20), 1 << 20},
		"a little too big":                {answer + strings.Repeat(" ", maxSAMLResponse), 1 << 20},
		"deep":                            {inside(strings.Repeat("<a>", room/8) + strings.Repeat("</a>", room/8)), 16 << 20},
		"many elements":                   {inside(strings.Repeat("<a/>", room/4)), 64 << 20},
		"as many elements as it may have": {inside(strings.Repeat("<a/>", maxSAMLElements-100)), 64 << 20},
		"many attributes":                 {inside("<a" + strings.Repeat(` a="b"`, room/6) + "/>"), 64 << 20},
		"many namespaces": {
			inside("<a" + declared.String() + ">" + strings.Repeat("<b/>", 3000) + "</a>"), 64 << 20,
		},
		"many references": {strings.Replace(answer, "<ds:Reference",
			strings.Repeat(`<ds:Reference URI="#x"/>`, 4000)+"<ds:Reference", 1), 64 << 20},
		"many transforms": {strings.Replace(answer, "<ds:Transforms>", "<ds:Transforms>"+strings.Repeat(
			`<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>`, room/68), 1), 64 << 20},
	} {
		request := httptest.NewRequest(http.MethodPost, samlCallback, nil)
		request.PostForm = url.Values{"SAMLResponse": {base64.StdEncoding.EncodeToString([]byte(c2.response))}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begun := time.Now()
		_, err := c.Finish(t.Context(), connector.Ask{}, keptOf(samlRequest), request)
		runtime.ReadMemStats(&after)
		if refused(t, err).Reason == "" || after.TotalAlloc-before.TotalAlloc > c2.most {
			t.Errorf("%s: %d bytes allocated", name, after.TotalAlloc-before.TotalAlloc)
		}
		t.Logf("%s: %d KiB in %s: %v", name, (after.TotalAlloc-before.TotalAlloc)>>10, time.Since(begun), err)
	}
}

// Whatever is moved, copied, renamed or left out in a signed answer about ada, it is about ada or it is refused.
func TestSAMLHoldsAgainstRearrangedAnswers(t *testing.T) {
	t.Parallel()
	c := openSAML(t, samlSpec(nil))
	answers := make([]*etree.Element, 2)
	for i := range answers {
		answer := newSAMLAnswer()
		answer.signResponse, answer.signAssertion = i == 0, i == 1
		answers[i] = answer.element(t)
	}
	const seed = 7
	random := rand.New(rand.NewPCG(seed, seed))
	taken := 0
	for range 500 {
		response := answers[random.IntN(len(answers))].Copy()
		edits := make([]string, 1+random.IntN(4))
		for i := range edits {
			edits[i] = rearrange(random, response)
		}
		text := written(t, response)
		for outline := range 2 {
			var err error
			var assertion *saml.Assertion
			if outline == 0 {
				assertion, err = c.assertion([]byte(text), samlRequest)
			} else { // it does not hang on the outline alone
				assertion, err = c.provider.ParseXMLResponse([]byte(text), []string{samlRequest}, c.provider.AcsURL)
			}
			if err != nil {
				continue
			}
			taken++
			who, err := c.identity(assertion)
			if err != nil || who.UserID != "ada" || who.Email != "ada@example.com" || who.Name != "Ada Lovelace" ||
				strings.Join(who.Groups, " ") != "staff analysts" {
				t.Fatalf("%v make of it %+v, %v:\n%s", edits, who, err, text)
			}
		}
	}
	t.Logf("%d were taken", taken)
}

// rearrange does one thing to a tree, and says what.
func rearrange(random *rand.Rand, root *etree.Element) string {
	var all []*etree.Element
	var walk func(*etree.Element)
	walk = func(el *etree.Element) {
		all = append(all, el)
		for _, child := range el.ChildElements() {
			walk(child)
		}
	}
	walk(root)
	el, other := all[random.IntN(len(all))], all[random.IntN(len(all))]
	switch what := random.IntN(7); {
	case el == root, other == el:
		return "nothing"
	case what == 0:
		el.Parent().RemoveChild(el)
		return "remove " + el.Tag
	case what == 1:
		other.InsertChildAt(random.IntN(len(other.Child)+1), el.Copy())
		return "copy " + el.Tag + " into " + other.Tag
	case what == 2:
		for up := other; up != nil; up = up.Parent() {
			if up == el {
				return "nothing"
			}
		}
		el.Parent().RemoveChild(el)
		other.InsertChildAt(random.IntN(len(other.Child)+1), el)
		return "move " + el.Tag + " into " + other.Tag
	case what == 3:
		forged := el.Copy()
		for _, text := range forged.FindElements(".//*[not(*)]") {
			text.SetText("eve")
		}
		el.Parent().InsertChildAt(el.Index()+random.IntN(2), forged)
		return "forge " + el.Tag
	case what == 4:
		if len(el.ChildElements()) == 0 {
			el.SetText("eve")
		}
		return "write into " + el.Tag
	case what == 5:
		if len(el.Attr) > 0 && len(other.Attr) > 0 {
			el.Attr[random.IntN(len(el.Attr))].Value = other.Attr[random.IntN(len(other.Attr))].Value
		}
		return "change an attribute of " + el.Tag
	}
	el.Tag, el.Space = other.Tag, other.Space
	return "rename " + el.Tag
}
