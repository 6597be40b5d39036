package storage_test

import (
	"errors"
	"testing"

	"github.com/warifu/warifu/storage"
)

func TestAgain(t *testing.T) {
	broken := errors.New("broken")
	for rule, c := range map[string]struct {
		stale int   // how often the records have changed
		err   error // of the decision that holds
		want  error
		asked int
	}{
		"it holds at once":                     {want: nil, asked: 1},
		"it holds after two changes":           {stale: 2, asked: 3},
		"it holds the last time":               {stale: 3, asked: 4},
		"the records change for ever":          {stale: 9, want: storage.ErrConflict, asked: 4},
		"an error is final":                    {err: broken, want: broken, asked: 1},
		"an error after a change is final":     {stale: 1, err: broken, want: broken, asked: 2},
		"a conflict of its own is not retried": {err: storage.ErrConflict, want: storage.ErrConflict, asked: 1},
	} {
		asked := 0
		err := storage.Again(4, func() (bool, error) {
			asked++
			if asked <= c.stale {
				return true, nil
			}
			return false, c.err
		})
		if !errors.Is(err, c.want) || asked != c.asked {
			t.Errorf("%s: %v after %d", rule, err, asked)
		}
	}
}
