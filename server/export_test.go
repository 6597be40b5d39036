package server

import (
	"context"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/storage"
)

// RotateKeys does at once what Run does each minute.
func (s *Server) RotateKeys(ctx context.Context) error {
	return s.store.RotateKeys(ctx, false, s.keySchedules()...)
}

// ClientKeys are the keys that verify what a client signs.
func (s *Server) ClientKeys(ctx context.Context, c *storage.Client, kid string) ([]jose.JSONWebKey, error) {
	return s.clientKeys(ctx, c, kid)
}

// IsDocumentURL says whether a client_id names a document.
func IsDocumentURL(id string) bool { return isDocumentURL(id) }

// FreshFor is how long a document with this Cache-Control is good.
func FreshFor(cacheControl string) time.Duration { return freshFor(cacheControl) }

// KnownClient is the client with this id, stored or described by a document.
func (s *Server) KnownClient(ctx context.Context, id string) (*storage.Client, error) {
	return s.client(ctx, id)
}

// Documents is how many documents of clients are remembered, be they good or not.
func (s *Server) Documents() int {
	s.documents.mu.Lock()
	defer s.documents.mu.Unlock()
	return len(s.documents.entries)
}

// KeySets is how many sets of client keys are kept.
func (s *Server) KeySets() int {
	s.keySets.mu.Lock()
	defer s.keySets.mu.Unlock()
	return len(s.keySets.entries)
}
