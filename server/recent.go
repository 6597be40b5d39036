package server

import "sync"

// recent remembers something about names, of those used lately, in bounded memory: when the younger of two maps is full
// it becomes the older one, and what was that is forgotten.
type recent[V any] struct {
	most int // names in each map

	mu         sync.Mutex // guards the maps and the values in them
	young, old map[string]*V
}

func newRecent[V any](most int) *recent[V] {
	return &recent[V]{most: most, young: make(map[string]*V)}
}

// use calls do with the value of a name, the zero value for a new one. No other caller has the value in the meantime.
func (r *recent[V]) use(name string, do func(*V)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	value := r.young[name]
	if value == nil {
		if value = r.old[name]; value == nil {
			value = new(V)
		}
		if len(r.young) >= r.most {
			r.young, r.old = make(map[string]*V), r.young
		}
		r.young[name] = value
	}
	do(value)
}
