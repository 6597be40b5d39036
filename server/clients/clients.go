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
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/oauth"
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
	// Hosts are those from which documents are taken.
	Hosts oauth.HostRules
	// Open: anybody may register, without an initial access token.
	Open bool
	// GrantTypes are those that are on.
	GrantTypes []string
	// Scopes are the most that such a client may have; DefaultScopes are those of one that names none, MaxScopes how many
	// one may name.
	Scopes, DefaultScopes []string
	MaxScopes             int
}

// Clients are all of them: registered and described.
type Clients struct {
	Options
	*known
	rules string // of the options by which documents are read
}

// known is what lasts when the options change.
type known struct {
	keySets *fetches[[]jose.JSONWebKey]
	// documents describe clients that nobody has registered.
	documents *fetches[document]
	// registrations are slowed down by it, and sectors what is fetched for them.
	registrations, sectors *rate.Limiter
	told                   told
}

// New knows the clients of a store.
func New(o Options) *Clients {
	return newClients(o, &known{
		registrations: rate.NewLimiter(registrationRate, registrationBurst),
		sectors:       rate.NewLimiter(registrationRate, sectorBurst),
		told:          told{lines: rate.NewLimiter(1, 30)},
		keySets:       newKeySets(), documents: newDocuments(),
	})
}

// With knows the same clients under other options. A document that was read under those of before is read again where
// it could be read in another way now.
func (s *Clients) With(o Options) *Clients { return newClients(o, s.known) }

func newClients(o Options, k *known) *Clients {
	return &Clients{o, k, fmt.Sprintf("%q %q %q %d", o.GrantTypes, o.Scopes, o.DefaultScopes, o.MaxScopes)}
}

// Kept is how many documents and sets of keys are remembered, be they good or not.
func (s *Clients) Kept() (documents, keySets int) { return s.documents.kept(), s.keySets.kept() }

// told bounds how often the log tells of what clients name: a stranger who makes this server fetch does not fill it.
type told struct {
	lines *rate.Limiter

	mu      sync.Mutex // guards leftOut
	leftOut int        // since the last line
}

// tell writes a line about what a client names, or counts it for the next one.
func (s *Clients) tell(ctx context.Context, level slog.Level, msg string, args ...any) {
	s.told.mu.Lock()
	defer s.told.mu.Unlock()
	if !s.told.lines.AllowN(s.Now(), 1) {
		s.told.leftOut++
		return
	}
	if s.told.leftOut > 0 {
		args = append(args, "left_out", s.told.leftOut)
		s.told.leftOut = 0
	}
	s.Logger.Log(ctx, level, msg, args...)
}
