package server_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
)

// clientRule is one case of what a client may be, by the three ways to become one.
type clientRule struct {
	rule    string
	members string // metadata of RFC 7591; spec.oauth is the same in camelCase
	// The verdicts on a manifest, a registration and a client ID metadata document: takes or refuses.
	manifest, registration, document string
	// decision says why all three agree, or why they do not.
	decision string
}

const (
	takes   = "takes"
	refuses = "refuses"
)

const (
	ecKey  = `{"kty":"EC","kid":"ec","crv":"P-256","x":"QKrvCEV6Mx2cNcXBBaofJDA_36FzhbWtmZBJ5bSsvAg","y":"O5fAdi6gy-jsPH1fZL7UTiJ7A5peKV7H3TOsFzf7PBg"}`
	okpKey = `{"kty":"OKP","kid":"okp","crv":"Ed25519","x":"KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc"}`
	signs  = `"token_endpoint_auth_method":"private_key_jwt"`
)

// rsaKey is a public key of that many bits. Nobody has a private one.
func rsaKey(bits int) string {
	n := []byte(strings.Repeat("\xfb", bits/8))
	return fmt.Sprintf(`{"kty":"RSA","kid":"rsa","n":%q,"e":"AQAB"}`, base64.RawURLEncoding.EncodeToString(n))
}

// keySet is a JWK Set.
func keySet(keys ...string) string { return `"jwks":{"keys":[` + strings.Join(keys, ",") + `]}` }

// manyKeys are n keys with names of their own.
func manyKeys(n int) string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = strings.Replace(okpKey, `"okp"`, fmt.Sprintf("%q", fmt.Sprint("key ", i)), 1)
	}
	return keySet(keys...)
}

// manyURIs is a list of n redirect URIs.
func manyURIs(n int) string {
	uris := make([]string, n)
	for i := range uris {
		uris[i] = fmt.Sprintf("https://app.test/%d", i)
	}
	text, _ := json.Marshal(uris)
	return `"redirect_uris":` + string(text)
}

var clientRules = []clientRule{
	{"a plain client", ``, takes, takes, takes, "what every row adds to"},
	{
		"a public client with token exchange",
		`"token_endpoint_auth_method":"none","grant_types":["authorization_code","` + exchangeGrant + `"]`,
		refuses, refuses, takes,
		"refused, as client credentials are: anybody could say to be it; a document loses the grant types " +
			"that it may not have",
	},
	{
		"a public client with client credentials",
		`"token_endpoint_auth_method":"none","grant_types":["authorization_code","client_credentials"]`,
		refuses, refuses, takes,
		"refused: anybody could say to be it (RFC 6749 section 4.4); a document loses the grant types " +
			"that it may not have",
	},
	{
		"a default port in a front-channel URI", `"frontchannel_logout_uri":"https://app.test:443/out"`,
		takes, takes, takes, "taken: it is the same origin (RFC 6454 section 4)",
	},
	{
		"a front-channel URI in capitals", `"frontchannel_logout_uri":"https://APP.test/out"`,
		takes, takes, takes, "taken: it is the same origin (RFC 6454 section 4)",
	},
	{
		"a front-channel URI of another host", `"frontchannel_logout_uri":"https://other.test/out"`,
		refuses, refuses, refuses,
		"refused: it would frame somebody else's page (Front-Channel Logout 1.0 section 2)",
	},
	{
		"a session-required flag without its URI", `"backchannel_logout_session_required":true`,
		refuses, refuses, refuses, "refused: the client believes that it is told of logouts, and never is",
	},
	{
		"a front-channel session-required flag without its URI", `"frontchannel_logout_session_required":true`,
		refuses, refuses, refuses, "refused: the client believes that it is told of logouts, and never is",
	},
	{
		"a signing algorithm without private_key_jwt",
		`"token_endpoint_auth_method":"none","token_endpoint_auth_signing_alg":"ES256"`,
		refuses, refuses, refuses, "refused: the client believes that it authenticates by signatures, and does not",
	},
	{
		"signed request objects without keys", `"request_object_signing_alg":"ES256"`,
		refuses, refuses, refuses, "refused: every request of the client would be",
	},
	{
		"unsigned request objects without keys", `"request_object_signing_alg":"none"`,
		takes, takes, takes, "taken: there is nothing to verify",
	},
	{
		"an algorithm of assertions that no key has",
		signs + `,"token_endpoint_auth_signing_alg":"RS256",` + keySet(ecKey),
		refuses, refuses, refuses, "refused: every token request would be",
	},
	{
		"an algorithm of request objects that no key has",
		`"request_object_signing_alg":"EdDSA",` + signs + `,` + keySet(ecKey),
		refuses, refuses, refuses, "refused: every request would be",
	},
	{"16 keys", signs + `,` + manyKeys(16), takes, takes, takes, "taken"},
	{
		"20 keys", signs + `,` + manyKeys(20),
		takes, takes, takes, "taken: what is fetched from jwks_uri may have 20, so what is written may, too",
	},
	{
		"21 keys", signs + `,` + manyKeys(21),
		refuses, refuses, refuses, "refused: each is tried on a signature without kid",
	},
	{"32 redirect URIs", manyURIs(32), takes, takes, takes, "taken"},
	{
		"33 redirect URIs", manyURIs(33),
		takes, refuses, refuses, "an operator's file has limits of its own; what strangers store is bounded",
	},
	{
		"an RSA key of 1024 bits", signs + `,` + keySet(rsaKey(1024)),
		refuses, refuses, refuses, "refused: it can be broken (RFC 7518 section 3.3)",
	},
	{"an RSA key of 4096 bits", signs + `,` + keySet(rsaKey(4096)), takes, takes, takes, "taken"},
	{
		"an RSA key of 8192 bits", signs + `,` + keySet(rsaKey(8192)),
		refuses, refuses, refuses, "refused: go-jose reads none above 4096 bits, since verifying costs too much",
	},
	{
		"a key of an unknown type beside a good one",
		signs + `,` + keySet(ecKey, `{"kty":"AKP","kid":"pq","pub":"AA"}`),
		refuses, takes, takes,
		"an author of a manifest is told; a set that is for many servers keeps what others use (RFC 7517 " +
			"section 5)",
	},
	{
		"a weak key beside a good one", signs + `,` + keySet(ecKey, rsaKey(1024)),
		refuses, takes, takes, "an author of a manifest is told; elsewhere it is passed over, and verifies nothing",
	},
	{
		"a curve that nobody verifies beside a good key",
		signs + `,` +
			keySet(ecKey, `{"kty":"OKP","kid":"x","crv":"X25519","x":"KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc"}`),
		refuses, takes, takes,
		"an author of a manifest is told; a set that is for many servers keeps what others use (RFC 7517 " +
			"section 5)",
	},
	{
		"a private key",
		signs + `,` +
			keySet(ecKey, strings.Replace(okpKey, `"kid"`, `"d":"KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc","kid"`, 1)),
		refuses, refuses, refuses, "refused: it is not secret any more",
	},
	{
		"a symmetric key",
		signs + `,` + keySet(ecKey, `{"kty":"oct","k":"KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc"}`),
		refuses, refuses, refuses, "refused: it is not secret any more",
	},
	{
		"a symmetric key that is left out", signs + `,` + keySet(ecKey, `{"kty":"oct"}`),
		refuses, refuses, refuses, "refused: a shared secret has no place in a set of public keys",
	},
	{
		"two keys of one name", signs + `,` + keySet(ecKey, strings.Replace(okpKey, `"okp"`, `"ec"`, 1)),
		refuses, takes, takes,
		"an author of a manifest is told; elsewhere the type tells them apart, and each is tried (RFC " +
			"7517 section 4.5)",
	},
	{
		"two keys of one name and type", signs + `,` + keySet(ecKey, ecKey),
		refuses, takes, takes, "an author of a manifest is told; elsewhere each is tried",
	},
	{
		"keys for encryption alone", signs + `,` + keySet(strings.Replace(ecKey, `"kid"`, `"use":"enc","kid"`, 1)),
		refuses, refuses, refuses, "refused: none can verify the client's signature",
	},
	{
		"a key whose alg is of another type",
		signs + `,` + keySet(strings.Replace(ecKey, `"kid"`, `"alg":"RS256","kid"`, 1)),
		refuses, refuses, refuses, "refused when it is the only one: none can verify the client's signature",
	},
	{
		"a key set of more than 64 KiB",
		signs + `,` + keySet(strings.Replace(ecKey, `"ec"`, `"ec","x5u":"`+strings.Repeat("x", 65<<10)+`"`, 1)),
		refuses, refuses, refuses, "refused: it would not be read when a signature is verified",
	},
	{
		"no keys in the set", signs + `,` + keySet(),
		refuses, refuses, refuses, "refused: none can verify the client's signature",
	},
	{
		"private_key_jwt without keys", signs,
		refuses, refuses, refuses, "refused: the client could not authenticate",
	},
	{
		"jwks and jwks_uri", signs + `,"jwks_uri":"https://app.test/jwks",` + keySet(ecKey),
		refuses, refuses, refuses, "refused (RFC 7591 section 2)",
	},
	{
		"a redirect URI twice", `"redirect_uris":["https://app.test/cb","https://app.test/cb"]`,
		refuses, takes, takes, "a slip in a file that somebody writes; elsewhere it does no harm",
	},
	{
		"a grant type twice", `"grant_types":["authorization_code","authorization_code"]`,
		refuses, takes, takes, "a slip in a file that somebody writes; elsewhere it does no harm",
	},
	{
		"any port on loopback", `"redirect_uris":["http://127.0.0.1:*"]`,
		takes, refuses, refuses, "for an operator to allow: any program of the user's machine may listen there",
	},
	{
		"a loopback redirect URI", `"redirect_uris":["http://127.0.0.1:8080/cb"]`,
		takes, takes, takes, "taken (RFC 8252 section 7.3)",
	},
	{
		"a private-use scheme", `"redirect_uris":["com.example.app:/cb"]`,
		refuses, refuses, refuses,
		"refused: an app that another app can pretend to be uses loopback, or https that it has claimed " +
			"(RFC 8252 section 7.2)",
	},
	{
		"plain http", `"redirect_uris":["http://app.test/cb"]`,
		refuses, refuses, refuses, "refused: the code would be on the wire",
	},
	{"no redirect URI", `"redirect_uris":[]`, refuses, refuses, refuses, "refused: nothing could answer a sign-in"},
	{
		"redirect URIs without authorization_code", `"grant_types":["` + deviceGrant + `"],"response_types":[]`,
		takes, takes, takes, "taken; an author of a manifest is warned",
	},
	{
		"refresh tokens of no grant",
		`"grant_types":["client_credentials","refresh_token"],"response_types":[],"redirect_uris":null`,
		takes, takes, takes, "taken; an author of a manifest is warned",
	},
	{
		"a grant type that is off", `"grant_types":["authorization_code","password"]`,
		refuses, refuses, takes, "refused; a document is for many servers, and loses what this one does not have",
	},
	{
		"a scope that nobody knows", `"scope":"openid unknown"`,
		refuses, takes, takes, "a slip in a file that somebody writes; a client asks for what a resource server told it, " +
			"and is told what it has got",
	},
	{
		"an odd scope", `"scope":"openid \\"`,
		refuses, takes, takes, "refused (RFC 6749 section 3.3); elsewhere it is a scope that this server does not " +
			"have, and left out",
	},
	{
		"a terms page with a fragment", `"tos_uri":"https://app.test/legal#tos"`,
		takes, takes, takes, "taken: it is a place on a page that people read",
	},
	{
		"a logo on loopback", `"logo_uri":"http://localhost/logo.png"`,
		refuses, refuses, refuses, "refused: for developing alone",
	},
	{
		"keys on loopback", signs + `,"jwks_uri":"http://localhost:3000/jwks"`,
		takes, refuses, refuses, "for an operator to allow, who also says where this server may send requests",
	},
	{
		"an address with dots", `"initiate_login_uri":"https://app.test/a/../b"`,
		refuses, refuses, refuses, "refused: an address has one spelling, as a redirect URI has",
	},
	{
		"an address with an odd port", `"initiate_login_uri":"https://app.test:0443/login"`,
		refuses, refuses, refuses, "refused: an address has one spelling, as a redirect URI has",
	},
	{
		"an address of another host with a wildcard", `"initiate_login_uri":"https://*.app.test/login"`,
		refuses, refuses, refuses, "refused: it is no host",
	},
	{
		"an address with a fragment", `"initiate_login_uri":"https://app.test/#login"`,
		refuses, refuses, refuses, "refused",
	},
	{
		"a long address", `"initiate_login_uri":"https://app.test/` + strings.Repeat("x", 2048) + `"`,
		refuses, refuses, refuses, "refused",
	},
	{
		"an empty address", `"initiate_login_uri":""`,
		refuses, takes, takes, "a slip in a file that somebody writes; elsewhere it is left out",
	},
	{
		"pairwise subjects of several hosts",
		`"subject_type":"pairwise","redirect_uris":["https://app.test/cb","https://other.test/cb"]`,
		refuses, refuses, refuses, "refused (OpenID Connect Core 1.0 section 8.1)",
	},
	{
		"pairwise subjects with devices",
		`"subject_type":"pairwise",` + `"grant_types":["authorization_code","` + deviceGrant + `"]`,
		takes, refuses, refuses,
		"an operator knows whose the hosts are; a stranger could have the subjects of somebody else's " +
			"sector",
	},
	{
		"pairwise subjects on the web and on loopback",
		`"subject_type":"pairwise","redirect_uris":["https://app.test/cb","http://127.0.0.1:8080/cb"]`,
		takes, refuses, refuses,
		"an operator knows whose the hosts are; a stranger could have the subjects of somebody else's " +
			"sector",
	},
	{
		"a sector identifier without pairwise subjects", `"sector_identifier_uri":"https://sector.test/uris.json"`,
		takes, refuses, refuses,
		"nothing follows from it, of which an author of a manifest is warned; elsewhere it is fetched all the same " +
			"(OpenID Connect Dynamic Client Registration 1.0 section 5), and here there is none",
	},
	{
		"no grant types", `"grant_types":[]`,
		refuses, takes, takes, "a slip in a file that somebody writes; elsewhere it is left out, and has its default",
	},
	{
		"no scopes", `"scope":""`,
		refuses, takes, takes, "a slip in a file that somebody writes; elsewhere it is left out, and has its default",
	},
	{
		"an empty authentication method", `"token_endpoint_auth_method":""`,
		refuses, takes, takes, "a slip in a file that somebody writes; elsewhere it is left out, and has its default",
	},
	{
		"an empty address of a logo", `"logo_uri":""`,
		refuses, takes, takes, "a slip in a file that somebody writes; elsewhere it is left out",
	},
	{
		"a scope of 101 characters", `"scope":"openid ` + strings.Repeat("s", 101) + `"`,
		refuses, takes, takes, "refused, as in the catalogue; elsewhere it is a scope that this server does not " +
			"have, and left out",
	},
	{"a negative age", `"default_max_age":-1`, refuses, refuses, refuses, "refused"},
	{"an age of 70 years", `"default_max_age":2147483648`, refuses, refuses, refuses, "refused"},
	{
		"a name of 101 characters", `"client_name":"` + strings.Repeat("n", 101) + `"`,
		refuses, refuses, refuses, "refused: it does not fit a consent page",
	},
	{"a name that turns the text around", `"client_name":"a\u202eb"`, refuses, refuses, refuses, "refused"},
	{
		"a name of spaces", `"client_name":"  "`,
		refuses, takes, takes,
		"a slip in a file that somebody writes; elsewhere it is left out, and the client is called by its " +
			"id",
	},
	{"spaces around a name", `"client_name":" App "`, takes, takes, takes, "taken"},
	{"unsigned ID tokens", `"id_token_signed_response_alg":"none"`, refuses, refuses, refuses, "refused"},
	{
		"encrypted ID tokens", `"id_token_encrypted_response_alg":"RSA-OAEP"`,
		refuses, refuses, refuses, "refused: this server does not encrypt",
	},
	{
		"a resource server", `"resource_identifiers":["https://api.test"]`,
		takes, takes, takes,
		"for an operator to say, who may introspect what; elsewhere the member is unknown, and left out",
	},
}

// A client is held against the same rules, however it came to be one, and every difference is meant.
func TestClientRules(t *testing.T) {
	everything := func(c *server.Config) {
		c.GrantTypes = []string{oauth.GrantClientCredentials, oauth.GrantDeviceCode, oauth.GrantTokenExchange}
		c.Registration = &server.Registration{InitialAccessTokens: []string{initialToken}}
	}
	p, s := newDescribed(t, everything)
	verdict := func(taken bool) string {
		if taken {
			return takes
		}
		return refuses
	}
	for i, row := range clientRules {
		t.Run(row.rule, func(t *testing.T) {
			p := p.at(t)
			members := map[string]any{"client_name": "App", "redirect_uris": []string{callback}, "scope": "openid"}
			if err := json.Unmarshal([]byte("{"+row.members+"}"), &members); err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(members, func(_ string, v any) bool { return v == nil })
			body, _ := json.Marshal(members)
			reply := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", initialToken, string(body))
			if got := verdict(reply.status == http.StatusCreated); got != row.registration {
				t.Errorf("a registration: %s: %s", got, reply.raw)
			}

			_, faults := manifests.Parse("app.yml", asManifest(t, members),
				manifests.Options{Scopes: []string{"openid", "runs:write"}})
			if got := verdict(faults.Err() == nil); got != row.manifest {
				t.Errorf("a manifest: %s: %v", got, faults)
			}

			p.clock.forward(time.Minute)
			id := fmt.Sprintf("%s/rules/%d", s.URL, i)
			members["client_id"] = id
			s.says(string(must(json.Marshal(members))))
			if got := verdict(p.knows(id) != nil); got != row.document {
				t.Errorf("a document: %s", got)
			}
			if row.decision == "" {
				t.Error("nobody has decided that")
			}
		})
	}
}

// A member that comes twice is refused, whoever says it: of two of one name, readers do not agree on which one counts.
func TestMembersComeOnce(t *testing.T) {
	p, s := newDescribed(t, func(c *server.Config) {
		c.Registration = &server.Registration{InitialAccessTokens: []string{initialToken}}
	})
	for rule, members := range map[string]string{
		"a list":           `"redirect_uris":["https://other.test/cb"]`,
		"the same":         `"client_name":"App"`,
		"a member of ours": `"scope":"openid","scope":"openid"`,
		"an unknown one":   `"x":1,"x":2`,
		"within a key":     `"jwks":{"keys":[{"kty":"EC","kty":"RSA"}]}`,
		"within a set":     `"jwks":{"keys":[` + ecKey + `],"keys":[` + okpKey + `]}`,
	} {
		t.Run(rule, func(t *testing.T) {
			p := p.at(t)
			body := `{"client_name":"App","redirect_uris":["` + callback + `"],` + members
			reply := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", initialToken, body+"}")
			if reply.status != http.StatusBadRequest || !strings.Contains(reply.raw, "each member once") {
				t.Errorf("a registration: %d %s", reply.status, reply.raw)
			}
			p.clock.forward(time.Minute)
			id := s.URL + "/twice/" + strings.ReplaceAll(rule, " ", "-")
			s.says(fmt.Sprintf(`%s,"client_id":%q}`, body, id))
			if p.knows(id) != nil {
				t.Error("a document: it is taken")
			}
		})
	}
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}

// asManifest is metadata as spec.oauth of an app.yml; JSON is YAML.
func asManifest(t *testing.T, members map[string]any) []byte {
	t.Helper()
	oauth, shown := map[string]any{}, map[string]any{}
	for name, v := range members {
		words := strings.Split(name, "_")
		for i := range words[1:] {
			words[i+1] = strings.ToUpper(words[i+1][:1]) + words[i+1][1:]
		}
		switch key := strings.Join(words, ""); key {
		case "scope":
			oauth["scopes"] = strings.Fields(v.(string))
		case "logoUri", "tosUri", "policyUri":
			shown[key] = v
		case "responseTypes", "clientId": // follow from grantTypes; are given
		case "tokenEndpointAuthMethod":
			oauth[key] = v
			if v == "none" {
				oauth["public"] = true
			}
		default:
			oauth[key] = v
		}
	}
	if len(shown) > 0 {
		oauth["metadata"] = shown
	}
	return must(json.Marshal(map[string]any{
		"apiVersion": manifests.APIVersion, "kind": manifests.Kind, "metadata": map[string]any{"name": "app"},
		"spec": map[string]any{"version": "1.0.0", "oauth": oauth},
	}))
}
