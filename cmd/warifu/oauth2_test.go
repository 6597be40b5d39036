package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
)

// smallest is a configuration with nothing but what is required.
const smallest = "issuer: https://id.example.com\nweb: {http: 127.0.0.1:0}\n"

// wired is what the provider is built of.
func wired(t *testing.T, text string) (server.Config, string, error) {
	t.Helper()
	cfg, err := config.Parse("c.yaml", []byte(smallest+text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	var out server.Config
	i := &instance{cfg: cfg, log: slog.New(slog.NewTextHandler(&log, nil))}
	err = i.oauth2(&out)
	return out, log.String(), err
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const longSecret = "0123456789abcdef0123456789abcdef"

func TestOAuth2IsWired(t *testing.T) {
	got, log, err := wired(t, `
oauth2:
  grantTypes: [authorization_code, refresh_token, "urn:ietf:params:oauth:grant-type:token-exchange"]
  resourceServers: [{id: billing, identifier: https://billing.example.com, secretFile: `+secretFile(t, longSecret)+`}]
  registration: {enabled: true, initialAccessTokenFiles: [`+secretFile(t, longSecret)+`]}
  clientIDMetadataDocuments: true
`)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.GrantTypes, []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantTokenExchange}) {
		t.Errorf("grant types: %v", got.GrantTypes)
	}
	if want := (server.ResourceServer{ID: "billing", Identifier: "https://billing.example.com", Secret: longSecret}); len(got.ResourceServers) != 1 || got.ResourceServers[0] != want {
		t.Errorf("resource servers: %d", len(got.ResourceServers))
	}
	if got.Registration == nil || !slices.Equal(got.Registration.InitialAccessTokens, []string{longSecret}) || !got.ClientIDMetadataDocuments || got.Outbound == nil {
		t.Error("registration, documents or outbound are not as configured")
	}
	if log != "" {
		t.Errorf("log: %s", log)
	}
}

func TestOAuth2IsCarefulByDefault(t *testing.T) {
	got, _, err := wired(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.GrantTypes, server.DefaultGrantTypes()) || slices.Contains(got.GrantTypes, oauth.GrantTokenExchange) ||
		got.Registration != nil || got.ClientIDMetadataDocuments || len(got.ResourceServers) > 0 {
		t.Errorf("%+v", got)
	}
	if _, err := got.Outbound.Get(context.Background(), "http://127.0.0.1:1/", "", 1); !errors.Is(err, outbound.ErrRefused) {
		t.Errorf("loopback: %v", err)
	}
}

func TestOpenRegistrationIsToldInTheLog(t *testing.T) {
	got, log, err := wired(t, "oauth2: {registration: {enabled: true}}\n")
	if err != nil || got.Registration == nil || len(got.Registration.InitialAccessTokens) > 0 || !strings.Contains(log, "anyone can register") {
		t.Errorf("%v, %s", err, log)
	}
}

func TestSecretsOfOAuth2AreLongFiles(t *testing.T) {
	short, nowhere := secretFile(t, "swordfish"), filepath.Join(t.TempDir(), "nowhere")
	for text, want := range map[string]string{
		"oauth2: {resourceServers: [{id: a, identifier: urn:a, secretFile: " + short + "}]}\n":   "oauth2.resourceServers[0].secretFile: " + short + " must hold at least 32 characters",
		"oauth2: {resourceServers: [{id: a, identifier: urn:a, secretFile: " + nowhere + "}]}\n": "oauth2.resourceServers[0].secretFile: open " + nowhere,
		"oauth2: {registration: {enabled: true, initialAccessTokenFiles: [" + short + "]}}\n":    "oauth2.registration.initialAccessTokenFiles[0]: " + short + " must hold",
		"outbound: {caFile: " + nowhere + "}\n":                                                  "outbound.caFile: read certificates: open " + nowhere,
		"outbound: {caFile: " + short + "}\n":                                                    "outbound.caFile: " + short + " holds no PEM certificate",
	} {
		if _, _, err := wired(t, text); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What outbound allows is reached, by plain http too, and the authorities are those of caFile.
func TestOutboundIsWired(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	ca := secretFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	got, _, err := wired(t, "outbound: {allow: [127.0.0.0/8], caFile: "+ca+"}\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{plain.URL, secure.URL} {
		if _, err := got.Outbound.Get(t.Context(), address, "", 10); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// The app that is being developed has its keys and its logout on this machine; nothing else of the network is opened.
func TestDevReachesLoopback(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer app.Close()
	c := &cli{}
	cfg, err := c.devConfig(devOptions{data: t.TempDir()}, "127.0.0.1", app.Listener, devUser{Email: "dev@example.com", Password: "x"})
	if err != nil {
		t.Fatal(err)
	}
	client, err := outboundClient(cfg.Outbound)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(t.Context(), app.URL, "", 10); err != nil {
		t.Error(err)
	}
	if _, err := client.Get(t.Context(), "http://10.0.0.1/", "", 10); !errors.Is(err, outbound.ErrRefused) {
		t.Errorf("a private network: %v", err)
	}
}
