package pages

import (
	"strings"
	"testing"

	"golang.org/x/net/html"
	"golang.org/x/text/language"
)

func TestConsentIsHonest(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	doc := parse(t, get(s, Consent{
		App: exampleApp, Person: Person{"Hanako", "h@example.com"},
		New: []Scope{{Name: "runs:write", Description: "Start runs", Risk: RiskWrite},
			{Name: "odd", Description: "Odd thing", Risk: Risk("unheard of")}},
		Granted: []Scope{{Name: "threads:read", Description: "Read threads", Risk: RiskLow}},
		Hidden:  []Field{{"csrf", "c1"}},
	}).Body.Bytes())

	text := words(doc)
	for _, want := range []string{
		"My OAuth App", "my-app.example.com", "Its developer chose its name and logo", "Hanako", "h@example.com",
		"Start runs", "Makes changes", "Odd thing", "Wide access", "already allowed", "Read threads",
		"If you allow", "If you deny", "take it back",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}

	checkDecisions(t, doc)
	form := elements(doc, "form")[0]
	links := map[string]bool{}
	for _, a := range elements(form, "a") {
		href, _ := attr(a, "href")
		links[href] = true
	}
	if !links[exampleApp.TosURI] || !links[exampleApp.PolicyURI] {
		t.Errorf("terms or privacy policy missing in %v", links)
	}
	lists := elements(form, "ul")
	if next := elements(form, "details"); len(next) != 1 ||
		words(elements(next[0], "summary")[0]) != "What happens next" || has(next[0], "open", "") {
		t.Error("what happens next is not folded")
	}
	if len(lists) != 3 || len(elements(lists[0], "li")) != 2 || len(elements(lists[1], "li")) != 1 {
		t.Error("new and granted scopes are not apart")
	}
}

// checkDecisions holds that a page asks for a decision with three buttons, of which Enter can press no other than
// "deny" by itself: "not you?" ends a session, and belongs to a form of its own, behind the other.
func checkDecisions(t *testing.T, doc *html.Node) {
	t.Helper()
	forms := elements(doc, "form")
	if len(forms) != 2 || !has(forms[1], "id", "switch") || len(elements(forms[1], "button")) != 0 {
		t.Fatalf("%d forms", len(forms))
	}
	var own []string
	switches := 0
	for _, b := range elements(doc, "button") {
		value, _ := attr(b, "value")
		form, elsewhere := attr(b, "form")
		switch {
		case !has(b, "name", FieldDecision) || words(b) == "":
			t.Errorf("button %v", b.Attr)
		case !elsewhere:
			own = append(own, value)
		case form == "switch" && value == DecisionSwitch:
			switches++
		}
	}
	if len(own) != 2 || own[0] != DecisionDeny || own[1] != DecisionAllow || switches != 1 {
		t.Errorf("buttons %v, and %d to switch", own, switches)
	}
	if len(elements(forms[1], "input")) != len(elements(forms[0], "input")) {
		t.Error("the forms do not send the same")
	}
}

func TestConsentSaysWhatIsKnown(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	known := Consent{App: exampleApp, New: []Scope{{Name: "openid email", Risk: RiskLow, Confirms: true,
		Known: []About{AboutName, AboutPicture, AboutEmail, "shoe size"}}},
		Granted: []Scope{{Name: "phone", Risk: RiskLow, Known: []About{AboutPhone}}}}
	text := words(parse(t, get(s, known).Body.Bytes()))
	for _, want := range []string{"Confirm who you are, and see your name, picture, e-mail address and shoe size " +
		"openid email", "See your phone number phone", "added to your account here later"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	known.Lang = language.Japanese
	text = words(parse(t, get(s, known).Body.Bytes()))
	if want := "あなたが誰であるかの確認と、名前、写真、メールアドレス、shoe sizeの閲覧"; !strings.Contains(text, want) {
		t.Errorf("no %q in %s", want, text)
	}
	if bare := words(parse(t, get(s, Consent{App: exampleApp,
		New: []Scope{{Name: "a", Description: "A"}}}).Body.Bytes())); strings.Contains(bare, "later") {
		t.Error("a page about nobody speaks of what comes later")
	}
}
