package server

import "context"

// RotateKeys does at once what Run does each minute.
func (s *Server) RotateKeys(ctx context.Context) error {
	return s.store.RotateKeys(ctx, false, s.keySchedules()...)
}
