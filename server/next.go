package server

import (
	"slices"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// step is what an authorization request needs next.
type step int

const (
	stepSignIn  step = iota // the user has to sign in
	stepConsent             // the user has to allow what is new
	stepDone                // the client gets its code
	stepRefuse              // the client gets an error: it allows no question (prompt=none), or asked for another user
)

// decision is a step, with the scopes to ask for or the error to give.
type decision struct {
	step    step
	fresh   []string     // stepConsent: what was not allowed before
	refused *oauth.Error // stepRefuse
}

// next is the one place that decides how an authorization request goes on (OpenID Connect Core 1.0 section 3.1.2.3 and
// 3.1.2.4). It looks at nothing but its arguments; allowed says that the user has just allowed this very request.
func next(a *AuthRequest, p storage.Presence, allowed bool, now time.Time) decision {
	const asked = "the user would have to be asked, but prompt is none"
	if !signedIn(a, p, now) {
		if a.prompts("none") {
			return decision{step: stepRefuse, refused: oauth.Refuse(oauth.CodeLoginRequired, oauth.RuleSignInNeeded, asked)}
		}
		return decision{step: stepSignIn}
	}
	if a.Users != nil && !slices.Contains(a.Users, p.User.ID) {
		// The user signed in for this very request, and is still not the one whom it asks for.
		if a.prompts("none") || !p.Session.AuthTime.Before(a.started()) {
			return decision{step: stepRefuse, refused: oauth.Refuse(oauth.CodeLoginRequired, oauth.RuleOtherUser,
				"the user who is signed in is not the one whom the request names")}
		}
		return decision{step: stepSignIn}
	}
	fresh := a.asks()
	if p.Consent != nil {
		fresh = oauth.Without(fresh, p.Consent.Scopes)
	}
	if (len(fresh) > 0 || a.prompts("consent")) && !allowed {
		if a.prompts("none") {
			return decision{step: stepRefuse, refused: oauth.Refuse(oauth.CodeConsentRequired, oauth.RuleConsentNeeded, asked)}
		}
		return decision{step: stepConsent, fresh: fresh}
	}
	return decision{step: stepDone}
}

// signedIn reports whether the session is good enough for the request. A sign-in since the request began always is:
// max_age is about sign-ins before it, and a user who reads the consent page for a long time is not asked again.
func signedIn(a *AuthRequest, p storage.Presence, now time.Time) bool {
	if p.Session == nil || !p.User.Active() {
		return false
	}
	if !p.Session.AuthTime.Before(a.started()) {
		return true
	}
	if a.prompts("login") || a.prompts("select_account") {
		return false
	}
	return a.MaxAge == nil || now.Sub(p.Session.AuthTime) <= time.Duration(*a.MaxAge)*time.Second
}
