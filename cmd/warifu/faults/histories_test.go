//go:build faults

package faults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestHistories has clients go through the lives of grants, and operators deploy apps, while something fails; what they
// saw must be a history that can have happened, and everything must work again soon after the fault is over.
func TestHistories(t *testing.T) {
	for _, c := range []struct {
		name  string
		short bool
		lasts time.Duration
		// fault begins, and returns what ends it.
		fault func(s *stage) (heal func())
	}{
		{"nothing fails", true, 4 * time.Second, func(*stage) func() { return func() {} }},
		{"the leader of etcd is cut off", false, 8 * time.Second, func(s *stage) func() {
			leader, _ := s.cluster.leader()
			s.cluster.isolate(leader, torn)
			return func() { s.cluster.isolate(leader, fair) }
		}},
		{"the leader of etcd is killed", true, 6 * time.Second, func(s *stage) func() {
			leader, _ := s.cluster.leader()
			leader.kill()
			return func() {
				if err := leader.start(); err != nil {
					s.t.Error(err)
				}
			}
		}},
		{"the leader of etcd pauses", false, 8 * time.Second, func(s *stage) func() {
			leader, _ := s.cluster.leader()
			leader.pause()
			return leader.continues
		}},
		{"etcd loses its quorum", false, 8 * time.Second, func(s *stage) func() {
			_, followers := s.cluster.leader()
			for _, m := range followers {
				m.pause()
			}
			return func() {
				for _, m := range followers {
					m.continues()
				}
			}
		}},
		{"a replica is killed", true, 3 * time.Second, func(s *stage) func() {
			s.replicas[1].kill()
			return func() { s.replicas[1].starts(s.t) }
		}},
		{"a replica pauses", false, 6 * time.Second, func(s *stage) func() {
			s.replicas[1].pause()
			return s.replicas[1].continues
		}},
		{"connections to etcd are cut again and again", true, 6 * time.Second, func(s *stage) func() {
			return again(func() {
				l := s.anyLink()
				l.set(torn)
				time.Sleep(time.Duration(20+rand.IntN(200)) * time.Millisecond)
				l.set(fair)
			})
		}},
		{"replies of etcd are lost", false, 8 * time.Second, func(s *stage) func() {
			return again(func() {
				r := s.replicas[rand.IntN(2)]
				for _, l := range r.links {
					l.set(deafening)
				}
				time.Sleep(time.Duration(20+rand.IntN(50)) * time.Millisecond)
				for _, l := range r.links {
					l.set(torn)
				}
				for _, l := range r.links {
					l.set(fair)
				}
				time.Sleep(time.Second)
			})
		}},
		{"links to etcd are slow", false, 8 * time.Second, func(s *stage) func() {
			s.eachLink(func(l *link) { l.slow(40 * time.Millisecond) })
			return func() { s.eachLink(func(l *link) { l.slow(0) }) }
		}},
		{"one thing after the other", false, 25 * time.Second, func(s *stage) func() {
			return again(func() { s.misfortune() })
		}},
	} {
		cell(t, c.name, c.short, func(t *testing.T, r *row) {
			s := newStage(t, staging{})
			l := newLoad(s, r)
			l.start(8)
			time.Sleep(time.Second)
			heal := c.fault(s)
			time.Sleep(c.lasts)
			heal()
			l.recovers(t, 20*time.Second)
			time.Sleep(time.Second)
			l.end()
		})
	}
}

// again does something over and over until the function that it returns is called.
func again(do func()) (end func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				do()
			}
		}
	}()
	return func() {
		close(stop)
		<-ended
	}
}

// eachLink does something to every link between replicas and members, and between members.
func (s *stage) eachLink(do func(*link)) {
	for _, r := range s.replicas {
		for _, l := range r.links {
			do(l)
		}
	}
	for _, m := range s.cluster.members {
		do(m.peers)
	}
}

// anyLink is a link between a replica and a member.
func (s *stage) anyLink() *link {
	links := s.replicas[rand.IntN(len(s.replicas))].links
	return links[rand.IntN(len(links))]
}

// misfortune is one fault of any kind, for a while.
func (s *stage) misfortune() {
	while := func() { time.Sleep(time.Duration(300+rand.IntN(1500)) * time.Millisecond) }
	m, r := s.cluster.members[rand.IntN(3)], s.replicas[rand.IntN(2)]
	switch kind := rand.IntN(6); kind {
	case 0:
		s.cluster.isolate(m, torn)
		while()
		s.cluster.isolate(m, fair)
	case 1:
		m.kill()
		while()
		if err := m.start(); err != nil {
			s.t.Error(err)
		}
		s.cluster.healed()
	case 2:
		m.pause()
		while()
		m.continues()
	case 3:
		r.pause()
		while()
		r.continues()
	case 4:
		l := s.anyLink()
		l.set(weather(1 + rand.IntN(3)))
		while()
		l.set(fair)
	case 5:
		r.kill()
		while()
		r.starts(s.t)
	default:
		panic(fmt.Sprint(kind))
	}
}
