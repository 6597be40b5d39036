package connector_test

import (
	"testing"

	"github.com/warifu/warifu/server/connector"
)

func TestSubjects(t *testing.T) {
	// The example of Dex's own documentation: user 08a8684b-db88-4b73-90a9-3cd1661f5466 of the connector local.
	const dex = "CiQwOGE4Njg0Yi1kYjg4LTRiNzMtOTBhOS0zY2QxNjYxZjU0NjYSBWxvY2Fs"
	if got := connector.SubjectsDex.Of("local", "08a8684b-db88-4b73-90a9-3cd1661f5466"); got != dex {
		t.Errorf("%s, want %s", got, dex)
	}
	hashed := connector.SubjectsHashed
	if one, other := hashed.Of("a", "b\x00c"), hashed.Of("a\x00b", "c"); len(one) != 32 || one == hashed.Of("b", "c") {
		t.Errorf("%s, %s", one, other)
	}
	for id, valid := range map[string]bool{"ldap": true, "my.ldap-2": true, "": false, "..": false,
		"a/b": false, "é": false} {
		if connector.ValidID(id) != valid {
			t.Errorf("%q: %v", id, !valid)
		}
	}
}
