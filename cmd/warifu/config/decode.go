package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/manifests"
)

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// reader decodes one YAML document into a Config, strictly: every unknown key, every key that is there twice and every value
// of the wrong type is a fault with its position, and all of them are found in one go. It remembers where each value stood, so
// that later checks can point at it.
type reader struct {
	file   string
	faults manifests.Faults
	places map[string]place // by path, as in staticPasswords[0].hash
	// variables are the keys that came from the environment: by path, the variable as $NAME.
	variables map[string]string
	// mistaken are the paths whose values could not be taken: what check would say about them is no news.
	mistaken map[string]bool
	checking bool
}

type place struct{ line, column int }

func (r *reader) fault(path, code, suggestion, format string, args ...any) {
	at := r.places[path]
	for above := path; ; above = above[:max(strings.LastIndexAny(above, ".["), 0)] {
		if r.checking && r.mistaken[above] {
			return
		}
		if at == (place{}) { // what is missing is reported where it should be
			at = r.places[above]
		}
		if above == "" {
			break
		}
	}
	if !r.checking && code != "unknown-key" && code != "duplicate-key" {
		r.mistaken[path] = true
	}
	file := r.file
	if variable := r.variables[strings.SplitN(path, "[", 2)[0]]; variable != "" {
		file, at = variable, place{}
	}
	r.faults = append(r.faults, manifests.Fault{
		File: file, Line: at.line, Column: at.column, Path: path, Code: code,
		Message: strings.TrimSpace(path + " " + fmt.Sprintf(format, args...)), Suggestion: suggestion, Severity: manifests.SeverityError,
	})
}

func (r *reader) faultAt(node *yaml.Node, path, code, suggestion, format string, args ...any) {
	r.places[path] = place{node.Line, node.Column}
	r.fault(path, code, suggestion, format, args...)
}

// Read reads and checks a configuration: the file, then the environment (as from os.Environ) over it. The error is a
// manifests.Faults with everything that is wrong, or says why the file cannot be read.
func Read(file string, environ []string) (*Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(file, data, environ)
}

func Parse(file string, data []byte, environ []string) (*Config, error) {
	r := &reader{file: file, places: map[string]place{"": {1, 1}}, variables: map[string]string{}, mistaken: map[string]bool{}}
	cfg := Default()
	r.decode(data, cfg)
	r.environment(environ, cfg)
	r.checking = true
	r.check(cfg)
	if len(r.faults) == 0 {
		return cfg, nil
	}
	slices.SortStableFunc(r.faults, func(a, b manifests.Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
	})
	return nil, r.faults
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

func (r *reader) decode(data []byte, cfg *Config) {
	if len(data) > maxConfig {
		r.fault("", "too-large", "", "the file is larger than 1 MiB")
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return // an empty file: everything can come from the environment
	}
	if err == nil {
		if err = decoder.Decode(&more); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			r.faultAt(&more, "", "syntax", "", "a second document: a configuration is one document")
			return
		}
	}
	if err != nil {
		text := err.Error()
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			line, _ := strconv.Atoi(m[1]) // digits, by the expression
			r.places[""] = place{line, 1}
			text = text[len(m[0]):]
		}
		r.fault("", "syntax", "", "not YAML: %s", strings.TrimPrefix(text, "yaml: "))
		return
	}
	r.value("", doc.Content[0], reflect.ValueOf(cfg).Elem())
}

// resolve follows aliases. yaml.v3 has refused anchors that contain themselves, and the depth of what is read is that of the
// Go type, so an alias bomb costs nothing here.
func resolve(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

// value decodes node into v. An explicit null is the same as a key that is not there.
func (r *reader) value(path string, node *yaml.Node, v reflect.Value) {
	node = resolve(node)
	r.places[path] = place{node.Line, node.Column}
	if isNull(node) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		r.mapping(path, node, v)
	case reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			r.fault(path, "type", "", "must be a list, but is %s", kindOf(node))
			return
		}
		list := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
		for i, item := range node.Content {
			r.value(fmt.Sprintf("%s[%d]", path, i), item, list.Index(i))
		}
		v.Set(list)
	case reflect.Map: // free settings of a plugin
		if node.Kind != yaml.MappingNode {
			r.fault(path, "type", "", "must be a mapping, but is %s", kindOf(node))
			return
		}
		if err := node.Decode(v.Addr().Interface()); err != nil {
			r.fault(path, "type", "", "cannot be read: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
	default:
		if node.Kind != yaml.ScalarNode {
			r.fault(path, "type", "", "must be %s, but is %s", wanted(v), kindOf(node))
			return
		}
		if v.Kind() == reflect.String && v.Type() != reflect.TypeFor[Duration]() && node.Tag != "!!str" && node.Tag != "!!timestamp" {
			// 5556 and true are not names; 8080 as a listener is a mistake that is better said than guessed at. A date is what it says.
			r.fault(path, "type", "", "must be a string, but is %s: put it in quotes", kindOf(node))
			return
		}
		r.scalar(path, node.Value, v)
	}
}

func (r *reader) mapping(path string, node *yaml.Node, v reflect.Value) {
	if node.Kind != yaml.MappingNode {
		r.fault(path, "type", "", "must be a mapping, but is %s", kindOf(node))
		return
	}
	fields := fieldsOf(v.Type())
	seen := make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := join(path, key.Value)
		index := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value })
		switch {
		case index < 0:
			names := make([]string, len(fields))
			for i, f := range fields {
				names[i] = f.key
			}
			r.faultAt(key, at, "unknown-key", nearest(key.Value, names), "is not a key of the configuration")
		case seen[key.Value]:
			r.faultAt(key, at, "duplicate-key", "", "is there twice")
		default:
			seen[key.Value] = true
			r.value(at, value, v.Field(fields[index].index))
		}
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
			r.fault(path, "value", nearest(text, allowed), "must be one of %s, but is %q", strings.Join(allowed, ", "), text)
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

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
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

func kindOf(node *yaml.Node) string {
	switch node.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	}
	switch node.Tag {
	case "!!int", "!!float":
		return "the number " + node.Value
	case "!!bool":
		return node.Value
	default:
		return "a string"
	}
}

// nearest is the candidate that word was probably meant to be, or "".
func nearest(word string, candidates []string) string {
	const longest = 64 // the distance costs the product of the lengths
	if len(word) > longest {
		return ""
	}
	best, distance := "", len(word)/2+1
	for _, candidate := range candidates {
		if d := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}
