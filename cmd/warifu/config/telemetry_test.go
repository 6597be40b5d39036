package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is wrong with telemetry.traces is said where it stands, without what is in the file of headers.
func TestTraces(t *testing.T) {
	t.Parallel()
	headers := func(text string) string {
		file := filepath.Join(t.TempDir(), "headers")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	right := headers("Authorization: Bearer a-secret\n\nX-Scope-OrgID: one\n")
	for section, want := range map[string]string{
		"{endpoint: 'http://127.0.0.1:4318', sample: 5%, headersFile: " + right + "}":         "",
		"{endpoint: 'https://traces.example.com/otlp/v1/traces', headersFile: " + right + "}": "",
		"{sample: 100%}": "",
		"{headersFile: " + right +
			"}": "telemetry.traces.endpoint is required",
		"{endpoint: 'traces.example.com:4318'}":                "telemetry.traces.endpoint must be an address such as",
		"{endpoint: 'https://me:a-secret@traces.example.com'}": "telemetry.traces.endpoint must be an address without user",
		"{endpoint: 'http://traces.example.com', headersFile: " + right +
			"}": "telemetry.traces.endpoint must be https",
		"{endpoint: 'http://127.0.0.1:4318', sample: 0%}":   "telemetry.traces.sample must be a share",
		"{endpoint: 'http://127.0.0.1:4318', sample: 0.05}": "telemetry.traces.sample must be a share",
		"{endpoint: 'http://127.0.0.1:4318', sample: 101%}": "telemetry.traces.sample must be a share",
		"{endpoint: 'http://127.0.0.1:4318', sample: NaN%}": "telemetry.traces.sample must be a share",
		"{endpoint: 'http://127.0.0.1:4318', sample: Inf%}": "telemetry.traces.sample must be a share",
		"{endpoint: 'http://127.0.0.1:4318', headersFile: /nowhere/headers}": "telemetry.traces.headersFile names " +
			"/nowhere/headers, which does not exist",
		"{endpoint: 'http://127.0.0.1:4318', headersFile: " + headers("X-One: 1\nBearer a-secret\n") +
			"}": "line 2 is not one",
		"{endpoint: 'http://127.0.0.1:4318', headersFile: " + headers("X-One: a-secret\x00\n") +
			"}": "line 1 is not one",
	} {
		got := faultsOf(t, written(t, "telemetry: {traces: "+section+"}\n"))
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", section, got, want)
		}
		if strings.Contains(got, "a-secret") {
			t.Errorf("%s: %s", section, got)
		}
	}
	s, err := Read(written(t, "telemetry: {traces: {endpoint: 'http://127.0.0.1:4318', sample: 2.5%, headersFile: "+
		right+"}}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Telemetry.Traces.Sample != 0.025 || len(s.TraceHeaders) != 2 ||
		s.TraceHeaders["Authorization"] != "Bearer a-secret" {
		t.Errorf("%v %v", s.Telemetry.Traces, s.TraceHeaders)
	}
	if text, err := s.Telemetry.Traces.Sample.MarshalText(); err != nil || string(text) != "2.5%" {
		t.Errorf("%s %v", text, err)
	}
}
