package runtimeworkers

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
)

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	state, root := t.TempDir(), t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "")
	for name, c := range map[string]struct{ config, state, word string }{
		"no config":       {"", state, "is an object with a driver"},
		"no driver":       {"{}", state, `driver "" is not workerd or cloudflare`},
		"no state":        {`{"driver":"workerd"}`, "", "needs a state directory"},
		"unknown setting": {`{"driver":"workerd","path":"/x"}`, state, `unknown field "path"`},
		"other driver's":  {`{"driver":"cloudflare","root":"/x"}`, state, `unknown field "root"`},
		"relative root":   {`{"driver":"workerd","root":"apps"}`, state, `root "apps" is not an absolute path`},
		"no workerd": {`{"driver":"workerd","root":"` + root + `"}`, state, "npm install workerd@" +
			WorkerdVersion},
		"workerd not there": {`{"driver":"workerd","workerd":"/nowhere/workerd"}`, state,
			"not a file that can be executed"},
		"workerd not a binary": {`{"driver":"workerd","workerd":"` + file + `"}`, state, "not a file that can be executed"},
		"name of a Worker":     {`{"driver":"workerd","workers":{"web":{}}}`, state, `"web" in workers is not app/worker`},
		"name of a variable": {`{"driver":"workerd","workers":{"app/web":{"vars":{"A B":"x"}}}}`, state,
			`"A B" in the vars of app/web`},
		"negative drain": {`{"driver":"workerd","drainSeconds":-1}`, state, "is negative"},
		"no account":     {`{"driver":"cloudflare","tokenFile":"` + file + `"}`, state, "accountId"},
		"relative token": {`{"driver":"cloudflare","accountId":"a1","tokenFile":"token"}`, state,
			"not an absolute path"},
		"no token": {`{"driver":"cloudflare","accountId":"a1","tokenFile":"/nowhere/token"}`,
			state, "no such file"},
		"empty token": {`{"driver":"cloudflare","accountId":"a1","tokenFile":"` + file + `"}`, state, "is empty"},
	} {
		err := (&workersRuntime{}).Configure(t.Context(), json.RawMessage(c.config), c.state)
		if !errors.Is(err, plugins.ErrInvalid) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(file, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := `{"driver":"cloudflare","accountId":"a1","tokenFile":"` + file + `","api":"http://example.com"}`
	if err := (&workersRuntime{}).Configure(t.Context(), json.RawMessage(plain), state); err == nil ||
		!strings.Contains(err.Error(), "not an https address") {
		t.Errorf("API without TLS: %v", err)
	}
}

func TestOnlyWorkersAreServed(t *testing.T) {
	r := &workersRuntime{}
	for _, target := range []plugins.Target{{Kind: plugins.TargetContainer, Name: "x"}, {Kind: plugins.TargetWorker}, {}} {
		req := plugins.PushRequest{App: "app", Target: target}
		_, pushed := r.PushEnv(t.Context(), req)
		_, observed := r.ObserveEnv(t.Context(), "app", target)
		removed := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: target})
		for _, err := range []error{pushed, observed, removed} {
			if !errors.Is(err, plugins.ErrInvalid) {
				t.Errorf("%s: %v", target, err)
			}
		}
	}
}

func TestWorkerdIsFoundAsNpmInstallsIt(t *testing.T) {
	t.Setenv("PATH", "")
	root := t.TempDir()
	below := filepath.Join(root, "a", "b")
	if path, ok := FindWorkerd(below); ok && strings.HasPrefix(path, root) {
		t.Fatalf("found %s", path)
	}
	installed := filepath.Join(root, "node_modules", "@cloudflare", "workerd-"+platform(), "bin", "workerd")
	for _, dir := range []string{filepath.Dir(installed), below} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(installed, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if path, ok := FindWorkerd(below); !ok || path != installed {
		t.Errorf("found %s, %v", path, ok)
	}
}

// What npm puts in PATH is a link to a script that wants node in PATH, which a Worker's process has not.
func TestWorkerdIsFoundBesideItsScriptInPath(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(root, "node_modules")
	bin, script := filepath.Join(modules, ".bin"), filepath.Join(modules, "workerd", "bin", "workerd")
	installed := filepath.Join(modules, "@cloudflare", "workerd-"+platform(), "bin", "workerd")
	for _, dir := range []string{bin, filepath.Dir(script), filepath.Dir(installed)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for path, content := range map[string]string{script: "#!/usr/bin/env node\n", installed: "\x7fELF"} {
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(script, filepath.Join(bin, "workerd")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	if path, ok := FindWorkerd(t.TempDir()); !ok || path != installed {
		t.Errorf("found %s, %v; want %s", path, ok, installed)
	}
	t.Setenv("PATH", filepath.Dir(installed))
	if path, ok := FindWorkerd(t.TempDir()); !ok || path != installed {
		t.Errorf("found %s, %v; want %s", path, ok, installed)
	}
}

func TestScriptOfAWorker(t *testing.T) {
	s := workerdSettings{Root: "/srv", Script: defaultScript, Workers: map[string]workerSettings{
		"app/relative": {Script: "dist/worker"}, "app/absolute": {Script: "/opt/worker.js"},
		"a b/odd name": {Script: "odd.js"}}}
	for name, wanted := range map[string]string{
		"app/web": "/srv/app/web.js", "app/relative": "/srv/dist/worker", "app/absolute": "/opt/worker.js",
		"a b/odd name": "/srv/odd.js",
		"app/..":       "", "../web": "", "app/a\x00b": "", "/web": "", "app/.hidden": "",
	} {
		app, worker, _ := strings.Cut(name, "/")
		if name == "../web" {
			app, worker = "..", "web"
		}
		w, err := s.worker(app, worker)
		var p *problem
		if wanted == "" && !errors.As(err, &p) || wanted != "" && (err != nil || w.Script != wanted) {
			t.Errorf("%q: %q, %v", name, w.Script, err)
		}
	}
	s.Root = ""
	var p *problem
	if w, err := s.worker("app", "web"); !errors.As(err, &p) || !strings.Contains(p.message, "no root") {
		t.Errorf("without a root: %q, %v", w.Script, err)
	}
}

func TestScriptThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	var p *problem
	if _, err := loadScript(filepath.Join(dir, "no.js")); !errors.As(err, &p) || !p.retryable ||
		!strings.Contains(p.message, "there is no script") {
		t.Errorf("no file: %v", err)
	}
	if _, err := loadScript(dir); !errors.As(err, &p) || !p.retryable ||
		!strings.Contains(p.message, "has none of index.js") {
		t.Errorf("no entry: %v", err)
	}
}

func TestLiteralsOfCapnProto(t *testing.T) {
	for text, literal := range map[string]string{
		"":                 `""`,
		"a\"b\\c":          `"a\"b\\c"`,
		"x\ny\tz\x00\x7f!": `"x\ny\x09z\x00\x7f!"`,
		"日本":               `"日本"`,
	} {
		if got := quoteText(text); got != literal {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestRecordsAreSealedAndChangesSeen(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	rec := record{App: "app", Worker: "../../web", Generation: 3, Fence: 2, Digest: "d", Env: credentials}
	other := record{App: "app", Worker: "other", Generation: 1, Digest: "d"}
	for _, r := range []record{rec, other} {
		if err := s.save(r); err != nil {
			t.Fatal(err)
		}
	}
	s, err = openStore(dir) // another life
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.load(rec.App, rec.Worker)
	if err != nil || got.Generation != 3 || got.Fence != 2 || got.Digest != "d" || !maps.Equal(got.Env, credentials) {
		t.Fatalf("%+v, %v", got, err)
	}
	path := filepath.Join(s.dir, base(rec.App, rec.Worker))
	sealed, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(sealed), "wfs_") || strings.Contains(string(sealed), "OAUTH") {
		t.Errorf("not sealed: %v", err)
	}
	for _, file := range []string{path, filepath.Join(dir, "seal.key")} {
		if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	swapped, err := os.ReadFile(filepath.Join(s.dir, base("app", "other")))
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for name, content := range map[string][]byte{"one bit": flipped, "cut": sealed[:30], "empty": {},
		"another Worker's": swapped} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.load(rec.App, rec.Worker); !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, ".left"), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := s.all()
	if err != nil || len(all) != 1 || all[0].Worker != "other" {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, ".left")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed process left is still there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "seal.key"), make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = openStore(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.load("app", "other"); !errors.Is(err, errDamaged) {
		t.Errorf("with another key: %v", err)
	}
}
