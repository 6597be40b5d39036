//go:build faults

package faults

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// row is what a cell has found: one line of the table.
type row struct {
	name string

	mu         sync.Mutex // guards what follows
	operations int
	violations []string
	faults     map[string]int // requests without an answer, and 503, by class
	recovery   time.Duration  // negative: nothing had to recover
	notes      []string
	took       time.Duration
}

func newRow(name string) *row { return &row{name: name, faults: make(map[string]int), recovery: -1} }

func (r *row) operation() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.operations++
}

// count is how many operations there were so far.
func (r *row) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.operations
}

// fault counts a request that did not do what it is for, but said so.
func (r *row) fault(class string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[class]++
}

// violation is something that must not be.
func (r *row) violation(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// note is a figure that people may want to see.
func (r *row) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *row) recovered(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recovery = max(r.recovery, after)
}

// failed is how many requests ended with a fault.
func (r *row) failed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, count := range r.faults {
		n += count
	}
	return n
}

const rowFormat = "%-44s %7s %5s  %8s  %5s  %s"

var tableHead = fmt.Sprintf(rowFormat, "cell", "ops", "viol.", "recovery", "took", "errors by class; notes")

func (r *row) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var said []string
	for _, class := range slices.Sorted(maps.Keys(r.faults)) {
		said = append(said, fmt.Sprintf("%s: %d", class, r.faults[class]))
	}
	recovery := "-"
	if r.recovery >= 0 {
		recovery = fmt.Sprintf("%.1fs", r.recovery.Seconds())
	}
	rest := strings.Join(said, ", ")
	if len(r.notes) > 0 {
		rest += "; " + strings.Join(r.notes, "; ")
	}
	return fmt.Sprintf(rowFormat, r.name, fmt.Sprint(r.operations), fmt.Sprint(len(r.violations)), recovery,
		fmt.Sprintf("%.0fs", r.took.Seconds()), strings.TrimPrefix(rest, "; "))
}

// cell runs one cell of the table, and prints its line. A cell that is not short is left out with -short.
func cell(t *testing.T, name string, short bool, do func(t *testing.T, r *row)) {
	if testing.Short() && !short {
		return
	}
	t.Run(strings.NewReplacer(" ", "_", ",", "", "/", "_").Replace(name), func(t *testing.T) {
		r, start := newRow(name), time.Now()
		defer func() {
			r.took = time.Since(start)
			for i, wrong := range r.violations {
				if i == 5 {
					t.Errorf("and %d more", len(r.violations)-i)
					break
				}
				t.Error(wrong)
			}
			if t.Failed() && len(r.violations) == 0 {
				r.violations = append(r.violations, "the cell did not come to its end")
			}
			suite.print(r.String())
		}()
		do(t, r)
	})
}

// print writes a line of the table: for those who watch, and for those who come later.
func (s *suiteState) print(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.headed {
		s.headed = true
		line = tableHead + "\n" + line
	}
	_, _ = fmt.Println(line)
	artifacts := os.Getenv("WARIFU_ARTIFACTS")
	if artifacts == "" {
		return
	}
	file, err := os.OpenFile(filepath.Join(artifacts, "faults.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return // the line is on stdout
	}
	_, _ = fmt.Fprintln(file, line)
	_ = file.Close()
}
