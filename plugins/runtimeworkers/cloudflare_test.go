package runtimeworkers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/plugintest"
)

func TestCloudflareGetsSecretsInOneVersionAndKeepsOthers(t *testing.T) {
	f := newFakeCloudflare(t)
	d := f.driver(t.TempDir())
	f.change("app-web", func(s *fakeScript) { s.secrets["THEIRS"] = "kept" })
	before := f.look("app-web").versions
	st := ready(t, d, want(1, credentials))
	if st.Location != "cloudflare script app-web" || observe(t, d) != st {
		t.Errorf("pushed %+v, observed %+v", st, observe(t, d))
	}
	env := map[string]string{"OAUTH_CLIENT_ID": "another", "EMPTY": ""}
	ready(t, d, want(2, env))
	s := f.look("app-web")
	env["THEIRS"] = "kept"
	if !maps.Equal(s.secrets, env) || s.versions != before+2 {
		t.Errorf("secrets %q after %d versions", s.secrets, s.versions-before)
	}
	if s.tags["warifu-generation"] != "2" || s.tags["warifu-digest"] != want(2,
		map[string]string{"OAUTH_CLIENT_ID": "another", "EMPTY": ""}).Digest {
		t.Errorf("tags %v", s.tags)
	}
	if targets, err := d.ListTargets(t.Context(), "app"); err != nil ||
		!slices.Equal(targets, []plugins.AppTarget{{App: "app", Target: web}}) {
		t.Errorf("listed %v, %v", targets, err)
	}
	remove := plugins.RemoveRequest{App: "app", Target: web, Generation: 2, Fence: 1}
	if err := d.RemoveEnv(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	if s := f.look("app-web").secrets; !maps.Equal(s, map[string]string{"THEIRS": "kept"}) {
		t.Errorf("after the removal: %q", s)
	}
	if err := d.RemoveEnv(t.Context(), remove); err != nil || observe(t, d).Present {
		t.Errorf("again: %v", err)
	}
}

func TestCloudflareRulesOfAPush(t *testing.T) {
	f := newFakeCloudflare(t)
	state := t.TempDir()
	d := f.driver(state)
	first := want(5, credentials)
	first.Fence = 3
	ready(t, d, first)
	d = f.driver(state) // a restarted plugin knows it all
	versions := f.look("app-web").versions
	for rule, c := range map[string]struct {
		change func(*plugins.PushRequest)
		err    error
	}{
		"same generation, same digest":  {func(*plugins.PushRequest) {}, nil},
		"same generation, newer fence":  {func(r *plugins.PushRequest) { r.Fence = 4 }, nil},
		"older fence":                   {func(r *plugins.PushRequest) { r.Generation, r.Fence = 6, 2 }, plugins.ErrStale},
		"older generation":              {func(r *plugins.PushRequest) { r.Generation = 4 }, plugins.ErrStale},
		"same generation, other digest": {func(r *plugins.PushRequest) { r.Digest = "other" }, plugins.ErrDigestConflict},
	} {
		req := first
		req.Fence = 4
		c.change(&req)
		if st, err := d.PushEnv(t.Context(), req); !errors.Is(err, c.err) || err == nil && st.State != plugins.StateReady {
			t.Errorf("%s: %+v, %v", rule, st, err)
		}
	}
	if now := f.look("app-web").versions; now != versions {
		t.Errorf("%d versions were deployed for nothing", now-versions)
	}
	stale := plugins.RemoveRequest{App: "app", Target: web, Generation: 4, Fence: 4}
	if err := d.RemoveEnv(t.Context(), stale); !errors.Is(err, plugins.ErrStale) {
		t.Errorf("a stale removal: %v", err)
	}
}

func TestCloudflareDriftIsSeenAndPutRight(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*fakeCloudflare, *cloudflare)
		says   string
	}{
		"secret deleted": {func(f *fakeCloudflare, _ *cloudflare) {
			f.change("app-web", func(s *fakeScript) { delete(s.secrets, "OAUTH_ISSUER"); s.versions++; s.deployed++ })
		}, "OAUTH_ISSUER is gone"},
		"another version deployed": {func(f *fakeCloudflare, _ *cloudflare) { f.deploy("app-web") },
			"another version was deployed since"},
		"record gone": {func(_ *fakeCloudflare, d *cloudflare) {
			if err := d.store.remove("app", "web"); err != nil {
				t.Fatal(err)
			}
		}, "no environment of warifu's"},
		"record changed": {func(_ *fakeCloudflare, d *cloudflare) {
			if err := os.WriteFile(d.store.dir+"/"+base("app", "web"), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "record of this Worker was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCloudflare(t)
			d := f.driver(t.TempDir())
			ready(t, d, want(1, credentials))
			c.damage(f, d)
			st := observe(t, d)
			if st.State != plugins.StateFailed || st.ServingGeneration != 0 || !st.Diagnostic.Retryable ||
				!strings.Contains(st.Diagnostic.Message, c.says) {
				t.Errorf("observed %+v %+v", st, st.Diagnostic)
			}
			ready(t, d, want(1, credentials))
			if !maps.Equal(f.look("app-web").secrets, credentials) {
				t.Errorf("secrets %q", f.look("app-web").secrets)
			}
		})
	}
}

func TestCloudflarePendingVersionIsWaitedForAndNeverDeployed(t *testing.T) {
	f := newFakeCloudflare(t)
	d := f.driver(t.TempDir())
	st := ready(t, d, want(1, credentials))
	// Deployed while the push waits.
	f.onPatch(fakeAnswer{status: 400, code: 10214, message: "pending"}, fakeAnswer{status: 400, code: 10215,
		message: "pending"})
	ready(t, d, want(2, credentials))
	if n := f.asked("PATCH"); n != 4 {
		t.Errorf("%d writes", n)
	}
	// Not deployed.
	f.change("app-web", func(s *fakeScript) { s.versions++ })
	before := f.look("app-web")
	failed, err := d.PushEnv(t.Context(), want(3, map[string]string{"A": "b"}))
	if err != nil || failed.State != plugins.StateFailed || failed.ServingGeneration != 2 ||
		failed.AcceptedGeneration != 2 ||
		!failed.Diagnostic.Retryable || !strings.Contains(failed.Diagnostic.Remedy, "deploy the version that "+
		"was uploaded last") {
		t.Errorf("%+v %+v, %v", failed, failed.Diagnostic, err)
	}
	after := f.look("app-web")
	if after.deployed != before.deployed || !maps.Equal(after.secrets, before.secrets) {
		t.Error("somebody's pending version was deployed")
	}
	if now := observe(t, d); now.State != plugins.StateReady || now.ServingGeneration != 2 || now.Location != st.Location {
		t.Errorf("observed %+v", now)
	}
	f.change("app-web", func(s *fakeScript) { s.deployed = s.versions })
	ready(t, d, want(3, map[string]string{"A": "b"}))
}

func TestCloudflareRateLimitHoldsBackAllCalls(t *testing.T) {
	for name, c := range map[string]struct {
		retryAfter string
		least      time.Duration
	}{
		"seconds":        {"120", 100 * time.Second},
		"date":           {time.Now().Add(time.Hour).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), 50 * time.Minute},
		"nothing":        {"", 50 * time.Second},
		"beyond reason":  {"99999999", 59 * time.Minute},
		"not understood": {"soon", 50 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCloudflare(t)
			d := f.driver(t.TempDir())
			ready(t, d, want(1, credentials))
			f.answer(fakeAnswer{status: 429, code: 971, message: "slow down", retryAfter: c.retryAfter})
			_, err := d.PushEnv(t.Context(), want(2, credentials))
			if !errors.Is(err, plugins.ErrUnavailable) || !strings.Contains(err.Error(), "rate limit") {
				t.Fatalf("%v", err)
			}
			calls := f.asked("GET") + f.asked("PATCH")
			if _, err := d.ObserveEnv(t.Context(), "app", web); !errors.Is(err, plugins.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if err := d.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 2,
				Fence: 1}); !errors.Is(err, plugins.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if now := f.asked("GET") + f.asked("PATCH"); now != calls {
				t.Errorf("%d calls were made all the same", now-calls)
			}
			if left := d.api.limited(); left < c.least || left > maxRetryAfter {
				t.Errorf("it ends in %s", left)
			}
			d.api.mu.Lock()
			d.api.notBefore = time.Time{}
			d.api.mu.Unlock()
			ready(t, d, want(2, credentials))
		})
	}
}

func TestCloudflareWriteWhoseAnswerIsLostIsNotSentTwice(t *testing.T) {
	for _, happened := range []bool{true, false} {
		t.Run(fmt.Sprint("happened ", happened), func(t *testing.T) {
			f := newFakeCloudflare(t)
			state := t.TempDir()
			d := f.driver(state)
			ready(t, d, want(1, credentials))
			f.onPatch(fakeAnswer{after: happened})
			env := map[string]string{"OAUTH_CLIENT_ID": "new", "ADDED": "x"}
			_, err := d.PushEnv(t.Context(), want(2, env))
			if !errors.Is(err, plugins.ErrUnavailable) || f.asked("PATCH") != 2 {
				t.Fatalf("%v after %d writes", err, f.asked("PATCH"))
			}
			d = f.driver(state)
			st := observe(t, d)
			if st.State != plugins.StateFailed || st.AcceptedGeneration != 2 || st.ServingGeneration != 1 ||
				!st.Diagnostic.Retryable {
				t.Errorf("observed %+v", st)
			}
			ready(t, d, want(2, env))
			if got := f.look("app-web").secrets; !maps.Equal(got, env) {
				t.Errorf("secrets %q", got)
			}
		})
	}
}

func TestCloudflareRefusalsSayWhatToDoAndNoValue(t *testing.T) {
	secret := credentials["OAUTH_CLIENT_SECRET"]
	for name, c := range map[string]struct {
		answer    fakeAnswer
		retryable bool
		remedy    string
	}{
		"value in the message": {fakeAnswer{status: 400, code: 10021, message: "bad text " + secret + " in it"}, false,
			"correct what Cloudflare names"},
		"no script": {fakeAnswer{status: 404, code: 10007, message: "This Worker does not exist"}, true,
			"deploy the script first"},
		"token": {fakeAnswer{status: 403, code: 10000, message: "Authentication error"}, true, "tokenFile"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeCloudflare(t)
			d := f.driver(t.TempDir())
			ready(t, d, want(1, credentials))
			f.onPatch(c.answer)
			st, err := d.PushEnv(t.Context(), want(2, map[string]string{"S": secret}))
			if err != nil || st.State != plugins.StateFailed || st.ServingGeneration != 1 ||
				st.Diagnostic.Retryable != c.retryable ||
				!strings.Contains(st.Diagnostic.Remedy, c.remedy) || strings.Contains(st.Diagnostic.Message, secret) {
				t.Errorf("%+v %+v, %v", st, st.Diagnostic, err)
			}
			if now := observe(t, d); now.State != plugins.StateReady || now.ServingGeneration != 1 {
				t.Errorf("observed %+v", now)
			}
		})
	}
	for name, answer := range map[string]fakeAnswer{"502": {status: 502}, "cut off": {}} {
		f := newFakeCloudflare(t)
		d := f.driver(t.TempDir())
		f.answer(answer)
		if _, err := d.PushEnv(t.Context(), want(1, credentials)); !errors.Is(err, plugins.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCloudflareNewTokenNeedsNoRestart(t *testing.T) {
	f := newFakeCloudflare(t)
	d := f.driver(t.TempDir())
	f.mu.Lock()
	f.token = "another"
	f.mu.Unlock()
	st, err := d.PushEnv(t.Context(), want(1, credentials))
	if err != nil || st.State != plugins.StateFailed {
		t.Fatalf("%+v, %v", st, err)
	}
	f.writeToken("another")
	ready(t, d, want(1, credentials))
}

func TestCloudflareScriptThatIsGoneHasNothingToRemove(t *testing.T) {
	f := newFakeCloudflare(t)
	d := f.driver(t.TempDir())
	ready(t, d, want(1, credentials))
	f.mu.Lock()
	delete(f.scripts, "app-web")
	f.mu.Unlock()
	if st := observe(t, d); st.State != plugins.StateFailed || !strings.Contains(st.Diagnostic.Remedy,
		"deploy the script first") {
		t.Errorf("observed %+v", st)
	}
	if err := d.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 1,
		Fence: 1}); err != nil {
		t.Error(err)
	}
}

func TestCloudflareTakesNoMoreThanAHundredSecretsAtOnce(t *testing.T) {
	f := newFakeCloudflare(t)
	d := f.driver(t.TempDir())
	env := map[string]string{}
	for i := range 101 {
		env[fmt.Sprintf("V%d", i)] = "x"
	}
	if st, err := d.PushEnv(t.Context(), want(1, env)); err != nil || st.State != plugins.StateFailed ||
		st.Diagnostic.Retryable {
		t.Errorf("%+v, %v", st, err)
	}
	delete(env, "V0")
	ready(t, d, want(1, env))
}

func TestCloudflareNameThatIsNoScript(t *testing.T) {
	f := newFakeCloudflare(t)
	d := f.driver(t.TempDir())
	for _, name := range []string{"../x", "a/b", "a b", "日本", strings.Repeat("x", 100)} {
		req := want(1, credentials)
		req.Target.Name = name
		if st, err := d.PushEnv(t.Context(), req); err != nil || st.State != plugins.StateFailed || st.Diagnostic.Retryable {
			t.Errorf("%q: %+v, %v", name, st, err)
		}
	}
	if n := f.asked("GET") + f.asked("PATCH"); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestCloudflareKeepsThePluginContract(t *testing.T) {
	f := newFakeCloudflare(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := func(app string, target plugins.Target) string { return app + "-" + target.Name }
	plugintest.Run(t, binary, plugintest.Harness{
		Args: []string{"serve"}, Config: f.config(), StateDir: t.TempDir(),
		Prepare: func(_ context.Context, app string, target plugins.Target) error {
			f.deploy(script(app, target))
			return nil
		},
		Serving: func(_ context.Context, app string, target plugins.Target) (map[string]string, error) {
			return f.look(script(app, target)).secrets, nil
		},
		Rollout: func(_ context.Context, app string, target plugins.Target) (string, error) {
			return fmt.Sprint(f.look(script(app, target)).deployed), nil
		},
		Foreign: func(_ context.Context, app string, target plugins.Target, name, value string) error {
			f.change(script(app, target), func(s *fakeScript) { s.secrets[name] = value })
			return nil
		},
		Break: func(_ context.Context, app string, target plugins.Target) error {
			f.change(script(app, target), func(s *fakeScript) { clear(s.secrets); s.versions++; s.deployed = s.versions })
			return nil
		},
		Fail: func(_ context.Context, app string, target plugins.Target, _ map[string]string) (func(context.Context) error,
			error) {
			f.change(script(app, target), func(s *fakeScript) { s.refuse = "no" })
			return func(context.Context) error {
				f.change(script(app, target), func(s *fakeScript) { s.refuse = "" })
				return nil
			}, nil
		},
	})
}
