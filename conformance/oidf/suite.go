package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// suite is a running conformance suite, by its REST API.
type suite struct {
	base         string
	http         *http.Client
	certificates []*x509.Certificate // that vouch for it
}

// dial finds out which certificate the suite has, unless a file says which it must have.
func dial(opts options) (*suite, error) {
	at, err := url.Parse(opts.suite)
	if err != nil {
		return nil, err
	}
	s := &suite{base: opts.suite}
	pool := x509.NewCertPool()
	if opts.suiteCA != "" {
		pem, err := os.ReadFile(opts.suiteCA)
		if err != nil {
			return nil, err
		}
		if s.certificates, err = certificates(pem); err != nil {
			return nil, fmt.Errorf("%s: %w", opts.suiteCA, err)
		}
	} else {
		// A suite in developer mode, on this machine, shows a certificate of its own making.
		conn, err := tls.Dial("tcp", at.Host, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return nil, fmt.Errorf("no suite answers at %s: %w", opts.suite, err)
		}
		s.certificates = conn.ConnectionState().PeerCertificates
		if err := conn.Close(); err != nil {
			return nil, err
		}
	}
	for _, c := range s.certificates {
		pool.AddCert(c)
	}
	s.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	return s, nil
}

// call sends a request and decodes the answer into reply, unless that is nil.
func (s *suite) call(ctx context.Context, method, path string, query url.Values, body, reply any) error {
	var sent io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.base+path+"?"+query.Encode(), sent)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: status %d: %.300s", method, path, resp.StatusCode, text)
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(text, reply)
}

// module is one of a plan's modules, with the variant that it is run in.
type module struct {
	Name    string            `json:"testModule"`
	Variant map[string]string `json:"variant"`
}

// runPlan creates a plan and runs its modules. One that does not end as expected is run once more: on a busy machine a
// page may come too late for the suite's browser. The second time counts; the outcome tells of the first.
func (w *world) runPlan(ctx context.Context, opts options, s *suite, name string, p plan, expected expectations,
	progress io.Writer) (done []outcome, err error) {
	config := make(map[string]any)
	var party *relying
	if p.Connector != nil {
		if party, err = newRelying(ctx, opts, s, &p); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, party.close()) }()
	} else if err := w.render(filepath.Join(opts.dir, "common.json"), &config); err != nil {
		return nil, err
	}
	merge(config, p.Config)
	variant, err := json.Marshal(p.Variant)
	if err != nil {
		return nil, err
	}
	var created struct {
		ID      string   `json:"id"`
		Modules []module `json:"modules"`
	}
	if err := s.call(ctx, http.MethodPost, "/api/plan", url.Values{"planName": {p.Plan}, "variant": {string(variant)}},
		config, &created); err != nil {
		return nil, err
	}
	for _, m := range created.Modules {
		if fits, err := path.Match(opts.module, m.Name); err != nil || !fits {
			continue
		}
		signIn := func() (string, error) { return "", nil }
		if party != nil {
			signIn = func() (string, error) { return party.signIn(ctx, p.SignIns[m.Name]) }
		}
		r, err := w.runModule(ctx, opts, s, name, created.ID, m, signIn)
		if first := r.told(expected[name][m.Name]); err == nil && first != "" {
			_, _ = fmt.Fprintf(progress, "%s %s is run once more: %s\n", name, m.Name, first)
			r, err = w.runModule(ctx, opts, s, name, created.ID, m, signIn)
			r.First = first
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		r.Unexpected = r.told(expected[name][m.Name])
		_, _ = fmt.Fprintf(progress, "%s %s %s %s\n", name, m.Name, r.Result, r.Unexpected)
		done = append(done, r)
	}
	return done, nil
}

// runModule runs one module to its end. The suite's browser does what a person would do; where it waits for one who
// signs in, signIn does so, and says what was wrong with that.
func (w *world) runModule(ctx context.Context, opts options, s *suite, name, planID string, m module,
	signIn func() (string, error)) (outcome, error) {
	r := outcome{Plan: name, Module: m.Name}
	variant, err := json.Marshal(m.Variant)
	if err != nil {
		return r, err
	}
	var created struct {
		ID string `json:"id"`
	}
	query := url.Values{"test": {m.Name}, "plan": {planID}, "variant": {string(variant)}}
	if err := s.call(ctx, http.MethodPost, "/api/runner", query, nil, &created); err != nil {
		return r, err
	}
	var info struct {
		Status string `json:"status"`
		Result string `json:"result"`
	}
	started, visited, stopped, late := false, false, false, time.Now().Add(opts.patience)
	wrong := ""
	for info.Status != "FINISHED" && info.Status != "INTERRUPTED" {
		if err := s.call(ctx, http.MethodGet, "/api/info/"+created.ID, nil, nil, &info); err != nil {
			return r, err
		}
		if info.Status == "CONFIGURED" && !started {
			started = true
			if err := w.prepare(m.Name); err != nil {
				return r, err
			}
			if err := s.call(ctx, http.MethodPost, "/api/runner/"+created.ID, nil, nil, nil); err != nil {
				return r, err
			}
		}
		if info.Status == "WAITING" && !visited {
			visited = true
			if wrong, err = signIn(); err != nil {
				return r, err
			}
		}
		if time.Now().After(late) && !stopped {
			// The next module cannot start before this one has ended.
			stopped = true
			if err := s.call(ctx, http.MethodDelete, "/api/runner/"+created.ID, nil, nil, nil); err != nil {
				return r, err
			}
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
	if r.Result = info.Result; info.Status == "INTERRUPTED" && r.Result != "FAILED" {
		r.Result = "INTERRUPTED"
	}
	if r.Result != "PASSED" || wrong != "" {
		err = s.keepLog(ctx, opts, created.ID, &r)
	}
	if wrong != "" {
		r.Result, r.Conditions, r.Why = "FAILED", append(r.Conditions, "FAILURE SignIn"), wrong+"; "+r.Why
	}
	return r, err
}

// keepLog writes the log of a module that did not pass, and finds out why.
func (s *suite) keepLog(ctx context.Context, opts options, id string, r *outcome) error {
	var log []map[string]any
	if err := s.call(ctx, http.MethodGet, "/api/log/"+id, nil, nil, &log); err != nil {
		return err
	}
	var why []string
	for _, entry := range log {
		switch entry["result"] {
		case "FAILURE", "WARNING", "REVIEW", "SKIPPED", "INTERRUPTED":
			r.Conditions = append(r.Conditions, fmt.Sprintf("%v %v", entry["result"], entry["src"]))
			why = append(why, fmt.Sprintf("%v: %.300v", entry["src"], entry["msg"]))
		}
	}
	slices.Sort(r.Conditions)
	r.Conditions = slices.Compact(r.Conditions)
	r.Why = strings.Join(why, "; ")
	r.Log = r.Plan + "-" + r.Module + ".json"
	text, err := json.MarshalIndent(log, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(opts.report, r.Log), text, 0o644)
}
