package clients

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"

	strict "github.com/go-jose/go-jose/v4/json"

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

// Members reads the members of a JSON object, each of which comes once: of two of one name, readers do not agree on
// which one counts.
func Members(text []byte) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	var whole any
	if json.Unmarshal(text, &members) != nil || members == nil || strict.Unmarshal(text, &whole) != nil {
		return nil, errNoObject // the error would quote what is there
	}
	return members, nil
}

var errNoObject = errors.New("not a JSON object with each member once")

// readMetadata reads the members of a JSON object. Unknown ones are ignored, as RFC 7591 section 2 says.
func readMetadata(members map[string]json.RawMessage) (*clientMetadata, error) {
	m := new(clientMetadata)
	if err := m.ReadMetadata(members); err != nil {
		return nil, err
	}
	for name, to := range map[string]any{
		"response_types": &m.ResponseTypes, "application_type": &m.ApplicationType,
		"id_token_encrypted_response_alg": &m.IDTokenEncryptedAlg,
		"userinfo_encrypted_response_alg": &m.UserinfoEncryptedAlg,
		"request_object_encryption_alg":   &m.RequestObjectEncryptionAlg,
	} {
		if raw := members[name]; raw != nil && json.Unmarshal(raw, to) != nil {
			return nil, wrongMetadata("%s does not have the type that RFC 7591 defines", name)
		}
	}
	return m, nil
}

// fill puts metadata into a client's record, defaults written out, or says what is wrong with it. The rules are those
// that manifests have, but for the policy. A client that may not have what it asks for is refused, and not given
// something else.
func (s *Clients) fill(ctx context.Context, c *storage.Client, m *clientMetadata) error {
	c.AnyScope = len(m.Scopes) == 0 || !Described(c) && !c.Vouched
	s.writeDefaults(c.ID, m)
	if err := checkResponseTypes(m); err != nil {
		return err
	}
	if err := checkDocumentSector(c, &m.Client); err != nil {
		return err
	}
	policy := s.registrationPolicy()
	policy.Native = m.ApplicationType == applicationNative
	if wrong := oauth.RefuseMetadata(oauth.Check(&m.Client, policy)); wrong != nil {
		return wrong
	}
	c.Client, c.ApplicationType = m.Client, m.ApplicationType
	if c.SectorIdentifierURI != "" {
		if !s.mayFetchFor(c, c.SectorIdentifierURI) {
			return errManyRegistrations
		}
		if err := s.CheckSector(ctx, c.SectorIdentifierURI, c.RedirectURIs); err != nil {
			s.tell(ctx, slog.LevelInfo, "sector identifier refused", "error", err)
			return wrongMetadata("the document at sector_identifier_uri cannot be fetched, or does not list all redirect URIs")
		}
	}
	return nil
}

// registrationPolicy is what a client may have that nobody but itself vouches for.
func (s *Clients) registrationPolicy() oauth.Policy {
	return oauth.Policy{
		GrantTypes: s.GrantTypes, Scopes: s.Scopes, MaxRedirectURIs: maxRedirectURIs, MaxScopes: s.MaxScopes,
		Repeats: true, ForeignKeys: true, OwnSector: true, Strangers: s.Open,
	}
}

// writeDefaults writes out what a registration leaves out, and leaves out the scopes that this server does not have for
// it: a client that was told by a resource server what to ask for cannot do better, and finds those that it has in the
// reply (RFC 7591 section 3.2.1). The scopes of one that names none are OpenID Connect's: what else there is to reach
// is to be asked for by name.
func (s *Clients) writeDefaults(id string, m *clientMetadata) {
	if m.ClientName = strings.TrimSpace(m.ClientName); m.ClientName == "" {
		m.ClientName = id
	}
	if len(m.GrantTypes) == 0 {
		m.GrantTypes = oauth.UsualGrantTypes()
	}
	if m.Scopes = oauth.Within(m.Scopes, s.Scopes); len(m.Scopes) == 0 {
		m.Scopes = slices.Clone(s.DefaultScopes)
	}
	if len(m.Scopes) == 0 { // it may have none of them
		m.Scopes = slices.Clone(s.Scopes)
	}
	if m.TokenEndpointAuthMethod == "" {
		m.TokenEndpointAuthMethod = oauth.AuthBasic
	}
	m.Public = m.TokenEndpointAuthMethod == oauth.AuthNone
	if m.SubjectType == "" {
		m.SubjectType = oauth.SubjectPublic
	}
	if m.ApplicationType == "" {
		m.ApplicationType = applicationWeb
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
	case m.ApplicationType != applicationWeb && m.ApplicationType != applicationNative:
		return wrongMetadata("application_type must be web or native")
	case m.IDTokenEncryptedAlg+m.UserinfoEncryptedAlg+m.RequestObjectEncryptionAlg != "":
		return wrongMetadata("this server does not encrypt")
	}
	return nil
}

// checkDocumentSector keeps the pairwise subjects of a document to the host that it is at: unlike a registration, it
// may become another one while its grants live. All else about sectors is for [oauth.Check].
func checkDocumentSector(c *storage.Client, said *oauth.Client) error {
	if said.SubjectType != oauth.SubjectPairwise || !Described(c) {
		return nil
	}
	sector, err := said.Sector(c.ID)
	if err == nil && sector != oauth.OwnSector(c.ID) && sector != oauth.HostOf(c.ID) {
		return wrongMetadata("in a document, the sector of pairwise subjects must be the host of the document")
	}
	return nil // what is wrong with the sector itself, oauth.Check says
}

// SameSubjects reports whether two clients know their users by the same subjects. One whose registration was replaced
// must know them as before: otherwise it could move into another sector with the grants that it has.
func SameSubjects(before, after *storage.Client) bool {
	if before.SubjectType != oauth.SubjectPairwise && after.SubjectType != oauth.SubjectPairwise {
		return true
	}
	one, err1 := before.Sector(before.ID)
	other, err2 := after.Sector(after.ID)
	return before.SubjectType == after.SubjectType && errors.Join(err1, err2) == nil && one == other
}

// Values of application_type (OpenID Connect Dynamic Client Registration 1.0 section 2). What it forbids of each is for
// the implicit flow, which this server does not have; so a client on loopback may be either, or say nothing.
const (
	applicationWeb    = "web"
	applicationNative = "native"
)

// Metadata is a client's record as its owner is told it.
func Metadata(c *storage.Client) map[string]any {
	members := c.Metadata()
	members["application_type"] = cmp.Or(c.ApplicationType, applicationWeb)
	if slices.Contains(c.GrantTypes, oauth.GrantAuthorizationCode) {
		members["response_types"] = []string{"code"}
	}
	if c.IDTokenSignedResponseAlg == "" {
		members[oauth.FieldOf("idTokenSignedResponseAlg").Name] = oauth.DefaultAlg
	}
	return members
}
