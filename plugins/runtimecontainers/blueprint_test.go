package runtimecontainers

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

const oldID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func drawn(c container.InspectResponse, img image) blueprint {
	c.ID = oldID
	if c.Name == "" {
		c.Name = "/web"
	}
	if c.Config == nil {
		c.Config = &container.Config{Image: fakeImage}
	}
	if c.HostConfig == nil {
		c.HostConfig = &container.HostConfig{}
	}
	return draw(&c, img, &wish{generation: 7, env: credentials}, []byte("key"))
}

func TestTagThatMovedIsNotDeployed(t *testing.T) {
	t.Parallel()
	same := drawn(container.InspectResponse{}, image{id: "sha256:1", named: "sha256:1"})
	moved := drawn(container.InspectResponse{}, image{id: "sha256:1", named: "sha256:2"})
	gone := drawn(container.InspectResponse{}, image{id: "sha256:1"})
	if same.config.Image != fakeImage || moved.config.Image != "sha256:1" || gone.config.Image != "sha256:1" {
		t.Errorf("images %q, %q, %q", same.config.Image, moved.config.Image, gone.config.Image)
	}
}

func TestNamesCountGenerationsAndNeverGrow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, base, first string }{
		{"/web", "", "web-g7"},
		{"/web-g6", "web", "web-g7"},
		{"/web-g7", "web", "web-g7-2"},    // the same generation again
		{"/web-g7-2", "web", "web-g7"},    // and again
		{"/renamed", "web", "renamed-g7"}, // by its owner
		{"/app-g5", "", "app-g5-g7"},      // its owner's own
	} {
		b := drawn(container.InspectResponse{Name: c.name,
			Config: &container.Config{Labels: map[string]string{labelName: c.base}}}, image{})
		if b.names[0] != c.first || slices.Contains(b.names, strings.TrimPrefix(c.name, "/")) {
			t.Errorf("%s becomes %q, want %s", c.name, b.names, c.first)
		}
	}
}

func TestHostnameOfTheEngineIsGivenAnew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hostname string
		host     container.HostConfig
		want     string
	}{
		"the engine's":   {oldID[:12], container.HostConfig{}, ""},
		"the owner's":    {"shop", container.HostConfig{}, "shop"},
		"another's":      {"shop", container.HostConfig{NetworkMode: "container:x"}, ""},
		"the machine's":  {"vm", container.HostConfig{UTSMode: "host"}, ""},
		"on the machine": {"vm", container.HostConfig{NetworkMode: "host"}, "vm"},
	} {
		b := drawn(container.InspectResponse{HostConfig: &c.host, Config: &container.Config{Hostname: c.hostname,
			Env: []string{"HOSTNAME=" + c.hostname}}}, image{})
		if b.config.Hostname != c.want || slices.Contains(b.config.Env, "HOSTNAME="+c.hostname) != (c.want != "") {
			t.Errorf("%s: hostname %q, want %q; %q", name, b.config.Hostname, c.want, b.config.Env)
		}
	}
}

func TestAnonymousVolumesGoAlong(t *testing.T) {
	t.Parallel()
	given := mount.Mount{Type: mount.TypeVolume, Source: "named", Target: "/named"}
	b := drawn(container.InspectResponse{
		HostConfig: &container.HostConfig{Binds: []string{"/host:/bound:ro", "other:/other"}, Mounts: []mount.Mount{given}},
		Mounts: []container.MountPoint{
			{Type: mount.TypeBind, Source: "/host", Destination: "/bound"},
			{Type: mount.TypeVolume, Name: "other", Destination: "/other", RW: true},
			{Type: mount.TypeVolume, Name: "named", Destination: "/named", RW: true},
			{Type: mount.TypeVolume, Name: "f00d", Destination: "/data", RW: true},
			{Type: mount.TypeVolume, Name: "cafe", Destination: "/fixed"},
			{Type: mount.TypeTmpfs, Destination: "/tmp"},
		},
	}, image{})
	want := []mount.Mount{given, {Type: mount.TypeVolume, Source: "f00d", Target: "/data"},
		{Type: mount.TypeVolume, Source: "cafe", Target: "/fixed", ReadOnly: true}}
	if !reflect.DeepEqual(b.host.Mounts, want) {
		t.Errorf("mounts %+v, want %+v", b.host.Mounts, want)
	}
}

func TestWhatPodmanTellsIsPutIntoTheAPIsWords(t *testing.T) {
	t.Parallel()
	zero := int64(0)
	told := container.HostConfig{Runtime: "oci", PidMode: "private", UTSMode: "private", ContainerIDFile: "/id",
		Resources: container.Resources{
			MemorySwappiness: &zero, Ulimits: []*container.Ulimit{{Name: "RLIMIT_NOFILE", Hard: 2, Soft: 1}}}}
	b := drawn(container.InspectResponse{HostConfig: &told,
		Config: &container.Config{Entrypoint: []string{"/entry", "point"}}},
		image{entrypoint: []string{"/entry point"}})
	h := b.host
	if h.Runtime != "" || h.PidMode != "" || h.UTSMode != "" || h.MemorySwappiness != nil || h.ContainerIDFile != "" ||
		h.Ulimits[0].Name != "nofile" {
		t.Errorf("%+v", h)
	}
	if told.Ulimits[0].Name != "RLIMIT_NOFILE" {
		t.Error("what the engine told was changed")
	}
	if !slices.Equal(b.config.Entrypoint, []string{"/entry point"}) {
		t.Errorf("entrypoint %q", b.config.Entrypoint)
	}
	docker := drawn(container.InspectResponse{HostConfig: &container.HostConfig{Runtime: "runsc",
		Resources: container.Resources{MemorySwappiness: &zero}},
		Config: &container.Config{Entrypoint: []string{"/own"}}}, image{entrypoint: []string{"/entry point"}})
	if docker.host.Runtime != "runsc" || docker.host.MemorySwappiness == nil || !slices.Equal(docker.config.Entrypoint,
		[]string{"/own"}) {
		t.Errorf("%+v", docker.host)
	}
}

func TestNetworksAreAskedForAsTheirOwnerDid(t *testing.T) {
	t.Parallel()
	fixed := &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.0.0.9")}
	given := &network.EndpointSettings{NetworkID: "n1", IPAddress: netip.MustParseAddr("10.0.0.9"),
		Gateway:    netip.MustParseAddr("10.0.0.1"),
		IPAMConfig: fixed, Aliases: []string{"shop", oldID[:12]}, Links: []string{"/db:/web/database"}}
	asked := &network.EndpointSettings{IPAMConfig: fixed, Aliases: []string{"shop", "web"}, Links: []string{"db:database"}}
	plain := &network.EndpointSettings{NetworkID: "n0", IPAddress: netip.MustParseAddr("172.17.0.2"),
		MacAddress: []byte{2, 0, 0, 0, 0, 1}}
	for name, c := range map[string]struct {
		mode     container.NetworkMode
		has      map[string]*network.EndpointSettings
		want     container.NetworkMode
		first    map[string]*network.EndpointSettings
		others   map[string]*network.EndpointSettings
		overlaps bool
	}{
		"docker's own": {"default", map[string]*network.EndpointSettings{"bridge": plain}, "default",
			map[string]*network.EndpointSettings{"bridge": {}}, map[string]*network.EndpointSettings{}, true},
		"by name": {"front", map[string]*network.EndpointSettings{"front": given}, "front",
			map[string]*network.EndpointSettings{"front": asked}, map[string]*network.EndpointSettings{}, false},
		"by id": {"n1", map[string]*network.EndpointSettings{"a": plain, "front": given}, "front",
			map[string]*network.EndpointSettings{"front": asked},
			map[string]*network.EndpointSettings{"a": {Aliases: []string{"web"}}}, false},
		"podman's own": {"bridge", map[string]*network.EndpointSettings{"podman": plain}, "bridge",
			map[string]*network.EndpointSettings{"podman": {}}, map[string]*network.EndpointSettings{}, true},
		"podman's others": {"bridge", map[string]*network.EndpointSettings{"front": given}, "front",
			map[string]*network.EndpointSettings{"front": asked}, map[string]*network.EndpointSettings{}, false},
		"the host's": {"host", map[string]*network.EndpointSettings{"host": plain}, "host", nil, nil, true},
		"another's":  {"container:x", map[string]*network.EndpointSettings{}, "container:x", nil, nil, true},
		"joined and left": {"front", map[string]*network.EndpointSettings{}, "front", nil,
			map[string]*network.EndpointSettings{}, true},
	} {
		c1 := container.InspectResponse{ID: oldID, Name: "/web", Config: &container.Config{},
			HostConfig:      &container.HostConfig{NetworkMode: c.mode},
			NetworkSettings: &container.NetworkSettings{Networks: c.has}}
		b := drawn(c1, image{})
		var first map[string]*network.EndpointSettings
		if b.first != nil {
			first = b.first.EndpointsConfig
		}
		if b.host.NetworkMode != c.want || !reflect.DeepEqual(first, c.first) || !reflect.DeepEqual(b.others, c.others) {
			t.Errorf("%s: %s, %+v and %+v", name, b.host.NetworkMode, first, b.others)
		}
		if overlaps(&c1) != c.overlaps {
			t.Errorf("%s: overlaps is %v", name, !c.overlaps)
		}
	}
}

func TestWhoCanOverlap(t *testing.T) {
	t.Parallel()
	bound := func(port string) *container.HostConfig {
		return &container.HostConfig{PortBindings: network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: port}}}}
	}
	for name, c := range map[string]struct {
		label string
		host  *container.HostConfig
		want  bool
	}{
		"nothing published":  {"", &container.HostConfig{}, true},
		"any port":           {"", bound(""), true},
		"port 0":             {"", bound("0"), true},
		"a port":             {"", bound("8080"), false},
		"a range":            {"", bound("8000-8010"), false},
		"a range, labelled":  {replaceOverlap, bound("8000-8010"), true},
		"nothing, labelled":  {replaceStopFirst, &container.HostConfig{}, false},
		"nonsense, labelled": {"sometimes", &container.HostConfig{}, true},
	} {
		it := container.InspectResponse{Config: &container.Config{Labels: map[string]string{labelReplace: c.label}},
			HostConfig: c.host}
		if overlaps(&it) != c.want {
			t.Errorf("%s: overlaps is %v", name, !c.want)
		}
	}
}
