//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

// What happens to a server on its embedded database: it runs full, its disk does, its files are damaged.

// newEmbedded is a stage of one replica on its embedded database, in dir. more is what the storage is configured with
// beside that.
func newEmbedded(t testing.TB, dir, more string) *stage {
	t.Helper()
	s := &stage{t: t, dir: dir}
	t.Cleanup(func() { s.keepLogs() })
	at := filepath.Join(dir, "replica")
	r := newReplica(t, at, options{storage: fmt.Sprintf("{type: embedded, config: {dataDir: %q%s}}",
		filepath.Join(at, "data"), more)})
	s.issuer, s.replicas = r.base, []*replica{r}
	r.starts(t)
	r.apply(t, shop)
	s.app = r.credentials(t, "shop")
	s.person = newPerson(s.issuer, s.app)
	until(t, "somebody signs in", patience, func() error {
		_, err := s.person.code(t.Context(), r.base)
		return err
	})
	return s
}

// withQuota changes the quota of the database for the next start.
func (r *replica) withQuota(t testing.TB, quota string) {
	t.Helper()
	file := filepath.Join(r.dir, "config.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), ", quota: ")
	_, tail, _ := strings.Cut(rest, "}")
	writeFile(t, file, head+", quota: "+quota+"}"+tail)
}

// junk writes to the database of a server that is stopped: so many records of 256 KiB, or one that often.
func (r *replica) junk(t testing.TB, records, versions int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	etcd, err := storage.OpenEmbedded(ctx, r.data(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	text := strings.Repeat("x", 256<<10)
	for i := range records {
		for range versions {
			if _, err := etcd.Client.Put(ctx, fmt.Sprintf("junk/%d", i), text); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestNoRoomEmbedded: an embedded database that is full lets everything end, says what is the matter, and is well again
// when there is room, by itself where the room is only history.
func TestNoRoomEmbedded(t *testing.T) {
	const quota = ", quota: 32MiB"
	cell(t, "the embedded database is full", false, func(t *testing.T, r *row) {
		s := newEmbedded(t, tempDir(t), quota)
		l := newLoad(s, r)
		replica, chains := s.replicas[0], l.lives(30)
		if err := replica.stop(); err != nil {
			t.Fatal(err)
		}
		replica.junk(t, 160, 1)
		if err := replica.start(); err != nil {
			t.Fatal(err)
		}
		l.fullOf(chains, replica)
		if err := replica.stop(); err != nil {
			r.violation("it ends with %v", err)
		}
		replica.withQuota(t, "256MiB")
		replica.starts(t)
		l.recovers(t, 20*time.Second)
		for _, c := range chains {
			c.use(l.any(), 1)
		}
		l.end()
	})
	cell(t, "the embedded database is full of history", false, func(t *testing.T, r *row) {
		s := newEmbedded(t, tempDir(t), quota)
		l := newLoad(s, r)
		replica, chains := s.replicas[0], l.lives(30)
		if err := replica.stop(); err != nil {
			t.Fatal(err)
		}
		replica.junk(t, 1, 160)
		if err := replica.start(); err != nil {
			t.Fatal(err)
		}
		until(t, "it answers", patience, func() error {
			_, err := s.person.code(t.Context(), replica.base)
			return err
		})
		for _, c := range chains {
			c.use(l.any(), 1)
		}
		l.recovers(t, 30*time.Second)
		l.end()
	})
}

// fullOf has grants end at a server that is out of room, which says so.
func (l *load) fullOf(chains []*chain, replica *replica) {
	t := l.stage.t
	t.Helper()
	until(t, "a refresh finds no room", patience, func() error {
		if got := chains[0].use(replica.base, 1); got.outcome == granted {
			l.row.violation("a refresh token was used without room for its successor")
		} else if got.unsent {
			return errors.New("nobody listens")
		}
		return nil
	})
	for _, c := range chains[1:20] {
		if got := c.revoke(l.any(), c.newest); got.outcome != granted {
			l.row.violation("a grant cannot be revoked: %v", got.fields)
		}
		c.look(l.any())
	}
	if err := replica.ready(); err == nil || !strings.Contains(err.Error(), "full") {
		l.row.note("readyz: %v", err)
	}
	if !strings.Contains(replica.words(1000), "full") {
		l.row.violation("the log of %s does not say that storage is full", replica.name)
	}
}

// TestNoRoomInTheCluster: the same with a cluster, in which its operators make room.
func TestNoRoomInTheCluster(t *testing.T) {
	cell(t, "the etcd cluster is full", false, func(t *testing.T, r *row) {
		s := newStage(t, staging{quota: 32 << 20})
		l := newLoad(s, r)
		chains := l.lives(30)
		s.cluster.fill()
		l.fullOf(chains, s.replicas[1])
		var listed []struct{ ID string }
		s.replicas[0].ask(t.Context(), http.MethodGet, "/v1/grants?app=shop", nil).into(t, &listed)
		if len(listed) == 0 || len(listed) > 11 {
			r.violation("%d grants are listed after 19 of 30 were revoked", len(listed))
		}
		s.cluster.empty()
		l.recovers(t, 20*time.Second)
		for _, c := range chains {
			c.use(l.any(), 1)
		}
		l.end()
	})
}

// ends waits until a server that cannot go on has ended, and checks that it did so in order, with one line that says
// all of these.
func (r *replica) ends(t testing.TB, row *row, words ...string) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		before := r.words(10)
		r.signal(syscall.SIGQUIT) // for the traces of its goroutines, in its log
		<-r.ended
		t.Fatalf("%s does not end:\n%s", r.name, before)
	}
	var exit interface{ ExitCode() int }
	if r.err == nil || !errors.As(r.err, &exit) || exit.ExitCode() <= 0 {
		row.violation("%s ended with %v", r.name, r.err)
	}
	lines := strings.Split(r.words(50), "\n")
	if !slices.ContainsFunc(lines, func(line string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
	}) {
		row.violation("no line of the log says %q:\n%s", words, r.words(10))
	}
	if strings.Contains(r.words(50), "goroutine ") {
		row.violation("the log has a trace:\n%s", r.words(50))
	}
	row.operation()
}

// TestDamagedDatabase: a server whose write-ahead log is damaged says so, and what to do.
func TestDamagedDatabase(t *testing.T) {
	cell(t, "the write-ahead log is damaged", true, func(t *testing.T, r *row) {
		s := newEmbedded(t, tempDir(t), "")
		l := newLoad(s, r)
		replica := s.replicas[0]
		l.lives(20)
		replica.kill()
		logs, err := filepath.Glob(filepath.Join(replica.data(), "etcd", "member", "wal", "*.wal"))
		if err != nil || len(logs) == 0 {
			t.Fatal("no write-ahead log", err)
		}
		file, err := os.OpenFile(logs[0], os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte(strings.Repeat("damaged ", 64)), 4<<10); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		if err := replica.start(); err != nil {
			t.Fatal(err)
		}
		replica.ends(t, r, replica.data(), "damaged", "warifu restore")
	})
}

// TestFullDisk: a server whose disk is full ends in order and says so; when there is room again, all that was
// acknowledged is there.
func TestFullDisk(t *testing.T) {
	cell(t, "the disk is full", false, func(t *testing.T, r *row) {
		dir := tempDir(t)
		disk := filepath.Join(dir, "replica", "data")
		if err := os.MkdirAll(disk, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=160m,mode=700"); err != nil {
			t.Fatalf("mount a small disk: %v (this needs root)", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
		s := newEmbedded(t, dir, "")
		l := newLoad(s, r)
		l.runs(l.life, l.life, l.life, l.life, l.own)
		time.Sleep(time.Second)
		junk := filepath.Join(disk, "junk")
		file, err := os.Create(junk)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = file.Write(make([]byte, 4<<10))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		replica := s.replicas[0]
		replica.ends(t, r, "disk", "full", "make room")
		if err := os.Remove(junk); err != nil {
			t.Fatal(err)
		}
		replica.starts(t)
		l.recovers(t, 20*time.Second)
		l.end()
	})
}

// command runs a command of the program to its end.
func (r *replica) command(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), suite.binary, args...)
	cmd.Dir = r.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("warifu %s: %v\n%s", args[0], err, out)
	}
}

// TestOldBackup: a database that is restored from an old backup revives nothing that has ended since, nor anything
// else: its grants have ended, whatever became of them in the meantime, and so have the secrets of clients.
func TestOldBackup(t *testing.T) {
	cell(t, "an old backup is restored", false, func(t *testing.T, r *row) {
		s := newEmbedded(t, tempDir(t), "")
		l := newLoad(s, r)
		replica, chains := s.replicas[0], l.lives(40)
		for range 5 { // codes that nobody has redeemed yet
			code, err := s.person.code(t.Context(), replica.base)
			if err != nil {
				t.Fatal(err)
			}
			chains = append(chains, l.chain(code))
		}
		backup := filepath.Join(s.dir, "backup.db")
		replica.command(t, "backup", backup, "--admin", replica.socket())
		for i, c := range chains[:40] {
			switch i % 4 {
			case 0:
				c.revoke(replica.base, 1)
			case 1:
				c.use(replica.base, 1)
			case 2:
				c.use(replica.base, 1)
				c.use(replica.base, 1) // a replay
			}
		}
		if err := replica.stop(); err != nil {
			r.violation("it ends with %v", err)
		}
		old := replica.data() + ".old"
		if err := os.Rename(replica.data(), old); err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(filepath.Join(old, "encryption.key"))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(replica.data(), "encryption.key"), string(key))
		replica.command(t, "restore", backup, "--config", filepath.Join(replica.dir, "config.yaml"))
		for _, c := range chains {
			c.noted(input{revoke, c.newest}, time.Now(), granted)
		}
		replica.starts(t)
		before := s.app
		if s.app = replica.credentials(t, "shop"); s.app.ID != before.ID || s.app.Secret == before.Secret {
			r.violation("the client is %s and was %s, and its secret is the one of the backup: %v", s.app.ID, before.ID,
				s.app.Secret == before.Secret)
		}
		for _, c := range chains {
			c.look(replica.base)
			for generation := range c.newest {
				c.use(replica.base, generation+1)
			}
			c.exchange(replica.base)
		}
		l.recovers(t, 10*time.Second)
		l.end()
	})
}
