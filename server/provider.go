package server

import (
	"context"
	"crypto"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// provider is the op.Server of zitadel/oidc: the library parses a request and calls one method here.
type provider struct {
	op.UnimplementedServer
	*Server
}

func (c *client) GetID() string                       { return c.ID }
func (c *client) RedirectURIs() []string              { return c.Client.RedirectURIs }
func (c *client) PostLogoutRedirectURIs() []string    { return c.Client.PostLogoutRedirectURIs }
func (c *client) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c *client) LoginURL(string) string               { return "" }
func (c *client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeJWT }
func (c *client) IDTokenLifetime() time.Duration       { return 0 }
func (c *client) DevMode() bool                        { return false }
func (c *client) IsScopeAllowed(string) bool           { return false }
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return false }
func (c *client) ClockSkew() time.Duration             { return 0 }
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

// Health and Ready are served by our own routes.

func publicKey(k *storage.Key) crypto.PublicKey {
	return k.Private.(crypto.Signer).Public()
}

// changes is how often a request is decided anew because client or user changed while it was decided.
const changes = 4

// CodeExchange redeems an authorization code (RFC 6749 section 4.1.3): one transaction.
func (p *provider) CodeExchange(ctx context.Context, r *op.ClientRequest[oidc.AccessTokenRequest]) (*op.Response, error) {
	c := r.Client.(*client)
	reply, err := p.redeem(ctx, c, r)
	return p.settled(ctx, c, reply, err)
}

func (p *provider) redeem(ctx context.Context, c *client, r *op.ClientRequest[oidc.AccessTokenRequest]) (*op.Response, error) {
	now := p.now()
	var code authCode
	if err := p.open(storage.SealCode, r.Data.Code, &code); errors.Is(err, storage.ErrNotFound) {
		return nil, invalidGrant("the authorization code is invalid")
	} else if err != nil {
		return nil, p.unavailable(ctx, "opening a code", err)
	}
	// None of these burns the code: it stays good for the client that it was issued to.
	switch {
	case code.Client != c.ID:
		return nil, invalidGrant("the authorization code was issued to another client")
	case r.Data.RedirectURI != omitted && r.Data.RedirectURI != code.RedirectURI:
		return nil, invalidGrant("redirect_uri is not the one of the authorization request")
	case code.Challenge == "" && (c.Public || r.Data.CodeVerifier != ""):
		return nil, invalidGrant("code_verifier was sent, but the authorization request had no code_challenge")
	case code.Challenge != "" && r.Data.CodeVerifier == "":
		return nil, invalidGrant("code_verifier is missing")
	case code.Challenge != "" && (!oauth.ValidVerifier(r.Data.CodeVerifier) || !oauth.VerifyPKCE(code.Challenge, r.Data.CodeVerifier)):
		return nil, invalidGrant("code_verifier does not match the code_challenge")
	}
	grant := storage.Grant{
		ID: code.Grant, ClientID: c.ID, UserID: code.User, AuthTime: time.UnixMilli(code.AuthTime).UTC(), CreatedAt: now.UTC()}
	refresh := refreshToken{approval: code.approval, Generation: 1, Issued: now.UnixMilli()}
	refresh.Claims = nil // they are in the grant, and no refresh brings an ID token
	if err := storeWishes(&grant, code.Claims.forUserinfo()); err != nil {
		return nil, p.unavailable(ctx, "redeeming a code", err)
	}
	key, err := p.tokenKey(ctx, c.Client, r.Header, code.DPoPKey)
	if err != nil {
		return nil, err
	}
	refresh.DPoPKey = boundTo(c.Client, key)
	// An expired code is refused, but a second use of one that was redeemed in its time still kills the grant.
	if now.After(time.UnixMilli(code.Expires)) {
		return nil, p.lateCode(ctx, c, code)
	}
	for range changes {
		if !mayUse(c.Client, GrantAuthorizationCode) {
			return nil, unauthorizedClient(GrantAuthorizationCode)
		}
		// The redirect URI, too, may have gone since: at another replica, before this one has heard of it.
		if !oauth.MatchRedirectURI(c.Client.RedirectURIs, code.RedirectURI) {
			return nil, invalidGrant("the redirect URI of the authorization request is not registered any more")
		}
		grant.Scopes = p.offered(c.Client, code.Scopes)
		if len(grant.Scopes) == 0 {
			return nil, invalidGrant("the app may not ask for these scopes any more")
		}
		refresh.Scopes = grant.Scopes
		if err := mustProve(c.Client, key); err != nil {
			return nil, err
		}
		grant.ExpiresAt = p.grantEnds(c.Client, now)
		refresh.Ends = grant.ExpiresAt.UnixMilli()
		audience, err := p.audienceOf(code.Resources, grant.Scopes, r.Form["resource"])
		if err != nil {
			return nil, err
		}
		p.bindToSession(&grant, code.approval)
		signing := p.signAhead(issue{approval: refresh.approval, client: c.Client, scopes: grant.Scopes, audience: audience, key: key,
			withID: slices.Contains(grant.Scopes, oauth.ScopeOpenID), nonce: code.Nonce, told: code.Told})
		err = p.store.CreateGrant(ctx, grant, refresh.expires(p.life), storage.Revisions{Client: c.Revision, User: refresh.UserRevision}, c.once()...)
		c.noteSpent(err)
		var stale *storage.StaleError
		switch {
		case err == nil:
			return p.tokens(ctx, keptBy(c.Client, refresh), grant.Scopes, signing)
		case errors.Is(err, storage.ErrReplayed):
			p.log.WarnContext(ctx, "authorization code used twice: its grant was revoked", "client", c.ID, "grant", code.Grant)
			return nil, invalidGrant("the authorization code was used before; everything issued from it is revoked")
		case errors.Is(err, storage.ErrSessionEnded):
			return nil, invalidGrant("the user has signed out since")
		case errors.Is(err, storage.ErrSpent):
			return nil, assertionReplayed()
		case errors.As(err, &stale):
			if c, refresh.UserRevision, err = p.decideAnew(ctx, c, stale); err != nil {
				return nil, err
			}
			code.Told = p.userClaims(c.Client, stale.User, nil, code.Claims.forIDToken())
		default:
			return nil, p.unavailable(ctx, "redeeming a code", err)
		}
	}
	return nil, p.unavailable(ctx, "redeeming a code", storage.ErrConflict)
}

// grantEnds is when a grant ends that begins now. A client that may not refresh has nothing left of it after the access token.
func (s *Server) grantEnds(c *storage.Client, now time.Time) time.Time {
	if mayUse(c, GrantRefreshToken) {
		return now.Add(s.life.RefreshAbsolute).UTC()
	}
	return now.Add(s.life.AccessToken).UTC()
}

// keptBy is the refresh token that a client gets: none, if it may not refresh.
func keptBy(c *storage.Client, refresh refreshToken) refreshToken {
	if !mayUse(c, GrantRefreshToken) {
		return refreshToken{}
	}
	return refresh
}

// lateCode answers a code that has expired. If it was redeemed in its time, this is a replay, and its grant dies.
func (p *provider) lateCode(ctx context.Context, c *client, code authCode) error {
	if err := p.spend(ctx, c); err != nil {
		return err
	}
	killed, err := p.store.KillGrant(ctx, code.Client, code.Grant, storage.AuditEntry{
		Actor: storage.ClientActor(code.Client), Action: storage.AuditGrantReplayed, Reason: "code replayed"})
	if err != nil {
		return p.unavailable(ctx, "redeeming a code", err)
	}
	if killed {
		p.log.WarnContext(ctx, "authorization code used twice: its grant was revoked", "client", code.Client, "grant", code.Grant)
	}
	return invalidGrant("the authorization code has expired")
}

// tokens answers with the tokens of a grant that is stored.
func (p *provider) tokens(ctx context.Context, refresh refreshToken, scopes []string, signing func() (signed, error)) (*op.Response, error) {
	reply, err := p.reply(refresh, scopes, signing)
	if err != nil {
		return nil, p.unavailable(ctx, "issuing tokens", err)
	}
	return op.NewResponse(reply), nil
}

// RefreshToken rotates a refresh token (RFC 6749 section 6, RFC 9700 section 4.14.2): one transaction.
func (p *provider) RefreshToken(ctx context.Context, r *op.ClientRequest[oidc.RefreshTokenRequest]) (*op.Response, error) {
	c := r.Client.(*client)
	reply, err := p.rotate(ctx, c, r)
	return p.settled(ctx, c, reply, err)
}

func (p *provider) rotate(ctx context.Context, c *client, r *op.ClientRequest[oidc.RefreshTokenRequest]) (*op.Response, error) {
	now := p.now()
	var token refreshToken
	if err := p.open(storage.SealRefresh, r.Data.RefreshToken, &token); errors.Is(err, storage.ErrNotFound) {
		return nil, invalidGrant("the refresh token is invalid")
	} else if err != nil {
		return nil, p.unavailable(ctx, "opening a refresh token", err)
	}
	switch {
	case token.Client != c.ID:
		return nil, invalidGrant("the refresh token was issued to another client")
	case now.After(token.expires(p.life)):
		return nil, invalidGrant("the refresh token has expired")
	}
	asked := token.Scopes
	if param := r.Form.Get("scope"); param != "" {
		asked = oauth.ParseScopes(param)
		if len(oauth.Without(asked, token.Scopes)) > 0 {
			return nil, fail(http.StatusBadRequest, string(oidc.InvalidScope), "scope asks for more than was granted")
		}
	}
	key, err := p.tokenKey(ctx, c.Client, r.Header, token.DPoPKey)
	if err != nil {
		return nil, err
	}
	ref := storage.GrantRef{ClientID: c.ID, GrantID: token.Grant, UserID: token.User, Generation: token.Generation}
	next := token
	next.Issued = now.UnixMilli()
	for range changes {
		if !mayUse(c.Client, GrantRefreshToken) {
			return nil, unauthorizedClient(GrantRefreshToken)
		}
		scopes := p.offered(c.Client, asked)
		if len(scopes) == 0 {
			return nil, invalidGrant("the app may not ask for these scopes any more")
		}
		if err := mustProve(c.Client, key); err != nil {
			return nil, err
		}
		audience, err := p.audienceOf(token.Resources, scopes, r.Form["resource"])
		if err != nil {
			return nil, err
		}
		signing := p.signAhead(issue{approval: next.approval, client: c.Client, scopes: scopes, audience: audience, key: key})
		rotation, err := p.store.RotateGrant(ctx, ref, next.expires(p.life), p.life.RefreshReuse, storage.Revisions{Client: c.Revision, User: next.UserRevision}, c.once()...)
		c.noteSpent(err)
		var stale *storage.StaleError
		switch {
		case err == nil:
			next.Generation, next.Issued = rotation.Generation, rotation.At.UnixMilli()
			return p.tokens(ctx, next, scopes, signing)
		case errors.Is(err, storage.ErrReplayed):
			p.log.WarnContext(ctx, "refresh token used twice: its grant was revoked", "client", c.ID, "grant", token.Grant)
			return nil, invalidGrant("the refresh token was used before; everything issued from it is revoked")
		case errors.Is(err, storage.ErrNotFound):
			return nil, invalidGrant("the refresh token was revoked")
		case errors.Is(err, storage.ErrSpent):
			return nil, assertionReplayed()
		case errors.As(err, &stale):
			if c, next.UserRevision, err = p.decideAnew(ctx, c, stale); err != nil {
				return nil, err
			}
		default:
			return nil, p.unavailable(ctx, "refreshing", err)
		}
	}
	return nil, p.unavailable(ctx, "refreshing", storage.ErrConflict)
}

// grantView is a live grant with its active user.
type grantView struct {
	storage.GrantView
	User activeUser
}

type activeUser struct{ *storage.User }

// login is the name under which people know the account.
func (u activeUser) login() string {
	if u.Username != "" {
		return u.Username
	}
	return u.Email
}

// liveGrant reads a grant whose tokens are good: it lives and its user is active. Otherwise [storage.ErrNotFound].
func (p *provider) liveGrant(ctx context.Context, clientID, grantID, userID string) (grantView, error) {
	view, err := p.store.Grant(ctx, clientID, grantID, userID)
	if err != nil {
		return grantView{}, err
	}
	return active(view, userID)
}

// liveGrantThrough is liveGrant for an access token that another client than the grant's may have got, in a token exchange, and
// may have revoked. It reads along a client that uses the token; nil is none that may.
func (p *provider) liveGrantThrough(ctx context.Context, claims accessClaims, clientID string) (grantView, *storage.Client, error) {
	userID := p.userOf(claims.Subject)
	view, c, err := p.store.GrantThrough(ctx, claims.grantClient(), claims.grant(), userID, clientID, claims.ended().ID)
	if err != nil {
		return grantView{}, nil, err
	}
	live, err := active(view, userID)
	return live, c, err
}

// liveGrantOf is the grant of an access token that is no client's own. known says that its client was found to be there.
func (p *provider) liveGrantOf(ctx context.Context, claims accessClaims, known bool) (grantView, error) {
	if known && claims.Origin == "" {
		return p.liveGrant(ctx, claims.ClientID, claims.grant(), p.userOf(claims.Subject))
	}
	view, c, err := p.liveGrantThrough(ctx, claims, claims.ClientID)
	if err == nil && c == nil {
		err = storage.ErrNotFound
	}
	return view, err
}

// active is the view of a grant of that user, who is active.
func active(view storage.GrantView, userID string) (grantView, error) {
	if !view.User.Active() || view.Grant.UserID != userID {
		return grantView{}, storage.ErrNotFound
	}
	return grantView{view, activeUser{view.User}}, nil
}

// Revocation ends a grant by one of its tokens, access or refresh (RFC 7009): with it everything issued from it ends. A client's
// own token and one that it got in a token exchange end alone. A token that is not good any more is revoked already.
func (p *provider) Revocation(ctx context.Context, r *op.ClientRequest[oidc.RevocationRequest]) (*op.Response, error) {
	owner, grantID := "", ""
	var one *accessClaims // to be ended alone
	if strings.HasPrefix(r.Data.Token, string(storage.SealRefresh)) {
		var token refreshToken
		if err := p.open(storage.SealRefresh, r.Data.Token, &token); err == nil {
			owner, grantID = token.Client, token.Grant
		}
	} else if claims, err := p.verifyAccess(r.Data.Token); err == nil {
		owner, grantID = claims.ClientID, claims.grant()
		if claims.own() || claims.Origin != "" {
			one = &claims
		}
	}
	if owner == "" {
		return op.NewResponse(nil), nil
	}
	if owner != r.Client.GetID() {
		return nil, invalidGrant("the token was issued to another client")
	}
	if one != nil {
		if err := p.revokeOne(ctx, r.Client.(*client), *one); err != nil {
			return nil, err
		}
		return op.NewResponse(nil), nil
	}
	if _, err := p.store.KillGrant(ctx, owner, grantID, storage.AuditEntry{
		Actor: storage.ClientActor(owner), Action: storage.AuditGrantRevoked, Reason: "revoked by the client"}); err != nil {
		return nil, p.unavailable(ctx, "revoking", err)
	}
	return op.NewResponse(nil), nil
}
