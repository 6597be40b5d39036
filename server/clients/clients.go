// Package clients knows who a client is: one that is registered, or one that is described by the document at its
// client_id; with which keys it signs; and how it registers itself and manages that.
//
// [Clients] is made of options and asks the store, and the addresses that clients name. It knows no HTTP of this
// server's own: package server reads requests and writes answers, and everything here returns an [oauth.Error] where it
// refuses, [storage.ErrNotFound] where there is no client, and a fault otherwise. So imports go one way: server imports
// clients, and clients imports storage, the ground floor and outbound.
//
// # Where each part is
//
//   - document.go: client ID metadata documents, and [Clients.Client], which finds a client of either kind.
//   - keys.go: the public keys of a client, registered or fetched.
//   - fetches.go: what was fetched from addresses that strangers name, with bounds on how often that happens.
//   - registration.go: registration and its management; metadata.go: what a client says of itself, and whether it may.
//   - sector.go: documents that say to which sector a client belongs.
package clients

import (
	"log/slog"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

// Options say where clients are, and what those that nobody vouches for may have.
type Options struct {
	Store    *storage.Store
	Outbound *outbound.Client // fetches what clients name
	Logger   *slog.Logger
	Now      func() time.Time
	// Documents: a client may be described by the document at its client_id.
	Documents bool
	// Open: anybody may register, without an initial access token.
	Open bool
	// GrantTypes are those that are on.
	GrantTypes []string
	// Scopes is the catalogue; DefaultScopes are those of a client that names none, MaxScopes how many one may name.
	Scopes, DefaultScopes []string
	MaxScopes             int
}

// Clients are all of them: registered and described.
type Clients struct {
	Options
	keySets *fetches[[]jose.JSONWebKey]
	// documents describe clients that nobody has registered.
	documents *fetches[document]
	// registrations are slowed down by it.
	registrations *rate.Limiter
}

// New knows the clients of a store.
func New(o Options) *Clients {
	s := &Clients{Options: o, registrations: rate.NewLimiter(registrationRate, registrationBurst)}
	s.keySets, s.documents = s.newKeySets(), s.newDocuments()
	return s
}

// Kept is how many documents and sets of keys are remembered, be they good or not.
func (s *Clients) Kept() (documents, keySets int) { return s.documents.kept(), s.keySets.kept() }
