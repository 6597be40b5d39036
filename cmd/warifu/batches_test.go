package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/admin"
)

func TestPortionsKeepTheOrderAndTheBounds(t *testing.T) {
	var docs []admin.Document
	for n := range 1000 {
		content := "kind: App"
		switch {
		case n%100 == 7:
			content = strings.Repeat("kind: App\n---\n", 60)
		case n%100 == 8:
			content = strings.Repeat("x", 1<<20)
		}
		docs = append(docs, admin.Document{Name: fmt.Sprint(n), Content: content})
	}
	docs = append(docs, admin.Document{Name: "too large", Content: strings.Repeat("x", 5<<20)})
	next := 0
	for _, portion := range portions(docs) {
		apps, bytes := 0, 0
		for _, doc := range portion {
			if doc.Name != docs[next].Name {
				t.Fatalf("%s comes at %d", doc.Name, next)
			}
			next++
			apps, bytes = apps+1+strings.Count(doc.Content, "\n---"), bytes+len(doc.Content)
		}
		if len(portion) == 0 || len(portion) > 1 && (apps > admin.MaxDocuments || bytes > portionBytes) {
			t.Errorf("a portion of %d documents, %d apps, %d bytes", len(portion), apps, bytes)
		}
	}
	if next != len(docs) {
		t.Errorf("%d of %d documents", next, len(docs))
	}
}

// A portion that fails leaves those before it applied, and it is said which.
func TestPortionThatFails(t *testing.T) {
	applies := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request applyRequest
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/v1/apply" {
			if applies++; applies == 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ =
					w.Write([]byte(`{"code":"storage_unavailable","status":503,"detail":"The server's storage does not answer."}`))
				return
			}
		}
		planned := admin.Planned{Applied: r.URL.Path == "/v1/apply"}
		for _, doc := range request.Documents {
			planned.Plans = append(planned.Plans, admin.AppPlan{App: strings.TrimSuffix(filepath.Base(doc.Name), ".yml"),
				Changed: true, Revision: "1.0"})
		}
		if planned.Applied && len(request.Expected) != len(request.Documents) {
			t.Errorf("%d revisions for %d documents", len(request.Expected), len(request.Documents))
		}
		_ = json.NewEncoder(w).Encode(planned)
	}))
	defer server.Close()
	dir := t.TempDir()
	token := filepath.Join(t.TempDir(), "token")
	for n := range 250 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("a%03d.yml", n)), []byte("kind: App\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(token, []byte(strings.Repeat("t", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"--admin", server.URL, "--admin-token-file", token, "apply", "-f", dir, "--yes"},
		strings.NewReader(""), &stdout, &stderr)
	said := stderr.String()
	if code != exitFailed || applies != 2 || !strings.Contains(said, "100 of 250 apps were applied") ||
		!strings.Contains(said, "a099 applied") ||
		strings.Contains(said, "a100 applied") || !strings.Contains(said, "storage does not answer") {
		t.Errorf("exit code %d after %d requests\n%s", code, applies, said)
	}
}
