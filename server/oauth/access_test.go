package oauth

import "testing"

func TestAdmits(t *testing.T) {
	ann := Person{Connector: "local", Groups: []string{"staff", "team/a"}, Email: "Ann@Example.com", EmailVerified: true}
	unverified, nobody := ann, Person{Connector: "local"}
	unverified.EmailVerified = false
	for _, c := range []struct {
		rule                       string
		groups, connectors, emails []string
		who                        Person
		want                       bool
	}{
		{"no rule", nil, nil, nil, nobody, true},
		{"a group", []string{"x", "staff"}, nil, nil, ann, true},
		{"another group", []string{"Staff"}, nil, nil, ann, false},
		{"no group", []string{"staff"}, nil, nil, nobody, false},
		{"an address", nil, nil, []string{"ann@example.COM"}, ann, true},
		{"an address that is not verified", nil, nil, []string{"ann@example.com"}, unverified, false},
		{"a domain", nil, nil, []string{"*@example.com"}, ann, true},
		{"a domain above", nil, nil, []string{"*@com"}, ann, false},
		{"a domain that ends the same", nil, nil, []string{"*@xample.com"}, ann, false},
		{"a letter that folds to another", nil, nil, []string{"kai@example.com"}, Person{Email: "\u212aai@example.com",
			EmailVerified: true}, false},
		{"a domain in the local part", nil, nil, []string{"*@example.com"}, Person{Email: `"x@example.com"@evil.test`,
			EmailVerified: true}, false},
		{"no address", nil, nil, []string{"*@example.com"}, nobody, false},
		{"a group or an address", []string{"x"}, nil, []string{"*@example.com"}, ann, true},
		{"neither", []string{"x"}, nil, []string{"*@example.org"}, ann, false},
		{"a connector", nil, []string{"github", "local"}, nil, nobody, true},
		{"another connector", nil, []string{"github"}, nil, ann, false},
		{"a group of another connector", []string{"staff"}, []string{"github"}, nil, ann, false},
		{"a connector, and no group", []string{"staff"}, []string{"local"}, nil, nobody, false},
		{"both", []string{"staff"}, []string{"local"}, nil, ann, true},
	} {
		client := Client{ClientMetadata: ClientMetadata{AccessGroups: c.groups, AccessConnectors: c.connectors,
			AccessEmails: c.emails}}
		if got := client.Admits(c.who); got != c.want {
			t.Errorf("%s: %v", c.rule, got)
		}
	}
}

// Rules have the same digest when they say the same.
func TestAccessDigest(t *testing.T) {
	digests := make(map[string]string)
	for rule, m := range map[string]ClientMetadata{
		"none": {}, "group": {AccessGroups: []string{"a"}}, "address": {AccessEmails: []string{"a"}},
		"connector": {AccessConnectors: []string{"a"}},
		"two":       {AccessGroups: []string{"a", "b"}}, "one with a comma": {AccessGroups: []string{"a,b"}},
	} {
		c := Client{ClientMetadata: m}
		digest := c.AccessDigest()
		if twin, taken := digests[digest]; taken || (digest == "") != (rule == "none") || digest != c.AccessDigest() {
			t.Errorf("%s has the digest %q of %q", rule, digest, twin)
		}
		digests[digest] = rule
	}
}
