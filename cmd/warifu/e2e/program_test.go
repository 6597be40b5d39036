//go:build e2e

package e2e

import (
	"debug/elf"
	"net/http"
	"os"
	"testing"
	"time"
)

// What people are told of the program: limits that a change must not pass by the way.
const (
	mostBytes   = 62_000_000
	mostIdleKiB = 60 << 10
)

// TestProgramIsStaticAndSmall: one file that runs on any Linux, also where there is nothing else.
func TestProgramIsStaticAndSmall(t *testing.T) {
	file, err := elf.Open(suite.binary)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // only read
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is linked dynamically: it has %s", p.Type)
		}
	}
	info, err := os.Stat(suite.binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > mostBytes {
		t.Errorf("the program has %d bytes, more than %d", info.Size(), mostBytes)
	}
}

// TestIdleServerIsSmall: a server with embedded etcd and without plugins, to which nobody comes.
func TestIdleServerIsSmall(t *testing.T) {
	p := serve(t, t.TempDir(), nil)
	resp, err := http.Get(p.ready.Issuer + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	var last footprint
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for same, deadline := 0, time.Now().Add(patience); same < 6; { // what the start has left over is given back in a while
		now, err := p.footprint()
		if err != nil {
			t.Fatal(err)
		}
		if len(now.plugins) > 0 {
			t.Fatalf("a server without plugins has child processes: %s", now)
		}
		if diff := now.main - last.main; diff*diff < 256*256 { // KiB: nothing but what goes to and fro
			same++
		} else {
			same = 0
		}
		if last = now; time.Now().After(deadline) {
			break
		}
		<-again.C
	}
	t.Logf("idle: %s", last)
	if last.main > mostIdleKiB {
		t.Errorf("an idle server takes %s, more than %d", last, mostIdleKiB>>10)
	}
}
