package mail

import (
	"bytes"
	"embed"
	"fmt"
	"net/mail"
	"strings"
	"sync"
	"text/template"
	"time"

	"golang.org/x/text/language"

	"github.com/warifu/warifu/server/oauth"
)

// Kind is what a letter is about.
type Kind string

// Kinds of letters.
const (
	Invitation Kind = "invitation" // a link with which somebody takes over a new account
	Reset      Kind = "reset"      // a link to set a new password

	NewDevice        Kind = "new-device" // somebody signed in in a browser in which they never did
	PasswordChanged  Kind = "password-changed"
	PasskeyAdded     Kind = "passkey-added"
	PasskeyRemoved   Kind = "passkey-removed"
	TOTPAdded        Kind = "totp-added"
	TOTPRemoved      Kind = "totp-removed"
	RecoveryMade     Kind = "recovery-made" // new recovery codes in the place of those before
	RecoveryUsed     Kind = "recovery-used"
	FactorsRemoved   Kind = "factors-removed" // by an operator, for who has lost them
	OperatorPassword Kind = "operator-password"
)

// Kinds is all of them.
var Kinds = []Kind{Invitation, Reset, NewDevice, PasswordChanged, PasskeyAdded, PasskeyRemoved, TOTPAdded, TOTPRemoved,
	RecoveryMade, RecoveryUsed, FactorsRemoved, OperatorPassword}

// Letter is one to one person. Kind, To, Site and Link are required.
type Letter struct {
	Kind Kind
	To   string // an e-mail address
	Name string // of the person; "" when it is not known
	Lang language.Tag
	Site string // what this server is called
	// Link is where the letter leads: an invitation and a reset to what works once, all others to the account.
	Link string
	// Valid is for how long the link works.
	Valid time.Duration
	// Login is with what the person signs in.
	Login string
	// Passkey is the name of that which was added or removed.
	Passkey string
	// At is when it happened, in the zone of the person; Address and Device are from where, "" where nobody can say.
	At              time.Time
	Address, Device string
	// Until is when the letter has become pointless; zero means [keep] after it was written.
	Until time.Time
}

// languages are those in which letters are written. The first one is for everybody else.
var languages = []language.Tag{language.English, language.Japanese}

//go:embed texts/*.txt
var textFiles embed.FS

// texts are the letters by language and kind. The first line of each is the subject.
var texts = sync.OnceValues(func() (map[language.Tag]*template.Template, error) {
	all := make(map[language.Tag]*template.Template)
	for _, tag := range languages {
		t := template.New("letters").Option("missingkey=error").Funcs(template.FuncMap{"line": line,
			"period": func(d time.Duration) string { return period(tag, d) },
			"time":   func(at time.Time) string { return at.Format(timeForms[tag]) },
		})
		var err error
		if all[tag], err = t.ParseFS(textFiles, "texts/"+tag.String()+".txt"); err != nil {
			return nil, fmt.Errorf("texts of letters: %w", err)
		}
	}
	return all, nil
})

var matcher = language.NewMatcher(languages)

// write makes the subject and the body of a letter.
func (l *Letter) write() (subject, body string, err error) {
	all, err := texts()
	if err != nil {
		return "", "", err
	}
	_, i, _ := matcher.Match(l.Lang)
	var out bytes.Buffer
	if err := all[languages[i]].ExecuteTemplate(&out, string(l.Kind), l); err != nil {
		return "", "", fmt.Errorf("letter %s: %w", l.Kind, err)
	}
	subject, body, _ = strings.Cut(strings.TrimSpace(out.String()), "\n")
	return subject, strings.TrimSpace(body) + "\n", nil
}

var timeForms = map[language.Tag]string{
	language.English:  "2 January 2006, 15:04 (MST)",
	language.Japanese: "2006年1月2日 15:04 (MST)",
}

// units are those of periods, the larger first: from how many on they are used, and their words, one and several.
var units = []struct {
	from, of time.Duration
	words    map[language.Tag][2]string
}{
	{48 * time.Hour, 24 * time.Hour, map[language.Tag][2]string{
		language.English: {"%d day", "%d days"}, language.Japanese: {"%d日間", "%d日間"}}},
	{time.Hour, time.Hour, map[language.Tag][2]string{
		language.English: {"%d hour", "%d hours"}, language.Japanese: {"%d時間", "%d時間"}}},
	{0, time.Minute, map[language.Tag][2]string{
		language.English: {"%d minute", "%d minutes"}, language.Japanese: {"%d分", "%d分"}}},
}

// period is a duration in words, rounded down: a link must not be said to work for longer than it does.
func period(tag language.Tag, d time.Duration) string {
	for _, unit := range units {
		if d < unit.from {
			continue
		}
		n := int(d / unit.of)
		if n == 1 {
			return fmt.Sprintf(unit.words[tag][0], n)
		}
		return fmt.Sprintf(unit.words[tag][1], n)
	}
	return ""
}

// maxLine is how much of a text that comes from people a letter has, in characters.
const maxLine = 100

// line is a text as a part of one line.
func line(text string) string { return oauth.Plain(text, maxLine) }

// maxAddress is that of RFC 5321 section 4.5.3.1.3, in bytes.
const maxAddress = 254

// addressee reads an address as that of one person; false for what is no address.
func addressee(to string) (*mail.Address, bool) {
	if len(to) > maxAddress {
		return nil, false
	}
	a, err := mail.ParseAddress(to)
	if err != nil || a.Name != "" || a.Address != to {
		return nil, false
	}
	return a, true
}
