package pages

import (
	_ "embed"
	"strings"
	"time"
)

//go:embed scripts/passkey.js
var passkeyFile string

// askPasskey has the browser ask for a passkey, and posts what it answers. What needs it is hidden until it runs; what
// tells that it does not run is hidden then.
var askPasskey = strings.TrimSpace(passkeyFile)

// FieldAnswer is what the browser says for a passkey, as JSON.
const FieldAnswer = "answer"

// PasskeyForm asks the browser for a passkey. Its button stands where the page wants it.
type PasskeyForm struct {
	Action  string
	Hidden  []Field
	Options string // what the browser is asked, as JSON
	Offers  bool   // those for this site are also offered where the name is typed
	// Accepted tells the browser, as JSON, which passkeys of the user count, so that devices forget the others.
	Accepted string
}

// script is what the page needs for it.
func (f PasskeyForm) script() string {
	if f.Options == "" {
		return ""
	}
	return askPasskey
}

// Passkeys is the page of somebody's passkeys.
type Passkeys struct {
	AccountFrame
	Passkeys []ShownPasskey
	Passkey  PasskeyForm // that makes a new one; zero when there are as many as there may be
	Full     bool        // there are
	After    string      // the identity provider at which they sign in, and after which a passkey is a second factor
}

// ShownPasskey is one of them.
type ShownPasskey struct {
	Key        string // by which forms name it
	Name       string // its user's, or of what made it; "" if neither is known
	At, UsedAt time.Time
	Synced     bool // it is on several devices
}

func (Passkeys) template() string { return "passkeys" }

func (p Passkeys) script() string { return p.Passkey.script() }

// Fields and values of its forms.
const (
	FieldKey  = "key"
	FieldName = "name"

	DecisionRename = "rename"
)

// Notices and slips of the page.
const (
	NoticePasskey        Notice = "passkey"
	NoticePasskeyRenamed Notice = "passkey_renamed"
	NoticePasskeyRemoved Notice = "passkey_removed"

	SlipPasskey     Slip = "passkey"      // the answer proves nothing
	SlipPasskeyLate Slip = "passkey_late" // the page was open for too long, or its answer was sent twice
	SlipPasskeyFull Slip = "passkey_full" // there are as many as there may be
)
