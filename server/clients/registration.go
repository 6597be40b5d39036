package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Registrations that one replica takes, a second and at once, which is more than one address may have at once; and how
// often it fetches something for them: who sends it after one address after the other keeps nobody from registering.
const (
	registrationRate  = 5
	registrationBurst = 200
	sectorBurst       = 50
)

var errManyRegistrations = errors.New("too many registrations")

// Vouched reports whether an operator answers for a client, and so for the addresses that it has registered: a manifest
// describes it, or it registered with an initial access token. Anybody can publish a document, or register where no
// such token is asked for. Of those that registered before this was written down, nothing is known.
func Vouched(c *storage.Client) bool {
	return c.Revision != 0 && (len(c.RegistrationToken) == 0 || c.Vouched)
}

// Register registers a client of what it says of itself, and returns the token with which it is managed. may is asked,
// once all is well, whether whoever registers may do so now. The client is vouched for when it showed an initial access
// token.
func (s *Clients) Register(ctx context.Context, members map[string]json.RawMessage, vouched bool,
	may func() bool) (*storage.Client, string, error) {
	hash, token := storage.NewRegistrationToken()
	now := s.Now().UTC()
	c := storage.Client{ID: storage.NewClientID("client"), RegistrationToken: hash, Vouched: vouched,
		CreatedAt: now, UpdatedAt: now}
	if err := s.read(ctx, &c, members); err != nil {
		return nil, "", registrationError(err)
	}
	if !may() || !s.registrations.Allow() {
		return nil, "", registrationError(errManyRegistrations)
	}
	s.secrets(&c)
	stored, err := s.Store.RegisterClient(ctx, c, storage.AuditEntry{
		Actor: storage.ClientActor(c.ID), Action: storage.AuditRegistered, Detail: c.ClientName})
	if err != nil {
		return nil, "", registrationError(err)
	}
	s.Logger.InfoContext(ctx, "client registered", "client", c.ID)
	return stored, token, nil
}

// Replace replaces the registration of a client. Whoever does so sends back its client_id, and its client_secret or
// none (RFC 7592 section 2.2). It is as much work as a registration, so may is asked as there.
func (s *Clients) Replace(ctx context.Context, c *storage.Client, members map[string]json.RawMessage,
	may func() bool) (*storage.Client, error) {
	var id, secret *string
	if json.Unmarshal(members["client_id"], &id) != nil || id == nil || *id != c.ID {
		return nil, wrongMetadata("client_id must be that of the client")
	}
	if raw := members["client_secret"]; raw != nil &&
		(json.Unmarshal(raw, &secret) != nil || secret != nil && c.SecretID(*secret) == "") {
		return nil, wrongMetadata("client_secret is not the client's; leave it out")
	}
	next := storage.Client{
		ID: c.ID, Secrets: c.Secrets, RegistrationToken: c.RegistrationToken, Vouched: c.Vouched,
		CreatedAt: c.CreatedAt, UpdatedAt: s.Now().UTC(), Revision: c.Revision,
	}
	if err := s.read(ctx, &next, members); err != nil {
		return nil, registrationError(err)
	}
	if !SameSubjects(c, &next) {
		return nil, wrongMetadata("subject_type and the sector of pairwise subjects stay as they are: " +
			"register another client")
	}
	if !may() || !s.registrations.Allow() {
		return nil, registrationError(errManyRegistrations)
	}
	s.secrets(&next)
	stored, err := s.Store.ReplaceClient(ctx, next, storage.AuditEntry{
		Actor: storage.ClientActor(c.ID), Action: storage.AuditRegisteredAnew, Detail: next.ClientName})
	if err != nil {
		return nil, registrationError(err)
	}
	return stored, nil
}

// Unregister removes a client that registered itself.
func (s *Clients) Unregister(ctx context.Context, c *storage.Client) error {
	grants, err := s.Store.CountGrants(ctx, c.ID)
	if err != nil {
		return registrationError(err)
	}
	if err := s.Store.UnregisterClient(ctx, c, storage.AuditEntry{
		Actor: storage.ClientActor(c.ID), Action: storage.AuditUnregistered,
		Detail: fmt.Sprintf("%s: grants that end: %d", c.ID, grants)}); err != nil {
		return registrationError(err)
	}
	s.Logger.InfoContext(ctx, "client unregistered", "client", c.ID)
	return nil
}

func (s *Clients) read(ctx context.Context, c *storage.Client, members map[string]json.RawMessage) error {
	m, err := readMetadata(members)
	if err != nil {
		return err
	}
	return s.fill(ctx, c, m)
}

// secrets gives a client the secret that its method of authentication needs, or takes it away.
func (s *Clients) secrets(c *storage.Client) {
	switch needs := c.TokenEndpointAuthMethod == oauth.AuthBasic || c.TokenEndpointAuthMethod == oauth.AuthPost; {
	case !needs:
		c.Secrets = nil
	case len(c.Secrets) == 0:
		secret, _ := s.Store.NewClientSecret(c.ID)
		c.Secrets = []storage.ClientSecret{secret}
	}
}

// registrationError is what is wrong with the metadata, as a refusal, or a fault.
func registrationError(err error) error {
	var wrong *oauth.Error
	busy := func(rule, description string) error {
		return oauth.Refuse(oauth.CodeTemporarilyUnavailable, rule, "%s", description)
	}
	switch {
	case errors.As(err, &wrong):
		return wrong
	case errors.Is(err, errManyRegistrations):
		return busy(oauth.RuleRateLimit, "too many registrations; try again later")
	case errors.Is(err, storage.ErrTooMany):
		return busy(oauth.RuleRegistrationsFull, "as many clients have registered themselves as this server takes")
	case errors.Is(err, storage.ErrConflict):
		return busy(oauth.RuleRegistrationConflict, "the registration was changed at the same moment; try again")
	}
	return fmt.Errorf("register client: %w", err)
}
