package runtimefile

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
)

// The test binary is the plugin as well.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		Serve()
		return
	}
	os.Exit(m.Run())
}

var (
	digestKey = []byte("test")
	web       = plugins.Target{Kind: plugins.TargetWorker, Name: "web"}
)

type fixture struct {
	*fileRuntime
	t   *testing.T
	dir string // env files

	settings json.RawMessage // of one that reloads
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	root := t.TempDir()
	f := &fixture{fileRuntime: &fileRuntime{}, t: t, dir: filepath.Join(root, "env")}
	f.configure(filepath.Join(root, "state"))
	return f
}

func (f *fixture) configure(stateDir string) {
	f.t.Helper()
	if err := f.Configure(f.t.Context(), config(f.t, f.dir), stateDir); err != nil {
		f.t.Fatal(err)
	}
}

func config(t *testing.T, dir string) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(map[string]string{"dir": dir})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func want(generation int64, env map[string]string) plugins.PushRequest {
	return plugins.PushRequest{App: "app", Target: web, Generation: generation, Fence: 1,
		Digest: plugins.Digest(digestKey, env), Env: env}
}

func (f *fixture) push(req plugins.PushRequest) plugins.Status {
	f.t.Helper()
	st, err := f.PushEnv(f.t.Context(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	return st
}

func (f *fixture) observe() plugins.Status {
	f.t.Helper()
	st, err := f.ObserveEnv(f.t.Context(), "app", web)
	if err != nil {
		f.t.Fatal(err)
	}
	return st
}

func (f *fixture) file() string { return filepath.Join(f.dir, "app", "worker-web.env") }

func (f *fixture) read() string {
	f.t.Helper()
	content, err := os.ReadFile(f.file())
	if err != nil {
		f.t.Fatal(err)
	}
	return string(content)
}

func (f *fixture) write(content string) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.file()), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.file(), []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) edit(old, replacement string) {
	f.t.Helper()
	content := f.read()
	if !strings.Contains(content, old) {
		f.t.Fatalf("%q is not in the file:\n%s", old, content)
	}
	f.write(strings.Replace(content, old, replacement, 1))
}

var credentials = map[string]string{"OAUTH_CLIENT_ID": "app-abc", "OAUTH_CLIENT_SECRET": "wfs_secret",
	"OAUTH_ISSUER": "http://127.0.0.1:5556"}

func TestFileHoldsTheEnvironmentForEveryReader(t *testing.T) {
	f := newFixture(t)
	st := f.push(want(1, credentials))
	wanted := plugins.Status{State: plugins.StateReady, AcceptedGeneration: 1, ServingGeneration: 1,
		Digest: plugins.Digest(digestKey, credentials), Instances: 1, Location: f.file(), Present: true}
	if st != wanted || f.observe() != wanted {
		t.Errorf("got %+v, then %+v", st, f.observe())
	}
	for reader, got := range map[string]map[string]string{
		"systemd": readSystemd(f.read()), "compose": readCompose(t, f.read()), "wrangler": readDotenv(f.read()),
	} {
		if !reflect.DeepEqual(got, credentials) {
			t.Errorf("%s reads %v", reader, got)
		}
	}
	for path, mode := range map[string]os.FileMode{f.file(): 0o600, filepath.Dir(f.file()): 0o700 | os.ModeDir,
		f.dir: 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
}

func TestRulesOfAPush(t *testing.T) {
	other := map[string]string{"OAUTH_CLIENT_ID": "other"}
	for rule, c := range map[string]struct {
		change func(*plugins.PushRequest)
		err    error
		serves int64
	}{
		"same generation, same digest: current status": {func(*plugins.PushRequest) {}, nil, 5},
		"same generation, newer fence: current status": {func(r *plugins.PushRequest) { r.Fence = 4 }, nil, 5},
		"same generation, other digest: digest conflict": {func(r *plugins.PushRequest) {
			r.Env, r.Digest = other, "other"
		}, plugins.ErrDigestConflict, 5},
		"older generation: stale": {func(r *plugins.PushRequest) { r.Generation = 4 },
			plugins.ErrStale, 5},
		"older fence: stale": {func(r *plugins.PushRequest) { r.Fence, r.Generation = 2, 6 },
			plugins.ErrStale, 5},
		"newer generation: accepted": {func(r *plugins.PushRequest) {
			r.Generation, r.Env, r.Digest = 6, other, "other"
		}, nil, 6},
		"newer generation that cannot be written: old serves": {func(r *plugins.PushRequest) {
			r.Generation, r.Env = 6, map[string]string{"A": "x\ny"}
		}, nil, 5},
	} {
		t.Run(rule, func(t *testing.T) {
			f := newFixture(t)
			first := want(5, credentials)
			first.Fence = 3
			f.push(first)
			before := f.read()
			req := first
			c.change(&req)
			st, err := f.PushEnv(t.Context(), req)
			if !errors.Is(err, c.err) {
				t.Fatalf("error: %v", err)
			}
			if now := f.observe(); now.State != plugins.StateReady || now.ServingGeneration != c.serves {
				t.Errorf("afterwards: %+v", now)
			}
			if c.err != nil && f.read() != before {
				t.Error("a refused push changed the file")
			}
			if strings.Contains(rule, "cannot be written") && (st.State != plugins.StateFailed || st.Diagnostic.Retryable ||
				!strings.Contains(st.Diagnostic.Message, "variable A") || strings.Contains(st.Diagnostic.Message, "x\ny")) {
				t.Errorf("status: %+v", st)
			}
			if req.Fence > first.Fence && !strings.Contains(f.read(), "# warifu-fence: 4\n") {
				t.Error("the newer fence was not kept")
			}
		})
	}
}

func TestSamePushAgainTouchesNothing(t *testing.T) {
	f := newFixture(t)
	f.push(want(1, credentials))
	before, err := os.Stat(f.file())
	if err != nil {
		t.Fatal(err)
	}
	f.push(want(1, credentials))
	after, err := os.Stat(f.file())
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || before.ModTime() != after.ModTime() {
		t.Error("the file was replaced")
	}
}

// Everything that other people may have in the file, with what a reader would
// take for ours where it is not.
const foreign = "# my settings\n\n  PORT=8080   # keep\nexport DEBUG=1\n; systemd's comment\nMULTI='first\n" +
	"OAUTH_CLIENT_ID=inside a value\nlast'\nYAML: style\r\nnot an assignment\nOAUTH_CLIENT_ID_OLD=x\n" +
	"OPEN=\"never closed\nTAIL=no newline"

func TestOtherPeoplesLinesStayByteForByte(t *testing.T) {
	f := newFixture(t)
	f.write(foreign)
	f.push(want(1, credentials))
	f.push(want(2, map[string]string{"OAUTH_CLIENT_ID": "another"}))
	if !strings.HasSuffix(f.read(), endMark+"\n"+foreign) {
		t.Errorf("the file is\n%s", f.read())
	}
	if st := f.observe(); st.State != plugins.StateReady {
		t.Errorf("status: %+v", st)
	}
	remove(t, f, 3)
	if f.read() != foreign {
		t.Errorf("after the removal:\n%s", f.read())
	}
	if st := f.observe(); st.Present {
		t.Errorf("status: %+v", st)
	}
}

// Editors on Windows begin a file with a byte order mark, which must not stand before a name in the middle of it. A
// file that has it there from an older version is put right.
func TestByteOrderMarkDoesNotStandInTheWay(t *testing.T) {
	f := newFixture(t)
	f.write("\ufeffOAUTH_CLIENT_ID=theirs\nPORT=8080\n")
	f.push(want(1, credentials))
	readable := func() {
		t.Helper()
		for reader, env := range map[string]map[string]string{
			"systemd": readSystemd(f.read()), "compose": readCompose(t, f.read()), "dotenv": readDotenv(f.read()),
		} {
			if len(env) != len(credentials)+1 || env["PORT"] != "8080" ||
				env["OAUTH_CLIENT_ID"] != credentials["OAUTH_CLIENT_ID"] {
				t.Errorf("%s reads %d variables of\n%s", reader, len(env), f.read())
			}
		}
	}
	readable()
	f.edit(endMark+"\n", endMark+"\n\ufeff")
	if st := f.observe(); st.State != plugins.StateFailed {
		t.Errorf("a byte order mark in the middle is no drift: %+v", st)
	}
	f.push(want(1, credentials))
	readable()
	remove(t, f, 2)
	if f.read() != "PORT=8080\n" {
		t.Errorf("after the removal:\n%q", f.read())
	}
}

func remove(t *testing.T, f *fixture, generation int64) {
	t.Helper()
	if err := f.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: generation,
		Fence: 1}); err != nil {
		t.Fatal(err)
	}
}

func TestNameThatSomebodyElseSetBecomesOurs(t *testing.T) {
	f := newFixture(t)
	f.write("A=1\nOAUTH_CLIENT_ID=theirs\nexport OAUTH_ISSUER='their\nissuer'\nB=2\n OAUTH_CLIENT_SECRET: yaml\nC=3\n")
	f.push(want(1, credentials))
	if !strings.HasSuffix(f.read(), endMark+"\nA=1\nB=2\nC=3\n") {
		t.Errorf("the file is\n%s", f.read())
	}
	f.edit("B=2\n", "B=2\nOAUTH_CLIENT_ID=theirs again\n")
	if st := f.observe(); st.State != plugins.StateFailed || st.ServingGeneration != 0 {
		t.Errorf("a second assignment is not drift: %+v", st)
	}
	f.push(want(1, credentials))
	if strings.Contains(f.read(), "theirs") {
		t.Errorf("the file is\n%s", f.read())
	}
}

func TestDriftIsSeenAndPutRightByTheSamePush(t *testing.T) {
	for name, damage := range map[string]func(*fixture){
		"file removed":       func(f *fixture) { _ = os.Remove(f.file()) },
		"file emptied":       func(f *fixture) { f.write("") },
		"value edited":       func(f *fixture) { f.edit("app-abc", "app-xyz") },
		"value removed":      func(f *fixture) { f.edit("OAUTH_CLIENT_ID=app-abc\n", "") },
		"generation edited":  func(f *fixture) { f.edit("generation: 2", "generation: 1") },
		"header unreadable":  func(f *fixture) { f.edit("generation: 2", "generation: two") },
		"header line gone":   func(f *fixture) { f.edit("# warifu-fence: 1\n", "") },
		"end mark gone":      func(f *fixture) { f.edit(endMark+"\n", "") },
		"begin mark gone":    func(f *fixture) { f.edit(beginMark, "") },
		"line ends changed":  func(f *fixture) { f.write(strings.ReplaceAll(f.read(), "\n", "\r\n")) },
		"another state's":    func(f *fixture) { f.configure(f.t.TempDir()) },
		"state's key broken": func(f *fixture) { f.keys = [][]byte{make([]byte, 32)} },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.push(want(1, credentials))
			f.push(want(2, credentials))
			damage(f)
			before, _ := os.ReadFile(f.file()) // may be gone
			st := f.observe()
			if st.State != plugins.StateFailed || st.ServingGeneration != 0 || st.Diagnostic == nil ||
				!st.Diagnostic.Retryable || st.Location != f.file() {
				t.Errorf("status: %+v", st)
			}
			if now, _ := os.ReadFile(f.file()); string(now) != string(before) {
				t.Error("looking changed the file")
			}
			if st := f.push(want(2, credentials)); st.State != plugins.StateReady || st.ServingGeneration != 2 {
				t.Errorf("after the push: %+v", st)
			}
			if got := readSystemd(f.read()); !reflect.DeepEqual(got, credentials) {
				t.Errorf("after the push: %v", got)
			}
			for _, name := range []string{"OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_ISSUER"} {
				if n := strings.Count(f.read(), name+"="); n != 1 {
					t.Errorf("%s is there %d times", name, n)
				}
			}
		})
	}
}

func TestRemovalTakesFileAndDirectoryWhenNothingElseIsThere(t *testing.T) {
	f := newFixture(t)
	f.push(want(3, credentials))
	for _, stale := range []plugins.RemoveRequest{{Generation: 2, Fence: 1}, {Generation: 3, Fence: 0}} {
		stale.App, stale.Target = "app", web
		if err := f.RemoveEnv(t.Context(), stale); !errors.Is(err, plugins.ErrStale) {
			t.Errorf("%+v: %v", stale, err)
		}
	}
	remove(t, f, 3)
	if _, err := os.Stat(filepath.Dir(f.file())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the app's directory is still there: %v", err)
	}
	remove(t, f, 3) // of what is not there: done
	if st := f.push(want(1, credentials)); st.State != plugins.StateReady {
		t.Errorf("a new life: %+v", st)
	}
	f.edit(endMark+"\n", "") // torn: our lines are told by their names
	remove(t, f, 1)
	if _, err := os.Stat(f.file()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the torn block is still there: %v", err)
	}
}

func TestNamesCannotLeaveTheDirectoryOrMeet(t *testing.T) {
	f := newFixture(t)
	names := []string{"web", "WEB", "..", ".", "../../etc", "a/b", "a%2Fb", `a\b`, "a b", "a.env", "日本", "-",
		"web-web", "a\x00b"}
	for i, name := range names {
		for _, app := range []string{"app", name} {
			req := want(int64(i+1), map[string]string{"NAME": "x"})
			req.App, req.Target.Name = app, name
			f.push(req)
		}
	}
	var got []string
	for _, app := range append(slices.Clone(names), "app") {
		targets, err := f.ListTargets(t.Context(), app)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range targets {
			if at.App != app {
				t.Errorf("%q lists a target of %q", app, at.App)
			}
			if app == "app" {
				got = append(got, at.Target.Name)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("got  %q\nwant %q", got, names)
	}
	outside, err := os.ReadDir(filepath.Dir(f.dir))
	if err != nil || len(outside) != 2 { // env and state
		t.Errorf("beside the directory: %v, %v", outside, err)
	}
	for _, req := range []plugins.PushRequest{
		{App: "", Target: web}, {App: "app", Target: plugins.Target{Kind: "../x", Name: "y"}},
		{App: "app", Target: plugins.Target{Kind: plugins.TargetWorker, Name: strings.Repeat("x", 300)}},
		{App: strings.Repeat("x", 300), Target: web},
	} {
		if _, err := f.PushEnv(t.Context(), req); !errors.Is(err, plugins.ErrInvalid) {
			t.Errorf("%.20s %s: %v", req.App, req.Target.Kind, err)
		}
	}
}

func TestListingLeavesOutFilesThatAreNotOurs(t *testing.T) {
	f := newFixture(t)
	f.push(want(1, credentials))
	for name, content := range map[string]string{"worker-other.env": "A=1\n", "README.md": "x",
		"worker-%zz.env": beginMark, ".worker-web.env123": beginMark} {
		if err := os.WriteFile(filepath.Join(f.dir, "app", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(f.dir, "loose.env"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := f.ListTargets(t.Context(), "")
	if err != nil || !slices.Equal(got, []plugins.AppTarget{{App: "app", Target: web}}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestSymlinkIsReplacedNotFollowed(t *testing.T) {
	f := newFixture(t)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("A=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(f.file()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, f.file()); err != nil {
		t.Fatal(err)
	}
	f.push(want(1, credentials))
	if content, err := os.ReadFile(elsewhere); err != nil || string(content) != "A=1\n" {
		t.Errorf("what the link points to is now %q, %v", content, err)
	}
	if info, err := os.Lstat(f.file()); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	state := t.TempDir()
	file := filepath.Join(state, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ config, state, word string }{
		"no config":       {"", state, "the config of the runtime file is"},
		"no dir":          {"{}", state, "not an absolute path"},
		"relative dir":    {`{"dir":"env"}`, state, `"env" is not an absolute path`},
		"unknown setting": {`{"dir":"/x","mode":1}`, state, "mode"},
		"no state":        {`{"dir":"` + state + `"}`, "", "needs a state directory"},
		"dir is a file":   {`{"dir":"` + file + `"}`, state, "make directory"},
	} {
		if err := (&fileRuntime{}).Configure(t.Context(), json.RawMessage(c.config), c.state); err == nil ||
			!strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// replica is a runtime of another replica on the same directory: with a state directory of its own, and the key that
// all have.
func (f *fixture) replica(sealKey []byte) *fixture {
	f.t.Helper()
	raw, err := json.Marshal(map[string]any{"dir": f.dir, "sealKey": sealKey})
	if err != nil {
		f.t.Fatal(err)
	}
	r := &fixture{fileRuntime: &fileRuntime{}, t: f.t, dir: f.dir}
	if err := r.Configure(f.t.Context(), raw, f.t.TempDir()); err != nil {
		f.t.Fatal(err)
	}
	return r
}

func TestReplicasOnOneDirectoryKnowEachOthersFiles(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	f := newFixture(t)
	one, two := f.replica(key), f.replica(key)
	one.push(want(3, credentials))
	if st := two.observe(); st.State != plugins.StateReady || st.ServingGeneration != 3 {
		t.Errorf("written by another replica: %+v", st)
	}
	before := f.read()
	two.push(want(3, credentials))
	if f.read() != before {
		t.Error("the other replica rewrites it")
	}
	two.push(want(4, map[string]string{"A": "b"}))
	if st := one.observe(); st.State != plugins.StateReady || st.ServingGeneration != 4 {
		t.Errorf("pushed by the other one: %+v", st)
	}
	if st := f.replica([]byte("another key of exactly 32 bytes.")).observe(); st.State != plugins.StateFailed {
		t.Errorf("of another installation: %+v", st)
	}
	f.write(strings.Replace(f.read(), "A=b", "A=c", 1))
	if st := two.observe(); st.State != plugins.StateFailed {
		t.Errorf("edited: %+v", st)
	}
}

// What a version without a common key has written is its own still, and nothing is rewritten because of the new version
// alone.
func TestFilesOfARuntimeThatGetsACommonKeyStayItsOwn(t *testing.T) {
	root := t.TempDir()
	f := &fixture{fileRuntime: &fileRuntime{}, t: t, dir: filepath.Join(root, "env")}
	f.configure(filepath.Join(root, "state"))
	f.push(want(1, credentials))
	raw, err := json.Marshal(map[string]any{"dir": f.dir, "sealKey": []byte("0123456789abcdef0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Configure(t.Context(), raw, filepath.Join(root, "state")); err != nil {
		t.Fatal(err)
	}
	if st := f.observe(); st.State != plugins.StateReady {
		t.Errorf("%+v", st)
	}
	f.push(want(2, credentials))
	if st := f.replica([]byte("0123456789abcdef0123456789abcdef")).observe(); st.State != plugins.StateReady {
		t.Errorf("what is written now is not under the common key: %+v", st)
	}
}

func TestSealKeyOfAnotherSizeIsRefused(t *testing.T) {
	raw, err := json.Marshal(map[string]any{"dir": t.TempDir(), "sealKey": []byte("canary")})
	if err != nil {
		t.Fatal(err)
	}
	err = (&fileRuntime{}).Configure(t.Context(), raw, t.TempDir())
	if !errors.Is(err, plugins.ErrInvalid) || !strings.Contains(err.Error(), "sealKey has 6 bytes, not 32") ||
		strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
}
