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
	"time"

	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Dynamic client registration (RFC 7591, OpenID Connect Dynamic Client Registration 1.0) and its management (RFC 7592).
// It is off unless the configuration turns it on, and then wants an initial access token, if the configuration names
// any. Where it names none, anybody may register: a client then costs one write, so registrations are slowed down, and
// such a client gets tokens of users only, not of its own, and no browser is sent to it with an error (errors.go): an
// initial access token is the operator's word for a client, and there is none for this one.
//
// A client that registered itself belongs to no app: nothing is delivered for it. Its owner manages it with the
// registration access token that came with the registration; an operator sees it (warifu get clients), and removes it
// (warifu delete client). Its secret stays through replacements, unless these make it a client without one. Its
// subjects stay: another sector is another client.

// registrationReply is the client information response (RFC 7591 section 3.2.1, RFC 7592 section 3).
func (s *Server) registrationReply(c *storage.Client, token string) (map[string]any, error) {
	reply := clients.Metadata(c)
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
		return registrationToken(oauth.RuleRegistrationToken)
	}
	members, err := registrationMembers(r)
	if err != nil {
		return err
	}
	vouched := len(s.cfg.Registration.InitialAccessTokens) > 0
	stored, token, err := s.clients.Register(r.Context(), members, vouched, func() bool { return s.mayRegisterAgain(r) })
	if err != nil {
		return err
	}
	visitOf(r.Context()).noteClient(stored)
	return s.tellRegistration(w, http.StatusCreated, stored, token)
}

// manage is a client's own address (RFC 7592 section 2): GET reads, PUT replaces, DELETE removes its registration.
func (s *Server) manage(w http.ResponseWriter, r *http.Request) error {
	token := bearerOf(r)
	id := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, s.base), pathRegister+"/")
	visitOf(r.Context()).client = id
	c, err := s.store.Client(r.Context(), id)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("find client: %w", err)
	}
	// A caller without a right to a client does not learn whether it exists. An app's client is managed only by its
	// manifest.
	if !c.OwnedBy(token) {
		return registrationToken(oauth.RuleRegistrationAccessToken)
	}
	visitOf(r.Context()).noteClient(c)
	switch r.Method {
	case http.MethodPut:
		return s.replaceRegistration(w, r, c, token)
	case http.MethodDelete:
		if err := s.clients.Unregister(r.Context(), c); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return s.tellRegistration(w, http.StatusOK, c, token)
}

func (s *Server) replaceRegistration(w http.ResponseWriter, r *http.Request, c *storage.Client, token string) error {
	members, err := registrationMembers(r)
	if err != nil {
		return err
	}
	stored, err := s.clients.Replace(r.Context(), c, members, func() bool { return s.mayRegisterAgain(r) })
	if err != nil {
		return err
	}
	return s.tellRegistration(w, http.StatusOK, stored, token)
}

// registrationMembers reads the metadata of a request.
func registrationMembers(r *http.Request) (map[string]json.RawMessage, error) {
	contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || contentType != "application/json" {
		return nil, wrongBody(oauth.RuleContentType, "Content-Type must be application/json")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, wrongBody(oauth.RuleRequestTooLong, "the body is larger than 64 KiB")
		}
		return nil, wrongBody(oauth.RuleBodyMalformed, "the body could not be read")
	}
	members, err := clients.Members(body)
	if err != nil {
		return nil, wrongBody(oauth.RuleBodyMalformed, "the body must be a JSON object with each member once")
	}
	return members, nil
}

// wrongBody is an error of RFC 7591 section 3.2.2.
func wrongBody(rule, description string) error {
	return oauth.Refuse(oauth.CodeInvalidClientMetadata, rule, "%s", description)
}

func (s *Server) tellRegistration(w http.ResponseWriter, status int, c *storage.Client, token string) error {
	reply, err := s.registrationReply(c, token)
	if err != nil {
		return err
	}
	writeJSON(w, status, reply)
	return nil
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

// Registrations from one address where anybody may register: so many at once, and then one in so long. With the time
// after which unused ones are removed, one address cannot take all the room that there is.
const (
	registrationsAtOnce = 50
	registrationEvery   = 20 * time.Second
)

// mayRegisterAgain reports whether another client may register from the address of a request.
func (s *Server) mayRegisterAgain(r *http.Request) (free bool) {
	if len(s.cfg.Registration.InitialAccessTokens) > 0 {
		return true
	}
	s.registering.use(networkOf(s.addressOf(r)).String(), func(limit **rate.Limiter) {
		if *limit == nil {
			*limit = rate.NewLimiter(rate.Every(registrationEvery), registrationsAtOnce)
		}
		free = (*limit).AllowN(s.now(), 1)
	})
	return free
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
func registrationToken(rule string) error {
	return oauth.Refuse(oauth.CodeInvalidToken, rule, "the access token is missing, or does not allow this")
}
