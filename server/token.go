package server

import (
	"context"
	"net/http"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// The token endpoint (RFC 6749 section 3.2). Each grant type is one file, which goes from the parameters to the
// transaction and back: code.go, refresh.go, clientcredentials.go, device.go, tokenexchange.go. A new one is such a
// file, and a row of the table below.

// grant is a grant type that the token endpoint can serve.
type grant struct {
	name  string
	needs string // the required parameter; empty if there is none
	// serve decides on a request of a client that has authenticated and registered the grant type.
	serve func(s *Server, ctx context.Context, q *clientRequest) (any, error)
}

// grants are in the order of discovery.
var grants = []grant{
	{oauth.GrantAuthorizationCode, "code", (*Server).redeemCode},
	{oauth.GrantRefreshToken, "refresh_token", (*Server).refresh},
	{oauth.GrantClientCredentials, "", (*Server).clientCredentials},
	{oauth.GrantDeviceCode, "device_code", (*Server).pollDevice},
	{oauth.GrantTokenExchange, "subject_token", (*Server).exchangeToken},
}

// grantNamed is the grant type of that name; nil if there is none.
func grantNamed(name string) *grant {
	for i := range grants {
		if grants[i].name == name {
			return &grants[i]
		}
	}
	return nil
}

// token is the token endpoint.
func (s *Server) token(w http.ResponseWriter, r *http.Request) error {
	q, err := s.clientRequest(r, pathToken)
	if err != nil {
		return err
	}
	s.serving.Add(1)
	defer s.serving.Add(-1)
	reply, err := s.grant(r.Context(), q)
	err = s.settle(r.Context(), q.client, err)
	s.countGrant(r, q, err)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, reply)
	return nil
}

func (s *Server) grant(ctx context.Context, q *clientRequest) (any, error) {
	name := q.form.Get("grant_type")
	grant := grantNamed(name)
	switch {
	case name == "":
		return nil, invalidRequest(oauth.RuleGrantTypeMissing, "grant_type is missing")
	case grant == nil || !s.offers(name):
		return nil, s.unsupportedGrantType(name)
	case !q.client.Client.MayUse(name):
		return nil, unauthorizedClient(q.client.Client, name)
	case grant.needs != "" && !q.form.Has(grant.needs):
		return nil, missing(grant.needs)
	}
	return grant.serve(s, ctx, q)
}

// missing is the refusal of a request without a parameter that it needs.
func missing(parameter string) *oauth.Error {
	return invalidRequest(oauth.RuleParameterMissing, parameter+" is missing")
}

// tokenReply is the reply of RFC 6749 section 5.1.
type tokenReply struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope"`
	IDToken      string `json:"id_token,omitempty"`
}

// tokens are those of a grant that is stored: the refresh token, unless it has no generation, and what is signed for
// the user.
func (iss *issuer) tokens(refresh refreshToken, scopes []string, user *storage.User, sign signing) (any, error) {
	sealed := ""
	if refresh.Generation > 0 {
		var err error
		if sealed, err = iss.sealRefresh(refresh); err != nil {
			return nil, err
		}
	}
	jwts, err := sign(user)
	if err != nil {
		return nil, err
	}
	return tokenReply{
		AccessToken: jwts.access, TokenType: jwts.kind, ExpiresIn: int64(iss.life.AccessToken / time.Second),
		RefreshToken: sealed, Scope: oauth.JoinScopes(scopes), IDToken: jwts.id,
	}, nil
}

// grantEnds is when a grant ends that begins now. A client that may not refresh has nothing left of it after the access
// token.
func (iss *issuer) grantEnds(c *storage.Client, now time.Time) time.Time {
	if c.MayUse(oauth.GrantRefreshToken) {
		return now.Add(iss.life.RefreshAbsolute).UTC()
	}
	return now.Add(iss.life.AccessToken).UTC()
}

// keptBy is the refresh token that a client gets: none, if it may not refresh.
func keptBy(c *storage.Client, refresh refreshToken) refreshToken {
	if !c.MayUse(oauth.GrantRefreshToken) {
		return refreshToken{}
	}
	return refresh
}
