package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/admin"
)

// testInstance is a whole server inside the test, with the built-in plugins as real processes.
func testInstance(t *testing.T, change ...func(*config.Config)) *instance {
	t.Helper()
	return builtInstance(t, building{}, change...)
}

func builtInstance(t *testing.T, with building, change ...func(*config.Config)) *instance {
	t.Helper()
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("password"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Issuer = "http://" + web.Addr().String()
	cfg.Storage.Config.DataDir = t.TempDir()
	cfg.Admin.Socket = filepath.Join(cfg.Storage.Config.DataDir, "a.sock")
	cfg.EnablePasswordDB = true
	cfg.StaticPasswords = []config.StaticPassword{{Email: "ann@example.com", UserID: "ann", Hash: string(hash)}}
	for _, c := range change {
		c(cfg)
	}
	settings, err := config.Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	with.web, with.log = []net.Listener{web}, slog.New(slog.DiscardHandler)
	i, err := build(t.Context(), settings, with)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { // ends with stop, below
		ended <- i.run(ctx, func(context.Context) error { close(ready); return nil })
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		i.close()
	})
	<-ready
	return i
}

// admin asks the instance's admin API by way of its socket.
func (i *instance) ask(t *testing.T, method, path, body string) *http.Response {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", i.cfg.Socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), method, "http://warifu"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// documents is the body of plan and apply for manifests.
func documents(t *testing.T, more map[string]any, contents ...string) string {
	t.Helper()
	docs := make([]admin.Document, len(contents))
	for i, c := range contents {
		docs[i] = admin.Document{Name: fmt.Sprintf("%d.yml", i), Content: c}
	}
	body := map[string]any{"documents": docs}
	for k, v := range more {
		body[k] = v
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func exampleManifest(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/app.yml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
