package config

import (
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// reader decodes one YAML document into a Config, strictly: every unknown key, every key that is there twice and
// every value of the wrong type is a fault with its position, and all of them are found in one go. It remembers where
// each value stood, so that later checks can point at it.
type reader struct {
	*strictyaml.Report
	places map[string]strictyaml.Position // by path, as in staticPasswords[0].hash
	// variables are the keys that came from the environment: by path, the variable as $NAME.
	variables map[string]string
	// mistaken are the paths whose values were refused while decoding: a check of what stands in their place would
	// only repeat that.
	mistaken  map[string]bool
	checking  bool
	listeners []listener
}

func newReader(file string) *reader {
	return &reader{
		Report: &strictyaml.Report{File: file}, places: map[string]strictyaml.Position{"": {Line: 1, Column: 1}},
		variables: map[string]string{}, mistaken: map[string]bool{},
	}
}

func (r *reader) fault(path, code, suggestion, format string, args ...any) {
	if !r.checking && code != "unknown-key" {
		r.mistaken[path] = true
	}
	r.add(strictyaml.SeverityError, path, code, suggestion, fmt.Sprintf(format, args...))
}

func (r *reader) warn(path, code, format string, args ...any) {
	r.add(strictyaml.SeverityWarning, path, code, "", fmt.Sprintf(format, args...))
}

// add finds where a path was written. What is missing is reported where it should be.
func (r *reader) add(severity strictyaml.Severity, path, code, suggestion, message string) {
	file, at := r.File, r.places[path]
	for above := path; ; above = above[:max(strings.LastIndexAny(above, ".["), 0)] {
		if r.checking && r.mistaken[above] {
			return
		}
		if at == (strictyaml.Position{}) {
			at = r.places[above]
		}
		if above == "" {
			break
		}
	}
	if variable := r.variables[strings.SplitN(path, "[", 2)[0]]; variable != "" {
		file, at = variable, strictyaml.Position{}
	}
	r.Add(strictyaml.Fault{
		File: file, Line: at.Line, Column: at.Column, Path: path, Code: code,
		Message: message, Suggestion: suggestion, Severity: severity,
	})
}

// Read reads and checks a configuration: the file, then the environment (as from os.Environ) over it, then the files
// that it names. The error is a [strictyaml.Faults] with everything that is wrong, or says why the file cannot be
// read.
func Read(file string, environ []string) (*Settings, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	r := newReader(file)
	settings := r.load(r.parse(data, environ))
	if err := r.err(); err != nil {
		return nil, err
	}
	settings.Warnings = r.Faults
	return settings, nil
}

// parse takes the values from where they stand, and checks them.
func (r *reader) parse(data []byte, environ []string) *Config {
	cfg := Default()
	r.decode(data, cfg)
	r.environment(environ, cfg)
	r.checking = true
	r.check(cfg)
	return cfg
}

func (r *reader) err() error {
	r.Faults.Sort()
	return r.Faults.Err()
}

func (r *reader) decode(data []byte, cfg *Config) {
	root := r.tree(data)
	for _, f := range r.Faults {
		if f.Severity == strictyaml.SeverityError && f.Code != "duplicate-key" {
			r.mistaken[f.Path] = true
		}
	}
	if root != nil {
		r.value("", root, reflect.ValueOf(cfg).Elem())
	}
}

// tree reads the one document of a configuration. Nil means that there is nothing to decode: the file is empty, because
// everything can come from the environment, or the reason has been reported.
func (r *reader) tree(data []byte) *strictyaml.Value {
	documents := strictyaml.Split(r.Report, data)
	switch len(documents) {
	case 0:
		return nil
	case 1:
		return documents[0].Tree(r.Report)
	}
	r.Errorf(documents[1].Start(), "", "syntax", "", "a second document: a configuration is one document")
	return nil
}

// value decodes node into v. An explicit null is the same as a key that is not there.
func (r *reader) value(path string, node *strictyaml.Value, v reflect.Value) {
	r.places[path] = node.Position
	if node.IsNull() {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		r.mapping(path, node, v)
	case reflect.Slice:
		if node.Kind != strictyaml.List {
			r.fault(path, "type", "", "must be a list, but is %s", kindOf(node))
			return
		}
		list := reflect.MakeSlice(v.Type(), len(node.Items), len(node.Items))
		for i, item := range node.Items {
			r.value(fmt.Sprintf("%s[%d]", path, i), item, list.Index(i))
		}
		v.Set(list)
	case reflect.Map: // free settings of a plugin
		if node.Kind != strictyaml.Mapping {
			r.fault(path, "type", "", "must be a mapping, but is %s", kindOf(node))
			return
		}
		v.Set(reflect.ValueOf(node.JSON()))
	default:
		if node.Kind != strictyaml.Scalar {
			r.fault(path, "type", "", "must be %s, but is %s", wanted(v), kindOf(node))
			return
		}
		if v.Kind() == reflect.String && v.Type() != reflect.TypeFor[Duration]() && !node.IsText() {
			// 5556 and true are not names; 8080 as a listener is a mistake that is better said than guessed at.
			r.fault(path, "type", "", "must be a string, but is %s: put it in quotes", kindOf(node))
			return
		}
		r.scalar(path, node.Text, v)
	}
}

func (r *reader) mapping(path string, node *strictyaml.Value, v reflect.Value) {
	if node.Kind != strictyaml.Mapping {
		r.fault(path, "type", "", "must be a mapping, but is %s", kindOf(node))
		return
	}
	fields := fieldsOf(v.Type())
	for _, m := range node.Fields {
		at := strictyaml.Join(path, m.Key)
		index := slices.IndexFunc(fields, func(f field) bool { return f.key == m.Key })
		if index < 0 {
			names := make([]string, len(fields))
			for i, f := range fields {
				names[i] = f.key
			}
			r.places[at] = m.Position
			r.fault(at, "unknown-key", strictyaml.Nearest(m.Key, names), "is not a key of the configuration")
			continue
		}
		r.value(at, m.Value, v.Field(fields[index].index))
	}
}

// scalar puts text into v, which is a string, bool, Duration or one of the string types with fixed values.
func (r *reader) scalar(path, text string, v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[Duration]():
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > math.MaxInt64/2 {
			r.fault(path, "duration", "", "must be a time such as 90s, 15m or 24h, but is %q", text)
			return
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			r.fault(path, "type", "", "must be true or false, but is %q", text)
			return
		}
		v.SetBool(text == "true")
	default:
		if allowed := choices[v.Type().Name()]; allowed != nil && !slices.Contains(allowed, text) {
			r.fault(path, "value", strictyaml.Nearest(text, allowed),
				"must be one of %s, but is %q", strings.Join(allowed, ", "), text)
			return
		}
		v.SetString(text)
	}
}

// field is a key of a configuration type.
type field struct {
	key   string
	index int
}

func fieldsOf(t reflect.Type) []field {
	fields := make([]field, t.NumField())
	for i := range fields {
		key, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[i] = field{key, i}
	}
	return fields
}

func wanted(v reflect.Value) string {
	switch {
	case v.Type() == reflect.TypeFor[Duration]():
		return "a time such as 24h"
	case v.Kind() == reflect.Bool:
		return "true or false"
	default:
		return "a string"
	}
}

func kindOf(node *strictyaml.Value) string {
	switch node.Kind {
	case strictyaml.List:
		return "a list"
	case strictyaml.Mapping:
		return "a mapping"
	}
	switch node.Tag {
	case "!!int", "!!float":
		return "the number " + node.Text
	case "!!bool":
		return node.Text
	default:
		return "a string"
	}
}
