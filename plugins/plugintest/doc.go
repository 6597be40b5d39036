// Package plugintest is the kit with which a plugin shows that it keeps the
// contract, whoever wrote it and in whatever language. It runs the executable
// as the server does and judges only what comes over the wire and what is left
// on the machine; it has no access to the inside of warifu.
//
// A test of a plugin written in Go is one call:
//
//	func TestContract(t *testing.T) {
//		plugintest.Run(t, binary, plugintest.Harness{Config: json.RawMessage(`{"dir": "/tmp/x"}`)})
//	}
//
// For others there is `warifu plugin verify ./binary`, which makes the same
// checks from the same table ([Checks]) and prints a line for each.
//
// # How to write a plugin
//
// A plugin is an executable that the server starts and speaks gRPC with. In Go,
// implement plugins.EnvRuntime or plugins.DeployHook and call
// plugins.ServeRuntime or plugins.ServeHook from main; plugins/example is a
// complete one. In other languages, take the services in plugins/pluginpb and
// do what go-plugin does; plugins/example-python is a complete one:
//
//   - Read the environment. WARIFU_PLUGIN says that a server started you,
//     PLUGIN_UNIX_SOCKET_DIR where to put your socket, PLUGIN_CLIENT_CERT (PEM)
//     whom alone to let in. There is nothing else in it: settings come by
//     Configure.
//   - Make a key and a self-signed certificate for the name localhost. Listen
//     on a Unix socket in that directory, with TLS, and require the client
//     certificate.
//   - Print one line on stdout and flush it:
//     1|1|unix|<socket>|grpc|<your certificate, DER, base64 without padding>
//   - Beside your own service, answer grpc.health.v1.Health for the name
//     "plugin", and plugin.GRPCController/Shutdown by ending the process.
//   - Print nothing else on stdout; stderr is the log.
//   - You run as the server's user, and nothing keeps you from what that user
//     may read: its encryption key, the admin socket, files of other plugins.
//     Whoever installs you trusts you with that; touch only what Configure names.
//
// What a runtime owes is in pluginpb, service Runtime. In short: a push says
// what is wanted and may come again, late, in another order, or after you were
// killed in the middle of it; generation, fence and digest live where the
// variables live; what served before serves until the new one does; nobody but
// the target ever sees a value.
//
// # What a check may not know
//
// Some things only the author can do: spoil a target behind the plugin's back,
// make a rollout fail, look into the running program. The [Harness] has a
// function for each; without it the check is reported as not checked, and by
// what it lacks.
//
// # Flow
//
// [Verify] starts the plugin once to learn its kind and description. Each check
// of that kind then has processes and targets of its own, which end with it.
// Every value that is pushed holds one random mark, and the last check looks for
// that mark in everything that any of the processes printed or answered.
package plugintest
