// Package e2e holds clients that are programs or frameworks of their own, each set up as its documentation says,
// without a workaround: oauth2-proxy, what Kubernetes authenticates with on both sides, a Spring resource server,
// Rust's openidconnect, and mod_auth_openidc on Apache. They take minutes to build, so they are run by `make clients`,
// outside continuous integration, and have a module of their own.
//
// Tokens live for five seconds here: so each client meets the end of one, and has to refresh.
//
// Versions are pinned in go.mod, rust/Cargo.lock and spring/pom.xml; Apache's is Debian's. A test that needs a program
// which is missing fails, and says how to install it.
package e2e
