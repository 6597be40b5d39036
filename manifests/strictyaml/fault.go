package strictyaml

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/warifu/warifu/server/oauth"
)

// Severity says whether a fault stops a document.
type Severity string

// A document with an error is not used; one with warnings is.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Fault is one thing that is wrong in a file.
type Fault struct {
	File string `json:"file"`
	// Line and Column are 1-based and count characters; both are 0 when the fault is about the whole file.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Path is the place inside the document, such as spec.oauth.redirectUris[1]; empty for the whole document.
	Path string `json:"path,omitempty"`
	// Code is stable, in kebab case; Message is for people.
	Code    string `json:"code"`
	Message string `json:"message"`
	// Suggestion is what was probably meant, to be written in place of what is there; may be empty.
	Suggestion string   `json:"suggestion,omitempty"`
	Severity   Severity `json:"severity"`
}

// String is file:line:column: message (did you mean "x"?), the form that editors and terminals make clickable. A
// message that says what the value must be says it once.
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
	if f.Suggestion != "" && !strings.HasSuffix(f.Message, "must be "+f.Suggestion) {
		fmt.Fprintf(&b, " (did you mean %q?)", f.Suggestion)
	}
	return b.String()
}

// Unreadable is the fault of a file that is not there, or that cannot be read.
func Unreadable(file string, err error) Fault {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err // the fault has the path
	}
	return Fault{File: file, Code: "unreadable", Message: fmt.Sprintf("cannot be read: %v", err), Severity: SeverityError}
}

// Faults are all that was found, sorted by file, line and column.
type Faults []Fault

// Err is nil if there is no error among the faults; otherwise it holds the errors, and errors.As finds them as a
// Faults.
func (f Faults) Err() error {
	if errs := f.Errors(); len(errs) > 0 {
		return errs
	}
	return nil
}

// Error lists one fault per line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// Errors are the faults that stop the document.
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

// Sort orders the faults by file, line and column.
func (f Faults) Sort() {
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

// MaxFaults bounds the faults that are listed of one file, for each severity separately: warnings must never crowd
// out an error.
const MaxFaults = 100

// Position is where something is in a file; both are 1-based and count characters. The zero Position is the whole file.
type Position struct{ Line, Column int }

// Report collects the faults of one file.
type Report struct {
	File   string // as faults name it
	Faults Faults

	errors, warnings int
}

// Errors counts the errors, including those that are no longer listed.
func (r *Report) Errors() int { return r.errors }

// Errorf adds an error; the rest of a sentence that starts with the path is in format and args.
func (r *Report) Errorf(at Position, path, code, suggestion, format string, args ...any) {
	r.Add(Fault{
		File: r.File, Line: at.Line, Column: at.Column, Path: path, Code: code,
		Message: fmt.Sprintf(format, args...), Suggestion: suggestion, Severity: SeverityError,
	})
}

// Warnf adds a warning.
func (r *Report) Warnf(at Position, path, code, suggestion, format string, args ...any) {
	r.Add(Fault{
		File: r.File, Line: at.Line, Column: at.Column, Path: path, Code: code,
		Message: fmt.Sprintf(format, args...), Suggestion: suggestion, Severity: SeverityWarning,
	})
}

// Add adds a fault whose message goes on after its path. It may be of another place than the file.
func (r *Report) Add(f Fault) {
	count := &r.errors
	if f.Severity == SeverityWarning {
		count = &r.warnings
	}
	*count++
	switch nth := *count; {
	case nth > MaxFaults+1:
		return
	case nth > MaxFaults:
		f.Path, f.Code, f.Suggestion = "", "too-many-faults", ""
		f.Message = fmt.Sprintf("more than %d faults of this kind: those from here on are not listed", MaxFaults)
	case f.Path != "":
		f.Message = f.Path + " " + f.Message
	}
	r.Faults = append(r.Faults, f)
}

// Nearest returns the candidate that word was probably meant to be, or "". Ties go to the earlier candidate.
func Nearest(word string, candidates []string) string {
	const longest = 64 // the distance costs the product of the lengths
	if word == "" || len(word) > longest {
		return ""
	}
	plain := PlainSpelling(word)
	best, bestDistance := "", len(plain)/2+1
	if len(plain) < 4 {
		bestDistance = len(plain) // two letters that changed places are most of a short word
	}
	for _, candidate := range candidates {
		if candidate == word {
			continue
		}
		other := PlainSpelling(candidate)
		distance := oauth.Edits(plain, other)
		if len(plain) >= 3 && (strings.HasPrefix(other, plain) || strings.HasPrefix(plain, other)) {
			distance = min(distance, 1)
		}
		if distance < bestDistance {
			best, bestDistance = candidate, distance
		}
	}
	return best
}

// Misspelled returns the candidate that word is a misspelling of, or "", and how many edits away it is: letters too
// many, too few or wrong, or neighbours that changed places. There may be one, in longer words one for every three
// letters, three at most. That is narrower than [Nearest], whose answers are for people to judge: cron is no
// misspelling of icon.
func Misspelled(word string, candidates []string) (meant string, distance int) {
	plain := PlainSpelling(word)
	long := utf8.RuneCountInString(plain)
	distance = max(1, min(long/3, 3)) + 1
	for _, candidate := range candidates {
		other := PlainSpelling(candidate)
		if more := long - utf8.RuneCountInString(other); max(more, -more) >= distance {
			continue // also what keeps a word of any length cheap
		}
		if d := oauth.Edits(plain, other); d < distance {
			meant, distance = candidate, d
		}
	}
	return meant, distance
}

var joined = strings.NewReplacer("_", "", "-", "")

// PlainSpelling makes client_name, Client-Name and clientName the same word.
func PlainSpelling(s string) string {
	return joined.Replace(strings.ToLower(s))
}
