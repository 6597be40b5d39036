package server

import (
	"context"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// RotateKeys does at once what Run does each minute.
func (s *Server) RotateKeys(ctx context.Context) error {
	return s.store.RotateKeys(ctx, false, s.KeySchedules()...)
}

// ClientKeys are the keys that verify what a client signs.
func (s *Server) ClientKeys(ctx context.Context, c *storage.Client, kid string) ([]jose.JSONWebKey, error) {
	return s.clients.Keys(ctx, c, kid)
}

// IsDocumentURL says whether a client_id names a document.
func IsDocumentURL(id string) bool { return clients.IsDocumentURL(id) }

// FreshFor is how long a document with this Cache-Control is good.
func FreshFor(cacheControl string) time.Duration { return clients.FreshFor(cacheControl) }

// KnownClient is the client with this id, stored or described by a document.
func (s *Server) KnownClient(ctx context.Context, id string) (*storage.Client, error) {
	return s.clients.Client(ctx, id)
}

// CookieName is what a browser calls one of the cookies.
func (s *Server) CookieName(name string) string { return s.cookieName(name) }

// CookieNameAt is what a browser calls the session's cookie of an issuer.
func CookieNameAt(name string) string {
	address, err := oauth.ParseIssuer(name)
	if err != nil {
		panic(err)
	}
	return newCookies(&issuer{name: name}, address).cookieName(cookieSession)
}

// Documents is how many documents of clients are remembered, be they good or not.
func (s *Server) Documents() int {
	documents, _ := s.clients.Kept()
	return documents
}

// KeySets is how many sets of client keys are kept.
func (s *Server) KeySets() int {
	_, keySets := s.clients.Kept()
	return keySets
}

// MostAtWork is how many requests may be at work at once.
const MostAtWork = mostAtWork

// ArrivalsOfAddress is how many bodies of one address may be arriving at once.
const ArrivalsOfAddress = arrivalsOfAddress

// EndDenied does at once what Run does from time to time.
func (s *Server) EndDenied(ctx context.Context) error { return s.clients.EndDenied(ctx) }

// AskDue asks connectors what is due.
func (s *Server) AskDue(ctx context.Context) (bool, error) { return s.askDue(ctx) }

// HurryPostroom has what is posted done at once.
func (s *Server) HurryPostroom() { s.postroom.wait = 0 }

// WaitInPostroom has it wait as it does.
func (s *Server) WaitInPostroom() { s.postroom.wait = postingWait }

// RunPostroom does what was posted, as Run does.
func (s *Server) RunPostroom(ctx context.Context) { s.runPostroom(ctx) }

// BrokenPage shows a page that cannot be drawn.
func (s *Server) BrokenPage() http.Handler {
	return s.middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.render(w, r, http.StatusOK, pages.Error{Reason: "of no known kind"})
	}))
}

// BrokenReply answers a program with what cannot be marshalled.
func (s *Server) BrokenReply() http.Handler {
	return s.middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visitOf(r.Context()).endpoint = noEndpoint
		writeJSON(w, http.StatusOK, func() {})
	}))
}

// FlushJournal does at once what Run does each second.
func (s *Server) FlushJournal(ctx context.Context) {
	s.journal.flush(ctx)
	s.journal.flushTries(ctx)
}
