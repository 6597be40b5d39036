// Package server is the OpenID provider: the protocol endpoints, sign-in and consent.
//
// # The two halves
//
// Programs call endpoints (endpoint.go); browsers see pages. This package draws both from the handler to the
// transaction and back. Of zitadel/oidc it takes the types of what clients send to the endpoints for tokens, devices,
// introspection and revocation: their tags are the parameters' names, by which the decoder that belongs to them reads a
// form (form.go). Its router and its interfaces are not used: they do not bind a pending request to a browser, and hide
// a token request behind a dozen methods between its handler and its transaction. What is sealed and what is signed has
// types of this package: their encoding must stay for as long as what was made by it is good.
//
//	request ─ middleware ─┬─ endpoint ─ form, client ─ grant type (token.go: one file each) ─ storage ─ JSON
//	                      ├─ document (metadata, keys): bytes that stand ready
//	                      └─ /oauth/authorize ─ AuthRequest ─ next() ─ page or redirect
//
// # How a request is refused
//
// A check returns an [oauth.Error], with the name of its rule, what it looked at, what is most like that, and the line
// of app.yml or of the configuration that decided. Handlers return it, and one function, refuse (errors.go), tells it:
// as JSON, as text to a proxy, at the redirect URI, or on a page. [Config.Refused] is told, so that an operator can ask
// by the id of the request why it was refused.
//
// # Another configuration
//
// A Server is made of one configuration and never changes; another configuration is another Server on what lasts
// (lasting.go), and takes over in one step.
//
// # Connectors
//
// How people prove who they are is up to connectors (package connector; [Config.Connectors]). The sign-in page has the
// form of the users of the configuration, and a link to each other way (ways.go). A link shows the form of a directory,
// or sends the browser to an identity provider, which sends it back to /callback (federation.go); what is needed then
// waits in a sealed cookie (away.go). Whoever arrives (arrive.go) is recorded as a user of that connector and gets a
// session, in which nothing stands of how and when they signed in but what the connector knows. Whatever e-mail
// addresses they tell, two connectors have one user only where an operator has joined them (warifu link user).
//
// Whoever has an authenticator app gets no session for the first proof alone: it waits in the browser, sealed, for the
// second one (proof.go, factorpage.go).
//
// An identity provider or directory that is away is said so on the page, and concerns nobody else. No token waits for
// one.
//
// # Passkeys
//
// A passkey (passkey.go) alone signs in users of the configuration and managed ones, and is a second factor for
// everybody. The challenge waits sealed in the page that asks, bound to the browser, to what it is for and to whom; the
// transaction in which the answer counts uses it up. People make and remove theirs in their account
// (accountpasskeys.go). They belong to the issuer's host name, so an address has none.
//
// # Strangers
//
// Guesses of passwords are limited by account and by address (guesses.go); a browser in which the user has signed in
// before has its own (knownBrowser in cookies.go). Passwords that are checked here wait in a bounded queue, by turns of
// addresses (queue.go), which bounds the memory of hashing as well. What a sign-in asks of storage, and how long a
// wrong password takes, is the same whoever has the name, and whether anybody has. The true address of a request is
// found in one place (address.go). What people and strangers do goes to the log and to the audit log, within budgets
// (journal.go). What strangers can make this server store is bounded in number (bounds.go of package storage).
//
// # From authorize to tokens
//
// Nothing that a browser does before it has signed in writes to storage, but the counts of guesses, or reads from it,
// but the account whose name was typed. A pending authorization
// request travels through the pages as a sealed string, bound to the browser by a cookie; one pure function, [next],
// decides from (request, who is signed in, what they allowed) whether to ask for sign-in, for consent, or to answer.
// One that waits for too long begins anew in the browser that began it (renew in turn.go). An authorization code is a
// sealed string as well: issuing it writes nothing, redeeming it is one transaction. So is a refresh. Access tokens are
// JWTs (RFC 9068), or strings that only this server can open, whose jti begins with the id of their grant:
// introspection and userinfo ask storage for that grant.
//
// Memory may lag behind other replicas, so each transaction of a grant compares the revisions of client and user on
// which this package decided; on a mismatch it decides anew, on the records that came back.
//
// # Clients
//
// A client authenticates in the way that it registered (clientauth.go): by its secret, by an assertion that it signs
// (assertion.go) and that works once, or not at all when it is public. An assertion is used up in the transaction of
// the grant for which it came, otherwise by a write of its own; a forged one uses up nothing.
//
// A client may also be a workload (workload.go, package workload): it shows the token that its platform has issued to
// it, as often as it likes, and has neither secret nor key. Which client that is, the token does not say; so a workload
// is one client's, and no request that is decided by one writes more than it would with a secret.
//
// A client may have two secrets, and either authenticates it. One that was ended at once may still pass at a replica
// that has not heard of it, for as long as that takes; but it gets no token: the transaction of a grant compares the
// client's revision, and for a token of the client's own (clientcredentials.go) the revision is read. Such a token
// belongs to no grant. It ends when it expires or is revoked, or when the client is removed, and not with the secret by
// which it was obtained.
//
// Clients come from manifests; where the configuration allows it they also register themselves (registration.go), or
// are described by a document without being registered (package clients): every endpoint finds a client by
// [clients.Clients.Client], which knows both. What a registration names is fetched only by package outbound, and only
// when it is needed: keys, sector identifiers (subject.go), documents. Logos are for browsers.
//
// # Access tokens
//
// Their audience is what the client asked for (resource.go): this server itself, or resource servers of the
// configuration and of clients, and these decide how they look (tokenform.go). A client that holds a key may have them
// bound to it (dpop.go); the nonce of a proof is a sealed time, so nothing is stored for it. Resource servers verify
// access tokens by the published keys, or introspect those that are for them (introspect.go), and may exchange them to
// call other services for the user (tokenexchange.go). The jti of each leads to the grant of the user, and the token
// ends with the grant.
//
// # What a request may ask
//
// The parameters of an authorization request come in the query or in a form, as claims of a request object
// (requestobject.go), or were pushed by the client before (pushed.go). In each case they are checked in one place
// (authrequest.go, authparams.go), and the result is an [AuthRequest]. Only the user whom a request names
// (id_token_hint, or a value of the claim sub) can answer it. Claims that are requested individually need permission
// for the scope that they belong to. Responses, errors included, go the way that the request names (respond.go), once
// client and redirect URI are known to be valid. But only clients that an operator answers for are told of errors by a
// redirect: for others, a page has a link (errors.go).
//
// A form of ours never ends in a redirect to an app: browsers hold every redirect after a form against the policy of
// its page, and where an app sends its users from its callback, nobody here knows. A page stands between
// (pages.Onward), as it does where an address is too long for the header of a reply (respond.go).
//
// Pages of other origins may call what programs call, and read answers to their own client (cors.go).
//
// What a user has allowed is remembered with what the consent page named: the client's name, the host that the answer
// goes to, and the resources. Whatever differs is asked again (consent.go).
//
// # Who may use a client, and whether they are asked
//
// A manifest may say who may use the app: by groups, addresses and connectors (access.go). That is asked before
// consent, in each grant, and of each token that is shown here. It may also say that users are not asked for consent,
// which takes an operator's word, and is so only where it is certain who the client is.
//
// A manifest may say which apps get ID tokens that its own app takes as well (trustedPeers, peers.go).
//
// # How surely users prove who they are
//
// A second factor is demanded by the configuration, of everybody or of groups, by manifests (spec.oauth.access.mfa),
// and by requests (acr_values, RFC 9470). The methods of a sign-in (amr) are kept with the session and with all that is
// issued from it, and its class (acr) follows from them (package oauth), so each grant is held to what is demanded now
// without a read (assurance.go). [next] asks a session that falls short for a factor that its user has, or leads them
// to set one up; no sign-in is taken for more than was proven.
//
// # Devices
//
// A device without a browser (RFC 8628) asks for a code, which a user enters in a browser (device.go, devicepages.go).
// That is a pending request as well, which goes through the same sign-in and the same decision; it always asks the
// user, and also whether the device is theirs. Only a user who has signed in learns whether a code is valid, and has
// few guesses.
//
// # Logout
//
// A browser's sign-in has a name that clients know (sid). When it ends, the same transaction ends the grants with
// openid that came from it, unless they have offline_access, and fills an outbox of logout tokens, which every replica
// sends (logout.go, backchannel.go). Grants without openid are not part of a sign-in, and stay.
//
// # Links and letters
//
// Whoever cannot sign in, or not yet, opens a link: a sealed string, which names the state of the account that it is
// for (links.go). Looking at its page spends nothing; the transaction that sets the password, or begins the session in
// which a passkey is made, compares that state and moves it on, so a link works once (welcome.go). An authenticator app
// is asked for all the same.
//
// Whoever asks for a link by mail learns nothing by it: the request looks nobody up, and what it puts into a queue is
// done behind it (forgot.go). In the same way users are told of what happens to their account, at an address that
// somebody vouches for (letters.go). No request waits for a mail server (package mail).
//
// # What ends a user's doings
//
// Sessions, codes, approvals of devices, grants with their tokens, and consents carry the term of their user in which
// they were begun, and every path asks [storage.User.Stands]. A changed password, a user who is disabled or removed,
// and an operator (warifu revoke user) begin another term. A consent that an operator withdraws takes its grants and
// codes along.
//
// # What is said about users
//
// A user's record has the standard claims (OpenID Connect Core 1.0 section 5.1). Userinfo returns those of the scopes,
// and so does an ID token, unless client or server want it sparse (claims.go). Others are there if the request asks for
// them individually (section 5.5), which requires the user's consent to the scope that covers them. The grant keeps
// what was requested from userinfo, and code and refresh token what was of ID tokens. The user is read in the
// transaction of the grant, so what an ID token says is true when it is made, and costs no read of its own.
//
// A refresh brings an ID token as well when the grant has openid (section 12.2), because many clients know the user for
// as long as they have one that has not expired. It is about the same sign-in. A client can do without it
// (idTokenOnRefresh), and its signature costs little if the client registers ES256 or EdDSA.
//
// Groups come with the scope groups, and what else a connector knows of a user (attributes) by claims that the
// configuration makes of it (customclaims.go). A client's manifest says of which groups it is told, and which claims
// its access tokens hold.
//
// Clients may know users by pairwise subjects (section 8.1): the user's id, encrypted for the client's sector. Nothing
// is stored for that; a subject in a token of this server can be decrypted to its user.
//
// # Faults
//
// Only the sentinels of package storage are verdicts. Any other error of it is a fault: status 503, never a statement
// about a token, a code or a client. A fault before etcd has acted leaves code or refresh token as good as before. When
// etcd has acted and only its answer was lost, they are used: trying again is a replay, and ends the grant, unless a
// reuse interval hands out the successor of the refresh token again. An assertion is used then as well. The text of a
// fault goes only to the log.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/doctor"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/server/workload"
	"github.com/warifu/warifu/storage"
)

// Config is what a [Server] is built of.
type Config struct {
	// Issuer is the public address, https or on loopback http, with a path or without, never with a slash at its end.
	Issuer string
	Store  *storage.Store
	// Connectors are the ways to sign in, in the order in which the page has them. Without any nobody can sign in.
	Connectors []connector.Connector
	// Subjects say how users of connectors are called in tokens, but for those of [connector.StaticName].
	Subjects connector.Subjects
	// AlwaysShowLoginScreen is whether people see the sign-in page although there is but one way.
	AlwaysShowLoginScreen bool
	Scopes                []Scope
	// Claims that are made of users' attributes, beside the standard ones.
	Claims []Claim
	// Trusted are apps whose users need not be asked for consent, where their manifests say so.
	Trusted   []string
	Lifetimes Lifetimes
	// Demands are how surely people have to prove who they are.
	Demands Demands
	// IDTokenClaims is [oauth.IDTokenScopes], the default, or [oauth.IDTokenStandard]. A client may say so for itself.
	IDTokenClaims string
	// GrantTypes that clients may register; nil means [DefaultGrantTypes]. Authorization code and refresh token are always
	// on.
	GrantTypes []string
	// ResourceServers that are no apps of their own: who they are when they introspect, and whose tokens they may.
	ResourceServers []ResourceServer
	// Registration offers dynamic client registration (RFC 7591); off when nil.
	Registration *Registration
	// RegistrationScopes are the most that clients without a manifest, registered or described, may ask users for; nil
	// means the whole catalogue.
	RegistrationScopes []string
	// ClientIDMetadataDocuments lets a client be the https URL of a document that describes it.
	ClientIDMetadataDocuments bool
	// ClientDocumentHosts are those from which documents are taken.
	ClientDocumentHosts oauth.HostRules
	// TrustedProxies are the networks of proxies that say for whom they ask, by X-Forwarded-For.
	TrustedProxies []netip.Prefix
	// Outbound fetches what registrations name, and sends logout tokens; nil reaches public addresses only.
	Outbound *outbound.Client
	// TrustedIssuers are those whose workloads may be clients (spec.oauth.identities).
	TrustedIssuers []workload.Issuer
	// AllowedOrigins of pages that may call the endpoints that programs call, beside those of each client (CORS); "*" is
	// any, and the port on loopback may be a wildcard.
	AllowedOrigins []string
	// Branding is what the pages say about the operator.
	Branding pages.Branding
	// Mail sends letters to people; nil where no mail server is configured. Its owner runs it.
	Mail *mail.Sender
	// Refused is called for each request that was refused, while the response is being written. It may be nil, and must
	// not block.
	Refused func(oauth.Refusal)
	Logger  *slog.Logger
	// AccessLog has a line for each request; nil means none.
	AccessLog *slog.Logger
	// Traces are of single requests; nil: there are none.
	Traces *traces.Tracer
	// Metrics count what is asked and how it ends; nil counts nothing.
	Metrics *metrics.Metrics
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// ResourceServer is an API that takes this server's access tokens and is registered in the configuration.
type ResourceServer struct {
	// ID is that with which it authenticates to introspect (client_secret_basic or client_secret_post); "" if it does not.
	ID         string
	Identifier string // its resource indicator (RFC 8707), the audience of its tokens
	Secret     string
	// The form of its access tokens: one of [oauth.AccessTokenTypes] and of [oauth.AccessTokenAlgs]; empty is the default.
	AccessTokenType, AccessTokenAlg string
}

// Registration says who may register clients (RFC 7591 section 3).
type Registration struct {
	// InitialAccessTokens, one of which a registration must show; with none anybody may register.
	InitialAccessTokens []string
}

// DefaultGrantTypes are on unless the configuration says otherwise. Token exchange is not: it lets one service act for
// users of another.
func DefaultGrantTypes() []string {
	return []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials,
		oauth.GrantDeviceCode}
}

// Server serves everything below the issuer's address, as one configuration says; see [Server.With] for another one.
// What it is made of knows no more than it needs: the issuer makes tokens, the catalogue knows scopes and claims,
// cookies what browsers hold, proofs the keys of DPoP, resources for whom tokens are, and the logout sender tells
// clients that a session has ended. The Server brings requests to them.
type Server struct {
	*lasting
	*issuer
	*catalogue
	*cookies
	*proofs
	*resources
	*logoutSender
	proxies
	cfg Config
	// grantTypes are those that are on.
	grantTypes []string
	address    *url.URL // of the issuer
	base       string   // path of the issuer, without a slash at its end
	log        *slog.Logger
	pages      *pages.Set
	handler    http.Handler
	programs   []*endpoint    // what programs call
	elsewhere  *metrics.Route // of requests to no route
	clients    *clients.Clients
	workloads  *workload.Issuers
	// passkeys is nil where there are none.
	passkeys *factor.Passkeys
	ways     ways
}

// New makes the keys that are needed first and returns a Server that is ready, and in force.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s, err := build(cfg, nil)
	if err != nil {
		return nil, err
	}
	if err := s.store.RotateKeys(ctx, true, s.KeySchedules()...); err != nil {
		return nil, err
	}
	s.inForce.Store(s)
	cfg.Metrics.Source("server", s.tellLoad)
	return s, nil
}

// build makes a Server of a configuration: the first one, or one on what lasts of the one before.
func build(cfg Config, before *Server) (*Server, error) {
	address, err := oauth.ParseIssuer(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", cfg.Issuer, err)
	}
	if wrong := cfg.Lifetimes.Check(); len(wrong) > 0 {
		return nil, &wrong[0]
	}
	scopes, err := newCatalogue(cfg.Scopes, cfg.RegistrationScopes, cfg.Claims)
	if err != nil {
		return nil, err
	}
	scopes.idTokenClaims, scopes.recall = cfg.IDTokenClaims, cfg.Store.Known
	branded := pages.Config{Issuer: cfg.Issuer, Branding: cfg.Branding}
	if before != nil {
		branded.Before = before.pages
	}
	set, err := pages.New(branded)
	if err != nil {
		return nil, err
	}
	if cfg.Outbound == nil {
		cfg.Outbound = outbound.New(outbound.Options{})
	}
	if cfg.GrantTypes == nil {
		cfg.GrantTypes = DefaultGrantTypes()
	}
	iss := &issuer{name: cfg.Issuer, store: cfg.Store, life: cfg.Lifetimes, now: cfg.Now}
	s := &Server{
		issuer: iss, catalogue: scopes, cookies: newCookies(iss, address),
		resources: newResources(iss, cfg.ResourceServers), proxies: cfg.TrustedProxies,
		cfg: cfg, address: address, base: address.EscapedPath(), log: cfg.Logger, pages: set,
		ways: newWays(cfg.Connectors, set),
	}
	s.elsewhere = cfg.Metrics.Route("other")
	for _, k := range s.KeySchedules() {
		cfg.Metrics.KeyUse(k.Use)
	}
	s.passkeys = factor.NewPasskeys(address, cmp.Or(cfg.Branding.Name, address.Host))
	s.grantTypes = oauth.Within(oauth.GrantTypes(), append(oauth.UsualGrantTypes(), cfg.GrantTypes...))
	for _, name := range s.grantTypes {
		cfg.Metrics.GrantType(name)
	}
	known := clients.Options{
		Store: cfg.Store, Outbound: cfg.Outbound, Logger: cfg.Logger, Now: cfg.Now,
		Documents: cfg.ClientIDMetadataDocuments, Hosts: cfg.ClientDocumentHosts,
		Open:       cfg.Registration != nil && len(cfg.Registration.InitialAccessTokens) == 0,
		GrantTypes: s.offeredGrants(), Scopes: s.ceiling, DefaultScopes: oauth.Within(standardScopeNames(), s.ceiling),
		MaxScopes: maxScopes,
	}
	trusted := workload.Options{Issuers: cfg.TrustedIssuers, Audience: cfg.Issuer, Outbound: cfg.Outbound,
		Logger: cfg.Logger,
		Now:    cfg.Now}
	ended := make(chan struct{}, 1)
	if before == nil {
		s.lasting, s.proofs, s.clients = newLasting(cfg), &proofs{issuer: iss}, clients.New(known)
		iss.working = &working{}
		s.queue, s.workloads = newQueue(s.checkTakes()), workload.New(trusted)
	} else {
		s.lasting, s.proofs, s.clients = before.lasting, before.proofs, before.clients.With(known)
		iss.working, ended, s.workloads = before.working, before.ended, before.workloads.With(trusted)
	}
	s.logoutSender = &logoutSender{issuer: iss, client: s.clients.Client, outbound: cfg.Outbound, log: cfg.Logger,
		ended: ended}
	s.handler, err = s.routes()
	return s, err
}

// KeySchedules say how the keys of each use follow each other.
func (s *Server) KeySchedules() []storage.KeySchedule {
	const skew = 5 * time.Minute
	// An ID token that has expired is still good as a hint, as long as its session lasts.
	signed := max(s.life.AccessToken, s.life.IDToken, s.life.Session)
	return []storage.KeySchedule{
		{Use: storage.UseSeal, Period: s.life.SealingKeys,
			Overlap: max(s.life.RefreshAbsolute, s.life.AccessToken, MostLinkLife) + skew},
		{Use: storage.UsePairwise},
		{Use: storage.UseES256, Period: s.life.SigningKeys, Overlap: signed + skew},
		{Use: storage.UseEdDSA, Period: s.life.SigningKeys, Overlap: signed + skew},
		{Use: storage.UseRS256, Period: s.life.SigningKeys, Overlap: signed + skew},
		{Use: storage.UsePS256, Period: s.life.SigningKeys, Overlap: signed + skew, OnDemand: true},
	}
}

// ServeHTTP is the public side. The issuer's path is part of the request's path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.leaving.Load() {
		w.Header()["Connection"] = headerClose
	}
	if probe := r.Header[doctor.ProbeHeader]; probe != nil {
		w = s.tellArrived(w, r, probe[0])
	}
	s.handler.ServeHTTP(w, r)
}

var headerClose = []string{"close"}

// endpoint is a path below the issuer as a URL.
func (s *Server) endpoint(path string) string { return s.cfg.Issuer + path }

// verdict reports whether an error of storage is about the record, rather than a fault.
func verdict(err error) bool {
	var stale *storage.StaleError
	return errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrReplayed) ||
		errors.Is(err, storage.ErrSpent) || errors.As(err, &stale)
}
