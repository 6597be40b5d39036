package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Introspection (RFC 7662): what a token is good for, to whoever may know.
//
// A client may ask about its own tokens, access and refresh. A resource server may ask about access tokens that are for it: whose
// audience has its identifier. It is one of the configuration ([ResourceServer]), or a client that speaks for resource servers
// (ResourceIdentifiers). About everything else the answer is the same, active: false, whatever is asked (RFC 7662 section 4).
// Of a token for the issuer only its client is told, and a resource server of the configuration that is the issuer's: apps cannot
// name the issuer as a resource of theirs.
//
// With Accept: application/token-introspection+jwt the answer is signed (RFC 9701): by the algorithm that the client has registered
// for that (introspection_signed_response_alg), or RS256.
//
// Asking costs one read at the most, which sees the grant, the user and the client as etcd has them.

// typIntrospection is the media type of a signed reply, and with typ in front of it the type of its JWT (RFC 9701 sections 4
// and 5).
const typIntrospection = "token-introspection+jwt"

// asker is who introspects.
type asker struct {
	id     string
	client bool     // of storage; it may ask about its own tokens
	named  bool     // it may be told the user's name; not whoever is to know users by a pairwise subject only
	speaks []string // the identifiers for which it speaks
	alg    string   // of signed replies
}

// introspection is the reply of RFC 7662 section 2.2, with cnf (RFC 9449 section 6.2), act (RFC 8693 section 7.2), and acr and
// auth_time (RFC 9470 section 6.2).
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
}

// signedIntrospection is a signed reply (RFC 9701 section 5).
type signedIntrospection struct {
	Issuer        string        `json:"iss"`
	Audience      string        `json:"aud"`
	IssuedAt      int64         `json:"iat"`
	Introspection introspection `json:"token_introspection"`
}

// introspection is the introspection endpoint. The library knows it as JSON and for clients only, so it is ours.
func (p *provider) introspection(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	if !method(w, r, http.MethodPost) {
		return
	}
	cw := &challenged{ResponseWriter: w, challenge: challengeBasic}
	who, form, err := p.asker(r)
	if err != nil {
		op.WriteError(cw, r, err, nil)
		return
	}
	reply, err := p.introspect(r.Context(), who, form.Get("token"))
	if err != nil && !verdict(err) {
		op.WriteError(cw, r, p.unavailable(r.Context(), "introspecting", err), nil)
		return
	}
	if err != nil {
		reply = introspection{}
	}
	contentType, body := "application/json", []byte(nil)
	if accepts(r.Header, "application/"+typIntrospection) {
		var signed string
		signed, err = p.sign(registeredAlg(who.alg), typIntrospection, signedIntrospection{
			Issuer: p.cfg.Issuer, Audience: who.id, IssuedAt: p.now().Unix(), Introspection: reply})
		contentType, body = "application/"+typIntrospection, []byte(signed)
	} else {
		body, err = json.Marshal(reply)
	}
	if err != nil {
		op.WriteError(cw, r, p.unavailable(r.Context(), "introspecting", err), nil)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body)
}

// asker authenticates who introspects: a resource server of the configuration, or a client that is no public one.
func (p *provider) asker(r *http.Request) (asker, url.Values, error) {
	form, err := p.clientForm(r, pathIntrospect)
	if err != nil {
		return asker{}, nil, err
	}
	id, secret, basic := basicCredentials(r)
	if !basic {
		id, secret = form.Get("client_id"), form.Get("client_secret")
	}
	if i := slices.IndexFunc(p.cfg.ResourceServers, func(s ResourceServer) bool { return s.ID == id }); i >= 0 {
		server := p.cfg.ResourceServers[i]
		want, got := sha256.Sum256([]byte(server.Secret)), sha256.Sum256([]byte(secret))
		if subtle.ConstantTimeCompare(want[:], got[:]) == 0 || server.Secret == "" {
			return asker{}, nil, invalidClient()
		}
		return asker{id: id, speaks: []string{server.Identifier}}, form, nil
	}
	c, err := p.requestClient(r, form, pathIntrospect)
	if err != nil {
		return asker{}, nil, err
	}
	if c.Public {
		return asker{}, nil, invalidClient()
	}
	return asker{id: c.ID, client: true, named: c.SubjectType != oauth.SubjectPairwise, speaks: p.speaksFor(c.Client),
		alg: c.IntrospectionSignedResponseAlg}, form, nil
}

// accepts says whether the Accept header names a media type (RFC 9110 section 12.5.1).
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
func (p *provider) introspect(ctx context.Context, who asker, token string) (introspection, error) {
	if strings.HasPrefix(token, string(storage.SealRefresh)) {
		return p.introspectRefresh(ctx, who, token)
	}
	claims, err := p.verifyAccess(token)
	if err != nil {
		return introspection{}, err
	}
	own := who.client && claims.ClientID == who.id
	if !own && len(oauth.Within(who.speaks, claims.Audience)) == 0 {
		return introspection{}, storage.ErrNotFound
	}
	reply := introspection{
		Active: true, Scope: claims.Scope, ClientID: claims.ClientID, TokenType: kindOf(claims.key()), Expires: claims.Expires,
		IssuedAt: claims.IssuedAt, Subject: claims.Subject, Audience: claims.Audience, Issuer: claims.Issuer, ID: claims.ID,
		Confirm: claims.Confirm, Actor: claims.Actor, ACR: claims.ACR, AuthTime: claims.AuthTime,
	}
	username, err := p.liveToken(ctx, claims, own)
	if err != nil {
		return introspection{}, err
	}
	if own && who.named {
		reply.Username = username
	}
	return reply, nil
}

// liveToken says whether what an access token stands for is still there: one read. It gives the name under which people know the
// user; a client's own token has none. known says that its client has just authenticated. Otherwise the error is a verdict, or a
// fault.
func (p *provider) liveToken(ctx context.Context, claims accessClaims, known bool) (username string, err error) {
	if claims.own() {
		_, err := p.store.CurrentClient(ctx, claims.ClientID, claims.ended().ID)
		return "", err
	}
	view, err := p.liveGrantOf(ctx, claims, known)
	if err != nil {
		return "", err
	}
	return view.User.login(), nil
}

func (p *provider) introspectRefresh(ctx context.Context, who asker, sealed string) (introspection, error) {
	var token refreshToken
	if err := p.open(storage.SealRefresh, sealed, &token); err != nil {
		return introspection{}, err
	}
	expires := token.expires(p.life)
	if !who.client || token.Client != who.id || !p.now().Before(expires) {
		return introspection{}, storage.ErrNotFound
	}
	view, err := p.liveGrant(ctx, who.id, token.Grant, token.User)
	if err != nil {
		return introspection{}, err
	}
	if view.Generation != token.Generation {
		return introspection{}, storage.ErrNotFound
	}
	c, err := p.client(ctx, who.id)
	if err != nil {
		return introspection{}, err
	}
	sub, err := p.subject(c, token.User)
	if err != nil {
		return introspection{}, err
	}
	reply := introspection{
		Active: true, Scope: oauth.JoinScopes(token.Scopes), ClientID: who.id, Expires: expires.Unix(), IssuedAt: token.Issued / 1000,
		Subject: sub, Issuer: p.cfg.Issuer, Confirm: confirm(token.DPoPKey),
	}
	if who.named {
		reply.Username = view.User.login()
	}
	return reply, nil
}
