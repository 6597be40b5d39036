// Command oidf runs plans of the OpenID Foundation's conformance suite against warifu, and holds the results against
// those that are expected.
//
//	make conformance-oidf SUITE=https://localhost:8443
//
// The suite (openid-certification/conformance-suite) is not part of this project and has to run already, with its
// developer mode on; the command talks to its REST API. It starts a server of its own on https with a certificate that
// it makes, registers the suite's clients from apps.yml, and for each file in plans creates the plan, runs its modules
// one after the other, and lets the suite's own browser (HtmlUnit) walk our pages as common.json says. It ends with a
// table on stdout, and fails when a module does not end as expected.json says, with the very conditions that it names;
// what is not in there must be PASSED.
//
// In plans that have connector, warifu is the relying party: the command starts another server, whose users sign in at
// the suite, and is itself the browser. Beside the suite's result, how each sign-in ends has to be as the plan says.
//
// The suite is built for a JDK of 21 or later from release 5.2.0 on; a MongoDB and a proxy that terminates TLS
// (X-Forwarded-*) belong to it.
//
// apps.yml, common.json and the plans are templates (text/template): see [world] for what they can ask for.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"text/template"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "oidf:", err)
		os.Exit(1)
	}
}

// options are the command's flags.
type options struct {
	suite    string // base URL of the suite
	suiteCA  string // PEM file that vouches for it
	warifu   string // the binary under test
	dir      string // with apps.yml, common.json, expected.json and plans
	report   string // directory for results and logs
	plans    string // pattern of plan files to run
	module   string // pattern of modules to run
	patience time.Duration
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var opts options
	flags := flag.NewFlagSet("oidf", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.suite, "suite", "",
		"base URL of a running conformance suite, as in https://localhost:8443 (required)")
	flags.StringVar(&opts.suiteCA, "suite-ca", "",
		"PEM file with the suite's certificate; without it the certificate that the suite shows is trusted")
	flags.StringVar(&opts.warifu, "warifu", "bin/warifu", "the binary under test")
	flags.StringVar(&opts.dir, "dir", "conformance/oidf", "directory of the plans")
	flags.StringVar(&opts.report, "report", "artifacts/oidf",
		"directory for results, and for the logs of modules that did not pass")
	flags.StringVar(&opts.plans, "plans", "*", "pattern of the plans to run: names of files in plans, without .json")
	flags.StringVar(&opts.module, "modules", "*", "pattern of the modules to run")
	flags.DurationVar(&opts.patience, "patience", 3*time.Minute, "longest time for one module")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if opts.suite == "" {
		return fmt.Errorf("say where the suite runs: -suite https://localhost:8443")
	}
	opts.suite = strings.TrimSuffix(opts.suite, "/")
	if err := os.MkdirAll(opts.report, 0o755); err != nil {
		return err
	}
	suite, err := dial(opts)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, opts, suite.certificates)
	if err != nil {
		return err
	}
	results, err := w.runPlans(ctx, opts, suite, stderr)
	if err := errors.Join(err, w.close()); err != nil {
		return err
	}
	return conclude(opts, results, stdout)
}

// plan is a file in plans.
type plan struct {
	Plan    string            `json:"plan"`
	Variant map[string]string `json:"variant"`
	Config  map[string]any    `json:"config"` // over common.json
	// Connector makes it a plan in which warifu is the relying party: keys of its connectors at the suite. SignIns are how
	// sign-ins end that do not end well, by module: refused, unavailable, sent away; or twice.
	Connector map[string]any    `json:"connector"`
	SignIns   map[string]string `json:"signIns"`
}

// outcome is how one module ended.
type outcome struct {
	Plan   string `json:"plan"` // name of the file
	Module string `json:"module"`
	// As the suite says: PASSED, WARNING, FAILED, REVIEW, SKIPPED; INTERRUPTED when it did not end
	Result     string   `json:"result"`
	Conditions []string `json:"conditions,omitempty"` // of what is not PASSED, as in "WARNING EnsureIdTokenHasNoAge"
	Why        string   `json:"why,omitempty"`        // what they say
	Unexpected string   `json:"unexpected,omitempty"` // how it differs from what is expected
	First      string   `json:"first,omitempty"`      // how it did when it was run first, when that was unexpected
	Log        string   `json:"log,omitempty"`        // file in the report
}

// told says how an outcome differs from the expected one, "" when it does not.
func (r outcome) told(want expectation) string {
	want.Result = cmp.Or(want.Result, "PASSED")
	slices.Sort(want.Conditions)
	if r.Result == want.Result && slices.Equal(r.Conditions, want.Conditions) {
		return ""
	}
	return fmt.Sprintf("%s %q, not %s %q: %s", r.Result, r.Conditions, want.Result, want.Conditions, r.Why)
}

func (w *world) runPlans(ctx context.Context, opts options, suite *suite, progress io.Writer) ([]outcome, error) {
	files, err := filepath.Glob(filepath.Join(opts.dir, "plans", opts.plans+".json"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no plan fits %q (%v)", opts.plans, err)
	}
	expected, err := readExpected(filepath.Join(opts.dir, "expected.json"))
	if err != nil {
		return nil, err
	}
	var results []outcome
	for _, file := range files {
		var p plan
		if err := w.render(file, &p); err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		done, err := w.runPlan(ctx, opts, suite, name, p, expected, progress)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		results = append(results, done...)
	}
	return results, nil
}

// merge puts over into config, objects member by member.
func merge(config, over map[string]any) {
	for key, value := range over {
		inner, is := value.(map[string]any)
		held, was := config[key].(map[string]any)
		if is && was {
			merge(held, inner)
			continue
		}
		config[key] = value
	}
}

// render reads a template and decodes the JSON that it makes.
func (w *world) render(file string, into any) error {
	text, err := w.expand(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func (w *world) expand(file string) ([]byte, error) {
	t, err := template.New(filepath.Base(file)).Funcs(
		template.FuncMap{"list": func(items ...string) []string { return items }}).ParseFiles(file)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, w); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// expectation is how a module ends that does not pass: its conditions that fail, warn or want a person to look, no
// other and no fewer, and the reason.
type expectation struct {
	Result     string   `json:"result"`
	Conditions []string `json:"conditions"`
	Why        string   `json:"why"`
}

// expectations are by plan and module. What is not in there has to pass.
type expectations map[string]map[string]expectation

func readExpected(file string) (expectations, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var e expectations
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return e, nil
}

// conclude writes results.json and the table. A result that is not the expected one is an error.
func conclude(opts options, results []outcome, stdout io.Writer) error {
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(opts.report, "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	counts, unexpected, again := make(map[string]int), 0, 0
	table := tabwriter.NewWriter(stdout, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "PLAN\tMODULE\tRESULT\t")
	for _, r := range results {
		note := r.Unexpected
		switch {
		case r.Unexpected != "":
			unexpected++
		case r.First != "":
			again++
			note = "the second time; the first time " + r.First
		}
		counts[r.Result]++
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.Plan, r.Module, r.Result, note)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, result := range slices.Sorted(maps.Keys(counts)) {
		_, _ = fmt.Fprintf(stdout, "%d %s\n", counts[result], result)
	}
	if again > 0 {
		_, _ = fmt.Fprintf(stdout, "%d as expected only the second time\n", again)
	}
	if unexpected > 0 {
		return fmt.Errorf("%d of %d results are not the expected ones; logs are in %s", unexpected, len(results), opts.report)
	}
	return nil
}
