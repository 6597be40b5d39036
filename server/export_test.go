package server

import (
	"context"

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

// KeySets is how many sets of client keys are kept.
func (s *Server) KeySets() int {
	s.keySets.mu.Lock()
	defer s.keySets.mu.Unlock()
	return len(s.keySets.entries)
}
