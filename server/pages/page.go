package pages

import (
	"cmp"
	"html/template"
	"net/http"
	"slices"
	"strconv"
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
	DecisionBack   = "back"   // go back to the app, which the person may not use

	DecisionSignOut = "signout"
	DecisionStay    = "stay" // stay signed in
)

// Page is one of the page types of this package.
type Page interface {
	template() string
	frame() Frame
	app() app
	retryAfter() time.Duration
	// forms tells where the page's forms go.
	forms() formPolicy
	// framed: other sites may show the page in a frame.
	framed() bool
	// frames are addresses that the page shows in frames.
	frames() []string
	// script is the one script that the page runs, "" for none.
	script() string
}

// formPolicy says where the forms of a page go.
type formPolicy int

const (
	noForms     formPolicy = iota
	formsToHere            // to this server; what follows is a page of ours, never a redirect to an app
	// formsAway is for an answer that is posted to an app, or a question to an identity provider. The page holds no other
	// form, and where the browser is sent from there, no policy of ours can know.
	formsAway
)

// Frame is what surrounds each page: its language, and the same page in the
// others.
type Frame struct {
	Lang language.Tag // from Set.Lang

	// English and Japanese are the addresses of this page in that language,
	// reached by GET. The switch is shown when both are set.
	English, Japanese string
}

func (f Frame) frame() Frame            { return f }
func (Frame) app() app                  { return app{} }
func (Frame) retryAfter() time.Duration { return 0 }
func (Frame) forms() formPolicy         { return noForms }
func (Frame) framed() bool              { return false }
func (Frame) frames() []string          { return nil }
func (Frame) script() string            { return "" }
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
	TosURI     string // likewise; on the pages that ask for consent
	PolicyURI  string // likewise

	// RedirectURI is the checked redirect URI of this request. Its host is shown
	// as the one that gets the data.
	RedirectURI string

	// Unvouched: no operator answers for the app, so the person is not sent back to it unless they say yes.
	Unvouched bool

	// DescribedAt is the https URL of the document with which an app describes itself that nobody has registered. Its host
	// is shown as the one that asks. Empty for a registered app.
	DescribedAt string
}

// Person is somebody who is signed in.
type Person struct {
	UserName  string // the name to show; "" when none is known
	UserEmail string
}

// Who is the name to show for the person: the name, else the e-mail address.
func (p Person) Who() string { return cmp.Or(p.UserName, p.UserEmail) }

// Problem says why a sign-in did not work.
type Problem string

// Problems of a sign-in.
const (
	ProblemNone        Problem = ""
	ProblemCredentials Problem = "credentials" // wrong name or password; never says which
	ProblemTooMany     Problem = "too_many"    // no guess is taken before RetryAfter, which is set
	ProblemBusy        Problem = "busy"        // too many people sign in at this moment; set RetryAfter
	ProblemNoWay       Problem = "no_way"      // there is no way to sign in

	// Problems with a connector, which By names.
	ProblemUnavailable Problem = "unavailable" // it does not answer
	ProblemRefused     Problem = "refused"     // it says no, or what it says is not believed
	ProblemGroups      Problem = "groups"      // it tells of more groups than there is room for
	ProblemNotAgain    Problem = "not_again"   // it was to ask who the person is, and did not

	// Problems with a passkey.
	ProblemPasskey       Problem = "passkey"        // it is nobody's here, or proves nothing
	ProblemPasskeyLate   Problem = "passkey_late"   // the page was open for too long, or its answer was sent twice
	ProblemPasskeyCopied Problem = "passkey_copied" // there are two of it
)

// Problems are all of them.
var Problems = []Problem{ProblemCredentials, ProblemTooMany, ProblemBusy, ProblemNoWay, ProblemUnavailable,
	ProblemRefused, ProblemGroups, ProblemNotAgain, ProblemPasskey, ProblemPasskeyLate, ProblemPasskeyCopied}

// Status is the HTTP status that fits the problem.
func (p Problem) Status() int {
	switch p {
	case ProblemCredentials, ProblemPasskey, ProblemPasskeyLate, ProblemPasskeyCopied:
		return http.StatusUnprocessableEntity
	case ProblemTooMany:
		return http.StatusTooManyRequests
	case ProblemBusy, ProblemUnavailable, ProblemNoWay:
		return http.StatusServiceUnavailable
	case ProblemRefused, ProblemGroups, ProblemNotAgain:
		return http.StatusForbidden
	}
	return http.StatusOK
}

// SignIn asks for a name and a password, or offers other ways to sign in, or both.
type SignIn struct {
	Frame
	App             // left empty when nobody asked for the sign-in
	Action  string  // where the form goes
	Hidden  []Field // sent along
	Login   string  // what stands in the first field: login_hint, or what was typed before
	Prompt  string  // what the first field is called; "" for the usual words
	With    string  // whose name and password these are; "" for those of this service itself
	Problem Problem // of the attempt before this one
	By      string  // the connector of that attempt
	Ways    []Way   // other ways
	NoForm  bool    // there is no name and password to ask for
	Forgot  string  // where somebody gets a new password; "" when they have to ask

	Passkey PasskeyForm // zero where there are no passkeys

	RetryAfter time.Duration // with ProblemTooMany and ProblemBusy: when another attempt is taken
	CanCancel  bool          // there is an app to go back to
}

// Way is a way to sign in, as a link.
type Way struct {
	Name    string // "" for the users of this service itself
	Logo    string // path of its image, from [Set.ServeLogo]; "" for none
	Address string
}

// Initial stands in for the logo.
func (w Way) Initial() string { return initial(w.Name) }

func (SignIn) template() string            { return "signin" }
func (p SignIn) app() app                  { return p.view() }
func (p SignIn) retryAfter() time.Duration { return p.RetryAfter }
func (SignIn) forms() formPolicy           { return formsToHere }

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

	// Peer, in the place of a description: the name of another app that the app may sign in to as this person.
	Peer string

	// Known, in the place of a description: what the app learns about this person, by kind. One line stands for all
	// scopes that tell of the person, and has their names with spaces between them. Confirms says that openid is among
	// them, which tells the app who comes back.
	Known    []About
	Confirms bool
}

// About is a kind of things that are known about a person. Its text is about.<kind> in the locales; what is not among
// [Abouts] is its own.
type About string

// Kinds of things that are known about people, in the order in which they are named.
const (
	AboutName      About = "name"
	AboutUserName  About = "username"
	AboutPicture   About = "picture"
	AboutWebsite   About = "website"
	AboutGender    About = "gender"
	AboutBirthdate About = "birthdate"
	AboutTimeZone  About = "timezone"
	AboutLanguage  About = "language"
	AboutEmail     About = "email"
	AboutAddress   About = "address"
	AboutPhone     About = "phone"
	AboutGroups    About = "groups"
)

// Abouts is all of them.
var Abouts = []About{AboutName, AboutUserName, AboutPicture, AboutWebsite, AboutGender, AboutBirthdate, AboutTimeZone,
	AboutLanguage, AboutEmail, AboutAddress, AboutPhone, AboutGroups}

// tellAbout reports whether any of the scopes tells of the person.
func tellAbout(scopes ...Scope) bool {
	return slices.ContainsFunc(scopes, func(s Scope) bool { return len(s.Known) > 0 })
}

// Level is Risk, made one of the three.
func (s Scope) Level() Risk {
	switch s.Risk {
	case RiskLow, RiskWrite:
		return s.Risk
	}
	return RiskBroad
}

// Resource is a place where the access that an app asks for can be used (RFC 8707).
type Resource struct {
	Name       string // of the app that runs it, in its developer's word; "" when it is not known
	Identifier string
	Here       bool // this server itself
}

// Consent asks a person whether an app may have what it wants.
type Consent struct {
	Frame
	App
	Person               // who is signed in
	Resources []Resource // where it is going to be used, when the app says so
	New       []Scope    // asked for now
	Granted   []Scope    // allowed before, listed so that nobody has to remember
	Action    string
	Hidden    []Field
	Late      bool   // the answer came after its time, so the person is asked again
	Account   string // where the person can take it back

	// UnusedFor and AtMost are how long the access lasts when the app does not
	// use it, and in all. Zero leaves the sentence out.
	UnusedFor, AtMost time.Duration
	// InSession: what the app gets ends with the sign-in of this browser.
	InSession bool
}

func (Consent) template() string  { return "consent" }
func (p Consent) app() app        { return p.view() }
func (Consent) forms() formPolicy { return formsToHere }

// TellsAbout reports whether the app learns something about the person.
func (p Consent) TellsAbout() bool { return tellAbout(p.New...) || tellAbout(p.Granted...) }

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
	ReasonUsed               Reason = "used"                // the request was answered before
	ReasonDenied             Reason = "denied"              // the person said no
	ReasonAppCookies         Reason = "app_cookies"         // a sign-in behind forward auth came back without cookie
	ReasonAppReturn          Reason = "app_return"          // ... or late, a second time, or is none that began there
	ReasonAppDenied          Reason = "app_denied"          // ... or the person said no, or may not use the app
	// The app wanted an answer without asking the person, or asked for another
	ReasonSilent           Reason = "silent"
	ReasonLogout           Reason = "logout"      // a logout request that is not followed: the session stands
	ReasonForbidden        Reason = "forbidden"   // form from another site, CSRF token wrong
	ReasonTooMany          Reason = "too_many"    // of the same person in a short time
	ReasonUnavailable      Reason = "unavailable" // storage or a connector is down
	ReasonNotFound         Reason = "not_found"
	ReasonMethodNotAllowed Reason = "method_not_allowed"
	ReasonServerError      Reason = "server_error" // a bug, found in the log by its request id
)

// Reasons is all of them.
var Reasons = []Reason{
	ReasonInvalidClient, ReasonUnauthorizedClient, ReasonInvalidRequest, ReasonOtherBrowser, ReasonExpired, ReasonUsed,
	ReasonDenied, ReasonAppCookies, ReasonAppReturn, ReasonAppDenied, ReasonSilent, ReasonLogout, ReasonForbidden,
	ReasonTooMany, ReasonUnavailable, ReasonNotFound, ReasonMethodNotAllowed, ReasonServerError,
}

// Status is the HTTP status that fits the reason.
func (r Reason) Status() int {
	switch r {
	case ReasonDenied, ReasonAppDenied:
		return http.StatusOK
	case ReasonForbidden:
		return http.StatusForbidden
	case ReasonTooMany:
		return http.StatusTooManyRequests
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
// whoever can mend it. It is for what must not be sent to the redirect URI,
// since that is not known to be good, and for what the person may bring there
// or not: then it has a way back.
type Error struct {
	Frame
	App             // that the person came from, as far as it is known to be that one
	Back       Back // zero when there is none
	Reason     Reason
	Code       string        // OAuth error code; Reason itself when empty
	Rule       string        // that refused, for a sentence in the page's language
	Developer  string        // what exactly was wrong, in English; may hold request values, never secrets
	RequestID  string        // finds the log line
	RetryAfter time.Duration // with ReasonUnavailable
}

func (Error) template() string { return "error" }
func (p Error) app() app {
	a := p.App
	a.RedirectURI = p.Back.RedirectURI // which is checked
	return a.view()
}
func (p Error) retryAfter() time.Duration { return p.RetryAfter }
func (p Error) forms() formPolicy {
	if len(p.Back.Fields) > 0 {
		return formsAway
	}
	return noForms
}

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
	Person         // who is signed in
	Account string // where the page of their account is
	SignIn  string // where signing in begins; "" when nobody can sign in
	SignOut string // where signing out begins; "" when nobody is signed in
	Apps    []Start
}

// Start is an app that a person can begin with at the front page.
type Start struct {
	ClientName string
	Address    string // where it begins
}

func (Landing) template() string { return "landing" }

// SignOut asks whether to sign out.
type SignOut struct {
	Frame
	App    // left empty when no app asked; RedirectURI is where the answer may lead to
	Person // who is signed in
	Action string
	Hidden []Field
}

func (SignOut) template() string  { return "signout" }
func (p SignOut) app() app        { return p.view() }
func (SignOut) forms() formPolicy { return formsToHere }

// SignedOut confirms that the session here has ended.
type SignedOut struct {
	Frame
	ClientName string // app to go back to, when known
	ReturnURI  string // its checked post-logout redirect URI; linked when [mayLeadTo] allows it
	// Stays: the person has chosen to stay signed in instead.
	Stays bool
	// There is where the person can sign out of the identity provider that they signed in by; zero for none.
	There Way
	// Frames are addresses of apps that sign the person out when they are shown in a frame (OpenID Connect Front-Channel
	// Logout 1.0 section 2); those that are neither https nor loopback http are left out. The page then goes back to
	// ReturnURI by itself, after the frames had a chance.
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

// Refresh is the attribute of the element by which the page goes on, when it does.
func (p SignedOut) Refresh() template.HTMLAttr {
	return attributeOf("content", strconv.Itoa(p.Wait())+";url="+string(p.app().Return))
}

// Wait is FrameSeconds when the page goes on by itself, else 0.
func (p SignedOut) Wait() int {
	if len(p.Shown()) == 0 || p.app().Return == "" {
		return 0
	}
	return FrameSeconds
}
