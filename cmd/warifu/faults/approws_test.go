//go:build faults

package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// What operators and targets of env see: deletions that end, env files that two replicas agree on, deliveries that a
// dead replica had begun.

// targeted is the manifest of an app with a worker, whose env the runtime delivers.
func targeted(name string) string {
	return strings.NewReplacer("name: shop", "name: "+name, "autoEnv: false", "autoEnv: true", "Shop",
		name).Replace(shop) +
		"  workers:\n    web: {}\n"
}

// files is the configuration of a runtime that writes env files into one directory, for all replicas.
const files = `plugins: {runtimes: [{name: file, config: {dir: "$DIR/env"}}]}
`

// delivered waits until the env of all apps is where it belongs.
func (r *replica) delivered(t testing.TB, within time.Duration) time.Duration {
	t.Helper()
	return until(t, "all env is delivered", within, func() error {
		got := r.ask(t.Context(), http.MethodGet, "/v1/deliveries", nil)
		if got.status != http.StatusOK {
			return errors.New(got.String())
		}
		var all []struct {
			App, State, Error   string
			Generation, Serving int
		}
		if err := json.Unmarshal(got.body, &all); err != nil {
			return err
		}
		for _, d := range all {
			if d.State != "ready" || d.Serving != d.Generation {
				return fmt.Errorf("%s is %s: %s", d.App, d.State, d.Error)
			}
		}
		return nil
	})
}

// TestDeletions: what was confirmed to be deleted is gone soon, although etcd was not to be reached meanwhile.
func TestDeletions(t *testing.T) {
	cell(t, "deletions while etcd is not to be reached", false, func(t *testing.T, r *row) {
		s := newStage(t, staging{config: files})
		l := newLoad(s, r)
		const apps = 48
		each := func(do func(name string)) {
			var all sync.WaitGroup
			next := make(chan string)
			for range 8 {
				all.Go(func() {
					for name := range next {
						do(name)
					}
				})
			}
			for i := range apps {
				next <- fmt.Sprintf("gone-%d", i)
			}
			close(next)
			all.Wait()
		}
		each(func(name string) { s.replicas[0].apply(t, targeted(name)) })
		s.replicas[0].delivered(t, patience)
		var mu sync.Mutex
		var confirmed []string
		blip := again(func() {
			s.eachReplicaLink(func(l *link) { l.set(torn) })
			time.Sleep(150 * time.Millisecond)
			s.eachReplicaLink(func(l *link) { l.set(fair) })
			time.Sleep(250 * time.Millisecond)
		})
		each(func(name string) {
			if got := l.ask(http.MethodDelete, "/v1/apps/"+name, nil); l.adminOutcome(got) == granted {
				mu.Lock()
				confirmed = append(confirmed, name)
				mu.Unlock()
			}
		})
		blip()
		start := time.Now()
		for _, name := range confirmed {
			until(t, name+" is gone", 20*time.Second-time.Since(start), func() error {
				if got := l.ask(http.MethodGet, "/v1/apps/"+name, nil); got.status != http.StatusNotFound {
					return errors.New(got.String())
				}
				return nil
			})
		}
		r.note("%d of %d confirmed, all gone after %.1fs", len(confirmed), apps, time.Since(start).Seconds())
		for _, name := range confirmed {
			if got := l.ask(http.MethodPost, "/v1/apply", applying(targeted(name))); got.status != http.StatusOK {
				r.violation("%s cannot be applied again: %s", name, got)
			}
		}
		l.recovers(t, 20*time.Second)
		s.replicas[1].delivered(t, patience)
		l.end()
	})
}

func (s *stage) eachReplicaLink(do func(*link)) {
	for _, r := range s.replicas {
		for _, l := range r.links {
			do(l)
		}
	}
}

// TestEnvFiles: two replicas that write env files into one directory take each other's files for what they are.
func TestEnvFiles(t *testing.T) {
	cell(t, "two replicas write env files into one directory", false, func(t *testing.T, r *row) {
		s := newStage(t, staging{config: files})
		const apps = 6
		for i := range apps {
			s.replicas[i%2].apply(t, targeted(fmt.Sprintf("app-%d", i)))
		}
		s.replicas[0].delivered(t, patience)
		before := s.envFiles()
		if len(before) != apps {
			t.Fatalf("%d env files, want %d", len(before), apps)
		}
		for _, replica := range []*replica{s.replicas[0], s.replicas[1], s.replicas[0]} {
			var drift struct {
				Findings []struct{ App, Kind, Text string }
			}
			replica.ask(t.Context(), http.MethodPost, "/v1/drift", map[string]any{}).into(t, &drift)
			r.operation()
			for _, f := range drift.Findings {
				r.violation("%s finds %s %s: %s", replica.name, f.App, f.Kind, f.Text)
			}
			for i := range apps { // each is looked at, and written again if need be
				got := replica.ask(t.Context(), http.MethodPost, fmt.Sprintf("/v1/apps/app-%d/retry", i), nil)
				if got.status != http.StatusOK {
					r.violation("retry: %s", got)
				}
				r.operation()
			}
			replica.delivered(t, patience)
			if err := replica.stop(); err != nil {
				r.violation("%s ends with %v", replica.name, err)
			}
			replica.starts(t) // and looks at everything again
			replica.delivered(t, patience)
		}
		for file, was := range before {
			if is := s.envFiles()[file]; is != was {
				r.violation("%s was written again:\n%s\n%s", file, was, is)
			}
		}
	})
}

// envFiles are the env files, each with its time and content.
func (s *stage) envFiles() map[string]string {
	s.t.Helper()
	found := make(map[string]string)
	names, _ := filepath.Glob(filepath.Join(s.dir, "env", "*", "*.env")) // the pattern is right
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			s.t.Fatal(err)
		}
		content, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		found[name] = info.ModTime().String() + "\n" + string(content)
	}
	return found
}

// TestDeadReplica: what a replica was delivering when it died, another delivers soon.
func TestDeadReplica(t *testing.T) {
	cell(t, "a replica dies while it delivers", false, func(t *testing.T, r *row) {
		s := newStage(t, staging{config: `plugins: {runtimes: [{name: file, config: {dir: "$DIR/env", reload: [/bin/sleep, "2"]}}]}
`})
		s.replicas[1].pause() // so that it is the other one that begins
		s.replicas[0].apply(t, targeted("app"))
		until(t, "the env file is written", patience, func() error {
			if len(s.envFiles()) == 0 {
				return errors.New("there is none")
			}
			return nil
		})
		s.replicas[0].kill()
		s.replicas[1].continues()
		after := s.replicas[1].delivered(t, patience)
		r.recovered(after)
		if limit := 25 * time.Second; after > limit { // the claim of the dead ends after 20 s, and then it is delivered
			r.violation("delivered only after %s", after)
		}
		r.operation()
	})
}
