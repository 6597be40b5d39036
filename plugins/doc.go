// Package plugins is how warifu talks to executables that are not part of it:
// deploy hooks, which turn an app's manifest into a client registration and the
// environment of each target, and runtimes, which carry that environment to the
// place where the app runs.
//
// There are two sides.
//
// The host side is used by manifests and cmd: a [Host] is built once, asked for
// a [Hook] or [Runtime] per configured plugin, and closed at the end. A plugin
// is started on its first call, supervised, and replaced by a new process when
// it dies, hangs or loses its connection; while the backoff runs, calls fail at
// once with a [*BackoffError].
//
// The author side is used by plugins, built in or not: implement [DeployHook]
// or [EnvRuntime] and call [ServeHook] or [ServeRuntime] from main; a runtime
// asks [Admit] whether it may take a push. The same contracts in other languages
// are in pluginpb. How to write a plugin, and the kit that checks one, are in
// plugintest; example and example-python are complete.
//
// What holds, and is tested with real processes:
//
//   - gRPC over a Unix socket in a directory of mode 0700, mutual TLS with keys
//     made for each start; whoever else finds the socket cannot talk to it.
//   - A plugin inherits nothing of the host's environment, and no secret is put
//     in its arguments or environment: values travel in calls only.
//   - Every call has a deadline of the host's own. A plugin that is stopped or
//     hung is killed, its process group with it.
//   - With a checksum configured, the file is checked before every start.
//   - On Linux the kernel kills the plugins of a host that was killed; the
//     author's kit watches its parent as well.
//   - What a plugin prints is capped in length and rate, rid of known values and
//     of everything that looks like a token of ours, and logged under its name.
//   - Answers are checked against the contract before anyone acts on them.
//
// What does not hold: a plugin is not kept from what the server's user may do. It can read the server's files, the
// encryption key among them, and those of other plugins. It is trusted like the server itself, and is not run as
// another user: its socket and its state are in directories that are closed to others (see SECURITY.md). Authors should
// keep that small: read no file that was not configured, and need no more rights than they use.
//
// A checksum is checked and then the path is run, so plugins belong in a
// directory that only root or the service user can write.
//
// Beyond pluginpb, child and the vocabulary in server/oauth this package imports nothing of warifu.
package plugins
