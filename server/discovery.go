package server

import (
	"slices"

	"github.com/warifu/warifu/server/oauth"
)

// metadata is what discovery says: exactly what works (RFC 8414 section 2, OpenID Connect Discovery 1.0 section 3).
type metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	PushedEndpoint        string   `json:"pushed_authorization_request_endpoint"` // RFC 9126 section 5
	TokenEndpoint         string   `json:"token_endpoint"`
	UserinfoEndpoint      string   `json:"userinfo_endpoint"`
	IntrospectionEndpoint string   `json:"introspection_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	DeviceEndpoint        string   `json:"device_authorization_endpoint,omitempty"` // RFC 8628 section 4
	RegistrationEndpoint  string   `json:"registration_endpoint,omitempty"`         // RFC 7591
	Scopes                []string `json:"scopes_supported"`
	ResponseTypes         []string `json:"response_types_supported"`
	ResponseModes         []string `json:"response_modes_supported"`
	GrantTypes            []string `json:"grant_types_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	IDTokenAlgs           []string `json:"id_token_signing_alg_values_supported"`
	UserinfoAlgs          []string `json:"userinfo_signing_alg_values_supported"`
	DPoPAlgs              []string `json:"dpop_signing_alg_values_supported"` // RFC 9449 section 5.1
	TokenAuth             []string `json:"token_endpoint_auth_methods_supported"`
	IntrospectionAuth     []string `json:"introspection_endpoint_auth_methods_supported"`
	IntrospectionAlgs     []string `json:"introspection_signing_alg_values_supported"` // RFC 9701 section 7
	RevocationAuth        []string `json:"revocation_endpoint_auth_methods_supported"`
	TokenAuthAlgs         []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	IntrospectionAuthAlgs []string `json:"introspection_endpoint_auth_signing_alg_values_supported"`
	RevocationAuthAlgs    []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported"`
	Claims                []string `json:"claims_supported"`
	Prompts               []string `json:"prompt_values_supported"`
	Displays              []string `json:"display_values_supported"`
	ACRs                  []string `json:"acr_values_supported,omitempty"`
	UILocales             []string `json:"ui_locales_supported"`
	Iss                   bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207
	ClaimsParameter       bool     `json:"claims_parameter_supported"`
	RequestParameter      bool     `json:"request_parameter_supported"`
	RequestObjectAlgs     []string `json:"request_object_signing_alg_values_supported"`
	RequestURIParameter   bool     `json:"request_uri_parameter_supported"` // its default is true
	RequirePushed         bool     `json:"require_pushed_authorization_requests"`
	// Draft-ietf-oauth-client-id-metadata-document
	ClientIDDocuments bool `json:"client_id_metadata_document_supported,omitempty"`
	logoutMetadata
}

// logoutMetadata are the parts of OpenID Connect RP-Initiated Logout 1.0 (section 2.1), Back-Channel Logout 1.0
// (section 2.1) and Front-Channel Logout 1.0 (section 3).
type logoutMetadata struct {
	EndSessionEndpoint        string `json:"end_session_endpoint"`
	BackchannelLogout         bool   `json:"backchannel_logout_supported"`
	BackchannelLogoutSession  bool   `json:"backchannel_logout_session_supported"`
	FrontchannelLogout        bool   `json:"frontchannel_logout_supported"`
	FrontchannelLogoutSession bool   `json:"frontchannel_logout_session_supported"`
}

func (s *Server) metadata() metadata {
	// A client that is a workload says private_key_jwt, which is the same on the wire (workload.go): clients know no other
	// word, and whose key signs is between this server and the issuer.
	confidential := []string{oauth.AuthBasic, oauth.AuthPost, oauth.AuthPrivateKeyJWT}
	withNone := append(slices.Clone(confidential), oauth.AuthNone)
	deviceAuth := ""
	if s.offers(oauth.GrantDeviceCode) {
		deviceAuth = s.endpoint(pathDeviceAuth)
	}
	registration := ""
	if s.cfg.Registration != nil {
		registration = s.endpoint(pathRegister)
	}
	return metadata{
		Issuer:                s.cfg.Issuer,
		AuthorizationEndpoint: s.endpoint(pathAuthorize),
		PushedEndpoint:        s.endpoint(pathPushed),
		TokenEndpoint:         s.endpoint(pathToken),
		UserinfoEndpoint:      s.endpoint(pathUserinfo),
		IntrospectionEndpoint: s.endpoint(pathIntrospect),
		RevocationEndpoint:    s.endpoint(pathRevoke),
		JWKSURI:               s.endpoint(pathJWKS),
		DeviceEndpoint:        deviceAuth,
		RegistrationEndpoint:  registration,
		Scopes:                s.catalogue.names,
		ResponseTypes:         []string{"code"},
		ResponseModes:         []string{modeQuery, modeFormPost},
		GrantTypes:            s.offeredGrants(),
		SubjectTypes:          []string{oauth.SubjectPublic, oauth.SubjectPairwise},
		IDTokenAlgs:           oauth.ServerAlgs(),
		UserinfoAlgs:          oauth.ServerAlgs(),
		DPoPAlgs:              oauth.ProofAlgs(),
		TokenAuth:             withNone,
		IntrospectionAuth:     confidential,
		IntrospectionAlgs:     oauth.ServerAlgs(),
		RevocationAuth:        withNone,
		TokenAuthAlgs:         oauth.ClientAlgs(),
		IntrospectionAuthAlgs: oauth.ClientAlgs(),
		RevocationAuthAlgs:    oauth.ClientAlgs(),
		ChallengeMethods:      []string{oauth.ChallengeS256},
		Claims:                s.claimNames(),
		Prompts:               prompts,
		Displays:              displays,
		ACRs:                  s.acrs(),
		UILocales:             []string{"en", "ja"},
		Iss:                   true,
		ClaimsParameter:       true,
		RequestParameter:      true,
		RequestObjectAlgs:     oauth.RequestObjectAlgs(),
		ClientIDDocuments:     s.cfg.ClientIDMetadataDocuments,
		logoutMetadata: logoutMetadata{
			EndSessionEndpoint: s.endpoint(pathLogout),
			BackchannelLogout:  true, BackchannelLogoutSession: true, FrontchannelLogout: true, FrontchannelLogoutSession: true,
		},
	}
}
