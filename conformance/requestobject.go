package conformance

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
)

// object is the request as the claims of a request object (OpenID Connect Core 1.0 section 6).
func (f *flow) object() map[string]any {
	claims := map[string]any{}
	for name := range f.params {
		claims[name] = f.params.Get(name)
	}
	return claims
}

// unsigned writes a request object without a signature (alg none).
func (t *trial) unsigned(claims map[string]any) string {
	text, err := json.Marshal(claims)
	if err != nil {
		t.stopf("", "encode the request object: %v", err)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(text) + "."
}

// carry leaves in the query only what must be there beside a request object (OpenID Connect Core 1.0 section 6.1, RFC
// 6749 section 3.1.2.3), and the object itself.
func (f *flow) carry(name, value string) url.Values {
	outside := url.Values{name: {value}}
	for _, kept := range []string{"client_id", "response_type", "scope", "redirect_uri"} {
		outside.Set(kept, f.params.Get(kept))
	}
	return outside
}

// visitWith is visit with other parameters than those that the response is held against.
func (f *flow) visitWith(outside url.Values) *flow {
	inside := f.params
	f.params = outside
	f.visit()
	f.params = inside
	return f
}

// unsignedOffered ends a module when the provider says that it takes signed request objects only.
func (t *trial) unsignedOffered(p *provider) {
	if algs, given := p.list("request_object_signing_alg_values_supported"); given && !slices.Contains(algs, "none") {
		t.skipf("request_object_signing_alg_values_supported has no none")
	}
}

// unsupported ends a module when the provider answers that it does not know request objects at all.
func (f *flow) unsupported(code string) *flow {
	if f.answer.url != nil {
		reply := f.answer.url.Query()
		if f.answer.form != nil {
			reply = f.answer.form
		}
		if reply.Get("error") == code {
			f.t.skipf("the provider answers %s, as it may", code)
		}
	}
	return f
}

func requestUnsigned(t *trial) {
	p, c := t.begin()
	t.unsignedOffered(p)
	f := t.flow(p, c, "openid")
	f.visitWith(f.carry("request", t.unsigned(f.object()))).unsupported("request_not_supported")
	t.should(p.flag("request_parameter_supported"), "OIDCD-3", "metadata says request_parameter_supported")
	f.granted().exchange().resource()
}

func requestWithRedirect(t *trial) {
	p, c := t.begin()
	t.unsignedOffered(p)
	f := t.flow(p, c, "openid")
	outside := f.carry("request", t.unsigned(f.object()))
	outside.Set("redirect_uri", c.RedirectURI+rand.Text()[:10])
	f.visitWith(outside)
	if f.answer.url == nil {
		t.errorPage(f.answer.page, "RFC6749-3.1.2", "that the redirect URI is not registered")
		return
	}
	t.should(p.flag("request_parameter_supported"), "OIDCD-3", "metadata says request_parameter_supported")
	f.granted().exchange().resource()
}

// referred registers a client whose request objects are fetched from it, and gives the address of the one of a request.
func (t *trial) referred(p *provider, auth string, changes ...change) (f *flow, put func(object string) string) {
	object := ""
	address := t.serve("request.jwt", "application/oauth-authz-req+jwt", func() []byte { return []byte(object) })
	sum := sha256.Sum256([]byte(t.id))
	// Another one for other content, OpenID Connect Core 1.0 section 6.2
	address += "#" + base64.RawURLEncoding.EncodeToString(sum[:])
	c := t.register(p, auth, append(changes, set("request_uris", []string{address}))...)
	return t.flow(p, c, "openid"), func(o string) string {
		object = o
		return address
	}
}

// requestURIUnsigned is of the basic plan: the provider need not know request_uri.
func requestURIUnsigned(t *trial) {
	p := t.discover()
	t.unsignedOffered(p)
	f, put := t.referred(p, t.plan.Auth)
	f.visitWith(f.carry("request_uri", put(t.unsigned(f.object())))).unsupported("request_uri_not_supported")
	t.should(requestURIOffered(p), "OIDCD-3", "metadata does not deny request_uri_parameter_supported")
	f.granted().exchange().resource()
}

// requestURIOffered: its default is true (OpenID Connect Discovery 1.0 section 3).
func requestURIOffered(p *provider) bool {
	_, given := p.metadata["request_uri_parameter_supported"]
	return !given || p.flag("request_uri_parameter_supported")
}

// requestURIUnsignedDynamic is of the dynamic plan: the provider must know request_uri.
func requestURIUnsignedDynamic(t *trial) {
	p := t.discover()
	t.check(requestURIOffered(p), "OIDCD-3", "the provider offers request_uri")
	t.unsignedOffered(p)
	f, put := t.referred(p, t.plan.Auth)
	f.visitWith(f.carry("request_uri", put(t.unsigned(f.object()))))
	f.granted().exchange().resource()
}

func requestURISigned(t *trial) {
	p := t.discover()
	t.check(requestURIOffered(p), "OIDCD-3", "the provider offers request_uri")
	t.check(p.lists("request_object_signing_alg_values_supported", "RS256"), "OIDCD-3",
		"request_object_signing_alg_values_supported has RS256")
	f, put := t.referred(p, t.plan.Auth, set("request_object_signing_alg", "RS256"))
	claims := f.object()
	claims["iss"], claims["aud"] = f.c.ID, p.text("issuer")
	f.visitWith(f.carry("request_uri", put(t.sign(f.c.key, "", claims))))
	f.granted().exchange().resource()
}
