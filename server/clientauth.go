package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/workload"
	"github.com/warifu/warifu/storage"
)

// How clients authenticate (RFC 6749 section 2.3, OpenID Connect Core 1.0 section 9): by a secret, in the header or in
// the body; by an assertion that they sign (assertion.go), or that was issued to the workload that they are
// (workload.go); or not at all, when they are public. It is the same at every
// endpoint where they do.
//
// The registered method (token_endpoint_auth_method) is the only one that is accepted: what was sent in another way is
// invalid_client, and so is a secret of a client that has keys or of a public one. A client that registered none may
// use its secret in either way, or is public. Whoever fails learns nothing of why, unless an assertion was signed with
// the client's key.

// credentials are what a request shows to authenticate its client.
type credentials struct {
	method    string
	id        string // the client_id; with an assertion it may be empty
	secret    string
	assertion string
	endpoint  string // path that was called
	unknown   error  // says why there is no such client, once that was looked up
	forward   bool   // this server itself, for an app behind forward auth; no request can say so
}

// credentialsOf finds out what a request shows: one method of client authentication (RFC 6749 section 2.3),
// well-formed. Basic with an empty secret is what some libraries make of having none.
func credentialsOf(r *http.Request, form url.Values, path string) (credentials, error) {
	shown := credentials{
		method: oauth.AuthNone, id: form.Get("client_id"), secret: form.Get("client_secret"),
		assertion: form.Get("client_assertion"), endpoint: path}
	headers := r.Header["Authorization"]
	id, secret, basic := r.BasicAuth()
	if basic {
		var errs [2]error
		id, errs[0] = url.QueryUnescape(id) // RFC 6749 section 2.3.1
		secret, errs[1] = url.QueryUnescape(secret)
		if errs[0] != nil || errs[1] != nil {
			return shown, invalidClient(oauth.RuleClientAuthMalformed)
		}
	}
	switch {
	case len(headers) > 1:
		return shown, invalidRequest(oauth.RuleClientAuthTwice, "send one Authorization header, not two")
	case len(headers) == 1 && !basic:
		return shown, invalidClient(oauth.RuleClientAuthMalformed)
	case basic && (shown.secret != "" || shown.assertion != ""), shown.secret != "" && shown.assertion != "":
		return shown, invalidRequest(oauth.RuleClientAuthTwice, "use one way of client authentication, not two")
	case basic && shown.id != "" && shown.id != id:
		return shown, invalidRequest(oauth.RuleClientOther, "client_id is not that of the client that authenticates")
	case (shown.assertion != "") != form.Has("client_assertion_type"):
		return shown, invalidRequest(oauth.RuleClientAuthMalformed, "client_assertion and client_assertion_type go together")
	case shown.assertion != "" && form.Get("client_assertion_type") != assertionType:
		return shown, invalidClient(oauth.RuleClientAuthMethod)
	case !basic && shown.assertion == "" && shown.secret == "" && path == pathToken && exchangesWorkload(form):
		shown.method, shown.assertion = oauth.AuthWorkload, form.Get("subject_token")
		return shown, nil
	case !basic && shown.assertion == "" && shown.id == "":
		return shown, invalidClient(oauth.RuleClientMissing)
	}
	switch {
	case basic:
		shown.id, shown.secret = id, secret
		if secret != "" {
			shown.method = oauth.AuthBasic
		}
	case shown.assertion != "":
		shown.method = oauth.AuthPrivateKeyJWT
	case shown.secret != "":
		shown.method = oauth.AuthPost
	}
	return shown, nil
}

// client is a [storage.Client] that has authenticated. It keeps what was shown, to check it again should the client's
// record change meanwhile.
type client struct {
	*storage.Client
	shown     credentials
	secretID  string     // empty without a secret
	assertion *assertion // nil without one
	// workload is what its token says, where it is a workload.
	workload *workload.Workload
}

// usesUp is what is to be used up together with what the request does: the assertion's jti, until that is done.
func (c *client) usesUp() []storage.Once {
	if c.assertion == nil || c.assertion.spent {
		return nil
	}
	return []storage.Once{c.assertion.once}
}

// identify authenticates the client that shows these credentials. That a secret was used is noted in memory; a rotation
// waits for it.
func (s *Server) identify(ctx context.Context, shown credentials) (*client, error) {
	known, err := s.recognize(ctx, shown)
	if err == nil && known.secretID != "" {
		s.store.NoteUse(known.ID, known.secretID)
	}
	return known, err
}

func (s *Server) recognize(ctx context.Context, shown credentials) (*client, error) {
	c, err := s.shownClient(ctx, &shown)
	if err != nil {
		return nil, err
	}
	known, err := s.authenticate(ctx, c, shown)
	if err == nil || !c.Active() || c.Public || c.SecretID(shown.secret) != "" {
		return known, err
	}
	// The secret may have been rotated a moment ago, and memory not have heard of it.
	current, fault := s.store.ClientWith(ctx, shown.id, shown.secret)
	if fault != nil {
		return nil, fmt.Errorf("read client: %w", fault)
	}
	if current != nil {
		return s.authenticate(ctx, current, shown)
	}
	return nil, err
}

// authenticate checks what was shown against a client's record. It takes the same time for an unknown client (nil) as
// for a wrong secret.
func (s *Server) authenticate(ctx context.Context, c *storage.Client, shown credentials) (*client, error) {
	secretID := c.SecretID(shown.secret)
	if c.Active() && shown.assertion != "" && c.TokenEndpointAuthMethod == oauth.AuthWorkload {
		shown.method = oauth.AuthWorkload // on the wire, it is the same
	}
	switch {
	case c == nil:
		return nil, invalidClient(clients.Unknown(shown.id, shown.unknown).Rule).About(shownClient(shown.id, maxShownClient),
			"", "")
	case !c.Active():
		return nil, invalidClient(oauth.RuleClientDisabled)
	case shown.forward:
		return &client{Client: c, shown: shown}, nil
	case !c.AuthenticatesBy(shown.method):
		visitOf(ctx).noteClient(c)
		return nil, invalidClient(oauth.RuleClientAuthMethod).
			About(shown.method, strings.Join(c.UsableAuthMethods(), " or "), whereOfMethod(c))
	}
	visitOf(ctx).noteClient(c)
	known := &client{Client: c, shown: shown}
	switch shown.method {
	case oauth.AuthNone: // which only public clients may use
	case oauth.AuthPrivateKeyJWT:
		var err error
		if known.assertion, err = s.verifyAssertion(ctx, c, shown); err != nil {
			return nil, err
		}
	case oauth.AuthWorkload:
		var err error
		if known.workload, err = s.verifyWorkload(ctx, c, shown.assertion); err != nil {
			return nil, err
		}
	default:
		if known.secretID = secretID; secretID == "" {
			return nil, invalidClient(oauth.RuleClientSecretWrong)
		}
	}
	return known, nil
}

// whereOfMethod is where the registration of a client says how it authenticates.
func whereOfMethod(c *storage.Client) string {
	if c.Public && c.TokenEndpointAuthMethod == "" {
		return whereOf(c, "public", "token_endpoint_auth_method")
	}
	return whereOf(c, "tokenEndpointAuthMethod", "token_endpoint_auth_method")
}

// changes is how often a request is decided anew because client or user changed while it was decided.
const changes = 4

// decide has try decide on a request of a client. Memory may lag behind other replicas, so the transaction that try
// ends in compares that client and user are those that it was decided on; where they are not, its error is a
// [storage.StaleError], and try decides again on the records that came with that. What the user allowed is the zero
// value where a request is about no user.
func (s *Server) decide(ctx context.Context, c *client, allowed approval,
	try func(c *client, at storage.Revisions) (any, error)) (any, error) {
	var user *storage.User // once it was read
	userRevision, reply := allowed.UserRevision, any(nil)
	err := storage.Again(changes, func() (again bool, err error) {
		if user, err = s.stillAdmitted(ctx, c.Client, allowed, user); err != nil {
			return false, err
		}
		if user != nil {
			userRevision = user.Revision
		}
		reply, err = try(c, storage.Revisions{Client: c.Revision, User: userRevision})
		stale, is := errors.AsType[*storage.StaleError](err)
		if !is {
			return false, err
		}
		if c, err = s.reauthenticate(ctx, c, stale.Client); err != nil || userRevision == 0 {
			return true, err
		}
		switch user = stale.User; {
		case !user.Active():
			return false, userInactive()
		case !user.Stands(allowed.UserTerm):
			return false, userEnded()
		}
		return true, nil
	})
	return reply, err
}

// reauthenticate checks what c has shown against the record that took the place of the one it was checked with; nil
// means that it has none. Then a client without a record is what its document says now; one that had a record is gone.
func (s *Server) reauthenticate(ctx context.Context, c *client, current *storage.Client) (*client, error) {
	switch {
	case current == nil && clients.Described(c.Client):
		var err error
		if current, err = s.clients.Client(ctx, c.ID); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, fmt.Errorf("read client: %w", err)
		}
	case current == nil:
		s.store.Forget(c.ID)
	}
	again, err := s.authenticate(ctx, current, c.shown)
	if err != nil {
		return nil, err
	}
	again.assertion = c.assertion // with what became of it so far
	return again, nil
}

// settle ends a request whose transaction uses up the client's assertion: whatever became of the request, the assertion
// is used up now, or there is no reply. Only two errors leave it as it was: a fault, and the demand for a nonce (RFC
// 9449 section 8), after which the same request is sent again.
func (s *Server) settle(ctx context.Context, c *client, err error) error {
	if e := refused(err); err != nil && (e == nil || e.Code == oauth.CodeUseDPoPNonce) {
		return err
	}
	return cmp.Or(s.spend(ctx, c), err)
}

// spend uses up the assertion of c, if it is not yet.
func (s *Server) spend(ctx context.Context, c *client) error {
	for _, once := range c.usesUp() {
		err := s.store.Spend(ctx, once)
		if errors.Is(err, storage.ErrSpent) {
			return assertionReplayed()
		}
		if err != nil {
			return fmt.Errorf("use up a client's assertion: %w", err)
		}
		c.assertion.spent = true
	}
	return nil
}

// noteSpent takes note of what a verb of storage did to the assertion of c, or found to be done.
func (c *client) noteSpent(err error) {
	if c.assertion != nil && (err == nil || errors.Is(err, storage.ErrReplayed) || errors.Is(err, storage.ErrSpent)) {
		c.assertion.spent = true
	}
}
