package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// listed writes a list of any length part by part, so that nobody waits for its end, or has to hold it.
type listed struct {
	c      *cli
	format string // table, json, jsonl, yaml or name
	what   string // such as grants

	items int // so far
	table columns
}

func (l *listed) add(part rows) error {
	first := l.items == 0
	l.items += len(part.data)
	if len(part.data) == 0 {
		return nil
	}
	switch l.format {
	case "json":
		return l.json(part.data, first)
	case "jsonl":
		return l.lines(part.data)
	case "yaml":
		return encode(l.c.stdout, "yaml", part.data) // the parts of a sequence are a sequence
	case "name":
		_, err := fmt.Fprintln(l.c.stdout, strings.Join(part.names, "\n"))
		return err
	}
	cells := part.cells
	if first {
		cells = append([][]string{part.header}, cells...)
	}
	return l.table.write(l.c.stdout, cells)
}

// json writes items as encode does, of a list that may have begun.
func (l *listed) json(items []any, first bool) error {
	for _, item := range items {
		before := ",\n  "
		if first {
			before = "[\n  "
		}
		first = false
		var text strings.Builder
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		enc.SetIndent("  ", "  ")
		if err := enc.Encode(item); err != nil {
			return err
		}
		if _, err := io.WriteString(l.c.stdout, before+strings.TrimSuffix(text.String(), "\n")); err != nil {
			return err
		}
	}
	return nil
}

// lines writes items with one in a line.
func (l *listed) lines(items []any) error {
	enc := json.NewEncoder(l.c.stdout)
	enc.SetEscapeHTML(false)
	for _, item := range items {
		if err := enc.Encode(item); err != nil {
			return err
		}
	}
	return nil
}

// end comes after the last part.
func (l *listed) end() error {
	end := ""
	switch {
	case l.format == "json" && l.items > 0:
		end = "\n]\n"
	case l.format == "json" || l.format == "yaml" && l.items == 0:
		end = "[]\n"
	case l.format == "table" && l.items == 0:
		l.c.say("There are no %s.", l.what)
	}
	_, err := io.WriteString(l.c.stdout, end)
	return err
}

// columns writes rows one below the other. Rows that come later make a column wider, and never narrower.
type columns struct{ widths []int }

func (t *columns) write(w io.Writer, rows [][]string) error {
	safe := make([][]string, len(rows))
	for i, row := range rows {
		safe[i] = make([]string, len(row))
		for j, cell := range row {
			if cell = harmless(cell); cell == "" {
				cell = "-"
			}
			if safe[i][j] = cell; j == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[j] = max(t.widths[j], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range safe {
		for j, cell := range row {
			b.WriteString(cell)
			if j < len(row)-1 {
				b.WriteString(strings.Repeat(" ", t.widths[j]-utf8.RuneCountInString(cell)+3))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
