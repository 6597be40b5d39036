package server

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Dynamic client registration (RFC 7591, OpenID Connect Dynamic Client Registration 1.0) and its management (RFC 7592). It is
// off unless the configuration turns it on, and then wants an initial access token, if the configuration names any. Where it
// names none, anybody may register: a client then costs one write, so registrations are slowed down, and such a client gets tokens
// of users only, not of its own.
//
// A client that registered itself belongs to no app: nothing is delivered for it. Its owner manages it with the registration
// access token that came with the registration; an operator sees it (warifu get clients), and removes it (warifu delete client).
// Its secret stays through replacements, unless these make it a client without one. Its subjects stay: another sector is another client.

// Registrations that one replica takes, a second and at once; one that makes it fetch something counts twice.
const (
	registrationRate  = 5
	registrationBurst = 50
)

var errManyRegistrations = errors.New("too many registrations")

// registrationReply is the client information response (RFC 7591 section 3.2.1, RFC 7592 section 3).
func (s *Server) registrationReply(c *storage.Client, token string) (map[string]any, error) {
	reply := registered(c)
	reply["client_id"], reply["client_id_issued_at"] = c.ID, c.CreatedAt.Unix()
	reply["registration_access_token"], reply["registration_client_uri"] = token, s.endpoint(pathRegister+"/"+c.ID)
	if len(c.Secrets) > 0 {
		secret, err := s.store.ClientSecretValue(c)
		if err != nil {
			return nil, err
		}
		reply["client_secret"], reply["client_secret_expires_at"] = secret, 0 // it never does
	}
	return reply, nil
}

// register is the registration endpoint.
func (s *Server) register(w http.ResponseWriter, r *http.Request) error {
	if !s.mayRegister(r) {
		return registrationToken()
	}
	hash, token := storage.NewRegistrationToken()
	now := s.now().UTC()
	c := storage.Client{ID: storage.NewClientID("client"), RegistrationToken: hash, CreatedAt: now, UpdatedAt: now}
	if err := s.readRegistration(r, &c, nil); err != nil {
		return registrationError(err)
	}
	if !s.registrations.Allow() {
		return registrationError(errManyRegistrations)
	}
	s.secrets(&c)
	stored, err := s.store.RegisterClient(r.Context(), c, storage.AuditEntry{
		Actor: storage.ClientActor(c.ID), Action: storage.AuditRegistered, Detail: c.ClientName})
	if err != nil {
		return registrationError(err)
	}
	s.log.InfoContext(r.Context(), "client registered", "client", c.ID)
	return s.tellRegistration(w, http.StatusCreated, stored, token)
}

// secrets gives a client the secret that its method of authentication needs, or takes it away.
func (s *Server) secrets(c *storage.Client) {
	switch needs := c.TokenEndpointAuthMethod == oauth.AuthBasic || c.TokenEndpointAuthMethod == oauth.AuthPost; {
	case !needs:
		c.Secrets = nil
	case len(c.Secrets) == 0:
		secret, _ := s.store.NewClientSecret(c.ID)
		c.Secrets = []storage.ClientSecret{secret}
	}
}

// manage is a client's own address (RFC 7592 section 2): GET reads, PUT replaces, DELETE removes its registration.
func (s *Server) manage(w http.ResponseWriter, r *http.Request) error {
	token := bearerOf(r)
	id := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, s.base), pathRegister+"/")
	visitOf(r.Context()).client = id
	c, err := s.store.Client(r.Context(), id)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return registrationError(err)
	}
	// Whoever has no right to a client does not learn whether it exists. An app's client is nobody's but its manifest's.
	if !c.OwnedBy(token) {
		return registrationToken()
	}
	switch r.Method {
	case http.MethodPut:
		return s.replaceRegistration(w, r, c, token)
	case http.MethodDelete:
		if err := s.store.UnregisterClient(r.Context(), c, storage.AuditEntry{
			Actor: storage.ClientActor(c.ID), Action: storage.AuditUnregistered, Detail: c.ID}); err != nil {
			return registrationError(err)
		}
		s.log.InfoContext(r.Context(), "client unregistered", "client", c.ID)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return s.tellRegistration(w, http.StatusOK, c, token)
}

func (s *Server) replaceRegistration(w http.ResponseWriter, r *http.Request, c *storage.Client, token string) error {
	next := storage.Client{
		ID: c.ID, Secrets: c.Secrets, RegistrationToken: c.RegistrationToken, CreatedAt: c.CreatedAt, UpdatedAt: s.now().UTC(), Revision: c.Revision,
	}
	if err := s.readRegistration(r, &next, c); err != nil {
		return registrationError(err)
	}
	if !keepsSubjects(c, &next) {
		return registrationError(wrongMetadata("subject_type and the sector of pairwise subjects stay as they are: register another client"))
	}
	s.secrets(&next)
	stored, err := s.store.ReplaceClient(r.Context(), next, storage.AuditEntry{
		Actor: storage.ClientActor(c.ID), Action: storage.AuditRegisteredAnew, Detail: next.ClientName})
	if err != nil {
		return registrationError(err)
	}
	return s.tellRegistration(w, http.StatusOK, stored, token)
}

// readRegistration reads the metadata of a request into c. Whoever replaces a registration sends back its client_id, and its
// client_secret or none (RFC 7592 section 2.2).
func (s *Server) readRegistration(r *http.Request, c, held *storage.Client) error {
	contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || contentType != "application/json" {
		return wrongMetadata("Content-Type must be application/json")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return wrongMetadata("the body is larger than 64 KiB")
		}
		return wrongMetadata("the body could not be read")
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil || members == nil {
		return wrongMetadata("the body must be a JSON object")
	}
	m, err := readMetadata(members)
	if err != nil {
		return err
	}
	if held != nil {
		var id, secret *string
		if json.Unmarshal(members["client_id"], &id) != nil || id == nil || *id != held.ID {
			return wrongMetadata("client_id must be that of the client")
		}
		if raw := members["client_secret"]; raw != nil && (json.Unmarshal(raw, &secret) != nil || secret != nil && held.SecretID(*secret) == "") {
			return wrongMetadata("client_secret is not the client's; leave it out")
		}
	}
	return s.fill(r.Context(), c, m)
}

func (s *Server) tellRegistration(w http.ResponseWriter, status int, c *storage.Client, token string) error {
	reply, err := s.registrationReply(c, token)
	if err != nil {
		return err
	}
	writeJSON(w, status, reply)
	return nil
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
	case errors.Is(err, storage.ErrConflict):
		return busy(oauth.RuleRegistrationConflict, "the registration was changed at the same moment; try again")
	}
	return fmt.Errorf("register client: %w", err)
}

// mayRegister reports whether a request shows one of the initial access tokens, where there are any.
func (s *Server) mayRegister(r *http.Request) bool {
	tokens := s.cfg.Registration.InitialAccessTokens
	shown, right := bearerOf(r), len(tokens) == 0
	for _, token := range tokens {
		right = subtle.ConstantTimeCompare([]byte(shown), []byte(token)) == 1 || right
	}
	return right
}

func bearerOf(r *http.Request) string {
	headers := r.Header.Values("Authorization")
	if len(headers) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, tokenTypeBearer) {
		return ""
	}
	return token
}

// registrationToken is the answer to a token that gives no right to what was asked for (RFC 6750 section 3.1).
func registrationToken() error {
	return oauth.Refuse(oauth.CodeInvalidToken, oauth.RuleRegistrationToken, "the access token is missing, or does not allow this")
}
