package runtimecontainers

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/warifu/warifu/plugins"
)

func observed(t *testing.T, r *containerRuntime) plugins.Status {
	t.Helper()
	st, err := r.ObserveEnv(t.Context(), "app", web)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestTargetWithoutContainersSaysWhichLabelsToSet(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	r := configured(t, e)
	st := failed(t, r, push(1, credentials))
	if !st.Diagnostic.Retryable || st.Present || !strings.Contains(st.Diagnostic.Remedy, "--label dev.takos.app=app "+
		"--label dev.takos.container=web") {
		t.Errorf("%+v %+v", st, st.Diagnostic)
	}
	service := push(1, credentials)
	service.Target.Kind = plugins.TargetService
	if st := failed(t, r, service); !strings.Contains(st.Diagnostic.Remedy, "--label dev.takos.service=web") {
		t.Errorf("%+v", st.Diagnostic)
	}
	e.add("web", container.StateRunning)
	ready(t, r, push(1, credentials))
}

func TestWorkersAreNotContainers(t *testing.T) {
	t.Parallel()
	r := configured(t, newEngine(t))
	req := push(1, credentials)
	req.Target.Kind = plugins.TargetWorker
	if _, err := r.PushEnv(t.Context(), req); !errors.Is(err, plugins.ErrInvalid) {
		t.Errorf("push: %v", err)
	}
}

func TestDriftIsSeenAndPutRight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*fakeEngine, *container.InspectResponse)
		want  string
	}{
		"made anew by somebody": {func(e *fakeEngine, c *container.InspectResponse) {
			c.Config.Labels = map[string]string{labelApp: "app", labelContainer: "web"}
			c.Config.Env = []string{"OWN=kept"}
		}, "has no variables of warifu's"},
		"another value": {func(_ *fakeEngine, c *container.InspectResponse) {
			c.Config.Env[slices.Index(c.Config.Env, "OAUTH_CLIENT_ID=app-abcdefghijkl")] = "OAUTH_CLIENT_ID=mine"
		}, "were changed by somebody else"},
		"a value twice": {func(_ *fakeEngine, c *container.InspectResponse) {
			c.Config.Env = append(c.Config.Env, "OAUTH_CLIENT_ID=app-abcdefghijkl")
		}, "were changed by somebody else"},
		"a value gone": {func(_ *fakeEngine, c *container.InspectResponse) {
			c.Config.Env = slices.DeleteFunc(c.Config.Env, func(entry string) bool {
				return strings.HasPrefix(entry, "OAUTH_ISSUER")
			})
		}, "were changed by somebody else"},
		"another label": {func(_ *fakeEngine, c *container.InspectResponse) { c.Config.Labels[labelDigest] = "0" },
			"were changed by somebody else"},
		"another replica": {func(e *fakeEngine, c *container.InspectResponse) {
			next := e.make("web2", &container.Config{Image: fakeImage, Labels: map[string]string{labelApp: "app",
				labelContainer: "web"}}, &container.HostConfig{}, nil)
			setState(next, container.StateRunning)
		}, "container web2 has no variables of warifu's"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			e.add("web", container.StateRunning)
			r := configured(t, e)
			ready(t, r, push(3, credentials))
			e.changed()
			e.mu.Lock()
			for _, it := range e.all {
				c.spoil(e, it)
				break
			}
			e.mu.Unlock()
			st := observed(t, r)
			if st.State != plugins.StateFailed || !st.Diagnostic.Retryable || st.ServingGeneration != 0 ||
				!strings.Contains(st.Diagnostic.Message, c.want) {
				t.Fatalf("%+v %+v, want %q", st, st.Diagnostic, c.want)
			}
			expect(t, "calls", e.changed(), nil)
			if name == "another label" { // its history is spoilt as well
				ready(t, r, push(4, credentials))
				return
			}
			ready(t, r, push(3, credentials))
		})
	}
}

func TestContainerThatEndsLaterIsNotReadyAndNotStartedByUs(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web", container.StateRunning)
	r := configured(t, e)
	ready(t, r, push(1, credentials))
	e.changed()
	e.mu.Lock()
	for _, c := range e.all {
		setState(c, container.StateExited)
	}
	e.mu.Unlock()
	if st := observed(t, r); st.State != plugins.StateFailed || !strings.Contains(st.Diagnostic.Message,
		"has its variables, but has ended") {
		t.Errorf("%+v %+v", st, st.Diagnostic)
	}
	failed(t, r, push(1, credentials))
	expect(t, "calls", e.changed(), nil)
}

func TestRemovalReplacesWithoutOurVariables(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web", container.StateRunning)
	r := configured(t, e)
	ready(t, r, push(2, credentials))
	e.changed()
	for _, stale := range []plugins.RemoveRequest{{App: "app", Target: web, Generation: 1, Fence: 1},
		{App: "app", Target: web, Generation: 2}} {
		if err := r.RemoveEnv(t.Context(), stale); !errors.Is(err, plugins.ErrStale) {
			t.Errorf("%+v: %v", stale, err)
		}
	}
	if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 2,
		Fence: 1}); err != nil {
		t.Fatal(err)
	}
	expect(t, "calls", e.changed(), []string{"create web", "start web", "stop web-g2", "remove web-g2"})
	c := e.named("web")
	expect(t, "environment", c.Config.Env, []string{"PATH=/bin", "OWN=kept"})
	if readMark(c.Config.Labels) != nil {
		t.Errorf("labels %v", c.Config.Labels)
	}
	if st := observed(t, r); st.Present || st.AcceptedGeneration != 0 {
		t.Errorf("%+v", st)
	}
	if targets, err := r.ListTargets(t.Context(), "app"); err != nil || len(targets) != 0 {
		t.Errorf("%v, %v", targets, err)
	}
	if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 2,
		Fence: 1}); err != nil {
		t.Fatal(err)
	}
	expect(t, "calls of a second removal", e.changed(), nil)
}

// An app that cannot do without is no reason to keep what is revoked.
func TestRemovalDoesNotWantTheAppToWorkWithout(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web", container.StateRunning)
	e.add("spare", container.StateExited)
	r := configured(t, e)
	ready(t, r, push(1, credentials))
	e.mu.Lock()
	for _, c := range e.all {
		c.Config.Env = append(c.Config.Env, "BROKEN=yes")
	}
	e.mu.Unlock()
	if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 1,
		Fence: 1}); err != nil {
		t.Fatal(err)
	}
	expect(t, "containers", e.has(), []string{"spare exited", "web exited"})
}

func TestRemovalThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web", container.StateRunning)
	r := configured(t, e)
	ready(t, r, push(1, credentials))
	req := plugins.RemoveRequest{App: "app", Target: web, Generation: 1, Fence: 1}
	for _, op := range []string{"create", "start", "stop", "remove"} {
		e.on(op, failing(500, "not now"))
		if err := r.RemoveEnv(t.Context(), req); !errors.Is(err, plugins.ErrUnavailable) ||
			!strings.Contains(err.Error(), "not now") {
			t.Errorf("%s fails: %v", op, err)
		}
		e.on(op, nil)
	}
	if err := r.RemoveEnv(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if has := e.has(); len(has) != 1 || !strings.HasSuffix(has[0], " running") || observed(t, r).Present {
		t.Errorf("containers are %q", has)
	}
}

func TestListTargetsNamesEachOnce(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	for _, name := range []string{"one", "two"} {
		e.add(name, container.StateRunning)
		e.add(name+"-of-app2", container.StateRunning, func(c *container.InspectResponse) {
			c.Config.Labels = map[string]string{labelApp: "app2", labelService: "api"}
		})
	}
	r := configured(t, e)
	other := plugins.Target{Kind: plugins.TargetService, Name: "api"}
	ready(t, r, push(1, credentials))
	req := push(1, credentials)
	req.App, req.Target = "app2", other
	ready(t, r, req)
	one, err := r.ListTargets(t.Context(), "app")
	if err != nil || !slices.Equal(one, []plugins.AppTarget{{App: "app", Target: web}}) {
		t.Errorf("%v, %v", one, err)
	}
	all, err := r.ListTargets(t.Context(), "")
	if err != nil || len(all) != 2 || !slices.Contains(all, plugins.AppTarget{App: "app2", Target: other}) {
		t.Errorf("%v, %v", all, err)
	}
}

func TestValueThatNoEnvironmentHoldsIsRefusedForGood(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web", container.StateRunning)
	st := failed(t, configured(t, e), push(1, map[string]string{"A": "b\x00c"}))
	if st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Message, "zero byte") {
		t.Errorf("%+v", st.Diagnostic)
	}
	expect(t, "calls", e.changed(), nil)
}

func TestProbes(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.String() {
		case "/ready?deep=1":
		case "/moved":
			http.Redirect(w, r, "/nowhere", http.StatusFound)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer app.Close()
	address := strings.TrimPrefix(app.URL, "http://")
	port := address[strings.LastIndex(address, ":"):]
	for text, want := range map[string]bool{
		"tcp://" + address:                 true,
		"tcp://" + port:                    true, // the container's own address: here, the host's
		"http://" + port + "/ready?deep=1": true,
		"http://" + port + "/moved":        true,
		"http://" + port + "/":             false,
		"tcp://127.0.0.1:1":                false,
		"steady":                           true,
	} {
		e := newEngine(t)
		e.add("web", container.StateRunning, labelled(labelProbe, text))
		st := settled(t, configured(t, e, "probeTimeout", "300ms"), push(1, credentials))
		if (st.State == plugins.StateReady) != want {
			t.Errorf("%s: %+v %+v, want ready: %v", text, st, st.Diagnostic, want)
		}
	}
}

func TestConfigNamesItsFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                                 `the config of the runtime containers is`,
		`{}`:                               `is neither unix:///path/to.sock nor tcp://host:port`,
		`[]`:                               `the config of the runtime containers is`,
		`{"hots": "unix:///x"}`:            `unknown field "hots"`,
		`{"host": "unix://x.sock"}`:        `is neither`,
		`{"host": "ssh://you@there"}`:      `is neither`,
		`{"host": "tcp://192.0.2.1:2375"}`: `it needs tls`,
		`{"host": "tcp://192.0.2.1:2376", "tls": {"ca": "/ca.pem"}}`:                          `needs the files ca, cert and key`,
		`{"host": "unix:///x.sock", "tls": {"ca": "/a", "cert": "/b", "key": "/c"}}`:          `tls is for tcp:// hosts`,
		`{"host": "tcp://192.0.2.1:2376", "tls": {"ca": "/none", "cert": "/b", "key": "/c"}}`: `/none`,
		`{"host": "unix:///x.sock", "probe": "ping"}`:                                         `probe "ping" is not`,
		`{"host": "unix:///x.sock", "probe": "tcp://:80/path"}`:                               `has a path`,
		`{"host": "unix:///x.sock", "probe": "http:///path"}`:                                 `is not http://[host]:port/path`,
		`{"host": "unix:///x.sock", "probeTimeout": "0s"}`:                                    `not positive`,
		`{"host": "unix:///x.sock", "steady": 5}`:                                             `a duration is written as`,
	} {
		err := (&containerRuntime{}).Configure(t.Context(), json.RawMessage(text), t.TempDir())
		if !errors.Is(err, plugins.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{`{"host": "tcp://127.0.0.1:2375"}`,
		`{"host": "unix:///x.sock", "probe": "http://:8080/", "steady": "2s"}`} {
		if err := (&containerRuntime{}).Configure(t.Context(), json.RawMessage(text), t.TempDir()); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
