package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// maxPassword is in bytes; what is longer is wrong.
const maxPassword = 1024

// busyRetry is when somebody for whom there was no room should try again.
const busyRetry = 5 * time.Second

// signIn takes the sign-in form.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	t, err := s.form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.PostForm.Get(pages.FieldCancel) != "" && t.request.fromApp() {
		s.refuse(w, r, toClient(t.client, t.request.replyTo(), oauth.Refuse(oauth.CodeAccessDenied, oauth.RuleSignInCancelled,
			"the user chose not to sign in")))
		return
	}
	way, is := s.wayOf(t, cmp.Or(r.PathValue("id"), connector.StaticName))
	if !is || way.Password == nil {
		s.showSignIn(w, r, t)
		return
	}
	t.way = way
	login, password := r.PostForm.Get(pages.FieldLogin), r.PostForm.Get(pages.FieldPassword)
	t.login = oauth.Cut(login, maxHint)
	if len(login) > maxHint || len(password) > maxPassword {
		t.problem = pages.ProblemCredentials
		s.recordSlip(r, oauth.RuleSignInWrong, "nobody has such a name or password")
		s.showSignIn(w, r, t)
		return
	}
	if r.Header.Get("X-Forwarded-For") != "" && !s.trust(addressIn(r.RemoteAddr)) {
		s.warned.Do(func() {
			s.log.WarnContext(r.Context(), "sign-ins come through a proxy that is not among web.trustedProxies: its users "+
				"count as one address",
				"proxy", shownAddress(addressIn(r.RemoteAddr)))
		})
	}
	if finder, has := way.Password.(connector.Finder); has {
		if way.Password, err = finder.Find(r.Context(), login); err != nil {
			s.notSignedIn(w, r, t, err)
			return
		}
	}
	g := s.guessOf(r, way, login)
	who, no, err := s.checkPassword(r.Context(), way, g, login, password)
	switch {
	case err != nil:
		s.notSignedIn(w, r, t, err)
		return
	case no.crowded:
		s.countSignIn(way, countedBusy)
		t.problem, t.retry = pages.ProblemBusy, busyRetry
		s.recordSlip(r, oauth.RuleSignInBusy, "more passwords are checked at this moment than the server takes")
	case no.locked:
		s.countSignIn(way, countedLocked)
		t.problem, t.retry = pages.ProblemTooMany, no.until.Sub(s.now())
		s.recordSlip(r, oauth.RuleSignInLocked, "too many guesses")
		if no.first {
			s.signInLocked(r, t, g, no)
		}
	case who.UserID == "":
		s.countSignIn(way, countedRefused)
		t.problem = pages.ProblemCredentials
		s.recordSlip(r, oauth.RuleSignInWrong, "the name or the password is wrong")
		s.signInFailed(r, t, g, "wrong password", failedPassword)
	}
	if t.problem != pages.ProblemNone {
		s.showSignIn(w, r, t)
		return
	}
	if came, err := s.arrive(w, r, t, who, g.knownBy()); err != nil {
		s.notSignedIn(w, r, t, err)
		return
	} else if came == turnedAway {
		s.countSignIn(way, countedRefused)
		t.problem = pages.ProblemCredentials
		s.recordSlip(r, oauth.RuleSignInWrong, "the account does not allow it")
		s.signInFailed(r, t, g, "the user is disabled, or the password has changed", failedAccount)
		s.showSignIn(w, r, t)
		return
	}
	if err := s.guesses.forgive(r.Context(), g); err != nil {
		s.log.WarnContext(r.Context(), "the count of password guesses cannot be reset", "error", err)
	}
	s.goOnSignedIn(w, r, t)
}

// guessOf is the guess that a sign-in is.
func (s *Server) guessOf(r *http.Request, way connector.Connector, login string) guess {
	g := guess{account: way.Password.Account(login), from: networkOf(s.addressOf(r))}
	if way.ID != connector.StaticName {
		g.account = "connector " + way.ID + " " + g.account
	}
	g.user, _ = way.Password.User(login)
	if b := s.known(r); b.knows(g.knownBy()) {
		g.known, g.account = true, "browser "+b.ID+" of "+g.knownBy()
	}
	return g
}

// checkPassword checks a password, unless there were too many guesses, or too many are checked at this moment. Nobody
// has it when the identity is empty.
func (s *Server) checkPassword(ctx context.Context, way connector.Connector, g guess, login,
	password string) (who connector.Identity, no refusedGuess, err error) {
	if no = s.guesses.begin(g); no.refused() {
		return who, no, nil
	}
	right, checked := false, false
	defer func() { s.guesses.end(g, right, checked && !right) }()
	if way.ID == connector.StaticName { // others wait for somebody else, and must not fill the queue meanwhile
		leave, err := s.queue.enter(ctx, g.from)
		if errors.Is(err, errQueueFull) {
			return who, refusedGuess{crowded: true}, nil
		}
		if err != nil {
			return who, no, fmt.Errorf("wait for a password check: %w", err)
		}
		defer leave()
	}
	if no, err = s.guesses.count(ctx, g); err != nil || no.refused() {
		return who, no, err
	}
	who, right, err = loginBy(ctx, way, login, password)
	checked = err == nil
	if !right {
		who = connector.Identity{}
	}
	return who, no, err
}

// signInFailed tells of a sign-in that failed, and why, or of a name that nobody has.
func (s *Server) signInFailed(r *http.Request, t turn, g guess, why, what string) {
	if g.user == "" {
		why = "no user has this name"
		if t.way.ID != connector.StaticName {
			why = "connector " + t.way.ID + ": nobody has this name and password"
		}
		s.journal.stranger(r.Context(), s.addressOf(r), t.client.ID, why)
		return
	}
	s.failed(r, t, g.user, storage.AuditSignIn, why, what)
}

// Words for what was wrong with a sign-in, in the histories of users.
const (
	failedPassword = "password"
	failedCode     = "code"
	failedPasskey  = "passkey"
	failedLocked   = "locked" // too many guesses, so that no more are taken for a while
	failedAccount  = "account"
)

// failed tells the operator of a sign-in that failed, and why, and the user whose account it was about what was wrong.
// Nobody's it is when user is empty.
func (s *Server) failed(r *http.Request, t turn, user, action, why, what string) {
	from := s.addressOf(r)
	e := storage.AuditEntry{Actor: storage.ActorStranger, Action: action, Outcome: storage.OutcomeRefused, Reason: why,
		App: t.client.App, Client: t.client.ID, Address: shownAddress(from)}
	if user != "" {
		e.Actor = storage.UserActor(user)
	}
	s.journal.failed(r.Context(), e, from, failedSignIn{user, storage.SignIn{At: s.now().UTC().Truncate(time.Second),
		Address: e.Address, Agent: agentOf(r), Failed: what}})
}

// signInLocked tells of a lock.
func (s *Server) signInLocked(r *http.Request, t turn, g guess, no refusedGuess) {
	user, why := "", ""
	switch {
	case no.address:
		why = "too many names were tried from this address"
	case g.user == "" && t.way.ID != connector.StaticName:
		why = "too many guesses at a name of connector " + t.way.ID
	case g.user == "":
		why = "too many guesses at a name that no user has"
	default:
		user, why = g.user, "too many guesses at this name"
	}
	s.failed(r, t, user, storage.AuditSignInLocked, why, failedLocked)
}

// showSignIn shows the ways to sign in, or goes the one that needs no choice.
func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request, t turn) {
	ways := s.waysTo(t.client)
	if way, is := s.straight(t, ways); is {
		s.goBy(w, r, t, way)
		return
	}
	s.signInPage(w, r, t, ways)
}

func (s *Server) signInPage(w http.ResponseWriter, r *http.Request, t turn, ways []way) {
	hidden, err := s.hidden(t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	form := formOf(t, ways)
	page := pages.SignIn{
		Frame: s.frame(r, t), App: shownApp(t), Action: s.base + pathSignIn, Hidden: hidden, NoForm: form.Password == nil,
		Login: cmp.Or(t.login, t.request.LoginHint), Prompt: form.Prompt, Problem: t.problem, By: t.way.Name,
		RetryAfter: t.retry, CanCancel: t.request.fromApp(),
	}
	if form.ID == connector.StaticName {
		if s.resets() {
			page.Forgot = s.base + pathForgot + "?" + url.Values{fieldRequest: {t.sealed}}.Encode()
		}
		if page.Passkey, err = s.signInPasskey(t, hidden); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	if form.Password != nil && form.ID != connector.StaticName {
		page.With, page.Action = form.Name, s.base+pathSignIn+"/"+form.ID
		page.English, page.Japanese = s.connectURL(form, t, "en"), s.connectURL(form, t, "ja")
	}
	for _, way := range ways {
		if way.ID == form.ID {
			continue
		}
		shown := pages.Way{Name: way.Name, Logo: way.logo, Address: s.connectURL(way.Connector, t, "")}
		if way.ID == connector.StaticName {
			shown.Name = ""
		}
		page.Ways = append(page.Ways, shown)
	}
	if len(ways) == 0 {
		page.Problem = pages.ProblemNoWay
	}
	s.render(w, r, page.Problem.Status(), page)
}
