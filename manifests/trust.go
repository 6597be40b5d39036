package manifests

import (
	"fmt"
	"slices"
	"strings"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
)

// That users are not asked for consent (consent: skip) is for an operator to say, and not for a manifest alone: whoever
// may change a manifest would get at what all users have. The word is standing, for apps that the configuration trusts;
// or it is given with one apply, for what that brings. Then it holds as long as the app reaches no further: with other
// scopes, other redirect URIs, other resource servers, or as a client that anybody can pose as, it takes the word anew.

// Trust says whether users of an app are asked for consent, and by whose word they are not.
type Trust string

// Values of [Trust]. Empty: they are asked.
const (
	TrustConfigured Trust = "configured" // trusted in the configuration
	TrustGiven      Trust = "given"      // an operator has given the word with an apply
	TrustNeeded     Trust = "needed"     // the manifest wants it, and nobody has given the word
)

// words are by whose word.
func (t Trust) words() string {
	if t == TrustConfigured {
		return "trusted in the configuration"
	}
	return "by the operator's word"
}

// TrustError says that an app wants its users not to be asked for consent, and that nobody has given the word for that.
// Nothing was changed.
type TrustError struct {
	App string
	// Further is how the app reaches further than what the word was given for; empty when it never was.
	Further []string
}

func (e *TrustError) Error() string {
	if len(e.Further) > 0 {
		return "needs the operator's word for " + e.App + ", whose users are not asked for consent, to reach further: " +
			strings.Join(e.Further, ", ")
	}
	return "needs the operator's word for " + e.App + ", whose users would not be asked for consent (consent: skip)"
}

func (e *TrustError) never() string { return "gives the operator's word" }

func (e *TrustError) remedy(doc *Document) string {
	return "warifu apply -f " + doc.Path + " --trust, or add the app to trusted in the server's configuration"
}

// trust notes in the plan by whose word users are not asked, and what it takes. With word, an operator gives it now.
func (d *Deployer) trust(c *comparison, word bool) {
	want, was := c.want.client, c.view.Client
	given := was != nil && was.Trusted
	skipped := was != nil && was.Consent == oauth.ConsentSkip && (given || d.trusts(c.plan.App))
	if want == nil || want.Consent != oauth.ConsentSkip {
		if skipped && want != nil {
			c.consequence("asks users for consent from now on")
		}
		return
	}
	if given {
		c.plan.further = further(&was.Client, want)
	}
	c.want.trusted = word || given && len(c.plan.further) == 0
	switch {
	case d.trusts(c.plan.App):
		c.plan.Trust = TrustConfigured
	case c.want.trusted:
		c.plan.Trust = TrustGiven
	default:
		c.plan.Trust = TrustNeeded
		c.consequence("%s: apply takes --trust, or the app in trusted of the server's configuration", c.plan.lacksTrust())
		return
	}
	if word && was != nil && !given {
		c.want.clientChanged = true
		c.change(Change{Kind: UpdateField, Field: "trusted", Old: "false", New: "true"}, "trusted: false -> true")
	}
	if !skipped {
		c.consequence("skips the question for consent: users are not asked what the app may do")
	}
}

// trusts reports whether the configuration trusts an app.
func (d *Deployer) trusts(app string) bool { return slices.Contains(d.set().trusted, app) }

// further is how a registration reaches further than another, in words.
func further(was, want *plugins.Registration) []string {
	var out []string
	for _, list := range [...]struct {
		key       string
		was, want []string
	}{
		{"scopes", was.Scopes, want.Scopes}, {"redirectUris", was.RedirectURIs, want.RedirectURIs},
		{"forwardAuth.hosts", was.ForwardAuthHosts, want.ForwardAuthHosts},
		{"resourceIdentifiers", was.Resources(), want.Resources()},
		{"tokenExchangeAudiences", was.TokenExchangeAudiences, want.TokenExchangeAudiences},
		{"claims", was.Claims, want.Claims}, {"accessTokenClaims", was.AccessTokenClaims, want.AccessTokenClaims},
		{"grantTypes", was.RegisteredGrants(), want.RegisteredGrants()},
	} {
		for _, item := range oauth.Without(list.want, list.was) {
			out = append(out, fmt.Sprintf("%s: add %s", list.key, item))
		}
	}
	for _, id := range want.Identities {
		if was.IdentityOf(id.Issuer, id.Subject) == nil {
			out = append(out, "identities: add "+id.String())
		}
	}
	if want.Public && !was.Public {
		out = append(out, "public: true")
	}
	return out
}

// lacksTrust is why a plan may not be applied, if nobody has given the word for it.
func (p *Plan) lacksTrust() error {
	if p.Trust != TrustNeeded {
		return nil
	}
	return &TrustError{App: p.App, Further: p.further}
}
