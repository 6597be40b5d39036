package pages

import (
	"net/http"
	"time"
)

// Fields of the page that asks for a second factor.
const (
	FieldCode     = "code"     // of an authenticator app
	FieldRecovery = "recovery" // a recovery code
)

// FactorProblem says why a second factor was not taken.
type FactorProblem string

// Problems with a second factor.
const (
	FactorFine    FactorProblem = ""
	FactorWrong   FactorProblem = "wrong"    // the code is wrong, or was used before
	FactorTooMany FactorProblem = "too_many" // no guess is taken before RetryAfter, which is set

	// As those of a sign-in with a passkey.
	FactorPasskey       = FactorProblem(ProblemPasskey)
	FactorPasskeyLate   = FactorProblem(ProblemPasskeyLate)
	FactorPasskeyCopied = FactorProblem(ProblemPasskeyCopied)
)

// FactorProblems is all of them.
var FactorProblems = []FactorProblem{FactorWrong, FactorTooMany, FactorPasskey, FactorPasskeyLate, FactorPasskeyCopied}

// Status is the HTTP status that fits the problem.
func (p FactorProblem) Status() int {
	switch p {
	case FactorFine:
		return http.StatusOK
	case FactorTooMany:
		return http.StatusTooManyRequests
	}
	return http.StatusUnprocessableEntity
}

// Factor asks somebody who has proven who they are by one thing for another.
type Factor struct {
	Frame
	App      // left empty when nobody asked for the sign-in
	Person   // who it is
	Action   string
	Hidden   []Field
	Code     bool        // they have an authenticator app
	Recovery bool        // they have recovery codes
	Passkey  PasskeyForm // zero if they have none
	Problem  FactorProblem

	RetryAfter time.Duration // with FactorTooMany
	CanCancel  bool          // there is an app to go back to
}

func (Factor) template() string            { return "factor" }
func (p Factor) app() app                  { return p.view() }
func (p Factor) retryAfter() time.Duration { return p.RetryAfter }
func (Factor) forms() formPolicy           { return formsToHere }

func (p Factor) script() string { return p.Passkey.script() }

// CodeProblem reports whether the problem is one of the code.
func (p Factor) CodeProblem() bool { return p.Problem == FactorWrong || p.Problem == FactorTooMany }
