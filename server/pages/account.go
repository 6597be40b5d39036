package pages

import (
	"cmp"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"
	"rsc.io/qr"
)

// The pages on which people see and change their own account.

// accountTemplates are those pages.
var accountTemplates = []string{"account", "totp", "codes", "sessions", "passkeys", "password", "profile", "apps",
	"activity"}

// Fields and values of their forms.
const (
	FieldLanguage = "language"

	DecisionRemove   = "remove"
	DecisionMake     = "make"     // recovery codes
	DecisionDownload = "download" // those that were just made
	DecisionEnd      = "end"      // one session
	DecisionAll      = "all"      // all others
)

// Notice says on a page of an account what has happened. Its text is account.notice.<notice> in the locales.
type Notice string

// What has happened.
const (
	NoticeTOTP        Notice = "totp"
	NoticeTOTPRemoved Notice = "totp_removed"
	NoticeSession     Notice = "session"  // one has ended
	NoticeSessions    Notice = "sessions" // all others have ended
	NoticePassword    Notice = "password"
	NoticeApp         Notice = "app" // what it had was taken back
	NoticeProfile     Notice = "profile"
)

// Notices are all of them.
var Notices = []Notice{NoticeTOTP, NoticeTOTPRemoved, NoticeSession, NoticeSessions, NoticePassword, NoticeApp,
	NoticeProfile, NoticePasskey, NoticePasskeyRenamed, NoticePasskeyRemoved}

// Slip says why a form of an account is shown again. Its text is account.slip.<slip> in the locales.
type Slip string

// Why a form is shown again.
const (
	SlipLate Slip = "late" // the page was open for too long
	SlipCode Slip = "code" // the code is wrong
	SlipName Slip = "name" // there is none, or it is too long
	SlipLast Slip = "last" // a factor is demanded, and it is the last that suffices
)

// Slips are all of them.
var Slips = []Slip{SlipLate, SlipCode, SlipName, SlipLast, SlipPasskey, SlipPasskeyLate, SlipPasskeyFull}

// Status is the HTTP status that fits.
func (s Slip) Status() int {
	if s == "" {
		return http.StatusOK
	}
	return http.StatusUnprocessableEntity
}

// AccountFrame surrounds the pages of an account.
type AccountFrame struct {
	Frame
	Account string  // where the account's own page is
	Notice  Notice  // what the form before has done
	Slip    Slip    // why the form is shown again
	Action  string  // where the forms of the page go
	Hidden  []Field // sent along
}

func (AccountFrame) forms() formPolicy { return formsToHere }

// Account is the page of somebody's account.
type Account struct {
	AccountFrame
	Person         // who is signed in
	SignOut string // where signing out begins
	Factors AccountFactors
	// Password says since when there is one, if it is kept here; PasswordPage is where it is changed, "" where it cannot
	// be.
	Password     time.Time
	PasswordPage string
	// The other pages of the account.
	Profile, Sessions, Apps, Activity string
}

// AccountFactors are what somebody can prove who they are with, beside a password.
type AccountFactors struct {
	Passkeys     int
	PasskeysPage string    // "" where there are none
	TOTP         time.Time // since when there is an authenticator app; zero for none
	Codes        int       // recovery codes that are left
	TOTPPage     string    // where each is set up and removed; "" where it cannot be
	CodesPage    string
	AnyFactors   bool // there is a second factor, for which recovery codes stand
}

func (Account) template() string { return "account" }

// TOTP is the page of an authenticator app: of the one that somebody has, or of the secret for a new one.
type TOTP struct {
	AccountFrame
	Since, UsedAt time.Time // of the one that there is
	Anew          string    // where it is replaced

	Secret   string // of a new one, as people type it; "" to show the one that there is
	URI      string // for the QR code
	Replaces bool   // there is one already
}

func (TOTP) template() string { return "totp" }

// Groups are the secret in groups of four characters.
func (p TOTP) Groups() []string {
	var groups []string
	for rest := p.Secret; rest != ""; {
		n := min(4, len(rest))
		groups, rest = append(groups, rest[:n]), rest[n:]
	}
	return groups
}

// Open is the address that opens an authenticator app on the same device.
func (p TOTP) Open() template.URL {
	if !strings.HasPrefix(p.URI, "otpauth://totp/") {
		return ""
	}
	return template.URL(p.URI) //nolint:gosec // the scheme is checked, and html/template escapes the attribute
}

// QR is the code that authenticator apps read.
func (p TOTP) QR() (QR, error) { return newQR(p.URI) }

// QR is a QR code as the path of an SVG.
type QR struct {
	Side int    // modules, with the quiet zone
	Path string // the dark modules
}

func newQR(text string) (QR, error) {
	const quiet = 4 // modules around the code (ISO/IEC 18004)
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		if code, err = qr.Encode(text, qr.L); err != nil {
			return QR{}, fmt.Errorf("make QR code: %w", err)
		}
	}
	var path strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			from := x
			for x < code.Size && code.Black(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", from+quiet, y+quiet, x-from, x-from)
			}
		}
	}
	return QR{Side: code.Size + 2*quiet, Path: path.String()}, nil
}

// Codes is the page of recovery codes: how many are left, or those that were just made.
type Codes struct {
	AccountFrame
	Codes    []string // just made; nobody can see them again
	Left     int      // of those that there are
	Useless  bool     // there is no second factor that they could stand for
	Continue string   // where to go on from Codes
	Pending  bool     // which is to an app
}

func (Codes) template() string { return "codes" }

// Sessions is the page on which somebody sees where they are signed in.
type Sessions struct {
	AccountFrame
	Sessions []Session
	SignOut  string // where signing out of this browser begins
}

// Session is a browser in which somebody is signed in.
type Session struct {
	ID              string
	Agent           string // what the browser calls itself
	Address         string // from where it signed in
	Since, SignedIn time.Time
	Apps            []string // to which it is signed in
	Here            bool     // it is this browser
}

func (Sessions) template() string { return "sessions" }

// Others reports whether there are sessions beside the one of this browser.
func (p Sessions) Others() bool {
	return slices.ContainsFunc(p.Sessions, func(s Session) bool { return !s.Here })
}

// Password is the page on which somebody sets another password.
type Password struct {
	AccountFrame
	Problem PasswordProblem
	Login   string // with which they sign in, for password managers
	Own     bool   // it is kept here, and they may change it
	Since   time.Time
	By      string // who keeps it instead; "" for whoever runs this service

	RetryAfter time.Duration // with PasswordBusy
}

func (Password) template() string            { return "password" }
func (p Password) retryAfter() time.Duration { return p.RetryAfter }

// Profile is the page of what is known of somebody.
type Profile struct {
	AccountFrame
	Name     string
	Language string // of mails and apps; "" for none
	Own      bool   // they may change that
	UserName string
	Email    string
	Groups   []string
	By       []string // the names of the connectors by which they sign in
}

func (Profile) template() string { return "profile" }

// Apps is the page on which somebody sees what they have allowed.
type Apps struct {
	AccountFrame
	Apps []AllowedApp
}

// AllowedApp is an app that somebody has allowed something.
type AllowedApp struct {
	App
	ID            string
	Scopes        []Scope
	Resources     []Resource
	Since, UsedAt time.Time
}

// View is what the page says about the app.
func (a AllowedApp) View() app { return a.view() }

func (Apps) template() string { return "apps" }

// Activity is the page of when somebody has signed in.
type Activity struct {
	AccountFrame
	SignIns []PastSignIn
}

// PastSignIn is a time when somebody has signed in, or tried to.
type PastSignIn struct {
	At             time.Time
	Agent, Address string
	Failed         bool
	Times          int // in a row
}

func (Activity) template() string { return "activity" }

// Name is what this server is called: by its operator, or its host.
func (s *Set) Name() string { return s.site.Name }

// Download answers with recovery codes as a text file.
func (s *Set) Download(w http.ResponseWriter, lang language.Tag, who string, codes []string) error {
	in, err := allTexts()
	heading := ""
	if err == nil {
		heading, err = in[known(lang)].text("codes.file", "Site", s.site.Name, "Who", plain(who, maxName))
	}
	if err != nil {
		return fmt.Errorf("make a file of recovery codes: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="recovery-codes.txt"`)
	h.Set("Cache-Control", "no-store")
	// A browser that has gone away is not a fault of ours
	_, _ = fmt.Fprintf(w, "%s\r\n\r\n%s\r\n", heading, strings.Join(codes, "\r\n"))
	return nil
}

// moment is a time in words, in its own zone; "" for none.
func (tx texts) moment(t time.Time) (string, error) {
	if t.IsZero() {
		return "", nil
	}
	layout, err := tx.text("moment.layout")
	return t.Format(cmp.Or(layout, time.RFC3339)), err
}
