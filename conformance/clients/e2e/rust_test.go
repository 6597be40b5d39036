package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/warifu/warifu/conformance/local"
)

func TestRust(t *testing.T) {
	need(t, "cargo", "apt-get install cargo (1.88 or later), or https://rustup.rs")
	build(t, "rust", "cargo", "build", "--locked", "--quiet", "--target-dir", filepath.Join(cache(t), "rust"))
	c := register(t, "rust")
	address := make(chan string, 1)
	run(t, []string{"SSL_CERT_FILE=" + server.CAFile, "OAUTH_ISSUER=" + c.Issuer, "OAUTH_CLIENT_ID=" + c.ClientID,
		"OAUTH_CLIENT_SECRET=" + c.ClientSecret}, address, filepath.Join(cache(t), "rust", "debug", "rust"))
	at := ""
	select {
	case at = <-address:
	case <-time.After(time.Minute):
		t.Fatal("it does not start")
	}
	page, err := server.Browser().Visit(at + "/")
	if err != nil {
		t.Fatal(err)
	}
	shows(t, page, map[string]any{
		"sub": local.UserID, "email": local.Login, "userinfo": local.Login, "refreshed": true, "same": true})
}
