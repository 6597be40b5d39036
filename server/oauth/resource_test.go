package oauth

import (
	"strings"
	"testing"
)

// Resource identifiers are the same as RFC 3986 section 6.2 says, and no others are.
func TestResourceIdentifiersCompareAsURIs(t *testing.T) {
	for _, same := range [][]string{
		{"https://mcp.example.com", "https://mcp.example.com/", "HTTPS://MCP.example.COM", "https://mcp.example.com:443/",
			"https://mcp.example.com:", "https://mcp.example.com/.", "https://mcp.example.com/a/.."},
		{"https://mcp.example.com/mcp", "https://mcp.example.com:443/mcp", "https://mcp.example.com/%6Dcp",
			"https://mcp.example.com/x/../mcp", "https://mcp.example.com/./mcp", "https://mcp.example.com/%2E/mcp"},
		{"http://127.0.0.1", "http://127.0.0.1:80/"},
		{"https://a.example/?x", "https://a.example?x"},
		{"https://a.example/%e3%81%82", "https://a.example/%E3%81%82"},
		{"http://[::1]:8080", "http://[::1]:8080/"},
		{"urn:example:api", "URN:example:api", "urn:example:%61pi"},
	} {
		for _, one := range same {
			if spelled, found := FindResource(same[:1], one); !found || spelled != same[0] {
				t.Errorf("%s is not taken for %s: %s", one, same[0], CanonicalURI(one))
			}
			if again := CanonicalURI(CanonicalURI(one)); again != CanonicalURI(one) {
				t.Errorf("%s has two canonical spellings: %s and %s", one, CanonicalURI(one), again)
			}
		}
	}
	for one, other := range map[string]string{
		"https://mcp.example.com/mcp":   "https://mcp.example.com/mcp/",
		"https://mcp.example.com":       "http://mcp.example.com",
		"https://mcp.example.com/MCP":   "https://mcp.example.com/mcp",
		"https://mcp.example.com:8443":  "https://mcp.example.com",
		"https://mcp.example.com/a%2Fb": "https://mcp.example.com/a/b",
		"https://mcp.example.com?":      "https://mcp.example.com",
		"https://mcp.example.com#":      "https://mcp.example.com",
		"https://mcp.example.com/":      "https://mcp.example.com.evil.test/",
		"https://mcp.example.com//":     "https://mcp.example.com/",
		"https://mcp.example.com:80":    "https://mcp.example.com",
		"https://u@mcp.example.com":     "https://mcp.example.com",
		"https://%zz":                   "https://%ZZ",
		"urn:example:API":               "urn:example:api",
		"":                              "/",
		"api":                           "API",
	} {
		if _, found := FindResource([]string{one}, other); found {
			t.Errorf("%s is taken for %s: %s", one, other, CanonicalURI(one))
		}
	}
}

// What is dangerous, or what programs would write in another way, is no identifier; any other absolute URI is one.
func TestIdentifiersOfResourceServers(t *testing.T) {
	const absolute, userinfo, ascii = "must be an absolute URI", "must not hold a user name or password",
		"must be ASCII without spaces"
	for identifier, want := range map[string][2]string{
		"https://api.example.com": {}, "https://API.example.com:443/a/../b?x=1": {}, "http://10.0.0.1/x": {},
		"https://api.example.com/{tenant}": {},
		"urn:example:billing":              {}, "com.example:/api": {}, "https://api.example.com/a%20b": {},
		"https://xn--bcher-kva.example": {},
		"":                              {absolute}, "billing": {absolute}, "//api.example.com": {absolute},
		"https://":   {absolute},
		"https:///x": {absolute}, "urn:": {absolute},
		"https://api.example.com#": {absolute, "https://api.example.com"}, "urn:a#b": {absolute, "urn:a"}, "#b": {absolute},
		"forward-auth://wiki.test":                       {"must not begin with forward-auth://"},
		"https://u:hunter2@api.test":                     {userinfo},
		"https://u:hunter2@api.test/ü#x":                 {userinfo},
		"https://api.example.com/a b":                    {ascii, "https://api.example.com/a%20b"},
		"https://api.example.com/ü":                      {ascii, "https://api.example.com/%C3%BC"},
		"https://api.example.com/ü#x":                    {absolute, "https://api.example.com/%C3%BC"},
		"https://bücher.example":                         {ascii},
		"urn:example:a b":                                {ascii, "urn:example:a%20b"},
		"https://api.example.com/?q=a b":                 {ascii, "https://api.example.com/?q=a%20b"},
		"https://api.example.com/\xff":                   {ascii, "https://api.example.com/%FF"},
		"urn:example:" + strings.Repeat("a", MaxAddress): {"must have at most 2048 bytes"},
	} {
		reason, mended := CheckResource(identifier)
		if !strings.HasPrefix(reason, want[0]) || (reason == "") != (want[0] == "") || mended != want[1] ||
			strings.Contains(reason, "hunter2") {
			t.Errorf("%.40s: %q, %q", identifier, reason, mended)
		}
	}
}

// An app that says which resource server it is, and nothing else, is a whole client that can get no tokens.
func TestOnlyAResourceServer(t *testing.T) {
	c := &Client{ClientMetadata: ClientMetadata{Resource: "https://mcp.example.com/mcp"}}
	if wrong := Check(c, Policy{}); len(wrong) > 0 || !c.OnlyResource() || !c.HasSecret() {
		t.Errorf("%+v", wrong)
	}
	for _, grant := range GrantTypes() {
		if c.MayUse(grant) {
			t.Errorf("it may use %s", grant)
		}
	}
	c.ResourceIdentifiers = []string{"urn:more"}
	if got := c.Resources(); len(got) != 2 || got[0] != c.Resource || got[1] != "urn:more" {
		t.Errorf("resources: %q", got)
	}
	for _, change := range []func(){
		func() { c.Resource = "" },
		func() { c.Resource = "https://mcp.example.com/mcp"; c.RedirectURIs = []string{"https://app.test/cb"} },
	} {
		if change(); len(Check(c, Policy{})) == 0 || !c.MayUse(GrantAuthorizationCode) {
			t.Errorf("%+v needs no name and no scopes", c)
		}
	}
	c.Resource = "mcp.example.com"
	if got := told(Check(c, Policy{})); len(got) == 0 || got[len(got)-1] != "resource resource-identifier" {
		t.Errorf("%q", got)
	}
}

// What is proposed is an identifier, whatever was wrong.
func FuzzCheckResource(f *testing.F) {
	for _, identifier := range []string{"https://a.test/a b", "urn:a b#c", "https://a.test/?q=ü", "https://u:p@a.test",
		"a:\xff#", "a: "} {
		f.Add(identifier)
	}
	f.Fuzz(func(t *testing.T, identifier string) {
		reason, mended := CheckResource(identifier)
		if again, _ := CheckResource(mended); mended != "" && (reason == "" || again != "") {
			t.Errorf("%q: %s (did you mean %q?)", identifier, reason, mended)
		}
	})
}

// Whatever is sent, its canonical spelling is its own.
func FuzzCanonicalURI(f *testing.F) {
	for _, seed := range []string{"https://a.example:443/x/../y?q#f", "urn:a:%7e", "http://[::1]:80/%2e%2E/",
		"://", "a:b@c/d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, identifier string) {
		canonical := CanonicalURI(identifier)
		if again := CanonicalURI(canonical); again != canonical {
			t.Errorf("%q is %q, and that is %q", identifier, canonical, again)
		}
	})
}
