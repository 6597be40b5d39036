package pages

import (
	"net/http"
	"time"
)

// Fields of the form of [Welcome], beside FieldPassword.
const (
	FieldAgain   = "again"   // the new password once more
	FieldPasskey = "passkey" // they want a passkey in place of a password
)

// PasswordProblem says why a new password is not taken.
type PasswordProblem string

// Problems with a new password. Those of package factor are among them.
const (
	PasswordFine    PasswordProblem = ""
	PasswordShort   PasswordProblem = "short"
	PasswordLong    PasswordProblem = "long"
	PasswordGuessed PasswordProblem = "guessed"
	PasswordKnown   PasswordProblem = "known"
	PasswordDiffers PasswordProblem = "differs" // it was typed in two ways
	PasswordBusy    PasswordProblem = "busy"    // too many passwords are made at this moment; set RetryAfter
)

// PasswordProblems is all of them.
var PasswordProblems = []PasswordProblem{PasswordShort, PasswordLong, PasswordGuessed, PasswordKnown, PasswordDiffers,
	PasswordBusy}

// Status is the HTTP status that fits the problem.
func (p PasswordProblem) Status() int {
	switch p {
	case PasswordFine:
		return http.StatusOK
	case PasswordBusy:
		return http.StatusServiceUnavailable
	}
	return http.StatusUnprocessableEntity
}

// Welcome asks somebody who has opened a link how they are going to sign in.
type Welcome struct {
	Frame
	Person         // whose account it is
	Login   string // with what they sign in
	Reset   bool   // they could sign in before, and what they have open ends
	Passkey bool   // they may make a passkey in place of a password
	Second  bool   // they are asked for a second factor afterwards
	Action  string
	Hidden  []Field
	Problem PasswordProblem

	RetryAfter time.Duration // with PasswordBusy
}

func (Welcome) template() string            { return "welcome" }
func (Welcome) forms() formPolicy           { return formsToHere }
func (p Welcome) retryAfter() time.Duration { return p.RetryAfter }

// LinkGone is for a link that does not work, or not any more.
type LinkGone struct {
	Frame
	Forgot string // where another one is asked for; "" where nobody can
}

func (LinkGone) template() string { return "linkgone" }

// ForgotProblem says why nobody is sent a mail.
type ForgotProblem string

// Problems with asking for a mail. None of them says anything about an account.
const (
	ForgotFine    ForgotProblem = ""
	ForgotTooMany ForgotProblem = "too_many" // of this address; set RetryAfter
	ForgotBusy    ForgotProblem = "busy"     // of all; set RetryAfter
)

// ForgotProblems is all of them.
var ForgotProblems = []ForgotProblem{ForgotTooMany, ForgotBusy}

// Forgot asks for the name of somebody who cannot sign in, and then says that a mail is under way: the same whoever it
// was.
type Forgot struct {
	Frame
	Action  string
	Hidden  []Field
	Sent    bool
	Back    string // to the sign-in
	Problem ForgotProblem

	RetryAfter time.Duration // with a problem
}

func (Forgot) template() string            { return "forgot" }
func (Forgot) forms() formPolicy           { return formsToHere }
func (p Forgot) retryAfter() time.Duration { return p.RetryAfter }

// Status is the HTTP status that fits the problem.
func (p Forgot) Status() int {
	switch p.Problem {
	case ForgotTooMany:
		return http.StatusTooManyRequests
	case ForgotBusy:
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}
