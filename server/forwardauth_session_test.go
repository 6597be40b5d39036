package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// grantsOf are the live grants of ann to an app.
func (p *idp) grantsOf(clientID string) int {
	p.t.Helper()
	grants, _, err := p.store.Grants(p.t.Context(), storage.GrantQuery{UserID: "user-ann", ClientID: clientID})
	if err != nil {
		p.t.Fatal(err)
	}
	return len(grants)
}

// A browser that has lost the app's cookie gets another one, and nothing piles up: what it had there ends, and nothing
// else does.
func TestForwardAuthReplacesWhatTheBrowserHad(t *testing.T) {
	p := newBehind(t)
	p.clock.begin()
	const wiki, local, blog = "https://" + wikiHost + "/", "http://" + wikiLocal + "/", "https://" + blogHost + "/"
	b, elsewhere := p.visitor(), p.visitor()
	for _, at := range []string{wiki, local, blog} {
		b.enters(at)
		elsewhere.enters(at)
	}
	app := p.store.AtHost(wikiHost).ID
	var before string
	for range 3 {
		before = b.hostCookies(wiki)["__Host-warifu_app"]
		p.clock.forward(2 * time.Minute)
		if got := b.without(wiki, "__Host-warifu_app").enters(wiki); got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if n := p.grantsOf(app); n != 4 {
		t.Errorf("two browsers at two hosts of the app have %d grants", n)
	}
	for _, visit := range []struct {
		of *browser
		at string
	}{{b, wiki}, {b, local}, {b, blog}, {elsewhere, wiki}, {elsewhere, local}, {elsewhere, blog}} {
		if got := visit.of.get(visit.at); got.status != http.StatusOK {
			t.Errorf("%s: %d", visit.at, got.status)
		}
	}
	old := p.request(http.MethodGet, wiki, "", "Cookie", "__Host-warifu_app="+before)
	if got := p.visitor().do(old); got.status != http.StatusSeeOther {
		t.Errorf("the cookie that was lost: %d", got.status)
	}
}

// Tabs that were opened at once come back at once, none of them with the app's cookie: whichever cookie the browser
// keeps of those that it gets, all are signed in.
func TestForwardAuthOfManyTabsAtOnce(t *testing.T) {
	p := newBehind(t)
	p.clock.begin()
	const wiki = "https://" + wikiHost + "/"
	b := p.visitor()
	b.enters(wiki)
	p.clock.forward(2 * time.Minute)
	b.without(wiki, "__Host-warifu_app")
	var answers []*http.Request
	for range 3 {
		back := b.get(b.get(wiki).location.String())
		if back.location == nil || back.location.Path != "/.warifu/callback" {
			t.Fatalf("%d %v", back.status, back.location)
		}
		answers = append(answers, p.request(http.MethodGet, back.location.String(), "", "Cookie",
			"__Host-warifu_away="+b.hostCookies(wiki)["__Host-warifu_away"]))
	}
	var kept []string
	for _, answer := range answers {
		tab := p.visitor()
		if got := tab.do(answer); got.location == nil || got.location.String() != wiki {
			t.Fatalf("%d %v", got.status, got.location)
		}
		kept = append(kept, tab.hostCookies(wiki)["__Host-warifu_app"])
	}
	for i, cookie := range kept {
		if got := p.visitor().do(p.request(http.MethodGet, wiki, "", "Cookie", "__Host-warifu_app="+
			cookie)); got.status != http.StatusOK {
			t.Errorf("with the cookie of tab %d: %d", i, got.status)
		}
	}
	p.clock.forward(2 * time.Minute)
	b.enters(wiki)
	if n := p.grantsOf(p.store.AtHost(wikiHost).ID); n != 1 {
		t.Errorf("after the next sign-in there are %d grants", n)
	}
}

// The end that operators and users are told is the true one: that of the session, at which it comes.
func TestForwardAuthEndsWithTheSession(t *testing.T) {
	for _, grants := range [][]string{nil, {oauth.GrantAuthorizationCode}} {
		p := newBehind(t, func(c *server.Config) { c.Lifetimes.RefreshIdle = time.Hour })
		p.clock.begin()
		p.update("wiki", func(c *storage.Client) { c.GrantTypes = grants })
		const wiki, blog = "https://" + wikiHost + "/", "https://" + blogHost + "/"
		b := p.visitor()
		b.enters(blog)
		p.clock.forward(20 * time.Hour)
		consent := b.get(b.get(wiki).location.String())
		if consent.asks() != "decision" || strings.Contains(consent.body, "without use") ||
			!strings.Contains(consent.body, "until you sign out in this browser, for 4 hours at most") {
			t.Errorf("the question of consent: %s", consent.body)
		}
		back := b.decide(consent, "allow")
		got := b.get(back.location.String())
		if age := cookieNamed(got, "__Host-warifu_app").MaxAge; age != 4*3600 {
			t.Errorf("the cookie lasts for %d s", age)
		}
		ends := p.clock.now().Add(4 * time.Hour).Truncate(time.Millisecond)
		listed := fmt.Sprint(p.operator(http.MethodGet, "/v1/grants"))
		if !strings.Contains(listed, "expiresAt:"+ends.UTC().Format(time.RFC3339Nano)) {
			t.Errorf("operators are not told that it ends at %v: %s", ends.UTC(), listed)
		}
		p.clock.forward(4*time.Hour - time.Second)
		for _, at := range []string{wiki, blog} {
			if got := b.get(at); got.status != http.StatusOK {
				t.Errorf("%s before the end of the session: %d", at, got.status)
			}
		}
		p.clock.forward(2 * time.Second)
		if got := b.follow(b.get(wiki)); got.asks() != "password" {
			t.Errorf("after the end of the session: %d %s", got.status, shown(got.body))
		}
	}
}
