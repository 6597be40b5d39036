package manifests

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Severity says whether a fault stops a manifest.
type Severity string

// A manifest with an error is not used; one with warnings is.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Fault is one thing that is wrong in a manifest.
type Fault struct {
	File string `json:"file"`
	// Line and Column are 1-based and count characters; both are 0 when the fault is about the whole file.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Path is the place inside the manifest, such as spec.oauth.redirectUris[1]; empty for the whole document.
	Path string `json:"path,omitempty"`
	// Code is stable, in kebab case; Message is for people.
	Code    string `json:"code"`
	Message string `json:"message"`
	// Suggestion is what was probably meant, to be written in place of what is there; may be empty.
	Suggestion string   `json:"suggestion,omitempty"`
	Severity   Severity `json:"severity"`
}

// String is file:line:column: message (did you mean "x"?), the form that editors and terminals make clickable.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	b.WriteString(": ")
	if f.Severity == SeverityWarning {
		b.WriteString("warning: ")
	}
	b.WriteString(f.Message)
	if f.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", f.Suggestion)
	}
	return b.String()
}

// Faults are all that was found, sorted by file, line and column.
type Faults []Fault

// Err is nil when there is no error among the faults; otherwise it is the errors, for errors.As to a Faults.
func (f Faults) Err() error {
	if errs := f.Errors(); len(errs) > 0 {
		return errs
	}
	return nil
}

// Error lists one fault a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// Errors are the faults that stop the manifest.
func (f Faults) Errors() Faults { return f.of(SeverityError) }

// Warnings are the faults that do not.
func (f Faults) Warnings() Faults { return f.of(SeverityWarning) }

func (f Faults) of(severity Severity) Faults {
	var found Faults
	for _, fault := range f {
		if fault.Severity == severity {
			found = append(found, fault)
		}
	}
	return found
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Code, b.Code),
		)
	})
}

// maxFaults bounds what one file can make us say, for each severity by itself: warnings must never crowd out an error.
const maxFaults = 100

// position is where a fault is; both are 1-based.
type position struct{ line, column int }

// report collects the faults of one file.
type report struct {
	file             string
	faults           Faults
	errors, warnings int
}

// errorf adds an error; the rest of a sentence that starts with the path is in format and args.
func (r *report) errorf(at position, path, code, suggestion, format string, args ...any) {
	r.errors++
	r.add(r.errors, SeverityError, at, path, code, suggestion, fmt.Sprintf(format, args...))
}

// warnf adds a warning.
func (r *report) warnf(at position, path, code, suggestion, format string, args ...any) {
	r.warnings++
	r.add(r.warnings, SeverityWarning, at, path, code, suggestion, fmt.Sprintf(format, args...))
}

func (r *report) add(nth int, severity Severity, at position, path, code, suggestion, message string) {
	switch {
	case nth > maxFaults+1:
		return
	case nth > maxFaults:
		path, code, suggestion = "", "too-many-faults", ""
		message = fmt.Sprintf("more than %d faults of this kind: those from here on are not listed", maxFaults)
	case path != "":
		message = path + " " + message
	}
	r.faults = append(r.faults, Fault{
		File: r.file, Line: at.line, Column: at.column, Path: path, Code: code,
		Message: message, Suggestion: suggestion, Severity: severity,
	})
}

// nearest returns the candidate that word was probably meant to be, or "". Ties go to the earlier candidate.
func nearest(word string, candidates []string) string {
	const longest = 64 // the distance costs the product of the lengths
	if word == "" || len(word) > longest {
		return ""
	}
	plain := plainSpelling(word)
	best, bestDistance := "", (len(plain)+1)/2+1
	for _, candidate := range candidates {
		if candidate == word {
			continue
		}
		other := plainSpelling(candidate)
		distance := levenshtein.ComputeDistance(plain, other)
		if len(plain) >= 3 && (strings.HasPrefix(other, plain) || strings.HasPrefix(plain, other)) {
			distance = min(distance, 1)
		}
		if distance < bestDistance {
			best, bestDistance = candidate, distance
		}
	}
	return best
}

// plainSpelling makes client_name, Client-Name and clientName the same word.
func plainSpelling(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s))
}
