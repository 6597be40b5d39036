//go:build faults

package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClocks: a clock that is wrong, of one replica or at the very first start, is told, and keeps nobody from
// anything.
func TestClocks(t *testing.T) {
	cell(t, "a replica whose clock is 31 days ahead", false, func(t *testing.T, r *row) {
		wrong := ahead(t)
		s := newStage(t, staging{})
		l := newLoad(s, r)
		l.start(4)
		time.Sleep(time.Second)
		odd := s.another(t, "")
		odd.binary = wrong
		if err := odd.start(); err != nil {
			t.Fatal(err)
		}
		until(t, "the others tell of a clock", 2*time.Minute, func() error { // they compare once a minute
			for _, replica := range s.replicas {
				if !strings.Contains(replica.words(10_000), "clocks differ") {
					return fmt.Errorf("%s does not log it", replica.name)
				}
			}
			return nil
		})
		odd.kill()
		l.recovers(t, 5*time.Second)
		l.end()
		if n := r.failed(); n > 0 {
			r.violation("%d requests failed", n)
		}
	})
	cell(t, "a first start with a clock 31 days ahead", false, func(t *testing.T, r *row) {
		s := newStage(t, staging{first: ahead(t)})
		l := newLoad(s, r)
		l.start(4)
		time.Sleep(4 * time.Second)
		l.recovers(t, 5*time.Second)
		l.end()
		if n := r.failed(); n > 0 {
			r.violation("%d requests failed", n)
		}
	})
}

// ahead is the binary with a clock that is 31 days ahead, which the first who asks builds: the product as it is, with a
// standard library in which time.Now is wrong. The whole process sees that time, and so do its plugins, which are the
// same binary.
func ahead(t testing.TB) string {
	t.Helper()
	if suite.ahead != "" {
		return suite.ahead
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(suite.dir, "ahead")
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const reads = "\tsec, nsec, mono := runtimeNow()\n"
	head, rest, found := strings.Cut(string(text), "func Now() Time {\n"+reads)
	if !found {
		t.Fatal("time.Now reads the clock in another way than it did: say here how")
	}
	wrong := writeFile(t, filepath.Join(dir, "time.go"), head+"func Now() Time {\n"+reads+
		"\tsec += 31 * secondsPerDay\n"+rest)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: wrong}})
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "warifu")
	build := exec.Command("go", "build", "-overlay", writeFile(t, filepath.Join(dir, "overlay.json"), string(overlay)),
		"-o", binary, "github.com/warifu/warifu/cmd/warifu")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a binary whose clock is wrong: %v\n%s", err, out)
	}
	suite.ahead = binary
	return binary
}
