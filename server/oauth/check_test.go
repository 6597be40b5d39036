package oauth

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// web is a client with nothing wrong.
func web(change func(*Client)) *Client {
	c := &Client{ClientName: "App", RedirectURIs: []string{"https://app.test/cb"}, Scopes: []string{"openid"}}
	if change != nil {
		change(c)
	}
	return c
}

// told are the violations as key, place and code.
func told(violations []Violation) []string {
	var out []string
	for _, v := range violations {
		line := v.Key + v.At + " " + v.Code
		if v.Warning {
			line += " (warning)"
		}
		out = append(out, line)
	}
	return out
}

const (
	testEC   = `{"kty":"EC","kid":"ec","crv":"P-256","x":"QKrvCEV6Mx2cNcXBBaofJDA_36FzhbWtmZBJ5bSsvAg","y":"O5fAdi6gy-jsPH1fZL7UTiJ7A5peKV7H3TOsFzf7PBg"}`
	testOKP  = `{"kty":"OKP","kid":"okp","crv":"Ed25519","x":"KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc"}`
	testPost = `{"kty":"AKP","kid":"pq","pub":"AA"}`
)

func testSet(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func TestCheck(t *testing.T) {
	operator := Policy{WildcardPort: true, Loopback: true}
	stranger := Policy{MaxRedirectURIs: 2, MaxScopes: 2, ForeignKeys: true, Repeats: true, Strangers: true}
	keyed := func(set string) func(*Client) {
		return func(c *Client) { c.TokenEndpointAuthMethod, c.JWKS = AuthPrivateKeyJWT, set }
	}
	for _, tt := range []struct {
		rule   string
		policy Policy
		change func(*Client)
		want   string // one line a violation
	}{
		{"nothing", operator, nil, ""},
		{"all that is required", operator, func(c *Client) { *c = Client{} }, "clientName required\nscopes required\n" +
			"redirectUris required"},
		{"behind forward auth", operator, func(c *Client) {
			c.RedirectURIs, c.ForwardAuthHosts = nil, []string{"wiki.test", "wiki.test:8443", "localhost:8080", "[::1]:8080"}
		}, ""},
		{"hosts that no browser sends", operator, func(c *Client) {
			c.ForwardAuthHosts = []string{"https://a.test", "B.test", "c.test/", "*.d.test", "e.test:443", "f.test.", "u@g.test",
				"h.test:0", "", "127.0.0.2 ", "i.test#",
				"1.2.3", "0x7f000001", "-a.test", "j_1.test", "münchen.test"}
		}, "forwardAuth.hosts[0] forward-host\nforwardAuth.hosts[1] forward-host\nforwardAuth.hosts[2] forward-host\n" +
			"forwardAuth.hosts[3] forward-host\nforwardAuth.hosts[4] forward-host\nforwardAuth.hosts[5] forward-host\n" +
			"forwardAuth.hosts[6] forward-host\nforwardAuth.hosts[7] forward-host\nforwardAuth.hosts[8] forward-host\n" +
			"forwardAuth.hosts[9] forward-host\nforwardAuth.hosts[10] forward-host\nforwardAuth.hosts[11] forward-host\n" +
			"forwardAuth.hosts[12] forward-host\nforwardAuth.hosts[13] forward-host\nforwardAuth.hosts[14] forward-host\n" +
			"forwardAuth.hosts[15] forward-host"},
		{"hosts that browsers send", operator, func(c *Client) {
			c.ForwardAuthHosts = []string{"a.test", "a-1.test:8443", "192.0.2.1", "[2001:db8::1]:8443",
				"xn--mnchen-3ya.test", "1.a"}
		}, ""},
		{"behind forward auth without the scopes for it", operator, func(c *Client) {
			c.Scopes, c.ForwardAuthHosts, c.ForwardAuthUser = []string{"files:read"}, []string{"a.test"}, ForwardUserEmail
		}, "scopes forward-scope\nscopes forward-scope"},
		{"behind forward auth, and pushing its requests", operator, func(c *Client) {
			c.ForwardAuthHosts, c.RequirePushedAuthorizationRequests = []string{"a.test"}, true
		}, "requirePushedAuthorizationRequests pair"},
		{"a resource server that would be a host behind forward auth", operator, func(c *Client) {
			c.ResourceIdentifiers = []string{ForwardIdentifier("wiki.test")}
		}, "resourceIdentifiers[0] resource-identifier"},
		{"a name for the user, and no host", operator, func(c *Client) { c.ForwardAuthUser = ForwardUserSub },
			"forwardAuth.hosts required"},
		{"behind forward auth, and no sign-in", operator, func(c *Client) {
			c.RedirectURIs, c.ForwardAuthHosts, c.GrantTypes = nil, []string{"a.test"}, []string{GrantClientCredentials}
		}, "forwardAuth.hosts pair"},
		{"any port, by an operator", operator, func(c *Client) { c.RedirectURIs = []string{"http://localhost:*"} }, ""},
		{"any port, by a stranger", stranger, func(c *Client) { c.RedirectURIs = []string{"http://localhost:*"} },
			"redirectUris[0] redirect-uri-wildcard"},
		{"too many redirect URIs", stranger, func(c *Client) {
			c.RedirectURIs = []string{"https://a.test/", "https://b.test/",
				"https://c.test/"}
		}, "redirectUris too-many"},
		{"as many, by an operator", operator, func(c *Client) {
			c.RedirectURIs = []string{"https://a.test/", "https://b.test/", "https://c.test/"}
		}, ""},
		{"too many scopes", stranger, func(c *Client) { c.Scopes = []string{"a", "b", "c"} }, "scopes too-many"},
		{"a scope twice, by an operator", operator, func(c *Client) { c.Scopes = []string{"a", "a"} }, "scopes[1] duplicate"},
		{"a scope twice, by a stranger", stranger, func(c *Client) { c.Scopes = []string{"a", "a"} }, ""},
		{"a long scope", operator, func(c *Client) { c.Scopes = []string{strings.Repeat("s", MaxScope+1)} },
			"scopes[0] scope-syntax"},
		{"a scope that is not in the catalogue", Policy{Scopes: []string{"b"}}, func(c *Client) { c.Scopes = []string{"a"} },
			"scopes[0] unknown-scope"},
		{"a grant type that is off", Policy{GrantTypes: UsualGrantTypes()}, func(c *Client) {
			c.GrantTypes = []string{GrantAuthorizationCode, GrantDeviceCode}
		}, "grantTypes[1] grant-type"},
		{"a grant type that is none", operator, func(c *Client) {
			c.GrantTypes = []string{"implicit", GrantAuthorizationCode}
		}, "grantTypes[0] grant-type"},
		{"tokens of its own, by a stranger", stranger, func(c *Client) {
			c.GrantTypes = []string{GrantAuthorizationCode, GrantTokenExchange}
		}, "grantTypes grant-type"},
		{"tokens of its own, public", operator, func(c *Client) {
			c.Public, c.GrantTypes = true,
				[]string{GrantAuthorizationCode, GrantTokenExchange}
		}, "grantTypes public-client"},
		{"redirect URIs for nothing", operator, func(c *Client) { c.GrantTypes = []string{GrantDeviceCode} },
			"redirectUris unused (warning)"},
		{"pairwise subjects with devices, by an operator", operator, func(c *Client) {
			c.SubjectType, c.GrantTypes = SubjectPairwise, []string{GrantAuthorizationCode, GrantDeviceCode}
		}, ""},
		{"pairwise subjects with devices, in a sector of its own", Policy{OwnSector: true}, func(c *Client) {
			c.SubjectType, c.GrantTypes = SubjectPairwise, []string{GrantAuthorizationCode, GrantDeviceCode}
		}, "subjectType sector"},
		{"pairwise subjects on the web and on loopback", Policy{OwnSector: true, Loopback: true}, func(c *Client) {
			c.SubjectType, c.RedirectURIs = SubjectPairwise, append(c.RedirectURIs, "http://127.0.0.1/cb")
		}, "subjectType sector"},
		{"none, and not public", operator, func(c *Client) { c.TokenEndpointAuthMethod = AuthNone },
			"tokenEndpointAuthMethod auth-method"},
		{"public, and not none", operator, func(c *Client) { c.Public, c.TokenEndpointAuthMethod = true, AuthBasic },
			"tokenEndpointAuthMethod auth-method"},
		{"an unknown method is said once", operator, func(c *Client) {
			c.TokenEndpointAuthMethod, c.TokenEndpointAuthSigningAlg = "tls", AlgES256
		}, "tokenEndpointAuthMethod wrong-value"},
		{"an algorithm for nothing", operator, func(c *Client) { c.TokenEndpointAuthSigningAlg = AlgES256 },
			"tokenEndpointAuthSigningAlg auth-method"},
		{"no keys", operator, func(c *Client) { c.TokenEndpointAuthMethod = AuthPrivateKeyJWT },
			"tokenEndpointAuthMethod keys"},
		{"keys", operator, keyed(testSet(testEC, testOKP)), ""},
		{"keys that are none", operator, keyed("hunter2"), "jwks wrong-type"},
		{"a set without keys", operator, keyed("{}"), "jwks.keys required"},
		{"an empty set", operator, keyed(testSet()), "jwks.keys required"},
		{"keys that are no list", operator, keyed(`{"keys":{}}`), "jwks.keys wrong-type"},
		{"a key that is no object", operator, keyed(testSet(`"k"`)), "jwks.keys[0] wrong-type"},
		{"a large set", operator, keyed(testSet(testEC, `{"x":"`+strings.Repeat("x", MaxKeySet)+`"}`)), "jwks key"},
		{"too many keys", operator, keyed(testSet(slices.Repeat([]string{testPost}, MaxKeys+1)...)), "jwks.keys key"},
		{"a foreign key, by an operator", operator, keyed(testSet(testEC, testPost)), "jwks.keys[1].kty key-type"},
		{"a foreign key, by a stranger", stranger, keyed(testSet(testEC, testPost)), ""},
		{"nothing but foreign keys", stranger, keyed(testSet(testPost)), "jwks.keys[0].kty key-type"},
		{"a private key, by a stranger", stranger, keyed(testSet(testEC, `{"kty":"AKP","d":"x"}`)),
			"jwks.keys[1].d private-key"},
		{"an algorithm of no key", operator, func(c *Client) {
			keyed(testSet(testEC))(c)
			c.TokenEndpointAuthSigningAlg, c.RequestObjectSigningAlg = AlgEdDSA, AlgRS256
		}, "tokenEndpointAuthSigningAlg keys\nrequestObjectSigningAlg keys"},
		{"an algorithm of a key for encryption", stranger, func(c *Client) {
			keyed(testSet(testEC, strings.Replace(testOKP, `"kid"`, `"use":"enc","kid"`, 1)))(c)
			c.RequestObjectSigningAlg = AlgEdDSA
		}, "requestObjectSigningAlg keys"},
		{"loopback, by an operator", operator, func(c *Client) { c.BackchannelLogoutURI = "http://127.0.0.1:3000/out" }, ""},
		{"loopback, by a stranger", stranger, func(c *Client) { c.BackchannelLogoutURI = "http://127.0.0.1:3000/out" },
			"backchannelLogoutUri url"},
		{"a sector on loopback", operator, func(c *Client) {
			c.SubjectType, c.SectorIdentifierURI = SubjectPairwise, "http://localhost/s"
		}, "sectorIdentifierUri url"},
		{"a page on loopback", operator, func(c *Client) { c.LogoURI = "http://localhost/logo" }, "metadata.logoUri url"},
		{"a page on loopback, while developing", Policy{Development: true}, func(c *Client) {
			c.LogoURI = "http://localhost/logo"
		}, ""},
		{"several hosts", operator, func(c *Client) {
			c.SubjectType, c.RedirectURIs = SubjectPairwise, []string{"https://a.test/", "https://b.test/"}
		}, "subjectType sector"},
		{"a flag without its address", operator, func(c *Client) { c.FrontchannelLogoutSessionRequired = true },
			"frontchannelLogoutSessionRequired pair"},
		{"another origin", operator, func(c *Client) { c.FrontchannelLogoutURI = "https://app.test:444/out" },
			"frontchannelLogoutUri front-channel"},
		{"the same origin", operator, func(c *Client) { c.FrontchannelLogoutURI = "https://APP.test:443/out" }, ""},
		{"a reuse interval", operator, func(c *Client) { c.ReuseInterval = "1m" }, ""},
		{"no reuse interval", operator, func(c *Client) { c.ReuseInterval = "0s" }, ""},
		{"a long reuse interval", operator, func(c *Client) { c.ReuseInterval = "61s" },
			"refreshTokens.reuseInterval wrong-value"},
		{"a reuse interval before now", operator, func(c *Client) { c.ReuseInterval = "-1s" },
			"refreshTokens.reuseInterval wrong-value"},
		{"a reuse interval without a unit", operator, func(c *Client) { c.ReuseInterval = "30" },
			"refreshTokens.reuseInterval wrong-value"},
		{"a resource of a public client", operator, func(c *Client) {
			c.Public, c.ResourceIdentifiers = true,
				[]string{"urn:a"}
		}, "resourceIdentifiers public-client"},
	} {
		got := strings.Join(told(Check(web(tt.change), tt.policy)), "\n")
		if got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.rule, got, tt.want)
		}
	}
}

// What is wrong is told in words that a client may be sent, without the secrets that are in it.
func TestRefusalOfAViolation(t *testing.T) {
	hostile := web(func(c *Client) {
		c.ClientName = "a\u202eb"
		c.RedirectURIs = []string{"http://user:hunter2@app.test/\"日"}
		c.GrantTypes = []string{"auth\"orization\\_日"}
		c.Scopes = []string{"日\"", "unknown\u0000"}
		c.TokenEndpointAuthMethod, c.TokenEndpointAuthSigningAlg = AuthPrivateKeyJWT, AlgRS256
		c.JWKS = testSet(`{"kty":"oct","k":"hunter2"}`)
		c.LogoURI = "http://user:hunter2@app.test/"
	})
	violations := Check(hostile, Policy{Scopes: []string{"openid"}})
	if len(violations) < 7 {
		t.Fatalf("%q", told(violations))
	}
	for _, v := range violations {
		refused := RefuseMetadata([]Violation{v})
		if strings.ContainsFunc(refused.Description, func(r rune) bool {
			return r < 0x20 || r > 0x7e || r == '"' ||
				r == '\\'
		}) || strings.Contains(refused.Description, "hunter2") {
			t.Errorf("%q", refused.Description)
		}
		if _, known := FindRule(refused.Rule); !known {
			t.Errorf("%s is no rule", refused.Rule)
		}
		if _, known := FindRule(v.Code); !known {
			t.Errorf("%s is no rule", v.Code)
		}
	}
	got := RefuseMetadata(Check(web(func(c *Client) { c.RequestObjectSigningAlg = AlgES256 }), Policy{})[:1]).Error()
	if got != "invalid_client_metadata: request_object_signing_alg needs jwks or jwks_uri: the public keys of the client" {
		t.Error(got)
	}
	got = RefuseMetadata(Check(web(func(c *Client) { c.PostLogoutRedirectURIs = []string{"x:y"} }), Policy{})[:1]).Code
	if got != CodeInvalidRedirectURI {
		t.Error(got)
	}
}

func TestCheckIsBounded(t *testing.T) {
	got := Check(web(func(c *Client) {
		for i := range 100_000 {
			c.Scopes = append(c.Scopes, fmt.Sprintf("no scope %d", i))
		}
	}), Policy{})
	if len(got) > maxViolations {
		t.Errorf("%d violations", len(got))
	}
}

func TestMetadataGoesThereAndBack(t *testing.T) {
	age := int64(0)
	want := web(func(c *Client) {
		c.GrantTypes, c.JWKS, c.DefaultMaxAge, c.RequireAuthTime = []string{GrantAuthorizationCode}, testSet(testEC),
			&age, true
		c.Scopes, c.Public, c.ResourceIdentifiers = []string{"openid", "email"}, true, []string{"urn:a"}
	})
	members := want.Metadata()
	if members["scope"] != "openid email" || members["public"] != nil || members["resource_identifiers"] != nil {
		t.Errorf("%v", members)
	}
	got := new(Client)
	if err := got.ReadMetadata(encoded(t, members)); err != nil {
		t.Fatal(err)
	}
	want.Public, want.ResourceIdentifiers = false, nil // for an operator to say
	if fmt.Sprintf("%+v", got.Metadata()) != fmt.Sprintf("%+v", want.Metadata()) {
		t.Errorf("got  %+v\nwant %+v", got.Metadata(), want.Metadata())
	}
}

func encoded(t *testing.T, members map[string]any) map[string]json.RawMessage {
	t.Helper()
	text, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]json.RawMessage
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
