package plugins

import "github.com/warifu/warifu/plugins/pluginpb"

func registrationToPB(r *Registration) *pluginpb.Registration {
	if r == nil {
		return nil
	}
	return &pluginpb.Registration{
		ClientName: r.ClientName, RedirectUris: r.RedirectURIs, Scopes: r.Scopes, Public: r.Public,
		LogoUri: r.LogoURI, TosUri: r.TOSURI, PolicyUri: r.PolicyURI,
		PostLogoutRedirectUris: r.PostLogoutRedirectURIs,

		GrantTypes:                         r.GrantTypes,
		TokenEndpointAuthMethod:            r.TokenEndpointAuthMethod,
		TokenEndpointAuthSigningAlg:        r.TokenEndpointAuthSigningAlg,
		Jwks:                               r.JWKS,
		JwksUri:                            r.JWKSURI,
		IdTokenSignedResponseAlg:           r.IDTokenSignedResponseAlg,
		UserinfoSignedResponseAlg:          r.UserinfoSignedResponseAlg,
		IntrospectionSignedResponseAlg:     r.IntrospectionSignedResponseAlg,
		RequestObjectSigningAlg:            r.RequestObjectSigningAlg,
		RequirePushedAuthorizationRequests: r.RequirePushedAuthorizationRequests,
		DpopBoundAccessTokens:              r.DPoPBoundAccessTokens,
		SubjectType:                        r.SubjectType,
		SectorIdentifierUri:                r.SectorIdentifierURI,
		DefaultMaxAge:                      r.DefaultMaxAge,
		RequireAuthTime:                    r.RequireAuthTime,
		InitiateLoginUri:                   r.InitiateLoginURI,
		BackchannelLogoutUri:               r.BackchannelLogoutURI,
		BackchannelLogoutSessionRequired:   r.BackchannelLogoutSessionRequired,
		FrontchannelLogoutUri:              r.FrontchannelLogoutURI,
		FrontchannelLogoutSessionRequired:  r.FrontchannelLogoutSessionRequired,
		ResourceIdentifiers:                r.ResourceIdentifiers,
	}
}

func registrationFromPB(r *pluginpb.Registration) *Registration {
	if r == nil {
		return nil
	}
	return &Registration{
		ClientName: r.GetClientName(), RedirectURIs: r.GetRedirectUris(), Scopes: r.GetScopes(), Public: r.GetPublic(),
		LogoURI: r.GetLogoUri(), TOSURI: r.GetTosUri(), PolicyURI: r.GetPolicyUri(),
		PostLogoutRedirectURIs: r.GetPostLogoutRedirectUris(),
		ClientMetadata: ClientMetadata{
			GrantTypes:                         r.GetGrantTypes(),
			TokenEndpointAuthMethod:            r.GetTokenEndpointAuthMethod(),
			TokenEndpointAuthSigningAlg:        r.GetTokenEndpointAuthSigningAlg(),
			JWKS:                               r.GetJwks(),
			JWKSURI:                            r.GetJwksUri(),
			IDTokenSignedResponseAlg:           r.GetIdTokenSignedResponseAlg(),
			UserinfoSignedResponseAlg:          r.GetUserinfoSignedResponseAlg(),
			IntrospectionSignedResponseAlg:     r.GetIntrospectionSignedResponseAlg(),
			RequestObjectSigningAlg:            r.GetRequestObjectSigningAlg(),
			RequirePushedAuthorizationRequests: r.GetRequirePushedAuthorizationRequests(),
			DPoPBoundAccessTokens:              r.GetDpopBoundAccessTokens(),
			SubjectType:                        r.GetSubjectType(),
			SectorIdentifierURI:                r.GetSectorIdentifierUri(),
			RequireAuthTime:                    r.GetRequireAuthTime(),
			InitiateLoginURI:                   r.GetInitiateLoginUri(),
			BackchannelLogoutURI:               r.GetBackchannelLogoutUri(),
			BackchannelLogoutSessionRequired:   r.GetBackchannelLogoutSessionRequired(),
			FrontchannelLogoutURI:              r.GetFrontchannelLogoutUri(),
			FrontchannelLogoutSessionRequired:  r.GetFrontchannelLogoutSessionRequired(),
			ResourceIdentifiers:                r.GetResourceIdentifiers(),
			DefaultMaxAge:                      r.DefaultMaxAge, // absent is not 0
		},
	}
}
