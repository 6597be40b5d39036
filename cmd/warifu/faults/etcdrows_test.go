//go:build faults

package faults

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// What etcd does to those who depend on it: one member is silent, there is no quorum, there is no room.

// TestSilentMember: a member to which every connection stays open and says nothing costs its requests a few seconds
// once, not a third of all requests for as long as TCP takes to notice.
func TestSilentMember(t *testing.T) {
	// How long requests may fail at all: keepalives notice after 5 s and 2 s more, and the others of etcd elect a leader
	// meanwhile.
	const notices = 9 * time.Second
	for _, c := range []struct {
		name    string
		slowest time.Duration // that a request may be which is under way when the silence begins
		hush    func(s *stage) *member
	}{
		{"a follower of etcd is silent", notices, func(s *stage) *member {
			_, followers := s.cluster.leader()
			return followers[0]
		}},
		{"the leader of etcd is silent", notices + 3*time.Second, func(s *stage) *member {
			leader, _ := s.cluster.leader()
			s.cluster.isolate(leader, silent)
			return leader
		}},
	} {
		cell(t, c.name, false, func(t *testing.T, r *row) {
			s := newStage(t, staging{})
			l := newLoad(s, r)
			l.start(8)
			time.Sleep(time.Second)
			m := c.hush(s)
			for _, replica := range s.replicas {
				replica.toEtcd(s.cluster.index(m), silent)
			}
			time.Sleep(notices)
			before, asked := r.failed(), r.count()
			time.Sleep(6 * time.Second)
			if late := r.failed() - before; late > 0 {
				r.violation("%d of %d requests still fail %s after a member fell silent", late, r.count()-asked, notices)
			}
			if r.count()-asked < 100 {
				r.violation("only %d requests were answered in 6 s", r.count()-asked)
			}
			worst := l.slowest()
			if worst > c.slowest {
				r.violation("a request took %s", worst.Round(time.Millisecond))
			}
			r.note("slowest %.1fs", worst.Seconds())
			for _, replica := range s.replicas {
				replica.toEtcd(s.cluster.index(m), fair)
			}
			s.cluster.isolate(m, fair)
			r.note("etcd whole after %.1fs", s.cluster.healed().Seconds())
			l.recovers(t, 30*time.Second) // a member that was silent takes requests before it has found the leader
			l.end()
		})
	}
}

// adminCalls is every call of the admin API that reads or writes storage.
func adminCalls(app string) []struct {
	method, path string
	body         any
} {
	return []struct {
		method, path string
		body         any
	}{
		{http.MethodGet, "/v1/apps", nil},
		{http.MethodGet, "/v1/apps/" + app, nil},
		{http.MethodGet, "/v1/apps/" + app + "/credentials", nil},
		{http.MethodGet, "/v1/clients", nil},
		{http.MethodGet, "/v1/deliveries", nil},
		{http.MethodGet, "/v1/secrets", nil},
		{http.MethodGet, "/v1/grants", nil},
		{http.MethodGet, "/v1/audit", nil},
		{http.MethodPost, "/v1/drift", map[string]any{}},
		{http.MethodPost, "/v1/plan", applying(shop)},
		{http.MethodPost, "/v1/apply", applying(shop)},
		{http.MethodPost, "/v1/apps/" + app + "/rotate", map[string]any{"compromised": true}},
		{http.MethodPost, "/v1/apps/" + app + "/retry", nil},
		{http.MethodDelete, "/v1/grants/nobody", nil},
		{http.MethodDelete, "/v1/apps/" + app, nil},
	}
}

// TestWithoutQuorum: every admin call says in 15 s that storage does not answer, and token requests do not pile up.
func TestWithoutQuorum(t *testing.T) {
	cell(t, "admin calls without a quorum", false, func(t *testing.T, r *row) {
		s := newStage(t, staging{})
		l := newLoad(s, r)
		_, followers := s.cluster.leader()
		for _, m := range followers {
			m.pause()
		}
		var all sync.WaitGroup
		for _, replica := range s.replicas {
			for _, call := range adminCalls("shop") {
				all.Go(func() {
					got := replica.ask(t.Context(), call.method, call.path, call.body)
					r.operation()
					if got.status != http.StatusServiceUnavailable || got.code == "" {
						r.violation("%s %s: %s after %s", call.method, call.path, got, got.took.Round(time.Millisecond))
					} else {
						r.fault("admin 503")
					}
					if got.took > 16*time.Second {
						r.violation("%s %s took %s", call.method, call.path, got.took.Round(time.Millisecond))
					}
				})
			}
		}
		all.Wait()
		for _, m := range followers {
			m.continues()
		}
		l.recovers(t, 20*time.Second)
		l.end()
	})
	cell(t, "requests do not pile up without a quorum", false, func(t *testing.T, r *row) {
		s := newStage(t, staging{})
		l := newLoad(s, r)
		token := l.lives(1)[0].token(1)
		_, followers := s.cluster.leader()
		for _, m := range followers {
			m.pause()
		}
		// 200 requests a second, whether those before were answered or not.
		const lasts = 12 * time.Second
		var waiting, most atomic.Int64
		var all sync.WaitGroup
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(lasts); time.Now().Before(end); <-tick.C {
			all.Go(func() {
				if now := waiting.Add(1); now > most.Load() {
					most.Store(now)
				}
				defer waiting.Add(-1)
				l.refuses(s.replicas[0].base, token)
			})
		}
		all.Wait()
		for _, m := range followers {
			m.continues()
		}
		if most.Load() > 600 { // two seconds' worth at most, and those of before the bound
			r.violation("%d requests were waiting at once", most.Load())
		}
		r.note("at most %d waiting", most.Load())
		l.recovers(t, 10*time.Second)
		l.end()
	})
}

// refuses sends a request that needs storage, and expects to be told to come again.
func (l *load) refuses(base, token string) {
	req, err := http.NewRequest(http.MethodPost, base+"/oauth/introspect",
		strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		l.stage.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(l.stage.app.ID, l.stage.app.Secret)
	start := time.Now()
	resp, err := l.http.Do(req)
	l.took(start)
	if err != nil {
		l.failed(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "":
		l.row.violation("503 without Retry-After")
	case resp.StatusCode == http.StatusServiceUnavailable:
		l.row.fault("503")
	case resp.StatusCode >= http.StatusInternalServerError:
		l.row.violation("%d", resp.StatusCode)
	case resp.StatusCode == http.StatusOK:
		l.row.fault("answered")
	}
}

// fill writes to etcd until it has no room.
func (c *cluster) fill() {
	c.t.Helper()
	client := c.members[0].direct
	junk := strings.Repeat("x", 256<<10)
	for i := range 10_000 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := client.Put(ctx, fmt.Sprintf("junk/%d", i), junk)
		cancel()
		if err != nil {
			if strings.Contains(err.Error(), "database space exceeded") {
				return
			}
			c.t.Fatal(err)
		}
	}
	c.t.Fatal("etcd has no quota")
}

// empty is what its operators do about an etcd without room.
func (c *cluster) empty() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := c.members[0].direct
	deleted, err := client.Delete(ctx, "junk/", clientv3.WithPrefix())
	if err == nil {
		_, err = client.Compact(ctx, deleted.Header.Revision, clientv3.WithCompactPhysical())
	}
	for _, m := range c.members {
		if err == nil {
			_, err = m.direct.Defragment(ctx, "http://"+m.client)
		}
	}
	if err == nil {
		_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// lives takes so many grants through their beginnings.
func (l *load) lives(n int) []*chain {
	l.stage.t.Helper()
	var chains []*chain
	for range n {
		code, err := l.stage.person.code(l.stage.t.Context(), l.any())
		if err != nil {
			l.stage.t.Fatal(err)
		}
		c := l.chain(code)
		if c.exchange(l.any()).outcome != granted {
			l.stage.t.Fatal("a code cannot be exchanged")
		}
		chains = append(chains, c)
	}
	return chains
}

// TestOldEtcd: a cluster that is too old is refused, with its version and the one that is needed.
func TestOldEtcd(t *testing.T) {
	cell(t, "an etcd of 3.4", false, func(t *testing.T, r *row) {
		binary := os.Getenv("WARIFU_FAULTS_OLD_ETCD")
		version, err := exec.Command(binary, "--version").Output()
		if err != nil || !strings.Contains(string(version), "etcd Version: 3.4.") {
			t.Fatalf("WARIFU_FAULTS_OLD_ETCD is to name an etcd 3.4 (.ci/old-etcd gets one): %v %s", err, version)
		}
		dir, addresses := tempDir(t), freeAddresses(t, 2)
		client, peer := "http://"+addresses[0], "http://"+addresses[1]
		etcd := process{name: "old etcd", log: filepath.Join(dir, "etcd.log"), make: func() *exec.Cmd {
			return exec.Command(binary, "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", client,
				"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--initial-cluster", "default="+peer)
		}}
		if err := etcd.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(etcd.kill)
		replica := newReplica(t, filepath.Join(dir, "replica"), options{
			key: writeFile(t, filepath.Join(dir, "encryption.key"), newKey()+"\n"),
			storage: fmt.Sprintf("{type: etcd, config: {dataDir: %q, endpoints: [%q]}}",
				filepath.Join(dir, "replica", "data"), client)})
		until(t, "the old etcd serves", patience, func() error {
			conn, err := net.Dial("tcp", addresses[0])
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
		if err := replica.start(); err != nil {
			t.Fatal(err)
		}
		replica.ends(t, r, "3.4.", "3.5")
	})
}
