package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// post sends a form to an endpoint of the server, and returns its reply.
func (s *started) post(t *testing.T, path string, form url.Values) map[string]any {
	t.Helper()
	resp, err := http.PostForm(s.cfg.Issuer+path, form)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var reply map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v %v", path, resp.Status, reply, err)
	}
	return reply
}

// An access token from before is dead after a restore, also one that belongs to no grant: it may have been revoked
// since the backup.
func TestAccessTokensEndWithARestore(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "backup.db")
	plain := func(*config.Config) {}
	s := startServer(t, dir, "127.0.0.1:0", plain)
	address := s.endpoints[0].listener.Addr().String()
	secret, value := s.store.NewClientSecret("own")
	_, err := s.store.RegisterClient(t.Context(), storage.Client{ID: "own", Secrets: []storage.ClientSecret{secret},
		Client: oauth.Client{ClientName: "Own", Scopes: []string{"files:read"},
			ClientMetadata: oauth.ClientMetadata{GrantTypes: []string{oauth.GrantClientCredentials}}}})
	if err != nil {
		t.Fatal(err)
	}
	own := url.Values{"client_id": {"own"}, "client_secret": {value}}
	with := func(name, value string) url.Values {
		form := url.Values{name: {value}}
		for k, v := range own {
			form[k] = v
		}
		return form
	}
	ask := with("grant_type", oauth.GrantClientCredentials)
	ask.Set("scope", "files:read")
	token, _ := s.post(t, "/oauth/token", ask)["access_token"].(string)
	active := func() any { return s.post(t, "/oauth/introspect", with("token", token))["active"] }
	if active() != true {
		t.Fatal("the token is not active")
	}
	asking := &cli{admin: s.cfg.Socket, stderr: io.Discard}
	api, err := asking.client()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := asking.writeBackup(t.Context(), api, file); err != nil {
		t.Fatal(err)
	}
	s.terminate(context.Canceled)
	s.wait(t)
	if err := os.Rename(filepath.Join(dir, "etcd"), filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	c := &cli{stderr: io.Discard}
	if _, err := c.newEpoch(t.Context(), s.restart(t), []string{file}, kept{}); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, dir, address, plain)
	if active() != false {
		t.Error("a token from before the restore is active")
	}
	token, _ = s.post(t, "/oauth/token", ask)["access_token"].(string)
	if active() != true {
		t.Error("a new token is not active")
	}
	s.terminate(context.Canceled)
	s.wait(t)
}

// restart reads the files of the configuration again: the encryption key is there now.
func (s *started) restart(t *testing.T) *config.Settings {
	t.Helper()
	settings, err := config.Load(s.cfg.Config)
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

// A full disk stops the server in order, with a line that says what to do.
func TestFullDiskStopsTheServerInOrder(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.0.1:0", func(*config.Config) {})
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries { // the file to which etcd appends becomes /dev/full
		to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || !strings.HasPrefix(to, dir) || !strings.HasSuffix(to, ".wal") {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err == nil {
			err = syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _, _ = s.store.RegisterClient(ctx, storage.Client{ID: "own"}) }() // whose answer never comes
	if err := <-s.ended; !errors.Is(err, syscall.ENOSPC) ||
		!strings.Contains(err.Error(), "make room on it and start again") {
		t.Errorf("it ended with %v", err)
	}
}
