package manifests

import "github.com/warifu/warifu/manifests/strictyaml"

// Faults in manifests have the same form as in every YAML file that this program reads.
type (
	Fault    = strictyaml.Fault
	Faults   = strictyaml.Faults
	Severity = strictyaml.Severity
)

// A manifest with an error is not used; one with warnings is.
const (
	SeverityError   = strictyaml.SeverityError
	SeverityWarning = strictyaml.SeverityWarning
)
