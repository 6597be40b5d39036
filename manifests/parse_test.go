package manifests

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files and the schema")

// catalogue is the server's default scope catalogue.
var catalogue = []string{
	"threads:read", "threads:write", "runs:read", "runs:write", "files:read", "files:write", "repos:read", "repos:write",
	"openid", "profile", "email", "offline_access", "groups",
}

// trusted are the issuers of workloads that the server trusts.
var trusted = []string{"https://ci.example.com", "https://token.actions.githubusercontent.com", "spiffe://example.org"}

// golden compares got with a file, or writes it.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./manifests -update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func fixtures(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures in %s: %v", dir, err)
	}
	return files
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Each testdata/apps/*.yml loads without a fault, and gives the JSON beside it.
func TestAppsLoad(t *testing.T) {
	for _, file := range fixtures(t, "apps") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			documents, faults := Parse(file, read(t, file), Options{Scopes: catalogue})
			if len(faults) > 0 {
				t.Fatalf("faults:\n%v", faults)
			}
			var b bytes.Buffer
			for _, d := range documents {
				written, err := d.App.JSON()
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Indent(&b, written, "", "  "); err != nil {
					t.Fatal(err)
				}
				b.WriteByte('\n')
			}
			golden(t, strings.TrimSuffix(file, ".yml")+".json", b.Bytes())
		})
	}
}

// Each testdata/faults/*.yml gives the faults beside it.
func TestFaultsAreReportedTogether(t *testing.T) {
	for _, file := range fixtures(t, "faults") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data := read(t, file)
			_, faults := Parse("app.yml", data, Options{Scopes: catalogue, Dev: strings.Contains(file, "on-loopback"),
				Issuers: trusted})
			var b strings.Builder
			for _, f := range faults {
				fmt.Fprintf(&b, "%s\n    %s %s\n", f, f.Code, f.Path)
			}
			golden(t, strings.TrimSuffix(file, ".yml")+".faults", []byte(b.String()))
			checkFaults(t, data, faults)
			if strings.Contains(b.String(), "hunter2") {
				t.Error("a fault repeats a secret")
			}
		})
	}
}

// lineBreak is what ends a line in YAML 1.1, which the library reads.
var lineBreak = regexp.MustCompile("\r\n|[\r\n\u0085\u2028\u2029]")

// checkFaults holds what every fault promises.
func checkFaults(t *testing.T, data []byte, faults Faults) {
	t.Helper()
	lines := sync.OnceValue(func() []string { return lineBreak.Split(string(data), -1) }) // slow, and not always needed
	for _, f := range faults {
		if f.Code == "" || f.Message == "" || f.Severity != SeverityError && f.Severity != SeverityWarning {
			t.Errorf("incomplete fault: %+v", f)
		}
		if strings.ContainsAny(f.String(), "\n\x00") {
			t.Errorf("a fault is not one line: %q", f.String())
		}
		if f.Line == 0 && f.Column == 0 && f.Code == "too-large" {
			continue
		}
		if f.Line < 1 || f.Line > len(lines()) {
			t.Errorf("line outside the file (%d lines): %v", len(lines()), f)
			continue
		}
		text := lines()[f.Line-1]
		if f.Column < 1 || f.Column > len([]rune(text))+2 { // the break is a place as well
			t.Errorf("column outside the line %q: %v", text, f)
		}
	}
	if !slices.IsSortedFunc(faults, func(a, b Fault) int { return a.Line - b.Line }) {
		t.Error("faults are not sorted")
	}
}

func TestSpecExampleIsUnderstood(t *testing.T) {
	const file = "testdata/apps/spec-example.yml"
	documents, faults := Parse(file, read(t, file), Options{Scopes: catalogue})
	if len(faults) > 0 || len(documents) != 1 {
		t.Fatalf("%d documents, faults: %v", len(documents), faults)
	}
	d := documents[0]
	app, oauth := d.App, d.App.Spec.OAuth
	if app.APIVersion != APIVersion || app.Kind != Kind || app.Metadata.Name != "my-oauth-app" ||
		app.Spec.Version != "1.0.0" {
		t.Errorf("envelope: %+v", app)
	}
	if oauth == nil || oauth.ClientName != "My OAuth App" || !oauth.AutoEnv || oauth.Public ||
		!slices.Equal(oauth.Scopes, []string{"threads:read", "threads:write", "runs:read"}) ||
		!slices.Equal(oauth.RedirectURIs, []string{"https://my-app.example.com/callback",
			"http://localhost:3000/callback"}) ||
		oauth.Metadata != (ConsentPage{
			"https://my-app.example.com/logo.png", "https://my-app.example.com/terms", "https://my-app.example.com/privacy",
		}) {
		t.Errorf("oauth: %+v", oauth)
	}
	if _, ok := app.Spec.Workers["web"]; !ok || len(app.Spec.Workers) != 1 {
		t.Errorf("workers: %+v", app.Spec.Workers)
	}
	if !slices.Equal(app.Spec.Routes, []Route{{"app", "web", "/"}}) {
		t.Errorf("routes: %+v", app.Spec.Routes)
	}
	if d.Path != file || d.Line != 1 || !bytes.Equal(d.Raw, read(t, file)) {
		t.Errorf("path %q, line %d, raw %d bytes", d.Path, d.Line, len(d.Raw))
	}
}

func TestAutoEnvIsOffUnlessWritten(t *testing.T) {
	data := read(t, "testdata/apps/local-development.yml")
	documents, faults := Parse("app.yml", data, Options{})
	if faults.Err() != nil || documents[0].App.Spec.OAuth.AutoEnv {
		t.Errorf("autoEnv is on, or faults: %v", faults)
	}
}

func TestEnvNamesInEveryForm(t *testing.T) {
	documents, faults := Parse("app.yml", read(t, "testdata/apps/wider-platform.yml"), Options{})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	spec := documents[0].App.Spec
	if got := spec.Workers["web"].Env; !slices.Equal(got, EnvNames{"DEBUG", "EMPTY", "LOG_LEVEL", "RETRIES"}) {
		t.Errorf("map: %q", got)
	}
	if got := spec.Containers["cache"].Env; !slices.Equal(got, EnvNames{"MODE", "SIZE"}) {
		t.Errorf("list: %q", got)
	}
}

func TestAppSurvivesJSON(t *testing.T) {
	documents, _ := Parse("app.yml", read(t, "testdata/apps/wider-platform.yml"), Options{})
	first, err := json.Marshal(documents[0].App)
	if err != nil {
		t.Fatal(err)
	}
	var again App
	if err := json.Unmarshal(first, &again); err != nil {
		t.Fatal(err)
	}
	second, err := again.JSON()
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("%v\nfirst  %s\nsecond %s", err, first, second)
	}
	if again.Spec.OAuth.ClientName != "Wide" {
		t.Errorf("fields are lost: %+v", again.Spec.OAuth)
	}
}

func TestAppMadeByHandHasJSON(t *testing.T) {
	app := App{APIVersion: APIVersion, Kind: Kind, Metadata: Metadata{Name: "a"}, Spec: Spec{Version: "1.0.0"}}
	got, err := app.JSON()
	want := `{"apiVersion":"takos.dev/v1alpha1","kind":"App","metadata":{"name":"a"},"spec":{"version":"1.0.0"}}`
	if err != nil || string(got) != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
}

func TestDocumentsKeepTheirPlace(t *testing.T) {
	data := read(t, "testdata/apps/several-documents.yml")
	documents, faults := Parse("app.yml", data, Options{})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var places []string
	for _, d := range documents {
		places = append(places, fmt.Sprintf("%s:%d", d.App.Metadata.Name, d.Line))
		if !bytes.Contains(data, d.Raw) || !bytes.Contains(d.Raw, []byte("name: "+d.App.Metadata.Name)) {
			t.Errorf("raw text of %s: %q", d.App.Metadata.Name, d.Raw)
		}
	}
	if want := []string{"one:4", "two:11", "three:20"}; !slices.Equal(places, want) {
		t.Errorf("got %q, want %q", places, want)
	}
}

// A document with an error does not hide the good ones, nor is it returned with them.
func TestDocumentsWithErrorsAreLeftOut(t *testing.T) {
	documents, faults := Parse("app.yml", read(t, "testdata/faults/one-document-among-several.yml"), Options{})
	if len(documents) != 1 || documents[0].App.Metadata.Name != "faulty" || faults.Err() == nil {
		t.Errorf("%d documents, faults: %v", len(documents), faults)
	}
}
