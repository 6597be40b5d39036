package migrate

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// source is where a configuration was found.
type source struct {
	root *strictyaml.Value
	path string // of the root, inside its document
	// at finds a place of the configuration in the file.
	at func(strictyaml.Position) strictyaml.Position
	// argo is the ConfigMap of Argo CD that holds it; nil otherwise.
	argo *strictyaml.Value
}

func here(at strictyaml.Position) strictyaml.Position { return at }

// find reads a file and finds the configuration in it. Nil means that there is none: the reason is reported.
func find(r *strictyaml.Report, data []byte) *source {
	var trees []*strictyaml.Value
	for _, document := range strictyaml.Split(r, data) {
		if tree := document.Tree(r); tree != nil {
			trees = append(trees, tree)
		}
	}
	if r.Errors() > 0 {
		asTemplate(r, data)
		return nil
	}
	var found []*source
	for _, tree := range trees {
		switch kind := tree.Field("kind"); {
		case kind != nil && tree.Field("apiVersion") != nil:
			found = append(found, inResource(r, data, tree)...)
		case tree.Kind != strictyaml.Mapping:
		case tree.Field("issuer") == nil && tree.Field("config").Field("issuer") != nil: // values of the Helm chart
			found = append(found, &source{root: tree.Field("config"), path: "config", at: here})
		default:
			found = append(found, &source{root: tree, at: here})
		}
	}
	switch {
	case r.Errors() > 0:
	case len(found) == 0:
		r.Errorf(strictyaml.Position{Line: 1, Column: 1}, "", "empty", "", "there is no configuration of Dex in this file")
	case len(found) > 1:
		r.Errorf(found[1].at(found[1].root.Position), "", "several", "",
			"a second configuration: migrate them one by one")
	default:
		return found[0]
	}
	return nil
}

// asTemplate says what a file is that was no YAML because it has to be rendered first.
func asTemplate(r *strictyaml.Report, data []byte) {
	before, _, is := bytes.Cut(data, []byte("{{"))
	if !is {
		return
	}
	last := before[bytes.LastIndexByte(before, '\n')+1:]
	at := strictyaml.Position{Line: bytes.Count(before, []byte("\n")) + 1, Column: len([]rune(string(last))) + 1}
	*r = strictyaml.Report{File: r.File}
	r.Errorf(at, "", "template", "",
		"the file is a template: render it first (gomplate -f, helm template), and migrate what comes out")
}

// inResource finds configurations in a ConfigMap or Secret; other resources have none.
func inResource(r *strictyaml.Report, data []byte, tree *strictyaml.Value) []*source {
	var found []*source
	kind := tree.Field("kind").Text
	if kind != "ConfigMap" && kind != "Secret" {
		return nil
	}
	for _, part := range []string{"data", "stringData"} {
		if tree.Field(part) == nil {
			continue
		}
		for _, m := range tree.Field(part).Fields {
			if !m.Value.IsText() || m.Key != "dex.config" && !slices.ContainsFunc([]string{".yaml", ".yml", ".json"},
				func(end string) bool { return strings.HasSuffix(m.Key, end) }) {
				continue
			}
			text, at := m.Value.Text, inBlock(data, m)
			if kind == "Secret" && part == "data" {
				decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
				if err != nil {
					r.Errorf(m.Value.Position, strictyaml.Join("data", m.Key), "base64", "", "must be base64, as in any Secret")
					continue
				}
				text, at = string(decoded), func(strictyaml.Position) strictyaml.Position { return m.Value.Position }
			}
			inner := &strictyaml.Report{File: r.File}
			s := find(inner, []byte(text))
			for _, f := range inner.Faults {
				place := at(strictyaml.Position{Line: f.Line, Column: f.Column})
				f.Line, f.Column = place.Line, place.Column
				r.Faults = append(r.Faults, f)
			}
			if s == nil {
				r.Errorf(m.Position, strictyaml.Join(part, m.Key), "syntax", "", "cannot be read")
				continue
			}
			outer := s.at
			s.at = func(p strictyaml.Position) strictyaml.Position { return at(outer(p)) }
			if m.Key == "dex.config" {
				s.argo = tree
			}
			found = append(found, s)
		}
	}
	return found
}

// inBlock finds the places of a text that is written as a block (|) in the file that holds it.
func inBlock(data []byte, m strictyaml.Member) func(strictyaml.Position) strictyaml.Position {
	lines := strings.Split(string(data), "\n")
	indent := 0
	for _, line := range lines[min(m.Value.Line, len(lines)):] {
		if strings.TrimSpace(line) != "" {
			indent = len(line) - len(strings.TrimLeft(line, " "))
			break
		}
	}
	return func(at strictyaml.Position) strictyaml.Position {
		if !strings.Contains(m.Value.Text, "\n") {
			return m.Value.Position
		}
		return strictyaml.Position{Line: m.Value.Line + at.Line, Column: at.Column + indent}
	}
}
