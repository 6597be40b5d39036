package config

import "github.com/warifu/warifu/manifests/strictyaml"

// Check is [Read] of a text that is in no file yet: faults call it name. The settings are of use only if there is no
// error among the faults.
func Check(name string, data []byte, environ []string) (*Settings, strictyaml.Faults) {
	r := newReader(name)
	settings := r.load(r.parse(data, environ))
	r.Faults.Sort()
	return settings, r.Faults
}
