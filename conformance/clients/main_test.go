//go:build e2e

package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/warifu/warifu/conformance/local"
)

// server is what all apps share. Only TestMain writes it.
var server *local.Server

func TestMain(m *testing.M) {
	code, err := runSuite(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "clients:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (_ int, err error) {
	if server, err = local.Start(context.Background(), local.Options{Binary: os.Getenv("WARIFU_E2E_BINARY")}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	return m.Run(), nil
}

// register deploys an app for a library and gives its credentials.
func register(t testing.TB, name string) local.Credentials {
	t.Helper()
	if err := server.Apply(fmt.Appendf(nil, `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: %[1]s}
spec:
  version: 1.0.0
  oauth:
    clientName: %[1]s
    grantTypes: [authorization_code, refresh_token, client_credentials]
    redirectUris: ["http://127.0.0.1:*"]
    postLogoutRedirectUris: ["http://127.0.0.1:*"]
    scopes: [openid, profile, email, offline_access, "threads:read"]
`, name)); err != nil {
		t.Fatal(err)
	}
	c, err := server.Credentials(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
