package admin

import (
	"encoding/json"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/server/oauth"

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

	GrantTypes []string `json:"grantTypes" nullable:"false" doc:"None for an app that is only behind forward auth: it asks for no tokens."`
	KeyIDs     []string `json:"keyIds,omitempty" doc:"Ids of the keys that it signs with."`
	// JWKS is never told: whoever asks wants to know which keys there are, and not the keys.
	JWKS string `json:"jwks,omitempty" hidden:"true"`
	oauth.ClientMetadata

	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`

	AnyScope bool `json:"anyScope,omitempty" doc:"It registered itself, and its scopes are what it asks for when it names none: users may allow it others, up to oauth2.registration.scopes."`
	// Described clients have no registration: what a client says of itself is in its document, and not here.
	Described bool  `json:"described,omitempty" doc:"It is not registered, but described by the document at its id. Only the name that users last saw is known; the rest is left out."`
	Grants    int64 `json:"grants,omitempty" doc:"Live grants of a described client."`
	Consents  int64 `json:"consents,omitempty" doc:"Users who have allowed something to a described client."`
}

func describedClient(c storage.DescribedClient) Client {
	return Client{
		ID: c.ID, Name: c.Name, RedirectURIs: []string{}, Scopes: []string{}, GrantTypes: []string{},
		Described: true, Grants: c.Grants, Consents: c.Consents,
	}
}

// TransformSchema describes the metadata by the words of the table of client fields.
func (Client) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	for _, f := range oauth.Fields() {
		if p := s.Properties[f.Member()]; p != nil && p.Description == "" {
			p.Description = f.About
		}
	}
	return s
}

func clientOf(c *storage.Client) Client {
	grants := c.RegisteredGrants()
	if c.OnlyForwardAuth() { // it has them for the server, which is the client in its place
		grants = nil
	}
	return Client{
		ID: c.ID, App: c.App, Name: c.ClientName, Public: c.Public, Disabled: c.Disabled,
		RedirectURIs: listed(c.RedirectURIs), PostLogoutRedirectURIs: c.PostLogoutRedirectURIs, Scopes: listed(c.Scopes),
		LogoURI: c.LogoURI, TosURI: c.TOSURI, PolicyURI: c.PolicyURI,
		GrantTypes: listed(grants), KeyIDs: keyIDs(c.JWKS), ClientMetadata: c.ClientMetadata,
		CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt, AnyScope: c.AnyScope,
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
