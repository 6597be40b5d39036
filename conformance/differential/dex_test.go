package differential

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	gosundheit "github.com/AppsFlyer/go-sundheit"
	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/server/connectors"
	"github.com/dexidp/dex/server/signer"
	"github.com/dexidp/dex/server/tokens"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/dexidp/dex/web"
	"github.com/ghodss/yaml"
	"github.com/prometheus/client_golang/prometheus"
)

// dexConfig is what these tests use of Dex's configuration. Dex's own command reads it in the same way (cmd/dex), but
// cannot be built from its module: that leaves out the module of its gRPC API.
type dexConfig struct {
	Issuer           string                            `json:"issuer"`
	Web              struct{ HTTP string }             `json:"web"`
	OAuth2           struct{ SkipApprovalScreen bool } `json:"oauth2"`
	EnablePasswordDB bool                              `json:"enablePasswordDB"`
	StaticClients    []storage.Client                  `json:"staticClients"`
	StaticPasswords  []struct {
		Email             string   `json:"email"`
		Username          string   `json:"username"`
		Name              string   `json:"name"`
		PreferredUsername string   `json:"preferredUsername"`
		EmailVerified     *bool    `json:"emailVerified"`
		UserID            string   `json:"userID"`
		Hash              string   `json:"hash"`
		Groups            []string `json:"groups"`
	} `json:"staticPasswords"`
	Connectors []struct {
		Type   string          `json:"type"`
		Name   string          `json:"name"`
		ID     string          `json:"id"`
		Config json.RawMessage `json:"config"`
	} `json:"connectors"`
}

// startDex runs Dex with a configuration, until stop is called or the test ends.
func startDex(t *testing.T, file string) (stop func()) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c dexConfig
	if err := yaml.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := storage.WithStaticClients(memory.New(log), c.StaticClients)
	var passwords []storage.Password
	for _, p := range c.StaticPasswords {
		passwords = append(passwords, storage.Password{
			Email: p.Email, Username: p.Username, Name: p.Name, PreferredUsername: p.PreferredUsername,
			EmailVerified: p.EmailVerified, UserID: p.UserID, Hash: []byte(p.Hash), Groups: p.Groups,
		})
	}
	s = storage.WithStaticPasswords(s, passwords, log)
	var ways []storage.Connector
	for _, one := range c.Connectors {
		ways = append(ways, storage.Connector{ID: one.ID, Type: one.Type, Name: one.Name, Config: one.Config})
	}
	if c.EnablePasswordDB {
		ways = append(ways, storage.Connector{ID: connectors.LocalConnector, Name: "Email", Type: connectors.LocalConnector})
	}
	s = storage.WithStaticConnectors(s, ways)

	keys := signer.LocalConfig{KeysRotationPeriod: "6h", Algorithm: "RS256"}
	signed, err := keys.Open(t.Context(), s, 24*time.Hour, time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := tokens.NewRefreshTokenPolicy(log, false, "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	dex, err := server.NewServer(t.Context(), server.Config{
		Issuer: c.Issuer, Storage: s, SkipApprovalScreen: c.OAuth2.SkipApprovalScreen, RefreshTokenPolicy: policy,
		IDTokensValidFor: 24 * time.Hour, Web: server.WebConfig{WebFS: web.FS()}, Logger: log, Signer: signed,
		PrometheusRegistry: prometheus.NewRegistry(), HealthChecker: gosundheit.New(),
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", c.Web.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	listening := &http.Server{Handler: dex}
	go func() { _ = listening.Serve(listener) }() // ends with Close
	stop = func() { _ = listening.Close() }
	t.Cleanup(stop)
	return stop
}
