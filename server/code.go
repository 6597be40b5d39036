package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// The authorization code grant (RFC 6749 section 4.1.3). The code is a sealed string; redeeming it is one transaction,
// which creates the grant that the code names. A code that was redeemed before is a replay, and ends that grant.

// authCode is what an authorization code holds, sealed.
type authCode struct {
	approval
	RedirectURI string `json:"d"`
	Nonce       string `json:"n,omitempty"`
	Challenge   string `json:"p,omitempty"` // PKCE, always S256
	Issued      int64  `json:"i"`           // Unix milliseconds, as Expires
	Expires     int64  `json:"x"`
	// SessionEnds is when the session ends that the code came from, unless it is ended before; 0 in codes of older
	// versions.
	SessionEnds int64 `json:"e,omitempty"`
}

// redeemCode gives tokens for an authorization code.
func (s *Server) redeemCode(ctx context.Context, q *clientRequest) (any, error) {
	sent := oidc.AccessTokenRequest{
		Code: q.form.Get("code"), RedirectURI: q.form.Get("redirect_uri"), CodeVerifier: q.form.Get("code_verifier")}
	var code authCode
	if err := s.open(storage.SealCode, sent.Code, &code); errors.Is(err, storage.ErrNotFound) {
		return nil, invalidGrant(oauth.RuleCodeInvalid, "the authorization code is invalid")
	} else if err != nil {
		return nil, fmt.Errorf("open code: %w", err)
	}
	// None of these burns the code: it stays good for the client that it was issued to.
	if err := code.check(q.client.Client, &sent); err != nil {
		return nil, err
	}
	key, err := s.tokenKey(q, code.DPoPKey)
	if err != nil {
		return nil, err
	}
	now := s.now()
	// An expired code is refused, but a second use of one that was redeemed in its time still kills the grant.
	if now.After(time.UnixMilli(code.Expires)) {
		return nil, s.lateCode(ctx, q.client, code)
	}
	grant := storage.Grant{
		ID: code.Grant, ClientID: q.client.ID, UserID: code.User, AuthTime: time.UnixMilli(code.AuthTime).UTC(),
		CreatedAt: now.UTC(),
		Term:      code.UserTerm, AsOf: code.AsOf}
	if err := storeWishes(&grant, code.Claims.forUserinfo()); err != nil {
		return nil, err
	}
	refresh := refreshToken{approval: code.approval, Generation: 1, Issued: now.UnixMilli()}
	refresh.Claims = code.Claims.onlyIDToken() // the others are in the grant
	refresh.AsOf = 0
	refresh.DPoPKey = boundTo(q.client.Client, key)
	return s.decide(ctx, q.client, code.approval, func(c *client, at storage.Revisions) (any, error) {
		refresh.UserRevision = at.User
		return s.createGrant(ctx, c, q, code, key, grant, refresh)
	})
}

// check checks a request against the code that it shows.
func (code *authCode) check(c *storage.Client, sent *oidc.AccessTokenRequest) error {
	switch {
	case code.Client != c.ID:
		return invalidGrant(oauth.RuleCodeOtherClient, "the authorization code was issued to another client")
	case sent.RedirectURI != "" && sent.RedirectURI != code.RedirectURI:
		return invalidGrant(oauth.RuleRedirectURIDiffers, "redirect_uri is not the one of the authorization request").
			About(shownURI(sent.RedirectURI), shownURI(code.RedirectURI), "")
	case code.Challenge == "" && (c.Public || sent.CodeVerifier != ""):
		return invalidGrant(oauth.RulePKCEUnexpected,
			"code_verifier was sent, but the authorization request had no code_challenge")
	case code.Challenge != "" && sent.CodeVerifier == "":
		return invalidGrant(oauth.RulePKCEMismatch, "code_verifier is missing")
	case code.Challenge != "" && !oauth.VerifyPKCE(code.Challenge, sent.CodeVerifier):
		return invalidGrant(oauth.RulePKCEMismatch, "code_verifier does not match the code_challenge")
	}
	return nil
}

// createGrant is the transaction of a code: it creates the grant, as what client and scopes are now.
func (s *Server) createGrant(
	ctx context.Context, c *client, q *clientRequest, code authCode, key string, grant storage.Grant,
	refresh refreshToken) (any, error) {
	if !c.Issued(time.UnixMilli(code.Issued)) {
		return nil, invalidGrant(oauth.RuleClientReturned, "the authorization code is older than the client")
	}
	if !c.Client.MayUse(oauth.GrantAuthorizationCode) {
		return nil, unauthorizedClient(c.Client, oauth.GrantAuthorizationCode)
	}
	// The redirect URI, too, may have gone since: at another replica, before this one has heard of it.
	if !c.Client.MayReturnTo(code.RedirectURI) {
		return nil, invalidGrant(oauth.RuleRedirectURIWithdrawn,
			"the redirect URI of the authorization request is no longer registered").
			About(shownURI(code.RedirectURI), "", whereOf(c.Client, "redirectUris", "redirect_uris"))
	}
	if grant.Scopes = s.offered(c.Client, code.Scopes); len(grant.Scopes) == 0 {
		return nil, scopesWithdrawn(c.Client)
	}
	if err := mustProve(c.Client, key); err != nil {
		return nil, err
	}
	audience, err := s.audienceOf(ctx, code.Resources, grant.Scopes, q.form["resource"])
	if err != nil {
		return nil, err
	}
	form, err := s.formOf(c.Client, audience)
	if err != nil {
		return nil, err
	}
	grant.ExpiresAt = s.grantEnds(c.Client, grant.CreatedAt)
	s.bindToSession(&grant, code.approval)
	if q.client.shown.forward {
		s.bindToHost(&grant, code)
		if !grant.CreatedAt.Before(grant.ExpiresAt) {
			return nil, invalidGrant(oauth.RuleSessionEnded, "the session in which the user allowed it has ended since")
		}
	}
	refresh.Scopes, refresh.Ends, refresh.Access = grant.Scopes, grant.ExpiresAt.UnixMilli(), s.ruleDigest(c.Client)
	sign := s.signAhead(ctx, tokenSpec{
		approval: refresh.approval, client: c.Client, scopes: grant.Scopes, audience: audience, form: form, key: key,
		withID: slices.Contains(grant.Scopes, oauth.ScopeOpenID), nonce: code.Nonce,
		peers:   s.peersOf(c.Client, grant.Scopes),
		told:    s.idTokenTells(c.Client, grant.Scopes, code.Claims.forIDToken()),
		toldAPI: s.tokenTells(c.Client, grant.Scopes, c.AccessTokenClaims)})
	chainEnds := refresh.expires(s.life)
	if grant.Host != "" { // nobody has a refresh token that could lie idle
		chainEnds = grant.ExpiresAt
	}
	user, err := s.store.CreateGrant(ctx, grant, chainEnds, storage.Revisions{Client: c.Revision,
		User: refresh.UserRevision}, c.usesUp()...)
	c.noteSpent(err)
	switch {
	case err == nil:
		return s.tokens(keptBy(c.Client, refresh), grant.Scopes, user, sign)
	case errors.Is(err, storage.ErrReplayed):
		s.journal.replayed(ctx, "authorization code", c.ID, code.Grant)
		return nil, invalidGrant(oauth.RuleCodeUsed,
			"the authorization code was used before; everything issued from it is revoked")
	case errors.Is(err, storage.ErrSessionEnded):
		return nil, invalidGrant(oauth.RuleSessionEnded, "the user has signed out since")
	case errors.Is(err, storage.ErrWithdrawn):
		return nil, consentWithdrawn()
	case errors.Is(err, storage.ErrSpent):
		return nil, assertionReplayed()
	}
	return nil, fmt.Errorf("redeem code: %w", err)
}

// lateCode answers a code that has expired. If it was redeemed in its time, this is a replay, and its grant dies.
func (s *Server) lateCode(ctx context.Context, c *client, code authCode) error {
	if err := s.spend(ctx, c); err != nil {
		return err
	}
	killed, err := s.store.KillGrant(ctx, code.Client, code.Grant, storage.AuditEntry{
		Actor: storage.ClientActor(code.Client), Action: storage.AuditGrantReplayed, Reason: "code replayed"})
	if err != nil {
		return fmt.Errorf("end the grant of a code: %w", err)
	}
	if killed {
		s.journal.replayed(ctx, "authorization code", code.Client, code.Grant)
	}
	return invalidGrant(oauth.RuleCodeExpired, "the authorization code has expired")
}

func consentWithdrawn() *oauth.Error {
	return invalidGrant(oauth.RuleConsentWithdrawn, "what the user allowed the client was revoked since")
}

// scopesWithdrawn is the refusal of what was granted for scopes of which none is left.
func scopesWithdrawn(c *storage.Client) *oauth.Error {
	return invalidGrant(oauth.RuleScopeWithdrawn, "the app may no longer ask for these scopes").About("", "",
		whereOf(c, "scopes", "scope"))
}
