package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Who may use a client (spec.oauth.access) is asked wherever something is begun or goes on for a user: before consent
// is asked for (next.go), in each grant (decide in clientauth.go), when a token is exchanged, and when an access token
// is shown at userinfo or introspected, where the user is read anyway. The front page names no app to those who may not
// use it (landing.go).
//
// A code and a refresh token carry the digest of the rule under which the user was admitted, and their transaction
// compares that the user has not changed since. So neither reads the user, unless the rule has changed.

// personOf is what a rule about access looks at.
func personOf(u *storage.User) oauth.Person {
	return oauth.Person{Connector: u.Connector, Groups: u.GroupNames(), Email: u.Email, EmailVerified: u.EmailVerified}
}

// admits reports whether a user may use a client.
func admits(c *storage.Client, u *storage.User) bool { return !c.Restricted() || c.Admits(personOf(u)) }

// errNotAdmitted is a verdict about a token: its user may no longer use its client.
var errNotAdmitted = fmt.Errorf("the user may not use the client: %w", storage.ErrNotFound)

// errNotAssured is a verdict about a token: its user has not proven as surely as its client demands now who they are.
var errNotAssured = fmt.Errorf("a second factor is demanded: %w", storage.ErrNotFound)

// mayUse reports whether the user of an access token may use it through c: an error that is a verdict, if not.
func (s *Server) mayUse(c *storage.Client, u *storage.User, token accessClaims) error {
	switch {
	case !admits(c, u):
		return errNotAdmitted
	case !s.assuredOf(u, c, token.ACR, token.AMR):
		return errNotAssured
	}
	return nil
}

// notAdmitted refuses a user who may not use a client. What is known of them is for the operator alone; nil is somebody
// of whom the operator was told before.
func notAdmitted(code string, c *storage.Client, u *storage.User) *oauth.Error {
	refused := oauth.Refuse(code, oauth.RuleUserNotAdmitted, "the user may not use this app").
		About("", "", whereOf(c, "access", ""))
	if u == nil {
		return refused
	}
	p := personOf(u)
	known := []string{"connector " + p.Connector}
	if len(p.Groups) > 0 {
		known = append(known, "groups "+strings.Join(p.Groups, ", "))
	} else {
		known = append(known, "no groups")
	}
	if p.Email != "" {
		verified := ""
		if !p.EmailVerified {
			verified = " (not verified)"
		}
		known = append(known, p.Email+verified)
	}
	nearest := ""
	for _, group := range p.Groups {
		if nearest = oauth.Nearest(group, c.AccessGroups); nearest != "" {
			break
		}
	}
	return refused.About(oauth.Cut(strings.Join(known, "; "), maxShownURI), nearest, refused.Where)
}

// ruleDigest tells apart the rules about c for which a user has to be looked at. It is empty without any.
func (s *Server) ruleDigest(c *storage.Client) string {
	return s.cfg.Demands.digest() + c.AccessDigest()
}

// stillAdmitted reports whether a user may still use c, as of an approval, and has proven surely enough who they are.
// The user is read only if the rule has changed since, and then returned: known is the one that was read before.
func (s *Server) stillAdmitted(ctx context.Context, c *storage.Client, allowed approval,
	known *storage.User) (*storage.User, error) {
	if allowed.User == "" {
		return known, nil
	}
	if !s.assured(c, allowed.Class, allowed.AMR) {
		return nil, factorNeeded(oauth.CodeInvalidGrant, c, allowed.Class, allowed.AMR)
	}
	if known == nil {
		if rule := s.ruleDigest(c); rule == "" || rule == allowed.Access {
			return nil, nil
		}
		var err error
		known, err = s.store.User(ctx, allowed.User)
		switch {
		case err != nil && !errors.Is(err, storage.ErrNotFound):
			return nil, fmt.Errorf("read user: %w", err)
		case !known.Active():
			return nil, userInactive()
		case !known.Stands(allowed.UserTerm):
			return nil, userEnded()
		}
	}
	switch {
	case !admits(c, known):
		return nil, notAdmitted(oauth.CodeInvalidGrant, c, known)
	case !s.assuredOf(known, c, allowed.Class, allowed.AMR):
		return nil, factorNeeded(oauth.CodeInvalidGrant, c, allowed.Class, allowed.AMR)
	}
	return known, nil
}

func userInactive() *oauth.Error {
	return invalidGrant(oauth.RuleUserInactive, "the user's account was disabled or removed")
}

func userEnded() *oauth.Error {
	return invalidGrant(oauth.RuleUserEnded, "everything that was issued for the user before has ended")
}

// showNoAccess tells the user that they may not use the client, or the peer that it asks for. The client is told when
// they go back there.
func (s *Server) showNoAccess(w http.ResponseWriter, r *http.Request, t turn, u *storage.User, d decision) {
	hidden, err := s.hidden(t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	v := visitOf(r.Context())
	s.logRefusal(r, v, d.refused)
	s.record(r, v, d.refused)
	entry := s.decided(r, t, u.ID, storage.AuditAccessRefused)
	entry.Outcome = storage.OutcomeRefused
	s.journal.did(r.Context(), entry)
	page := pages.NoAccess{
		Frame: s.frame(r, t), App: shownApp(t), Action: s.base + pathConsent, Hidden: hidden,
		Person: shownPerson(u), CanGoBack: t.request.fromApp(), RequestID: v.id[0],
	}
	if d.closed != t.client {
		page.Closed = d.closed.ClientName
	}
	s.render(w, r, http.StatusForbidden, page)
}
