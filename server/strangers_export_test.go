package server

import "context"

// WriteJournal does at once what Run does each second, and each minute.
func (s *Server) WriteJournal(ctx context.Context) {
	s.journal.sumUp()
	s.journal.flush(ctx)
}
