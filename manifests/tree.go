package manifests

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

// value is one node of a document with aliases and merge keys resolved. Aliased parts are shared, not copied, and keep
// the position where they were written: that is the text to be mended.
type value struct {
	position
	kind   yaml.Kind // ScalarNode, SequenceNode or MappingNode
	tag    string    // of a scalar: !!str, !!int, !!float, !!bool or !!null
	text   string    // of a scalar, as written without quotes
	data   any       // of a scalar: what goes into JSON
	items  []*value
	fields []member

	size, depth int // of the whole tree below, this value included
}

// member is one key of a mapping.
type member struct {
	position
	key   string
	value *value
}

func (v *value) isNull() bool { return v.kind == yaml.ScalarNode && v.tag == "!!null" }

// field returns the value of a key, or nil; v may be nil.
func (v *value) field(key string) *value {
	if v == nil {
		return nil
	}
	for _, m := range v.fields {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

// json returns the tree as encoding/json takes it.
func (v *value) json() any {
	switch v.kind {
	case yaml.MappingNode:
		object := make(map[string]any, len(v.fields))
		for _, m := range v.fields {
			object[m.key] = m.value.json()
		}
		return object
	case yaml.SequenceNode:
		list := make([]any, len(v.items))
		for i, item := range v.items {
			list[i] = item.json()
		}
		return list
	}
	return v.data
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
		return errors.New("yaml: text behind the end of the document")
	}
	return nil
}

// tree reads a chunk. Nil means that there is nothing to check further: the reason has been reported.
func (c chunk) tree(r *report) *value {
	var document yaml.Node
	if err := parseYAML(c.data, &document); err != nil {
		c.syntaxFault(r, func(data []byte) error { return parseYAML(data, new(yaml.Node)) }, err)
		return nil
	}
	b := builder{report: r, before: c.before, built: map[*yaml.Node]*value{}}
	root := document.Content[0]
	v, ok := b.build(root, "", 1)
	if !ok {
		return nil
	}
	if v.kind != yaml.MappingNode {
		r.errorf(v.position, "", "wrong-type", "", "a manifest is a mapping: apiVersion, kind, metadata, spec")
		return nil
	}
	return v
}

// builder makes values of nodes. Its methods return false when a limit is hit and building must stop.
type builder struct {
	*report
	before int                   // lines of the file before the chunk
	built  map[*yaml.Node]*value // what anchors name; nil while it is being built
	merged int                   // members copied by merge keys
}

func (b *builder) at(n *yaml.Node) position { return position{n.Line + b.before, n.Column} }

func (b *builder) build(n *yaml.Node, path string, level int) (*value, bool) {
	if n.Kind == yaml.AliasNode {
		return b.alias(n, path, level)
	}
	if level > maxDepth {
		b.errorf(b.at(n), "", "too-deep", "", "nested deeper than %d levels", maxDepth)
		return nil, false
	}
	if n.Anchor != "" {
		b.built[n] = nil
	}
	v := &value{position: b.at(n), kind: n.Kind, size: 1, depth: 1}
	ok := true
	switch n.Kind {
	case yaml.MappingNode:
		b.checkTag(n, path, "!!map")
		ok = b.mapping(v, n, path, level)
	case yaml.SequenceNode:
		b.checkTag(n, path, "!!seq")
		for i, item := range n.Content {
			child, built := b.build(item, path+"["+strconv.Itoa(i)+"]", level+1)
			if !built {
				return nil, false
			}
			v.items = append(v.items, child)
			v.grow(child)
		}
	default:
		b.scalar(v, n, path)
	}
	if !ok {
		return nil, false
	}
	if v.size > maxNodes {
		b.errorf(b.at(n), "", "too-many-nodes", "",
			"more than %d values, aliases counted each time they are used", maxNodes)
		return nil, false
	}
	if n.Anchor != "" {
		b.built[n] = v
	}
	return v, true
}

func (v *value) grow(child *value) {
	v.size += child.size
	v.depth = max(v.depth, child.depth+1)
}

// alias resolves *name. An anchor stands before its aliases, so its value is built, or is being built around the alias.
func (b *builder) alias(n *yaml.Node, path string, level int) (*value, bool) {
	v, known := b.built[n.Alias]
	switch {
	case !known: // the anchor is on a key, which is not a value
		b.errorf(b.at(n), path, "alias", "", "refers to the key anchored as %s: anchor a value instead", quote(n.Value))
		return nil, false
	case v == nil:
		b.errorf(b.at(n), path, "alias", "", "refers to %s from inside it, without end", quote(n.Value))
		return nil, false
	case level+v.depth-1 > maxDepth:
		b.errorf(b.at(n), "", "too-deep", "", "nested deeper than %d levels", maxDepth)
		return nil, false
	}
	return v, true
}

// mapping fills in the members of a mapping. Keys that are written win over merged ones.
func (b *builder) mapping(v *value, n *yaml.Node, path string, level int) bool {
	var merges []*yaml.Node
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, content := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, content)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			b.errorf(b.at(key), path, "wrong-type", "", "has a key that is not plain text")
			continue
		}
		child, ok := b.build(content, join(path, key.Value), level+1)
		if !ok {
			return false
		}
		if line, twice := lines[key.Value]; twice {
			b.errorf(b.at(key), join(path, key.Value), "duplicate-key", "", "is written twice, first on line %d", line)
			continue
		}
		lines[key.Value] = b.at(key).line
		v.fields = append(v.fields, member{b.at(key), key.Value, child})
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
func (b *builder) merge(v *value, n *yaml.Node, have map[string]int, path string, level int) bool {
	from, ok := b.build(n, path, level)
	if !ok {
		return false
	}
	sources := []*value{from}
	if from.kind == yaml.SequenceNode {
		sources = from.items
	}
	for _, source := range sources {
		if source.kind != yaml.MappingNode {
			b.errorf(b.at(n), path, "merge", "", "merges (<<) something that is not a mapping")
			return true
		}
		if b.merged += len(source.fields) + 1; b.merged > maxNodes {
			b.errorf(b.at(n), "", "too-many-nodes", "", "merge keys (<<) add more than %d values", maxNodes)
			return false
		}
		for _, m := range source.fields {
			if _, written := have[m.key]; !written {
				have[m.key] = m.line
				v.fields = append(v.fields, m)
				v.grow(m.value)
			}
		}
	}
	return true
}

// scalar fills in tag, text and JSON value.
func (b *builder) scalar(v *value, n *yaml.Node, path string) {
	v.tag, v.text, v.data = n.ShortTag(), n.Value, n.Value
	switch v.tag {
	case "!!str", "!!timestamp", "!!merge": // a date is text here, as in YAML 1.2
		v.tag = "!!str"
	case "!!null":
		v.data = nil
	case "!!bool", "!!int", "!!float":
		var data any
		err := n.Decode(&data)
		if number, ok := data.(float64); err == nil && ok && (math.IsInf(number, 0) || math.IsNaN(number)) {
			err = errors.New("not a number in JSON")
		}
		if _, isText := data.(string); err != nil || isText {
			b.errorf(v.position, path, "wrong-type", "", "is not a value of its type (%s)", v.tag)
			v.tag = "!!str"
			return
		}
		v.data = data
	default:
		b.checkTag(n, path, "!!str")
		v.tag = "!!str"
	}
}

// checkTag refuses tags beyond JSON's types: other tools give !Ref and !!binary a meaning that would be lost here.
func (b *builder) checkTag(n *yaml.Node, path, want string) {
	if tag := n.ShortTag(); tag != want {
		b.errorf(b.at(n), path, "tag", "", "has the tag %s, which is not supported", quote(tag))
	}
}

// join makes the path of a key, quoting those keys that would make it ambiguous.
func join(path, key string) string {
	plain := key != "" && len(key) <= maxQuoted
	for _, c := range key {
		plain = plain && (c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	switch {
	case !plain:
		return path + "[" + quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

const maxQuoted = 80

// quote makes what somebody wrote safe to print: escaped and short.
func quote(s string) string {
	if len(s) > maxQuoted {
		s = strings.ToValidUTF8(s[:maxQuoted], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}
