package server

import (
	"cmp"
	"net/http"

	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// A user's own password: who has signed in a moment ago sets another one. Everything that was begun with the one before
// ends with it, in the same transaction, and the browser goes on with a session of its own.

const (
	pathPassword = pathAccount + "/password"
	// pathChangePassword is where password managers look for it
	// (https://w3c.github.io/webappsec-change-password-url/), at the root of the host.
	pathChangePassword = "/.well-known/change-password"
)

func (s *Server) changePassword(w http.ResponseWriter, _ *http.Request) {
	redirect(w, s.endpoint(pathPassword))
}

func (s *Server) passwordPage(w http.ResponseWriter, r *http.Request) {
	if v, ok := s.recent(w, r); ok {
		s.showPassword(w, r, v, pages.PasswordFine)
	}
}

func (s *Server) showPassword(w http.ResponseWriter, r *http.Request, v *visitor, problem pages.PasswordProblem) {
	u := v.user()
	page := pages.Password{AccountFrame: s.accountFrame(w, r, v, ""), Problem: problem, Login: cmp.Or(u.Username, u.Email),
		Own: u.Managed, Since: v.at(v.account.Factors.Password.At)}
	if problem == pages.PasswordBusy {
		page.RetryAfter = busyRetry
	}
	if u.Connector != storage.ManagedConnector {
		page.By = s.wayName(u.Connector)
	}
	s.render(w, r, problem.Status(), page)
}

// wayName is how the pages call a connector.
func (s *Server) wayName(id string) string {
	if way, is := s.ways.find(id); is {
		return cmp.Or(way.Name, id)
	}
	return id
}

func (s *Server) password(w http.ResponseWriter, r *http.Request) {
	v, ok := s.recent(w, r)
	if !ok {
		return
	}
	if !v.user().Managed {
		redirect(w, s.endpoint(pathPassword))
		return
	}
	hash, problem, err := s.newPassword(r, v.user())
	switch {
	case err != nil:
		s.refuse(w, r, err)
		return
	case problem != pages.PasswordFine:
		s.showPassword(w, r, v, problem)
		return
	}
	now := s.now().UTC()
	var id string
	err = s.changeFactors(r.Context(), v, func(f *storage.Factors) error {
		if !v.user().Stands(v.session.Term) { // somebody else was faster, and has ended this session
			return storage.ErrNotFound
		}
		f.Password = storage.Password{Hash: hash, At: now}
		session := *v.session
		session.ExpiresAt = now.Add(s.life.Session)
		var err error
		_, id, err = s.store.ChangeFactors(r.Context(), v.account, storage.FactorChange{Next: *f,
			Ends: "the user has changed the password", Session: session,
			Audit: []storage.AuditEntry{s.ownEntry(r, v, storage.AuditPasswordSet, "in the account")}})
		return err
	})
	if err == nil {
		err = s.setSession(w, sessionRef{ID: id, User: v.user().ID})
	}
	if err != nil {
		s.notChanged(w, r, err)
		return
	}
	s.wakeSender()
	s.notify(r, v.user(), mail.PasswordChanged, "")
	s.changed(w, r, v, pages.NoticePassword)
}
