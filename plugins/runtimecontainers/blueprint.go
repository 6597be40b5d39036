package runtimecontainers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// image is what is known about the image that a container was made of.
type image struct {
	id         string   // of the container's image
	named      string   // what the container's name for it stands for now
	entrypoint []string // of the image named
}

// draw makes the next container from what the engine says about the old one. What
// an engine tells is not always what it takes; each difference is one function.
func draw(old *container.InspectResponse, img image, w *wish, key []byte) blueprint {
	config, host := *old.Config, *old.HostConfig
	base := baseName(old)
	config.Labels = w.label(key, config.Labels, old.ID, base)
	config.Env = w.environ(config.Env, readMark(old.Config.Labels))
	if img.named != img.id {
		config.Image = img.id // the tag has moved: a new secret is not a new release
	}
	if strings.Join(config.Entrypoint, " ") == strings.Join(img.entrypoint, " ") {
		config.Entrypoint = img.entrypoint // podman tells it split at its spaces
	}
	freeHostname(&config, &host, old.ID)
	keepVolumes(&host, old.Mounts)
	asDocker(&host)
	host.ContainerIDFile = ""
	host.Links = unresolve(host.Links)
	b := blueprint{base: base, config: &config, host: &host, names: names(base, nameOf(old), w)}
	host.NetworkMode, b.first, b.others = endpoints(old, base)
	return b
}

// baseName is a container's name before we added a generation to it.
func baseName(c *container.InspectResponse) string {
	name := nameOf(c)
	base := c.Config.Labels[labelName]
	if base != "" && (name == base || strings.HasPrefix(name, base+"-g")) {
		return base
	}
	return name // never ours, or renamed by somebody
}

// names are what the next container may be called. A generation that is pushed
// again meets the name of the container that it replaces.
func names(base, old string, w *wish) []string {
	first := base
	if w != nil {
		first = fmt.Sprintf("%s-g%d", base, w.generation)
	}
	out := []string{first}
	for n := 2; n <= 9; n++ {
		again := fmt.Sprintf("%s-%d", first, n)
		if w == nil {
			again = fmt.Sprintf("%s-g0-%d", base, n)
		}
		out = append(out, again)
	}
	return slices.DeleteFunc(out, func(name string) bool { return name == old })
}

// freeHostname lets the engine give a hostname again where it was the engine's:
// the old one's id, or that of somebody whose names are shared.
func freeHostname(config *container.Config, host *container.HostConfig, id string) {
	if config.Hostname != short(id) && !host.NetworkMode.IsContainer() && !host.UTSMode.IsHost() {
		return
	}
	gone := "HOSTNAME=" + config.Hostname // podman writes it into the environment
	config.Hostname, config.Domainname = "", ""
	config.Env = slices.DeleteFunc(config.Env, func(entry string) bool { return entry == gone })
}

// keepVolumes mounts what the engine had made up for the image's VOLUMEs: the next
// container has the same data.
func keepVolumes(host *container.HostConfig, mounts []container.MountPoint) {
	known := map[string]bool{}
	for _, bind := range host.Binds {
		if parts := strings.Split(bind, ":"); len(parts) > 1 {
			known[parts[1]] = true
		}
	}
	for _, m := range host.Mounts {
		known[m.Target] = true
	}
	host.Mounts = slices.Clone(host.Mounts)
	for _, m := range mounts {
		if m.Type == mount.TypeVolume && m.Name != "" && !known[m.Destination] {
			host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: m.Name, Target: m.Destination,
				ReadOnly: !m.RW})
		}
	}
}

// asDocker puts what podman tells in its own words into the API's.
func asDocker(host *container.HostConfig) {
	if host.Runtime != "oci" { // podman's word for whichever it uses
		return
	}
	host.Runtime = ""
	if host.PidMode == "private" {
		host.PidMode = ""
	}
	if host.UTSMode == "private" {
		host.UTSMode = ""
	}
	if host.MemorySwappiness != nil && *host.MemorySwappiness == 0 {
		host.MemorySwappiness = nil // told where nothing was set
	}
	ulimits := make([]*container.Ulimit, 0, len(host.Ulimits))
	for _, limit := range host.Ulimits {
		renamed := *limit
		renamed.Name = strings.ToLower(strings.TrimPrefix(limit.Name, "RLIMIT_"))
		ulimits = append(ulimits, &renamed)
	}
	host.Ulimits = ulimits
}

// unresolve writes legacy links as they are asked for: told as
// "/db:/web/alias", asked as "db:alias".
func unresolve(links []string) []string {
	var out []string
	for _, link := range links {
		from, to, _ := strings.Cut(link, ":")
		out = append(out, strings.TrimPrefix(from, "/")+":"+to[strings.LastIndex(to, "/")+1:])
	}
	return out
}

// endpoints gives the networks of the next container: what was asked for, without
// what the engine gave. The one that it is created in is the host config's mode.
func endpoints(old *container.InspectResponse, base string) (mode container.NetworkMode,
	first *network.NetworkingConfig, others map[string]*network.EndpointSettings) {
	mode = old.HostConfig.NetworkMode
	if old.NetworkSettings == nil || mode.IsHost() || mode.IsNone() || mode.IsContainer() {
		return mode, nil, nil
	}
	others = map[string]*network.EndpointSettings{}
	for name, has := range old.NetworkSettings.Networks {
		if has == nil {
			continue
		}
		ask := &network.EndpointSettings{Links: unresolve(has.Links), DriverOpts: maps.Clone(has.DriverOpts),
			GwPriority: has.GwPriority}
		if has.IPAMConfig != nil {
			ask.IPAMConfig = has.IPAMConfig.Copy()
		}
		if named(name) {
			ask.Aliases = aliases(has.Aliases, old.ID, base)
		}
		others[name] = ask
	}
	home := homeNetwork(mode, old.NetworkSettings.Networks)
	ask, there := others[home]
	if !there {
		return mode, nil, others
	}
	delete(others, home)
	if named(home) {
		mode = container.NetworkMode(home)
	}
	return mode, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{home: ask}}, others
}

// homeNetwork is the network that a mode stands for. Docker tells its name or id,
// and "default" for its own; podman tells "bridge" for all of them.
func homeNetwork(mode container.NetworkMode, networks map[string]*network.EndpointSettings) string {
	if _, there := networks[string(mode)]; there {
		return string(mode)
	}
	sorted := slices.Sorted(maps.Keys(networks))
	for _, name := range sorted {
		if has := networks[name]; has != nil && has.NetworkID != "" && has.NetworkID == string(mode) {
			return name
		}
	}
	for _, name := range sorted {
		if !named(name) {
			return name
		}
	}
	return strings.Join(sorted[:min(len(sorted), 1)], "")
}

// named reports whether a network has names: the engines' own ones have none.
func named(network string) bool {
	return network != "bridge" && network != "default" && network != "podman"
}

// aliases are those of before without the old id, and the container's name: others
// find it by that.
func aliases(has []string, id, base string) []string {
	out := slices.DeleteFunc(slices.Clone(has), func(alias string) bool { return alias == short(id) })
	if !slices.Contains(out, base) {
		out = append(out, base)
	}
	return out
}

// overlaps reports whether the next container can run beside the old one.
func overlaps(old *container.InspectResponse) bool {
	switch old.Config.Labels[labelReplace] {
	case replaceOverlap:
		return true
	case replaceStopFirst:
		return false
	}
	for _, bindings := range old.HostConfig.PortBindings {
		for _, binding := range bindings {
			if binding.HostPort != "" && binding.HostPort != "0" {
				return false
			}
		}
	}
	if old.NetworkSettings == nil {
		return true
	}
	for _, endpoint := range old.NetworkSettings.Networks {
		if endpoint != nil && endpoint.IPAMConfig != nil &&
			(endpoint.IPAMConfig.IPv4Address.IsValid() || endpoint.IPAMConfig.IPv6Address.IsValid()) {
			return false
		}
	}
	return true
}
