package conformance

import (
	"encoding/json"
	"mime"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// metadata of a provider, as decoded from JSON.
type metadata map[string]any

func (m metadata) text(name string) string {
	v, _ := m[name].(string)
	return v
}

func (m metadata) flag(name string) bool {
	v, _ := m[name].(bool)
	return v
}

// list is an array of texts; ok is false when it is absent or something else.
func (m metadata) list(name string) (values []string, ok bool) {
	array, ok := m[name].([]any)
	if !ok {
		return nil, false
	}
	for _, v := range array {
		text, isText := v.(string)
		if !isText {
			return nil, false
		}
		values = append(values, text)
	}
	return values, true
}

func (m metadata) lists(name, value string) bool {
	values, _ := m.list(name)
	return slices.Contains(values, value)
}

// provider is what a module knows about the provider under test.
type provider struct {
	metadata
	keys *jose.JSONWebKeySet
}

const discoveryPath = "/.well-known/openid-configuration"

// discover fetches metadata and keys, which every module does anew.
func (t *trial) discover() *provider {
	p := &provider{metadata: t.fetchMetadata()}
	for _, name := range []string{"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"} {
		t.must(p.text(name) != "", "OIDCD-3", "metadata has %s", name)
	}
	t.must(p.text("issuer") == t.cfg.Issuer, "OIDCD-4.3", "the issuer in metadata, %q, is the one that was asked",
		p.text("issuer"))
	p.keys = t.fetchKeys(p.metadata)
	return p
}

func (t *trial) fetchMetadata() metadata {
	got := t.get(strings.TrimSuffix(t.cfg.Issuer, "/")+discoveryPath, "")
	t.must(got.status == 200, "OIDCD-4.2", "discovery answers with status 200")
	t.must(got.json(), "OIDCD-4.2", "discovery answers with JSON")
	var m metadata
	if err := json.Unmarshal(got.body, &m); err != nil {
		t.stopf("OIDCD-4.2", "discovery's JSON cannot be read: %v", err)
	}
	return m
}

// fetchKeys fetches and checks the provider's JWK Set.
func (t *trial) fetchKeys(m metadata) *jose.JSONWebKeySet {
	got := t.get(m.text("jwks_uri"), "")
	t.must(got.status == 200, "OIDCD-3", "jwks_uri answers with status 200")
	var raw struct {
		Keys []map[string]any `json:"keys"`
	}
	set := &jose.JSONWebKeySet{}
	if err := json.Unmarshal(got.body, &raw); err != nil || len(raw.Keys) == 0 {
		t.stopf("RFC7517-5", "jwks_uri has no JWK Set: %v", err)
	}
	if err := json.Unmarshal(got.body, set); err != nil {
		t.stopf("RFC7517-5", "the JWK Set cannot be read: %v", err)
	}
	ids := map[string]bool{}
	for i, key := range raw.Keys {
		kid, _ := key["kid"].(string)
		t.check(kid != "", "OIDCC-10.1", "key %d of the JWK Set has a kid", i)
		t.check(!ids[kid], "RFC7517-4.5", "the kid %q is of one key only", kid)
		ids[kid] = true
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, leaked := key[private]; leaked {
				t.failf("OIDCD-3", "the JWK Set publishes %q of key %q: that is private", private, kid)
			}
		}
	}
	for _, key := range set.Keys {
		t.check(key.Valid() && key.IsPublic(), "RFC7517-4", "key %q is a public key", key.KeyID)
	}
	return set
}

// json says whether the answer's media type is application/json.
func (r *reply) json() bool {
	kind, _, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// object decodes a JSON object; nil when it is none.
func (r *reply) object() map[string]any {
	var v map[string]any
	if json.Unmarshal(r.body, &v) != nil {
		return nil
	}
	return v
}

// endpoint is an address that metadata names.
func (t *trial) endpoint(p *provider, name string) *url.URL {
	u, err := url.Parse(p.text(name))
	if err != nil || u.Host == "" {
		t.stopf("OIDCD-3", "%s in metadata, %q, is not a URL", name, p.text(name))
	}
	return u
}

// supports ends a module when the provider says that it does not know these scopes.
func (t *trial) supports(p *provider, scope string) {
	for _, s := range strings.Fields(scope) {
		if !p.lists("scopes_supported", s) {
			t.skipf("scopes_supported has no %s", s)
		}
	}
}
