package conformance

import (
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

// TestAnotherProvider runs the suite against a provider that is not ours, the example of zitadel/oidc, with a
// configuration like anybody's: testdata/zitadel.yaml. What that provider does not do, the suite says.
func TestAnotherProvider(t *testing.T) {
	if *issuer != "" || *config != "" {
		return
	}
	cfg, err := ReadConfig("testdata/zitadel.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var provider http.Handler
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		provider.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	cfg.Issuer, cfg.CAFile = server.URL+"/", filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(cfg.CAFile, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Client{cfg.Clients.Client, cfg.Clients.Client2} {
		storage.RegisterClients(storage.WebClient(c.ID, c.Secret, c.RedirectURI))
	}
	provider = exampleop.SetupServer(cfg.Issuer, storage.NewStorage(storage.NewUserStore("https://localhost:443/")),
		slog.New(slog.DiscardHandler), false)

	s, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for _, p := range s.Plans() {
		for _, m := range p.Modules {
			t.Run(m.Name, func(t *testing.T) {
				t.Parallel()
				if err := s.Verdict(s.Run(t.Context(), p, m)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
