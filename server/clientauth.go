package server

import (
	"context"
	"errors"
	"slices"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/warifu/warifu/storage"
)

// How clients authenticate (RFC 6749 section 2.3, OpenID Connect Core 1.0 section 9): by a secret, in the header or in the
// body; by an assertion that they sign (assertion.go); or not at all, when they are public. It is the same at every endpoint
// where they do.
//
// The registered method (token_endpoint_auth_method) is the only one that is accepted: what was sent in another way is
// invalid_client, and so is a secret of a client that has keys or of a public one. A client that registered none may use its
// secret in either way, or is public. Whoever fails learns nothing of why, unless an assertion was signed with the client's key.

// Methods of client authentication by their registered names (RFC 7591 section 2).
const (
	methodBasic = "client_secret_basic"
	methodPost  = "client_secret_post"
	methodKey   = "private_key_jwt"
	methodNone  = "none"
)

// authMethods are the methods that a client may use.
func authMethods(c *storage.Client) []string {
	switch registered := c.TokenEndpointAuthMethod; {
	case c.Public && (registered == "" || registered == methodNone):
		return []string{methodNone}
	case c.Public, registered == methodNone:
		return nil // a record that contradicts itself opens nothing
	case registered == "":
		return []string{methodBasic, methodPost}
	default:
		return []string{registered}
	}
}

// credentials are what a request shows to authenticate its client.
type credentials struct {
	method    string
	id        string // the client_id; with an assertion it may be empty
	secret    string
	assertion string
	endpoint  string // path that was called
}

// shownBy finds out what a request shows. checkCredentials has seen to it that there is one method only. Basic with an empty
// secret is what some libraries make of having none.
func shownBy(r *op.Request[op.ClientCredentials]) credentials {
	shown := credentials{id: r.Data.ClientID, secret: r.Data.ClientSecret, assertion: r.Data.ClientAssertion}
	if r.URL != nil {
		shown.endpoint = r.URL.Path
	}
	switch {
	case shown.assertion != "":
		shown.method = methodKey
	case shown.secret == "":
		shown.method = methodNone
	case r.Form.Has("client_secret"):
		shown.method = methodPost
	default:
		shown.method = methodBasic
	}
	return shown
}

// client is a [storage.Client] as the library wants to see it, after it has authenticated. It keeps what was shown, to check it
// again should the client's record change meanwhile.
type client struct {
	*storage.Client
	shown     credentials
	secretID  string     // empty without a secret
	assertion *assertion // nil without one
}

// AuthMethod is how the client has authenticated; a public one has not.
func (c *client) AuthMethod() oidc.AuthMethod { return oidc.AuthMethod(c.shown.method) }

// once is what is to be used up together with what the request does: the assertion's jti, until that is done.
func (c *client) once() []storage.Once {
	if c.assertion == nil || c.assertion.spent {
		return nil
	}
	return []storage.Once{c.assertion.once}
}

// VerifyClient authenticates a client. That a secret was used is noted in memory; a rotation waits for it. An assertion is used
// up here, with a write of its own, unless it is a request of the token endpoint that does so in the transaction of its grant.
func (p *provider) VerifyClient(ctx context.Context, r *op.Request[op.ClientCredentials]) (op.Client, error) {
	known, err := p.identify(ctx, shownBy(r))
	if err != nil {
		return nil, err
	}
	if known.secretID != "" {
		p.store.NoteUse(known.ID, known.secretID)
	}
	if !spendsLater(known, r) {
		if err := p.spend(ctx, known); err != nil {
			return nil, err
		}
	}
	return known, nil
}

// spendsLater says whether the request goes to one of the methods that end with [provider.settled], or as that does.
func spendsLater(c *client, r *op.Request[op.ClientCredentials]) bool {
	if c.shown.endpoint == pathPushed {
		return true
	}
	grantType := r.Form.Get("grant_type")
	if c.shown.endpoint != pathToken || !mayUse(c.Client, grantType) {
		return false
	}
	switch grantType {
	case GrantAuthorizationCode:
		return r.Form.Has("code")
	case GrantRefreshToken:
		return r.Form.Has("refresh_token")
	case GrantDeviceCode:
		return r.Form.Has("device_code")
	case GrantTokenExchange: // the library refuses what lacks something by itself
		return r.Form.Has("subject_token") && r.Form.Get("subject_token_type") == typeAccessToken &&
			!r.Form.Has("requested_token_type") && !r.Form.Has("actor_token_type")
	}
	return grantType == GrantClientCredentials
}

func (p *provider) identify(ctx context.Context, shown credentials) (*client, error) {
	if shown.id == "" {
		shown.id = assertedClient(shown.assertion)
	}
	c, err := p.client(ctx, shown.id)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, p.unavailable(ctx, "reading a client", err)
	}
	known, refused := p.authenticate(ctx, c, shown)
	if refused == nil || !c.Active() || c.Public || c.SecretID(shown.secret) != "" {
		return known, refused
	}
	// The secret may have been rotated a moment ago, and memory not have heard of it.
	current, err := p.store.ClientWith(ctx, shown.id, shown.secret)
	if err != nil {
		return nil, p.unavailable(ctx, "reading a client", err)
	}
	if current != nil {
		return p.authenticate(ctx, current, shown)
	}
	return nil, refused
}

// authenticate checks what was shown against a client's record. It takes the same time for an unknown client (nil) as for a
// wrong secret.
func (s *Server) authenticate(ctx context.Context, c *storage.Client, shown credentials) (*client, error) {
	secretID := c.SecretID(shown.secret)
	if !c.Active() || !slices.Contains(authMethods(c), shown.method) {
		return nil, invalidClient()
	}
	known := &client{Client: c, shown: shown}
	switch shown.method {
	case methodNone: // which only public clients may use
	case methodKey:
		var err error
		if known.assertion, err = s.verifyAssertion(ctx, c, shown); err != nil {
			return nil, err
		}
	default:
		if known.secretID = secretID; secretID == "" {
			return nil, invalidClient()
		}
	}
	return known, nil
}

// reauthenticate checks what c has shown against the record that took the place of the one it was checked with; nil means that
// there is none. Then a client that has none is what its document says now; one that had a record is gone.
func (p *provider) reauthenticate(ctx context.Context, c *client, current *storage.Client) (*client, error) {
	switch {
	case current == nil && described(c.Client):
		var err error
		if current, err = p.client(ctx, c.ID); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, p.unavailable(ctx, "reading a client", err)
		}
	case current == nil:
		p.store.Forget(c.ID)
	}
	again, err := p.authenticate(ctx, current, c.shown)
	if err != nil {
		return nil, err
	}
	again.assertion = c.assertion // with what became of it so far
	return again, nil
}

// decideAnew checks the records that came back in the place of those that were used.
func (p *provider) decideAnew(ctx context.Context, c *client, stale *storage.StaleError) (*client, int64, error) {
	again, err := p.reauthenticate(ctx, c, stale.Client)
	if err != nil {
		return nil, 0, err
	}
	if !stale.User.Active() {
		return nil, 0, invalidGrant("the user's account was disabled or removed")
	}
	return again, stale.User.Revision, nil
}

// spend uses up the assertion of c, if it is not yet.
func (p *provider) spend(ctx context.Context, c *client) error {
	for _, once := range c.once() {
		err := p.store.Spend(ctx, once)
		if errors.Is(err, storage.ErrSpent) {
			return assertionReplayed()
		}
		if err != nil {
			return p.unavailable(ctx, "using up a client's assertion", err)
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

// settled ends a request of the token endpoint: whatever became of it, the assertion is used up now, or there is no reply. Only two
// refusals leave it as it was: a fault of ours, and the wish for a nonce (RFC 9449 section 8), after which the same request is sent
// again.
func (p *provider) settled(ctx context.Context, c *client, reply *op.Response, err error) (*op.Response, error) {
	if code := codeOf(err); code == codeTemporarilyUnavailable || code == codeUseNonce {
		return nil, err
	}
	if err := p.spend(ctx, c); err != nil {
		return nil, err
	}
	return reply, err
}
