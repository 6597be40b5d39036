// Package connectortest starts the real world for tests of connectors: a directory (OpenLDAP's slapd), a Kerberos realm
// (MIT's krb5kdc), and an identity provider of SAML 2.0 (crewjam's samlidp). What it starts listens on loopback alone,
// keeps everything in a directory of the test or in its memory, and ends with it.
//
// A program that is missing fails the test, with the command that installs it.
package connectortest

import (
	"net"
	"os/exec"
	"testing"

	"github.com/warifu/warifu/plugins/child"
)

// Need fails the test if a program is missing. Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
func Need(t testing.TB, program, install string) string {
	t.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing; install it with: %s", program, install)
	return ""
}

// FreePort is a port of loopback on which nobody listens.
func FreePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// spawner starts processes that end with the test's.
var spawner = child.NewSpawner()
