package config

import (
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
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
	of     string                         // what has keys: the configuration, or a person
	// environ is what texts of connectors may refer to.
	environ []string
	// variables are the keys that came from the environment: by path, the variable as $NAME.
	variables map[string]string
	// mistaken are the paths whose values were refused while decoding: a check of what stands in their place would
	// only repeat that.
	mistaken map[string]bool
	// zeros are the paths at which a time is written as 0s.
	zeros     []string
	checking  bool
	listeners []listener
	files     map[string]fileState // that were named, by key
}

func newReader(file string) *reader {
	return &reader{
		of:     "the configuration",
		Report: &strictyaml.Report{File: file}, places: map[string]strictyaml.Position{"": {Line: 1, Column: 1}},
		variables: map[string]string{}, mistaken: map[string]bool{}, files: map[string]fileState{},
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
	path = strings.TrimPrefix(path, ".") // of a person who is a document of their own
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
	data, err := readConfiguration(file)
	if err != nil {
		return nil, err
	}
	r := newReader(file)
	return r.settings(r.parse(data, environ))
}

// Look reads a configuration as [Read] does, and returns what there is of it, with all faults: it is for looking at,
// and not for a start.
func Look(file string, environ []string) (*Settings, strictyaml.Faults, error) {
	data, err := readConfiguration(file)
	if err != nil {
		return nil, nil, err
	}
	r := newReader(file)
	settings := r.load(r.parse(data, environ))
	return settings, r.Faults, nil
}

// readConfiguration fails with a fault: a file that is not there is as invalid as one with nothing in it.
func readConfiguration(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, strictyaml.Faults{strictyaml.Unreadable(file, err)}
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, strictyaml.Faults{strictyaml.Unreadable(file, err)}
	}
	return data, nil
}

// settings are the configuration with what its files hold.
func (r *reader) settings(cfg *Config) (*Settings, error) {
	settings := r.load(cfg)
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
	r.environment(environ, cfg, nil)
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
		r.refuseDex(root)
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

// switched is a section that may also be written as true or false: its flag, which is on where the section is written.
type switched interface{ flag() *bool }

// value decodes node into v. An explicit null is the same as a key that is not there.
func (r *reader) value(path string, node *strictyaml.Value, v reflect.Value) {
	r.places[path] = node.Position
	if node.IsNull() {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if section, is := v.Addr().Interface().(switched); is {
			if node.Kind == strictyaml.Scalar {
				r.scalar(path, node.Text, reflect.ValueOf(section.flag()).Elem())
				return
			}
			*section.flag() = true
		}
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
	case reflect.Map: // free settings of a plugin, attributes of a person; or by names, values of one type
		if node.Kind != strictyaml.Mapping {
			r.fault(path, "type", "", "must be a mapping, but is %s", kindOf(node))
			return
		}
		r.placesBelow(path, node)
		if v.Type().Elem().Kind() == reflect.Interface {
			v.Set(reflect.ValueOf(node.JSON()))
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for _, m := range node.Fields {
			value := reflect.New(v.Type().Elem()).Elem()
			r.value(strictyaml.Join(path, m.Key), m.Value, value)
			v.SetMapIndex(reflect.ValueOf(m.Key), value)
		}
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

// placesBelow remembers where everything stands in what only others understand.
func (r *reader) placesBelow(path string, node *strictyaml.Value) {
	for _, m := range node.Fields {
		at := strictyaml.Join(path, m.Key)
		r.placesBelow(at, m.Value)
		r.places[at] = m.Position
	}
	for i, item := range node.Items {
		at := fmt.Sprintf("%s[%d]", path, i)
		r.places[at] = item.Position
		r.placesBelow(at, item)
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
			if went := ofDex(at); went != "" {
				r.fault(at, "unknown-key", "", "is a key of Dex: %s", went)
				continue
			}
			r.fault(at, "unknown-key", strictyaml.Nearest(m.Key, names), "is not a key of %s", r.of)
			continue
		}
		r.value(at, m.Value, v.Field(fields[index].index))
	}
}

// scalar puts text into v, which is a string, bool, int, Duration, Size, Share or one of the string types with fixed
// values.
func (r *reader) scalar(path, text string, v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[Duration]():
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > math.MaxInt64/2 {
			r.fault(path, "duration", "", "must be a time such as 90s, 15m or 24h, but is %q", text)
			return
		}
		v.SetInt(int64(d))
		if d == 0 {
			r.zeros = append(r.zeros, path)
		}
	case v.Type() == reflect.TypeFor[Size]():
		size, ok := parseSize(text)
		if !ok {
			r.fault(path, "size", "", "must be a size such as 512MiB or 8GiB, but is %q", text)
			return
		}
		v.SetInt(int64(size))
	case v.Type() == reflect.TypeFor[Share]():
		share, ok := parseShare(text)
		if !ok {
			r.fault(path, "share", "", "must be a share above 0%% and up to 100%%, as in 5%%, but is %q", text)
			return
		}
		v.SetFloat(float64(share))
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			r.fault(path, "type", "", "must be true or false, but is %q", text)
			return
		}
		v.SetBool(text == "true")
	case v.Kind() == reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			r.fault(path, "type", "", "must be a whole number, but is %q", text)
			return
		}
		v.SetInt(int64(n))
	default:
		if allowed := choices[v.Type().Name()]; allowed != nil && !slices.Contains(allowed, text) {
			if why := ofDexValue(v.Type().Name(), text); why != "" {
				r.fault(path, "value", "", "is %q, %s", text, why)
				return
			}
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
	case v.Type() == reflect.TypeFor[Share]():
		return "a share such as 5%"
	case v.Type() == reflect.TypeFor[Size]():
		return "a size such as 8GiB"
	case v.Kind() == reflect.Bool:
		return "true or false"
	case v.Kind() == reflect.Int:
		return "a whole number"
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
