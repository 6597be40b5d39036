package server_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

// asksFor checks that a request leads to the consent page.
func (b *browser) asksFor(address, rule string) page {
	b.p.t.Helper()
	got := b.follow(b.get(address))
	if got.asks() != "decision" {
		b.p.t.Errorf("%s: not asked: %d %v\n%s", rule, got.status, got.location, shown(got.body))
	}
	return got
}

// allows is asked, says yes, and is not asked again.
func (b *browser) allows(address, rule string) {
	b.p.t.Helper()
	b.answered(b.decide(b.asksFor(address, rule), "allow"), rule)
	b.answered(b.get(address), rule+", again")
}

// A user allows a host, and not all that the client may add later. A second host is remembered beside the first.
func TestConsentGoesOnForAnotherHost(t *testing.T) {
	const other, same = "https://other.test/cb", "https://app.test/another/callback"
	hosts := func(c *storage.Client) { c.RedirectURIs = []string{callback, other, same} }
	manifest := newIDP(t)
	manifest.update("my-app", hosts)
	described, s := newDescribed(t)
	s.says(s.document(map[string]any{"redirect_uris": []string{callback, other, same}}))
	open := newIDP(t, openToAll)
	open = open.itself(open.registration(`{"redirect_uris":["` + callback + `","` + other + `","` + same + `"]}`))
	for kind, p := range map[string]*idp{"manifest": manifest, "document": described, "registration": open} {
		scope := []string{"scope", "openid", "code_challenge", challengeOf(verifier), "code_challenge_method", "S256"}
		b := p.at(t).browser()
		b.code(scope...)
		b.answered(b.get(p.authorizeURL(append(scope, "redirect_uri", same)...)), kind+": another page of the host")
		silent := p.authorizeURL(append(scope, "redirect_uri", other, "prompt", "none")...)
		if got := b.get(silent); strings.Contains(got.header.Get("Location"), "code=") {
			t.Errorf("%s: a code for another host, silently", kind)
		}
		b.allows(p.authorizeURL(append(scope, "redirect_uri", other)...), kind+": another host")
		b.answered(b.get(p.authorizeURL(scope...)), kind+": the first host, after the second")
	}
}

// A user allows an app of a name.
func TestConsentGoesOnForAnotherName(t *testing.T) {
	manifest := newIDP(t)
	described, s := newDescribed(t)
	open := newIDP(t, openToAll)
	registered := open.registration(`{"redirect_uris":["` + callback + `"],"client_name":"My App"}`)
	open = open.itself(registered)
	for kind, c := range map[string]struct {
		p      *idp
		rename func()
	}{
		"manifest": {manifest, func() { manifest.update("my-app", func(c *storage.Client) { c.ClientName = "Your Bank" }) }},
		"document": {described, func() {
			s.says(s.document(map[string]any{"client_name": "Your Bank"}))
			described.clock.forward(time.Hour)
		}},
		"registration": {open, func() {
			body := map[string]any{"client_id": open.client.ID, "redirect_uris": []string{callback}, "client_name": "Your Bank"}
			if got := open.dynamic(http.MethodPut, registered.text("registration_client_uri"),
				registered.text("registration_access_token"), inJSON(t, body)); got.status != http.StatusOK {
				t.Fatal(got.raw)
			}
		}},
	} {
		p, scope := c.p.at(t), append([]string{"scope", "openid"}, withPKCE...)
		b := p.browser()
		b.code(scope...)
		held := b.asksFor(p.authorizeURL(append(scope, "prompt", "consent")...), kind+": asked on purpose")
		c.rename()
		if got := b.follow(b.decide(held, "allow")); got.asks() != "decision" || !strings.Contains(got.body, "Your Bank") {
			t.Errorf("%s: a page that showed another name counts: %d %v", kind, got.status, got.location)
		}
		b.allows(p.authorizeURL(scope...), kind+": another name")
	}
}

// A user allows scopes at the resources that the page named, and not at every API that the app asks for later.
func TestConsentGoesOnForAnotherResource(t *testing.T) {
	p := newIDP(t, withFilesAPI)
	p.speaker()
	b := p.browser()
	b.code("scope", "threads:read")
	b.allows(p.withResources("threads:read", filesAPI), "a resource")
	b.allows(p.withResources("threads:read", filesAPI, runsAPI), "one resource more")
	b.answered(b.get(p.withResources("threads:read", runsAPI)), "one of two")
	b.answered(b.get(p.authorizeURL()), "none, as at first")
	// What was allowed at one is not allowed at the other.
	b.allows(p.withResources("threads:read runs:write", runsAPI), "more at one")
	got := b.asksFor(p.withResources("threads:read runs:write", filesAPI), "as much at the other")
	if !strings.Contains(got.body, "now also wants to") || !strings.Contains(got.body, "already allowed") {
		t.Errorf("what is new is not told from what was allowed: %s", shown(got.body))
	}
}

// older stores a consent as versions did that remembered scopes alone.
func (p *idp) older(scopes ...string) {
	p.t.Helper()
	ann, err := p.store.User(p.t.Context(), "user-ann")
	if err != nil {
		p.t.Fatal(err)
	}
	record, err := json.Marshal(map[string]any{
		"clientId": p.client.ID, "userId": ann.ID, "scopes": scopes, "updatedAt": time.Now(), "term": ann.Term})
	if err != nil {
		p.t.Fatal(err)
	}
	k := p.etcd.Prefix + "consents/" + url.PathEscape(p.client.ID) + "/user-ann"
	if _, err := p.etcd.Client.Put(p.t.Context(), k, string(record)); err != nil {
		p.t.Fatal(err)
	}
}

// A consent that was stored before hosts and names were: an operator's client goes on where it is met first, and there
// alone. Of resources nothing was shown. For clients that nobody answers for, it counts as none.
func TestConsentOfAnOlderVersion(t *testing.T) {
	const other = "https://other.test/cb"
	p := newIDP(t, withFilesAPI, openToAll)
	p.update("my-app", func(c *storage.Client) { c.RedirectURIs = []string{callback, other} })
	b, _ := p.signedIn(userEmail)
	p.older("threads:read", "runs:write")
	b.asksFor(p.withResources("threads:read", filesAPI), "a resource, which was not shown")
	b.answered(b.get(p.authorizeURL("prompt", "none")), "as before")
	b.answered(b.get(p.authorizeURL("scope", "threads:read runs:write", "prompt", "none")), "all that was allowed before")
	b.asksFor(p.authorizeURL("redirect_uri", other), "another host")
	p.update("my-app", func(c *storage.Client) { c.ClientName = "Your Bank" })
	b.asksFor(p.authorizeURL(), "another name")

	open := p.itself(p.registration(`{"redirect_uris":["` + callback + `"]}`))
	open.older("openid")
	b.asksFor(open.authorizeURL("scope", "openid"), "a client that registered itself")
}

// A consent that an operator withdraws at the same moment is not written again by its adoption.
func TestAdoptionDoesNotBringAConsentBack(t *testing.T) {
	p := newIDP(t)
	p.older("threads:read")
	id, err := p.store.CreateSession(t.Context(), storage.Session{UserID: "user-ann",
		ExpiresAt: time.Now().Add(time.Hour)}, "")
	if err != nil {
		t.Fatal(err)
	}
	was, err := p.store.Presence(t.Context(), id, "user-ann", p.client.ID)
	if err != nil || !was.Consent.Bare() {
		t.Fatalf("%+v %v", was.Consent, err)
	}
	if _, err := p.etcd.Client.Delete(t.Context(), p.etcd.Prefix+"consents/"+p.client.ID+"/user-ann"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.AdoptConsent(t.Context(), *was.Consent, "My App", "app.test"); err == nil {
		t.Error("adopted")
	}
	if now, err := p.store.Presence(t.Context(), id, "user-ann", p.client.ID); err != nil || now.Consent != nil {
		t.Errorf("%+v %v", now.Consent, err)
	}
}

// RFC 8252 section 8.6: any program on the user's computer can say that it is a public client there.
func TestPublicClientOnLoopbackIsAskedEachTime(t *testing.T) {
	const local = "http://127.0.0.1:33418/"
	p := newIDP(t)
	public := p.as(p.register("cli", func(c *storage.Client) {
		c.Public, c.RedirectURIs = true,
			[]string{callback, "http://127.0.0.1:*"}
	}))
	ask := append([]string{"redirect_uri", local}, withPKCE...)
	b := public.browser()
	b.code(ask...)
	b.asksFor(public.authorizeURL(ask...), "a second time")
	b.asksFor(public.pushedURL(public.call("/oauth/par", url.Values{
		"client_id": {public.client.ID}, "redirect_uri": {local}, "response_type": {"code"}, "scope": {"threads:read"},
		"code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}})), "after a push")
	got := b.get(public.authorizeURL(append(ask, "prompt", "none")...))
	if got.location == nil || got.location.Query().Get("error") != "consent_required" ||
		got.location.Query().Get("state") != "state-1" {
		t.Errorf("prompt=none: %d %v", got.status, got.location)
	}
	b.allows(public.authorizeURL(withPKCE...), "at its https address")
	// A secret says who it is.
	confidential := p.browser()
	confidential.code("redirect_uri", "http://localhost:33418/")
	confidential.answered(confidential.get(p.authorizeURL("redirect_uri", "http://localhost:4711/")),
		"a confidential client, at another port")
}

// Pages name the resources, by the name of the app that runs one, and by the identifier.
func TestPagesNameResources(t *testing.T) {
	p := newDeviceIDP(t, withFilesAPI)
	const evil = `<script>alert(1)</script>`
	p.register("runs-api", func(c *storage.Client) {
		c.ClientName, c.ResourceIdentifiers = "Runs "+evil, []string{runsAPI, "urn:x:" + evil}
	})
	for lang, want := range map[string][]string{"en": {"To be used at", "This service itself"},
		"ja": {"利用先のサービス", "このサービス自体"}} {
		b := p.browser()
		address := p.withResources("threads:read", filesAPI, runsAPI, p.issuer, "urn:x:"+evil) + "&ui_locales=" + lang
		got := b.follow(b.signIn(b.follow(b.get(address)), userEmail, userPassword))
		b.get(p.issuer + "/?lang=" + lang)
		shownThere := b.reach(p.call("/oauth/device_authorization", url.Values{"scope": {"threads:read"},
			"resource": {filesAPI, runsAPI, p.issuer, "urn:x:" + evil}}), userEmail)
		for kind, body := range map[string]string{"consent": got.body, "device": shownThere.body} {
			for _, text := range append(want, filesAPI, runsAPI, "Runs &lt;script&gt;", "urn:x:&lt;script&gt;") {
				if !strings.Contains(body, text) {
					t.Errorf("%s, %s: no %q: %s", kind, lang, text, shown(body))
				}
			}
			if strings.Contains(body, evil) {
				t.Errorf("%s, %s: not escaped", kind, lang)
			}
		}
	}
	b := p.browser()
	if got := b.follow(b.signIn(b.follow(b.get(p.authorizeURL())), userEmail, userPassword)); strings.Contains(got.body,
		"To be used at") {
		t.Error("a request without resources names some")
	}
}

// A page about a device that showed another name does not count.
func TestDeviceConsentForAnotherName(t *testing.T) {
	p := newDeviceIDP(t)
	b := p.browser()
	device := p.device()
	held := b.reach(device, userEmail)
	p.update("my-app", func(c *storage.Client) { c.ClientName = "Your Bank" })
	if got := b.follow(b.decide(held, "allow")); got.asks() != "decision" || !strings.Contains(got.body, "Your Bank") {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
	if got := b.follow(b.decide(b.enter(device.text("user_code")), "allow")); !strings.Contains(got.body,
		"Your device is connected") {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
}
