package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/warifu/warifu/storage"
)

// elements are the attributes of the elements of that name on a page.
func (got page) elements(t testing.TB, name string) []map[string]string {
	t.Helper()
	root, err := html.Parse(strings.NewReader(got.body))
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == name {
			attributes := map[string]string{}
			for _, a := range n.Attr {
				attributes[a.Key] = a.Val
			}
			out = append(out, attributes)
		}
	}
	return out
}

// Each app that the session was used with and that wants it is shown in a frame, with issuer and session where it needs
// them (Front-Channel Logout 1.0 section 2); then the browser goes back to the app that asked, by itself or by the
// button.
func TestFrontchannelLogout(t *testing.T) {
	p := logoutIDP(t, func(c *storage.Client) {
		c.FrontchannelLogoutURI, c.FrontchannelLogoutSessionRequired = "https://app.test/front?app=1", true
	})
	with := func(name string, change func(*storage.Client)) *idp { return p.as(p.register(name, change)) }
	plain := with("plain", func(c *storage.Client) { c.FrontchannelLogoutURI = "http://localhost:4711/front" })
	same := with("same-origin", func(c *storage.Client) { c.FrontchannelLogoutURI = "https://app.test/other" })
	none := with("none", func(*storage.Client) {})
	with("never", func(c *storage.Client) { c.FrontchannelLogoutURI = "https://never.test/" })
	bad := with("bad", func(c *storage.Client) { c.FrontchannelLogoutURI = "http://plain.test/" })
	b := p.browser()
	id := p.exchange(b.code("scope", "openid")).text("id_token")
	for _, q := range []*idp{plain, same, none, bad} {
		q.exchange((&browser{q, b.http}).code("scope", "openid"))
	}
	got := b.get(p.logoutURL("id_token_hint", id, "post_logout_redirect_uri", afterLogout, "state", "a b"))
	got.signedOut(t, "with frames")
	want := map[string]bool{
		"https://app.test/front?app=1&" + url.Values{"iss": {p.issuer},
			"sid": {claimsOf(t, id)["sid"].(string)}}.Encode(): true,
		"http://localhost:4711/front": true, "https://app.test/other": true,
	}
	frames := got.elements(t, "iframe")
	for _, frame := range frames {
		if !want[frame["src"]] || frame["sandbox"] != "allow-scripts allow-same-origin" || frame["title"] == "" {
			t.Errorf("frame %v", frame)
		}
		delete(want, frame["src"])
	}
	if len(want) != 0 || len(frames) != 3 {
		t.Errorf("no frames for %v", want)
	}
	policy := got.header.Get("Content-Security-Policy")
	_, sources, _ := strings.Cut(policy, "frame-src ")
	sources, _, _ = strings.Cut(sources, ";")
	for _, source := range []string{"https://app.test", "http://localhost:4711"} {
		if strings.Count(" "+sources+" ", " "+source+" ") != 1 {
			t.Errorf("frame-src %q lacks %s, or has it twice", sources, source)
		}
	}
	if len(strings.Fields(sources)) != 2 || strings.Contains(policy, "script-src") {
		t.Errorf("policy %s", policy)
	}
	refresh := ""
	for _, meta := range got.elements(t, "meta") {
		if meta["http-equiv"] == "refresh" {
			refresh = meta["content"]
		}
	}
	if refresh != "3;url="+afterLogout+"?state=a+b" {
		t.Errorf("refresh %q", refresh)
	}
	button := false
	for _, a := range got.elements(t, "a") {
		button = button || a["href"] == afterLogout+"?state=a+b"
	}
	if !button {
		t.Error("no way on without a refresh")
	}
	if b.signedInHere() {
		t.Error("still signed in")
	}
	// Once more there is nothing to show.
	if again := b.get(p.logoutURL("id_token_hint", id, "post_logout_redirect_uri", afterLogout, "state",
		"a b")); again.status != http.StatusSeeOther {
		t.Errorf("again: %d", again.status)
	}
}

// Without an address to go back to, the page with frames stays; after the question it looks the same.
func TestFrontchannelLogoutStays(t *testing.T) {
	p := logoutIDP(t, func(c *storage.Client) { c.FrontchannelLogoutURI = "https://app.test/front" })
	b := p.browser()
	p.exchange(b.code("scope", "openid"))
	got := b.decide(b.get(p.logoutURL()), "signout")
	got.signedOut(t, "after the question")
	if frames := got.elements(t, "iframe"); len(frames) != 1 || frames[0]["src"] != "https://app.test/front" {
		t.Errorf("frames %v", frames)
	}
	if strings.Contains(got.body, "http-equiv=\"refresh\"") {
		t.Error("it goes somewhere")
	}
	// A session that no app with a frame was used with goes straight back.
	other := p.browser()
	other.code("scope", "threads:read")
	if got := other.decide(other.get(p.logoutURL("client_id", p.client.ID, "post_logout_redirect_uri", afterLogout)),
		"signout"); got.location == nil {
		t.Errorf("%d", got.status)
	}
}
