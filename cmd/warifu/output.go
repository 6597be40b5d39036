package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/admin"
)

// outputFlag adds -o with the formats that a command knows; the first is the default.
func outputFlag(command *cobra.Command, format *string, formats ...string) {
	command.Flags().StringVarP(format, "output", "o", formats[0], "output format: "+strings.Join(formats, ", "))
	must(command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)))
	check := command.Args
	command.Args = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, *format) {
			return fmt.Errorf("unknown format %q: -o knows %s", *format, strings.Join(formats, ", "))
		}
		return check(cmd, args)
	}
}

// must is for errors that only a mistake in this package can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// encode writes data as json or yaml.
func encode(w io.Writer, format string, data any) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(data)
	}
	// By way of JSON, so that both have the same keys.
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	var plain any
	if err := yaml.Unmarshal(text, &plain); err != nil { // JSON is YAML, and whole numbers stay whole
		return err
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(plain); err != nil {
		return err
	}
	return enc.Close()
}

// jsonOf is data as one line of JSON.
func jsonOf(data any) (string, error) {
	text, err := json.Marshal(data)
	return string(text), err
}

// table writes rows in columns, with control characters removed.
func table(w io.Writer, header []string, rows [][]string) error {
	return new(columns).write(w, append([][]string{header}, rows...))
}

// harmless replaces control characters: a name must not move the cursor of the terminal that shows it.
func harmless(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Cf, c) {
			return '\uFFFD'
		}
		return c
	}, s)
}

// when is a time in a table, in UTC.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func faultOf(f admin.Fault) manifests.Fault {
	return manifests.Fault{
		File: f.File, Line: f.Line, Column: f.Column, Path: f.Path, Code: f.Code,
		Message: f.Message, Suggestion: f.Suggestion, Severity: manifests.Severity(f.Severity),
	}
}
