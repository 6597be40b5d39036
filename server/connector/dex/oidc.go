package dex

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/dexidp/dex/connector/oidc"
	"github.com/dexidp/dex/pkg/httpclient"
	"golang.org/x/oauth2"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
)

// oidcConnector signs people in at an OpenID provider, as a relying party of OpenID Connect Core 1.0 section 3.1. It
// has the configuration of Dex's connector of this kind, and tells the same of the same claims (oidcidentity.go). What
// it asks beyond Dex's:
//
//   - the answer is to our question: the nonce is in the ID token, and the answer comes from this issuer (RFC 9207);
//   - the ID token is for us: azp, at_hash, iat, and an algorithm that the provider says it signs with;
//   - what the userinfo endpoint tells is about the person of the ID token;
//   - what the app asked for reaches the upstream: prompt, max_age, login_hint, ui_locales.
//
// Two keys mean a little else than in Dex, where both follow the scopes of the app. A refresh token is asked for (the
// scope offline_access, and prompt=consent) only where the upstream is asked again, since nothing else uses it. And a
// promptType that the configuration names goes along with every request.
type oidcConnector struct {
	config   oidc.Config
	callback string
	// ask is whether refresh tokens are asked for and kept; trust, whether amr, acr and auth_time are told.
	ask, trust   bool
	groupsFilter *regexp.Regexp
	log          *slog.Logger
	client       *http.Client
	provider     lazy[*oidcProvider]
	// post: the provider takes our secret in the body alone.
	post atomic.Bool
}

var (
	_ connector.Redirect  = (*oidcConnector)(nil)
	_ connector.Refresher = (*oidcConnector)(nil)
	_ connector.SignOuter = (*oidcConnector)(nil)
)

func buildOIDC(s Spec, config any) (connector.Connector, []Fault) {
	c := &oidcConnector{
		config: *config.(*oidc.Config), //nolint:forcetypeassert // the table has it from the same row
		ask:    s.Ask > 0, trust: s.TrustUpstream, log: slog.New(slog.DiscardHandler),
	}
	if s.Logger != nil {
		c.log = s.Logger.With("connector", s.ID)
	}
	var r report
	if c.check(&r, s); len(r.faults) > 0 {
		return connector.Connector{}, r.faults
	}
	if c.config.ProviderDiscoveryOverrides != (oidc.ProviderDiscoveryOverrides{}) {
		c.log.Warn("providerDiscoveryOverrides are set: they replace endpoints in the provider's own metadata")
	}
	c.provider.open = c.discover
	return connector.Connector{ID: s.ID, Ask: s.Ask, Redirect: c}, nil
}

// check says what is wrong with the configuration, and makes what follows from it.
func (c *oidcConnector) check(r *report, s Spec) {
	r.required("issuer", c.config.Issuer)
	r.address("issuer", c.config.Issuer)
	r.required("clientID", c.config.ClientID)
	c.callback = r.callback(c.config.RedirectURI, s)
	overrides := c.config.ProviderDiscoveryOverrides
	r.address("providerDiscoveryOverrides.tokenURL", overrides.TokenURL)
	r.address("providerDiscoveryOverrides.authURL", overrides.AuthURL)
	r.address("providerDiscoveryOverrides.jwksURL", overrides.JWKSURL)
	r.address("providerDiscoveryOverrides.userInfoURL", overrides.UserInfoURL)
	r.address("providerDiscoveryOverrides.deviceAuthURL", overrides.DeviceAuthURL)
	r.address("providerDiscoveryOverrides.endSessionURL", overrides.EndSessionURL)
	r.oneOf("pkceChallenge", c.config.PKCEChallenge, pkceS256, pkcePlain)
	//lint:ignore SA1019 files of Dex may still have it
	if len(c.config.HostedDomains) > 0 {
		r.fault("hostedDomains", "value", "", "is not for this type of connector: type google has it")
	}
	if filter := c.config.ClaimMutations.FilterGroupClaims.GroupsFilter; filter != "" {
		var err error
		if c.groupsFilter, err = regexp.Compile(filter); err != nil {
			r.fault("claimModifications.filterGroupClaims.groupsFilter", "value", "",
				"is not a regular expression: %v", err)
		}
	}
	for i, authority := range c.config.RootCAs {
		r.authority(index("rootCAs", i), authority)
	}
	client, err := httpclient.NewHTTPClient(c.config.RootCAs, c.config.InsecureSkipVerify)
	if err != nil {
		if len(r.faults) == 0 {
			r.fault("rootCAs", "value", "", "cannot be used")
		}
		return
	}
	c.client = boundedClient(client)
}

// roundings are the seconds by which two times in whole seconds, told one after the other, can be wrong.
const roundings = 2

// oidcKept is what Start keeps for Finish.
type oidcKept struct {
	Verifier string `json:"v,omitempty"` // RFC 7636
	Begun    int64  `json:"t"`           // seconds since 1970
}

// Start sends the browser to the authorization endpoint (OpenID Connect Core 1.0 section 3.1.2.1).
func (c *oidcConnector) Start(ctx context.Context, ask connector.Ask) (connector.Away, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p, err := c.provider.get(ctx)
	if err != nil {
		return connector.Away{}, err
	}
	params := map[string]string{
		"nonce": ask.Nonce, "login_hint": ask.LoginHint, "ui_locales": ask.UILocales,
		"acr_values": strings.Join(c.config.AcrValues, " "), "prompt": c.prompt(ask),
	}
	if ask.Fresh {
		params["max_age"] = "0"
	}
	if c.ask {
		params["access_type"] = "offline" // Google's way to ask for a refresh token
	}
	var options []oauth2.AuthCodeOption
	for name, value := range params {
		if value != "" {
			options = append(options, oauth2.SetAuthURLParam(name, value))
		}
	}
	kept := oidcKept{Begun: time.Now().Unix()}
	if p.challenge != "" {
		kept.Verifier = oauth2.GenerateVerifier()
		if p.challenge == pkceS256 {
			options = append(options, oauth2.S256ChallengeOption(kept.Verifier))
		} else {
			options = append(options, oauth2.SetAuthURLParam("code_challenge", kept.Verifier),
				oauth2.SetAuthURLParam("code_challenge_method", pkcePlain))
		}
	}
	keep, err := json.Marshal(kept)
	if err != nil {
		return connector.Away{}, fmt.Errorf("what is kept for the answer: %w", err)
	}
	return connector.Away{URL: p.client(oauth2.AuthStyleAutoDetect).AuthCodeURL(ask.State, options...), Keep: keep}, nil
}

// prompt is what the upstream is to show (OpenID Connect Core 1.0 section 3.1.2.1). As with Dex, whoever asks for a
// refresh token asks for consent as well, unless the configuration says otherwise.
func (c *oidcConnector) prompt(ask connector.Ask) string {
	var prompts []string
	if ask.Fresh {
		prompts = append(prompts, "login")
	}
	if ask.SelectAccount {
		prompts = append(prompts, "select_account")
	}
	usual := ""
	if c.config.PromptType != nil {
		usual = *c.config.PromptType
	} else if c.ask {
		usual = "consent"
	}
	for _, prompt := range strings.Fields(usual) {
		// none is either alone or an error.
		if !slices.Contains(prompts, prompt) && (prompt != "none" || len(prompts) == 0) {
			prompts = append(prompts, prompt)
		}
	}
	return strings.Join(prompts, " ")
}

// Finish takes the authorization response, exchanges the code and says who the ID token is about.
func (c *oidcConnector) Finish(ctx context.Context, ask connector.Ask, keep []byte, r *http.Request) (
	connector.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var kept oidcKept
	if err := json.Unmarshal(keep, &kept); err != nil {
		return connector.Identity{}, fmt.Errorf("what was kept for the answer: %w", err)
	}
	answer, err := answerOf(r)
	if err != nil {
		return connector.Identity{}, err
	}
	p, err := c.provider.get(ctx)
	if err != nil {
		return connector.Identity{}, err
	}
	code, err := p.codeOf(answer)
	if err != nil {
		return connector.Identity{}, err
	}
	token, err := c.token(ctx, p, func(ctx context.Context, client *oauth2.Config) (*oauth2.Token, error) {
		if kept.Verifier == "" {
			return client.Exchange(ctx, code)
		}
		return client.Exchange(ctx, code, oauth2.VerifierOption(kept.Verifier))
	})
	if err != nil {
		return connector.Identity{}, err
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return connector.Identity{}, connector.Refuse("the token endpoint gave no ID token")
	}
	idToken, err := p.verify(ctx, raw, token.AccessToken)
	if err != nil {
		return connector.Identity{}, err
	}
	if idToken.nonce != ask.Nonce {
		return connector.Identity{}, connector.Refuse("the ID token has another nonce than the request, or none")
	}
	// How long ago the person proved it is told by the provider's clock alone, and the question's age by ours.
	if ask.Fresh && idToken.authTime != 0 && idToken.issued-idToken.authTime > time.Now().Unix()-kept.Begun+roundings {
		return connector.Identity{}, connector.Refuse("the provider has not let the person prove anew who they are " +
			"(prompt=login, max_age=0): auth_time is older than the request")
	}
	return c.identity(ctx, p, token, idToken)
}

// identity is who an ID token that has been verified is about.
func (c *oidcConnector) identity(ctx context.Context, p *oidcProvider, token *oauth2.Token, idToken verifiedToken) (
	connector.Identity, error) {
	claims := idToken.claims
	if c.config.GetUserInfo {
		var err error
		if claims, err = p.userInfo(ctx, token, idToken.sub, claims); err != nil {
			return connector.Identity{}, err
		}
	}
	told, err := c.identityOf(claims, p.scopes)
	if err != nil {
		return connector.Identity{}, err
	}
	who, err := identity(told)
	if err != nil {
		return connector.Identity{}, err
	}
	if c.trust {
		who.AMR, who.ACR = idToken.amr, idToken.acr
		if idToken.authTime > 0 && idToken.authTime < time.Now().Unix() {
			who.AuthTime = time.Unix(idToken.authTime, 0)
		}
	}
	who.Data = c.data(token, idToken.sub)
	return who, nil
}

// oidcData is the Data of a person: what their refresh token is, and whom it is about.
type oidcData struct {
	RefreshToken string `json:"refreshToken"`
	Sub          string `json:"sub"`
}

func (c *oidcConnector) data(token *oauth2.Token, sub string) []byte {
	if !c.ask || token.RefreshToken == "" || len(token.RefreshToken) > maxRefreshToken {
		return nil
	}
	data, err := json.Marshal(oidcData{RefreshToken: token.RefreshToken, Sub: sub})
	if err != nil {
		return nil // never: texts
	}
	return data
}

// Refresh asks with the refresh token (OpenID Connect Core 1.0 section 12). Only two answers are verdicts: that the
// refresh token no longer stands, and that the person is in no allowed group. A provider that gives no ID token, and is
// not asked for userinfo, says that all is as it was.
func (c *oidcConnector) Refresh(ctx context.Context, who connector.Identity) (connector.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var data oidcData
	if err := json.Unmarshal(who.Data, &data); err != nil || data.RefreshToken == "" {
		return connector.Identity{}, errors.New("no refresh token of the provider is kept of this person")
	}
	p, err := c.provider.get(ctx)
	if err != nil {
		return connector.Identity{}, err
	}
	token, err := c.token(ctx, p, func(ctx context.Context, client *oauth2.Config) (*oauth2.Token, error) {
		return client.TokenSource(ctx, &oauth2.Token{RefreshToken: data.RefreshToken}).Token()
	})
	if err != nil {
		return connector.Identity{}, err
	}
	now, err := c.refreshed(ctx, p, token, data.Sub, who)
	if err == nil || errors.Is(err, errNotAllowed) {
		return now, err
	}
	if refused := new(connector.RefusedError); errors.As(err, &refused) {
		err = errors.New(refused.Reason)
	}
	err = fmt.Errorf("the provider's answer to a refresh: %w", err)
	if token.RefreshToken != data.RefreshToken {
		// The refresh token that is kept has been spent: without the new one, the next answer would be no.
		c.log.Warn("the provider's answer about a user is unusable; nothing changes for the user", "error", err)
		who.Data = c.data(token, data.Sub)
		return who, nil
	}
	return connector.Identity{}, err
}

func (c *oidcConnector) refreshed(ctx context.Context, p *oidcProvider, token *oauth2.Token, sub string,
	who connector.Identity) (connector.Identity, error) {
	idToken := verifiedToken{sub: sub}
	if raw, _ := token.Extra("id_token").(string); raw != "" {
		var err error
		if idToken, err = p.verify(ctx, raw, token.AccessToken); err != nil {
			return connector.Identity{}, err
		}
		if idToken.sub != sub {
			return connector.Identity{}, connector.Refuse("the ID token of the refresh is about somebody else")
		}
	} else if !c.config.GetUserInfo {
		who.Data = c.data(token, sub)
		return who, nil
	}
	return c.identity(ctx, p, token, idToken)
}

// SignOutURL is the end_session_endpoint with where to come back (OpenID Connect RP-Initiated Logout 1.0 section 2).
func (c *oidcConnector) SignOutURL(ctx context.Context, back string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p, err := c.provider.get(ctx)
	if err != nil || p.endSession == nil {
		return "", err
	}
	u := *p.endSession
	q := u.Query()
	q.Set("client_id", c.config.ClientID)
	if back != "" {
		q.Set("post_logout_redirect_uri", back)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// answerOf is the authorization response, of the query or, with response_mode form_post, of the form.
func answerOf(r *http.Request) (url.Values, error) {
	if err := r.ParseForm(); err != nil {
		return nil, connector.Refuse("the authorization response cannot be read")
	}
	answer := r.URL.Query()
	if r.Method == http.MethodPost {
		answer = r.PostForm
	}
	for _, name := range []string{"iss", "error", "code"} {
		if len(answer[name]) > 1 {
			return nil, connector.Refuse("the authorization response has %s more than once", name)
		}
	}
	return answer, nil
}

// codeOf is the code of an authorization response. Whose response it is, is looked at first (RFC 9207 section 2.4).
func (p *oidcProvider) codeOf(answer url.Values) (string, error) {
	switch iss, told := answer.Get("iss"), answer.Has("iss"); {
	case told && iss != p.issuer:
		return "", connector.Refuse("the authorization response is of another issuer (iss): %q", oauth.Printable(iss))
	case !told && p.tellsIssuer:
		return "", connector.Refuse("the authorization response names no issuer (iss), although this provider's " +
			"discovery document says that its responses do")
	}
	if err := refusedAtUpstream(answer.Get("error")); err != nil {
		return "", err
	}
	code := answer.Get("code")
	if code == "" {
		return "", connector.Refuse("the authorization response has no code")
	}
	return code, nil
}

// token asks the token endpoint. Which way of showing the secret a provider takes is found out as Dex does, first in
// the header, then in the body, but not by showing a code again that was refused.
func (c *oidcConnector) token(ctx context.Context, p *oidcProvider,
	ask func(context.Context, *oauth2.Config) (*oauth2.Token, error)) (*oauth2.Token, error) {
	ctx = gooidc.ClientContext(ctx, c.client)
	style := oauth2.AuthStyleInHeader
	if p.post || c.post.Load() {
		style = oauth2.AuthStyleInParams
	}
	token, err := ask(ctx, p.client(style))
	if refused := new(oauth2.RetrieveError); style == oauth2.AuthStyleInHeader && errors.As(err, &refused) &&
		saysNothingOfCode(refused) {
		if token, err = ask(ctx, p.client(oauth2.AuthStyleInParams)); err == nil {
			c.post.Store(true)
		}
	}
	if refused := new(oauth2.RetrieveError); errors.As(err, &refused) {
		if refused.ErrorCode == "invalid_grant" {
			return nil, connector.Refuse("the token endpoint says invalid_grant")
		}
		return nil, fmt.Errorf("the token endpoint answers with status %d and says %q", refused.Response.StatusCode,
			oauth.Printable(refused.ErrorCode))
	}
	if err != nil {
		return nil, scrubbed("the token endpoint", err)
	}
	return token, nil
}

// saysNothingOfCode reports whether the token endpoint has not looked at the code, as far as one can tell: it did not
// find out who asks (RFC 6749 section 5.2).
func saysNothingOfCode(refused *oauth2.RetrieveError) bool {
	switch refused.ErrorCode {
	case "invalid_client", "unauthorized_client", "invalid_request":
		return true
	case "":
		status := refused.Response.StatusCode
		return status < http.StatusInternalServerError && status != http.StatusTooManyRequests
	}
	return refused.Response.StatusCode == http.StatusUnauthorized
}
