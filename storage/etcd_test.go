package storage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/version"

	"github.com/warifu/warifu/storage"
)

func TestEmbeddedServesOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	first, err := storage.OpenEmbedded(t.Context(), dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := storage.OpenEmbedded(t.Context(), dir, discard); err == nil || !strings.Contains(err.Error(), "another process") {
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
