package manifests

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

// checker checks the documents of one file against the table.
type checker struct {
	*strictyaml.Report
	opts   Options
	before int // faults of documents before this one
	asked  int // calls of nearest
}

// nearest is [oauth.Nearest], until a document has more mistakes than are going to be listed.
func (c *checker) nearest(word string, candidates []string) string {
	if c.asked++; c.asked > 3*strictyaml.MaxFaults {
		return ""
	}
	return strictyaml.Nearest(word, candidates)
}

// check walks v along its shape.
func (c *checker) check(v *strictyaml.Value, s *shape, path string) {
	switch {
	case s.kind == anyKind:
	case v.IsNull() && s.nullable:
		return
	case v.IsNull():
		c.Errorf(v.Position, path, "required", "", "is empty")
		return
	case !c.checkKind(v, s, path):
		return
	}
	switch s.kind {
	case objectKind:
		c.checkFields(v, s, path)
	case mappingKind:
		for _, m := range v.Fields {
			c.check(m.Value, s.each, strictyaml.Join(path, m.Key))
		}
	case listKind:
		c.checkList(v, s, path)
	case textKind:
		if s.constant != "" && v.Text != s.constant {
			c.Errorf(v.Position, path, "wrong-value", s.constant, "must be %s", s.constant)
		} else if s.nonEmpty && v.Text == "" {
			c.Errorf(v.Position, path, "required", "", "is empty")
		}
	case numberKind:
		if n, ok := wholeNumber(v); !ok || n < 0 || n > s.most {
			c.Errorf(v.Position, path, "wrong-value", "", "must be from 0 to %d", s.most)
		}
	}
	if s.rule != nil {
		s.rule(c, v, path)
	}
}

// checkKind reports a value of another type than the table says.
func (c *checker) checkKind(v *strictyaml.Value, s *shape, path string) bool {
	var fits bool
	var wanted, suggestion string
	switch s.kind {
	case textKind:
		fits, wanted = v.IsText() || s.bare && v.Kind == strictyaml.Scalar, "text"
		switch {
		case v.Kind == strictyaml.Scalar && s.constant != "":
			suggestion = s.constant
		case v.Kind == strictyaml.Scalar && len(s.choices) > 0: // quotes would not mend "idTokenClaims: true"
			wanted, suggestion = "one of "+strings.Join(s.choices, ", "), c.nearest(v.Text, s.choices)
		case v.Kind == strictyaml.Scalar:
			wanted, suggestion = "text: put it in quotes", strconv.Quote(v.Text)
		case v.Kind == strictyaml.Mapping && len(v.Fields) == 1 && v.Fields[0].Value.IsText():
			suggestion = v.Fields[0].Key + ":" + v.Fields[0].Value.Text // "threads: read"
		}
	case flagKind:
		fits, wanted = v.Kind == strictyaml.Scalar && v.Tag == "!!bool", "true or false"
		if v.Kind == strictyaml.Scalar && !fits {
			suggestion = map[string]string{
				"true": "true", "yes": "true", "on": "true", "1": "true",
				"false": "false", "no": "false", "off": "false", "0": "false",
			}[strings.ToLower(v.Text)]
		}
	case numberKind:
		fits, wanted = v.Kind == strictyaml.Scalar && v.Tag == "!!int", "a whole number"
	case listKind:
		fits, wanted = v.Kind == strictyaml.List, "a list"
		if v.IsText() && v.Text != "" && len(v.Text) <= strictyaml.MaxQuoted && !strings.Contains(v.Text, "@") {
			suggestion = "[" + v.Text + "]"
		}
	case objectKind, mappingKind:
		fits, wanted = v.Kind == strictyaml.Mapping, "a mapping of keys to values"
	}
	if !fits {
		c.Errorf(v.Position, path, "wrong-type", suggestion, "must be %s", wanted)
	}
	return fits
}

// wholeNumber is a value of the tag !!int, if it fits into an int64.
func wholeNumber(v *strictyaml.Value) (int64, bool) {
	switch n := v.Data.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}

// checkFields checks the members of an object with known keys.
func (c *checker) checkFields(v *strictyaml.Value, s *shape, path string) {
	for _, m := range v.Fields {
		if known := s.field(m.Key); known != nil {
			c.check(m.Value, known, strictyaml.Join(path, m.Key))
		} else {
			c.checkUnknown(m, s, path)
		}
	}
	for _, f := range s.fields {
		if f.required && v.Field(f.name) == nil {
			c.Errorf(v.Position, strictyaml.Join(path, f.name), "required", "", "is required")
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

func (c *checker) checkUnknown(m strictyaml.Member, s *shape, path string) {
	known := make([]string, len(s.fields))
	for i, f := range s.fields {
		known[i] = f.name
	}
	meant := c.nearest(m.Key, known)
	twin := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, m.Key) })
	misspelled, edits := strictyaml.Misspelled(m.Key, known)
	path = strictyaml.Join(path, m.Key)
	switch {
	case twin >= 0:
		// Those who read the JSON, this package and hooks alike, may fold case: OAuth beside oauth would be read without a
		// check.
		c.Errorf(m.Position, path, "unknown-key", known[twin], "is not a known key, and differs from one only in case")
	case s.others == refuseUnknown && meant == "":
		c.Errorf(m.Position, path, "unknown-key", "", "is not a known key (known here: %s)", strings.Join(known, ", "))
	case s.others == refuseUnknown:
		c.Errorf(m.Position, path, "unknown-key", meant, "is not a known key")
	case misspelled != "" && (edits == 1 || s.others == warnUnknown):
		// What stands below it would be gone: a mistyped oauth is no wish to be rid of the client.
		c.Errorf(m.Position, path, "unknown-key", misspelled, "looks like a misspelling")
	case s.others == warnUnknown:
		c.Warnf(m.Position, path, "unknown-key", meant, "is not a known key, and is ignored")
	}
}

// checkList checks each item, and that items which must differ do differ.
func (c *checker) checkList(v *strictyaml.Value, s *shape, path string) {
	if s.nonEmpty && len(v.Items) == 0 {
		c.Errorf(v.Position, path, "required", "", "is empty: list at least one")
	}
	lines := map[string]int{}
	for i, item := range v.Items {
		at := itemPath(path, i)
		c.check(item, s.each, at)
		if !s.unique || !item.IsText() {
			continue
		}
		if line, twice := lines[item.Text]; twice && line == 0 { // what a hook answered has no lines
			c.Errorf(item.Position, at, "duplicate", "", "is in the list twice")
		} else if twice {
			c.Errorf(item.Position, at, "duplicate", "", "is in the list twice, first on line %d", line)
		} else {
			lines[item.Text] = item.Line
		}
	}
}

func itemPath(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// dnsLabel is RFC 1123 section 2.1: what metadata.name looks like.
var dnsLabel = regexp.MustCompile(dnsLabelPattern)

const dnsLabelPattern = oauth.AppNamePattern

func checkName(c *checker, v *strictyaml.Value, path string) {
	if dnsLabel.MatchString(v.Text) {
		return
	}
	suggestion := strings.Trim(strings.NewReplacer("_", "-", " ", "-", ".", "-").Replace(strings.ToLower(v.Text)), "-")
	if !dnsLabel.MatchString(suggestion) {
		suggestion = ""
	}
	c.Errorf(v.Position, path, "name", suggestion,
		"must be a DNS label: lower-case letters, digits and hyphens, at most 63, with no hyphen at either end")
}

// maxVersion bounds a version that is stored with each release.
const maxVersion = 128

func checkVersion(c *checker, v *strictyaml.Value, path string) {
	if _, err := semver.StrictNewVersion(v.Text); err == nil && len(v.Text) <= maxVersion {
		return
	}
	var suggestion string
	if len(v.Text) <= maxVersion {
		if loose, err := semver.NewVersion(v.Text); err == nil && loose.String() != v.Text {
			suggestion = loose.String()
		}
	}
	c.Errorf(v.Position, path, "version", suggestion, "must be a semantic version such as 1.0.0")
}

// targetName is what workers, containers and services may be called. It is not a DNS label, because a manifest that the
// platform accepts must pass, but it is a name and never a path.
var targetName = regexp.MustCompile(targetNamePattern)

const targetNamePattern = `^[A-Za-z0-9_]([A-Za-z0-9._-]{0,61}[A-Za-z0-9_])?$`

func checkTargetNames(c *checker, v *strictyaml.Value, path string) {
	for _, m := range v.Fields {
		if !targetName.MatchString(m.Key) {
			c.Errorf(m.Position, strictyaml.Join(path, m.Key), "target-name", "",
				"is not a name: letters, digits, hyphens, underscores and dots, at most 63")
		}
	}
}

// checkEnv checks the form of a target's env; what is in it is checked by checkCollisions.
func checkEnv(c *checker, v *strictyaml.Value, path string) {
	if v.IsNull() || v.Kind == strictyaml.Mapping {
		return
	}
	if v.Kind != strictyaml.List {
		c.Errorf(v.Position, path, "wrong-type", "", "must be a mapping of names to values, or a list of name and value")
		return
	}
	for i, item := range v.Items {
		if name := item.Field("name"); !item.IsText() && (name == nil || !name.IsText()) {
			c.Errorf(item.Position, path+"["+strconv.Itoa(i)+"]", "wrong-type", "",
				`must be a name and a value, or "NAME=value"`)
		}
	}
}

// envNames returns the names that a target's env sets, in any of the forms that checkEnv lets pass, and where.
func envNames(env *strictyaml.Value) []strictyaml.Member {
	if env == nil {
		return nil
	}
	names := env.Fields
	for _, item := range env.Items {
		if item.IsText() {
			name, _, _ := strings.Cut(item.Text, "=")
			names = append(names, strictyaml.Member{Position: item.Position, Key: name, Value: item})
		} else if name := item.Field("name"); name != nil {
			names = append(names, strictyaml.Member{Position: name.Position, Key: name.Text, Value: name})
		}
	}
	return names
}

// checkTogether checks parts of a document against each other.
func (c *checker) checkTogether(root *strictyaml.Value) {
	spec := root.Field("spec")
	var names []string
	for _, kind := range targetKinds {
		targets := spec.Field(kind)
		if targets == nil {
			continue
		}
		for _, m := range targets.Fields {
			names = append(names, m.Key)
		}
	}
	c.checkRoutes(spec.Field("routes"), names)
	c.checkOAuth(spec.Field("oauth"), "spec.oauth")
	autoEnv := spec.Field("oauth").Field("autoEnv")
	if autoEnv == nil || autoEnv.Data != true {
		return
	}
	if len(names) == 0 {
		c.Warnf(autoEnv.Position, "spec.oauth.autoEnv", "no-targets", "",
			"has nothing to set variables in: there are no workers, containers or services")
	}
	injected := injectedEnv
	if spec.Field("oauth").Field("resource") != nil {
		injected = slices.Concat(injected, resourceEnv)
	}
	if textAt(spec.Field("oauth"), "tokenEndpointAuthMethod") == oauth.AuthWorkload {
		injected = slices.Concat(injected, workloadEnv)
	}
	for _, kind := range targetKinds {
		c.checkCollisions(spec.Field(kind), "spec."+kind, injected)
	}
}

var targetKinds = [...]string{"workers", "containers", "services"}

func (c *checker) checkRoutes(routes *strictyaml.Value, names []string) {
	if routes == nil {
		return
	}
	exists := make(map[string]bool, len(names))
	for _, name := range names {
		exists[name] = true
	}
	const compared = 100 // a nearest name among thousands costs more than it helps
	names = names[:min(len(names), compared)]
	for i, route := range routes.Items {
		target := route.Field("target")
		if target == nil || !target.IsText() || target.Text == "" || exists[target.Text] {
			continue
		}
		c.Errorf(target.Position, "spec.routes["+strconv.Itoa(i)+"].target", "unknown-target", c.nearest(target.Text, names),
			"names %s, which is not a worker, container or service of this app", strictyaml.Quote(target.Text))
	}
}

// checkCollisions refuses env variables that autoEnv is going to set: one of the two would silently lose.
func (c *checker) checkCollisions(targets *strictyaml.Value, path string, injected []string) {
	if targets == nil {
		return
	}
	for _, m := range targets.Fields {
		for _, variable := range envNames(m.Value.Field("env")) {
			if slices.Contains(injected, variable.Key) {
				c.Errorf(variable.Position, strictyaml.Join(strictyaml.Join(strictyaml.Join(path, m.Key), "env"), variable.Key),
					"env-collision", "",
					"is set by spec.oauth.autoEnv: remove it here, or turn autoEnv off")
			}
		}
	}
}
