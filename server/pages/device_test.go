package pages

import (
	"strings"
	"testing"
)

// RFC 8628 section 5.4: the person is the only one who can tell that the device is theirs.
func TestConfirmDeviceWarnsOfRemotePhishing(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	doc := parse(t, get(s, ConfirmDevice{
		App: exampleApp, UserCode: "WDJB-MJHT", Person: Person{"Hanako", "h@example.com"},
		Scopes: []Scope{{Name: "runs:write", Description: "Start runs", Risk: RiskWrite}}, Hidden: []Field{{"csrf", "c1"}},
	}).Body.Bytes())
	text := words(doc)
	for _, want := range []string{
		"My OAuth App", "WDJB-MJHT", "exactly this code", "Hanako", "h@example.com", "Start runs", "Makes changes",
		"Did you start this yourself?", "somebody sent you this code", "Its developer chose its name and logo", "If you deny",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	checkDecisions(t, doc)
}

func TestDeviceFormKeepsWhatWasTyped(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	doc := parse(t, get(s, Device{Action: "/device", UserCode: `wdjb "x"`, Problem: DeviceMalformed}).Body.Bytes())
	for _, in := range elements(doc, "input") {
		if has(in, "name", FieldUserCode) {
			if !has(in, "value", `wdjb "x"`) || !has(in, "aria-invalid", "true") ||
				!has(in, "aria-describedby", "problem hint") {
				t.Errorf("%v", in.Attr)
			}
			return
		}
	}
	t.Error("no field for the code")
}
