//go:build e2e

package runtimecontainers

import (
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins/runtimecontainers/podmantest"
)

func TestPodmanContainerKeepsItsNetworksNamesAndPublishedPort(t *testing.T) {
	p := startPodman(t)
	r := served(t, "unix://"+p.Socket, t.TempDir())
	for _, name := range []string{"front", "back"} {
		p.Run(t, "network", "create", name)
		t.Cleanup(func() { p.Run(t, "network", "rm", "--force", "--time", "0", name) })
	}
	published := freeAddress(t)
	dir := p.instancesDir(t, "web")
	p.Run(t, "run", "--detach", "--name", "web", "--network", "front:alias=shop", "--network", "back",
		"--publish", published+":80",
		"--volume", string(dir)+":/instances", "--label", labelApp+"=app", "--label", labelContainer+"=web",
		"--label", labelProbe+"=http://:80/", testImage, "-listen", ":80")
	waitFor(t, published)
	before := p.inspected(t, "web")

	ready(t, r, push(1, credentials))
	env, err := ask(t.Context(), published)
	if err != nil || env["OAUTH_CLIENT_SECRET"] != credentials["OAUTH_CLIENT_SECRET"] {
		t.Fatalf("the app sees %v, %v", env, err)
	}
	after := p.inspected(t, "web-g1")
	if !maps.EqualFunc(after.HostConfig.PortBindings, before.HostConfig.PortBindings, slices.Equal) {
		t.Errorf("the ports are %v, were %v", after.HostConfig.PortBindings, before.HostConfig.PortBindings)
	}
	if after.Config.Hostname == before.Config.Hostname || slices.Contains(after.Config.Env, "HOSTNAME="+
		before.Config.Hostname) {
		t.Errorf("the hostname is %s, made of the old container's id", after.Config.Hostname)
	}
	networks := after.NetworkSettings.Networks
	if len(networks) != 2 || networks["front"] == nil || networks["back"] == nil {
		t.Fatalf("the networks are %v, want front and back", slices.Collect(maps.Keys(networks)))
	}
	for _, name := range []string{"shop", "web"} {
		if aliases := networks["front"].Aliases; !slices.Contains(aliases, name) {
			t.Errorf("in front its names are %q, want %s among them", aliases, name)
		}
	}
	if aliases := networks["front"].Aliases; slices.Contains(aliases, short(before.ID)) {
		t.Errorf("in front its names are %q, with the old id", aliases)
	}

	st := failed(t, r, push(2, map[string]string{"BROKEN": "yes"}))
	if st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Message, "ended with code 3") {
		t.Errorf("%+v", st.Diagnostic)
	}
	waitFor(t, published)
	ready(t, r, push(3, credentials))
}

func TestPodmanContainerOnTheDefaultNetworkStaysThere(t *testing.T) {
	p := startPodman(t)
	r := served(t, "unix://"+p.Socket, t.TempDir())
	dir := p.instancesDir(t, "web")
	p.Run(t, "run", "--detach", "--name", "web", "--volume", string(dir)+":/instances", "--hostname", "chosen",
		"--label", labelApp+"=app", "--label", labelContainer+"=web", "--label", labelProbe+"=tcp://:80",
		testImage, "-listen", ":80")
	before := p.inspected(t, "web")
	ready(t, r, push(1, credentials))
	after := p.inspected(t, "web-g1")
	has, had := slices.Collect(maps.Keys(after.NetworkSettings.Networks)),
		slices.Collect(maps.Keys(before.NetworkSettings.Networks))
	if !slices.Equal(has, had) || after.HostConfig.NetworkMode != before.HostConfig.NetworkMode ||
		after.Config.Hostname != "chosen" {
		t.Errorf("networks %q, were %q; mode %s, hostname %s", has, had, after.HostConfig.NetworkMode, after.Config.Hostname)
	}
}

// waitFor waits until somebody answers there.
func waitFor(t *testing.T, address string) {
	t.Helper()
	podmantest.Eventually(t, func() error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
		_, err = ask(t.Context(), address)
		return err
	})
}
