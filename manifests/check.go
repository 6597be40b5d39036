package manifests

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/agnivade/levenshtein"
	"gopkg.in/yaml.v3"
)

// checker holds the documents of one file against the table.
type checker struct {
	*report
	opts  Options
	asked int // calls of nearest
}

// nearest is the function of that name, given up in a document with more slips than are going to be listed.
func (c *checker) nearest(word string, candidates []string) string {
	if c.asked++; c.asked > 3*maxFaults {
		return ""
	}
	return nearest(word, candidates)
}

// check walks v along its shape.
func (c *checker) check(v *value, s *shape, path string) {
	switch {
	case s.kind == anyKind:
	case v.isNull() && s.nullable:
		return
	case v.isNull():
		c.errorf(v.position, path, "required", "", "is empty")
		return
	case !c.checkKind(v, s, path):
		return
	}
	switch s.kind {
	case objectKind:
		c.checkFields(v, s, path)
	case mappingKind:
		for _, m := range v.fields {
			c.check(m.value, s.each, join(path, m.key))
		}
	case listKind:
		c.checkList(v, s, path)
	case textKind:
		if s.constant != "" && v.text != s.constant {
			c.errorf(v.position, path, "wrong-value", s.constant, "must be %s", s.constant)
		} else if s.nonEmpty && v.text == "" {
			c.errorf(v.position, path, "required", "", "is empty")
		} else if s.choices != nil && !slices.Contains(s.choices, v.text) {
			c.errorf(v.position, path, "wrong-value", c.nearest(v.text, s.choices), "must be one of %s", strings.Join(s.choices, ", "))
		}
	case numberKind:
		if n, ok := wholeNumber(v); !ok || n < 0 || n > s.most {
			c.errorf(v.position, path, "wrong-value", "", "must be from 0 to %d", s.most)
		}
	}
	if s.rule != nil {
		s.rule(c, v, path)
	}
}

// checkKind reports a value of another type than the table says.
func (c *checker) checkKind(v *value, s *shape, path string) bool {
	var fits bool
	var wanted, suggestion string
	switch s.kind {
	case textKind:
		fits, wanted = isText(v) || s.bare && v.kind == yaml.ScalarNode, "text"
		switch {
		case v.kind == yaml.ScalarNode && s.constant != "":
			suggestion = s.constant
		case v.kind == yaml.ScalarNode:
			wanted, suggestion = "text: put it in quotes", strconv.Quote(v.text)
		case v.kind == yaml.MappingNode && len(v.fields) == 1 && isText(v.fields[0].value):
			suggestion = v.fields[0].key + ":" + v.fields[0].value.text // "threads: read"
		}
	case flagKind:
		fits, wanted = v.kind == yaml.ScalarNode && v.tag == "!!bool", "true or false"
		if v.kind == yaml.ScalarNode && !fits {
			suggestion = map[string]string{
				"true": "true", "yes": "true", "on": "true", "1": "true",
				"false": "false", "no": "false", "off": "false", "0": "false",
			}[strings.ToLower(v.text)]
		}
	case numberKind:
		fits, wanted = v.kind == yaml.ScalarNode && v.tag == "!!int", "a whole number"
	case listKind:
		fits, wanted = v.kind == yaml.SequenceNode, "a list"
		if isText(v) && v.text != "" && len(v.text) <= maxQuoted && !strings.Contains(v.text, "@") {
			suggestion = "[" + v.text + "]"
		}
	case objectKind, mappingKind:
		fits, wanted = v.kind == yaml.MappingNode, "a mapping of keys to values"
	}
	if !fits {
		c.errorf(v.position, path, "wrong-type", suggestion, "must be %s", wanted)
	}
	return fits
}

// wholeNumber is a value of the tag !!int, when it fits.
func wholeNumber(v *value) (int64, bool) {
	switch n := v.data.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}

func isText(v *value) bool { return v.kind == yaml.ScalarNode && v.tag == "!!str" }

// checkFields checks the members of an object with known keys.
func (c *checker) checkFields(v *value, s *shape, path string) {
	for _, m := range v.fields {
		if known := s.field(m.key); known != nil {
			c.check(m.value, known, join(path, m.key))
		} else {
			c.checkUnknown(m, s, path)
		}
	}
	for _, f := range s.fields {
		if f.required && v.field(f.name) == nil {
			c.errorf(v.position, join(path, f.name), "required", "", "is required")
		}
	}
}

func (s *shape) field(name string) *shape {
	for _, f := range s.fields {
		if f.name == name {
			return f.shape
		}
	}
	return nil
}

func (c *checker) checkUnknown(m member, s *shape, path string) {
	known := make([]string, len(s.fields))
	for i, f := range s.fields {
		known[i] = f.name
	}
	meant := c.nearest(m.key, known)
	twin := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, m.key) })
	path = join(path, m.key)
	switch {
	case twin >= 0:
		// Readers of the JSON, this package's and hooks' alike, may fold case: OAuth beside oauth would be read, unchecked.
		c.errorf(m.position, path, "unknown-key", known[twin], "is not a known key, and differs from one only in case")
	case s.others == refuseUnknown && meant == "":
		c.errorf(m.position, path, "unknown-key", "", "is not a known key (known here: %s)", strings.Join(known, ", "))
	case s.others == refuseUnknown:
		c.errorf(m.position, path, "unknown-key", meant, "is not a known key")
	case s.others == warnUnknown:
		c.warnf(m.position, path, "unknown-key", meant, "is not a key that anybody knows; it is ignored")
	case meant != "" && levenshtein.ComputeDistance(plainSpelling(m.key), plainSpelling(meant)) <= 1:
		c.warnf(m.position, path, "unknown-key", meant, "looks like a slip")
	}
}

// checkList checks each item, and that texts which must differ do.
func (c *checker) checkList(v *value, s *shape, path string) {
	if s.nonEmpty && len(v.items) == 0 {
		c.errorf(v.position, path, "required", "", "is empty: list at least one")
	}
	lines := map[string]int{}
	for i, item := range v.items {
		at := itemPath(path, i)
		c.check(item, s.each, at)
		if !s.unique || !isText(item) {
			continue
		}
		if line, twice := lines[item.text]; twice && line == 0 { // what a hook answered has no lines
			c.errorf(item.position, at, "duplicate", "", "is in the list twice")
		} else if twice {
			c.errorf(item.position, at, "duplicate", "", "is in the list twice, first on line %d", line)
		} else {
			lines[item.text] = item.line
		}
	}
}

func itemPath(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// dnsLabel is RFC 1123 section 2.1: what metadata.name looks like.
var dnsLabel = regexp.MustCompile(dnsLabelPattern)

const dnsLabelPattern = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`

func checkName(c *checker, v *value, path string) {
	if dnsLabel.MatchString(v.text) {
		return
	}
	suggestion := strings.Trim(strings.NewReplacer("_", "-", " ", "-", ".", "-").Replace(strings.ToLower(v.text)), "-")
	if !dnsLabel.MatchString(suggestion) {
		suggestion = ""
	}
	c.errorf(v.position, path, "name", suggestion,
		"must be a DNS label: lower-case letters, digits and hyphens, at most 63, with no hyphen at either end")
}

// maxVersion bounds a version that is stored with each release.
const maxVersion = 128

func checkVersion(c *checker, v *value, path string) {
	if _, err := semver.StrictNewVersion(v.text); err == nil && len(v.text) <= maxVersion {
		return
	}
	var suggestion string
	if len(v.text) <= maxVersion {
		if loose, err := semver.NewVersion(v.text); err == nil && loose.String() != v.text {
			suggestion = loose.String()
		}
	}
	c.errorf(v.position, path, "version", suggestion, "must be a semantic version such as 1.0.0")
}

// targetName is what workers, containers and services may be called. It is not a DNS label, because a manifest that the
// platform accepts must pass, but it is a name and never a path.
var targetName = regexp.MustCompile(targetNamePattern)

const targetNamePattern = `^[A-Za-z0-9_]([A-Za-z0-9._-]{0,61}[A-Za-z0-9_])?$`

func checkTargetNames(c *checker, v *value, path string) {
	for _, m := range v.fields {
		if !targetName.MatchString(m.key) {
			c.errorf(m.position, join(path, m.key), "target-name", "",
				"is not a name: letters, digits, hyphens, underscores and dots, at most 63")
		}
	}
}

// checkEnv checks the form of a target's env; what is in it is checked by checkCollisions.
func checkEnv(c *checker, v *value, path string) {
	if v.isNull() || v.kind == yaml.MappingNode {
		return
	}
	if v.kind != yaml.SequenceNode {
		c.errorf(v.position, path, "wrong-type", "", "must be a mapping of names to values, or a list of name and value")
		return
	}
	for i, item := range v.items {
		if name := item.field("name"); !isText(item) && (name == nil || !isText(name)) {
			c.errorf(item.position, path+"["+strconv.Itoa(i)+"]", "wrong-type", "",
				`must be a name and a value, or "NAME=value"`)
		}
	}
}

// envNames returns the names that a target's env sets, in any of the forms that checkEnv lets pass, and where.
func envNames(env *value) []member {
	if env == nil {
		return nil
	}
	names := env.fields
	for _, item := range env.items {
		if isText(item) {
			name, _, _ := strings.Cut(item.text, "=")
			names = append(names, member{item.position, name, item})
		} else if name := item.field("name"); name != nil {
			names = append(names, member{name.position, name.text, name})
		}
	}
	return names
}

// checkTogether holds parts of a document against each other.
func (c *checker) checkTogether(root *value) {
	spec := root.field("spec")
	var names []string
	for _, kind := range targetKinds {
		targets := spec.field(kind)
		if targets == nil {
			continue
		}
		for _, m := range targets.fields {
			names = append(names, m.key)
		}
	}
	c.checkRoutes(spec.field("routes"), names)
	c.checkOAuth(spec.field("oauth"), "spec.oauth")
	autoEnv := spec.field("oauth").field("autoEnv")
	if autoEnv == nil || autoEnv.data != true {
		return
	}
	if len(names) == 0 {
		c.warnf(autoEnv.position, "spec.oauth.autoEnv", "no-targets", "",
			"has nothing to set variables in: there are no workers, containers or services")
	}
	for _, kind := range targetKinds {
		c.checkCollisions(spec.field(kind), "spec."+kind)
	}
}

var targetKinds = [...]string{"workers", "containers", "services"}

func (c *checker) checkRoutes(routes *value, names []string) {
	if routes == nil {
		return
	}
	exists := make(map[string]bool, len(names))
	for _, name := range names {
		exists[name] = true
	}
	const compared = 100 // a nearest name among thousands costs more than it helps
	names = names[:min(len(names), compared)]
	for i, route := range routes.items {
		target := route.field("target")
		if target == nil || !isText(target) || target.text == "" || exists[target.text] {
			continue
		}
		c.errorf(target.position, "spec.routes["+strconv.Itoa(i)+"].target", "unknown-target", c.nearest(target.text, names),
			"names %s, which is no worker, container or service of this app", quote(target.text))
	}
}

// checkCollisions refuses env variables that autoEnv is going to set: one of the two would silently lose.
func (c *checker) checkCollisions(targets *value, path string) {
	if targets == nil {
		return
	}
	injected := c.opts.InjectedEnv
	if injected == nil {
		injected = DefaultInjectedEnv
	}
	for _, m := range targets.fields {
		for _, variable := range envNames(m.value.field("env")) {
			if slices.Contains(injected, variable.key) {
				c.errorf(variable.position, join(join(join(path, m.key), "env"), variable.key), "env-collision", "",
					"is set by spec.oauth.autoEnv: take it out here, or turn autoEnv off")
			}
		}
	}
}
