package manifests

import (
	"bytes"
	"cmp"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
)

// canonicalKeys writes the JWK Set that was checked in its canonical form, whichever way a hook wrote it.
func canonicalKeys(r *plugins.Registration) {
	if r == nil || r.JWKS == "" {
		return
	}
	if set, err := decodeObject([]byte(r.JWKS)); err == nil {
		canonical, _ := json.Marshal(set) // it came from JSON
		r.JWKS = string(canonical)
	}
}

// sameClient compares what is stored, where the order of a list counts, and an empty list is none.
func sameClient(was, want *plugins.Registration) bool {
	return !slices.ContainsFunc(oauth.Fields(), func(f *oauth.Field) bool {
		switch v := f.Of(was).(type) {
		case *[]string:
			return !slices.Equal(*v, *f.Of(want).(*[]string))
		case *[]oauth.WorkloadIdentity:
			return !slices.Equal(*v, *f.Of(want).(*[]oauth.WorkloadIdentity))
		case *string:
			return *v != *f.Of(want).(*string)
		}
		return plain(f, was) != plain(f, want)
	})
}

// keys compares the client's own keys by their names.
func (c *comparison) keys(was, want map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch old, there := was[name]; {
		case !there:
			c.change(Change{Kind: AddTo, Field: "jwks", New: name}, "jwks: add key %s", name)
		case old != want[name]:
			c.change(Change{Kind: UpdateField, Field: "jwks", Old: name, New: name}, "jwks: replace key %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, stays := want[name]; !stays {
			c.change(Change{Kind: RemoveFrom, Field: "jwks", Old: name}, "jwks: remove key %s", name)
		}
	}
}

// metadataConsequences adds what follows from changes of the metadata; grants is the number of live grants.
func (c *comparison) metadataConsequences(was, want *plugins.Registration, grants int) {
	c.grantTypeConsequences(was.RegisteredGrants(), want.RegisteredGrants(), grants)
	c.authenticationConsequences(was, want)
	c.signatureConsequences(&was.ClientMetadata, &want.ClientMetadata)
	c.signInConsequences(was, want)
	c.accessConsequences(was, want)
	c.assuranceConsequences(was, want)
	c.forwardConsequences(was, want)
	if after := want.ReuseIntervalOr(0); after > was.ReuseIntervalOr(0) {
		c.consequence("takes a refresh token again for %s after its use: for that long a stolen one is not noticed", after)
	}
	for _, uri := range was.Resources() {
		if _, stays := oauth.FindResource(want.Resources(), uri); !stays {
			c.consequence("removes %s: the app can no longer introspect tokens for it", uri)
		}
	}
	for _, app := range oauth.Without(want.TrustedPeers, was.TrustedPeers) {
		c.consequence("trusts %s: with consent it gets ID tokens of users that this app takes as well", app)
	}
	for _, app := range oauth.Without(was.TrustedPeers, want.TrustedPeers) {
		c.consequence("no longer trusts %s: its next ID tokens are not for this app, and sign-ins that ask for that will "+
			"fail", app)
	}
	for _, uri := range oauth.Without(want.TokenExchangeAudiences, was.TokenExchangeAudiences) {
		c.consequence("adds %s: the app may call it for every user who calls the app", uri)
	}
	for _, uri := range oauth.Without(was.TokenExchangeAudiences, want.TokenExchangeAudiences) {
		c.consequence("removes %s: token exchanges for it will fail", uri)
	}
}

func (c *comparison) grantTypeConsequences(was, want []string, grants int) {
	for _, name := range was {
		if slices.Contains(want, name) {
			continue
		}
		follows := "token requests with it will fail"
		switch name {
		case oauth.GrantAuthorizationCode:
			follows = "users can no longer sign in to the app with a browser"
		case oauth.GrantRefreshToken:
			follows = count(grants, "grant can no longer be refreshed", "grants can no longer be refreshed")
		case oauth.GrantDeviceCode:
			follows = "users can no longer sign in on a device"
		}
		c.consequence("removes the grant type %s: %s", name, follows)
	}
}

// authenticationConsequences leaves a change of public to fields.
func (c *comparison) authenticationConsequences(was, want *plugins.Registration) {
	if was.Public == want.Public && !want.Public {
		before, after := was.TokenEndpointAuthMethod == oauth.AuthWorkload, want.TokenEndpointAuthMethod == oauth.AuthWorkload
		had, none := was.OnlyForwardAuth(), want.OnlyForwardAuth()
		switch {
		case none && !had:
			c.consequence("leaves the app behind forward auth and nothing else: its token requests will fail, however " +
				"it authenticates")
		case had && want.HasSecret():
			c.consequence("gives the client a secret")
		case had:
		case after && was.HasSecret():
			c.consequence("takes the client's secret away: it stops working, and token requests without the token of a " +
				"workload will fail")
		case after && !before:
			c.consequence("takes tokens of workloads in place of the client's own key: token requests that are signed " +
				"with it will fail")
		case after:
			c.identityConsequences(was, want)
		case before && want.HasSecret():
			c.consequence("gives the client a secret: token requests with the token of a workload will fail")
		case before:
			c.consequence("makes the client sign with its own key: token requests with the token of a workload will fail")
		case was.HasSecret() && !want.HasSecret():
			c.consequence("makes the client sign with its own key: its secret stops working, and token requests that are not " +
				"signed will fail")
		case !was.HasSecret() && want.HasSecret():
			c.consequence("gives the client a secret: token requests that are signed with its key will fail")
		case was.TokenEndpointAuthMethod == want.TokenEndpointAuthMethod:
		case want.TokenEndpointAuthMethod == oauth.AuthBasic:
			c.consequence("accepts the secret only by HTTP Basic: token requests that have it in the body will fail")
		case want.TokenEndpointAuthMethod == oauth.AuthPost:
			c.consequence("accepts the secret only in the body: token requests that send it by HTTP Basic will fail")
		}
	}
	if alg := want.TokenEndpointAuthSigningAlg; alg != "" && alg != was.TokenEndpointAuthSigningAlg && !was.HasSecret() &&
		!was.Public {
		c.consequence("accepts only %s: token requests that are signed otherwise will fail", alg)
	}
	if want.JWKSURI == "" && !want.Public {
		c.keyConsequences(keyNames(was.JWKS), keyNames(want.JWKS))
	}
	if want.DPoPBoundAccessTokens && !was.DPoPBoundAccessTokens {
		c.consequence("binds all access tokens to a key of the app: token requests without a DPoP proof will fail")
	}
}

// identityConsequences say who may be the client from now on, and who no longer.
func (c *comparison) identityConsequences(was, want *plugins.Registration) {
	for _, id := range want.Identities {
		if was.IdentityOf(id.Issuer, id.Subject) == nil {
			c.consequence("lets %s be the app: whoever gets a token of it can do all that the app may", id.Name())
		}
	}
	for _, id := range was.Identities {
		switch now := want.IdentityOf(id.Issuer, id.Subject); {
		case now == nil:
			c.consequence("no longer lets %s be the app: its token requests will fail", id.Name())
		case now.Audience != id.Audience:
			c.consequence("takes tokens of %s for another audience: those for the previous one will fail", id.Name())
		}
	}
}

func (c *comparison) keyConsequences(was, want map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(was)) {
		switch now, stays := want[name]; {
		case !stays:
			c.consequence("removes key %s: what is signed with it will be refused", name)
		case now != was[name]:
			c.consequence("replaces key %s: what is signed with the previous one will be refused", name)
		}
	}
}

func (c *comparison) signatureConsequences(was, want *plugins.ClientMetadata) {
	before, after := cmp.Or(was.IDTokenSignedResponseAlg, oauth.DefaultAlg),
		cmp.Or(want.IDTokenSignedResponseAlg, oauth.DefaultAlg)
	if before != after {
		c.consequence("signs ID tokens with %s: an app that expects %s will refuse them", after, before)
	}
	switch {
	case was.IDTokenClaims == want.IDTokenClaims:
	case want.IDTokenClaims == oauth.IDTokenStandard:
		c.consequence("takes the claims of scopes out of ID tokens: an app that does not ask userinfo no longer knows " +
			"its users by name and e-mail")
	case want.IDTokenClaims == oauth.IDTokenScopes:
		c.consequence("puts the claims of scopes into ID tokens: whoever sees one learns them")
	}
	if want.IDTokenOnRefresh == oauth.IDTokenNever && was.IDTokenOnRefresh != want.IDTokenOnRefresh {
		c.consequence("gives no ID token on a refresh: an app that needs a fresh one has to send its users through " +
			"sign-in again")
	}
	c.accessTokenConsequences(was, want)
	switch before, after := was.UserinfoSignedResponseAlg, want.UserinfoSignedResponseAlg; {
	case before == after:
	case after == "":
		c.consequence("makes userinfo plain JSON: an app that expects a JWT will refuse it")
	default:
		c.consequence("makes userinfo a JWT that is signed with %s: an app that expects something else will refuse it", after)
	}
	if alg := want.RequestObjectSigningAlg; alg != "" && alg != was.RequestObjectSigningAlg {
		how := "that are not signed with " + alg
		if alg == "none" {
			how = "that are signed"
		}
		c.consequence("accepts no request objects %s: sign-ins that use them will fail", how)
	}
}

func (c *comparison) accessTokenConsequences(was, want *plugins.ClientMetadata) {
	form := func(m *plugins.ClientMetadata) string {
		typ := cmp.Or(m.AccessTokenType, oauth.AccessTokenTypes()[0])
		if typ == oauth.AccessTokenOpaque {
			return typ
		}
		return typ + " with " + cmp.Or(m.AccessTokenAlg, oauth.AccessTokenAlgs()[0])
	}
	if before, after := form(was), form(want); before != after {
		c.consequence("makes access tokens %s: whoever expects %s will refuse them", after, before)
	}
}

// signInConsequences are about what users, and the app of them, notice.
func (c *comparison) signInConsequences(was, want *plugins.Registration) {
	if want.RequireSignedRequestObject && !was.RequireSignedRequestObject {
		c.consequence("accepts only signed request objects (RFC 9101): other sign-ins will fail")
	}
	if want.RequirePushedAuthorizationRequests && !was.RequirePushedAuthorizationRequests {
		c.consequence("accepts only pushed requests (RFC 9126): other sign-ins will fail")
	}
	if sectorOf(was) != sectorOf(want) {
		c.consequence("gives every user another sub: the app will take them for new users")
	}
	if most := want.DefaultMaxAge; most != nil && (was.DefaultMaxAge == nil || *most < *was.DefaultMaxAge) {
		c.consequence("asks users to sign in again if they did so more than %s ago", count(int(*most), "second", "seconds"))
	}
	for _, channel := range [...]struct{ name, was, want string }{
		{"back", was.BackchannelLogoutURI, want.BackchannelLogoutURI},
		{"front", was.FrontchannelLogoutURI, want.FrontchannelLogoutURI},
	} {
		if channel.was != "" && channel.want == "" {
			c.consequence("removes the %s-channel logout: it no longer tells the app when users sign out", channel.name)
		}
	}
}

// accessConsequences are about who may use the app.
func (c *comparison) accessConsequences(was, want *plugins.Registration) {
	switch {
	case was.AccessDigest() == want.AccessDigest():
	case !want.Restricted():
		c.consequence("lets everybody who can sign in use the app")
	case !was.Restricted():
		c.consequence("limits who may use the app: grants of all others can no longer be refreshed")
	default:
		c.consequence("changes who may use the app: grants of those who no longer may can no longer be refreshed")
	}
}

// assuranceConsequences are about how users have to prove who they are.
func (c *comparison) assuranceConsequences(was, want *plugins.Registration) {
	before, after := oauth.AssuranceOfDemand(was.AccessMFA), oauth.AssuranceOfDemand(want.AccessMFA)
	asks := "a second factor"
	if max(before, after) == oauth.AssurancePhishingResistant {
		asks = "a passkey"
	}
	switch {
	case after > before:
		c.consequence("asks users for %s: grants of those who signed in without one can no longer be refreshed", asks)
	case after == before:
	case after == oauth.AssuranceMFA:
		c.consequence("takes any second factor from now on, and not only passkeys")
	default:
		c.consequence("no longer asks users for %s, unless the server's configuration does", asks)
	}
}

// forwardConsequences are about an app behind forward auth.
func (c *comparison) forwardConsequences(was, want *plugins.Registration) {
	for _, host := range oauth.Without(was.ForwardAuthHosts, want.ForwardAuthHosts) {
		c.consequence("removes the host %s: requests to this host will be refused", host)
	}
	if len(was.ForwardAuthHosts) > 0 && len(want.ForwardAuthHosts) > 0 &&
		cmp.Or(was.ForwardAuthUser, oauth.ForwardUserSub) != cmp.Or(want.ForwardAuthUser, oauth.ForwardUserSub) {
		c.consequence("gives every user another Remote-User: the app will take them for new users")
	}
}

// sectorOf names what the pairwise subjects of a client depend on (OpenID Connect Core 1.0 section 8.1). It is empty
// for a client with public subjects.
func sectorOf(r *plugins.Registration) string {
	if r.SubjectType != oauth.SubjectPairwise {
		return ""
	}
	sector, err := r.Sector("")
	if err != nil {
		return "none" // the rules refuse such a registration
	}
	return sector
}

// keyNames returns the keys of a JWK Set as JSON, by name: the kid, or else the thumbprint (RFC 7638).
func keyNames(jwks string) map[string]string {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if jwks == "" || json.Unmarshal([]byte(jwks), &set) != nil {
		return nil
	}
	names := make(map[string]string, len(set.Keys))
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil {
			continue
		}
		name := key.KeyID
		if sum, err := key.Thumbprint(crypto.SHA256); err == nil && name == "" {
			name = base64.RawURLEncoding.EncodeToString(sum)
		}
		names[name] = string(raw)
	}
	return names
}

func decodeObject(data []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is text after the end of the object")
	}
	return object, nil
}
