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
	if server, err = local.Start(context.Background(), local.Options{Binary: os.Getenv("WARIFU_E2E_BINARY"),
		Config: "oauth2: {registration: {enabled: true}, clientIDMetadataDocuments: true}\n"}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	return m.Run(), nil
}

// register deploys an app for a library and gives its credentials.
func register(t testing.TB, name string) local.Credentials {
	t.Helper()
	return deploy(t, name, "clientName: "+name, "grantTypes: [authorization_code, refresh_token, client_credentials]",
		`redirectUris: ["http://127.0.0.1:*"]`, `postLogoutRedirectUris: ["http://127.0.0.1:*"]`,
		`scopes: [openid, profile, email, offline_access, "threads:read"]`)
}

func deploy(t testing.TB, name string, oauth ...string) local.Credentials {
	t.Helper()
	c, err := server.Deploy(name, oauth...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
