package storage

// resources are the resource servers (RFC 8707) that clients speak for, by identifier and client: what memory holds of
// [ClientMetadata.ResourceIdentifiers]. Two apps may speak for one.
type resources map[string]map[string]bool

// replace takes now in the place of before, the same client's record; nil is no record. A disabled client speaks for nobody.
func (r resources) replace(before, now *Client) {
	if before != nil {
		for _, id := range before.ResourceIdentifiers {
			if delete(r[id], before.ID); len(r[id]) == 0 {
				delete(r, id)
			}
		}
	}
	if !now.Active() {
		return
	}
	for _, id := range now.ResourceIdentifiers {
		if r[id] == nil {
			r[id] = make(map[string]bool)
		}
		r[id][now.ID] = true
	}
}

// KnowsResource says whether a client speaks for the resource server of that identifier. It asks memory alone: one that was
// registered a moment ago at another replica may not be known yet.
func (s *Store) KnowsResource(identifier string) bool {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return len(s.mem.resources[identifier]) > 0
}
