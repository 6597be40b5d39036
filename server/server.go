// Package server is the OpenID provider: the protocol endpoints, sign-in and consent.
//
// # The two halves
//
// Programs call endpoints (endpoint.go); browsers see pages. This package draws both from the handler to the transaction and back.
// The base is zitadel/oidc: its message types and their decoding say what a request holds. Its router and its interfaces are not
// used: they do not bind a pending request to a browser, and hide a token request behind a dozen methods between its handler and its
// transaction.
//
//	request ─ middleware ─┬─ endpoint ─ form, client ─ grant type (token.go: one file each) ─ storage ─ JSON
//	                      ├─ document (metadata, keys): bytes that stand ready
//	                      └─ /oauth/authorize ─ AuthRequest ─ next() ─ page or redirect
//
// # How a request is refused
//
// A check returns an [oauth.Error], with the name of its rule, what it looked at, what is most like that, and the line of app.yml or
// of the configuration that decided. Handlers return it, and one function, refuse (errors.go), tells it: as JSON, at the redirect URI,
// or on a page. [Config.Refused] is told, so that an operator can ask by the id of the request why it was refused.
//
// # From authorize to tokens
//
// Nothing that a browser does before it has signed in writes to storage, or reads from it. A pending authorization request
// travels through the pages as a sealed string, bound to the browser by a cookie; one pure function, [next], decides from
// (request, who is signed in, what they allowed) whether to ask for sign-in, for consent, or to answer. An authorization code
// is a sealed string as well: issuing it writes nothing, redeeming it is one transaction. So is a refresh. Access tokens are
// JWTs (RFC 9068) whose jti begins with the id of their grant: introspection and userinfo ask storage for that grant.
//
// Memory may lag behind other replicas, so each transaction of a grant compares the revisions of client and user on which
// this package decided; on a mismatch it decides anew, on the records that came back.
//
// # Clients
//
// A client authenticates in the way that it registered (clientauth.go): by its secret, by an assertion that it signs
// (assertion.go) and that works once, or not at all when it is public. An assertion is used up in the transaction of the grant for
// which it came, otherwise by a write of its own; a forged one uses up nothing.
//
// A client may have two secrets, and either authenticates it. One that was ended at once may still pass at a replica that has
// not heard of it, for as long as that takes; but it gets no token: the transaction of a grant compares the client's revision, and
// for a token of the client's own (clientcredentials.go) the revision is read. Such a token belongs to no grant. It ends when it
// expires or is revoked, or when the client is removed, and not with the secret by which it was obtained.
//
// Clients come from manifests; where the configuration allows it they also register themselves (registration.go), or are described by
// a document without being registered (package clients): every endpoint finds a client by [clients.Clients.Client], which knows both.
// What a registration names is fetched only by package outbound, and only when it is needed: keys, sector
// identifiers (subject.go), documents. Logos are for browsers.
//
// # Access tokens
//
// Their audience is what the client asked for (resource.go): this server itself, or resource servers of the configuration and of
// clients. A client that holds a key may have them bound to it (dpop.go); the nonce of a proof is a sealed time, so nothing is stored
// for it. Resource servers verify access tokens by the published keys, or introspect those that are for them (introspect.go), and
// may exchange them to call other services for the user (tokenexchange.go). The jti of each leads to the grant of the user, and the
// token ends with the grant.
//
// # What a request may ask
//
// The parameters of an authorization request come in the query or in a form, as claims of a request object (requestobject.go), or
// were pushed by the client before (pushed.go). In each case they are checked in one place (authrequest.go, authparams.go), and
// the result is an [AuthRequest]. Only the user whom a request names (id_token_hint, or a value of the claim sub) can answer it.
// Claims that are requested individually need permission for the scope that they belong to. Responses, errors included, go the way
// that the request names (respond.go), once client and redirect URI are known to be valid.
//
// # Devices
//
// A device without a browser (RFC 8628) asks for a code, which a user enters in a browser (device.go, devicepages.go). That is a
// pending request as well, which goes through the same sign-in and the same decision; it always asks the user, and also whether
// the device is theirs. Only a user who has signed in learns whether a code is valid, and has few guesses.
//
// # Logout
//
// A browser's sign-in has a name that clients know (sid). When it ends, the same transaction ends the grants with openid that came
// from it, unless they have offline_access, and fills an outbox of logout tokens, which every replica sends (logout.go,
// backchannel.go). Grants without openid are not part of a sign-in, and stay.
//
// # What is said about users
//
// A user's record has the standard claims (OpenID Connect Core 1.0 section 5.1). Userinfo returns those of the scopes, and the ID
// token none of them, unless the request asks for claims individually (section 5.5), which requires the user's consent to the scope
// that covers them. The grant keeps what was requested from userinfo, and the code what the ID token will say, so neither costs a read.
//
// Clients may know users by pairwise subjects (section 8.1): the user's id, encrypted for the client's sector. Nothing is stored
// for that; a subject in a token of this server can be decrypted to its user.
//
// # Faults
//
// Only the sentinels of package storage are verdicts. Any other error of it is a fault: status 503, never a statement about
// a token, a code or a client. A fault before etcd has acted leaves code or refresh token as good as before. When etcd has
// acted and only its answer was lost, they are used: trying again is a replay, and ends the grant, unless a reuse interval
// hands out the successor of the refresh token again. An assertion is used then as well. The text of a fault goes only to the log.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Config is what a [Server] is built of.
type Config struct {
	// Issuer is the public address, https or on loopback http, with a path or without, never with a slash at its end.
	Issuer string
	Store  *storage.Store
	// Passwords signs people in. Without it nobody can sign in.
	Passwords connector.Password
	Scopes    []Scope
	Lifetimes Lifetimes
	// GrantTypes that clients may register; nil means [DefaultGrantTypes]. Authorization code and refresh token are always on.
	GrantTypes []string
	// ResourceServers that are no apps of their own: who they are when they introspect, and whose tokens they may.
	ResourceServers []ResourceServer
	// Registration offers dynamic client registration (RFC 7591); off when nil.
	Registration *Registration
	// ClientIDMetadataDocuments lets a client be the https URL of a document that describes it.
	ClientIDMetadataDocuments bool
	// Outbound fetches what registrations name, and sends logout tokens; nil reaches public addresses only.
	Outbound *outbound.Client
	// AllowedOrigins of browser apps that may call the endpoints that machines call (CORS); "*" is any.
	AllowedOrigins []string
	// Refused is called for each request that was refused, while the response is being written. It may be nil, and must not block.
	Refused func(oauth.Refusal)
	Logger  *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// ResourceServer is an API that takes this server's access tokens and is registered in the configuration.
type ResourceServer struct {
	ID         string // with which it authenticates to introspect (client_secret_basic or client_secret_post)
	Identifier string // its resource indicator (RFC 8707), the audience of its tokens
	Secret     string
}

// Registration says who may register clients (RFC 7591 section 3).
type Registration struct {
	// InitialAccessTokens, one of which a registration must show; with none anybody may register.
	InitialAccessTokens []string
}

// DefaultGrantTypes are on unless the configuration says otherwise. Token exchange is not: it lets one service act for users
// of another.
func DefaultGrantTypes() []string {
	return []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials, oauth.GrantDeviceCode}
}

// Server serves everything below the issuer's address. What it is made of knows no more than it needs: the issuer makes tokens, the
// catalogue knows scopes and claims, cookies what browsers hold, proofs the keys of DPoP, resources for whom tokens are, and the
// logout sender tells clients that a session has ended. The Server brings requests to them.
type Server struct {
	*issuer
	*catalogue
	*cookies
	*proofs
	*resources
	*logoutSender
	cfg Config
	// grantTypes are those that are on.
	grantTypes []string
	address    *url.URL // of the issuer
	base       string   // path of the issuer, without a slash at its end
	log        *slog.Logger
	pages      *pages.Set
	devices    *devices
	handler    http.Handler
	clients    *clients.Clients
}

// New makes the keys that are needed first and returns a Server that is ready.
func New(ctx context.Context, cfg Config) (*Server, error) {
	address, err := oauth.ParseIssuer(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", cfg.Issuer, err)
	}
	if wrong := cfg.Lifetimes.Check(); len(wrong) > 0 {
		return nil, &wrong[0]
	}
	scopes, err := newCatalogue(cfg.Scopes)
	if err != nil {
		return nil, err
	}
	set, err := pages.New(pages.Config{Issuer: cfg.Issuer, Log: cfg.Logger})
	if err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Outbound == nil {
		cfg.Outbound = outbound.New(outbound.Options{})
	}
	iss := &issuer{name: cfg.Issuer, store: cfg.Store, life: cfg.Lifetimes, now: cfg.Now}
	s := &Server{
		issuer: iss, catalogue: scopes, cookies: &cookies{issuer: iss, secure: address.Scheme == "https"}, proofs: &proofs{issuer: iss},
		resources: &resources{issuer: iss, servers: cfg.ResourceServers},
		cfg:       cfg, address: address, base: address.EscapedPath(), log: cfg.Logger, pages: set, devices: newDevices(),
	}
	if s.cfg.GrantTypes == nil {
		s.cfg.GrantTypes = DefaultGrantTypes()
	}
	s.grantTypes = oauth.Within(oauth.GrantTypes(), append(oauth.UsualGrantTypes(), s.cfg.GrantTypes...))
	s.clients = clients.New(clients.Options{
		Store: cfg.Store, Outbound: cfg.Outbound, Logger: cfg.Logger, Now: cfg.Now, Documents: cfg.ClientIDMetadataDocuments,
		Open:       cfg.Registration != nil && len(cfg.Registration.InitialAccessTokens) == 0,
		GrantTypes: s.offeredGrants(), Scopes: s.catalogue.names, DefaultScopes: standardScopeNames(), MaxScopes: maxScopes,
	})
	s.logoutSender = &logoutSender{issuer: iss, client: s.clients.Client, outbound: cfg.Outbound, log: cfg.Logger, ended: make(chan struct{}, 1)}
	if err := s.store.RotateKeys(ctx, true, s.keySchedules()...); err != nil {
		return nil, err
	}
	if s.handler, err = s.routes(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) keySchedules() []storage.KeySchedule {
	const skew = 5 * time.Minute
	// An ID token that has expired is still good as a hint, as long as its session lasts.
	hint := max(s.life.IDToken, s.life.Session)
	return []storage.KeySchedule{
		{Use: storage.UseSeal, Period: s.life.SealingKeys, Overlap: s.life.RefreshAbsolute + skew},
		{Use: storage.UsePairwise},
		{Use: storage.UseES256, Period: s.life.SigningKeys, Overlap: max(s.life.AccessToken, hint) + skew},
		{Use: storage.UseEdDSA, Period: s.life.SigningKeys, Overlap: hint + skew},
		{Use: storage.UseRS256, Period: s.life.SigningKeys, Overlap: hint + skew},
	}
}

// Run keeps keys rotating and secrets sealed under the newest encryption key, writes when client secrets were used, and tells
// clients of sessions that have ended, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.store.WriteUses(ctx) })
	beside.Go(func() { s.sendLogouts(ctx) })
	if err := s.store.Reseal(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("cannot seal secrets under the newest encryption key", "error", err)
	}
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := s.store.RotateKeys(ctx, false, s.keySchedules()...); err != nil && ctx.Err() == nil {
			s.log.Error("cannot rotate keys", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ServeHTTP is the public side. The issuer's path is part of the request's path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// endpoint is a path below the issuer as a URL.
func (s *Server) endpoint(path string) string { return s.cfg.Issuer + path }

func (s *Server) routes() (http.Handler, error) {
	mux := http.NewServeMux()
	handle := func(methods, path string, h http.HandlerFunc) {
		for method := range strings.SplitSeq(methods, " ") {
			mux.Handle(method+" "+s.base+path, limited(h))
		}
	}
	// For browsers.
	handle("GET POST", pathAuthorize, s.authorize)
	handle("GET", pathStart, s.start)
	handle("GET", pathContinue, s.resume)
	handle("POST", pathSignIn, s.sameOrigin(s.signIn))
	handle("POST", pathConsent, s.sameOrigin(s.consent))
	mux.Handle("GET "+s.pages.AssetsPath(), s.pages.Assets())
	handle("GET", "/{$}", s.landing)
	handle("GET POST", pathLogout, s.logout)
	handle("POST", pathSignOut, s.sameOrigin(s.signOut))

	// For programs. They share one policy for browser apps of other origins.
	endpoints, err := s.endpoints()
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		h := s.serveEndpoint(e)
		for _, path := range s.addresses(e) {
			mux.Handle(path, h)
		}
	}
	if s.offers(oauth.GrantDeviceCode) {
		handle("GET", pathDevice, s.device)
		handle("POST", pathDevice, s.sameOrigin(s.enterUserCode))
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("/", s.notFound)
	return s.documentsFirst(endpoints, s.middleware(mux)), nil
}

// addresses are the paths of an endpoint. RFC 8414 section 3.1 puts the well-known part before the issuer's path, OpenID
// Connect Discovery 1.0 section 4 after it.
func (s *Server) addresses(e *endpoint) []string {
	if s.base != "" && (e.path == pathDiscovery || e.path == pathMetadata) {
		return []string{s.base + e.path, e.path + s.base}
	}
	return []string{s.base + e.path}
}

// ready is whether storage answers with a quorum.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := s.store.Ping(ctx); err != nil {
		s.log.WarnContext(r.Context(), "not ready", "error", err)
		http.Error(w, "storage does not answer", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

// verdict reports whether an error of storage is about the record, rather than a fault.
func verdict(err error) bool {
	var stale *storage.StaleError
	return errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrReplayed) || errors.Is(err, storage.ErrSpent) ||
		errors.As(err, &stale)
}
