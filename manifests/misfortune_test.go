package manifests

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// Of every misfortune of a runtime the same is asked: its deliveries say what is wrong and what to do, an app of
// another runtime does not notice, and once the misfortune ends everything arrives, with nothing done by hand.

// bystander applies an app that the runtime file serves, while the other runtime is in trouble, and waits for it.
func (r *rig) bystander(d *Deployer) {
	r.t.Helper()
	r.apply(d, worker("bystander"))
	r.awaitReady("bystander")
	if r.env("bystander", "worker", "web")["OAUTH_CLIENT_SECRET"] != r.secret("bystander") {
		r.t.Error("the other app did not get its env")
	}
}

// troubled gives the workers of "app" to the runtime named remote, and everything else to the file runtime.
func troubled(o *DeployerOptions) {
	o.Assignments = []Assignment{{App: "app", Runtime: "remote"}, {Runtime: "file"}}
}

// failing waits until the delivery of "app" has failed with these words.
func (r *rig) failing(words string) *storage.Delivery {
	r.t.Helper()
	x := r.await("app", "it fails with "+words, func(list []*storage.Delivery) bool {
		return len(list) == 1 && list[0].State == storage.DeliveryFailed && strings.Contains(list[0].Error, words)
	})[0]
	if x.Remedy == "" {
		r.t.Errorf("nothing says what to do about: %s", x.Error)
	}
	return x
}

// Plugins whose executable is not what it should be. It is put right while the server runs.
func TestMisfortunesOfExecutables(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(program))
	// What is at the plugin's path only names the script: a shell reads its file after it was started, and by then the
	// program may be there. Whatever in that looks like the name of a file, it would make one.
	scripts := t.TempDir()
	script := func(text string) []byte {
		path := filepath.Join(scripts, fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:8])
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return []byte("#!" + path + "\n")
	}
	for name, c := range map[string]struct {
		found  []byte // nil: nothing
		sha256 string
		words  string
	}{
		"missing":        {nil, "", "no such file"},
		"wrong checksum": {script("exit 1"), sum, "its sha256 is not the configured one"},
		"wrong protocol version": {script(`echo "1|99|unix|$PLUGIN_UNIX_SOCKET_DIR/s|grpc|"; exec sleep 30`), "",
			"another version of the plugin protocol"},
		"crash loop": {script("exit 3"), "", "ended before the handshake"},
		"floods its output": {script("i=0; while [ $i -lt 20000 ]; do echo flood flood flood flood flood >&2; " +
			"i=$((i+1)); done; exit 3"), "", "ended before the handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).withFiles()
			path := filepath.Join(t.TempDir(), "plugin")
			install := func(content []byte) {
				if err := os.WriteFile(path+".new", content, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(path+".new", path); err != nil {
					t.Fatal(err)
				}
			}
			if c.found != nil {
				install(c.found)
			}
			dir := t.TempDir()
			s := spec("file", map[string]string{"dir": dir})
			s.Name, s.Path, s.SHA256, s.StateDir = "remote", path, c.sha256, t.TempDir()
			rt, err := r.host.Runtime(s)
			if err != nil {
				t.Fatal(err)
			}
			r.opts.Runtimes = append(r.opts.Runtimes, rt)
			d := r.deployer(troubled)
			r.run(d)
			r.apply(d, worker("app"))
			r.failing(c.words)
			r.bystander(d)
			install(program)
			r.awaitReady("app")
			env, err := os.ReadFile(filepath.Join(dir, "app", "worker-web.env"))
			if err != nil || !strings.Contains(string(env), r.secret("app")) {
				t.Errorf("not delivered: %v", err)
			}
			if n := strings.Count(r.log.String(), "flood flood"); n > 2000 {
				t.Errorf("%d lines of the flood are in the log", n)
			}
		})
	}
}

// Plugins that run and misbehave.
func TestMisfortunesOfPlugins(t *testing.T) {
	for name, c := range map[string]struct {
		push  func(r *rig, m *remote, c call) *reply // while the misfortune lasts
		words string
	}{
		"crashes at every push": {func(*rig, *remote, call) *reply { return &reply{Exit: true} }, "unavailable"},
		"hangs":                 {func(*rig, *remote, call) *reply { return &reply{Hang: true} }, "no answer in time"},
		"answers after the deadline": {func(_ *rig, m *remote, c call) *reply {
			m.contract(c) // it has happened, and nobody hears of it
			return &reply{Hang: true}
		}, ""},
		"says that it has a newer generation": {func(_ *rig, m *remote, c call) *reply {
			answer := (&held{generation: c.Generation + 1, digest: c.Digest}).status()
			return &reply{Status: answer}
		}, "breaks the plugin contract"},
		"says that it has an older generation": {func(_ *rig, m *remote, c call) *reply {
			answer := (&held{generation: c.Generation - 1, digest: c.Digest}).status()
			return &reply{Status: answer}
		}, "breaks the plugin contract"},
		"answers with another app's target": {func(_ *rig, m *remote, c call) *reply {
			return &reply{Status: m.target("neighbour", "web").status()}
		}, "breaks the plugin contract"},
		"speaks the secret out": {func(_ *rig, _ *remote, c call) *reply {
			return &reply{Fail: "cannot write " + c.Env["OAUTH_CLIENT_SECRET"]}
		}, "cannot write [redacted]"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			host, err := plugins.NewHost(plugins.HostOptions{Logger: r.opts.Logger,
				Backoff: plugins.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond},
				// The first call has the time of the start; a push that hangs is not worth more.
				Deadlines: plugins.Deadlines{Push: 300 * time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := host.Close(); err != nil {
					t.Error(err)
				}
			})
			old := r.host
			r.host = host
			r.withFiles()
			var over atomic.Bool
			var m *remote
			m = r.withRemote(func(x call) *reply {
				if x.Op == "push" && x.App == "app" && !over.Load() {
					return c.push(r, m, x)
				}
				return nil
			})
			r.host = old
			m.set("neighbour", "web", &held{generation: 1, fence: 1, digest: "of another app"})
			d := r.deployer(troubled)
			r.run(d)
			r.apply(d, worker("app"))
			if c.words != "" {
				r.failing(c.words)
			}
			r.bystander(d)
			over.Store(true)
			x := r.awaitReady("app")[0]
			if h := m.target("app", "web"); h == nil || h.generation != x.Generation ||
				h.env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
				t.Error("not delivered")
			}
			if h := m.target("neighbour", "web"); h == nil || h.digest != "of another app" {
				t.Error("the other app's target was touched")
			}
		})
	}
}

// An hour is longer than deliveries are tried. They are given up, which everybody can see, and made when the runtime is
// back; what was applied, changed and deleted meanwhile is not lost either.
func TestRuntimeThatIsDownForAnHour(t *testing.T) {
	r := newRig(t).withFiles()
	var down atomic.Bool
	m := r.withRemote(func(c call) *reply {
		if down.Load() {
			return &reply{Fail: "unavailable"}
		}
		return nil
	})
	var skew atomic.Int64
	d := r.deployer(troubled, func(o *DeployerOptions) {
		o.Assignments = append([]Assignment{{App: "*app", Runtime: "remote"}}, o.Assignments...)
		o.Pace.Reconcile = 30 * time.Millisecond
		o.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	})
	r.run(d)
	r.apply(d, worker("old-app"))
	r.apply(d, worker("doomed-app"))
	r.awaitReady("old-app")
	r.awaitReady("doomed-app")
	down.Store(true)
	r.apply(d, worker("app"))
	r.apply(d, worker("old-app", noEnv, isPublic))
	if err := d.Delete(t.Context(), "doomed-app"); err != nil {
		t.Fatal(err)
	}
	for _, app := range []string{"app", "old-app", "doomed-app"} {
		r.await(app, "it fails", func(list []*storage.Delivery) bool { return list[0].Attempts >= 2 })
	}
	skew.Store(int64(time.Hour))
	for _, app := range []string{"app", "old-app", "doomed-app"} {
		x := r.await(app, "it is given up", state(storage.DeliveryDegraded))[0]
		if !strings.Contains(x.Error, "the cluster is away") || !strings.Contains(x.Remedy, "once the runtime answers, "+
			"it is delivered") {
			t.Errorf("%s: %q, %q", app, x.Error, x.Remedy)
		}
	}
	r.bystander(d)
	down.Store(false)
	r.awaitReady("app")
	r.awaitReady("old-app")
	if h := m.target("old-app", "web"); h == nil || h.env["OAUTH_CLIENT_SECRET"] != "" {
		t.Error("what was applied meanwhile is lost")
	}
	r.await("doomed-app", "its env is taken away", none)
}
