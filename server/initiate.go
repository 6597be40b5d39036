package server

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// start sends a user who begins here to an app, which then begins a sign-in (OpenID Connect Core 1.0 section 4): a
// portal can link to /oauth/start?client_id=... and need not know the addresses of apps.
//
// It leads nowhere but to the initiate_login_uri of a registered client, and not of one that is a document, which
// anybody can publish; a page of the app that is asked for (target_link_uri) must be of the same origin. Who somebody
// is, the app learns when they sign in: login_hint is never sent.
func (s *Server) start(w http.ResponseWriter, r *http.Request) {
	to, err := s.startOf(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.goToApp(w, r, "", pages.Back{RedirectURI: to, Link: to})
}

// startOf is the address where the app begins a sign-in.
func (s *Server) startOf(r *http.Request) (string, error) {
	bad := func(rule, developer string) error {
		return onPage(pages.ReasonInvalidRequest, invalidRequest(rule, developer))
	}
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", bad(oauth.RuleParameterMalformed, "the parameters are not well-formed")
	}
	for _, name := range []string{"client_id", "target_link_uri"} {
		if len(params[name]) > 1 {
			return "", bad(oauth.RuleParameterRepeated, name+" comes more than once")
		}
	}
	id := params.Get("client_id")
	if id == "" {
		return "", bad(oauth.RuleClientMissing, "client_id is missing")
	}
	v := visitOf(r.Context())
	v.client, v.params = id, params
	c, err := s.store.Client(r.Context(), id)
	if errors.Is(err, storage.ErrNotFound) {
		return "", onPage(pages.ReasonInvalidClient, clients.Unknown(id, err))
	}
	if err != nil {
		return "", err
	}
	v.noteClient(c)
	u, err := url.Parse(c.InitiateLoginURI)
	if err != nil || oauth.CheckRedirectURI(c.InitiateLoginURI) != nil || strings.HasSuffix(u.Host, ":*") {
		return "", bad(oauth.RuleStartUnregistered,
			"the client has not registered an initiateLoginUri, so it has to be begun at the app")
	}
	query := url.Values{"iss": {s.cfg.Issuer}}
	if target := params.Get("target_link_uri"); target != "" {
		if !sameOriginAs(u, target) {
			return "", bad(oauth.RuleStartTarget, "target_link_uri is of another origin than the client's initiateLoginUri")
		}
		query.Set("target_link_uri", target)
	}
	return withQuery(c.InitiateLoginURI, query), nil
}

// sameOriginAs reports whether target is an address of the same origin as u, spelled as it is in u. [oauth.SameOrigin]
// takes other spellings as well, but the app is handed this one on, and may not.
func sameOriginAs(u *url.URL, target string) bool {
	t, err := url.Parse(target)
	return err == nil && oauth.CheckRedirectURI(target) == nil && t.Scheme == u.Scheme && t.Host == u.Host
}
