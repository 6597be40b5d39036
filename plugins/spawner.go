package plugins

import (
	"runtime"
	"sync"
)

// spawner starts processes from one OS thread that lives as long as the host.
// On Linux the kernel's death signal is bound to the thread that started the
// child, not to the process: started from a goroutine, a plugin would die
// whenever Go gives up the thread it happened to be on.
type spawner struct {
	jobs chan func()
	stop chan struct{}
	once sync.Once
}

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func()), stop: make(chan struct{})}
	go s.run()
	return s
}

func (s *spawner) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case job := <-s.jobs:
			job()
		case <-s.stop:
			return
		}
	}
}

// do runs start on the thread.
func (s *spawner) do(start func() error) error {
	done := make(chan error, 1)
	select {
	case s.jobs <- func() { done <- start() }:
		return <-done
	case <-s.stop:
		return ErrClosed
	}
}

// close gives the thread back. All children must be gone.
func (s *spawner) close() { s.once.Do(func() { close(s.stop) }) }
