package conformance

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"
)

var (
	issuer = flag.String("issuer", "", "issuer of the provider to test; by default a warifu server that the suite starts")
	config = flag.String("config", "", "configuration of the suite for that provider, see Config")
	report = flag.String("report", "", "directory for report.json, index.html and table.txt")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !wasSet("test.parallel") {
		// Modules wait more than they work, and the suite bounds how many work at once.
		must(flag.Set("test.parallel", "64"))
	}
	code := m.Run()
	if err := stopOwn(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func wasSet(name string) bool {
	found := false
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// subject is the provider under test with all that the suite needs for it: somebody else's, or our own.
func subject(t *testing.T) *Suite {
	t.Helper()
	if *issuer == "" && *config == "" {
		return ownSuite(t, nil)
	}
	cfg, err := ReadConfig(*config)
	if err != nil {
		t.Fatal(err)
	}
	if *issuer != "" {
		cfg.Issuer = *issuer
	}
	party, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if party != nil {
		t.Cleanup(func() {
			if err := party.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	s, err := New(cfg, party)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// credential is what must not be in a report: a JWT with its signature, a PKCE verifier or code that is long enough to
// be one.
var credential = regexp.MustCompile(`eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}|\bwf[a-z]_[\w-]{8,}`)

// noSecrets looks for secrets in a report that people may publish.
func noSecrets(t *testing.T, s *Suite, r Report) {
	t.Helper()
	dir := t.TempDir()
	if err := r.Write(dir); err != nil {
		t.Error(err)
		return
	}
	secrets := []string{s.cfg.Registration.InitialAccessToken, s.cfg.Clients.Client.Secret, s.cfg.Clients.Client2.Secret,
		s.cfg.Clients.SecretPost.Secret}
	for _, name := range []string{"report.json", "index.html", "table.txt"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, secret := range secrets {
			if secret != "" && bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds a secret of the configuration", name)
			}
		}
		if found := credential.Find(text); found != nil {
			t.Errorf("%s holds %.20s…", name, found)
		}
	}
}

// TestPlan runs all modules of all plans: TestPlan/oidcc-basic-certification-test-plan/oidcc-server and so on.
func TestPlan(t *testing.T) {
	s := subject(t)
	started := time.Now()
	var mu sync.Mutex // guards results
	results := map[string]ModuleReport{}
	t.Cleanup(func() {
		r := Report{Issuer: s.cfg.Issuer, Started: started, Seconds: time.Since(started).Seconds()}
		for _, p := range Plans() {
			for _, m := range p.Modules {
				if result, ran := results[p.Name+"/"+m.Name]; ran {
					r.Modules = append(r.Modules, result)
				}
			}
		}
		noSecrets(t, s, r)
		if *report != "" {
			if err := r.Write(*report); err != nil {
				t.Error(err)
			}
		}
	})
	for _, p := range s.Plans() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			for _, m := range p.Modules {
				t.Run(m.Name, func(t *testing.T) {
					t.Parallel()
					result := s.Run(t.Context(), p, m)
					mu.Lock()
					results[p.Name+"/"+m.Name] = result
					mu.Unlock()
					if err := s.Verdict(result); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}
