// Package child starts processes that are not to outlive the one that starts them: the host's plugins, a runtime's
// Workers, and what the kit for plugin authors tries.
//
// On Linux the kernel kills them with their parent ([Spawner]), and a process group takes their own children along
// ([OwnGroup], [KillGroup]). Elsewhere both do what the system offers, which is less.
package child

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
)

// Spawner starts processes from one OS thread that lives as long as it does. On Linux the kernel's death signal is
// bound to the thread that started the child, not to the process: started from a goroutine, a child would die whenever
// Go gives up the thread that the goroutine happened to be on.
type Spawner struct {
	// Orphans leaves the death signal out: children live on when this process is killed.
	Orphans bool

	jobs chan func()
	stop chan struct{}
	once sync.Once
}

// NewSpawner starts the thread; Close ends it.
func NewSpawner() *Spawner {
	s := &Spawner{jobs: make(chan func()), stop: make(chan struct{})}
	go s.run()
	return s
}

func (s *Spawner) run() {
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

// Start is cmd.Start, on the thread, with the kernel's death signal. After Close the error is os.ErrClosed.
func (s *Spawner) Start(cmd *exec.Cmd) error {
	if !s.Orphans {
		dieWithUs(cmd)
	}
	done := make(chan error, 1)
	select {
	case s.jobs <- func() { done <- cmd.Start() }:
		return <-done
	case <-s.stop:
		return os.ErrClosed
	}
}

// Close gives the thread back. All children must be gone.
func (s *Spawner) Close() { s.once.Do(func() { close(s.stop) }) }
