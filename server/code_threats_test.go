package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// dead checks that nothing of a family of tokens is good any more.
func (p *idp) dead(rule string, got reply) {
	p.t.Helper()
	if p.active(got.text("access_token")) || p.active(got.text("refresh_token")) {
		p.t.Errorf("%s: tokens are active", rule)
	}
	p.refresh(got.text("refresh_token")).wants(p.t, rule, http.StatusBadRequest, "invalid_grant")
}

func TestCode32AtOnce(t *testing.T) {
	p := newIDP(t)
	code := p.code("scope", "openid threads:read")
	replies := make([]reply, 32)
	together(len(replies), func(i int) { replies[i] = p.exchange(code) })
	var won []reply
	for _, got := range replies {
		if got.status == http.StatusOK {
			won = append(won, got)
			continue
		}
		got.wants(t, "a racer that lost", http.StatusBadRequest, "invalid_grant")
	}
	if len(won) != 1 {
		t.Fatalf("%d exchanges of one code succeeded", len(won))
	}
	p.dead("the others were replays", won[0])
	if info := p.userinfo(won[0].text("access_token")); info.status != http.StatusUnauthorized {
		t.Errorf("userinfo: %d", info.status)
	}
}

func TestCodeReplayKillsTheFamily(t *testing.T) {
	for rule, between := range map[string]func(*idp, reply) reply{
		"at once":         func(_ *idp, got reply) reply { return got },
		"after a refresh": func(p *idp, got reply) reply { return p.refresh(got.text("refresh_token")) },
		"after the code's time": func(p *idp, got reply) reply {
			p.clock.forward(2 * time.Minute)
			return got
		},
		"after a restart": func(p *idp, got reply) reply {
			p.restart()
			return got
		},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newIDP(t)
			code := p.code()
			newest := between(p, p.exchange(code))
			if newest.status != http.StatusOK {
				t.Fatalf("%d %s", newest.status, newest.raw)
			}
			for range 2 {
				p.exchange(code).wants(t, rule, http.StatusBadRequest, "invalid_grant")
			}
			p.dead(rule, newest)
		})
	}
}

// Who presents somebody else's code gets nothing and spoils nothing.
func TestCodeRedeemedByAnotherClient(t *testing.T) {
	p := newIDP(t)
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	public := p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
	code := p.code()
	other.exchange(code).wants(t, "another client", http.StatusBadRequest, "invalid_grant")
	public.exchange(code, "client_id", public.client.ID).wants(t, "a public client", http.StatusBadRequest,
		"invalid_grant")
	p.exchange(code, "client_id", p.client.ID, "client_secret", other.secret).wants(t, "with its own secret",
		http.StatusUnauthorized, "invalid_client")
	if got := p.exchange(code); got.status != http.StatusOK {
		t.Errorf("the owner's code does not work any more: %d %s", got.status, got.raw)
	}
	p.clock.forward(2 * time.Minute)
	mine := p.tokens()
	_ = mine
	late := p.code()
	kept := p.exchange(late)
	p.clock.forward(2 * time.Minute)
	other.exchange(late).wants(t, "another client, late", http.StatusBadRequest, "invalid_grant")
	if !p.active(kept.text("refresh_token")) {
		t.Error("a stranger's late replay killed the owner's grant")
	}
}

// Each kind of sealed string is good for its own use only, whatever its beginning says.
func TestOtherSealedStringsAsCodes(t *testing.T) {
	p := newIDP(t)
	b, consent := p.signedIn(userEmail)
	_, hidden := b.form(consent, "decision")
	got := p.tokens()
	kinds := map[string]string{
		"wfc_": p.code(), "wfr_": got.text("refresh_token"), "wfq_": hidden.Get("request"), "wff_": hidden.Get("form"),
		"wfk_": b.cookie("session"), "wfn_": p.proofNonce(), "eyJ": got.text("access_token"),
		"wfp_": strings.TrimPrefix(p.push().text("request_uri"), "urn:ietf:params:oauth:request_uri:"),
	}
	_, question := b.form(b.get(p.issuer+"/oauth/logout"), "decision")
	kinds["wfl_"] = question.Get("request")
	for own, sealed := range kinds {
		if !strings.HasPrefix(sealed, own) {
			t.Fatalf("%s is %.8s", own, sealed)
		}
		for prefix := range kinds {
			forged := prefix + strings.TrimPrefix(sealed, own)
			if prefix != "wfc_" || own != "wfc_" {
				p.exchange(forged).wants(t, own+" as "+prefix+" as a code", http.StatusBadRequest, "invalid_grant")
			}
			if prefix != "wfr_" || own != "wfr_" {
				p.refresh(forged).wants(t, own+" as "+prefix+" as a refresh token", http.StatusBadRequest, "invalid_grant")
			}
			if own != "eyJ" && own != "wfr_" && p.active(forged) {
				t.Errorf("%s as %s is an active token", own, prefix)
			}
			if prefix != "wfp_" || own != "wfp_" {
				b.get(p.authorizeURL("request_uri", "urn:ietf:params:oauth:request_uri:"+forged)).wants(t, own+" as "+prefix+
					" as a pushed request", http.StatusBadRequest, "invalid_request_uri")
			}
			if prefix != "wfl_" || own != "wfl_" {
				b.post(p.issuer+"/oauth/signout", url.Values{"request": {forged}, "form": {question.Get("form")},
					"decision": {"signout"}}).wants(t, own+" as "+prefix+" as a logout", http.StatusBadRequest, "invalid_request")
			}
			if prefix != "wfq_" || own != "wfq_" {
				b.get(p.issuer+"/oauth/continue?request="+url.QueryEscape(forged)).wants(t, own+" as "+prefix+" as a request",
					http.StatusBadRequest, "invalid_request")
			}
			if prefix != "wfk_" || own != "wfk_" {
				thief := p.browser()
				thief.plant("session", forged)
				p.redirected(thief.get(p.authorizeURL("prompt", "none")), own+" as "+prefix+" as a session", "login_required")
			}
		}
	}
	if !p.active(got.text("refresh_token")) {
		t.Error("the refresh token died on the way")
	}
}

// A sealed string that was cut, lengthened or changed is no sealed string.
func TestAlteredCodes(t *testing.T) {
	p := newIDP(t)
	code := p.code()
	last := code[len(code)-1]
	flipped := byte('A')
	if last == flipped {
		flipped = 'B'
	}
	for rule, altered := range map[string]string{
		"cut": code[:len(code)-1], "lengthened": code + "A", "last character": code[:len(code)-1] + string(flipped),
		"key number": "wfc_BBBB" + code[8:], "padding": code + "=", "line break": code + "\n", "only its beginning": "wfc_",
		"space":           " " + code,
		"standard base64": strings.NewReplacer("-", "+", "_", "/").Replace(code),
	} {
		p.exchange(altered).wants(t, rule, http.StatusBadRequest, "invalid_grant")
	}
	if got := p.exchange(code); got.status != http.StatusOK {
		t.Errorf("the code itself: %d %s", got.status, got.raw)
	}
}

// The address of a pending request is bound to the browser in which it began.
func TestApprovalURLOpenedInAnotherBrowser(t *testing.T) {
	p := newIDP(t)
	victim, consent := p.signedIn(userEmail)
	action, form := victim.form(consent, "decision")
	form.Set("decision", "allow")
	address := p.issuer + "/oauth/continue?request=" + url.QueryEscape(form.Get("request"))

	stranger := p.browser()
	stranger.get(address).wants(t, "a browser without cookies", http.StatusBadRequest, "invalid_request")
	thief, _ := p.signedIn("bob@app.test")
	for rule, b := range map[string]*browser{"stranger": stranger, "signed in as another": thief} {
		b.get(address).wants(t, rule+" opens it", http.StatusBadRequest, "invalid_request")
		b.post(action, form).wants(t, rule+" sends the consent form", http.StatusBadRequest, "invalid_request")
	}
	signIn := victim.get(p.authorizeURL("prompt", "login"))
	action, form = victim.form(signIn, "password")
	form.Set("login", userEmail)
	form.Set("password", userPassword)
	thief.post(action, form).wants(t, "sends the sign-in form", http.StatusBadRequest, "invalid_request")
	if p.redirected(thief.get(p.authorizeURL("prompt", "none")), "still bob, who allowed nothing",
		"consent_required"); t.Failed() {
		return
	}
	if got := victim.decide(consent, "allow"); got.location == nil || !got.location.Query().Has("code") {
		t.Errorf("the right browser got no code: %d", got.status)
	}
}

func TestCodeAfter60Seconds(t *testing.T) {
	p := newIDP(t)
	p.clock.stop()
	early, late := p.code(), p.code()
	p.clock.forward(59 * time.Second)
	if got := p.exchange(early); got.status != http.StatusOK {
		t.Errorf("after 59 s: %d %s", got.status, got.raw)
	}
	p.clock.forward(2 * time.Second)
	p.exchange(late).wants(t, "after 61 s", http.StatusBadRequest, "invalid_grant")
	p.exchange(late).wants(t, "again", http.StatusBadRequest, "invalid_grant")
}

// Addresses hold codes and pending requests: no page and no redirect tells its address on.
func TestLeakByReferer(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	signIn := b.get(p.authorizeURL())
	back := b.signIn(signIn, userEmail, userPassword)
	consent := b.follow(back)
	done := b.decide(consent, "allow")
	for rule, got := range map[string]page{
		"sign-in": signIn, "after sign-in": back, "consent": consent, "answer": done, "landing": b.get(p.issuer + "/"),
		"error":     b.get(p.authorizeURL("client_id", "stranger")),
		"form_post": b.get(p.authorizeURL("response_mode", "form_post")),
		"device":    b.get(p.issuer + "/device?user_code=BBBB-BBBB"), "logout": b.get(p.issuer + "/oauth/logout"),
	} {
		if got.header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: Referrer-Policy %q", rule, got.header.Get("Referrer-Policy"))
		}
		if cache := got.header.Get("Cache-Control"); !strings.Contains(cache, "no-store") {
			t.Errorf("%s: Cache-Control %q", rule, cache)
		}
	}
}

// A code is judged by what is true when it is redeemed.
func TestChangesBetweenAuthorizeAndExchange(t *testing.T) {
	update := func(change func(*storage.Client)) func(*idp) { return func(p *idp) { p.update("my-app", change) } }
	ended := storage.AuditEntry{Reason: "revoked by an operator"}
	for name, c := range map[string]struct {
		change     func(*idp)
		status     int
		code, rule string
	}{
		"user disabled": {func(p *idp) { p.putUser(storage.User{ID: "user-ann", Email: userEmail, Disabled: true}) }, 400,
			"invalid_grant", oauth.RuleUserInactive},
		"user gone": {func(p *idp) {
			if _, err := p.etcd.Client.Delete(p.t.Context(), p.etcd.Prefix+"users/user-ann"); err != nil {
				p.t.Fatal(err)
			}
		}, 400, "invalid_grant", oauth.RuleUserInactive},
		"all of the user's ended": {func(p *idp) {
			if _, err := p.store.EndUser(p.t.Context(), "user-ann", ended); err != nil {
				p.t.Fatal(err)
			}
		}, 400, "invalid_grant", oauth.RuleUserEnded},
		"consent revoked": {func(p *idp) {
			if _, err := p.store.RevokeConsent(p.t.Context(), p.client.ID, "user-ann", ended); err != nil {
				p.t.Fatal(err)
			}
		}, 400, "invalid_grant", oauth.RuleConsentWithdrawn},
		"client deleted": {(*idp).deleteApp, 401, "invalid_client", oauth.RuleClientUnknown},
		"client disabled": {update(func(c *storage.Client) { c.Disabled = true }), 401, "invalid_client",
			oauth.RuleClientDisabled},
		"all scopes gone": {update(func(c *storage.Client) { c.Scopes = []string{"email"} }), 400, "invalid_grant",
			oauth.RuleScopeWithdrawn},
		"redirect URI gone": {update(func(c *storage.Client) { c.RedirectURIs = []string{"https://new.test/"} }), 400,
			"invalid_grant", oauth.RuleRedirectURIWithdrawn},
		"made public": {update(func(c *storage.Client) { c.Public, c.Secrets = true, nil }), 401, "invalid_client",
			oauth.RuleClientAuthMethod},
		"secret taken away": {update(func(c *storage.Client) { c.Secrets = nil }), 401, "invalid_client",
			oauth.RuleClientSecretWrong},
		"changed, and all right": {update(func(c *storage.Client) { c.ClientName = "New name" }), 200, "", ""},
		"user changed": {func(p *idp) { p.putUser(storage.User{ID: "user-ann", Email: "new@app.test"}) }, 200,
			"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := newExplained(t)
			code := e.code("scope", "threads:read runs:write")
			c.change(e.idp)
			got := e.exchange(code)
			if c.code == "" {
				if got.status != http.StatusOK {
					t.Errorf("%d %s", got.status, got.raw)
				}
				return
			}
			got.wants(t, name, c.status, c.code)
			if why := e.of(got.header).Reasons[0]; why.Rule != c.rule {
				t.Errorf("%+v, want %s", why, c.rule)
			}
		})
	}
}

func (p *idp) putUser(u storage.User) {
	p.t.Helper()
	u.Connector = "local"
	if _, err := p.store.PutUser(p.t.Context(), u); err != nil {
		p.t.Fatal(err)
	}
}

func (p *idp) deleteApp() {
	p.t.Helper()
	view, err := p.store.App(p.t.Context(), "my-app")
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.store.BeginDelete(p.t.Context(), view, nil); err != nil {
		p.t.Fatal(err)
	}
	if done, err := p.store.FinishDelete(p.t.Context(), "my-app"); err != nil || !done {
		p.t.Fatal(done, err)
	}
}

func TestCodeScopesNarrowWithTheManifest(t *testing.T) {
	p := newIDP(t)
	code := p.code("scope", "threads:read runs:write")
	p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"threads:read"} })
	if got := p.exchange(code); got.text("scope") != "threads:read" {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

func TestRedirectURIOfTheExchange(t *testing.T) {
	p := newIDP(t)
	code := p.code()
	for _, other := range []string{"https://app.test/callback/", "http://localhost:8080/", "https://evil.test/"} {
		p.exchange(code, "redirect_uri", other).wants(t, other, http.StatusBadRequest, "invalid_grant")
	}
	if got := p.exchange(code); got.status != http.StatusOK {
		t.Errorf("none of these burns the code: %d %s", got.status, got.raw)
	}
}

// The families of two codes have nothing to do with each other.
func TestFamiliesAreApart(t *testing.T) {
	p := newIDP(t)
	one, two := p.tokens(), p.tokens()
	p.refresh(one.text("refresh_token"))
	p.refresh(one.text("refresh_token")).wants(t, "replay", http.StatusBadRequest, "invalid_grant")
	if !p.active(two.text("access_token")) {
		t.Error("the replay of one family's token killed another family")
	}
	var fine atomic.Int64
	codes := []string{p.code(), p.code(), p.code(), p.code()}
	together(len(codes), func(i int) {
		if p.exchange(codes[i]).status == http.StatusOK {
			fine.Add(1)
		}
	})
	if fine.Load() != 4 {
		t.Errorf("%d of 4 codes were redeemed", fine.Load())
	}
}
