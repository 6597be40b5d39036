package admin

import (
	"encoding/json"
	"time"

	"github.com/warifu/warifu/storage"
)

// Client is an OAuth client, without its secrets. Metadata that is left out has its default value.
type Client struct {
	ID                     string   `json:"id"`
	App                    string   `json:"app"`
	Name                   string   `json:"name"`
	Public                 bool     `json:"public"`
	Disabled               bool     `json:"disabled"`
	RedirectURIs           []string `json:"redirectUris" nullable:"false"`
	PostLogoutRedirectURIs []string `json:"postLogoutRedirectUris,omitempty"`
	Scopes                 []string `json:"scopes" nullable:"false"`
	LogoURI                string   `json:"logoUri,omitempty"`
	TosURI                 string   `json:"tosUri,omitempty"`
	PolicyURI              string   `json:"policyUri,omitempty"`

	GrantTypes                  []string `json:"grantTypes" nullable:"false" doc:"How it gets tokens."`
	TokenEndpointAuthMethod     string   `json:"tokenEndpointAuthMethod,omitempty" doc:"How it authenticates. When left out: with its secret, in the header or in the body, or not at all if it is public."`
	TokenEndpointAuthSigningAlg string   `json:"tokenEndpointAuthSigningAlg,omitempty"`
	KeyIDs                      []string `json:"keyIds,omitempty" doc:"Ids of the keys that it signs with."`
	JWKSURI                     string   `json:"jwksUri,omitempty" doc:"Where those keys are fetched from."`

	IDTokenSignedResponseAlg       string `json:"idTokenSignedResponseAlg,omitempty"`
	UserinfoSignedResponseAlg      string `json:"userinfoSignedResponseAlg,omitempty"`
	IntrospectionSignedResponseAlg string `json:"introspectionSignedResponseAlg,omitempty"`
	RequestObjectSigningAlg        string `json:"requestObjectSigningAlg,omitempty"`

	RequirePushedAuthorizationRequests bool `json:"requirePushedAuthorizationRequests,omitempty"`
	DPoPBoundAccessTokens              bool `json:"dpopBoundAccessTokens,omitempty"`

	SubjectType         string `json:"subjectType,omitempty"`
	SectorIdentifierURI string `json:"sectorIdentifierUri,omitempty"`
	DefaultMaxAge       *int64 `json:"defaultMaxAge,omitempty" doc:"In seconds."`
	RequireAuthTime     bool   `json:"requireAuthTime,omitempty"`
	InitiateLoginURI    string `json:"initiateLoginUri,omitempty"`

	BackchannelLogoutURI              string `json:"backchannelLogoutUri,omitempty"`
	BackchannelLogoutSessionRequired  bool   `json:"backchannelLogoutSessionRequired,omitempty"`
	FrontchannelLogoutURI             string `json:"frontchannelLogoutUri,omitempty"`
	FrontchannelLogoutSessionRequired bool   `json:"frontchannelLogoutSessionRequired,omitempty"`

	ResourceIdentifiers []string `json:"resourceIdentifiers,omitempty" doc:"The resource servers that it speaks for: it may introspect tokens for them."`

	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

func clientOf(c *storage.Client) Client {
	return Client{
		ID: c.ID, App: c.App, Name: c.ClientName, Public: c.Public, Disabled: c.Disabled,
		RedirectURIs: listed(c.RedirectURIs), PostLogoutRedirectURIs: c.PostLogoutRedirectURIs, Scopes: listed(c.Scopes),
		LogoURI: c.LogoURI, TosURI: c.TOSURI, PolicyURI: c.PolicyURI,

		GrantTypes:                  c.RegisteredGrants(),
		TokenEndpointAuthMethod:     c.TokenEndpointAuthMethod,
		TokenEndpointAuthSigningAlg: c.TokenEndpointAuthSigningAlg,
		KeyIDs:                      keyIDs(c.JWKS),
		JWKSURI:                     c.JWKSURI,

		IDTokenSignedResponseAlg:       c.IDTokenSignedResponseAlg,
		UserinfoSignedResponseAlg:      c.UserinfoSignedResponseAlg,
		IntrospectionSignedResponseAlg: c.IntrospectionSignedResponseAlg,
		RequestObjectSigningAlg:        c.RequestObjectSigningAlg,

		RequirePushedAuthorizationRequests: c.RequirePushedAuthorizationRequests,
		DPoPBoundAccessTokens:              c.DPoPBoundAccessTokens,

		SubjectType: c.SubjectType, SectorIdentifierURI: c.SectorIdentifierURI, DefaultMaxAge: c.DefaultMaxAge,
		RequireAuthTime: c.RequireAuthTime, InitiateLoginURI: c.InitiateLoginURI,

		BackchannelLogoutURI:              c.BackchannelLogoutURI,
		BackchannelLogoutSessionRequired:  c.BackchannelLogoutSessionRequired,
		FrontchannelLogoutURI:             c.FrontchannelLogoutURI,
		FrontchannelLogoutSessionRequired: c.FrontchannelLogoutSessionRequired,

		ResourceIdentifiers: c.ResourceIdentifiers, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
	}
}

// keyIDs are those of a JWK Set; a key without one is only counted by its type.
func keyIDs(jwks string) []string {
	var set struct {
		Keys []struct {
			ID   string `json:"kid"`
			Type string `json:"kty"`
		} `json:"keys"`
	}
	if jwks == "" || json.Unmarshal([]byte(jwks), &set) != nil {
		return nil
	}
	var ids []string
	for _, key := range set.Keys {
		if key.ID == "" {
			key.ID = key.Type + " key without id"
		}
		ids = append(ids, key.ID)
	}
	return ids
}
