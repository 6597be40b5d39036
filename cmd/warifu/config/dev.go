package config

import (
	"maps"
	"slices"
	"strings"
)

// devKeys are the keys that a configuration for `warifu dev` may have. Where it listens, what it keeps and runs, it
// decides by itself.
var devKeys = []string{"web.allowedOrigins", "web.trustedProxies", "staticPasswords", "connectors",
	"subject", "mfa", "mail",
	"claims", "expiry", "oauth2", "outbound", "trustedIssuers", "scopes", "logger"}

func forDev(path string) bool {
	return slices.ContainsFunc(devKeys, func(key string) bool {
		rest, is := strings.CutPrefix(path, key)
		return is && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// ReadDev is [Read] for `warifu dev`: base has what it decides by itself, and its own users. The file, which may be "",
// and the environment say the rest.
func ReadDev(base *Config, file string, environ []string) (*Settings, error) {
	r := newReader(file)
	users, outbound := base.StaticPasswords, base.Outbound.Allow
	base.StaticPasswords, base.Outbound.Allow = nil, nil
	if file == "" {
		r.File, r.places = "configuration", nil
	} else {
		data, err := readConfiguration(file)
		if err != nil {
			return nil, err
		}
		r.decode(data, base)
		r.refuseForServe()
	}
	r.environment(environ, base, forDev)
	base.StaticPasswords = append(base.StaticPasswords, users...) // last, so that faults name those of the file
	base.Outbound.Allow = append(base.Outbound.Allow, outbound...)
	r.checking = true
	r.check(base)
	return r.settings(base)
}

// refuseForServe refuses the keys that `warifu dev` decides by itself, each with all that is below it.
func (r *reader) refuseForServe() {
	holds := func(path string) bool { // keys for dev, among others
		return path == "" || slices.ContainsFunc(devKeys, func(key string) bool { return strings.HasPrefix(key, path+".") })
	}
	for _, path := range slices.Sorted(maps.Keys(r.places)) {
		above := path[:max(strings.LastIndexAny(path, ".["), 0)]
		if !holds(path) && !forDev(path) && holds(above) && !r.faulty(path) {
			r.fault(path, "misplaced", "", "is for warifu serve: warifu dev decides it by itself")
		}
	}
}

// MisspelledForDev is [Misspelled] for `warifu dev`, which takes fewer keys.
func MisspelledForDev(environ []string, taken ...string) map[string]string {
	found := Misspelled(environ, taken...)
	for _, o := range overrides(Default()) {
		if forDev(o.path) {
			continue
		}
		set := slices.ContainsFunc(environ, func(entry string) bool {
			value, is := strings.CutPrefix(entry, o.name+"=")
			return is && value != ""
		})
		if set && !slices.Contains(taken, o.name) {
			found[o.name] = ""
		}
	}
	return found
}
