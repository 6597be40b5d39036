package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// openLink reads a link and the account to which it leads. Everything that is wrong with it is [storage.ErrNotFound]:
// it was never one, its time is over, it was used, or something happened since to the account that it is for.
func (s *Server) openLink(ctx context.Context, sealed string) (l link, a *storage.Account, err error) {
	if err := s.open(storage.SealLink, sealed, &l); err != nil {
		return l, nil, err
	}
	if s.now().UnixMilli() >= l.Expires {
		return l, nil, storage.ErrNotFound
	}
	if a, err = s.store.Account(ctx, l.User); err != nil {
		return l, nil, err
	}
	if !a.User.Managed || !a.User.Stands(l.Term) || a.Factors.Revision != l.Factors || emailMark(a.User) != l.Email {
		return l, nil, storage.ErrNotFound
	}
	return l, a, nil
}

// welcome shows the page to which a link leads. It spends nothing.
func (s *Server) welcome(w http.ResponseWriter, r *http.Request) {
	s.keepLang(w, r)
	sealed := r.URL.Query().Get(fieldLink)
	l, a, err := s.openLink(r.Context(), sealed)
	if err != nil {
		s.noLink(w, r, err)
		return
	}
	s.showWelcome(w, r, welcoming{sealed, l, a}, pages.PasswordFine)
}

// welcoming is somebody who is at the page of a link.
type welcoming struct {
	sealed  string
	link    link
	account *storage.Account
}

// canPasskey reports whether they may go without a password. Whoever has more is asked for it after the password.
func (s *Server) canPasskey(f storage.Factors) bool {
	return s.passkeys != nil && len(f.TOTP.Secret) == 0 && len(f.Passkeys) == 0
}

func (s *Server) showWelcome(w http.ResponseWriter, r *http.Request, g welcoming, problem pages.PasswordProblem) {
	token, err := s.formToken(s.browser(w, r), g.sealed)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	u, action := g.account.User, s.base+pathWelcome
	query := url.Values{fieldLink: {g.sealed}}.Encode()
	page := pages.Welcome{
		Frame: pages.Frame{Lang: s.lang(r, ""), English: action + "?lang=en&" + query, Japanese: action +
			"?lang=ja&" + query},
		Person: shownPerson(u), Login: cmp.Or(u.Username, u.Email), Reset: g.link.Kind == LinkReset,
		Passkey: s.canPasskey(g.account.Factors), Second: asksSecond(g.account.Factors),
		Action: action, Problem: problem,
		Hidden: []pages.Field{{Name: fieldLink, Value: g.sealed}, {Name: fieldForm, Value: token}},
	}
	if problem == pages.PasswordBusy {
		page.RetryAfter = busyRetry
	}
	noStore(w)
	s.render(w, r, problem.Status(), page)
}

// takeOver takes the form of that page: it sets the password, or leads to a passkey, and begins a session. The link is
// spent by the transaction that does so.
func (s *Server) takeOver(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.refuse(w, r, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleBodyMalformed,
			"the form is not well-formed")))
		return
	}
	sealed, held := r.PostForm.Get(fieldLink), s.cookie(r, cookieBrowser)
	if held == "" || !s.checkFormToken(r.PostForm.Get(fieldForm), hashOf(held), sealed) {
		s.refuse(w, r, onPage(pages.ReasonForbidden, invalidRequest(oauth.RuleFormForeign,
			"the form is not one that this server made for this browser")))
		return
	}
	l, a, err := s.openLink(r.Context(), sealed)
	if err != nil {
		s.noLink(w, r, err)
		return
	}
	g, hash, problem := welcoming{sealed, l, a}, "", pages.PasswordFine
	if r.PostForm.Get(pages.FieldPasskey) == "" || !s.canPasskey(a.Factors) {
		hash, problem, err = s.newPassword(r, a.User)
	}
	switch {
	case err != nil:
		s.refuse(w, r, err)
	case problem != pages.PasswordFine:
		s.showWelcome(w, r, g, problem)
	default:
		s.useLink(w, r, g, hash)
	}
}

// newPassword makes the hash of a password that a form has set, or says why it is not taken.
func (s *Server) newPassword(r *http.Request, u *storage.User) (hash string, problem pages.PasswordProblem, err error) {
	password := r.PostForm.Get(pages.FieldPassword)
	leave, err := s.queue.enter(r.Context(), networkOf(s.addressOf(r)))
	if errors.Is(err, errQueueFull) {
		s.recordSlip(r, oauth.RuleSignInBusy, "more passwords are checked at this moment than the server takes")
		return "", pages.PasswordBusy, nil
	}
	if err != nil {
		return "", "", err
	}
	defer leave()
	local, _, _ := strings.Cut(u.Email, "@")
	weak := factor.Weak(password, u.Name, u.GivenName, u.FamilyName, u.Username, u.Email, local, s.address.Hostname(),
		s.siteName())
	if weak != "" {
		return "", pages.PasswordProblem(weak), nil
	}
	if password != r.PostForm.Get(pages.FieldAgain) {
		return "", pages.PasswordDiffers, nil
	}
	return factor.HashPassword(password), "", nil
}

// useLink gives the account its new password, in the transaction that spends the link; none, without a hash, for who is
// about to make a passkey. Where a second factor is asked for, a half waits for that; otherwise a session begins, which
// says of how they signed in no more than is known.
func (s *Server) useLink(w http.ResponseWriter, r *http.Request, g welcoming, hash string) {
	old, _ := s.session(r)
	now, from := s.now().UTC(), shownAddress(s.addressOf(r))
	entry := storage.AuditEntry{Actor: storage.UserActor(g.account.User.ID), Action: storage.AuditPasswordSet,
		Address: from,
		Reason:  "by a link (" + g.link.Kind + ")"}
	amr, next := []string{oauth.AMRPassword}, pathAccount
	if hash == "" {
		entry.Action, amr, next = storage.AuditSignIn, []string{}, pathPasskeys
	}
	var a *storage.Account
	id := ""
	err := storage.Again(4, func() (again bool, err error) {
		change := storage.FactorChange{Next: g.account.Factors.Clone(), Ends: "the user has come by a link",
			Audit: []storage.AuditEntry{entry}}
		if change.Next.Password = (storage.Password{}); hash != "" {
			change.Next.Password = storage.Password{Hash: hash, At: now}
		}
		if !asksSecond(change.Next) {
			change.Session = storage.Session{UserID: g.account.User.ID, AuthTime: now, AMR: amr,
				ExpiresAt: now.Add(s.life.Session), Since: now, Address: from, Agent: agentOf(r)}
		}
		if a, id, err = s.store.ChangeFactors(r.Context(), g.account, change); !errors.Is(err, storage.ErrConflict) {
			return false, err
		}
		if _, g.account, err = s.openLink(r.Context(), g.sealed); err != nil {
			return false, err
		}
		return true, nil
	})
	if err != nil {
		s.noLink(w, r, err)
		return
	}
	s.journal.line(r.Context(), entry)
	s.wakeSender()
	if hash != "" && (g.link.Kind == LinkReset || g.account.Factors.Password.Hash != "") {
		s.notify(r, a.User, mail.PasswordChanged, "")
	}
	if id == "" {
		s.askSecond(w, r, a.User)
		return
	}
	signIn := storage.SignIn{At: now, AMR: amr, Address: from, Agent: agentOf(r)}
	if err := s.store.AddSignIns(r.Context(), a.User.ID, signIn); err != nil {
		s.log.WarnContext(r.Context(), "a sign-in is missing from the user's history", "user", a.User.ID, "error", err)
	}
	if old.ID != "" && old.User != a.User.ID {
		if _, err := s.endSession(r.Context(), old, "replaced by another sign-in"); err != nil {
			s.log.WarnContext(r.Context(), "the session of another user in the same browser could not be ended", "error", err)
		}
	}
	err = s.keepKnown(w, r, hashOf(a.User.ID), false)
	if err == nil {
		err = s.setSession(w, sessionRef{ID: id, User: a.User.ID})
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	redirect(w, s.endpoint(next))
}

// askSecond goes on with somebody who has set a password, and has more to prove.
func (s *Server) askSecond(w http.ResponseWriter, r *http.Request, u *storage.User) {
	now := s.now()
	a := AuthRequest{Here: pathAccount, Started: now.UnixNano(), Browser: s.browser(w, r)}
	p := proof{User: u.ID, Term: u.Term, Way: u.Connector, Known: hashOf(u.ID), AMR: []string{oauth.AMRPassword},
		AuthTime: now.UnixNano()}
	if err := s.keepHalf(w, &a, p); err != nil {
		s.refuse(w, r, err)
		return
	}
	s.signInTo(w, r, a)
}

// noLink tells that a link does not work, or a fault.
func (s *Server) noLink(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, storage.ErrNotFound) {
		s.refuse(w, r, err)
		return
	}
	s.recordSlip(r, oauth.RuleLinkGone, "the link was used, has expired, or is not one of this server's")
	page := pages.LinkGone{Frame: pages.Frame{Lang: s.lang(r, "")}}
	if s.resets() {
		page.Forgot = s.base + pathForgot
	}
	noStore(w)
	s.render(w, r, http.StatusGone, page)
}
