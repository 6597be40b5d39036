// Package runtimecontainers is the built-in runtime `containers`: it gives the
// environment to containers of Docker or podman, through the Docker Engine API
// that both speak.
//
// The environment of a container cannot change, so a push replaces containers,
// one after the other: the next one is created from what the engine says about
// the old one, with our variables in its environment, started and probed; then
// the old one is stopped and removed. When the next one does not start or does not
// pass its probe, it is removed and the old one serves on.
//
// # Which containers
//
// Those that carry the labels of the target, and no others:
//
//	dev.takos.app        the name of the app
//	dev.takos.container  the key below spec.containers, or
//	dev.takos.service    the key below spec.services
//
// Several containers with the same labels are the replicas of one target. When
// some of them run, those that are stopped are left alone; when none runs, all are
// replaced and started, for an app that ends without its credentials is a usual
// first deployment. Two more labels are read:
//
//	dev.takos.probe      http://[host]:port/path, tcp://[host]:port, or "steady";
//	                     without a host it is the container's own address
//	dev.takos.replace    "overlap" or "stop-first"
//
// Labels count when the container was given them, by --label or the labels of a compose service. What it has from its
// image alone does not count, neither these nor those of warifu's own: otherwise whoever builds an image could choose
// the app whose secrets its containers get, and the address that this plugin connects to. A label that the container
// was given with the very value that its image has looks like the image's, and does not count either.
//
// # Config
//
//	{
//	  "host": "unix:///run/podman/podman.sock",  // required
//	  "tls": {"ca": "...", "cert": "...", "key": "..."},  // files, for tcp:// hosts
//	  "probe": "steady",       // for containers without the label and health check
//	  "probeTimeout": "60s",   // for the next container to pass
//	  "steady": "1s"           // how long "steady" wants it to run
//	}
//
// The first of these decides when a container may take over: its dev.takos.probe,
// its health check, the probe of the config. Podman runs health checks by
// systemd timers; without systemd use the label.
//
// # Overlap
//
// Old and new run side by side until the new one has passed, so no request is lost
// by an app that ends its requests on SIGTERM. Two containers cannot have the same
// host port or the same fixed address: with those, or with the label "stop-first",
// the next one is created, the old one stopped, the next one started, and on
// failure the old one started again; meanwhile nobody serves. Containers on the
// host's network that bind a fixed port need the label, or SO_REUSEPORT.
//
// # What is kept
//
// Name, image (the very same, also when its tag has moved), command, other
// variables, labels, mounts with anonymous volumes, networks with aliases, ports,
// limits, restart policy. The name becomes <name>-g<generation>; on networks with
// names the old name stays as an alias. Not kept: the writable layer, a fixed MAC
// address, membership of a podman pod. Containers of a Swarm service, those whose
// network another container shares, and --rm containers that cannot overlap are
// refused.
//
// # Where the truth is
//
// In labels of the container (dev.takos.warifu.*): generation, fence, the server's
// keyed digest, the names of our variables, and a seal, which is a fingerprint of
// them and their values under a key in the state directory. A container whose
// variables are not what the seal says, or that has none because somebody made it
// anew, is drift; the next push puts it right, also one of the same generation.
// Servers that share an engine must share the state directory, too.
//
// A next container names the one that it replaces. While that one still exists the
// replacement is not finished: whoever finds such a pair when the process was
// killed in between probes the next one and removes one of the two.
//
// A push is answered when it is accepted; the replacing goes on in this process,
// one goroutine a target, and a newer push ends it and takes over.
package runtimecontainers
