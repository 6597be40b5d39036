package server

import (
	"errors"
	"net/http"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Guesses of passwords: at most so many for an account in each window of time. A lock ends with its window.
const (
	mostGuesses = 10
	guessWindow = 15 * time.Minute
)

// signIn takes the sign-in form.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	t, err := s.form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.PostForm.Get(pages.FieldCancel) != "" && t.request.Device == nil {
		s.refuse(w, r, &redirectError{t.request.to(), oauth.Refuse(oauth.CodeAccessDenied, oauth.RuleSignInCancelled, "the user chose not to sign in")})
		return
	}
	login, password := r.PostForm.Get(pages.FieldLogin), r.PostForm.Get(pages.FieldPassword)
	t.login = cut(login, maxHint)
	if s.cfg.Passwords == nil || len(login) > maxHint || len(password) > 1024 {
		t.problem = pages.ProblemCredentials
		s.showSignIn(w, r, t)
		return
	}
	// The guess is counted before it is checked, so guesses in parallel gain nothing.
	account := s.cfg.Passwords.Account(login)
	free, retry, err := s.store.TakeGuess(r.Context(), account, mostGuesses, guessWindow)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if !free {
		t.problem, t.retry = pages.ProblemTooMany, retry.Sub(s.now())
		s.showSignIn(w, r, t)
		return
	}
	who, right, err := s.cfg.Passwords.Login(r.Context(), login, password)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if right {
		right, err = s.begin(w, r, who)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	if !right {
		s.log.InfoContext(r.Context(), "sign-in failed", "client", t.client.ID)
		t.problem = pages.ProblemCredentials
		s.showSignIn(w, r, t)
		return
	}
	if err := s.store.ForgiveGuesses(r.Context(), account, guessWindow); err != nil {
		s.log.WarnContext(r.Context(), "the count of password guesses cannot be reset", "error", err)
	}
	s.backTo(w, r, t)
}

// begin starts a session under a new id, in the place of the one that the browser had: that of the same user goes on, that of
// another ends. False: the account is disabled.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, who connector.Identity) (bool, error) {
	u, err := s.store.User(r.Context(), who.UserID)
	if errors.Is(err, storage.ErrNotFound) || (err == nil && !u.Active()) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	old, _ := s.session(r)
	now := s.now().UTC()
	id, err := s.store.CreateSession(r.Context(), storage.Session{
		UserID: u.ID, AuthTime: now, AMR: []string{"pwd"}, ExpiresAt: now.Add(s.life.Session)}, old.ID)
	if err != nil {
		return false, err
	}
	if old.ID != "" {
		s.wakeSender() // another user's session may have ended
	}
	return true, s.setSession(w, sessionRef{ID: id, User: u.ID})
}

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request, t turn) {
	hidden, err := s.hidden(t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.SignIn{
		Frame: s.frame(r, t), App: shownApp(t), Action: s.base + pathSignIn, Hidden: hidden,
		Login: t.request.LoginHint, Problem: t.problem, RetryAfter: t.retry, CanCancel: t.request.Device == nil,
	}
	if t.login != "" {
		page.Login = t.login
	}
	status := http.StatusOK
	switch t.problem {
	case pages.ProblemCredentials:
		status = http.StatusUnprocessableEntity
	case pages.ProblemTooMany:
		status = http.StatusTooManyRequests
	}
	s.pages.Render(w, status, page)
}
