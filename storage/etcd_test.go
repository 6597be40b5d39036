package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/warifu/warifu/storage"
)

func TestEmbeddedServesOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	first, err := storage.OpenEmbedded(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := storage.OpenEmbedded(t.Context(), dir, discard); err == nil ||
		!strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one opened: %v", err)
	}
	first.Close()
	second, err := storage.OpenEmbedded(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if info, err := os.Stat(filepath.Join(dir, "etcd")); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the database is open to others: %v", info.Mode())
	}
}

// Raft gives up when it is to elect somebody before it knows what is applied, and etcd has dropped that already.
func TestMemberStandsForElectionOnlyWhenRaftKnowsWhatIsApplied(t *testing.T) {
	commit := uint64(104)
	now := raft.Status{BasicStatus: raft.BasicStatus{ID: 7, HardState: &raftpb.HardState{Commit: &commit}}}
	looks, asked := 0, 0
	storage.Campaign(t.Context(), func() raft.Status {
		if looks++; looks == 5 {
			now.Applied = commit
		}
		return now
	}, func(_ context.Context, m *raftpb.Message) error {
		if looks < 5 {
			t.Errorf("asked at look %d, when raft knows nothing of %d entries", looks, commit)
		}
		if m.GetType() != raftpb.MsgTimeoutNow || m.GetTo() != 7 {
			t.Errorf("asked %v of %d", m.GetType(), m.GetTo())
		}
		if asked++; asked == 2 {
			now.Lead = 7
		}
		return nil
	})
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// Of several starts one, at least, takes less than the shortest time in which a member begins an election by itself.
func TestEmbeddedDoesNotWaitForAnElection(t *testing.T) {
	dir, shortest := t.TempDir(), time.Hour
	for range 5 {
		began := time.Now()
		embedded, err := storage.OpenEmbedded(t.Context(), dir, discard)
		if err != nil {
			t.Fatal(err)
		}
		shortest = min(shortest, time.Since(began))
		embedded.Close()
	}
	if shortest > 190*time.Millisecond {
		t.Errorf("ready after %s at best", shortest)
	}
}

func TestEmbeddedOpensNoSocket(t *testing.T) {
	before := sockets(t)
	embedded, err := storage.OpenEmbedded(t.Context(), t.TempDir(), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	if after := sockets(t); after > before {
		t.Errorf("%d sockets more", after-before)
	}
}

// GHSA-xg4h-6gfc-h4m8 sets the floor.
func TestVersionFloorOfEtcd(t *testing.T) {
	var major, minor, patch int
	if _, err := fmt.Sscanf(version.Version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		t.Fatal(err)
	}
	if slices.Compare([]int{major, minor, patch}, []int{3, 7, 1}) < 0 {
		t.Errorf("etcd %s is embedded", version.Version)
	}
}

func sockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// What etcd would end the process for becomes an error that says what to do.
func TestDamagedLogSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	embedded, err := storage.OpenEmbedded(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := embedded.Client.Put(t.Context(), "key", strings.Repeat("value ", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	embedded.Close()
	logs, err := filepath.Glob(filepath.Join(dir, "etcd", "member", "wal", "*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log in %s: %v", dir, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 200_000; i < 200_400; i++ {
		text[i] ^= 0xff
	}
	if err := os.WriteFile(logs[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = storage.OpenEmbedded(t.Context(), dir, discard)
	if err == nil || !strings.Contains(err.Error(), "is damaged") || !strings.Contains(err.Error(), "warifu restore") {
		t.Errorf("a damaged log: %v", err)
	}
}

// That a database cannot be used says what to do, and that it is damaged only where etcd finds that.
func TestADatabaseThatCannotBeUsedIsNotCalledDamaged(t *testing.T) {
	db := "/data/etcd/member/snap/db"
	for _, tt := range []struct {
		what, words string
		why         error
		damaged     bool
	}{
		{"failed to open database", "chown -R", &os.PathError{Op: "open", Path: db, Err: syscall.EACCES}, false},
		{"etcd does not start", "chown -R", errors.New("cannot access data directory: open /data/etcd/member: " +
			"permission denied"), false},
		{"failed to open WAL", "chown -R", &os.PathError{Op: "open", Path: "/data/etcd/member/wal/0.wal", Err: syscall.EPERM},
			false},
		{"failed to open database", "storage.config.quota", syscall.ENOMEM, false},
		{"failed to open database", "ulimit -n", &os.PathError{Op: "open", Path: db, Err: syscall.EMFILE}, false},
		{"failed to open database", "read-only", &os.PathError{Op: "open", Path: db, Err: syscall.EROFS}, false},
		{"failed to open database", "check its disk", &os.PathError{Op: "read", Path: db, Err: syscall.EIO}, false},
		{"failed to save Raft hard state and entries", "is full", &os.PathError{Op: "write", Path: db, Err: syscall.ENOSPC},
			false},
		{"failed to open database", "warifu restore", errors.New("invalid database"), true},
		{"failed to open database", "warifu restore", errors.New("checksum error"), true},
		{"etcd does not start", "warifu restore", errors.New("walpb: crc mismatch"), true},
		{"failed to read WAL, cannot be repaired", "warifu restore", io.ErrUnexpectedEOF, true},
	} {
		said := storage.FailureOf("/data", tt.what, tt.why).Error()
		if !strings.Contains(said, tt.words) || strings.Contains(said, "is damaged") != tt.damaged ||
			!strings.Contains(said, tt.why.Error()) {
			t.Errorf("%s, %v: %s", tt.what, tt.why, said)
		}
	}
}

// The same with an etcd: what is in place of its database cannot be opened.
func TestADatabaseThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "etcd", "member", "snap", "db")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := storage.OpenEmbedded(t.Context(), dir, discard)
	if err == nil || strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory in place of the database: %v", err)
	}
}

// The disk is full: the etcd gives up, and says so to its owner instead of ending the process; a store on it can be
// closed.
func TestFullDiskEndsInOrder(t *testing.T) {
	for _, file := range []string{".wal", "/db"} {
		t.Run(file, func(t *testing.T) { fillDisk(t, file) })
	}
}

// fillDisk has etcd find no room where it writes to the files that end so.
func fillDisk(t *testing.T, suffix string) {
	dir, log := t.TempDir(), new(logged)
	embedded, err := storage.OpenEmbedded(t.Context(), dir, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	if embedded.Err() != nil {
		t.Fatal(embedded.Err())
	}
	kek, err := storage.NewKEK(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.New(t.Context(), embedded.Client, storage.Options{
		KEK: kek, OneMember: true, Embedded: embedded, Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close() // which waits for nobody that waits for etcd
	// What is written next fits into pages of the database that are free. It would look at the size of the file first if
	// that had to grow, and /dev/full has none.
	if _, err := embedded.Client.Put(t.Context(), "key", strings.Repeat("x", 256<<10)); err != nil {
		t.Fatal(err)
	}
	gone, err := embedded.Client.Delete(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Client.Compact(t.Context(), gone.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	// The file becomes /dev/full.
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	found := 0
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || !strings.HasPrefix(to, dir) || !strings.HasSuffix(to, suffix) {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		found++
	}
	if found == 0 {
		t.Fatal("etcd has no such file open")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { _, _ = embedded.Client.Put(ctx, "key", "value") }()
	select {
	case <-embedded.Failed():
	case <-ctx.Done():
		t.Fatal("it has not noticed")
	}
	if err := embedded.Err(); err == nil || !strings.Contains(err.Error(), "is full") || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	if strings.Contains(log.String(), "etcd: failed to save") {
		t.Errorf("etcd's own words are in the log:\n%s", log)
	}
}

// Hundreds of lines of one kind are one, which says how often it came.
func TestEtcdRepeatsItselfOnceAMinute(t *testing.T) {
	log, now := new(logged), time.Now()
	etcd := storage.EtcdLog(log.logger(), func() time.Time { return now })
	for range 300 {
		etcd.Warn("apply request took too long", zap.String("request", "key of a record"))
		etcd.Warn("slow fdatasync")
		etcd.Warn("something else")
	}
	now = now.Add(time.Minute)
	etcd.Warn("slow fdatasync")
	text := log.String()
	if n := strings.Count(text, "\n"); n != 3 {
		t.Errorf("%d lines:\n%s", n, text)
	}
	if !strings.Contains(text, "storage is slow") || !strings.Contains(text, "repeated=599") ||
		strings.Contains(text, "key of a record") {
		t.Errorf("the log:\n%s", text)
	}
}
