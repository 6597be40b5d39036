package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// clientMetadata is what a client says of itself when it registers (RFC 7591 section 2, OpenID Connect Dynamic Client
// Registration 1.0 section 2, and what the extensions add), and what it is told that was registered. A member that is not here
// is ignored, as section 2 says, and so is one in another language (#).
type clientMetadata struct {
	ClientName              string          `json:"client_name,omitempty"`
	RedirectURIs            []string        `json:"redirect_uris,omitempty"`
	GrantTypes              []string        `json:"grant_types,omitempty"`
	ResponseTypes           []string        `json:"response_types,omitempty"`
	ApplicationType         string          `json:"application_type,omitempty"`
	Scope                   string          `json:"scope,omitempty"`
	TokenEndpointAuthMethod string          `json:"token_endpoint_auth_method,omitempty"`
	TokenEndpointAuthAlg    string          `json:"token_endpoint_auth_signing_alg,omitempty"`
	JWKS                    json.RawMessage `json:"jwks,omitempty"`
	JWKSURI                 string          `json:"jwks_uri,omitempty"`
	LogoURI                 string          `json:"logo_uri,omitempty"`
	TosURI                  string          `json:"tos_uri,omitempty"`
	PolicyURI               string          `json:"policy_uri,omitempty"`

	IDTokenAlg          string `json:"id_token_signed_response_alg,omitempty"`
	UserinfoAlg         string `json:"userinfo_signed_response_alg,omitempty"`
	IntrospectionAlg    string `json:"introspection_signed_response_alg,omitempty"`
	RequestObjectAlg    string `json:"request_object_signing_alg,omitempty"`
	RequirePushed       bool   `json:"require_pushed_authorization_requests,omitempty"`
	DPoPBound           bool   `json:"dpop_bound_access_tokens,omitempty"`
	SubjectType         string `json:"subject_type,omitempty"`
	SectorIdentifierURI string `json:"sector_identifier_uri,omitempty"`
	DefaultMaxAge       *int64 `json:"default_max_age,omitempty"`
	RequireAuthTime     bool   `json:"require_auth_time,omitempty"`
	InitiateLoginURI    string `json:"initiate_login_uri,omitempty"`

	PostLogoutRedirectURIs     []string `json:"post_logout_redirect_uris,omitempty"`
	BackchannelLogoutURI       string   `json:"backchannel_logout_uri,omitempty"`
	BackchannelLogoutSession   bool     `json:"backchannel_logout_session_required,omitempty"`
	FrontchannelLogoutURI      string   `json:"frontchannel_logout_uri,omitempty"`
	FrontchannelLogoutSession  bool     `json:"frontchannel_logout_session_required,omitempty"`
	IDTokenEncryptedAlg        string   `json:"id_token_encrypted_response_alg,omitempty"`
	UserinfoEncryptedAlg       string   `json:"userinfo_encrypted_response_alg,omitempty"`
	RequestObjectEncryptionAlg string   `json:"request_object_encryption_alg,omitempty"`
}

// Bounds of a registration.
const (
	maxRedirectURIs = 32
	maxClientName   = 100 // characters, as in a manifest
	maxAddress      = 2048
)

// metadataError is an error of RFC 7591 section 3.2.2.
type metadataError struct{ code, description string }

func (e *metadataError) Error() string { return e.code + ": " + e.description }

// Codes of a [metadataError].
const (
	codeInvalidRedirectURI    = "invalid_redirect_uri"
	codeInvalidClientMetadata = "invalid_client_metadata"
)

func wrongMetadata(format string, args ...any) error {
	return &metadataError{codeInvalidClientMetadata, fmt.Sprintf(format, args...)}
}

// fill puts metadata into a client's record, defaults written out, or says what is wrong with it. The rules are those that
// manifests have. A client that may not have what it asks for is refused, and not given something else.
func (s *Server) fill(ctx context.Context, c *storage.Client, m *clientMetadata) error {
	for _, check := range []func(*storage.Client, *clientMetadata) error{
		s.fillGrants, fillRedirects, s.fillScopes, fillAuthentication, fillAlgorithms, s.fillAddresses,
	} {
		if err := check(c, m); err != nil {
			return err
		}
	}
	return s.fillSubject(ctx, c, m)
}

func (s *Server) fillGrants(c *storage.Client, m *clientMetadata) error {
	if len(m.GrantTypes) == 0 {
		m.GrantTypes = oauth.UsualGrantTypes()
	}
	for _, grantType := range m.GrantTypes {
		if !s.offers(grantType) {
			return wrongMetadata("grant_types has %s; this server offers %s", printable(grantType), strings.Join(s.offeredGrants(), ", "))
		}
	}
	// Where anybody may register, a registration must not be enough for a token: these grants ask no user.
	if reg := s.cfg.Registration; reg != nil && len(reg.InitialAccessTokens) == 0 {
		for _, own := range []string{oauth.GrantClientCredentials, oauth.GrantTokenExchange} {
			if slices.Contains(m.GrantTypes, own) {
				return wrongMetadata("grant_types has %s, which is not for clients that anybody may register", own)
			}
		}
	}
	codes := slices.Contains(m.GrantTypes, oauth.GrantAuthorizationCode)
	switch {
	case len(m.ResponseTypes) == 0 && codes:
		m.ResponseTypes = []string{"code"}
	case codes && !slices.Equal(m.ResponseTypes, []string{"code"}), !codes && len(m.ResponseTypes) > 0:
		return wrongMetadata("response_types must be code, and goes together with the grant type authorization_code")
	}
	if m.ApplicationType == "" {
		m.ApplicationType = "web"
	}
	if m.ApplicationType != "web" && m.ApplicationType != "native" {
		return wrongMetadata("application_type must be web or native")
	}
	c.GrantTypes = m.GrantTypes
	if m.DefaultMaxAge != nil && (*m.DefaultMaxAge < 0 || *m.DefaultMaxAge > maxMaxAge) {
		return wrongMetadata("default_max_age must be from 0 to %d", maxMaxAge)
	}
	c.DefaultMaxAge, c.RequireAuthTime = m.DefaultMaxAge, m.RequireAuthTime
	c.RequirePushedAuthorizationRequests, c.DPoPBoundAccessTokens = m.RequirePushed, m.DPoPBound
	return nil
}

func fillRedirects(c *storage.Client, m *clientMetadata) error {
	if len(m.RedirectURIs) == 0 && slices.Contains(c.GrantTypes, oauth.GrantAuthorizationCode) {
		return &metadataError{codeInvalidRedirectURI, "redirect_uris is missing"}
	}
	for name, list := range map[string][]string{"redirect_uris": m.RedirectURIs, "post_logout_redirect_uris": m.PostLogoutRedirectURIs} {
		if len(list) > maxRedirectURIs {
			return &metadataError{codeInvalidRedirectURI, fmt.Sprintf("%s has more than %d entries", name, maxRedirectURIs)}
		}
		for _, uri := range list {
			if err := oauth.CheckRedirectURI(uri); err != nil {
				return &metadataError{codeInvalidRedirectURI, printable(uri) + " in " + name + " " + strings.TrimPrefix(err.Error(), "redirect URI ")}
			}
			// Any port of the user's machine is for an operator to allow, in a manifest.
			if oauth.IsLoopbackRedirect(uri) && strings.Contains(uri, "*") {
				return &metadataError{codeInvalidRedirectURI, printable(uri) + " in " + name + " has a wildcard"}
			}
		}
	}
	c.RedirectURIs, c.PostLogoutRedirectURIs = m.RedirectURIs, m.PostLogoutRedirectURIs
	return nil
}

// fillScopes takes OpenID Connect's scopes when none are asked for: what else there is to reach is to be asked for by name.
func (s *Server) fillScopes(c *storage.Client, m *clientMetadata) error {
	c.Scopes = oauth.ParseScopes(m.Scope)
	if len(c.Scopes) == 0 {
		for _, scope := range standardScopes() {
			c.Scopes = append(c.Scopes, scope.Name)
		}
	}
	if len(c.Scopes) > maxScopes {
		return wrongMetadata("scope lists more than %d scopes", maxScopes)
	}
	if unknown := oauth.Without(c.Scopes, s.catalogue.names); len(unknown) > 0 {
		return wrongMetadata("scope has %s, which this server does not know", printable(unknown[0]))
	}
	m.Scope = oauth.JoinScopes(c.Scopes)
	return nil
}

func fillAuthentication(c *storage.Client, m *clientMetadata) error {
	if m.TokenEndpointAuthMethod == "" {
		m.TokenEndpointAuthMethod = oauth.AuthBasic
	}
	method := m.TokenEndpointAuthMethod
	if string(m.JWKS) == "null" {
		m.JWKS = nil
	}
	hasKeys := len(m.JWKS) > 0 || m.JWKSURI != ""
	switch {
	case !slices.Contains([]string{oauth.AuthBasic, oauth.AuthPost, oauth.AuthPrivateKeyJWT, oauth.AuthNone}, method):
		return wrongMetadata("token_endpoint_auth_method must be %s, %s, %s or %s", oauth.AuthBasic, oauth.AuthPost, oauth.AuthPrivateKeyJWT, oauth.AuthNone)
	case len(m.JWKS) > 0 && m.JWKSURI != "":
		return wrongMetadata("jwks and jwks_uri exclude each other")
	case method == oauth.AuthPrivateKeyJWT && !hasKeys:
		return wrongMetadata("%s needs jwks or jwks_uri", oauth.AuthPrivateKeyJWT)
	case method == oauth.AuthNone && slices.Contains(c.GrantTypes, oauth.GrantClientCredentials):
		return wrongMetadata("a client without authentication may not use the grant type %s", oauth.GrantClientCredentials)
	case m.TokenEndpointAuthAlg != "" && !slices.Contains(oauth.ClientAlgs(), m.TokenEndpointAuthAlg):
		return wrongMetadata("token_endpoint_auth_signing_alg must be one of %s", strings.Join(oauth.ClientAlgs(), ", "))
	}
	if len(m.JWKS) > 0 {
		keys, err := parseKeySet(m.JWKS)
		switch {
		case holdsSecrets(m.JWKS):
			return wrongMetadata("jwks holds a key that is not public: replace it, since it was told, and register the public one")
		case err != nil || len(keys) == 0:
			return wrongMetadata("jwks is not a JWK Set with a public key that this server can use")
		}
		c.JWKS = string(m.JWKS)
	}
	c.JWKSURI = m.JWKSURI
	c.TokenEndpointAuthMethod, c.TokenEndpointAuthSigningAlg, c.Public = method, m.TokenEndpointAuthAlg, method == oauth.AuthNone
	return nil
}

func fillAlgorithms(c *storage.Client, m *clientMetadata) error {
	for _, a := range []struct {
		name, value string
		known       []string
	}{
		{"id_token_signed_response_alg", m.IDTokenAlg, oauth.ServerAlgs()},
		{"userinfo_signed_response_alg", m.UserinfoAlg, oauth.ServerAlgs()},
		{"introspection_signed_response_alg", m.IntrospectionAlg, oauth.ServerAlgs()},
		{"request_object_signing_alg", m.RequestObjectAlg, oauth.RequestObjectAlgs()},
	} {
		if a.value != "" && !slices.Contains(a.known, a.value) {
			return wrongMetadata("%s must be one of %s", a.name, strings.Join(a.known, ", "))
		}
	}
	if m.IDTokenEncryptedAlg+m.UserinfoEncryptedAlg+m.RequestObjectEncryptionAlg != "" {
		return wrongMetadata("this server does not encrypt")
	}
	c.IDTokenSignedResponseAlg, c.UserinfoSignedResponseAlg = m.IDTokenAlg, m.UserinfoAlg
	c.IntrospectionSignedResponseAlg, c.RequestObjectSigningAlg = m.IntrospectionAlg, m.RequestObjectAlg
	return nil
}

func (s *Server) fillAddresses(c *storage.Client, m *clientMetadata) error {
	if m.ClientName = strings.TrimSpace(m.ClientName); m.ClientName == "" {
		m.ClientName = c.ID
	}
	if utf8.RuneCountInString(m.ClientName) > maxClientName || strings.ContainsFunc(m.ClientName, deceptive) {
		return wrongMetadata("client_name is longer than %d characters, or has characters that change the text around it", maxClientName)
	}
	for _, a := range []struct{ name, uri string }{
		{"logo_uri", m.LogoURI}, {"tos_uri", m.TosURI}, {"policy_uri", m.PolicyURI}, {"jwks_uri", m.JWKSURI},
		{"initiate_login_uri", m.InitiateLoginURI}, {"backchannel_logout_uri", m.BackchannelLogoutURI},
		{"frontchannel_logout_uri", m.FrontchannelLogoutURI}, {"sector_identifier_uri", m.SectorIdentifierURI},
	} {
		if a.uri != "" && !plainHTTPS(a.uri) {
			return wrongMetadata("%s must be an https URL without user info and fragment", a.name)
		}
	}
	if m.FrontchannelLogoutURI != "" && !slices.ContainsFunc(m.RedirectURIs, func(redirect string) bool { return sameOrigin(redirect, m.FrontchannelLogoutURI) }) {
		return wrongMetadata("frontchannel_logout_uri must have the scheme, host and port of a redirect URI")
	}
	c.ClientName, c.LogoURI, c.TOSURI, c.PolicyURI = m.ClientName, m.LogoURI, m.TosURI, m.PolicyURI
	c.InitiateLoginURI = m.InitiateLoginURI
	c.BackchannelLogoutURI, c.BackchannelLogoutSessionRequired = m.BackchannelLogoutURI, m.BackchannelLogoutSession
	c.FrontchannelLogoutURI, c.FrontchannelLogoutSessionRequired = m.FrontchannelLogoutURI, m.FrontchannelLogoutSession
	return nil
}

func (s *Server) fillSubject(ctx context.Context, c *storage.Client, m *clientMetadata) error {
	if m.SubjectType == "" {
		m.SubjectType = oauth.SubjectPublic
	}
	if m.SubjectType != oauth.SubjectPublic && m.SubjectType != oauth.SubjectPairwise {
		return wrongMetadata("subject_type must be %s or %s", oauth.SubjectPublic, oauth.SubjectPairwise)
	}
	if m.SectorIdentifierURI != "" {
		if !s.mayFetchFor(c, m.SectorIdentifierURI) {
			return errManyRegistrations
		}
		if err := s.checkSectorIdentifier(ctx, m.SectorIdentifierURI, m.RedirectURIs); err != nil {
			s.log.InfoContext(ctx, "sector identifier refused", "error", err)
			return wrongMetadata("the document at sector_identifier_uri cannot be fetched, or does not list all redirect URIs")
		}
	}
	c.SubjectType, c.SectorIdentifierURI = m.SubjectType, m.SectorIdentifierURI
	return checkOwnSector(c)
}

// checkOwnSector keeps a client that nobody here knows from having the subjects of somebody else's sector. A sector is whose the
// redirect URIs are, and anybody may name those of another app; so tokens must come by way of them, and by no other.
func checkOwnSector(c *storage.Client) error {
	if c.SubjectType != oauth.SubjectPairwise {
		return nil
	}
	sector, err := c.Sector(c.ID)
	switch {
	case err != nil:
		return wrongMetadata("pairwise subjects for redirect URIs of several hosts need a sector_identifier_uri")
	case sector == oauth.OwnSector(c.ID):
		return nil
	case described(c) && sector != hostOf(c.ID):
		// Unlike a registration, a document may become another one while its grants live.
		return wrongMetadata("in a document, the sector of pairwise subjects must be the host of the document")
	case slices.Contains(c.GrantTypes, oauth.GrantDeviceCode):
		return wrongMetadata("pairwise subjects and the grant type %s exclude each other", oauth.GrantDeviceCode)
	case c.SectorIdentifierURI == "" && slices.ContainsFunc(c.RedirectURIs, oauth.IsLoopbackRedirect):
		return wrongMetadata("pairwise subjects for redirect URIs on loopback and elsewhere need a sector_identifier_uri")
	}
	return nil
}

// keepsSubjects says whether a client knows its users by the same subjects after its registration was replaced. Otherwise it could
// move into another sector with the grants that it has.
func keepsSubjects(before, after *storage.Client) bool {
	if before.SubjectType != oauth.SubjectPairwise && after.SubjectType != oauth.SubjectPairwise {
		return true
	}
	one, err1 := before.Sector(before.ID)
	other, err2 := after.Sector(after.ID)
	return before.SubjectType == after.SubjectType && errors.Join(err1, err2) == nil && one == other
}

// registered is a client's record as its owner is told it.
func registered(c *storage.Client) *clientMetadata {
	m := &clientMetadata{
		ClientName: c.ClientName, RedirectURIs: c.RedirectURIs, GrantTypes: c.GrantTypes, Scope: oauth.JoinScopes(c.Scopes),
		TokenEndpointAuthMethod: c.TokenEndpointAuthMethod, TokenEndpointAuthAlg: c.TokenEndpointAuthSigningAlg, JWKSURI: c.JWKSURI,
		LogoURI: c.LogoURI, TosURI: c.TOSURI, PolicyURI: c.PolicyURI,
		IDTokenAlg: c.IDTokenSignedResponseAlg, UserinfoAlg: c.UserinfoSignedResponseAlg, IntrospectionAlg: c.IntrospectionSignedResponseAlg,
		RequestObjectAlg: c.RequestObjectSigningAlg, RequirePushed: c.RequirePushedAuthorizationRequests, DPoPBound: c.DPoPBoundAccessTokens,
		SubjectType: c.SubjectType, SectorIdentifierURI: c.SectorIdentifierURI, DefaultMaxAge: c.DefaultMaxAge, RequireAuthTime: c.RequireAuthTime,
		InitiateLoginURI: c.InitiateLoginURI, PostLogoutRedirectURIs: c.PostLogoutRedirectURIs,
		BackchannelLogoutURI: c.BackchannelLogoutURI, BackchannelLogoutSession: c.BackchannelLogoutSessionRequired,
		FrontchannelLogoutURI: c.FrontchannelLogoutURI, FrontchannelLogoutSession: c.FrontchannelLogoutSessionRequired,
	}
	if c.JWKS != "" {
		m.JWKS = json.RawMessage(c.JWKS)
	}
	if slices.Contains(c.GrantTypes, oauth.GrantAuthorizationCode) {
		m.ResponseTypes = []string{"code"}
	}
	if m.IDTokenAlg == "" {
		m.IDTokenAlg = storage.UseRS256
	}
	return m
}

// deceptive finds characters that could make a page say something else than it holds.
func deceptive(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// plainHTTPS says whether an address is one that a page may link to, or a browser be sent to.
func plainHTTPS(address string) bool {
	u, err := url.Parse(address)
	return err == nil && len(address) <= maxAddress && u.Scheme == "https" && u.Hostname() != "" && u.User == nil && u.Fragment == "" &&
		!strings.ContainsFunc(address, func(r rune) bool { return r <= 0x20 || r >= 0x7f || strings.ContainsRune("\\\"<>^`{|}#", r) })
}

// hostOf is the host of an address, as [storage.Client.Sector] writes it.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

func sameOrigin(a, b string) bool {
	one, err1 := url.Parse(a)
	other, err2 := url.Parse(b)
	return errors.Join(err1, err2) == nil && one.Scheme == other.Scheme && one.Host == other.Host
}
