package config

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// Changes are what is different in a configuration that was read again.
type Changes struct {
	// Added, Changed and Removed are ids of connectors.
	Added, Changed, Removed []string
	// Order: the connectors are the same in another order.
	Order bool
	// Keys are the others that count at once.
	Keys []string
	// Files are the keys that name a file in which something else stands now.
	Files []string
	// Restart are the keys that count from the next start on.
	Restart []Waiting
}

// Waiting is a key that counts from the next start on.
type Waiting struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

// waiting are the keys that cannot count before a restart, each with all that is below it.
var waiting = []Waiting{
	{"issuer",
		"it is in every token and every client's records: with a different one this would be a different server"},
	{"subject", "with a different choice every app would take everybody for a new user"},
	{"storage", "the records are there, and everything in progress uses them"},
	{"web.http", "an address is opened when the server starts"},
	{"web.https", "an address is opened when the server starts"},
	{"admin.socket", "a socket is opened when the server starts"},
	{"admin.listen", "an address is opened when the server starts"},
	{"telemetry", "metrics and traces are set up when the server starts"},
}

// waits says why a key cannot count before a restart; "" if it can.
func waits(key string) string {
	for _, w := range waiting {
		if below, is := strings.CutPrefix(key, w.Key); is && (below == "" || below[0] == '.') {
			return w.Why
		}
	}
	return ""
}

// Any reports whether something counts at once.
func (c Changes) Any() bool {
	return len(c.Added)+len(c.Changed)+len(c.Removed)+len(c.Keys)+len(c.Files) > 0 || c.Order
}

// Stays reports whether nothing of it can count before a restart: people would have other subjects, or upstreams would
// send them elsewhere.
func (c Changes) Stays() bool {
	return slices.ContainsFunc(c.Restart, func(w Waiting) bool { return w.Key == "issuer" || w.Key == "subject" })
}

// Touch reports whether a key, something below it, or a file that it names is different.
func (c Changes) Touch(key string) bool {
	return slices.ContainsFunc(slices.Concat(c.Keys, c.Files), func(changed string) bool {
		below, is := strings.CutPrefix(changed, key)
		return is && (below == "" || below[0] == '.' || below[0] == '[')
	})
}

// RestartFor are the keys that wait.
func (c Changes) RestartFor() []string {
	var keys []string
	for _, w := range c.Restart {
		keys = append(keys, w.Key)
	}
	return keys
}

// Drops says of which people, connectors and directories of manifests more than half go, compared with the settings in
// use, as in "3 of 4 people of staticPasswords"; none if no more than half go of any.
func (s *Settings) Drops(inUse *Settings) (lists []string) {
	people := func(s *Settings) (ids []string) {
		if !s.EnablePasswordDB {
			return nil
		}
		for _, u := range s.Users {
			ids = append(ids, u.UserID)
		}
		return ids
	}
	connectors := func(s *Settings) (ids []string) {
		for _, u := range s.upstreams {
			ids = append(ids, u.Spec.ID)
		}
		return ids
	}
	drop := func(what string, named bool, before, now []string) {
		gone := slices.DeleteFunc(slices.Clone(before), func(id string) bool { return slices.Contains(now, id) })
		if 2*len(gone) <= len(before) {
			return
		}
		text := fmt.Sprintf("%d of %d %s", len(gone), len(before), what)
		const few = 5
		if named && len(gone) <= few {
			text += " (" + strings.Join(gone, ", ") + ")"
		}
		lists = append(lists, text)
	}
	if inUse.EnablePasswordDB && !s.EnablePasswordDB {
		lists = append(lists, "sign-in by password (enablePasswordDB)")
	}
	drop("people of staticPasswords", false, people(inUse), people(s))
	drop("connectors", true, connectors(inUse), connectors(s))
	drop("manifests.directories", true, inUse.Manifests.Directories, s.Manifests.Directories)
	return lists
}

// Attrs are for a line of the log.
func (c Changes) Attrs() []any {
	var attrs []any
	for _, list := range []struct {
		name string
		ids  []string
	}{
		{"connectors_added", c.Added}, {"connectors_changed", c.Changed}, {"connectors_removed", c.Removed},
		{"changed", c.Keys}, {"files_changed", c.Files}, {"restart_for", c.RestartFor()},
	} {
		if len(list.ids) > 0 {
			attrs = append(attrs, list.name, list.ids)
		}
	}
	if c.Order {
		attrs = append(attrs, "connectors", "in another order")
	}
	if len(attrs) == 0 {
		attrs = append(attrs, "changed", "nothing")
	}
	return attrs
}

// Since compares these settings with those of before: of what counts at once with those that are in use, and for the
// rest with those of the start.
func (s *Settings) Since(inUse, start *Settings) Changes {
	var c Changes
	ids := func(upstreams []upstream) (ids []string) {
		for _, u := range upstreams {
			ids = append(ids, u.Spec.ID)
		}
		return ids
	}
	before, now := ids(inUse.upstreams), ids(s.upstreams)
	for i, id := range now {
		if was := slices.Index(before, id); was < 0 {
			c.Added = append(c.Added, id)
		} else if !s.sameUpstream(i, inUse, was) {
			c.Changed = append(c.Changed, id)
		}
	}
	for _, id := range before {
		if !slices.Contains(now, id) {
			c.Removed = append(c.Removed, id)
		}
	}
	c.Order = len(c.Added)+len(c.Removed) == 0 && !slices.Equal(before, now)
	c.differences("", reflect.ValueOf(s.Config).Elem(), reflect.ValueOf(inUse.Config).Elem(),
		reflect.ValueOf(start.Config).Elem())
	for _, key := range slices.Sorted(maps.Keys(s.files)) {
		was, named := inUse.files[key]
		if named && was != s.files[key] && waits(key) == "" && !strings.HasPrefix(key, "connectors[") && !c.Touch(key) {
			c.Files = append(c.Files, key)
		}
	}
	return c
}

// differences are the keys whose values differ, but for connectors.
func (c *Changes) differences(path string, now, inUse, start reflect.Value) {
	for _, f := range fieldsOf(now.Type()) {
		at, is := strictyaml.Join(path, f.key), now.Field(f.index)
		why := waits(at)
		switch {
		case at == "connectors":
		case is.Kind() == reflect.Struct:
			c.differences(at, is, inUse.Field(f.index), start.Field(f.index))
		case why != "" && !reflect.DeepEqual(start.Field(f.index).Interface(), is.Interface()):
			c.Restart = append(c.Restart, Waiting{at, why})
		case why == "" && !reflect.DeepEqual(inUse.Field(f.index).Interface(), is.Interface()):
			c.Keys = append(c.Keys, at)
		}
	}
}

// sameUpstream reports whether a connector is made of the same as another one was, files included.
func (s *Settings) sameUpstream(i int, before *Settings, was int) bool {
	of := func(s *Settings, i int) (held []fileState) {
		at := fmt.Sprintf("connectors[%d].", i)
		for _, key := range slices.Sorted(maps.Keys(s.files)) {
			if strings.HasPrefix(key, at) {
				held = append(held, s.files[key])
			}
		}
		return held
	}
	return reflect.DeepEqual(before.upstreams[was], s.upstreams[i]) && slices.Equal(of(before, was), of(s, i))
}

// fileState is a file that the configuration names, and a digest of what it holds, by which a change is noticed.
type fileState struct {
	name string
	sum  [sha256.Size]byte
}

// stateOf is the state of a file; what cannot be read has one as well.
func stateOf(name string) fileState {
	state := fileState{name: name}
	f, err := os.Open(name)
	if err != nil {
		return state
	}
	defer func() { _ = f.Close() }() // opened for reading
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxFile)); err == nil {
		h.Sum(state.sum[:0])
	}
	return state
}

// remember notes that a key names a file. Those of trusted issuers are read when they are needed, and the token in one
// may be another each hour, and at each replica.
func (r *reader) remember(key, file string) {
	if strings.HasPrefix(key, "trustedIssuers[") {
		return
	}
	if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
		r.files[key] = stateOf(file)
	}
}

// rememberBelow notes the files that are named below a connector's config, where only the connector knows which texts
// are names of files: those with whose name there is one.
func (r *reader) rememberBelow(at string, value any) {
	switch value := value.(type) {
	case string:
		if strings.ContainsRune(value, os.PathSeparator) {
			r.remember(at, value)
		}
	case []any:
		for i, v := range value {
			r.rememberBelow(fmt.Sprintf("%s[%d]", at, i), v)
		}
	case map[string]any:
		for key, v := range value {
			r.rememberBelow(strictyaml.Join(at, key), v)
		}
	}
}

// Files are those that the configuration names, whose changes count like its own: secrets, hashes, certificates,
// logos, encryption keys, and what connectors read. A key that the server keeps itself is not among them.
func (s *Settings) Files() []string {
	var names []string
	for key, f := range s.files {
		if waits(key) == "" {
			names = append(names, f.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Digest is of what this configuration makes of a server, with all that it names: replicas that serve alike have the
// same. Where it listens, keeps its files, logs and is measured is not in it, nor are comments and the order of keys.
// Without the key nobody can tell what it was made of.
func (s *Settings) Digest(key []byte) string {
	effective := *s.Config
	effective.Storage, effective.Logger, effective.EncryptionKeyFiles, effective.Admin = Storage{}, Logger{}, nil, Admin{}
	effective.Telemetry = Telemetry{}
	effective.Web = Web{TrustedProxies: s.Web.TrustedProxies, AllowedOrigins: s.Web.AllowedOrigins}
	mac := hmac.New(sha256.New, key)
	_ = json.NewEncoder(mac).Encode(effective) // whatever was read can be written; map keys are sorted
	for _, u := range s.upstreams {
		_, _ = fmt.Fprintf(mac, "%q %q\n", u.Spec.ID, u.Spec.Config) // with what variables and files hold
	}
	for _, at := range slices.Sorted(maps.Keys(s.files)) {
		if waits(at) == "" && !slices.ContainsFunc([]string{"web.", "admin.", "encryptionKeyFiles["},
			func(of string) bool { return strings.HasPrefix(at, of) }) {
			_, _ = fmt.Fprintf(mac, "%q %x\n", at, s.files[at].sum)
		}
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
