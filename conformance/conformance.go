// Package conformance tests an OpenID provider from outside, over HTTP alone, as the test plans of the OpenID
// Foundation do.
//
// It imports nothing of this repository: `go test ./conformance` builds the warifu binary, starts it and registers
// clients with its command line; `go test ./conformance -issuer URL -config FILE` tests somebody else's provider, with
// the clients and the sign-in steps of a file (see [Config], and example.yaml).
//
// # Plans and modules
//
// A [Plan] is a list of modules under the names that the OpenID Foundation gives them, and each module checks what the
// one of that name checks there (github.com/openid-certification/conformance-suite). It ends with one of its results:
//
//	PASSED   everything is as it must be
//	WARNING  something is as it should not be, which does not keep a provider from certification
//	REVIEW   a person must look at a page; the report has its text
//	SKIPPED  the provider says that it does not offer what is tested, and may say so
//	FAILED   something is as it must not be
//
// A provider may differ on purpose. The configuration lists such results with the reason ([Config.Expected]); a module
// that ends otherwise than expected fails its test, and one that ends better than expected does as well.
//
// # Parts
//
//	Suite ─ Plan ─ module ─ trial ─┬─ provider   discovery and keys, fetched and checked
//	                               ├─ flow       one authorization: request, answer, tokens, userinfo
//	                               ├─ browser    cookies, forms, redirects, frames; no scripts
//	                               └─ party      what the provider calls at the relying party
//
// The relying party is written here, not taken from a client library: the suite must see what a library would hide. Its
// redirect URIs need not be reachable: the browser hands over a request to the relying party's origin instead of
// sending it. What the provider itself calls (jwks_uri, sector identifiers, request_uri, back-channel logout) is served
// by [Suite.Party].
//
// That the suite can fail is tested as well: package broken has a provider with one thing wrong at a time, and
// broken_test.go says which module must find what.
//
// Everything that is sent and received is in the report, without secrets: see redact.go.
package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// Suite tests one provider. Its methods may be called at the same time.
type Suite struct {
	cfg       Config
	transport *http.Transport
	party     *Party
	// slots bound how many modules are at work; a module that waits gives its slot back.
	slots chan struct{}
	keys  *keyring
}

// New makes a suite. party serves what the provider calls; without one, modules that need it are skipped.
func New(cfg Config, party *Party) (*Suite, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the provider's certificate authorities: %w", err)
		}
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", cfg.CAFile)
		}
	}
	dialer := &net.Dialer{Timeout: cfg.Timeout}
	transport := &http.Transport{
		TLSClientConfig: trust, MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: cfg.Timeout,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if other, ok := cfg.ConnectTo[address]; ok {
				address = other
			}
			return dialer.DialContext(ctx, network, address)
		},
	}
	return &Suite{cfg: cfg, transport: transport, party: party, slots: make(chan struct{}, cfg.Parallel),
		keys: &keyring{}}, nil
}

// Close gives up connections.
func (s *Suite) Close() { s.transport.CloseIdleConnections() }

// Plans are those that the configuration asks for.
func (s *Suite) Plans() []Plan {
	if len(s.cfg.Plans) == 0 {
		return Plans()
	}
	return slices.DeleteFunc(Plans(), func(p Plan) bool {
		return !slices.ContainsFunc(s.cfg.Plans, func(prefix string) bool { return strings.HasPrefix(p.Name, prefix) })
	})
}

// Run runs one module and says what came of it.
func (s *Suite) Run(ctx context.Context, plan Plan, m Module) ModuleReport {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limit)
	defer cancel()
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	t := newTrial(ctx, s, plan)
	start := time.Now()
	t.run(m.run)
	out := ModuleReport{
		Plan: plan.Name, Module: m.Name, Variant: plan.variant(m), Summary: m.Summary,
		Started: start.UTC().Round(time.Millisecond),
		Seconds: time.Since(start).Seconds(), Result: t.result(), Entries: t.entries(),
	}
	for _, e := range s.cfg.Expected {
		if e.fits(plan.Name, m.Name) {
			out.Expected, out.Why, out.Unexplained = e.Result, e.Why, e.unexplained(out)
			break
		}
	}
	return out
}

// Verdict says what is wrong with a result, or nil.
func (s *Suite) Verdict(m ModuleReport) error {
	allowed := []Result{Passed, Review}
	if !s.cfg.Strict {
		allowed = append(allowed, Warning, Skipped)
	}
	switch {
	case m.Unexplained != "":
		return fmt.Errorf("%s, as expected, but not because of: %s", m.Result, m.Unexplained)
	case m.Expected != "" && m.Result == m.Expected:
		return nil
	case m.Expected != "" && slices.Contains(allowed, m.Result):
		return fmt.Errorf("%s, which is better than expected (%s: %s): take that out of the list", m.Result,
			m.Expected, m.Why)
	case slices.Contains(allowed, m.Result):
		return nil
	}
	if first := m.Finding(); first != "" {
		return fmt.Errorf("%s: %s", m.Result, first)
	}
	return errors.New(string(m.Result))
}
