package migrate

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// tree is a document that is being written, with where each of its values comes from.
type tree struct {
	root *yaml.Node
	from map[*yaml.Node]*item
}

func newTree() *tree { return &tree{mapping(), make(map[*yaml.Node]*item)} }

func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }

func text(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	return n
}

func truth(yes bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(yes)}
}

// verbatim writes a value down as it was.
func verbatim(v *strictyaml.Value) *yaml.Node {
	switch v.Kind {
	case strictyaml.Mapping:
		n := mapping()
		for _, field := range v.Fields {
			n.Content = append(n.Content, text(field.Key), verbatim(field.Value))
		}
		return n
	case strictyaml.List:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, i := range v.Items {
			n.Content = append(n.Content, verbatim(i))
		}
		return n
	}
	if v.IsText() {
		return text(v.Text)
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: v.Tag, Value: v.Text}
}

// field is the value of a key, nil if there is none.
func field(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// set adds a key to a mapping of the tree; from is where its value comes from, and may be nil.
func (t *tree) set(n *yaml.Node, key string, value *yaml.Node, from *item) {
	n.Content = append(n.Content, text(key), value)
	if from != nil {
		t.from[value] = from
	}
}

// put sets a path of keys, as in web.http.
func (t *tree) put(path string, value *yaml.Node, from *item) {
	at := t.root
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		next := field(at, key)
		if next == nil {
			next = mapping()
			t.set(at, key, next, nil)
		}
		at = next
	}
	t.set(at, keys[len(keys)-1], value, from)
}

// putText sets a path to a text, if there is one.
func (t *tree) putText(path string, from *item) {
	if from != nil {
		t.put(path, text(from.value.Text), from)
	}
}

// list makes a list of texts.
func (t *tree) list(items []*item) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, i := range items {
		one := text(i.value.Text)
		t.from[one] = i
		n.Content = append(n.Content, one)
	}
	return n
}

// words makes a list of texts that come from nowhere in particular, on one line.
func words(list ...string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	for _, one := range list {
		n.Content = append(n.Content, text(one))
	}
	return n
}

// comment puts a comment before a key at the top.
func (t *tree) comment(key, text string) {
	for i := 0; i < len(t.root.Content); i += 2 {
		if t.root.Content[i].Value == key {
			t.root.Content[i].HeadComment = text
		}
	}
}

// step is a key or an index on the way down.
type step struct {
	parent *yaml.Node
	index  int // of the value in the parent's content
}

// way is the way to what a fault is about: to its path, or to what stands nearest above it.
func (t *tree) way(path string) []step {
	var nearest []step
	var walk func(n *yaml.Node, at string, down []step)
	walk = func(n *yaml.Node, at string, down []step) {
		rest, above := strings.CutPrefix(path, at)
		if at != "" && (!above || rest != "" && rest[0] != '.' && rest[0] != '[') {
			return
		}
		nearest = slices.Clone(down)
		for i := range n.Content {
			next := append(down, step{n, i})
			if n.Kind == yaml.SequenceNode {
				walk(n.Content[i], at+"["+strconv.Itoa(i)+"]", next)
			} else if i%2 == 1 {
				walk(n.Content[i], strictyaml.Join(at, n.Content[i-1].Value), next)
			}
		}
	}
	walk(t.root, "", nil)
	return nearest
}

// value is what stands there.
func (s step) value() *yaml.Node { return s.parent.Content[s.index] }

// remove takes it out, with its key.
func (s step) remove() {
	first := s.index
	if s.parent.Kind == yaml.MappingNode {
		first--
	}
	s.parent.Content = slices.Delete(s.parent.Content, first, s.index+1)
}

// origin is where the last of some steps that comes from anywhere comes from.
func (t *tree) origin(steps []step) *item {
	for _, s := range slices.Backward(steps) {
		if from := t.from[s.value()]; from != nil {
			return from
		}
	}
	return nil
}

// bytes are the document, after a comment.
func (t *tree) bytes(head string) []byte {
	var b bytes.Buffer
	b.WriteString(head)
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(t.root); err != nil { // it is made of texts, flags and what was read
		panic(err)
	}
	_ = encoder.Close() // writes to memory
	return b.Bytes()
}
