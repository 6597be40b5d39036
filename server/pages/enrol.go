package pages

// Enrol leads somebody who has signed in, and has no second factor that suffices, to the pages where they set one up.
type Enrol struct {
	Frame
	App       // left empty when nobody asked for the sign-in
	Person    // who it is
	Action    string
	Hidden    []Field
	ByServer  bool   // whoever runs this server demands it of them, and not the app alone
	Passkeys  string // the address of the page where they set up a passkey; empty if there can be none here
	Codes     string // the same of an authenticator app; empty if that does not suffice
	CanCancel bool   // there is an app to go back to
}

func (Enrol) template() string  { return "enrol" }
func (p Enrol) app() app        { return p.view() }
func (Enrol) forms() formPolicy { return formsToHere }
