package pages

// NoAccess tells a person that they may not use the app from which they come: only certain people may. They can sign in
// as somebody else, or go back to the app, which learns that they were refused.
type NoAccess struct {
	Frame
	App
	Person            // who is signed in
	Action    string  // where the form goes with which somebody else signs in, or the person goes back
	Hidden    []Field // sent along
	Closed    string  // the app that is closed to them, where it is another than the one that they come from
	CanGoBack bool    // there is an app to go back to
	RequestID string  // by which the operator finds which rule refused
}

func (NoAccess) template() string  { return "noaccess" }
func (p NoAccess) app() app        { return p.view() }
func (NoAccess) forms() formPolicy { return formsToHere }
