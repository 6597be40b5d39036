package pages

import (
	"net/http"
	"time"

	"golang.org/x/text/language"
)

// Names of the form fields and values that the pages send. Hidden fields come
// from the caller.
const (
	FieldCancel   = "cancel"   // sign-in: the person does not want to, and goes back to the app
	FieldLogin    = "login"    // sign-in: what the person typed as user name or e-mail address
	FieldPassword = "password" // sign-in
	FieldDecision = "decision" // consent and sign-out: one of the Decision values, from the button that was pressed

	DecisionAllow  = "allow"
	DecisionDeny   = "deny"
	DecisionSwitch = "switch" // "not you?": sign in as somebody else

	DecisionSignOut = "signout"
	DecisionStay    = "stay" // stay signed in
)

// Page is one of the page types of this package.
type Page interface {
	template() string
	frame() Frame
	app() app
	retryAfter() time.Duration
	// formTarget tells whether the page has a form, and the redirect URI that
	// its answers may lead to ("" for none).
	formTarget() (redirectURI string, hasForm bool)
	// frames are addresses that the page shows in frames.
	frames() []string
	// script is the one script that the page runs, "" for none.
	script() string
}

// Frame is what surrounds each page: its language, and the same page in the
// others.
type Frame struct {
	Lang language.Tag // from Set.Lang

	// English and Japanese are the addresses of this page in that language,
	// reached by GET. The switch is shown when both are set.
	English, Japanese string
}

func (f Frame) frame() Frame             { return f }
func (Frame) app() app                   { return app{} }
func (Frame) retryAfter() time.Duration  { return 0 }
func (Frame) formTarget() (string, bool) { return "", false }
func (Frame) frames() []string           { return nil }
func (Frame) script() string             { return "" }
func (f Frame) links(now language.Tag) []languageLink {
	if f.English == "" || f.Japanese == "" {
		return nil
	}
	return []languageLink{
		{Lang: language.Japanese, Name: "日本語", URL: f.Japanese, Current: now == language.Japanese},
		{Lang: language.English, Name: "English", URL: f.English, Current: now == language.English},
	}
}

type languageLink struct {
	Lang    language.Tag
	Name    string
	URL     string
	Current bool
}

// Field is a hidden form field: the sealed request, the CSRF token.
type Field struct{ Name, Value string }

// App is what a page says about the app that a person comes from. All of it but
// RedirectURI is the developer's own word, and is shown as such.
type App struct {
	ClientName string // clientName of app.yml
	LogoURI    string // shown when https or loopback http, else left out
	TosURI     string // likewise; consent page only
	PolicyURI  string // likewise; consent page only

	// RedirectURI is the checked redirect URI of this request. Its host is shown
	// as the one that gets the data, and its site may be reached from the form.
	RedirectURI string

	// DescribedAt is the https URL of the document with which an app describes itself that nobody has registered. Its host is shown
	// as the one that asks. Empty for a registered app.
	DescribedAt string
}

// Problem says why a sign-in did not work.
type Problem string

// Problems of a sign-in.
const (
	ProblemNone        Problem = ""
	ProblemCredentials Problem = "credentials" // wrong name or password; never says which
	ProblemTooMany     Problem = "too_many"    // guesses are limited for now; set RetryAfter
)

// SignIn asks for a name and a password.
type SignIn struct {
	Frame
	App             // left empty when nobody asked for the sign-in
	Action  string  // where the form goes
	Hidden  []Field // sent along
	Login   string  // what stands in the first field: login_hint, or what was typed before
	Problem Problem // of the attempt before this one

	RetryAfter time.Duration // with ProblemTooMany: when another attempt is taken
	CanCancel  bool          // there is an app to go back to
}

func (SignIn) template() string             { return "signin" }
func (p SignIn) app() app                   { return p.view() }
func (p SignIn) retryAfter() time.Duration  { return p.RetryAfter }
func (p SignIn) formTarget() (string, bool) { return p.RedirectURI, true }

// Risk says how much harm a scope can do.
type Risk string

// Risks, as in the scope catalogue. An unknown one is shown as RiskBroad.
const (
	RiskLow   Risk = "low"   // reads
	RiskWrite Risk = "write" // changes or starts things
	RiskBroad Risk = "broad" // reaches far beyond one kind of thing
)

// Scope is one permission in words.
type Scope struct {
	Name        string // as the app asks for it, such as "threads:read"
	Description string // from the catalogue, in the page's language
	Risk        Risk
}

// Level is Risk, made one of the three.
func (s Scope) Level() Risk {
	switch s.Risk {
	case RiskLow, RiskWrite:
		return s.Risk
	}
	return RiskBroad
}

// Consent asks a person whether an app may have what it wants.
type Consent struct {
	Frame
	App
	UserName  string // shown name of who is signed in
	UserEmail string
	New       []Scope // asked for now
	Granted   []Scope // allowed before, listed so that nobody has to remember
	Action    string
	Hidden    []Field

	// UnusedFor and AtMost are how long the access lasts when the app does not
	// use it, and in all. Zero leaves the sentence out.
	UnusedFor, AtMost time.Duration
}

func (Consent) template() string             { return "consent" }
func (p Consent) app() app                   { return p.view() }
func (p Consent) formTarget() (string, bool) { return p.RedirectURI, true }

// Who is the name to show for the person: the name, else the e-mail address.
func (p Consent) Who() string { return who(p.UserName, p.UserEmail) }

// Reason says what an error page is about. Its texts are
// error.<reason>.{title,message,developer} in the locales.
type Reason string

// Reasons, with the status that fits them in Status.
const (
	ReasonInvalidClient      Reason = "invalid_client"      // client_id unknown or disabled
	ReasonUnauthorizedClient Reason = "unauthorized_client" // redirect URI not registered
	ReasonInvalidRequest     Reason = "invalid_request"     // missing, repeated or malformed parameters
	ReasonOtherBrowser       Reason = "other_browser"       // started in another browser, or its cookie is gone
	ReasonExpired            Reason = "expired"             // the request waited too long
	ReasonLogout             Reason = "logout"              // a logout request that is not followed: the session stands
	ReasonForbidden          Reason = "forbidden"           // form from another site, CSRF token wrong
	ReasonUnavailable        Reason = "unavailable"         // storage or a connector is down
	ReasonNotFound           Reason = "not_found"
	ReasonMethodNotAllowed   Reason = "method_not_allowed"
	ReasonServerError        Reason = "server_error" // a bug, found in the log by its request id
)

// Reasons is all of them.
var Reasons = []Reason{
	ReasonInvalidClient, ReasonUnauthorizedClient, ReasonInvalidRequest, ReasonOtherBrowser, ReasonExpired,
	ReasonLogout, ReasonForbidden, ReasonUnavailable, ReasonNotFound, ReasonMethodNotAllowed, ReasonServerError,
}

// Status is the HTTP status that fits the reason.
func (r Reason) Status() int {
	switch r {
	case ReasonForbidden:
		return http.StatusForbidden
	case ReasonUnavailable:
		return http.StatusServiceUnavailable
	case ReasonNotFound:
		return http.StatusNotFound
	case ReasonMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case ReasonServerError:
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// Error tells a person that it does not go on here, and what to pass on to
// whoever can mend it. It is for faults that must not be sent to the redirect
// URI, since that is not known to be good.
type Error struct {
	Frame
	Reason     Reason
	Code       string        // OAuth error code; Reason itself when empty
	Developer  string        // what exactly was wrong, for the app's developer; may hold request values, never secrets
	RequestID  string        // finds the log line
	RetryAfter time.Duration // with ReasonUnavailable
}

func (Error) template() string            { return "error" }
func (p Error) retryAfter() time.Duration { return p.RetryAfter }

// ShownCode is Code, or the reason in its place.
func (p Error) ShownCode() string {
	if p.Code != "" {
		return p.Code
	}
	return string(p.Reason)
}

// Landing is the front page of the issuer, for people who wonder what this is, and who they are here.
type Landing struct {
	Frame
	UserName  string // of who is signed in
	UserEmail string
	SignOut   string // where signing out begins; "" when nobody is signed in
}

func (Landing) template() string { return "landing" }

// Who is the name to show for the person: the name, else the e-mail address.
func (p Landing) Who() string { return who(p.UserName, p.UserEmail) }

// SignOut asks whether to sign out.
type SignOut struct {
	Frame
	App       // left empty when no app asked; RedirectURI is where the answer may lead to
	UserName  string
	UserEmail string
	Action    string
	Hidden    []Field
}

func (SignOut) template() string             { return "signout" }
func (p SignOut) app() app                   { return p.view() }
func (p SignOut) formTarget() (string, bool) { return p.RedirectURI, true }

// Who is the name to show for the person: the name, else the e-mail address.
func (p SignOut) Who() string { return who(p.UserName, p.UserEmail) }

func who(name, email string) string {
	if name != "" {
		return name
	}
	return email
}

// SignedOut confirms that the session here has ended.
type SignedOut struct {
	Frame
	ClientName string // app to go back to, when known
	ReturnURI  string // its checked post-logout redirect URI; linked when https or loopback http
	// Stays: the person has chosen to stay signed in instead.
	Stays bool
	// Frames are addresses of apps that sign the person out when they are shown in a frame (OpenID Connect Front-Channel Logout
	// 1.0 section 2); those that are neither https nor loopback http are left out. The page then goes back to ReturnURI by
	// itself, after the frames had a chance.
	Frames []string
}

func (SignedOut) template() string { return "signedout" }
func (p SignedOut) app() app {
	return App{ClientName: p.ClientName, RedirectURI: p.ReturnURI}.view()
}

func (p SignedOut) frames() []string { return p.Shown() }

// Shown are the frames that may be shown.
func (p SignedOut) Shown() []string {
	var out []string
	if p.Stays {
		return nil
	}
	for _, raw := range p.Frames {
		if address := linkable(raw); address != "" {
			out = append(out, address)
		}
	}
	return out
}

// FrameSeconds is how long a page with frames waits before it goes back to the app by itself.
const FrameSeconds = 3

// Wait is FrameSeconds when the page goes on by itself, else 0.
func (p SignedOut) Wait() int {
	if len(p.Shown()) == 0 || p.app().Return == "" {
		return 0
	}
	return FrameSeconds
}
