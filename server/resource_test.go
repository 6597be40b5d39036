package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

// audienceOf is aud of a reply's access token, sorted out as text.
func (r reply) audience(t testing.TB) string {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.raw)
	}
	return fmt.Sprint(claimsOf(t, r.text("access_token"))["aud"])
}

// withResources is an authorization request for several resources.
func (p *idp) withResources(scope string, resources ...string) string {
	address := p.authorizeURL("scope", scope)
	for _, resource := range resources {
		address += "&" + url.Values{"resource": {resource}}.Encode()
	}
	return address
}

// codeFor walks the pages of a request that is given by its address.
func (b *browser) codeFor(address string) string {
	b.p.t.Helper()
	got := b.follow(b.get(address))
	if got.asks() == "password" {
		got = b.follow(b.signIn(got, userEmail, userPassword))
	}
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	return b.answered(got, address)
}

// asking sends a form to the token endpoint with resources.
func (p *idp) asking(form url.Values, resources ...string) reply {
	p.t.Helper()
	form["resource"] = resources
	return p.call("/oauth/token", form)
}

// RFC 8707: the authorization request says for whom tokens may be, a token request which of them this one is for.
func TestResourceIndicators(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.speaker()
	both := fmt.Sprint([]any{filesAPI, runsAPI})
	exchange := func(resources []string, asked ...string) reply {
		t.Helper()
		code := p.browser().codeFor(p.withResources("threads:read", resources...))
		return p.asking(url.Values{"grant_type": {"authorization_code"}, "code": {code}}, asked...)
	}
	for _, c := range []struct {
		rule          string
		granted, asks []string
		want          string
	}{
		{"none", nil, nil, p.issuer},
		{"none, and the issuer", nil, []string{p.issuer}, p.issuer},
		{"one", []string{filesAPI}, nil, filesAPI},
		{"one, asked again", []string{filesAPI}, []string{filesAPI}, filesAPI},
		{"two", []string{filesAPI, runsAPI}, nil, both},
		{"one twice", []string{filesAPI, filesAPI}, nil, filesAPI},
		{"one of two", []string{filesAPI, runsAPI}, []string{runsAPI}, runsAPI},
		{"two of two", []string{runsAPI, filesAPI}, []string{filesAPI, runsAPI}, both},
		{"the issuer and one", []string{p.issuer, filesAPI}, nil, fmt.Sprint([]any{p.issuer, filesAPI})},
		{"an empty one", []string{""}, []string{""}, p.issuer},
	} {
		if got := exchange(c.granted, c.asks...).audience(t); got != c.want {
			t.Errorf("%s: %s, want %s", c.rule, got, c.want)
		}
	}
	exchange([]string{filesAPI}, runsAPI).wants(t, "one that was not granted", http.StatusBadRequest, "invalid_target")
	exchange([]string{filesAPI}, filesAPI, runsAPI).wants(t, "one more than was granted", http.StatusBadRequest,
		"invalid_target")
	exchange([]string{filesAPI}, p.issuer).wants(t, "the issuer, which was not granted", http.StatusBadRequest,
		"invalid_target")
	exchange(nil, filesAPI).wants(t, "one although none was granted", http.StatusBadRequest, "invalid_target")
	exchange([]string{filesAPI}, "https://unknown.test").wants(t, "an unknown one", http.StatusBadRequest,
		"invalid_target")

	// A refused target costs no code and no refresh token; each refresh may choose anew.
	code := p.browser().codeFor(p.withResources("threads:read", filesAPI, runsAPI))
	form := func() url.Values { return url.Values{"grant_type": {"authorization_code"}, "code": {code}} }
	p.asking(form(), "https://unknown.test").wants(t, "an unknown one", http.StatusBadRequest, "invalid_target")
	got := p.asking(form(), runsAPI)
	refresh := func(asked ...string) reply {
		t.Helper()
		return p.asking(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.text("refresh_token")}}, asked...)
	}
	for _, c := range []struct {
		asks []string
		want string
	}{{nil, both}, {[]string{filesAPI}, filesAPI}, {nil, both}, {[]string{runsAPI, filesAPI},
		fmt.Sprint([]any{runsAPI, filesAPI})}} {
		refresh(p.issuer).wants(t, "refresh for what was not granted", http.StatusBadRequest, "invalid_target")
		got = refresh(c.asks...)
		if aud := got.audience(t); aud != c.want {
			t.Errorf("refresh for %v: %s, want %s", c.asks, aud, c.want)
		}
	}
	inJSON := p.send(p.request(http.MethodPost, p.issuer+"/oauth/token",
		fmt.Sprintf(`{"grant_type":"refresh_token","refresh_token":%q,"resource":%q,"client_id":%q,"client_secret":%q}`,
			got.text("refresh_token"), filesAPI, p.client.ID, p.secret), "Content-Type", "application/json"))
	if inJSON.audience(t) != filesAPI {
		t.Errorf("in JSON: %s", inJSON.raw)
	}
}

// What is asked for must be known, and not too much.
func TestResourcesAreChecked(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.speaker("https://more.test/" + strings.Repeat("x", 1100))
	b := p.browser()
	for rule, resources := range map[string][]string{
		"unknown":             {"https://unknown.test"},
		"one of two unknown":  {filesAPI, "https://unknown.test"},
		"relative":            {"/api"},
		"with a fragment":     {filesAPI + "#x"},
		"with a slash":        {filesAPI + "/"},
		"in another case":     {strings.ToUpper(filesAPI)},
		"a client_id":         {p.client.ID},
		"an id of the config": {filesID},
		"nine":                {filesAPI, filesAPI, filesAPI, filesAPI, filesAPI, filesAPI, filesAPI, filesAPI, filesAPI},
		"a huge one":          {"https://more.test/" + strings.Repeat("x", 1100)},
	} {
		p.redirected(b.get(p.withResources("threads:read", resources...)), rule, "invalid_target")
	}
	// An app that is gone takes its resource servers along.
	if got := b.get(p.withResources("threads:read", runsAPI)); got.asks() != "password" {
		t.Errorf("known: %d %v", got.status, got.location)
	}
	p.update("runs-api", func(c *storage.Client) { c.ResourceIdentifiers = nil })
	p.redirected(b.get(p.withResources("threads:read", runsAPI)), "nobody speaks for it any more", "invalid_target")
}

// Who asks for openid and a resource can call userinfo, without a token that is good anywhere else; who asks the token
// endpoint for one resource gets a token for that alone.
func TestUserinfoBesideResources(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.speaker()
	userinfo := p.issuer + "/oauth/userinfo"
	code := func(resources ...string) url.Values {
		t.Helper()
		return url.Values{"grant_type": {"authorization_code"},
			"code": {p.browser().codeFor(p.withResources("openid threads:read", resources...))}}
	}
	works := func(got reply) bool { t.Helper(); return p.userinfo(got.text("access_token")).status == http.StatusOK }
	beside := p.asking(code(filesAPI))
	if beside.audience(t) != fmt.Sprint([]any{filesAPI, userinfo}) || !works(beside) {
		t.Errorf("beside a resource: %s", beside.audience(t))
	}
	alone := p.asking(code(filesAPI), filesAPI)
	if alone.audience(t) != filesAPI || works(alone) {
		t.Errorf("one resource alone: %s", alone.audience(t))
	}
	p.userinfo(alone.text("access_token")).wants(t, "a token for a resource", http.StatusUnauthorized, "invalid_token")
	later := p.asking(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {alone.text("refresh_token")}},
		userinfo)
	if later.audience(t) != userinfo || !works(later) {
		t.Errorf("userinfo alone, later: %s", later.audience(t))
	}
	less := p.asking(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {later.text("refresh_token")},
		"scope": {"threads:read"}})
	if less.audience(t) != filesAPI {
		t.Errorf("without openid: %s", less.audience(t))
	}
	issuer := p.asking(code(p.issuer, filesAPI))
	if issuer.audience(t) != fmt.Sprint([]any{p.issuer, filesAPI}) || !works(issuer) {
		t.Errorf("the issuer was asked for: %s", issuer.audience(t))
	}
	if none := p.asking(code()); none.audience(t) != p.issuer || !works(none) {
		t.Errorf("no resource: %s", none.audience(t))
	}
}

// A client's own token is for whom it asks (RFC 8707 section 2.2).
func TestResourcesOfAClientsOwnToken(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.speaker()
	p.update("my-app", func(c *storage.Client) { c.GrantTypes = []string{"client_credentials"} })
	form := func() url.Values {
		return url.Values{"grant_type": {"client_credentials"}, "scope": {"threads:read"}}
	}
	for want, resources := range map[string][]string{
		p.issuer: nil, filesAPI: {filesAPI}, fmt.Sprint([]any{runsAPI, filesAPI}): {runsAPI, filesAPI, runsAPI},
	} {
		got := p.asking(form(), resources...)
		if got.audience(t) != want {
			t.Errorf("%v: %s", resources, got.audience(t))
		}
	}
	p.asking(form(), "https://unknown.test").wants(t, "an unknown one", http.StatusBadRequest, "invalid_target")
	d := p.informed()
	d.bound(d.token(form()), "with a proof")
}
