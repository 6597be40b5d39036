package server

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Passkeys at the pages.
//
//	page ─ form with a challenge, sealed ─ script, browser, device ─ form with the answer ─ check ─ one transaction
//
// A challenge says what it is for, for which browser, and of whom an answer is wanted. Nothing is stored for it: the
// transaction in which the answer counts marks it used, and moves the passkey's counter on. A passkey alone signs in
// users of the configuration and managed ones. For those of a connector it is a second factor only: whether they may
// still come, the connector says each time.
//
// Where the issuer's host is an IP address there are no passkeys, and nothing speaks of them.

// askedPasskey is a challenge while it waits in the page that asks for a passkey.
type askedPasskey struct {
	Challenge []byte      `json:"c"`
	For       passkeyWish `json:"f"`
	Browser   string      `json:"b"`           // hash of its cookie
	User      string      `json:"u,omitempty"` // whose it is to be; "" to sign in
	Handle    []byte      `json:"h,omitempty"` // that the device is told, to enrol
	Ends      int64       `json:"e"`           // Unix milliseconds
}

// passkeyWish is what a passkey is asked for.
type passkeyWish string

const (
	wishSignIn passkeyWish = "sign in"
	wishFactor passkeyWish = "factor" // beside what was proven already
	wishEnrol  passkeyWish = "enrol"
)

const fieldChallenge = "challenge"

// passkeyForm is what has a browser ask for a passkey, and posts the answer to a path together with hidden fields.
func (s *Server) passkeyForm(q askedPasskey, life time.Duration, path string, hidden []pages.Field,
	options func(challenge []byte) (string, error)) (form pages.PasskeyForm, err error) {
	q.Challenge, q.Ends = factor.NewChallenge(), s.now().Add(life).UnixMilli()
	sealed, err := s.seal(storage.SealPasskey, q)
	if err != nil {
		return form, err
	}
	form = pages.PasskeyForm{Action: s.base + path,
		Hidden: append(append([]pages.Field{}, hidden...), pages.Field{Name: fieldChallenge, Value: sealed})}
	form.Options, err = options(q.Challenge)
	return form, err
}

// signInPasskey is the form of the sign-in page. It is the zero form where there are no passkeys.
func (s *Server) signInPasskey(t turn, hidden []pages.Field) (pages.PasskeyForm, error) {
	if s.passkeys == nil {
		return pages.PasskeyForm{}, nil
	}
	form, err := s.passkeyForm(askedPasskey{For: wishSignIn, Browser: t.request.Browser}, s.life.AuthRequest, pathPasskey,
		hidden, func(challenge []byte) (string, error) { return s.passkeys.RequestOptions(challenge, nil) })
	// A page that tells of one that did not work waits for a press: with a browser that answers by itself it would go in a
	// circle.
	form.Offers = t.problem == pages.ProblemNone
	return form, err
}

// factorPasskey is the form of the factor page. It is the zero form for somebody without passkeys.
func (s *Server) factorPasskey(t turn, a *storage.Account, hidden []pages.Field) (pages.PasskeyForm, error) {
	if s.passkeys == nil || len(a.Factors.Passkeys) == 0 {
		return pages.PasskeyForm{}, nil
	}
	return s.passkeyForm(askedPasskey{For: wishFactor, Browser: t.request.Browser, User: a.User.ID}, halfFor, pathPasskey,
		hidden, func(challenge []byte) (string, error) {
			return s.passkeys.RequestOptions(challenge, a.Factors.Passkeys)
		})
}

// answeredPasskey is the question to which a form brings the answer. It is false if that is too old, or was asked in
// another browser or for something else.
func (s *Server) answeredPasskey(r *http.Request, browser string,
	wishes ...passkeyWish) (q askedPasskey, is bool, err error) {
	err = s.open(storage.SealPasskey, r.PostForm.Get(fieldChallenge), &q)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return q, false, err
	}
	is = err == nil && q.Browser == browser && s.now().UnixMilli() < q.Ends
	for _, wish := range wishes {
		if is && q.For == wish {
			return q, true, nil
		}
	}
	return q, false, nil
}

// usesUp is the challenge as it is used up.
func (q askedPasskey) usesUp() storage.Once {
	return storage.Once{ID: "passkey " + base64.RawURLEncoding.EncodeToString(q.Challenge), Until: time.UnixMilli(q.Ends)}
}

// usePasskey takes the answer of a passkey: of the sign-in page, or of the factor page.
func (s *Server) usePasskey(w http.ResponseWriter, r *http.Request) {
	t, err := s.form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	q, is, err := s.answeredPasskey(r, t.request.Browser, wishSignIn, wishFactor)
	switch {
	case err != nil:
		s.refuse(w, r, err)
	case is && q.For == wishFactor:
		s.confirmByPasskey(w, r, t, q)
	default:
		s.signInByPasskey(w, r, t, q, is)
	}
}

// signInByPasskey signs in whoever holds a passkey. asked is whether it is the answer to a question of this browser.
func (s *Server) signInByPasskey(w http.ResponseWriter, r *http.Request, t turn, q askedPasskey, asked bool) {
	var is bool
	if t.way, is = s.wayOf(t, connector.StaticName); !is { // it was there when the page was shown
		s.showSignIn(w, r, t)
		return
	}
	whose := ""
	err := error(storage.ErrSpent)
	if asked {
		err = storage.Again(4, func() (again bool, err error) {
			a, answer, err := s.passkeyOwner(r.Context(), r.PostForm.Get(pages.FieldAnswer))
			if err != nil {
				return false, err
			}
			whose = a.User.ID
			err = s.proveByPasskey(w, r, t, q, proof{User: a.User.ID, Term: a.User.Term, Known: hashOf(a.User.ID)}, a, answer)
			return errors.Is(err, storage.ErrConflict), err
		})
	}
	if err == nil {
		return // the reply is written
	}
	why, problem := passkeyVerdict(err)
	if why == "" {
		s.refuse(w, r, err)
		return
	}
	t.problem = problem
	s.cfg.Metrics.SignIn(wayPasskey, countedRefused)
	s.passkeyRefused(r, t, whose, why)
	s.showSignIn(w, r, t)
}

// passkeyOwner is the account that an answer says that it is of. The error is a [factor.PasskeyError], or a fault.
func (s *Server) passkeyOwner(ctx context.Context, text string) (*storage.Account, *factor.Answer, error) {
	answer, err := factor.ReadAnswer(text)
	if err != nil {
		return nil, nil, err
	}
	a, err := s.store.AccountByHandle(ctx, answer.Handle)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		err = &factor.PasskeyError{Reason: "nobody has the passkey"}
	case err == nil && !a.User.Active():
		err = &factor.PasskeyError{Reason: "the user is disabled"}
	case err == nil && a.User.Connector != storage.ManagedConnector:
		err = &factor.PasskeyError{Reason: "a passkey alone does not sign in users of connector " + a.User.Connector}
	}
	return a, answer, err
}

// confirmByPasskey takes a passkey as another proof of who they are.
func (s *Server) confirmByPasskey(w http.ResponseWriter, r *http.Request, t turn, q askedPasskey) {
	p, is, err := s.proven(r, t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if !is || t.over != nil || p.User != q.User { // it has waited for too long, or somebody else has signed in since
		s.goOnSignedIn(w, r, t)
		return
	}
	answer, err := factor.ReadAnswer(r.PostForm.Get(pages.FieldAnswer))
	if err == nil {
		err = storage.Again(4, func() (again bool, err error) {
			a, err := s.accountOf(r.Context(), p)
			if err != nil {
				return false, err
			}
			err = s.proveByPasskey(w, r, t, q, p, a, answer)
			return errors.Is(err, storage.ErrConflict), err
		})
	}
	if err == nil {
		return // the reply is written
	}
	why, problem := passkeyVerdict(err)
	if why == "" {
		s.notProven(w, r, t, err)
		return
	}
	t.factorProblem = pages.FactorProblem(problem)
	s.cfg.Metrics.SecondFactor(factorPasskey, countedRefused)
	s.passkeyRefused(r, t, p.User, why)
	s.advance(w, r, t) // which asks again for what is still missing
}

// proveByPasskey checks the answer of a passkey of an account, and goes on with what it proves beside p. Without an
// error the reply is written.
func (s *Server) proveByPasskey(w http.ResponseWriter, r *http.Request, t turn, q askedPasskey, p proof,
	a *storage.Account, answer *factor.Answer) error {
	leaves := a.Factors.Clone()
	var err error
	leaves.Passkeys, err = s.passkeys.Check(q.Challenge, a.Factors.Handle, a.Factors.Passkeys, answer, s.now())
	if errors.Is(err, factor.ErrCopied) { // or is it an answer that was sent twice?
		err = cmp.Or(s.store.Spend(r.Context(), q.usesUp()), err)
	}
	if err != nil {
		return err
	}
	// Two things are proven by it alone, that they have it, and that its device knows them.
	amr := []string{oauth.AMRPossession, oauth.AMRPresence, oauth.AMRMultiple}
	return s.finishProof(w, r, t, p, amr, &leaves, q.usesUp())
}

// passkeyVerdict is why a passkey was refused, for the operator and for its holder; "" if the error is a fault.
func passkeyVerdict(err error) (why string, problem pages.Problem) {
	var verdict *factor.PasskeyError
	switch {
	case errors.Is(err, factor.ErrCopied):
		return err.Error(), pages.ProblemPasskeyCopied
	case errors.Is(err, storage.ErrSpent):
		return "the question is too old, or has been answered", pages.ProblemPasskeyLate
	case errors.As(err, &verdict):
		return verdict.Reason, pages.ProblemPasskey
	}
	return "", pages.ProblemNone
}

// passkeyRefused tells the operator of a passkey that was not taken, and whose it is, if that is known.
func (s *Server) passkeyRefused(r *http.Request, t turn, user, why string) {
	s.recordSlip(r, oauth.RulePasskeyWrong, why)
	if user == "" {
		s.journal.stranger(r.Context(), s.addressOf(r), t.client.ID, "passkey: "+why)
		return
	}
	s.failed(r, t, user, storage.AuditSignIn, "passkey: "+why, failedPasskey)
}

// pathPasskeyEndpoints is at the root of the issuer's host.
const pathPasskeyEndpoints = "/.well-known/passkey-endpoints"

// passkeyEndpoints tells password managers where passkeys are made and removed
// (https://w3c.github.io/webappsec-passkey-endpoints/).
func (s *Server) passkeyEndpoints(w http.ResponseWriter, _ *http.Request) {
	page := s.endpoint(pathPasskeys)
	writeJSON(w, http.StatusOK, map[string]string{"enroll": page, "manage": page})
}
