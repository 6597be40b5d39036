package server

import "testing"

// Whatever an app can learn about a user is named on the consent page.
func TestEveryClaimIsNamed(t *testing.T) {
	for _, c := range standardClaims {
		if _, named := aboutOf[c.name]; !named {
			t.Errorf("%s has no kind in aboutOf, so the consent page would not name it", c.name)
		}
	}
}
