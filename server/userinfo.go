package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// userinfo is the userinfo endpoint (OpenID Connect Core 1.0 section 5.3). The library knows it as JSON only, so it is ours. The
// access token is in the header or in a form body, once, never in the query (RFC 6750 section 2); one that is bound to a key is in
// the header alone, with a proof (RFC 9449 section 7).
func (p *provider) userinfo(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	p.offerNonce(w)
	if !method(w, r, http.MethodGet, http.MethodPost) {
		return
	}
	form := url.Values{}
	if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "" {
		var err error
		if form, err = bodyForm(r); err != nil {
			op.WriteError(w, r, err, nil)
			return
		}
	}
	headers := r.Header.Values("Authorization")
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	proven := strings.EqualFold(scheme, tokenTypeDPoP)
	inHeader := (proven || strings.EqualFold(scheme, tokenTypeBearer)) && token != ""
	cw := &challenged{ResponseWriter: w, resource: true, proven: proven}
	switch {
	case inHeader && form.Has("access_token"), len(headers) > 1:
		op.WriteError(cw, r, invalidRequest("send the access token once, not twice"), nil)
		return
	case !inHeader && !form.Has("access_token"):
		// RFC 6750 section 3.1: no error code for a request that did not even try.
		cw.WriteHeader(http.StatusUnauthorized)
		return
	case !inHeader:
		token = form.Get("access_token")
	}
	contentType, body, err := p.claimsOfToken(r, token, proven)
	if err != nil {
		cw.code = codeOf(err)
		op.WriteError(cw, r, err, nil)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body)
}

// userinfoClaims say whose userinfo it is. As a JWT it also says who speaks to whom (OpenID Connect Core 1.0 section 5.3.2).
type userinfoClaims struct {
	Issuer   string `json:"iss,omitempty"`
	Audience string `json:"aud,omitempty"`
	Subject  string `json:"sub"` // that of the ID token
}

// claimsOfToken is what userinfo answers, as JSON, or as a JWT for a client that has registered an algorithm: at most one read.
func (p *provider) claimsOfToken(r *http.Request, token string, proven bool) (contentType string, body []byte, err error) {
	ctx := r.Context()
	bad := fail(http.StatusUnauthorized, codeInvalidToken, "the access token is invalid, expired or revoked")
	claims, err := p.verifyAccess(token)
	if err != nil || !p.forUserinfo(claims.Audience) {
		return "", nil, bad
	}
	if err := p.checkPossession(r, pathUserinfo, token, claims, proven); err != nil {
		return "", nil, err
	}
	scopes := oauth.ParseScopes(claims.Scope)
	if !slices.Contains(scopes, oauth.ScopeOpenID) {
		return "", nil, fail(http.StatusForbidden, codeInsufficientScope, "userinfo needs the scope openid")
	}
	c, err := p.client(ctx, claims.ClientID)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil, bad
	} else if err != nil {
		return "", nil, p.unavailable(ctx, "reading a client", err)
	}
	view, err := p.liveGrantOf(ctx, claims, true)
	if err != nil && verdict(err) {
		return "", nil, bad
	} else if err != nil {
		return "", nil, p.unavailable(ctx, "reading a grant", err)
	}
	wishes, err := storedWishes(view.Grant)
	if err != nil {
		return "", nil, p.unavailable(ctx, "reading a grant", err)
	}
	if claims.Origin != "" {
		wishes = nil // they are of the grant's client, and the token is another's
	}
	who, about := userinfoClaims{Subject: claims.Subject}, p.userClaims(c, view.User.User, scopes, wishes)
	if c.UserinfoSignedResponseAlg == "" {
		body, err = json.Marshal(withClaims{who, about})
		contentType = "application/json"
	} else {
		who.Issuer, who.Audience = p.cfg.Issuer, c.ID
		var signed string
		signed, err = p.sign(registeredAlg(c.UserinfoSignedResponseAlg), typID, withClaims{who, about})
		contentType, body = "application/jwt", []byte(signed)
	}
	if err != nil {
		return "", nil, p.unavailable(ctx, "telling about a user", err)
	}
	return contentType, body, nil
}

// storeWishes keeps with the grant what was asked of userinfo claim by claim: access tokens do not carry it.
func storeWishes(grant *storage.Grant, wishes claimWishes) error {
	if len(wishes) == 0 {
		return nil
	}
	var err error
	if grant.Claims, err = plainJSON(wishes); err != nil {
		return fmt.Errorf("keep claims: %w", err)
	}
	return nil
}

func storedWishes(grant *storage.Grant) (claimWishes, error) {
	if len(grant.Claims) == 0 {
		return nil, nil
	}
	var wishes claimWishes
	if err := json.Unmarshal(grant.Claims, &wishes); err != nil {
		return nil, fmt.Errorf("read claims: %w", err)
	}
	return wishes, nil
}
