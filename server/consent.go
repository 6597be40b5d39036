package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/text/language"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// consent takes the consent form.
func (s *Server) consent(w http.ResponseWriter, r *http.Request) {
	t, err := s.form(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ref, ok := s.session(r)
	decision := r.PostForm.Get(pages.FieldDecision)
	if decision == pages.DecisionAllow && t.late { // whoever answers now may have been shown it to by somebody else
		s.advance(w, r, t)
		return
	}
	if t.request.Device != nil && (decision == pages.DecisionAllow || decision == pages.DecisionDeny) {
		s.decideDevice(w, r, t, decision)
		return
	}
	switch decision {
	case pages.DecisionDeny:
		if ok && r.PostForm.Get(fieldUser) == hashOf(ref.User) {
			s.journal.did(r.Context(), s.decided(r, t, ref.User, storage.AuditConsentDenied))
		}
		s.refuse(w, r, toClient(t.client, t.request.replyTo(), oauth.Refuse(oauth.CodeAccessDenied, oauth.RuleUserDenied,
			"the user denied the request")))
	case pages.DecisionSwitch:
		if ok {
			if _, err := s.endSession(r.Context(), ref, "the user switched accounts"); err != nil {
				s.refuse(w, r, err)
				return
			}
		}
		s.setCookie(w, cookieSession, "", -1)
		if err := s.change(&t, func(a *AuthRequest) { a.Choose, a.Other = true, true }); err != nil {
			s.refuse(w, r, err)
			return
		}
		s.backTo(w, r, t)
	case pages.DecisionBack:
		if !t.request.fromApp() {
			s.advance(w, r, t)
			return
		}
		s.refuse(w, r, toClient(t.client, t.request.replyTo(), notAdmitted(oauth.CodeAccessDenied, t.client, nil)))
	case pages.DecisionAllow:
		// Another user may have signed in since, in another tab, and the client may have changed.
		if !ok || !shownTo(r, t, ref.User) {
			s.advance(w, r, t)
			return
		}
		s.allow(w, r, t, ref)
	default:
		s.refuse(w, r, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleParameterValue,
			"the form says neither allow nor deny")))
	}
}

// A form that asks for consent says to whom it was shown, and what: hashes of the user's id, and of all that the user
// was asked for.
const (
	fieldUser  = "user"
	fieldShown = "shown"
)

// askedOf is what a request of c asks a user to allow.
func askedOf(c *storage.Client, a *AuthRequest) storage.Asked {
	return storage.Asked{
		Name: c.ClientName, Host: oauth.RedirectHost(a.RedirectURI), Resources: distinct(a.Resources), Scopes: a.asks(),
	}
}

// shownBy are the hidden fields of a form that asks a user for consent.
func (t turn) shownBy(userID string) []pages.Field {
	asked, _ := plainJSON(askedOf(t.client, t.request)) // texts and lists of them
	return []pages.Field{{Name: fieldUser, Value: hashOf(userID)}, {Name: fieldShown, Value: hashOf(string(asked))}}
}

// shownTo reports whether the form that was sent is one that asked this user for what the request asks for now.
func shownTo(r *http.Request, t turn, userID string) bool {
	return !slices.ContainsFunc(t.shownBy(userID), func(f pages.Field) bool { return r.PostForm.Get(f.Name) != f.Value })
}

// presence is who is there at a browser, and what they have allowed the client. A consent that an older version stored
// does not say which host and name its page showed. For a client that an operator answers for, it is taken for a
// consent to the host and name with which it is first met, and from then on to no others; a resource was never shown,
// so it is asked for. For any other client it counts as none.
func (s *Server) presence(ctx context.Context, ref sessionRef, t turn) (p storage.Presence, err error) {
	err = storage.Again(8, func() (again bool, err error) {
		p, err = s.store.Presence(ctx, ref.ID, ref.User, t.client.ID)
		if err != nil || p.Session == nil || t.request.Device != nil || !p.Consent.Bare() || !clients.Vouched(t.client) {
			return false, err
		}
		asked := askedOf(t.client, t.request)
		p.Consent, err = s.store.AdoptConsent(ctx, *p.Consent, asked.Name, asked.Host)
		if errors.Is(err, storage.ErrConflict) {
			return true, nil
		}
		return false, err
	})
	return p, err
}

// allow remembers what the user allowed, provided that the session still stands, and answers.
func (s *Server) allow(w http.ResponseWriter, r *http.Request, t turn, ref sessionRef) {
	p, err := s.presence(r.Context(), ref, t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	t.allowed = true
	if s.next(t, p).step != stepDone {
		t.allowed = false
		s.advance(w, r, t)
		return
	}
	if asked := askedOf(t.client, t.request); !p.Consent.Covers(asked) {
		err := s.store.AddConsent(r.Context(), t.client.ID, p, asked)
		if errors.Is(err, storage.ErrWithdrawn) { // at this moment: the user is asked again
			t.allowed = false
			s.advance(w, r, t)
			return
		}
		if err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	s.journal.did(r.Context(), s.decided(r, t, ref.User, storage.AuditConsentGiven))
	s.answer(w, r, t, p)
}

// decided is the entry of the audit log for what a user decided about a request.
func (s *Server) decided(r *http.Request, t turn, userID, action string) storage.AuditEntry {
	return storage.AuditEntry{Actor: storage.UserActor(userID), Action: action, App: t.client.App, Client: t.client.ID,
		Address: shownAddress(s.addressOf(r)), Detail: oauth.JoinScopes(t.request.asks())}
}

func (s *Server) showConsent(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence, fresh []string) {
	hidden, err := s.hidden(t, t.shownBy(p.User.ID)...)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Consent{
		Frame: s.frame(r, t), App: shownApp(t), Action: s.base + pathConsent, Hidden: hidden,
		Person: shownPerson(p.User), Resources: s.shownResources(t.request.Resources),
		UnusedFor: s.life.RefreshIdle, AtMost: s.life.RefreshAbsolute, Late: t.late, Account: s.base + pathApps,
	}
	if t.client.IsBehindForwardAuth(oauth.ForwardHost(t.request.RedirectURI)) {
		page.InSession, page.UnusedFor, page.AtMost = true, 0, p.Session.ExpiresAt.Sub(s.now())
	}
	page.New = s.describe(t.client, fresh, p.User, page.Lang)
	page.Granted = s.describe(t.client, oauth.Without(t.request.asks(), fresh), p.User, page.Lang)
	s.render(w, r, http.StatusOK, page)
}

// trusts reports whether users of a client need not be asked for consent: its manifest says so, and an operator has
// given their word for that, for the app as a whole or for what the client is (see package manifests).
func (s *Server) trusts(c *storage.Client) bool {
	return c.Consent == oauth.ConsentSkip && c.App != "" && (c.Trusted || slices.Contains(s.cfg.Trusted, c.App))
}

// consentWaived reports whether the word for a trusted client covers a request. It does not cover resource servers that
// the client's manifest does not name, and no peers: a token for these is a user's to give.
func consentWaived(c *storage.Client, a *AuthRequest) bool {
	if slices.ContainsFunc(a.Scopes, func(scope string) bool { return strings.HasPrefix(scope, oauth.PeerScope) }) {
		return false
	}
	named := slices.Concat(c.Resources(), c.TokenExchangeAudiences)
	return a.Device == nil && !slices.ContainsFunc(a.Resources, func(resource string) bool {
		_, found := oauth.FindResource(named, resource)
		return !found
	})
}

// describe puts scopes into words for a user. Those that tell who the user is share one line, which names what is known
// of them; when nothing is, each is described as for everybody.
func (k *catalogue) describe(c *storage.Client, names []string, u *storage.User, lang language.Tag) []pages.Scope {
	var out []pages.Scope
	telling := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !k.identifies(name) })
	known := k.knownOf(c, u, telling)
	for _, name := range names {
		if len(known) > 0 && slices.Contains(telling, name) {
			if name == telling[0] {
				out = append(out, pages.Scope{Name: oauth.JoinScopes(telling), Risk: pages.RiskLow, Known: known,
					Confirms: slices.Contains(telling, oauth.ScopeOpenID)})
			}
			continue
		}
		if peer := k.peer(c, name); peer != nil {
			out = append(out, pages.Scope{Name: name, Peer: peer.ClientName, Risk: pages.RiskBroad})
			continue
		}
		scope := k.scopes[name]
		text := scope.Description[lang.String()]
		if text == "" {
			text = scope.Description["en"]
		}
		if text == "" {
			text = name
		}
		out = append(out, pages.Scope{Name: name, Description: text, Risk: pages.Risk(scope.Risk)})
	}
	return out
}
