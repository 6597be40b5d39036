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
	stepSignIn   step = iota // the user has to sign in
	stepFactor               // the user has to prove more surely who they are, by a factor that they have
	stepEnrol                // they have none that suffices, and have to set one up
	stepConsent              // the user has to allow what is new
	stepDone                 // the client gets its code
	stepRefuse               // the client gets an error: it allows no question (prompt=none), or asked for another user
	stepNoAccess             // the user may not use the client, and is told so
)

// decision is a step, with the scopes to ask for or the error to give.
type decision struct {
	step    step
	fresh   []string     // stepConsent: what was not allowed before
	refused *oauth.Error // stepRefuse, stepNoAccess; stepFactor and stepEnrol, if the user does not want to
	// least is how surely the user has to prove who they are, of stepFactor and stepEnrol.
	least oauth.Assurance
	// closed is the client that the user may not use, of stepNoAccess.
	closed *storage.Client
}

// circumstances are what next looks at beside the request and who is there.
type circumstances struct {
	// peers are the other clients that the ID token is to be for.
	peers []*storage.Client
	// trusted: an operator has given their word for the client, see [Server.trusts].
	trusted bool
	// demands are those of the configuration.
	demands Demands
	// factors are what the user has; nil if nobody has looked, and then they are taken to have what it takes.
	factors *storage.Factors
	// passkeys: there are some here.
	passkeys bool
	// allowed: the user has just allowed this very request.
	allowed bool
	now     time.Time
}

// next is the one place that decides how an authorization request of c goes on (OpenID Connect Core 1.0 section 3.1.2.3
// and 3.1.2.4). It looks at nothing but its arguments.
func next(c *storage.Client, a *AuthRequest, p storage.Presence, by circumstances) decision {
	const silent = "the user would have to be asked, but prompt is none"
	if !signedIn(a, p, by.now) {
		if a.prompts("none") {
			return decision{step: stepRefuse, refused: oauth.Refuse(oauth.CodeLoginRequired, oauth.RuleSignInNeeded, silent)}
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
	sure := by.sureness(c, a, p)
	if sure.otherwise { // by no factor of this server
		if a.prompts("none") || !p.Session.AuthTime.Before(a.started()) {
			return decision{step: stepRefuse, refused: acrUnmet()}
		}
		return decision{step: stepSignIn}
	}
	if shut := firstClosedTo(append([]*storage.Client{c}, by.peers...), p.User); shut != nil {
		refused := peerNotAdmitted(shut)
		if shut == c {
			refused = notAdmitted(oauth.CodeAccessDenied, c, p.User)
		}
		if a.prompts("none") {
			return decision{step: stepRefuse, refused: refused}
		}
		return decision{step: stepNoAccess, refused: refused, closed: shut}
	}
	can := by.factors == nil || reachable(by.factors, by.passkeys) >= sure.least
	switch d := (decision{step: stepFactor, least: sure.least, refused: sure.refused}); {
	case sure.least == 0, !can && a.Here != "": // at our own pages factors are set up
	case a.prompts("none"):
		d.step = stepRefuse
		return d
	case !can:
		d.step = stepEnrol
		return d
	default:
		return d
	}
	asked := askedOf(c, a)
	fresh := oauth.Without(asked.Scopes, p.Consent.Allowed(asked))
	if by.trusted && consentWaived(c, a) {
		fresh = nil
	}
	if (len(fresh) > 0 || a.prompts("consent")) && !by.allowed {
		if a.prompts("none") {
			return decision{step: stepRefuse, refused: oauth.Refuse(oauth.CodeConsentRequired, oauth.RuleConsentNeeded, silent)}
		}
		return decision{step: stepConsent, fresh: fresh}
	}
	return decision{step: stepDone}
}

// sureness is what the session lacks for a request.
type sureness struct {
	// least is how surely the user has to prove who they are; 0 if they have.
	least oauth.Assurance
	// otherwise: they have to sign in in another way.
	otherwise bool
	refused   *oauth.Error // of either, if they are not asked
}

// sureness compares how the user has signed in with what is demanded. A class of this server that the client wishes for
// (acr_values) is a demand as well, as RFC 9470 section 5 has it. One that nobody can meet here is not: then the client
// is told what it gets.
func (by circumstances) sureness(c *storage.Client, a *AuthRequest, p storage.Presence) (out sureness) {
	acr, amr := p.Session.ACR, p.Session.AMR
	has := oauth.AssuranceOf(acr, amr)
	missing := func(classes []string) (least oauth.Assurance, unmet bool) {
		for _, class := range classes {
			if oauth.IsOfACR(class, acr, amr) {
				return 0, false
			}
			a, ours := oauth.AssuranceOfACR(class)
			if ours && a > oauth.AssurancePassword && (a < oauth.AssurancePhishingResistant || by.passkeys) &&
				(least == 0 || a < least) {
				least = a
			}
		}
		return least, len(classes) > 0
	}
	wished, _ := missing(a.Classes)
	asked, unmet := missing(a.ACRs)
	if unmet && asked == 0 {
		return sureness{otherwise: true, refused: acrUnmet()}
	}
	if out.least = max(wished, asked); out.least > 0 {
		out.refused = acrUnmet()
	}
	for _, of := range append([]*storage.Client{c}, by.peers...) {
		demanded := max(demandOf(of), by.demands.of(p.User))
		if demanded > has && demanded > out.least {
			out.least, out.refused = demanded, factorNeeded(oauth.CodeLoginRequired, of, acr, amr)
		}
	}
	return out
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
