package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Kind says what a [Value] is.
type Kind int

// Kinds of values.
const (
	Scalar Kind = iota
	List
	Mapping
)

// Value is one node of a document with aliases and merge keys resolved. Aliased parts are shared, not copied, and keep
// the position where they were written: that is the text to correct.
type Value struct {
	Position
	Kind   Kind
	Tag    string // of a scalar: !!str, !!int, !!float, !!bool or !!null
	Text   string // of a scalar, as written without quotes
	Data   any    // of a scalar: what goes into JSON
	Items  []*Value
	Fields []Member

	size, depth int // of the whole tree below, this value included
}

// Member is one key of a mapping.
type Member struct {
	Position
	Key   string
	Value *Value
}

// IsNull reports whether there is no value: a key without a value, null or ~.
func (v *Value) IsNull() bool { return v.Kind == Scalar && v.Tag == "!!null" }

// IsText reports whether it is a string, and not a number or the like that was written without quotes.
func (v *Value) IsText() bool { return v.Kind == Scalar && v.Tag == "!!str" }

// Field returns the value of a key, or nil; v may be nil.
func (v *Value) Field(key string) *Value {
	if v == nil {
		return nil
	}
	for _, m := range v.Fields {
		if m.Key == key {
			return m.Value
		}
	}
	return nil
}

// JSON returns the tree as encoding/json takes it.
func (v *Value) JSON() any {
	switch v.Kind {
	case Mapping:
		object := make(map[string]any, len(v.Fields))
		for _, m := range v.Fields {
			object[m.Key] = m.Value.JSON()
		}
		return object
	case List:
		list := make([]any, len(v.Items))
		for i, item := range v.Items {
			list[i] = item.JSON()
		}
		return list
	}
	return v.Data
}

// parseYAML reads the one document in data. The library is trusted with well-formed input only: whatever it panics on
// becomes an error.
func parseYAML(data []byte, into *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("yaml: not understood")
		}
	}()
	if rest, found := bytes.CutPrefix(data, []byte("%YAML 1.2")); found {
		data = slices.Concat([]byte("#YAML 1.2"), rest) // the library reads 1.2 but does not know the directive
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(into); err != nil {
		return err //nolint:wrapcheck // its text is taken apart by syntaxFault
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("yaml: there is text after the end of the document")
	}
	return nil
}

// Tree reads the document. Nil means that there is nothing to check further: the reason is in the report.
func (d Document) Tree(r *Report) *Value {
	var document yaml.Node
	if err := parseYAML(d.data, &document); err != nil {
		d.syntaxFault(r, func(data []byte) error { return parseYAML(data, new(yaml.Node)) }, err)
		return nil
	}
	b := builder{Report: r, before: d.before, built: map[*yaml.Node]*Value{}}
	root, _ := b.build(document.Content[0], "", 1)
	return root
}

// builder makes values of nodes. Its methods return false when a limit is hit and building must stop.
type builder struct {
	*Report
	before int                   // lines of the file before the document
	built  map[*yaml.Node]*Value // what anchors name; nil while it is being built
	merged int                   // members copied by merge keys
}

func (b *builder) at(n *yaml.Node) Position { return Position{n.Line + b.before, n.Column} }

func (b *builder) build(n *yaml.Node, path string, level int) (*Value, bool) {
	if n.Kind == yaml.AliasNode {
		return b.alias(n, path, level)
	}
	if level > MaxDepth {
		b.Errorf(b.at(n), "", "too-deep", "", "nested deeper than %d levels", MaxDepth)
		return nil, false
	}
	if n.Anchor != "" {
		b.built[n] = nil
	}
	v := &Value{Position: b.at(n), size: 1, depth: 1}
	ok := true
	switch n.Kind {
	case yaml.MappingNode:
		v.Kind = Mapping
		b.checkTag(n, path, "!!map")
		ok = b.mapping(v, n, path, level)
	case yaml.SequenceNode:
		v.Kind = List
		b.checkTag(n, path, "!!seq")
		for i, item := range n.Content {
			child, built := b.build(item, path+"["+strconv.Itoa(i)+"]", level+1)
			if !built {
				return nil, false
			}
			v.Items = append(v.Items, child)
			v.grow(child)
		}
	default:
		b.scalar(v, n, path)
	}
	if !ok {
		return nil, false
	}
	if v.size > MaxNodes {
		b.Errorf(b.at(n), "", "too-many-nodes", "",
			"more than %d values, aliases counted each time they are used", MaxNodes)
		return nil, false
	}
	if n.Anchor != "" {
		b.built[n] = v
	}
	return v, true
}

func (v *Value) grow(child *Value) {
	v.size += child.size
	v.depth = max(v.depth, child.depth+1)
}

// alias resolves *name. An anchor stands before its aliases, so its value is built, or is being built around the alias.
func (b *builder) alias(n *yaml.Node, path string, level int) (*Value, bool) {
	v, known := b.built[n.Alias]
	switch {
	case !known: // the anchor is on a key, which is not a value
		b.Errorf(b.at(n), path, "alias", "", "refers to the key anchored as %s: anchor a value instead", Quote(n.Value))
		return nil, false
	case v == nil:
		b.Errorf(b.at(n), path, "alias", "", "refers to %s from inside it, without end", Quote(n.Value))
		return nil, false
	case level+v.depth-1 > MaxDepth:
		b.Errorf(b.at(n), "", "too-deep", "", "nested deeper than %d levels", MaxDepth)
		return nil, false
	}
	return v, true
}

// mapping fills in the members of a mapping. Keys that are written win over merged ones.
func (b *builder) mapping(v *Value, n *yaml.Node, path string, level int) bool {
	var merges []*yaml.Node
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, content := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, content)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			b.Errorf(b.at(key), path, "wrong-type", "", "has a key that is not plain text")
			continue
		}
		child, ok := b.build(content, Join(path, key.Value), level+1)
		if !ok {
			return false
		}
		if line, twice := lines[key.Value]; twice {
			b.Errorf(b.at(key), Join(path, key.Value), "duplicate-key", "", "is written twice, first on line %d", line)
			continue
		}
		lines[key.Value] = b.at(key).Line
		v.Fields = append(v.Fields, Member{b.at(key), key.Value, child})
		v.grow(child)
	}
	for _, content := range merges {
		if !b.merge(v, content, lines, path, level) {
			return false
		}
	}
	return true
}

// merge adds the members behind a "<<" key: those of a mapping, or of several in a list, the first one winning.
func (b *builder) merge(v *Value, n *yaml.Node, have map[string]int, path string, level int) bool {
	from, ok := b.build(n, path, level)
	if !ok {
		return false
	}
	sources := []*Value{from}
	if from.Kind == List {
		sources = from.Items
	}
	for _, source := range sources {
		if source.Kind != Mapping {
			b.Errorf(b.at(n), path, "merge", "", "merges (<<) something that is not a mapping")
			return true
		}
		if b.merged += len(source.Fields) + 1; b.merged > MaxNodes {
			b.Errorf(b.at(n), "", "too-many-nodes", "", "merge keys (<<) add more than %d values", MaxNodes)
			return false
		}
		for _, m := range source.Fields {
			if _, written := have[m.Key]; !written {
				have[m.Key] = m.Line
				v.Fields = append(v.Fields, m)
				v.grow(m.Value)
			}
		}
	}
	return true
}

// scalar fills in tag, text and JSON value.
func (b *builder) scalar(v *Value, n *yaml.Node, path string) {
	v.Tag, v.Text, v.Data = n.ShortTag(), n.Value, n.Value
	switch v.Tag {
	case "!!str", "!!timestamp", "!!merge": // a date is text here, as in YAML 1.2
		v.Tag = "!!str"
	case "!!null":
		v.Data = nil
	case "!!bool", "!!int", "!!float":
		var data any
		err := n.Decode(&data)
		if number, ok := data.(float64); err == nil && ok && (math.IsInf(number, 0) || math.IsNaN(number)) {
			err = errors.New("not a number in JSON")
		}
		if _, isText := data.(string); err != nil || isText {
			b.Errorf(v.Position, path, "wrong-type", "", "is not a value of its type (%s)", v.Tag)
			v.Tag = "!!str"
			return
		}
		v.Data = data
	default:
		b.checkTag(n, path, "!!str")
		v.Tag = "!!str"
	}
}

// checkTag refuses tags beyond JSON's types: other tools give !Ref and !!binary a meaning that would be lost here.
func (b *builder) checkTag(n *yaml.Node, path, want string) {
	if tag := n.ShortTag(); tag != want {
		b.Errorf(b.at(n), path, "tag", "", "has the tag %s, which is not supported", Quote(tag))
	}
}

// Join makes the path of a key, quoting those keys that would make it ambiguous.
func Join(path, key string) string {
	plain := key != "" && len(key) <= MaxQuoted
	for _, c := range key {
		plain = plain && (c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	switch {
	case !plain:
		return path + "[" + Quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// MaxQuoted is how much of a file's text a fault repeats, in bytes.
const MaxQuoted = 80

// Quote makes text from a file safe to print: escaped and short.
func Quote(s string) string {
	if len(s) > MaxQuoted {
		s = strings.ToValidUTF8(s[:MaxQuoted], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}
