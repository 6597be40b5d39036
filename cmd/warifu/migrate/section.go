package migrate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// section is a mapping of Dex's configuration that is being walked. A nil section has no keys.
type section struct {
	m     *migration
	path  string
	value *strictyaml.Value
	seen  map[string]bool
	asked []string // the keys that Dex has here
}

// item is a value of Dex's configuration, with its place.
type item struct {
	path  string
	at    strictyaml.Position // of its key, in the file
	value *strictyaml.Value
}

// section makes a section of an item, or nil if it is none, which is a fault unless it is empty.
func (m *migration) section(i *item) *section {
	switch {
	case i == nil || i.value.IsNull():
		return nil
	case i.value.Kind != strictyaml.Mapping:
		m.fault(i, "type", "", "must be a mapping")
		return nil
	}
	return &section{m: m, path: i.path, value: i.value, seen: make(map[string]bool)}
}

// item is what a key has, nil if it is not there or empty. Like Dex, it does not heed the case of keys.
func (s *section) item(key string) *item {
	if s == nil {
		return nil
	}
	s.asked = append(s.asked, key)
	for _, field := range s.value.Fields {
		if strings.EqualFold(field.Key, key) {
			s.seen[field.Key] = true
			if field.Value.IsNull() {
				return nil
			}
			return &item{strictyaml.Join(s.path, field.Key), s.m.source.at(field.Position), field.Value}
		}
	}
	return nil
}

func (s *section) section(key string) *section {
	if s == nil {
		return nil
	}
	return s.m.section(s.item(key))
}

// text is an item that is a text, nil if it is not there or empty.
func (s *section) text(key string) *item {
	i := s.item(key)
	switch {
	case i == nil || i.value.IsText() && i.value.Text == "":
		return nil
	case !i.value.IsText():
		s.m.fault(i, "type", "", "must be text: put it in quotes")
	}
	return i
}

// String is the text of an item, "" of none.
func (i *item) String() string {
	if i == nil {
		return ""
	}
	return i.value.Text
}

// truths are what YAML 1.1, which Dex reads, takes for true and false.
var truths = map[string]bool{"true": true, "yes": true, "on": true, "y": true,
	"false": false, "no": false, "off": false, "n": false}

// flag is an item that is true or false; otherwise is what it is when it is not there.
func (s *section) flag(key string, otherwise bool) (bool, *item) {
	i := s.item(key)
	if i == nil {
		return otherwise, nil
	}
	yes, known := truths[strings.ToLower(i.value.Text)]
	if i.value.Kind != strictyaml.Scalar || !known {
		s.m.fault(i, "type", "", "must be true or false")
		return otherwise, nil
	}
	return yes, i
}

// duration is an item that is a time.
func (s *section) duration(key string) *item {
	i := s.text(key)
	if i != nil {
		if _, err := time.ParseDuration(i.value.Text); err != nil {
			s.m.fault(i, "duration", "", "must be a time such as 90s or 24h, but is %q", i.value.Text)
			return nil
		}
	}
	return i
}

// list are the items of a list.
func (s *section) list(key string) []*item {
	i := s.item(key)
	if i == nil {
		return nil
	}
	if i.value.Kind != strictyaml.List {
		s.m.fault(i, "type", "", "must be a list")
		return nil
	}
	var items []*item
	for n, v := range i.value.Items {
		items = append(items, &item{fmt.Sprintf("%s[%d]", i.path, n), s.m.source.at(v.Position), v})
	}
	return items
}

// texts are the items of a list of texts.
func (s *section) texts(key string) []*item {
	return slices.DeleteFunc(s.list(key), func(i *item) bool {
		if !i.value.IsText() {
			s.m.fault(i, "type", "", "must be text: put it in quotes")
		}
		return !i.value.IsText()
	})
}

// sections are the items of a list of mappings.
func (s *section) sections(key string) []*section {
	var sections []*section
	for _, i := range s.list(key) {
		if one := s.m.section(i); one != nil {
			sections = append(sections, one)
		}
	}
	return sections
}

// left lists a key that is not carried, if it is there.
func (s *section) left(key, format string, args ...any) {
	if i := s.item(key); i != nil {
		s.m.left(i, format, args...)
	}
}

// itself is the section as an item.
func (s *section) itself() *item {
	return &item{s.path, s.m.source.at(s.value.Position), s.value}
}

// done lists the keys that Dex does not have.
func (s *section) done() {
	if s == nil {
		return
	}
	for _, field := range s.value.Fields {
		if s.seen[field.Key] {
			continue
		}
		i := &item{strictyaml.Join(s.path, field.Key), s.m.source.at(field.Position), field.Value}
		meant := ""
		if near := strictyaml.Nearest(field.Key, s.asked); near != "" {
			meant = fmt.Sprintf(" (is %s meant?)", near)
		}
		s.m.left(i, "Dex has no such key, and ignores it%s", meant)
	}
}
