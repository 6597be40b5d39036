package server

import (
	"context"
	"errors"
	"net/http"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// The factor page asks somebody for a second proof of who they are, who has given a first one (proof.go).
//
// Guesses of codes are counted like those of passwords, by themselves: to get here takes the password, so whoever fills
// this count keeps nobody from trying a password, and learns nothing that a stranger could not. A browser in which the
// user has given a second factor before has a count of its own.

// mostCodes are the guesses of codes for an account in each window of time. Of a code of an authenticator app three of
// a million are right.
const mostCodes = 5

// maxCodeText is the longest that a code can be as people type it, in bytes.
const maxCodeText = 64

// showFactor asks for a second proof, by what the user has, and as sure as the request takes.
func (s *Server) showFactor(w http.ResponseWriter, r *http.Request, t turn, p proof) {
	a, err := s.accountOf(r.Context(), p)
	if err != nil {
		s.notProven(w, r, t, err)
		return
	}
	if p.session == "" && !s.asksMore(t, a, p) { // what was asked for is gone: an operator has removed it
		s.dropHalf(w, r)
		s.showSignIn(w, r, t)
		return
	}
	hidden, err := s.hidden(t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Factor{
		Frame: s.frame(r, t), App: shownApp(t), Person: shownPerson(a.User), Action: s.base + pathFactor, Hidden: hidden,
		Problem: t.factorProblem, RetryAfter: t.retry, CanCancel: t.request.fromApp(),
	}
	if page.Passkey, err = s.factorPasskey(t, a, hidden); err != nil {
		s.refuse(w, r, err)
		return
	}
	if passkey := oauth.AssurancePhishingResistant; s.lacks(t, a.User, p) < passkey || s.reachable(a.Factors) < passkey {
		page.Code = len(a.Factors.TOTP.Secret) > 0
		page.Recovery = factor.UnusedRecovery(a.Factors.Recovery) > 0
	}
	s.render(w, r, page.Problem.Status(), page)
}

// proveFactor takes the form of the factor page.
func (s *Server) proveFactor(w http.ResponseWriter, r *http.Request) {
	t, err := s.form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.PostForm.Get(pages.FieldCancel) != "" && t.request.fromApp() {
		s.dropHalf(w, r)
		s.refuse(w, r, toClient(t.client, t.request.replyTo(), t.request.declined()))
		return
	}
	p, is, err := s.proven(r, t)
	switch {
	case err != nil:
		s.refuse(w, r, err)
	case r.PostForm.Get(pages.FieldDecision) == pages.DecisionSwitch:
		s.asSomebodyElse(w, r, t, p)
	case !is || t.over != nil: // it has waited for too long
		s.goOnSignedIn(w, r, t)
	default:
		s.takeCode(w, r, t, p)
	}
}

// asSomebodyElse goes on with the sign-in page.
func (s *Server) asSomebodyElse(w http.ResponseWriter, r *http.Request, t turn, p proof) {
	s.dropHalf(w, r)
	if p.session != "" {
		ref := sessionRef{ID: p.session, User: p.User}
		if _, err := s.endSession(r.Context(), ref, "the user switched accounts"); err != nil {
			s.refuse(w, r, err)
			return
		}
		s.setCookie(w, cookieSession, "", -1)
	}
	if err := s.change(&t, func(a *AuthRequest) { a.Choose, a.Other = true, true }); err != nil {
		s.refuse(w, r, err)
		return
	}
	s.backTo(w, r, t)
}

// takeCode checks a code of the authenticator app, or a recovery code, and goes on.
func (s *Server) takeCode(w http.ResponseWriter, r *http.Request, t turn, p proof) {
	code, recovery := r.PostForm.Get(pages.FieldCode), r.PostForm.Get(pages.FieldRecovery)
	g := s.codeGuess(r, p)
	no, err := s.countCode(r.Context(), g)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	right := false
	if !no.refused() {
		if right, err = s.checkCode(w, r, t, p, code, recovery); err != nil {
			s.notProven(w, r, t, err)
			return
		}
	}
	s.countFactor(recovery != "", right, no.refused())
	switch {
	case right:
		if err := s.guesses.forgive(r.Context(), g); err != nil {
			s.log.WarnContext(r.Context(), "the count of wrong codes cannot be reset", "error", err)
		}
		if recovery != "" {
			s.notifyLater(r, p.User, mail.RecoveryUsed)
		}
		return // the reply is written
	case no.refused():
		t.factorProblem, t.retry = pages.FactorTooMany, no.until.Sub(s.now())
		s.recordSlip(r, oauth.RuleSignInLocked, "too many codes were tried")
		if no.first {
			s.failed(r, t, p.User, storage.AuditSignInLocked, "too many wrong codes for the second factor", failedLocked)
		}
	default:
		t.factorProblem = pages.FactorWrong
		s.recordSlip(r, oauth.RuleFactorWrong, "the code is wrong, or was used before")
		s.failed(r, t, p.User, storage.AuditSignIn, "wrong code for the second factor", failedCode)
	}
	s.showFactor(w, r, t, p)
}

// checkCode reports whether a code is right. If it is, the session is there, and the reply is written.
func (s *Server) checkCode(w http.ResponseWriter, r *http.Request, t turn, p proof, code, recovery string) (
	right bool, err error) {
	if len(code) > maxCodeText || len(recovery) > maxCodeText {
		return false, nil
	}
	err = storage.Again(4, func() (again bool, err error) {
		a, err := s.accountOf(r.Context(), p)
		if err != nil {
			return false, err
		}
		leaves := a.Factors.Clone()
		if recovery != "" {
			leaves.Recovery, right = factor.CheckRecovery(leaves.Recovery, recovery, s.now())
			p.with = "recovery code"
		} else {
			leaves.TOTP, right = factor.CheckTOTP(leaves.TOTP, code, s.now())
		}
		if !right {
			return false, nil
		}
		err = s.finishProof(w, r, t, p, []string{oauth.AMROTP}, &leaves, storage.Once{})
		if errors.Is(err, storage.ErrConflict) {
			right = false
			return true, nil
		}
		return false, err
	})
	return right, err
}

// codeGuess is the guess that a code is.
func (s *Server) codeGuess(r *http.Request, p proof) guess {
	g := guess{user: p.User, account: "factor " + p.User, from: networkOf(s.addressOf(r)), most: mostCodes, known: true}
	if b := s.known(r); b.proved(hashOf(p.User)) || b.proved(p.Known) {
		g.account = "browser " + b.ID + " of " + g.account
	}
	return g
}

// countCode counts a guess, unless there were too many.
func (s *Server) countCode(ctx context.Context, g guess) (no refusedGuess, err error) {
	if no = s.guesses.begin(g); no.refused() {
		return no, nil
	}
	return s.guesses.count(ctx, g)
}
