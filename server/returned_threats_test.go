package server_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

// An app that gets a client again gets the client_id that it had. Whoever holds something of the former client tries it
// on the present one.

// reborn removes the client of an app, and makes it again under its id. The rest of the app's record stays as it is.
func (p *idp) reborn(app string) *idp {
	p.t.Helper()
	view, err := p.store.App(p.t.Context(), app)
	if err != nil {
		p.t.Fatal(err)
	}
	former, without := view.Client, *view.App
	without.ClientID = ""
	if err := p.store.CommitRelease(p.t.Context(), storage.Release{App: without, RemoveClient: former.ID}); err != nil {
		p.t.Fatal(err)
	}
	p.clock.forward(2 * time.Second)
	if view, err = p.store.App(p.t.Context(), app); err != nil {
		p.t.Fatal(err)
	}
	if view.Former == nil || view.Former.ID != former.ID {
		p.t.Fatalf("the store remembers %+v", view.Former)
	}
	c, secret := *former, ""
	c.Revision, c.Secrets, c.CreatedAt = 0, nil, p.clock.now().UTC().Truncate(time.Second)
	c.Returned = c.CreatedAt
	if !c.Public {
		var record storage.ClientSecret
		record, secret = p.store.NewClientSecret(c.ID)
		c.Secrets = []storage.ClientSecret{record}
	}
	again := *view.App
	again.ClientID = c.ID
	if err := p.store.CommitRelease(p.t.Context(), storage.Release{App: again, Client: &c}); err != nil {
		p.t.Fatal(err)
	}
	stored, err := p.store.Client(p.t.Context(), c.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.as(stored, secret)
}

func TestReturnedClientWorks(t *testing.T) {
	p := newIDP(t).reborn("my-app")
	got := p.exchange(p.code("scope", "openid threads:read"))
	if got.status != http.StatusOK || !p.active(got.text("access_token")) ||
		p.refresh(got.text("refresh_token")).status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

func TestCodeOfAFormerClient(t *testing.T) {
	p := newIDP(t)
	code := p.code()
	p = p.reborn("my-app")
	p.exchange(code).wants(t, "a code that the former client was issued", http.StatusBadRequest, "invalid_grant")
}

func TestCodeThatAFormerClientHasRedeemed(t *testing.T) {
	p := newIDP(t)
	code := p.code("scope", "openid threads:read")
	got := p.exchange(code)
	p = p.reborn("my-app")
	p.exchange(code).wants(t, "a code that the former client has redeemed", http.StatusBadRequest, "invalid_grant")
	p.dead("tokens of the former client", got)
	if info := p.userinfo(got.text("access_token")); info.status != http.StatusUnauthorized {
		t.Errorf("userinfo: %d", info.status)
	}
}

func TestCodeOfAFormerPublicClient(t *testing.T) {
	p := newIDP(t)
	p = p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
	code := p.code("code_challenge", challengeOf(verifier), "code_challenge_method", "S256")
	p = p.reborn("public-app")
	p.exchange(code, "client_id", p.client.ID, "code_verifier", verifier).wants(t, "no secret stands in between",
		http.StatusBadRequest, "invalid_grant")
}

// A replica that has not heard of either change holds the former client in memory.
func TestCodeOfAFormerClientAtALaggingReplica(t *testing.T) {
	p := newIDP(t)
	p = p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
	behind := p.replica(p.lagging())
	code := p.code("code_challenge", challengeOf(verifier), "code_challenge_method", "S256")
	p.reborn("public-app")
	behind.exchange(code, "client_id", p.client.ID, "code_verifier", verifier).
		wants(t, "memory lags behind", http.StatusBadRequest, "invalid_grant")
}

func TestDeviceCodeOfAFormerClient(t *testing.T) {
	for rule, before := range map[string]func(p *idp, device reply){
		"approved": func(p *idp, device reply) { p.approve(device) },
		"redeemed": func(p *idp, device reply) {
			p.approve(device)
			if got := p.poll(device); got.status != http.StatusOK {
				p.t.Fatalf("%d %s", got.status, got.raw)
			}
		},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newDeviceIDP(t)
			device := p.device()
			before(p, device)
			p = p.reborn(p.client.App)
			p.poll(device).wants(t, rule, http.StatusBadRequest, "invalid_grant")
		})
	}
}

func TestPendingDeviceCodeOfAFormerClient(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p = p.reborn(p.client.App)
	b := p.browser()
	got := b.follow(b.enter(device.text("user_code")))
	b.follow(b.signIn(got, userEmail, userPassword)).wants(t, "nobody is asked to approve it", http.StatusBadRequest,
		"invalid_request")
}

func TestPushedRequestOfAFormerClient(t *testing.T) {
	p := newIDP(t)
	address := p.pushedURL(p.push())
	opened, b := p.pushedURL(p.push()), p.browser()
	form := b.get(opened)
	if form.asks() != "password" {
		t.Fatalf("%d %s", form.status, shown(form.body))
	}
	p = p.reborn("my-app")
	p.browser().get(address).wants(t, "pushed by the former client", http.StatusBadRequest, "invalid_request_uri")
	if got := b.follow(b.signIn(form, userEmail, userPassword)); got.asks() != "" || got.location != nil {
		t.Errorf("a request that the former client pushed goes on: %d %s", got.status, shown(got.body))
	}
}

func TestTokenOfAFormerClientsOwn(t *testing.T) {
	p := newIDP(t)
	s := p.service("batch")
	token := s.call("/oauth/token", forItself("runs:write")).text("access_token")
	if !s.active(token) {
		t.Fatal("not active from the beginning")
	}
	s = s.reborn("batch")
	if s.active(token) {
		t.Error("a token that the former client got for itself is active")
	}
	if fresh := s.call("/oauth/token", forItself("runs:write")).text("access_token"); !s.active(fresh) {
		t.Error("a token of the present client is not")
	}
}

func TestExchangedTokenOfAFormerClient(t *testing.T) {
	p, runs := newExchanger(t)
	subject := p.exchange(p.code("scope", "openid threads:read runs:write", "resource", runsAPI)).text("access_token")
	got := runs.swap(subject)
	token := got.text("access_token")
	if got.status != http.StatusOK || !runs.active(token) {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	runs = runs.reborn(runs.client.App)
	if runs.active(token) {
		t.Error("a token that the former client exchanged is active: the grant is another client's, and lives")
	}
}

func TestSecretOfAFormerClient(t *testing.T) {
	p := newIDP(t)
	former := p.secret
	p = p.reborn("my-app")
	p.secret = former
	p.exchange(p.code()).wants(t, "its secret", http.StatusUnauthorized, "invalid_client")
}

func TestConsentToAFormerClient(t *testing.T) {
	p := newIDP(t)
	b, consent := p.signedIn(userEmail)
	b.follow(b.decide(consent, "allow"))
	if got := b.get(p.authorizeURL()); got.asks() == "decision" {
		t.Fatal("the consent was not kept")
	}
	p = p.reborn("my-app")
	if got := b.get(p.authorizeURL()); got.asks() != "decision" {
		t.Errorf("nobody is asked again: %d %s", got.status, shown(got.body))
	}
}
