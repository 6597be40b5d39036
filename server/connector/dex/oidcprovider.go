package dex

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
)

// oidcProvider is what the discovery document of a provider says, with the configuration's overrides.
type oidcProvider struct {
	connector   *oidcConnector
	issuer      string // of ID tokens, and of authorization responses
	scopes      []string
	endpoint    oauth2.Endpoint
	post        bool   // the secret is shown in the body of requests
	challenge   string // the method of PKCE, "" for none
	tellsIssuer bool   // RFC 9207: every authorization response has iss
	algs        []string
	keys        *oidcKeys
	userInfoURL string
	endSession  *url.URL
}

const (
	pkceS256  = "S256"
	pkcePlain = "plain"
	// maxRefreshToken is the longest refresh token that is kept.
	maxRefreshToken = 16 << 10
)

// oidcAlgs are the algorithms that ID tokens can be signed with; a secret that two know signs nothing here.
var oidcAlgs = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512,
	jose.EdDSA,
}

// discover reads the discovery document (OpenID Connect Discovery 1.0 section 4).
func (c *oidcConnector) discover(ctx context.Context) (*oidcProvider, error) {
	ctx = gooidc.ClientContext(ctx, c.client)
	if c.config.IssuerAlias != "" {
		ctx = gooidc.InsecureIssuerURLContext(ctx, c.config.IssuerAlias)
	}
	discovered, err := gooidc.NewProvider(ctx, c.config.Issuer)
	if err != nil {
		return nil, scrubbed("the discovery document", err)
	}
	var metadata struct {
		JWKSURI           string   `json:"jwks_uri"`
		EndSession        string   `json:"end_session_endpoint"`
		Scopes            []string `json:"scopes_supported"`
		Challenges        []string `json:"code_challenge_methods_supported"`
		Algs              []string `json:"id_token_signing_alg_values_supported"`
		TokenEndpointAuth []string `json:"token_endpoint_auth_methods_supported"`
		TellsIssuer       bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := discovered.Claims(&metadata); err != nil {
		return nil, errors.New("the discovery document: a member has another type than it should have")
	}
	overrides := c.config.ProviderDiscoveryOverrides
	issuer := cmp.Or(c.config.IssuerAlias, c.config.Issuer)
	p := &oidcProvider{
		connector: c,
		issuer:    issuer,
		endpoint: oauth2.Endpoint{
			AuthURL:  cmp.Or(overrides.AuthURL, discovered.Endpoint().AuthURL),
			TokenURL: cmp.Or(overrides.TokenURL, discovered.Endpoint().TokenURL),
		},
		scopes:      c.scopes(metadata.Scopes),
		post:        c.posts(metadata.TokenEndpointAuth),
		challenge:   c.config.PKCEChallenge,
		tellsIssuer: metadata.TellsIssuer,
	}
	for _, alg := range oidcAlgs {
		if slices.Contains(metadata.Algs, string(alg)) {
			p.algs = append(p.algs, string(alg))
		}
	}
	for _, method := range []string{pkceS256, pkcePlain} {
		if p.challenge == "" && slices.Contains(metadata.Challenges, method) {
			p.challenge = method
		}
	}
	jwks := cmp.Or(overrides.JWKSURL, metadata.JWKSURI)
	for name, address := range map[string]string{
		"authorization_endpoint": p.endpoint.AuthURL, "token_endpoint": p.endpoint.TokenURL, "jwks_uri": jwks,
	} {
		if u, err := url.Parse(address); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("the discovery document: %s is not an https URL", name)
		}
	}
	if end := cmp.Or(overrides.EndSessionURL, metadata.EndSession); end != "" {
		p.endSession, err = url.Parse(end)
		if err != nil || p.endSession.Host == "" || p.endSession.Scheme != "https" && p.endSession.Scheme != "http" {
			return nil, errors.New("the discovery document: end_session_endpoint is not an https URL")
		}
	}
	p.userInfoURL = cmp.Or(overrides.UserInfoURL, discovered.UserInfoEndpoint())
	p.keys = &oidcKeys{client: c.client, address: jwks}
	return p, nil
}

// scopes are what is asked for. A refresh token is asked for only if it is used; a provider that has a scope for that
// (OpenID Connect Core 1.0 section 11) is asked by it.
func (c *oidcConnector) scopes(supported []string) []string {
	asked := c.config.Scopes
	if len(asked) == 0 {
		asked = []string{"profile", "email"}
	}
	scopes := []string{gooidc.ScopeOpenID}
	if c.ask && slices.Contains(supported, gooidc.ScopeOfflineAccess) {
		asked = append(slices.Clone(asked), gooidc.ScopeOfflineAccess)
	}
	for _, scope := range asked {
		if !slices.Contains(scopes, scope) && (c.ask || scope != gooidc.ScopeOfflineAccess) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// posts reports whether the secret is shown in the body of requests alone (client_secret_post).
func (c *oidcConnector) posts(supported []string) bool {
	if c.config.BasicAuthUnsupported != nil && *c.config.BasicAuthUnsupported || c.config.ClientSecret == "" {
		return true
	}
	u, err := url.Parse(c.config.Issuer)
	if c.config.BasicAuthUnsupported == nil && err == nil {
		for _, host := range []string{"okta.com", "oktapreview.com"} { // as in Dex
			if u.Host == host || strings.HasSuffix(u.Host, "."+host) {
				return true
			}
		}
	}
	return slices.Contains(supported, "client_secret_post") && !slices.Contains(supported, "client_secret_basic")
}

func (p *oidcProvider) client(style oauth2.AuthStyle) *oauth2.Config {
	endpoint := p.endpoint
	endpoint.AuthStyle = style
	return &oauth2.Config{
		ClientID: p.connector.config.ClientID, ClientSecret: p.connector.config.ClientSecret, Endpoint: endpoint,
		RedirectURL: p.connector.callback, Scopes: p.scopes,
	}
}

// verifiedToken is an ID token that is to be believed.
type verifiedToken struct {
	sub, nonce string
	claims     map[string]any
	amr        []string
	acr        string
	authTime   int64 // seconds since 1970; 0: not told
	issued     int64 // likewise (iat)
}

// verify checks an ID token as OpenID Connect Core 1.0 section 3.1.3.7 says, but for the nonce.
func (p *oidcProvider) verify(ctx context.Context, raw, accessToken string) (verifiedToken, error) {
	keys := &seenKeys{oidcKeys: p.keys}
	token, err := gooidc.NewVerifier(p.issuer, keys, &gooidc.Config{
		ClientID: p.connector.config.ClientID, SupportedSigningAlgs: p.algs,
	}).Verify(ctx, raw)
	if keys.fault != nil {
		return verifiedToken{}, scrubbed("the keys (jwks_uri)", keys.fault)
	}
	if err != nil {
		return verifiedToken{}, connector.Refuse("the ID token is not valid: %.300s", oauth.Redact(err.Error()))
	}
	var told struct {
		AZP      *string  `json:"azp"`
		AMR      []string `json:"amr"`
		ACR      string   `json:"acr"`
		AuthTime float64  `json:"auth_time"`
	}
	v := verifiedToken{sub: token.Subject, nonce: token.Nonce}
	if err := errors.Join(token.Claims(&told), token.Claims(&v.claims)); err != nil {
		return verifiedToken{}, connector.Refuse("the ID token has a claim of another type than it should have")
	}
	v.amr, v.acr, v.authTime, v.issued = told.AMR, told.ACR, int64(told.AuthTime), token.IssuedAt.Unix()
	switch {
	case v.sub == "":
		return verifiedToken{}, connector.Refuse("the ID token names no user (sub)")
	case token.IssuedAt.IsZero():
		return verifiedToken{}, connector.Refuse("the ID token does not say when it was issued (iat)")
	case told.AZP != nil && *told.AZP != p.connector.config.ClientID:
		return verifiedToken{}, connector.Refuse("the ID token was issued to another client (azp)")
	case told.AZP == nil && len(token.Audience) > 1:
		return verifiedToken{}, connector.Refuse("the ID token is for several (aud), and not issued to us (azp)")
	case token.AccessTokenHash != "" && token.VerifyAccessToken(accessToken) != nil:
		return verifiedToken{}, connector.Refuse("the ID token belongs to another access token (at_hash)")
	}
	return v, nil
}

// seenKeys tells a fault, when keys cannot be had, from a signature that is wrong. One is used for one token.
type seenKeys struct {
	*oidcKeys
	fault error
}

// VerifySignature is that of [gooidc.KeySet].
func (k *seenKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := k.verify(ctx, token)
	if fault := (keyFault{}); errors.As(err, &fault) {
		k.fault = fault.error
	}
	return payload, err
}

// userInfo puts what the userinfo endpoint tells over the claims of the ID token, if it is about the same person
// (OpenID Connect Core 1.0 section 5.3.4).
func (p *oidcProvider) userInfo(ctx context.Context, token *oauth2.Token, sub string, claims map[string]any) (
	map[string]any, error) {
	if p.userInfoURL == "" {
		return nil, errors.New("the provider has no userinfo endpoint, and getUserInfo is set")
	}
	body, kind, err := fetched(ctx, p.connector.client, p.userInfoURL, token.AccessToken)
	if err == nil && isJWT(kind) {
		body, err = p.keys.verify(ctx, string(body))
	}
	if errors.Is(err, errNoKey) {
		return nil, connector.Refuse("what the userinfo endpoint tells is signed by somebody else")
	}
	if err != nil {
		return nil, scrubbed("the userinfo endpoint", err)
	}
	var about struct {
		Sub string `json:"sub"`
	}
	if err := json.Unmarshal(body, &about); err != nil {
		return nil, scrubbed("the userinfo endpoint", err)
	}
	if about.Sub != sub {
		return nil, connector.Refuse("the userinfo endpoint tells about another person (sub) than the ID token")
	}
	if err := json.Unmarshal(body, &claims); err != nil {
		return nil, scrubbed("the userinfo endpoint", err)
	}
	return claims, nil
}

// isJWT reports whether a response is a JWT, as what a userinfo endpoint tells is if it is signed (OpenID Connect Core
// 1.0 section 5.3.2).
func isJWT(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "application/jwt"
}
