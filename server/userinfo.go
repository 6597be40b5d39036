package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// userinfo is the userinfo endpoint (OpenID Connect Core 1.0 section 5.3).
func (s *Server) userinfo(w http.ResponseWriter, r *http.Request) error {
	token, proven, err := shownToken(r)
	if err != nil {
		return err
	}
	contentType, body, err := s.claimsOfToken(r, token, proven)
	if err != nil {
		return err
	}
	writeBody(w, http.StatusOK, []string{contentType}, body)
	return nil
}

// shownToken is the access token of a request: in the header or in a form body, once, never in the query (RFC 6750
// section 2). One that is bound to a key is in the header alone, with a proof (RFC 9449 section 7): proven says that it
// came by the scheme DPoP.
func shownToken(r *http.Request) (token string, proven bool, err error) {
	form := url.Values{}
	if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "" {
		if form, err = bodyForm(r); err != nil {
			return "", false, err
		}
	}
	headers := r.Header.Values("Authorization")
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	proven = strings.EqualFold(scheme, tokenTypeDPoP)
	inHeader := (proven || strings.EqualFold(scheme, tokenTypeBearer)) && token != ""
	switch {
	case inHeader && form.Has("access_token"), len(headers) > 1:
		return "", false, invalidRequest(oauth.RuleAccessTokenTwice, "send the access token once, not twice")
	case inHeader:
		return token, proven, nil
	case form.Has("access_token"):
		return form.Get("access_token"), false, nil
	}
	// RFC 6750 section 3.1: no error code for a request that did not even try.
	return "", false, &statusError{http.StatusUnauthorized, &oauth.Error{Rule: oauth.RuleAccessTokenMissing}}
}

// invalidToken is the one answer to an access token that is not good (RFC 6750 section 3.1).
func invalidToken(rule string) *oauth.Error {
	return oauth.Refuse(oauth.CodeInvalidToken, rule, "the access token is invalid, expired or revoked")
}

// userinfoClaims say whose userinfo it is. As a JWT it also says who speaks to whom (OpenID Connect Core 1.0 section
// 5.3.2).
type userinfoClaims struct {
	Issuer   string `json:"iss,omitempty"`
	Audience string `json:"aud,omitempty"`
	Subject  string `json:"sub"` // that of the ID token
}

// claimsOfToken is what userinfo answers, as JSON, or as a JWT for a client that has registered an algorithm: at most
// one read.
func (s *Server) claimsOfToken(r *http.Request, token string, proven bool) (contentType string,
	body []byte, err error) {
	ctx := r.Context()
	claims, err := s.verifyAccess(token)
	if err != nil && verdict(err) {
		return "", nil, invalidToken(oauth.RuleAccessTokenInvalid)
	} else if err != nil {
		return "", nil, fmt.Errorf("read access token: %w", err)
	}
	visitOf(ctx).client = claims.ClientID
	if !s.forUserinfo(claims.Audience) {
		return "", nil, invalidToken(oauth.RuleAccessTokenInvalid).
			About(oauth.Printable(claims.Audience[0]), s.cfg.Issuer, "")
	}
	if err := s.checkPossession(r, pathUserinfo, token, claims, proven); err != nil {
		return "", nil, err
	}
	if !slices.Contains(oauth.ParseScopes(claims.Scope), oauth.ScopeOpenID) {
		return "", nil, needsOpenID(claims.Scope)
	}
	c, err := s.clients.Client(ctx, claims.ClientID)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil, invalidToken(clients.Unknown(claims.ClientID, err).Rule)
	} else if err != nil {
		return "", nil, fmt.Errorf("read client: %w", err)
	}
	visitOf(ctx).noteClient(c)
	view, scopes, err := s.liveGrantOf(ctx, claims, c)
	if errors.Is(err, errNotAdmitted) {
		return "", nil, invalidToken(oauth.RuleUserNotAdmitted)
	} else if errors.Is(err, errNotAssured) {
		return "", nil, invalidToken(oauth.RuleFactorNeeded)
	} else if err != nil && verdict(err) {
		return "", nil, invalidToken(oauth.RuleAccessTokenInvalid)
	} else if err != nil {
		return "", nil, fmt.Errorf("read grant: %w", err)
	}
	if !slices.Contains(scopes, oauth.ScopeOpenID) { // it was withdrawn since
		return "", nil, needsOpenID(oauth.JoinScopes(scopes))
	}
	wishes, err := storedWishes(view.Grant)
	if err != nil {
		return "", nil, err
	}
	if claims.Origin != "" {
		wishes = nil // they are of the grant's client, and the token is another's
	}
	who, about := userinfoClaims{Subject: claims.Subject}, s.userClaims(c, view.User.User, scopes, wishes)
	if c.UserinfoSignedResponseAlg == "" {
		body, err = json.Marshal(withClaims{who, about})
		contentType = "application/json"
	} else {
		who.Issuer, who.Audience = s.cfg.Issuer, c.ID
		var signed string
		signed, err = s.sign(ctx, registeredAlg(c.UserinfoSignedResponseAlg), typID, withClaims{who, about})
		contentType, body = "application/jwt", []byte(signed)
	}
	if err != nil {
		return "", nil, fmt.Errorf("tell about a user: %w", err)
	}
	return contentType, body, nil
}

func needsOpenID(scope string) *oauth.Error {
	return oauth.Refuse(oauth.CodeInsufficientScope, oauth.RuleScopeOpenID, "userinfo needs the scope openid").
		About(oauth.Cut(scope, maxShownURI), oauth.ScopeOpenID, "")
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
