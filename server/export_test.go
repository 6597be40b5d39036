package server

import (
	"context"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/storage"
)

// RotateKeys does at once what Run does each minute.
func (s *Server) RotateKeys(ctx context.Context) error {
	return s.store.RotateKeys(ctx, false, s.keySchedules()...)
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
