package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Introspection (RFC 7662): what a token is good for, to whoever may know.
//
// A client may ask about its own tokens, access and refresh. A resource server may ask about access tokens that are for
// it: whose audience has its identifier. It is one of the configuration ([ResourceServer]), or a client that speaks for
// resource servers ([oauth.Client.Resources]). About everything else the answer is the same, active: false, whatever is
// asked (RFC 7662 section 4). Of a token for the issuer only its client is told, and a resource server of the
// configuration that is the issuer's: apps cannot name the issuer as a resource of theirs.
//
// With Accept: application/token-introspection+jwt the answer is signed (RFC 9701): by the algorithm that the client
// has registered for that (introspection_signed_response_alg), or RS256.
//
// A scope that was withdrawn from the client or from the catalogue since the token was issued is not told any more, and
// a token of which no scope is left is not active: what app.yml says now counts, and not what a token says of itself.
//
// Asking costs at most one read, which sees the grant, the user and the client as etcd has them.

// typIntrospection is the media type of a signed reply, and with typ in front of it the type of its JWT (RFC 9701
// sections 4 and 5).
const typIntrospection = "token-introspection+jwt"

// asker is who introspects.
type asker struct {
	id     string
	client bool     // of storage; it may ask about its own tokens
	named  bool     // it may be told the user's name; not whoever is to know users by a pairwise subject only
	speaks []string // the identifiers for which it speaks
	alg    string   // of signed replies
}

// introspection is the reply of RFC 7662 section 2.2, with cnf (RFC 9449 section 6.2), act (RFC 8693 section 7.2), and
// acr and auth_time (RFC 9470 section 6.2).
type introspection struct {
	Active    bool          `json:"active"`
	Scope     string        `json:"scope,omitempty"`
	ClientID  string        `json:"client_id,omitempty"`
	Username  string        `json:"username,omitempty"`
	TokenType string        `json:"token_type,omitempty"`
	Expires   int64         `json:"exp,omitempty"`
	IssuedAt  int64         `json:"iat,omitempty"`
	Subject   string        `json:"sub,omitempty"`
	Audience  audience      `json:"aud,omitempty"`
	Issuer    string        `json:"iss,omitempty"`
	ID        string        `json:"jti,omitempty"`
	Confirm   *confirmation `json:"cnf,omitempty"`
	Actor     *actor        `json:"act,omitempty"`
	ACR       string        `json:"acr,omitempty"`
	AuthTime  int64         `json:"auth_time,omitempty"`

	// About are claims about the user: groups, if the token has that scope, and those of its access tokens.
	About map[string]any `json:"-"`
}

// MarshalJSON writes the claims about the user beside the others.
func (i introspection) MarshalJSON() ([]byte, error) {
	type members introspection // without this method
	return withClaims{members(i), i.About}.MarshalJSON()
}

// signedIntrospection is a signed reply (RFC 9701 section 5).
type signedIntrospection struct {
	Issuer        string        `json:"iss"`
	Audience      string        `json:"aud"`
	IssuedAt      int64         `json:"iat"`
	Introspection introspection `json:"token_introspection"`
}

// introspection is the introspection endpoint.
func (s *Server) introspection(w http.ResponseWriter, r *http.Request) error {
	who, token, err := s.asker(r)
	if err != nil {
		return err
	}
	reply, err := s.introspect(r.Context(), who, token)
	switch {
	case err != nil && !verdict(err):
		return fmt.Errorf("introspect: %w", err)
	case err != nil:
		reply = introspection{}
	}
	if !accepts(r.Header, "application/"+typIntrospection) {
		writeJSON(w, http.StatusOK, reply)
		return nil
	}
	signed, err := s.sign(r.Context(), registeredAlg(who.alg), typIntrospection, signedIntrospection{
		Issuer: s.cfg.Issuer, Audience: who.id, IssuedAt: s.now().Unix(), Introspection: reply})
	if err != nil {
		return err
	}
	writeBody(w, http.StatusOK, []string{"application/" + typIntrospection}, []byte(signed))
	return nil
}

// asker authenticates the one that introspects, a resource server of the configuration or a client that is not public,
// and gives the token that it asks about.
func (s *Server) asker(r *http.Request) (asker, string, error) {
	form, err := clientForm(r)
	if err != nil {
		return asker{}, "", err
	}
	shown, err := credentialsOf(r, form, pathIntrospect)
	if err != nil {
		return asker{}, "", err
	}
	visitOf(r.Context()).client = shown.id
	sent, err := decode[oidc.IntrospectionRequest](form)
	switch {
	case err != nil:
		return asker{}, "", err
	case shown.method == oauth.AuthNone:
		if c, err := s.store.Client(r.Context(), shown.id); err == nil {
			visitOf(r.Context()).noteClient(c)
		}
		return asker{}, "", invalidClient(oauth.RuleIntrospectionPublic)
	case sent.Token == "":
		return asker{}, "", missing("token")
	}
	if i := slices.IndexFunc(s.cfg.ResourceServers,
		func(known ResourceServer) bool { return known.ID != "" && known.ID == shown.id }); i >= 0 {
		server := s.cfg.ResourceServers[i]
		want, got := sha256.Sum256([]byte(server.Secret)), sha256.Sum256([]byte(shown.secret))
		if subtle.ConstantTimeCompare(want[:], got[:]) == 0 || server.Secret == "" {
			return asker{}, "", invalidClient(oauth.RuleResourceServerSecret)
		}
		return asker{id: shown.id, speaks: []string{server.Identifier}}, sent.Token, nil
	}
	c, err := s.identify(r.Context(), shown)
	if err != nil {
		return asker{}, "", err
	}
	if err := s.spend(r.Context(), c); err != nil {
		return asker{}, "", err
	}
	if c.Public {
		return asker{}, "", invalidClient(oauth.RuleIntrospectionPublic)
	}
	return asker{id: c.ID, client: true, named: c.SubjectType != oauth.SubjectPairwise, speaks: s.speaksFor(c.Client),
		alg: c.IntrospectionSignedResponseAlg}, sent.Token, nil
}

// accepts reports whether the Accept header names a media type (RFC 9110 section 12.5.1).
func accepts(header http.Header, mediaType string) bool {
	for _, line := range header.Values("Accept") {
		for part := range strings.SplitSeq(line, ",") {
			name, params, err := mime.ParseMediaType(part)
			if q := params["q"]; err == nil && name == mediaType && (q == "" || strings.Trim(q, "0.") != "") {
				return true
			}
		}
	}
	return false
}

// introspect says what a token is good for, if the asker may know. [storage.ErrNotFound] is not active.
func (s *Server) introspect(ctx context.Context, who asker, token string) (introspection, error) {
	if strings.HasPrefix(token, string(storage.SealRefresh)) {
		return s.introspectRefresh(ctx, who, token)
	}
	claims, err := s.verifyAccess(token)
	if err != nil {
		return introspection{}, err
	}
	own := who.client && claims.ClientID == who.id
	if !own && !oauth.ShareResource(who.speaks, claims.Audience) {
		return introspection{}, storage.ErrNotFound
	}
	username, scopes, about, err := s.liveToken(ctx, claims, own)
	if err != nil {
		return introspection{}, err
	}
	reply := introspection{
		Active: true, Scope: oauth.JoinScopes(scopes), ClientID: claims.ClientID, TokenType: kindOf(claims.key()),
		Expires:  claims.Expires,
		IssuedAt: claims.IssuedAt, Subject: claims.Subject, Audience: claims.Audience, Issuer: claims.Issuer, ID: claims.ID,
		Confirm: claims.Confirm, Actor: claims.Actor, ACR: claims.ACR, AuthTime: claims.AuthTime, About: about,
	}
	if own && who.named {
		reply.Username = username
	}
	return reply, nil
}

// liveToken finds whether what an access token stands for is still there: one read. It gives the name under which
// people know the user, which a client's own token does not have, the scopes that are left to the token, and the claims
// about the user that go with them. authenticated says that its client has just done so. The error is a verdict, or a
// fault.
func (s *Server) liveToken(ctx context.Context, claims accessClaims, authenticated bool) (username string,
	scopes []string, about map[string]any, err error) {
	if claims.own() {
		c, err := s.store.CurrentClient(ctx, claims.ClientID, claims.ended().ID)
		if err == nil && !claims.issuedTo(c) {
			err = storage.ErrNotFound
		}
		if err != nil {
			return "", nil, nil, err
		}
		if scopes = s.ownOffered(c, oauth.ParseScopes(claims.Scope)); len(scopes) == 0 {
			err = storage.ErrNotFound
		}
		return "", scopes, nil, err
	}
	var c *storage.Client
	if authenticated {
		if c, err = s.clients.Client(ctx, claims.ClientID); err != nil {
			return "", nil, nil, err
		}
	}
	view, scopes, err := s.liveGrantOf(ctx, claims, c)
	if err != nil {
		return "", nil, nil, err
	}
	names := append([]string{claimGroups}, view.holder.AccessTokenClaims...)
	if tells := s.tokenTells(view.holder, scopes, names); tells != nil {
		about = tells(view.User.User)
	}
	return view.User.login(), scopes, about, nil
}

func (s *Server) introspectRefresh(ctx context.Context, who asker, sealed string) (introspection, error) {
	var token refreshToken
	if err := s.open(storage.SealRefresh, sealed, &token); err != nil {
		return introspection{}, err
	}
	expires := token.expires(s.life)
	if !who.client || token.Client != who.id || !s.now().Before(expires) {
		return introspection{}, storage.ErrNotFound
	}
	view, err := s.liveGrant(ctx, who.id, token.Grant, token.User)
	if err != nil {
		return introspection{}, err
	}
	if view.Generation != token.Generation {
		return introspection{}, storage.ErrNotFound
	}
	c, err := s.clientAt(ctx, nil, who.id, view.ClientRevision)
	if err != nil {
		return introspection{}, err
	}
	scopes := s.offered(c, token.Scopes)
	if len(scopes) == 0 || !admits(c, view.User.User) || !s.assuredOf(view.User.User, c, token.Class, token.AMR) {
		return introspection{}, storage.ErrNotFound
	}
	sub, err := s.subject(c, token.User)
	if err != nil {
		return introspection{}, err
	}
	reply := introspection{
		Active: true, Scope: oauth.JoinScopes(scopes), ClientID: who.id, Expires: expires.Unix(),
		IssuedAt: token.Issued / 1000,
		Subject:  sub, Issuer: s.cfg.Issuer, Confirm: confirm(token.DPoPKey),
	}
	if who.named {
		reply.Username = view.User.login()
	}
	return reply, nil
}
