package storage

import "context"

// SweepActivity is what Sweep does, with another bound.
func (s *Store) SweepActivity(ctx context.Context, most int64) error {
	return s.sweepActivity(ctx, most)
}
