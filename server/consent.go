package server

import (
	"net/http"

	"golang.org/x/text/language"

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
	if t.request.Device != nil && (decision == pages.DecisionAllow || decision == pages.DecisionDeny) {
		s.decideDevice(w, r, t, decision)
		return
	}
	switch decision {
	case pages.DecisionDeny:
		s.refuse(w, r, &redirectError{t.request.to(), oauth.Refuse(oauth.CodeAccessDenied, oauth.RuleUserDenied, "the user denied the request")})
	case pages.DecisionSwitch:
		if ok {
			if _, err := s.endSession(r.Context(), ref, "the user switched accounts"); err != nil {
				s.refuse(w, r, err)
				return
			}
		}
		s.setCookie(w, cookieSession, "", -1)
		s.backTo(w, r, t)
	case pages.DecisionAllow:
		// The form says to which user it was shown: another user may have signed in since, in another tab.
		if !ok || r.PostForm.Get(fieldUser) != hashed(ref.User) {
			s.advance(w, r, t)
			return
		}
		s.allow(w, r, t, ref)
	default:
		s.refuse(w, r, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleParameterValue, "the form says neither allow nor deny")))
	}
}

// fieldUser is the hash of the user id for whom a consent page was shown.
const fieldUser = "user"

// allow remembers what the user allowed, provided that the session still stands, and answers.
func (s *Server) allow(w http.ResponseWriter, r *http.Request, t turn, ref sessionRef) {
	p, err := s.store.Presence(r.Context(), ref.ID, ref.User, t.client.ID)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	t.allowed = true
	if next(t.request, p, true, s.now()).step != stepDone {
		t.allowed = false
		s.advance(w, r, t)
		return
	}
	if asks := t.request.asks(); !p.Consent.Covers(asks) {
		if err := s.store.AddConsent(r.Context(), t.client.ID, ref.User, asks); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	s.answer(w, r, t, p)
}

func (s *Server) showConsent(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence, fresh []string) {
	hidden, err := s.hidden(t, pages.Field{Name: fieldUser, Value: hashed(p.User.ID)})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Consent{
		Frame: s.frame(r, t), App: shownApp(t), Action: s.base + pathConsent, Hidden: hidden,
		UserName: shownName(p.User), UserEmail: p.User.Email,
		UnusedFor: s.life.RefreshIdle, AtMost: s.life.RefreshAbsolute,
	}
	page.New = s.describe(fresh, page.Lang)
	page.Granted = s.describe(oauth.Without(t.request.asks(), fresh), page.Lang)
	s.pages.Render(w, http.StatusOK, page)
}

// describe puts scopes into words.
func (k *catalogue) describe(names []string, lang language.Tag) []pages.Scope {
	var out []pages.Scope
	for _, name := range names {
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
