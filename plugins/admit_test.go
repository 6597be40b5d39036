package plugins

import (
	"errors"
	"testing"
)

func TestAdmit(t *testing.T) {
	has := Held{Generation: 7, Fence: 3, Digest: "d7"}
	for rule, c := range map[string]struct {
		has               Held
		generation, fence int64
		digest            string
		push, removal     error
	}{
		"a target without anything":          {Held{}, 1, 0, "d1", nil, nil},
		"the same again":                     {has, 7, 3, "d7", nil, nil},
		"the same with another digest":       {has, 7, 3, "dx", ErrDigestConflict, nil},
		"the same by another server":         {has, 7, 4, "d7", nil, nil},
		"the next":                           {has, 8, 3, "d8", nil, nil},
		"an older generation":                {has, 6, 3, "d6", ErrStale, ErrStale},
		"an older generation, newer fence":   {has, 6, 4, "d6", ErrStale, ErrStale},
		"an older fence":                     {has, 7, 2, "d7", ErrStale, ErrStale},
		"an older fence, newer generation":   {has, 8, 2, "d8", ErrStale, ErrStale},
		"an older fence with another digest": {has, 7, 2, "dx", ErrStale, ErrStale},
	} {
		if err := Admit(c.has, PushRequest{Generation: c.generation, Fence: c.fence, Digest: c.digest}); !errors.Is(err,
			c.push) || (err == nil) != (c.push == nil) {
			t.Errorf("%s: push: %v", rule, err)
		}
		if err := AdmitRemoval(c.has, RemoveRequest{Generation: c.generation, Fence: c.fence}); !errors.Is(err, c.removal) ||
			(err == nil) != (c.removal == nil) {
			t.Errorf("%s: removal: %v", rule, err)
		}
	}
}
