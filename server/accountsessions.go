package server

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Where somebody is signed in, and to which apps. Ending a session asks for no recent sign-in: somebody who has lost a
// device is to be quick.

const pathSessions = pathAccount + "/sessions"

// fieldSession is which session a form ends, by its public name.
const fieldSession = "session"

func (s *Server) sessionsPage(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	all, err := s.sessionsOf(r.Context(), v)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Sessions{AccountFrame: s.accountFrame(w, r, v, ""), SignOut: s.base + pathLogout}
	for _, session := range all {
		shown := pages.Session{ID: session.SID, Agent: session.Agent, Address: session.Address, Since: v.at(session.Since),
			SignedIn: v.at(session.AuthTime), Here: session.SID == v.session.SID}
		for _, id := range session.Clients {
			shown.Apps = append(shown.Apps, s.clientName(r.Context(), id))
		}
		page.Sessions = append(page.Sessions, shown)
	}
	s.render(w, r, http.StatusOK, page)
}

// sessionsOf are all sessions of a visitor: the one of this browser first, then by when they signed in last.
func (s *Server) sessionsOf(ctx context.Context, v *visitor) (all []storage.SessionView, err error) {
	for p := (storage.Part{}); ; {
		some, next, err := s.store.Sessions(ctx, v.user().ID, p)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if p.After = next; next == "" {
			break
		}
	}
	slices.SortStableFunc(all, func(a, b storage.SessionView) int {
		switch {
		case a.SID == v.session.SID:
			return -1
		case b.SID == v.session.SID:
			return 1
		}
		return b.AuthTime.Compare(a.AuthTime)
	})
	return all, nil
}

// clientName is how an app calls itself, or its id when it is gone or cannot be read now.
func (s *Server) clientName(ctx context.Context, id string) string {
	c, err := s.clients.Client(ctx, id)
	if err != nil || c.ClientName == "" {
		return shownClient(id, maxShownClient)
	}
	return c.ClientName
}

// sessions ends one session of a visitor, or all but the one of this browser.
func (s *Server) sessions(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	all, err := s.sessionsOf(r.Context(), v)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	notice, sid := pages.NoticeSession, r.PostForm.Get(fieldSession)
	others := r.PostForm.Get(pages.FieldDecision) == pages.DecisionAll
	if others {
		notice = pages.NoticeSessions
	}
	for _, session := range all {
		if session.SID == v.session.SID || !others && session.SID != sid {
			continue
		}
		why := s.ownEntry(r, v, "", "")
		why.Reason = "the user ended it in their account"
		if _, err := s.store.RevokeSession(r.Context(), session.SID, why); err != nil &&
			!errors.Is(err, storage.ErrNotFound) {
			s.refuse(w, r, err)
			return
		}
		s.wakeSender()
	}
	s.changedAt(w, pathSessions, notice)
}
