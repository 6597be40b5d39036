package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

// envPrefix begins every environment variable that overrides a key.
const envPrefix = "WARIFU_"

// Variable is the variable that overrides the key at path: web.tlsCert is WARIFU_WEB_TLS_CERT, and an acronym is one
// word, so enablePasswordDB is WARIFU_ENABLE_PASSWORD_DB, and clientIDMetadataDocuments ends with
// CLIENT_ID_METADATA_DOCUMENTS.
func Variable(path string) string {
	var b strings.Builder
	b.WriteString(envPrefix)
	runes := []rune(path)
	for i, c := range runes {
		switch {
		case c == '.':
			b.WriteByte('_')
			continue
		case i == 0 || !unicode.IsUpper(c) || runes[i-1] == '.':
		case !unicode.IsUpper(runes[i-1]), i+1 < len(runes) && unicode.IsLower(runes[i+1]):
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(c))
	}
	return b.String()
}

// override is a key that can come from the environment.
type override struct {
	name, path string
	value      reflect.Value
}

// overrides lists the scalars and lists of strings of cfg. What is in a list of mappings (users, scopes, plugins), or
// has names of its own, cannot be overridden: it has no stable path.
func overrides(cfg *Config) []override {
	var found []override
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		for _, f := range fieldsOf(v.Type()) {
			at, value := strictyaml.Join(path, f.key), v.Field(f.index)
			switch {
			case value.Kind() == reflect.Struct:
				if section, is := value.Addr().Interface().(switched); is {
					found = append(found, override{Variable(at), at, reflect.ValueOf(section.flag()).Elem()})
				}
				walk(at, value)
			case value.Kind() == reflect.Slice && value.Type().Elem().Kind() != reflect.String, value.Kind() == reflect.Map:
			default:
				found = append(found, override{Variable(at), at, value})
			}
		}
	}
	walk("", reflect.ValueOf(cfg).Elem())
	return found
}

// environment lays variables over what the file says, those of keys that may be overridden; nil: all of them. A list is
// separated by commas. An empty variable counts as not set.
func (r *reader) environment(environ []string, cfg *Config, may func(path string) bool) {
	r.environ = environ
	set := make(map[string]string)
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" && strings.HasPrefix(name, envPrefix) {
			set[name] = value
		}
	}
	for _, o := range overrides(cfg) {
		value, ok := set[o.name]
		if !ok || may != nil && !may(o.path) {
			continue
		}
		r.variables[o.path] = "$" + o.name // later faults about this key are the variable's
		if o.value.Kind() == reflect.Slice {
			o.value.Set(reflect.Zero(o.value.Type()))
			for item := range strings.SplitSeq(value, ",") {
				if item = strings.TrimSpace(item); item != "" {
					o.value.Set(reflect.Append(o.value, reflect.ValueOf(item)))
				}
			}
			continue
		}
		r.scalar(o.path, value, o.value)
	}
}

// ofPlatform are variables that a container platform sets by itself for a service with the name of this program.
var ofPlatform = regexp.MustCompile(
	`_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`)

// Misspelled finds variables that override nothing, each with the one that was probably meant, or "". Those that the
// program uses for something else are in taken.
func Misspelled(environ []string, taken ...string) map[string]string {
	var known []string
	for _, o := range overrides(Default()) {
		known = append(known, o.name)
	}
	found := make(map[string]string)
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(taken, name) || slices.Contains(known, name) {
			continue
		}
		if meant := strictyaml.Nearest(name, known); meant != "" && oauth.Edits(name, meant) <= 3 {
			found[name] = meant
		} else if !ofPlatform.MatchString(name) {
			found[name] = shortened(name, known)
		}
	}
	return found
}

// shortened is the variable of which one leaves out words but the last, as in WARIFU_REUSE_INTERVAL; "" where none or
// several are equally long.
func shortened(name string, known []string) string {
	best, twice := "", false
	last := name[strings.LastIndexByte(name, '_'):]
	for _, whole := range known {
		words := strings.Split(strings.TrimPrefix(name, envPrefix), "_")
		for word := range strings.SplitSeq(strings.TrimPrefix(whole, envPrefix), "_") {
			if len(words) > 0 && words[0] == word {
				words = words[1:]
			}
		}
		switch {
		case len(words) > 0 || !strings.HasSuffix(whole, last):
		case best == "" || len(whole) < len(best):
			best, twice = whole, false
		case len(whole) == len(best):
			twice = true
		}
	}
	if twice {
		return ""
	}
	return best
}
