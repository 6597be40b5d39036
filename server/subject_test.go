package server_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/oauth2"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func bearer(token string) oauth2.TokenSource {
	return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token})
}

func pairwiseApp(redirects ...string) func(*storage.Client) {
	return func(c *storage.Client) {
		c.SubjectType, c.RedirectURIs = oauth.SubjectPairwise, append(redirects, callback)
	}
}

// subjects are what each place calls the user: ID token, access token, userinfo, introspection of either token.
func (p *idp) subjects(issued reply) map[string]any {
	p.t.Helper()
	return map[string]any{
		"ID token":     claimsOf(p.t, issued.text("id_token"))["sub"],
		"access token": claimsOf(p.t, issued.text("access_token"))["sub"],
		"userinfo":     p.userinfo(issued.text("access_token")).json["sub"],
		"introspection": p.call("/oauth/introspect",
			url.Values{"token": {issued.text("access_token")}}).json["sub"],
		"introspection of a refresh token": p.call("/oauth/introspect",
			url.Values{"token": {issued.text("refresh_token")}}).json["sub"],
	}
}

// A pairwise client knows the user by one name in every place, which is that of its sector and of no other (OpenID
// Connect Core 1.0 section 8.1).
func TestPairwiseSubjects(t *testing.T) {
	p := newIDP(t)
	plain := p.tokens("scope", "openid")
	for place, sub := range p.subjects(plain) {
		if sub != "user-ann" {
			t.Errorf("public, %s: %v", place, sub)
		}
	}
	first := p.as(p.register("first", pairwiseApp()))
	same := p.as(p.register("same-host", pairwiseApp("https://app.test/other")))
	other := p.as(p.register("other", func(c *storage.Client) {
		pairwiseApp()(c)
		c.SectorIdentifierURI = "https://sector.test/redirects.json"
	}))
	names := map[*idp]string{}
	for _, q := range []*idp{first, same, other} {
		issued := q.tokens("scope", "openid email")
		sub, _ := claimsOf(t, issued.text("id_token"))["sub"].(string)
		for place, got := range q.subjects(issued) {
			if got != sub || sub == "user-ann" || len(sub) > 255 || sub == "" {
				t.Errorf("%s: %v, want %q", place, got, sub)
			}
		}
		for _, token := range []string{"access_token", "refresh_token"} {
			intro := q.call("/oauth/introspect", url.Values{"token": {issued.text(token)}})
			for _, global := range []string{"user-ann", `"ann"`} {
				if strings.Contains(issued.raw+intro.raw, global) {
					t.Errorf("%s is told: %s", global, intro.raw)
				}
			}
		}
		refreshed := q.refresh(issued.text("refresh_token"))
		if claimsOf(t, refreshed.text("access_token"))["sub"] != sub {
			t.Error("another subject after a refresh")
		}
		if info := q.userinfo(refreshed.text("access_token")); info.json["email"] != userEmail {
			t.Errorf("userinfo: %s", info.raw)
		}
		names[q] = sub
	}
	if names[first] != names[same] || names[first] == names[other] {
		t.Errorf("subjects by sector: %v", names)
	}
	p.restart()
	if again := claimsOf(t, first.tokens("scope", "openid").text("id_token"))["sub"]; again != names[first] {
		t.Errorf("after a restart: %v", again)
	}
	if dump := p.etcd.Dump(); strings.Contains(dump, names[first]) {
		t.Error("the database knows pairwise subjects, which are made anew each time")
	}
}

// Apps of two sectors that lay their subjects together learn nothing: a client asks for a user by its own name for
// them, and what another sector calls them is nobody's.
func TestPairwiseSubjectsAreNotCompared(t *testing.T) {
	p := newIDP(t)
	public := p.as(p.register("public", func(*storage.Client) {}))
	first := p.as(p.register("first", pairwiseApp()))
	other := p.as(p.register("other", pairwiseApp("https://other.test/callback")))
	names := map[*idp]string{}
	browsers := map[*idp]*browser{}
	at := func(q *idp) []string { return []string{"scope", "openid", "redirect_uri", q.client.RedirectURIs[0]} }
	for _, q := range []*idp{public, first, other} {
		browsers[q] = q.browser()
		names[q], _ = claimsOf(t, q.exchange(browsers[q].code(at(q)...), "redirect_uri", q.client.RedirectURIs[0]).text(
			"id_token"))["sub"].(string)
	}
	for _, q := range []*idp{public, first, other} {
		for owner, name := range names {
			claims := fmt.Sprintf(`{"id_token": {"sub": {"value": %q}}}`, name)
			got := browsers[q].get(q.authorizeURL(append(at(q), "prompt", "none", "claims", claims)...))
			if got.location == nil || got.location.Query().Has("code") != (owner == q) {
				t.Errorf("%s asks for %s of %s: %d to %v", q.client.App, name, owner.client.App, got.status, got.location)
			}
		}
	}
}

// The server knows a pairwise subject again without a read more, and when the registration has changed meanwhile.
func TestPairwiseTokensCostTheSame(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	q := p.as(p.register("pairwise", pairwiseApp()))
	issued := q.tokens("scope", "openid")
	code := q.code("scope", "openid")
	for _, c := range []struct {
		rule string
		want storagetest.Counts
		do   func() reply
	}{
		{"code exchange", storagetest.Counts{Proposals: 1}, func() reply { return q.exchange(code) }},
		{"refresh", storagetest.Counts{Proposals: 1}, func() reply { return q.refresh(issued.text("refresh_token")) }},
		{"userinfo", storagetest.Counts{Reads: 1}, func() reply { return q.userinfo(issued.text("access_token")) }},
		{"introspection", storagetest.Counts{Reads: 1}, func() reply {
			return q.call("/oauth/introspect", url.Values{"token": {issued.text("access_token")}})
		}},
	} {
		var got reply
		if counts := p.etcd.Count(func() { got = c.do() }); counts != c.want || got.status != http.StatusOK {
			t.Errorf("%s: %+v, want %+v; %d %s", c.rule, counts, c.want, got.status, got.raw)
		}
	}
	sub := claimsOf(t, issued.text("access_token"))["sub"]
	p.update("pairwise", func(c *storage.Client) { c.SectorIdentifierURI = "https://elsewhere.test/" })
	if got := q.userinfo(issued.text("access_token")); got.json["sub"] != sub {
		t.Errorf("in another sector: %d %s", got.status, got.raw)
	}
	p.update("pairwise", func(c *storage.Client) { c.SubjectType = "" })
	if got := q.userinfo(issued.text("access_token")); got.json["sub"] != sub || !q.active(issued.text("access_token")) {
		t.Errorf("public since: %d %s", got.status, got.raw)
	}
	if q.userinfo(issued.text("access_token")); !q.active(issued.text("access_token")) {
		t.Error("an access token of a moment ago")
	}
	for _, user := range []string{"user-bob", "nobody"} {
		forged := claimsOf(t, issued.text("access_token"))
		other, err := p.store.PairwiseSubject("app.test", user)
		if err != nil {
			t.Fatal(err)
		}
		forged["sub"] = other
		es := p.signingKey(storage.UseES256)
		if q.good(signedBy(t, es.Private, "ES256", map[string]any{"typ": "at+jwt", "kid": es.Name()}, forged)) {
			t.Errorf("the grant is not %s's", user)
		}
	}
}

// A session has one name for each sector, or apps that compare it would know that their users are one; and each app can
// end the session by the name that it knows.
func TestPairwiseSessions(t *testing.T) {
	front := func(host string) func(*storage.Client) {
		return func(c *storage.Client) {
			pairwiseApp()(c)
			c.SectorIdentifierURI, c.PostLogoutRedirectURIs = "https://"+host+"/", []string{afterLogout}
			c.FrontchannelLogoutURI, c.FrontchannelLogoutSessionRequired = callback+"/"+host, true
		}
	}
	p := newIDP(t)
	b := p.browser()
	sids, last := map[string]bool{}, ""
	want := map[string]bool{}
	for _, host := range []string{"a.test", "b.test"} {
		q := p.as(p.register(strings.ReplaceAll(host, ".", "-"), front(host)))
		last = q.exchange((&browser{q, b.http}).code("scope", "openid")).text("id_token")
		sid, _ := claimsOf(t, last)["sid"].(string)
		sids[sid] = true
		want[callback+"/"+host+"?"+url.Values{"iss": {p.issuer}, "sid": {sid}}.Encode()] = true
	}
	if len(sids) != 2 || sids[""] {
		t.Errorf("sid: %v", sids)
	}
	got := b.get(p.logoutURL("id_token_hint", last, "post_logout_redirect_uri", afterLogout))
	got.signedOut(t, "by a hint of a pairwise app")
	for _, frame := range got.elements(t, "iframe") {
		delete(want, frame["src"])
	}
	if len(want) != 0 || b.signedInHere() {
		t.Errorf("not told: %v", want)
	}
}

// The document at sector_identifier_uri must list every redirect URI (OpenID Connect Core 1.0 section 8.1).
func TestSectorIdentifierDocument(t *testing.T) {
	documents := map[string]string{
		"/good":   `["https://b.test/cb", "` + callback + `"]`,
		"/less":   `["https://b.test/cb"]`,
		"/folded": `["` + strings.ToUpper(callback) + `"]`,
		"/none":   `[]`, "/null": `null`, "/object": `{"redirect_uris": ["` + callback + `"]}`, "/text": `"` + callback +
			`"`, "/html": `<html>`,
		"/long": `["` + callback + `", "` + strings.Repeat("x", 64<<10) + `"]`,
	}
	var asked atomic.Int64
	site := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/good", http.StatusFound)
			return
		}
		document, ok := documents[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(document))
	}))
	defer site.Close()
	roots := site.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	local := newIDP(t, func(c *server.Config) {
		c.Outbound = outbound.New(outbound.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			RootCAs: roots})
	})
	srv := local.handler.(*server.Server)
	if err := srv.CheckSectorIdentifier(t.Context(), site.URL+
		"/good", []string{callback, "https://b.test/cb"}); err != nil {
		t.Errorf("good: %v", err)
	}
	for path := range documents {
		if err := srv.CheckSectorIdentifier(t.Context(), site.URL+
			path, []string{callback}); (err == nil) != (path == "/good") {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, uri := range []string{site.URL + "/missing", site.URL + "/moved", strings.Replace(site.URL, "https", "http",
		1) + "/good", "file:///etc/passwd", "sector", ""} {
		if err := srv.CheckSectorIdentifier(t.Context(), uri, []string{callback}); err == nil {
			t.Errorf("%q was accepted", uri)
		}
	}
	before := asked.Load()
	private := newIDP(t).handler.(*server.Server) // what is in the server's own network is not fetched
	if err := private.CheckSectorIdentifier(t.Context(), site.URL+"/good", []string{callback}); !errors.Is(err,
		outbound.ErrRefused) || asked.Load() != before {
		t.Errorf("a private address: %v, fetched %d", err, asked.Load()-before)
	}
}
