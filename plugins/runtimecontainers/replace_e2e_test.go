//go:build e2e

package runtimecontainers

import (
	"context"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/warifu/warifu/plugins"
)

// inspected is what the engine says about a container, through the API.
func (p *podman) inspected(t *testing.T, name string) container.InspectResponse {
	t.Helper()
	api, err := client.New(client.WithHost("unix://" + p.Socket))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	}()
	result, err := api.ContainerInspect(t.Context(), name, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return result.Container
}

func TestPodmanContainerGetsItsVariablesAndKeepsWhatIsItsOwn(t *testing.T) {
	p := startPodman(t)
	r := served(t, "unix://"+p.Socket, t.TempDir())
	app := p.app(t, "web", []string{"--env", "EMPTY=", "--env", "LINES=a\nb", "--env", "OAUTH_ISSUER=by hand",
		"--restart", "on-failure:3", "--memory", "64m", "--stop-timeout", "3", "--cap-drop", "NET_RAW", "--read-only",
		"--tmpfs", "/scratch", "--pids-limit", "50", "--user", "0:0", "--workdir", "/data", "--label", "theirs=kept"}, nil)
	before, env := p.inspected(t, "web"), app.env(t)
	bystander := p.Run(t, "run", "--detach", "--network", "none", testImage, "-listen", "127.0.0.1:1")

	ready(t, r, push(1, credentials))
	want := maps.Clone(env)
	maps.Copy(want, credentials)
	if got := app.env(t); !maps.Equal(got, want) {
		t.Errorf("the app sees %v, want %v", got, want)
	}
	after := p.inspected(t, "web-g1")
	if !reflect.DeepEqual(after.HostConfig, before.HostConfig) {
		t.Errorf("the host config is\n%+v, was\n%+v", after.HostConfig, before.HostConfig)
	}
	maps.DeleteFunc(after.Config.Labels, func(key, _ string) bool { return strings.HasPrefix(key, "dev.takos.warifu.") })
	before.Config.Env, after.Config.Env = nil, nil
	if !reflect.DeepEqual(after.Config, before.Config) {
		t.Errorf("the config is\n%+v, was\n%+v", after.Config, before.Config)
	}
	byName := func(a, b container.MountPoint) int { return strings.Compare(a.Destination, b.Destination) }
	slices.SortFunc(before.Mounts, byName)
	slices.SortFunc(after.Mounts, byName)
	if len(before.Mounts) < 2 || !reflect.DeepEqual(after.Mounts, before.Mounts) {
		t.Errorf("the mounts are\n%+v, were\n%+v", after.Mounts, before.Mounts)
	}

	if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 1,
		Fence: 1}); err != nil {
		t.Fatal(err)
	}
	delete(env, "OAUTH_ISSUER")
	if got := app.env(t); !maps.Equal(got, env) {
		t.Errorf("after the removal the app sees %v, want %v", got, env)
	}
	if left := strings.Fields(p.Run(t, "ps", "--all", "--no-trunc", "--format", "{{.ID}}")); !slices.Contains(left,
		bystander) || len(left) != 2 {
		t.Errorf("containers are %q, want web and %s", left, bystander)
	}
	if c := p.inspected(t, "web"); readMark(c.Config.Labels) != nil {
		t.Errorf("labels after the removal: %v", c.Config.Labels)
	}
}

// freeAddress is one that nobody has at the moment.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func TestPodmanContainerWithAFixedPortIsStoppedFirstAndComesBackWhenTheNextFails(t *testing.T) {
	p := startPodman(t)
	r := served(t, "unix://"+p.Socket, t.TempDir())
	address := freeAddress(t)
	app := p.app(t, "web", []string{"--label", labelReplace + "=" + replaceStopFirst, "--label", labelProbe +
		"=http://" + address + "/"},
		[]string{"-listen", address})
	app.env(t)
	ready(t, r, push(1, credentials))
	if env := app.env(t); env["OAUTH_CLIENT_SECRET"] != credentials["OAUTH_CLIENT_SECRET"] {
		t.Errorf("the app sees %v", env)
	}
	st := failed(t, r, push(2, map[string]string{"BROKEN": "yes"}))
	if st.ServingGeneration != 1 || st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Message,
		"ended with code 3") {
		t.Errorf("%+v %+v", st, st.Diagnostic)
	}
	if env := app.env(t); env["OAUTH_CLIENT_SECRET"] != credentials["OAUTH_CLIENT_SECRET"] {
		t.Errorf("the app sees %v", env)
	}
	ready(t, r, push(3, map[string]string{"OAUTH_CLIENT_ID": "third"}))
	if env := app.env(t); env["OAUTH_CLIENT_ID"] != "third" || env["OAUTH_CLIENT_SECRET"] != "" {
		t.Errorf("the app sees %v", env)
	}
}

// Without the label nobody can know that the port is fixed; the next one fails to
// have it, and nothing is interrupted.
func TestPodmanContainerWhosePortIsTakenFailsAndTheOldOneServes(t *testing.T) {
	p := startPodman(t)
	r := served(t, "unix://"+p.Socket, t.TempDir())
	app := p.app(t, "web", nil, []string{"-listen", freeAddress(t)})
	app.env(t)
	failed(t, r, push(1, credentials))
	if _, there := app.env(t)["OAUTH_CLIENT_ID"]; there {
		t.Error("the app sees variables whose rollout failed")
	}
	if names := p.Run(t, "ps", "--all", "--format", "{{.Names}}"); names != "web" {
		t.Errorf("containers are %q, want web", names)
	}
}

func TestPodmanRotationsUnderLoadLoseNoRequest(t *testing.T) {
	const rotations, clients = 10, 4
	p := startPodman(t)
	r := served(t, "unix://"+p.Socket, t.TempDir())
	app := p.app(t, "web", nil, nil)
	app.env(t)
	ready(t, r, push(1, map[string]string{"OAUTH_CLIENT_SECRET": "1"}))

	load, stop := context.WithCancel(t.Context())
	defer stop()
	var requests, lost atomic.Int64
	var wait sync.WaitGroup
	for range clients {
		wait.Go(func() {
			for load.Err() == nil {
				at, err := app.addresses()
				if err == nil && len(at) > 0 {
					_, err = ask(t.Context(), at[int(requests.Add(1))%len(at)])
				}
				if err != nil || len(at) == 0 {
					lost.Add(1)
					t.Errorf("of %d announced instances: %v", len(at), err)
				}
			}
		})
	}
	begun := time.Now()
	for generation := int64(2); generation < 2+rotations; generation++ {
		ready(t, r, push(generation, map[string]string{"OAUTH_CLIENT_SECRET": time.Now().String()}))
	}
	took := time.Since(begun)
	stop()
	wait.Wait()
	t.Logf("%d rotations in %s, %d requests, %d lost", rotations, took.Round(time.Millisecond), requests.Load(),
		lost.Load())
	if requests.Load() < rotations {
		t.Error("there was no load to speak of")
	}
}

// BenchmarkPodmanPushToReady is the time from a push until every container serves
// it, a moment of steadiness (200 ms) and the app's own ending (400 ms) included.
func BenchmarkPodmanPushToReady(b *testing.B) {
	p := startPodman(b)
	r := served(b, "unix://"+p.Socket, b.TempDir())
	p.app(b, "web", nil, nil).env(b)
	generation := int64(0)
	for b.Loop() {
		generation++
		ready(b, r, push(generation, map[string]string{"OAUTH_CLIENT_SECRET": time.Now().String()}))
	}
}
