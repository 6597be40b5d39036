package conformance

import (
	_ "embed" // report.html
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what came of a run, for machines (report.json) and for people (index.html, which needs nothing else).
type Report struct {
	Issuer  string         `json:"issuer"`
	Started time.Time      `json:"started"`
	Seconds float64        `json:"seconds"`
	Modules []ModuleReport `json:"modules"`
}

// ModuleReport is what came of one module.
type ModuleReport struct {
	Plan    string    `json:"plan"`
	Module  string    `json:"module"`
	Variant string    `json:"variant"`
	Summary string    `json:"summary"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Result  Result    `json:"result"`
	// Expected is the result that the configuration expects, and Why the reason; empty where it is PASSED or REVIEW.
	Expected Result `json:"expected,omitempty"`
	Why      string `json:"why,omitempty"`
	// Unexplained is a finding that is not among those that the configuration expects.
	Unexplained string  `json:"unexplained,omitempty"`
	Entries     []Entry `json:"entries"`
}

// Entry is one thing that happened: a check, a request with its answer, a call that the relying party received, or a
// page that a person should look at. There are no secrets in it.
type Entry struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"` // check, http, received or page

	// Result of a check, the section that it is about, and what it says.
	Result Result `json:"result,omitempty"`
	Ref    string `json:"ref,omitempty"`
	Text   string `json:"text,omitempty"`

	Method         string            `json:"method,omitempty"`
	URL            string            `json:"url,omitempty"`
	RequestHeader  map[string]string `json:"requestHeader,omitempty"`
	RequestForm    map[string]string `json:"requestForm,omitempty"`
	RequestBody    string            `json:"requestBody,omitempty"`
	Status         int               `json:"status,omitempty"`
	ResponseHeader map[string]string `json:"responseHeader,omitempty"`
	ResponseBody   string            `json:"responseBody,omitempty"`
}

// findings are what decided on a result that is not PASSED.
func (m ModuleReport) findings() []string {
	var found []string
	for _, e := range m.Entries {
		if m.Result != Passed && e.Kind == "check" && e.Result == m.Result {
			found = append(found, strings.TrimSpace(e.Ref+" "+e.Text))
		}
	}
	return found
}

// Finding is the first of what decided on a result that is not PASSED.
func (m ModuleReport) Finding() string {
	if m.Unexplained != "" {
		return m.Unexplained
	}
	for _, first := range m.findings() {
		return first
	}
	return ""
}

// Surprise says whether the result is neither good nor expected.
func (m ModuleReport) Surprise() bool {
	return m.Unexplained != "" || m.Result != m.Expected && (m.Expected != "" || m.Result != Passed && m.Result != Review)
}

// Count is how many modules ended with a result.
func (r Report) Count(result Result) int {
	n := 0
	for _, m := range r.Modules {
		if m.Result == result {
			n++
		}
	}
	return n
}

//go:embed report.html
var reportPage string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"seconds": func(s float64) string { return fmt.Sprintf("%.1f s", s) },
	"time":    func(t time.Time) string { return t.Format("15:04:05.000") },
	"date":    func(t time.Time) string { return t.Format("2006-01-02 15:04 MST") },
	"results": func() []Result { return severity },
}).Parse(reportPage))

// Write writes report.json, index.html and table.txt to a directory.
func (r Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	var page, table strings.Builder
	if err := reportTemplate.Execute(&page, r); err != nil {
		return fmt.Errorf("make the report's page: %w", err)
	}
	if err := r.Table(&table); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "index.html"), []byte(page.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "table.txt"), []byte(table.String()), 0o644),
	)
}

// Table writes one line a module, and the sums.
func (r Report) Table(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	plan := ""
	fmt.Fprintln(table, "PLAN\tMODULE\tRESULT\t") // the writer keeps its error for Flush
	for _, m := range r.Modules {
		name := ""
		if m.Plan != plan {
			plan, name = m.Plan, strings.TrimSuffix(m.Plan, "-certification-test-plan")
		}
		note := ""
		switch {
		case m.Surprise():
			note = "! " + shorten(m.Finding(), 120)
		case m.Expected != "":
			note = "as expected: " + m.Why
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, m.Module, m.Result, note)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var sums []string
	for _, result := range severity {
		if n := r.Count(result); n > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", n, result))
		}
	}
	_, err := fmt.Fprintf(w, "\n%d modules against %s in %.0f s: %s\n", len(r.Modules), r.Issuer, r.Seconds,
		strings.Join(sums, ", "))
	return err
}
