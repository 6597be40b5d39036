// Package differential asks Dex and warifu the same questions. Dex runs with a configuration that has passwords of its
// own and connectors to real upstreams: a directory (slapd), an OpenID provider (another Dex), one of SAML (crewjam's)
// and an OAuth server. Then `warifu migrate dex` makes a configuration of that, the commands that it prints are run,
// and warifu runs in Dex's place, at the same address. Everybody signs in at both by every connector, with cookies and
// forms as a browser does; the client has the same id and secret, and its ID tokens go through one verifier. What apps
// learn must be equal.
//
// Dex is its module at a fixed commit, in the process of the tests. To build it takes minutes the first time, so this
// is run by `make differential`, outside continuous integration, and has a module of its own.
package differential
