package migrate

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server"
)

// most is how much is taken out of one document at most.
const most = 1000

// wholes are entries of lists without which the rest of the entry is of no use: without these keys it is left out as a
// whole.
var wholes = map[string][]string{
	"staticPasswords": {"email", "userID", "hash", "hashFile"},
	"connectors":      {"type", "id", "name", "config"},
}

// settleConfig takes out of the configuration what its language refuses, and returns what it then is.
func (m *migration) settleConfig() (*config.Config, error) {
	environ := m.everySet()
	for range most {
		settings, faults := config.Check("config.yaml", m.config.bytes(""), environ)
		errs := slices.DeleteFunc(faults.Errors(), m.comesLater)
		if len(errs) == 0 {
			return settings.Config, nil
		}
		if !m.takeOut(m.config, errs[0], m.wholeEntry) {
			return nil, m.cannot(errs)
		}
	}
	return nil, errors.New("the configuration has too many faults")
}

// settleApp takes out of a manifest what is refused of it; false: it can be none.
func (m *migration) settleApp(a *app, opts manifests.Options) bool {
	for range most {
		_, faults := manifests.Parse(a.name+".yml", a.bytes(""), opts)
		errs := faults.Errors()
		if len(errs) == 0 {
			m.askAnyway(a, faults.Warnings())
			return true
		}
		if !m.takeOut(a.tree, errs[0], func(steps []step) []step { return steps }) {
			if a.from != nil {
				m.left(a.from.itself(), "its app would be refused: %s", errs[0].Message)
			}
			return false
		}
	}
	return false
}

// everySet is the environment in which variables have a value that need not be set yet. Those of this program
// are not in it: they are about another server.
func (m *migration) everySet() []string {
	var environ []string
	for _, name := range m.variables {
		value := "unset"
		for _, entry := range m.Environ {
			if set, is := strings.CutPrefix(entry, name+"="); is && set != "" {
				value = set
			}
		}
		environ = append(environ, name+"="+value)
	}
	return environ
}

// comesLater are faults that end before the server starts: files that are not there yet, and values that are in
// variables.
func (m *migration) comesLater(f strictyaml.Fault) bool {
	if f.Code == "file" {
		return true
	}
	steps := m.config.way(f.Path)
	if len(steps) == 0 {
		return false
	}
	value := steps[len(steps)-1].value()
	return strings.HasPrefix(f.Path, "connectors[") && value.Kind == yaml.ScalarNode && len(references(value.Value)) > 0
}

// askAnyway takes out that users are not asked for consent where they are in any case.
func (m *migration) askAnyway(a *app, warnings strictyaml.Faults) {
	for _, w := range warnings {
		if w.Path != "spec.oauth.consent" {
			continue
		}
		if way := a.way(w.Path); len(way) > 0 {
			way[len(way)-1].remove()
			m.list(m.consentSkipped, "does not count for %s: users of a public app on their own device are asked in any case "+
				"(RFC 8252 section 8.6)", a.name)
		}
	}
}

// takeOut takes out what a fault is about and lists it with the fault's reason; false if it is about what has to be
// there.
func (m *migration) takeOut(t *tree, f strictyaml.Fault, widen func([]step) []step) bool {
	way := t.way(f.Path)
	steps := widen(way)
	if len(steps) == 0 || m.mustBeThere(f) {
		return false
	}
	last, from := steps[len(steps)-1], t.origin(steps)
	if from == nil {
		return false
	}
	if old, is := truths[strings.ToLower(last.value().Value)]; is && f.Code == "type" && last.value().Tag == "!!str" {
		last.value().SetString(strconv.FormatBool(old)) // Dex reads YAML 1.1
		last.value().Tag = "!!bool"
		return true
	}
	reason := strings.TrimPrefix(f.Message, f.Path+" ")
	switch {
	case f.Code == "unknown-key":
		reason = "Dex has no such key for this type, and ignores it"
	case len(steps) < len(way):
		reason = "its " + lastKey(f.Path) + " " + reason
	}
	m.left(from, "%s", reason)
	last.remove()
	for i := len(steps) - 1; i > 0 && len(steps[i].parent.Content) == 0; i-- { // what has become empty goes as well
		steps[i-1].remove()
	}
	return true
}

// mustBeThere are faults of what Dex could not do without either.
func (m *migration) mustBeThere(f strictyaml.Fault) bool {
	_, below, is := strings.Cut(f.Path, "].config")
	return is && strings.HasPrefix(f.Path, "connectors[") && f.Code != "unknown-key" && (f.Code != "type" || below == "")
}

// lastKey is the last key of a path, with the index that follows it.
func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// wholeEntry widens the way to a key to the entry that cannot be without it.
func (m *migration) wholeEntry(steps []step) []step {
	for list, keys := range wholes {
		entries := field(m.config.root, list)
		for i, s := range steps {
			if s.parent != entries || entries == nil || i+1 >= len(steps) {
				continue
			}
			for _, key := range keys {
				if field(s.value(), key) == steps[i+1].value() && (key != "config" || i+2 == len(steps)) {
					return steps[:i+1]
				}
			}
		}
	}
	return steps
}

// cannot are the faults of what a configuration cannot be without, at their places in the file that was read.
func (m *migration) cannot(errs strictyaml.Faults) error {
	for _, f := range errs {
		at := strictyaml.Position{Line: 1, Column: 1}
		if from := m.config.origin(m.config.way(f.Path)); from != nil {
			at = from.at
		}
		m.Add(strictyaml.Fault{File: m.File, Line: at.Line, Column: at.Column, Code: f.Code, Message: f.Message,
			Suggestion: f.Suggestion, Severity: strictyaml.SeverityError})
	}
	m.Faults.Sort()
	return m.Faults.Err()
}

// options are what manifests are checked against.
func options(cfg *config.Config) manifests.Options {
	return manifests.Options{Scopes: server.ScopeNames(cfg.Catalogue()), GrantTypes: cfg.GrantTypes(),
		Connectors: cfg.ConnectorIDs()}
}
