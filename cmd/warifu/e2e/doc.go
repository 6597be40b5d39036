// Package e2e walks the real binary in a real browser: `warifu dev` on embedded etcd, Chromium, and a small app that is
// an ordinary OAuth client (golang.org/x/oauth2, coreos/go-oidc) and knows nothing of warifu but the env file that the
// `file` runtime wrote for it. The example Worker in workerd and the example container in podman are such clients, too,
// and are rotated under load. An agent uses the example MCP server, which is a Worker as well; a page without a server
// uses oidc-client-ts. Passkeys are made and used by Chromium's virtual authenticators. These tests cover what a person
// sees, types and presses; protocol messages are tested in package server.
//
// Everything is behind the build tag e2e:
//
//	make e2e                                  # or
//	go test -tags e2e ./cmd/warifu/e2e/
//
// It needs Linux, Chromium (apt-get install chromium), the example Workers with workerd (make worker), and podman (see
// .ci/packages). The environment says where things are:
//
//	WARIFU_WORKERD      workerd's executable; otherwise it is that of PATH or of the example Worker
//	WARIFU_E2E_BINARY   a binary that is built already; otherwise the suite builds one
//	WARIFU_ARTIFACTS    a directory for screenshots and footprint.txt; otherwise they go to the tests' own directories
//
// # Flow
//
// TestMain builds the binary, starts one Chromium, and one server with an app for each test that needs no server of its
// own. A test then makes people ([newPerson]): each has cookies of their own, and tabs that record the browser's
// complaints. A walk presses and types, waits for what that loads, and looks at the page and at what reached the app.
//
// # Invariants
//
//   - No test sleeps: every wait is for an event (a page has loaded, a line was printed, a process has ended) with a
//     deadline.
//   - A complaint of the browser that the test did not ask for (Content-Security-Policy, console, issues) fails the
//     test.
//   - Nothing is timed; memory and time to ready are reported, not judged.
//   - The browser reaches loopback and nothing else.
package e2e
