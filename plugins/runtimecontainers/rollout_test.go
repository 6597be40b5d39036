package runtimecontainers

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/warifu/warifu/plugins"
)

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestReplicasAreReplacedOneAfterTheOtherAndNobodyElse(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web1", container.StateRunning)
	e.add("web2", container.StateRunning)
	e.add("spare", container.StateExited)
	e.add("other", container.StateRunning, func(c *container.InspectResponse) { c.Config.Labels[labelApp] = "app2" })
	e.add("service", container.StateRunning, func(c *container.InspectResponse) {
		c.Config.Labels = map[string]string{labelApp: "app", labelService: "web"}
	})
	e.add("bare", container.StateRunning, func(c *container.InspectResponse) { c.Config.Labels = nil })
	r := configured(t, e)

	st := ready(t, r, push(1, credentials))
	if st.Instances != 2 || st.Location != "web1-g1, web2-g1" {
		t.Errorf("%d instances at %s, want 2", st.Instances, st.Location)
	}
	expect(t, "calls", e.changed(), []string{
		"create web1-g1", "start web1-g1", "stop web1", "remove web1",
		"create web2-g1", "start web2-g1", "stop web2", "remove web2",
	})
	expect(t, "containers", e.has(), []string{"bare running", "other running", "service running", "spare exited",
		"web1-g1 running", "web2-g1 running"})
	env := e.named("web1-g1").Config.Env
	expect(t, "environment", env, []string{"PATH=/bin", "OWN=kept", "OAUTH_CLIENT_ID=app-abcdefghijkl",
		"OAUTH_CLIENT_SECRET=wfs_canary-of-the-tests", "OAUTH_ISSUER=https://id.example"})

	ready(t, r, push(1, credentials))
	expect(t, "calls after the same push", e.changed(), nil)

	ready(t, r, push(2, map[string]string{"OAUTH_CLIENT_ID": "other"}))
	expect(t, "containers", e.has(), []string{"bare running", "other running", "service running", "spare exited",
		"web1-g2 running", "web2-g2 running"})
	expect(t, "environment", e.named("web2-g2").Config.Env, []string{"PATH=/bin", "OWN=kept", "OAUTH_CLIENT_ID=other"})
}

func TestFaultsOfTheEngineKeepTheOldContainerAndTheNextPushMendsThem(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		op        string
		status    int
		message   string
		retryable bool
		left      []string
	}{
		"create fails":             {"create", 500, "no space", true, []string{"web-g1 running"}},
		"create is refused":        {"create", 400, "bad option", false, []string{"web-g1 running"}},
		"the image is gone":        {"create", 404, "No such image", false, []string{"web-g1 running"}},
		"every name is taken":      {"create", 409, "Conflict", true, []string{"web-g1 running"}},
		"start fails":              {"start", 500, "no cgroup", true, []string{"web-g1 running"}},
		"the old one does not end": {"stop", 500, "cannot kill", true, []string{"web-g1 running", "web-g2 running"}},
		"the old one stays":        {"remove", 500, "device busy", true, []string{"web-g1 exited", "web-g2 running"}},
		"the image cannot be seen": {"image", 500, "no images", true, []string{"web-g1 running"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			e.add("web", container.StateRunning)
			r := configured(t, e)
			ready(t, r, push(1, credentials))
			e.on(c.op, failing(c.status, c.message+" for OAUTH_CLIENT_SECRET="+credentials["OAUTH_CLIENT_SECRET"]))
			st := failed(t, r, push(2, credentials))
			if st.AcceptedGeneration != 2 || st.Diagnostic.Retryable != c.retryable || !st.Present ||
				!strings.Contains(st.Diagnostic.Message, c.message) {
				t.Errorf("%+v %+v", st, st.Diagnostic)
			}
			if strings.Contains(st.Diagnostic.Message, credentials["OAUTH_CLIENT_SECRET"]) {
				t.Errorf("the diagnostic tells the secret: %s", st.Diagnostic.Message)
			}
			expect(t, "containers", e.has(), c.left)
			if _, err := r.PushEnv(t.Context(), push(1, credentials)); !errors.Is(err, plugins.ErrStale) {
				t.Errorf("an older push after the failed one: %v", err)
			}
			if _, err := r.PushEnv(t.Context(), push(2, map[string]string{"A": "b"})); !errors.Is(err,
				plugins.ErrDigestConflict) {
				t.Errorf("another digest after the failed one: %v", err)
			}
			e.on(c.op, nil)
			ready(t, r, push(2, credentials))
			expect(t, "containers after the fault", e.has(), []string{"web-g2 running"})
		})
	}
}

func TestContainerThatEndsOrNeverPassesIsRemovedAndTheOldOneServes(t *testing.T) {
	t.Parallel()
	healthCheck := func(c *container.InspectResponse) {
		c.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "ok"}}
	}
	for name, c := range map[string]struct {
		env    map[string]string
		health container.HealthStatus
		change func(*container.InspectResponse)
		want   string
	}{
		"ends":             {env: map[string]string{"BROKEN": "yes"}, want: "has ended with code 3"},
		"unhealthy":        {change: healthCheck, health: container.Unhealthy, want: "unhealthy"},
		"never healthy":    {change: healthCheck, health: container.Starting, want: "was not ready within 200ms"},
		"nobody listens":   {change: labelled(labelProbe, "tcp://127.0.0.1:1"), want: "was not ready within 200ms"},
		"unreadable":       {change: labelled(labelProbe, "udp://:1"), want: "label dev.takos.probe"},
		"keeps restarting": {env: map[string]string{"RESTARTS": "yes"}, want: "ends and is started again"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			e.health = container.Healthy
			change := c.change
			if change == nil {
				change = func(*container.InspectResponse) {}
			}
			e.add("web", container.StateRunning, change)
			r := configured(t, e, "probeTimeout", "200ms")
			if name != "nobody listens" && name != "unreadable" {
				ready(t, r, push(1, credentials))
				e.changed()
			}
			e.mu.Lock()
			e.health = c.health
			e.mu.Unlock()
			if c.env["RESTARTS"] != "" {
				e.on("inspect", func(http.ResponseWriter, *http.Request) bool {
					e.mu.Lock()
					defer e.mu.Unlock()
					for _, c := range e.all {
						if slices.Contains(c.Config.Env, "RESTARTS=yes") && c.State.Running {
							setState(c, container.StateRestarting)
						}
					}
					return false
				})
			}
			before := e.has()
			st := failed(t, r, push(2, c.env))
			if !strings.Contains(st.Diagnostic.Message, c.want) {
				t.Errorf("%q, want %q", st.Diagnostic.Message, c.want)
			}
			expect(t, "containers", e.has(), before)
		})
	}
}

func labelled(key, value string) func(*container.InspectResponse) {
	return func(c *container.InspectResponse) { c.Config.Labels[key] = value }
}

func published(c *container.InspectResponse) {
	c.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8080"}}}
}

func TestFixedHostPortIsHandedOverAndGivenBack(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web", container.StateRunning, published)
	r := configured(t, e)
	ready(t, r, push(1, credentials))
	expect(t, "calls", e.changed(), []string{"create web-g1", "stop web", "start web-g1", "stop web", "remove web"})
	st := failed(t, r, push(2, map[string]string{"BROKEN": "yes"}))
	expect(t, "calls", e.changed(), []string{"create web-g2", "stop web-g1", "start web-g2", "stop web-g2",
		"remove web-g2", "start web-g1"})
	expect(t, "containers", e.has(), []string{"web-g1 running"})
	if st.Diagnostic.Retryable || st.ServingGeneration != 1 {
		t.Errorf("each try interrupts the app, yet it says %+v %+v", st, st.Diagnostic)
	}
	e.on("create", failing(500, "no space"))
	if st := failed(t, r, push(3, credentials)); !st.Diagnostic.Retryable {
		t.Errorf("nothing was interrupted, yet it says %+v", st.Diagnostic)
	}
	expect(t, "calls when nothing can be made", e.changed(), nil)
}

func TestOldContainerThatDoesNotStartAgainIsSaid(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web", container.StateRunning, published)
	r := configured(t, e)
	e.on("start", failing(500, "no cgroup"))
	st := failed(t, r, push(1, credentials))
	if !strings.Contains(st.Diagnostic.Message, "does not start again") || st.Diagnostic.Remedy != "start web by hand" {
		t.Errorf("%+v", st.Diagnostic)
	}
	e.on("start", nil)
	ready(t, r, push(1, credentials))
	expect(t, "containers", e.has(), []string{"web-g1 running"})
}

func TestContainersThatCannotBeReplacedWithoutHarmAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state  container.ContainerState
		change func(*fakeEngine, *container.InspectResponse)
		want   string
	}{
		"of a swarm": {container.StateRunning, func(_ *fakeEngine, c *container.InspectResponse) {
			c.Config.Labels[labelSwarmTask] = "x"
		}, "Swarm"},
		"paused": {container.StatePaused, func(*fakeEngine, *container.InspectResponse) {}, "is paused"},
		"with --rm and a port": {container.StateRunning, func(_ *fakeEngine, c *container.InspectResponse) {
			published(c)
			c.HostConfig.AutoRemove = true
		}, "--rm"},
		"whose network is shared": {container.StateRunning, func(e *fakeEngine, c *container.InspectResponse) {
			side := e.make("side", &container.Config{Image: fakeImage},
				&container.HostConfig{NetworkMode: container.NetworkMode("container:" + c.ID)}, nil)
			setState(side, container.StateRunning)
		}, "uses the network of web"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			e.add("web", c.state, func(it *container.InspectResponse) { c.change(e, it) })
			before := e.has()
			if st := failed(t, configured(t, e), push(1, credentials)); !strings.Contains(st.Diagnostic.Message, c.want) {
				t.Errorf("%q, want %q", st.Diagnostic.Message, c.want)
			}
			expect(t, "calls", e.changed(), nil)
			expect(t, "containers", e.has(), before)
		})
	}
}

// An app that ends without its credentials is not running when they come.
func TestContainersOfWhichNoneRunsAreStarted(t *testing.T) {
	t.Parallel()
	for _, state := range []container.ContainerState{container.StateExited, container.StateCreated,
		container.StateRestarting} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			e.add("web", state, published)
			ready(t, configured(t, e), push(1, credentials))
			expect(t, "containers", e.has(), []string{"web-g1 running"})
		})
	}
}

func TestNewerPushTakesOverFromOneThatDoesNotPass(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.health = container.Healthy
	e.add("web", container.StateRunning, func(c *container.InspectResponse) {
		c.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "ok"}}
	})
	r := configured(t, e)
	e.mu.Lock()
	e.health = container.Starting
	e.mu.Unlock()
	st, err := r.PushEnv(t.Context(), push(1, credentials))
	if err != nil || st.State != plugins.StateRolling || st.AcceptedGeneration != 1 || !st.Present {
		t.Fatalf("%+v, %v", st, err)
	}
	if _, err := r.PushEnv(t.Context(), push(1, map[string]string{"A": "b"})); !errors.Is(err, plugins.ErrDigestConflict) {
		t.Errorf("another digest while it goes on: %v", err)
	}
	st, err = r.PushEnv(t.Context(), push(2, credentials))
	if err != nil || st.State != plugins.StateRolling || st.AcceptedGeneration != 2 {
		t.Fatalf("%+v, %v", st, err)
	}
	if _, err := r.PushEnv(t.Context(), push(1, credentials)); !errors.Is(err, plugins.ErrStale) {
		t.Errorf("an older push while it goes on: %v", err)
	}
	e.mu.Lock()
	e.health = container.Healthy
	e.mu.Unlock()
	ready(t, r, push(2, credentials))
	expect(t, "containers", e.has(), []string{"web-g2 running"})
}

func TestEngineThatIsAwayOrSlowIsUnavailable(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.add("web", container.StateRunning)
	r := configured(t, e)
	e.on("list", func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	hurried, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.PushEnv(hurried, push(1, credentials)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
	e.server.CloseClientConnections()
	e.server.Close()
	if _, err := r.PushEnv(t.Context(), push(1, credentials)); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("push: %v", err)
	}
	if _, err := r.ObserveEnv(t.Context(), "app", web); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("observe: %v", err)
	}
	if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 1,
		Fence: 1}); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("remove: %v", err)
	}
	if _, err := r.ListTargets(t.Context(), ""); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("list: %v", err)
	}
}

// Every moment at which the process can be killed leaves one of these.
func TestInterruptedReplacementsAreFinished(t *testing.T) {
	t.Parallel()
	states := []container.ContainerState{container.StateCreated, container.StateRunning, container.StateExited}
	for _, wanted := range []int64{1, 2} {
		for _, old := range states {
			for _, next := range states {
				t.Run(string(old)+" and "+string(next), func(t *testing.T) {
					t.Parallel()
					e := newEngine(t)
					r := configured(t, e)
					was := e.add("web", old, published)
					w := &wish{generation: 1, fence: 1, digest: plugins.Digest(digestKey, credentials), env: credentials}
					e.add("web-g1", next, published, func(c *container.InspectResponse) {
						c.Config.Env = w.environ(c.Config.Env, nil)
						c.Config.Labels = w.label(r.key, c.Config.Labels, was.ID, "web")
					})
					st, err := r.ObserveEnv(t.Context(), "app", web)
					if err != nil || st.State != plugins.StateFailed || !st.Diagnostic.Retryable || st.AcceptedGeneration != 1 {
						t.Fatalf("%+v %+v, %v", st, st.Diagnostic, err)
					}
					expect(t, "calls", e.changed(), nil)
					req := push(wanted, maps.Clone(credentials))
					ready(t, r, req)
					if has := e.has(); len(has) != 1 || !strings.HasSuffix(has[0], " running") {
						t.Errorf("containers are %q, want one that runs", has)
					}
				})
			}
		}
	}
}
