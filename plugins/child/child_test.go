package child

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"
)

func TestSpawnerStartsFromAnyGoroutine(t *testing.T) {
	s := NewSpawner()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^$")
			OwnGroup(cmd)
			if err := errors.Join(s.Start(cmd), cmd.Wait()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.Close()
	s.Close()
	if err := s.Start(exec.Command(os.Args[0], "-test.run=^$")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
