package server_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// The performance design: what each request may ask of etcd, once the shared leases are there.
func TestWhatRequestsAskOfEtcd(t *testing.T) {
	p := newIDP(t, trustsLoopback)
	p.clock.stop() // leases are shared for five minutes: no request shall meet their end
	warm := p.tokens("scope", "openid threads:read")
	newest := p.refresh(warm.text("refresh_token"))
	code, tellingCode, told := p.code("scope", "openid threads:read"), p.code("scope", "openid email profile"), reply{}
	d, provenCode, proven := p.informed(), p.code("scope", "openid threads:read"), reply{}
	stranger := p.browser()
	address := p.authorizeURL()
	pushedURL, object := p.pushedURL(p.push()), unsigned(t, p.asked(nil))
	signIn := stranger.get(address)
	b, _ := p.signedIn("bob@app.test")
	known := p.browser()
	known.code()
	leaving := p.browser()
	p.update("my-app", func(c *storage.Client) { c.PostLogoutRedirectURIs = []string{afterLogout} })
	hint := p.exchange(leaving.code("scope", "openid")).text("id_token")
	known.answered(known.get(p.pushedURL(p.push())), "the lease of such marks is there now")
	inTabs := p.as(p.register("tabs", func(c *storage.Client) { c.ReuseInterval = "1m" }))
	firstTab := inTabs.tokens()
	newestTab := inTabs.refresh(firstTab.text("refresh_token"))
	keyed := p.keyed("key-app", "ES256")
	service := p.service("batch")
	keyedCode := keyed.code()
	keyedFirst := keyed.asserting("/oauth/token", keyed.assertion("ES256", nil), redeeming(keyed.code()))
	p.update("my-app", func(c *storage.Client) { c.ForwardAuthHosts = []string{wikiHost} })
	guest, atWiki := p.visitor(), "https://"+wikiHost+"/"
	guest.enters(atWiki)
	spent, forged := keyed.assertion("ES256", nil), keyed.assertion("EdDSA", nil)
	own := service.call("/oauth/token", forItself("threads:read"))
	asserting := func(path string, form url.Values) int {
		return keyed.asserting(path, keyed.assertion("ES256", nil), form).status
	}

	for _, c := range []struct {
		rule   string
		want   storagetest.Counts
		status int
		do     func() int
	}{
		{"code exchange", storagetest.Counts{Proposals: 1}, 200, func() int { return p.exchange(code).status }},
		{"code replay", storagetest.Counts{Proposals: 1}, 400, func() int { return p.exchange(code).status }},
		{"refresh", storagetest.Counts{Proposals: 1}, 200, func() int {
			newest = p.refresh(newest.text("refresh_token"))
			return newest.status
		}},
		{"refresh with a reuse interval", storagetest.Counts{Proposals: 1}, 200, func() int {
			newestTab = inTabs.refresh(newestTab.text("refresh_token"))
			return newestTab.status
		}},
		{"refresh with a token that was used, in its reuse interval", storagetest.Counts{Proposals: 1, Reads: 1}, 200,
			func() int {
				return inTabs.refresh(firstTab.text("refresh_token")).status
			}},
		{"code exchange whose ID token tells about the user", storagetest.Counts{Proposals: 1}, 200, func() int {
			told = p.exchange(tellingCode)
			return told.status
		}},
		{"refresh whose ID token tells about the user", storagetest.Counts{Proposals: 1}, 200, func() int {
			return p.refresh(told.text("refresh_token")).status
		}},
		{"code exchange with DPoP", storagetest.Counts{Proposals: 1}, 200, func() int {
			proven = d.exchange(provenCode)
			return proven.status
		}},
		{"refresh with DPoP", storagetest.Counts{Proposals: 1}, 200, func() int {
			proven = d.refresh(proven.text("refresh_token"))
			return proven.status
		}},
		{"refresh with a proof without a nonce", storagetest.Counts{}, 400, func() int {
			return p.machine("/oauth/token", url.Values{"grant_type": {"refresh_token"},
				"refresh_token": {proven.text("refresh_token")}, "client_id": {p.client.ID}, "client_secret": {p.secret}},
				"DPoP", d.proof(http.MethodPost, "/oauth/token", "", "nonce", nil)).status
		}},
		{"refresh for an unknown resource", storagetest.Counts{}, 400, func() int {
			return p.refresh(newest.text("refresh_token"), "resource", "https://unknown.test").status
		}},
		{"userinfo with DPoP", storagetest.Counts{Reads: 1}, 200, func() int {
			return d.userinfo(http.MethodGet, proven.text("access_token")).status
		}},
		{"userinfo with a token that is bound, as Bearer", storagetest.Counts{}, 401, func() int {
			return p.userinfo(proven.text("access_token")).status
		}},
		{"refresh with garbage", storagetest.Counts{}, 400, func() int { return p.refresh("wfr_garbage").status }},
		{"exchange with garbage", storagetest.Counts{}, 400, func() int { return p.exchange("wfc_garbage").status }},
		{"wrong secret", storagetest.Counts{}, 401, func() int {
			return p.exchange("x", "client_id", p.client.ID, "client_secret", "x").status
		}},
		{"unknown client", storagetest.Counts{Reads: 1}, 401, func() int {
			return p.exchange("x", "client_id", "unknown", "client_secret", "x").status
		}},
		{"introspection", storagetest.Counts{Reads: 1}, 200, func() int {
			return p.call("/oauth/introspect", url.Values{"token": {newest.text("access_token")}}).status
		}},
		{"introspection of a refresh token", storagetest.Counts{Reads: 1}, 200, func() int {
			return p.call("/oauth/introspect", url.Values{"token": {newest.text("refresh_token")}}).status
		}},
		{"introspection of garbage", storagetest.Counts{}, 200, func() int {
			return p.call("/oauth/introspect", url.Values{"token": {"x"}}).status
		}},
		{"userinfo", storagetest.Counts{Reads: 1}, 200, func() int { return p.userinfo(newest.text("access_token")).status }},
		{"userinfo with garbage", storagetest.Counts{}, 401, func() int { return p.userinfo("x").status }},
		{"authorize before sign-in", storagetest.Counts{}, 200, func() int { return stranger.get(address).status }},
		{"authorize by POST", storagetest.Counts{}, 200, func() int {
			return stranger.follow(stranger.post(p.issuer+"/oauth/authorize", url.Values{"client_id": {p.client.ID},
				"redirect_uri":  {callback},
				"response_type": {"code"}, "scope": {"threads:read"}})).status
		}},
		{"pushing a request", storagetest.Counts{}, 201, func() int { return p.push().status }},
		{"pushing an invalid request", storagetest.Counts{}, 400, func() int { return p.push("scope", "x").status }},
		{"a pushed request before sign-in", storagetest.Counts{}, 200, func() int { return stranger.get(pushedURL).status }},
		{"a request_uri of garbage", storagetest.Counts{}, 400, func() int {
			return stranger.get(p.authorizeURL("request_uri", "urn:ietf:params:oauth:request_uri:x")).status
		}},
		{"a pushed request when all is known", storagetest.Counts{Reads: 1, Proposals: 1}, 303, func() int {
			return known.get(pushedURL).status
		}},
		{"a request object before sign-in", storagetest.Counts{}, 200, func() int {
			return stranger.get(p.objectURL(object)).status
		}},
		{"a request object of garbage", storagetest.Counts{}, 400, func() int {
			return stranger.get(p.objectURL("x")).status
		}},
		{"an invalid request", storagetest.Counts{}, 303, func() int {
			return stranger.get(p.authorizeURL("scope", "x")).status
		}},
		{"a session cookie of garbage", storagetest.Counts{}, 200, func() int {
			stranger.plant("session", "wfk_garbage")
			return stranger.get(address).status
		}},
		{"authorize when all is known", storagetest.Counts{Reads: 1}, 303, func() int { return known.get(address).status }},
		{"consent page", storagetest.Counts{Reads: 1}, 200, func() int { return b.get(address).status }},
		{"a wrong password", storagetest.Counts{Proposals: 1}, 422, func() int {
			return stranger.signIn(signIn, userEmail, "x").status
		}},
		{"code exchange with an assertion", storagetest.Counts{Proposals: 1}, 200, func() int {
			return keyed.asserting("/oauth/token", spent, redeeming(keyedCode)).status
		}},
		{"code replay with an assertion", storagetest.Counts{Proposals: 1}, 400, func() int {
			return asserting("/oauth/token", redeeming(keyedCode))
		}},
		{"an assertion that was used", storagetest.Counts{Proposals: 1}, 401, func() int {
			return keyed.asserting("/oauth/token", spent, redeeming(keyedCode)).status
		}},
		{"refresh with an assertion", storagetest.Counts{Proposals: 1}, 200, func() int {
			return asserting("/oauth/token", refreshing(keyedFirst.text("refresh_token")))
		}},
		{"garbage with an assertion", storagetest.Counts{Proposals: 1}, 400, func() int {
			return asserting("/oauth/token", refreshing("wfr_x"))
		}},
		{"a forged assertion", storagetest.Counts{}, 401, func() int {
			return keyed.asserting("/oauth/token", forged, redeeming("x")).status
		}},
		{"introspection with an assertion", storagetest.Counts{Proposals: 1, Reads: 1}, 200, func() int {
			return asserting("/oauth/introspect", url.Values{"token": {keyedFirst.text("access_token")}})
		}},
		{"client credentials", storagetest.Counts{Reads: 1}, 200, func() int {
			return service.call("/oauth/token", forItself("threads:read")).status
		}},
		{"client credentials with an assertion", storagetest.Counts{Proposals: 1, Reads: 1}, 200, func() int {
			return asserting("/oauth/token", forItself("threads:read"))
		}},
		{"introspection of a client's own token", storagetest.Counts{Reads: 1}, 200, func() int {
			return service.call("/oauth/introspect", url.Values{"token": {own.text("access_token")}}).status
		}},
		{"revocation of a client's own token", storagetest.Counts{Proposals: 1}, 200, func() int {
			return service.call("/oauth/revoke", url.Values{"token": {own.text("access_token")}}).status
		}},
		{"a request to an app behind forward auth", storagetest.Counts{Reads: 1}, 200, func() int {
			return guest.get(atWiki).status
		}},
		{"one before sign-in", storagetest.Counts{}, 303, func() int { return p.visitor().get(atWiki).status }},
		{"one with garbage for a sign-in", storagetest.Counts{}, 303, func() int {
			return p.visitor().do(p.request(http.MethodGet, atWiki, "", "Cookie", "__Host-warifu_app=wfg_garbage")).status
		}},
		{"one of a host that no app has", storagetest.Counts{}, 403, func() int {
			return guest.get("https://unknown.test/").status
		}},
		{"JWKS", storagetest.Counts{}, 200, func() int {
			return p.send(p.request(http.MethodGet, p.issuer+"/oauth/jwks", "")).status
		}},
		{"discovery", storagetest.Counts{}, 200, func() int {
			return p.send(p.request(http.MethodGet, p.issuer+"/.well-known/openid-configuration", "")).status
		}},
		{"landing", storagetest.Counts{}, 200, func() int { return p.browser().get(p.issuer + "/").status }},
		{"landing with a session", storagetest.Counts{Reads: 1}, 200, func() int { return b.get(p.issuer + "/").status }},
		{"logout without a session", storagetest.Counts{}, 200, func() int {
			return p.browser().get(p.issuer + "/oauth/logout").status
		}},
		{"the question before a logout", storagetest.Counts{Reads: 1}, 200, func() int {
			return b.get(p.issuer + "/oauth/logout").status
		}},
		{"logout with a hint", storagetest.Counts{Proposals: 1, Reads: 2}, 200, func() int {
			return leaving.get(p.logoutURL("id_token_hint", hint)).status
		}},
		{"logout with its question", storagetest.Counts{Proposals: 1, Reads: 3}, 200, func() int {
			return b.decide(b.get(p.issuer+"/oauth/logout"), "signout").status
		}},
		{"revocation", storagetest.Counts{Proposals: 1}, 200, func() int {
			return p.call("/oauth/revoke", url.Values{"token": {newest.text("refresh_token")}}).status
		}},
		{"revocation of garbage", storagetest.Counts{}, 200, func() int {
			return p.call("/oauth/revoke", url.Values{"token": {"x"}}).status
		}},
	} {
		status := 0
		if got := p.etcd.Count(func() { status = c.do() }); got != c.want || status != c.status {
			t.Errorf("%s: %+v, want %+v; status %d, want %d", c.rule, got, c.want, status, c.status)
		}
	}
}

// A record that changed costs one attempt more, once.
func TestWhatAChangeCosts(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	first := p.tokens()
	second := p.refresh(first.text("refresh_token"))
	p.putUser(storage.User{ID: "user-ann", Email: "new@app.test"})
	var third reply
	// The one that failed, a look at what has changed, and the one that was decided on that.
	if got := p.etcd.Count(func() {
		third = p.refresh(
			second.text("refresh_token"))
	}); got != (storagetest.Counts{Proposals: 2, Reads: 1}) || third.status != http.StatusOK {
		t.Errorf("the refresh after a change of the user: %+v, %d", got, third.status)
	}
	if got := p.etcd.Count(func() { p.refresh(third.text("refresh_token")) }); got != (storagetest.Counts{Proposals: 1}) {
		t.Errorf("the one after that: %+v", got)
	}
	p.update("my-app", func(c *storage.Client) { c.ClientName = "New name" })
	code := p.code()
	if got := p.etcd.Count(func() { p.exchange(code) }); got != (storagetest.Counts{Proposals: 1}) {
		t.Errorf("an exchange after a change of the client that memory knows: %+v", got)
	}
}

// Requests for clients that nobody knows are looked up at a bounded rate, and are told so.
func TestFloodOfUnknownClients(t *testing.T) {
	p := newIDP(t)
	busy, asked := 0, 0
	counts := p.etcd.Count(func() {
		for ; busy < 10 && asked < 20_000; asked++ {
			got := p.exchange("x", "client_id", storage.NewClientID("ghost"), "client_secret", "x")
			if got.status == http.StatusServiceUnavailable {
				busy++
				got.wants(t, "beyond the limit", http.StatusServiceUnavailable, "temporarily_unavailable")
			}
		}
	})
	if busy == 0 || counts.Reads+int64(busy) != int64(asked) {
		t.Errorf("%+v, %d refused", counts, busy)
	}
	if got := p.tokens(); got.status != http.StatusOK {
		t.Error("a known client suffers")
	}
}
