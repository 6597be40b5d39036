package plugins

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// Present is a plugin of a host, as it is now.
type Present struct {
	Name string
	Kind Kind
	Description
	Err error // it does not run: a *CallError or a *BackoffError
}

// Present says what each plugin is, by kind and name. Those that were not needed so far are started.
func (h *Host) Present(ctx context.Context) []Present {
	h.mu.Lock()
	all := make([]*supervisor, 0, len(h.supervisors))
	for _, s := range h.supervisors {
		all = append(all, s)
	}
	h.mu.Unlock()
	out := make([]Present, len(all))
	var asking sync.WaitGroup
	for i, s := range all {
		asking.Go(func() {
			s.mu.Lock()
			out[i].Name, out[i].Kind = s.name, s.spec.Kind
			s.mu.Unlock()
			out[i].Description, out[i].Err = s.describe(ctx)
		})
	}
	asking.Wait()
	slices.SortFunc(out, func(a, b Present) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out
}
