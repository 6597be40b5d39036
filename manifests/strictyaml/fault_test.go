package strictyaml

import (
	"errors"
	"strings"
	"testing"
)

func TestFaultsAreAnErrorOnlyWithErrors(t *testing.T) {
	warning := Fault{File: "a", Line: 1, Column: 2, Code: "c", Message: "m", Severity: SeverityWarning}
	fault := Fault{File: "a", Line: 3, Column: 4, Code: "c", Message: "m", Suggestion: "s", Severity: SeverityError}
	if err := (Faults{warning}).Err(); err != nil {
		t.Errorf("a warning is an error: %v", err)
	}
	err := Faults{warning, fault}.Err()
	var found Faults
	if !errors.As(err, &found) || len(found) != 1 || err.Error() != `a:3:4: m (did you mean "s"?)` {
		t.Errorf("error: %v", err)
	}
	if got := warning.String(); got != "a:1:2: warning: m" {
		t.Errorf("warning: %s", got)
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"clientName", "redirectUris", "scopes", "autoEnv", "metadata"}
	for word, want := range map[string]string{
		"redirectUrls": "redirectUris", "redirect_uris": "redirectUris", "scope": "scopes", "AUTOENV": "autoEnv",
		"meta": "metadata", "grants": "", "": "", "x": "", strings.Repeat("scopes", 20): "",
	} {
		if got := Nearest(word, keys); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
