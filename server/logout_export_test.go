package server

import (
	"context"
	"errors"
)

// SendLogouts does at once what Run does when it looks into the outbox of logouts.
func (s *Server) SendLogouts(ctx context.Context) error {
	due, _, err := s.dueLogouts(ctx)
	for _, entries := range due {
		err = errors.Join(err, s.sendInTurn(ctx, entries))
	}
	return err
}
