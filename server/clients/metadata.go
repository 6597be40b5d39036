package clients

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// clientMetadata is what a client says of itself when it registers (RFC 7591 section 2, OpenID Connect Dynamic Client
// Registration 1.0 section 2, and what the extensions add): what the table of client fields has, and what no client is
// asked about later.
type clientMetadata struct {
	oauth.Client
	ResponseTypes   []string `json:"response_types"`
	ApplicationType string   `json:"application_type"`

	IDTokenEncryptedAlg        string `json:"id_token_encrypted_response_alg"`
	UserinfoEncryptedAlg       string `json:"userinfo_encrypted_response_alg"`
	RequestObjectEncryptionAlg string `json:"request_object_encryption_alg"`
}

// maxRedirectURIs bounds each list of redirect URIs of a registration.
const maxRedirectURIs = 32

// wrongMetadata is an error of RFC 7591 section 3.2.2.
func wrongMetadata(format string, args ...any) *oauth.Error {
	return oauth.Refuse(oauth.CodeInvalidClientMetadata, oauth.RuleRegistrationMetadata, format, args...)
}

// readMetadata reads the members of a JSON object. Unknown ones are ignored, as RFC 7591 section 2 says.
func readMetadata(members map[string]json.RawMessage) (*clientMetadata, error) {
	m := new(clientMetadata)
	if err := m.ReadMetadata(members); err != nil {
		return nil, err
	}
	for name, to := range map[string]any{
		"response_types": &m.ResponseTypes, "application_type": &m.ApplicationType, "id_token_encrypted_response_alg": &m.IDTokenEncryptedAlg,
		"userinfo_encrypted_response_alg": &m.UserinfoEncryptedAlg, "request_object_encryption_alg": &m.RequestObjectEncryptionAlg,
	} {
		if raw := members[name]; raw != nil && json.Unmarshal(raw, to) != nil {
			return nil, wrongMetadata("%s does not have the type that RFC 7591 defines", name)
		}
	}
	return m, nil
}

// fill puts metadata into a client's record, defaults written out, or says what is wrong with it. The rules are those that
// manifests have, but for the policy. A client that may not have what it asks for is refused, and not given something else.
func (s *Clients) fill(ctx context.Context, c *storage.Client, m *clientMetadata) error {
	s.writeDefaults(c.ID, m)
	if err := checkResponseTypes(m); err != nil {
		return err
	}
	for _, v := range oauth.Check(&m.Client, s.registrationPolicy()) {
		if !v.Warning {
			return v.Refusal()
		}
	}
	c.Client = m.Client
	if c.SectorIdentifierURI != "" {
		if !s.mayFetchFor(c, c.SectorIdentifierURI) {
			return errManyRegistrations
		}
		if err := s.CheckSector(ctx, c.SectorIdentifierURI, c.RedirectURIs); err != nil {
			s.Logger.InfoContext(ctx, "sector identifier refused", "error", err)
			return wrongMetadata("the document at sector_identifier_uri cannot be fetched, or does not list all redirect URIs")
		}
	}
	return checkOwnSector(c)
}

// registrationPolicy is what a client may have that nobody but itself vouches for.
func (s *Clients) registrationPolicy() oauth.Policy {
	return oauth.Policy{
		GrantTypes: s.GrantTypes, Scopes: s.Scopes, MaxRedirectURIs: maxRedirectURIs, MaxScopes: s.MaxScopes,
		Repeats: true, ForeignKeys: true, Strangers: s.Open,
	}
}

// writeDefaults writes out what a registration leaves out. The scopes are OpenID Connect's: what else there is to reach is to be asked
// for by name.
func (s *Clients) writeDefaults(id string, m *clientMetadata) {
	if m.ClientName = strings.TrimSpace(m.ClientName); m.ClientName == "" {
		m.ClientName = id
	}
	if len(m.GrantTypes) == 0 {
		m.GrantTypes = oauth.UsualGrantTypes()
	}
	if len(m.Scopes) == 0 {
		m.Scopes = slices.Clone(s.DefaultScopes)
	}
	if m.TokenEndpointAuthMethod == "" {
		m.TokenEndpointAuthMethod = oauth.AuthBasic
	}
	m.Public = m.TokenEndpointAuthMethod == oauth.AuthNone
	if m.SubjectType == "" {
		m.SubjectType = oauth.SubjectPublic
	}
	if m.ApplicationType == "" {
		m.ApplicationType = "web"
	}
	if len(m.ResponseTypes) == 0 && slices.Contains(m.GrantTypes, oauth.GrantAuthorizationCode) {
		m.ResponseTypes = []string{"code"}
	}
}

// checkResponseTypes checks what no client is asked about later.
func checkResponseTypes(m *clientMetadata) error {
	codes := slices.Contains(m.GrantTypes, oauth.GrantAuthorizationCode)
	switch {
	case codes && !slices.Equal(m.ResponseTypes, []string{"code"}), !codes && len(m.ResponseTypes) > 0:
		return wrongMetadata("response_types must be code, and goes together with the grant type authorization_code")
	case m.ApplicationType != "web" && m.ApplicationType != "native":
		return wrongMetadata("application_type must be web or native")
	case m.IDTokenEncryptedAlg+m.UserinfoEncryptedAlg+m.RequestObjectEncryptionAlg != "":
		return wrongMetadata("this server does not encrypt")
	}
	return nil
}

// checkOwnSector keeps a client that nobody here knows from having the subjects of somebody else's sector. A sector is
// whose the redirect URIs are, and anybody may name those of another app; so tokens must come by way of them, and by no
// other.
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
	case Described(c) && sector != hostOf(c.ID):
		// Unlike a registration, a document may become another one while its grants live.
		return wrongMetadata("in a document, the sector of pairwise subjects must be the host of the document")
	case slices.Contains(c.GrantTypes, oauth.GrantDeviceCode):
		return wrongMetadata("pairwise subjects and the grant type %s exclude each other", oauth.GrantDeviceCode)
	case c.SectorIdentifierURI == "" && slices.ContainsFunc(c.RedirectURIs, oauth.IsLoopbackRedirect):
		return wrongMetadata("pairwise subjects for redirect URIs on loopback and elsewhere need a sector_identifier_uri")
	}
	return nil
}

// keepsSubjects reports whether a client knows its users by the same subjects after its registration was replaced.
// Otherwise it could move into another sector with the grants that it has.
func keepsSubjects(before, after *storage.Client) bool {
	if before.SubjectType != oauth.SubjectPairwise && after.SubjectType != oauth.SubjectPairwise {
		return true
	}
	one, err1 := before.Sector(before.ID)
	other, err2 := after.Sector(after.ID)
	return before.SubjectType == after.SubjectType && errors.Join(err1, err2) == nil && one == other
}

// Metadata is a client's record as its owner is told it.
func Metadata(c *storage.Client) map[string]any {
	members := c.Metadata()
	if slices.Contains(c.GrantTypes, oauth.GrantAuthorizationCode) {
		members["response_types"] = []string{"code"}
	}
	if c.IDTokenSignedResponseAlg == "" {
		members[oauth.FieldOf("idTokenSignedResponseAlg").Name] = oauth.AlgRS256
	}
	return members
}

// hostOf is the host of an address, as [storage.Client.Sector] writes it.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}
