package server

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// How surely users have to have proven who they are is demanded by the configuration, of everybody or of groups
// ([Demands]); by clients (spec.oauth.access.mfa); and by requests (acr_values, and the claim acr). At an authorization
// request the user is asked for what is missing, or led to set it up (next.go). What was issued before is held to the
// demands of the configuration and of the client wherever it is used: a code, a refresh token, an approval of a device
// and an access token say how their user signed in, so that takes no read. What is demanded of groups takes the user,
// who is read when the demand has changed, or the user, see access.go.

// Demands are what the configuration demands of people, whatever client they use.
type Demands struct {
	Everybody oauth.Assurance
	// Groups by name, where that is more.
	Groups map[string]oauth.Assurance
}

// of is what is demanded of a user.
func (d Demands) of(u *storage.User) oauth.Assurance {
	most := d.Everybody
	if len(d.Groups) > 0 {
		for _, group := range u.GroupNames() {
			most = max(most, d.Groups[group])
		}
	}
	return most
}

// digest tells the demands of groups from others; it is empty without any.
func (d Demands) digest() string {
	if len(d.Groups) == 0 {
		return ""
	}
	text, _ := json.Marshal(d.Groups) // sorted by name
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// acrs are the authentication context classes that people can meet here; an identity provider has its own. With a code
// or a passkey beside whatever else, everybody can meet those of a second factor.
func (s *Server) acrs() []string {
	var out []string
	if slices.ContainsFunc(s.ways, func(way way) bool { return way.Password != nil }) {
		out = append(out, oauth.ACRPassword)
	}
	out = append(out, oauth.ACRMFA)
	if s.passkeys != nil {
		out = append(out, oauth.ACRPhishingResistant)
	}
	return out
}

// demandOf is what a client demands, "" for nothing.
func demandOf(c *storage.Client) oauth.Assurance { return oauth.AssuranceOfDemand(c.AccessMFA) }

// factorNeeded refuses somebody who has not proven as surely as it takes who they are.
func factorNeeded(code string, c *storage.Client, acr string, amr []string) *oauth.Error {
	refused := oauth.Refuse(code, oauth.RuleFactorNeeded,
		"a second factor is demanded, and the user has signed in without one that suffices")
	how := "not known how"
	if len(amr) > 0 {
		how = "signed in by " + strings.Join(amr, ", ")
	}
	where := "mfa"
	if demandOf(c) > oauth.AssuranceOf(acr, amr) {
		where = whereOf(c, "access.mfa", "")
	}
	return refused.About(oauth.Cut(how, maxShownURI), "", where)
}

// assured reports whether a sign-in is as sure as a client and the configuration demand of everybody.
func (s *Server) assured(c *storage.Client, acr string, amr []string) bool {
	return oauth.AssuranceOf(acr, amr) >= max(s.cfg.Demands.Everybody, demandOf(c))
}

// assuredOf is assured for a user who is known: also as sure as is demanded of their groups.
func (s *Server) assuredOf(u *storage.User, c *storage.Client, acr string, amr []string) bool {
	return oauth.AssuranceOf(acr, amr) >= max(s.cfg.Demands.of(u), demandOf(c))
}

// lacks is how surely somebody has to prove who they are for a request, beside what they have proven; 0 if that does.
func (s *Server) lacks(t turn, u *storage.User, p proof) oauth.Assurance {
	return s.circumstances(t).sureness(t.client, t.request, storage.Presence{
		Session: &storage.Session{AMR: p.AMR, ACR: p.ACR}, User: u}).least
}

// declined refuses a request whose user does not want to prove more: with what RFC 9470 section 5 has for that, where
// the request asked for it.
func (a *AuthRequest) declined() *oauth.Error {
	if len(a.ACRs)+len(a.Classes) > 0 {
		return acrUnmet()
	}
	return oauth.Refuse(oauth.CodeAccessDenied, oauth.RuleSignInCancelled, "the user chose not to sign in")
}

// showEnrol leads somebody who has no factor that suffices to the pages where they set one up, and which lead back to
// the request.
func (s *Server) showEnrol(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence, d decision) {
	hidden, err := s.hidden(t)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	back := "?" + url.Values{fieldRequest: {t.sealed}}.Encode()
	page := pages.Enrol{
		Frame: s.frame(r, t), App: shownApp(t), Person: shownPerson(p.User), Action: s.base + pathFactor, Hidden: hidden,
		ByServer: s.cfg.Demands.of(p.User) >= d.least, CanCancel: t.request.fromApp(),
	}
	if s.passkeys != nil {
		page.Passkeys = s.base + pathPasskeys + back
	}
	if d.least < oauth.AssurancePhishingResistant {
		page.Codes = s.base + pathTOTP + back
	}
	s.render(w, r, http.StatusOK, page)
}

// reachable is how surely somebody can prove who they are, who has begun with a password or a connector: by what they
// have at this server, where passkeys may be of no use.
func reachable(f *storage.Factors, passkeys bool) oauth.Assurance {
	switch {
	case len(f.Passkeys) > 0 && passkeys:
		return oauth.AssurancePhishingResistant
	case len(f.TOTP.Secret) > 0, factor.UnusedRecovery(f.Recovery) > 0:
		return oauth.AssuranceMFA
	}
	return oauth.AssuranceUnknown
}

// reachable is that function at this server.
func (s *Server) reachable(f storage.Factors) oauth.Assurance {
	return reachable(&f, s.passkeys != nil)
}

// errUnproven means that somebody has got a second factor since they were shown a page, and that their session has not
// proven it.
var errUnproven = errors.New("there is a second factor that the session has not proven")

// unproven reports whether that is so: then nothing is added beside it, or whoever knows the password alone could.
func (v *visitor) unproven(f storage.Factors) bool {
	return hasSecond(f) && oauth.AssuranceOf(v.session.ACR, v.session.AMR) < oauth.AssuranceMFA
}

// mayRemoveFactor reports whether a user may be left with these factors: not without one that suffices for what the
// configuration demands of them. Recovery codes are none. What apps demand does not count: who wants to go there sets
// it up again.
func (s *Server) mayRemoveFactor(u *storage.User, left storage.Factors) bool {
	left.Recovery = nil
	return s.reachable(left) >= s.cfg.Demands.of(u)
}
