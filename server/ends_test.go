package server_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
)

// operator asks p's admin API, as a command does.
func (p *idp) operator(method, path string) map[string]any {
	p.t.Helper()
	w := httptest.NewRecorder()
	api := admin.New(admin.Config{Store: p.store, Issuer: p.issuer, Logger: slog.New(slog.DiscardHandler)})
	api.ServeHTTP(w, httptest.NewRequestWithContext(p.t.Context(), method, path, nil))
	var body any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusOK {
		p.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	if list, is := body.([]any); is {
		body = map[string]any{"list": list}
	}
	return body.(map[string]any)
}

// configured starts p again with these users, by id; their passwords are what each signs in with.
func (p *idp) configured(passwords map[string]string) {
	p.t.Helper()
	p.syncs(passwords)
	p.restart()
}

func (p *idp) syncs(passwords map[string]string) {
	p.t.Helper()
	emails := map[string]string{"user-ann": userEmail, "user-bob": "bob@app.test"}
	var users []connector.StaticUser
	for id, password := range passwords {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			p.t.Fatal(err)
		}
		users = append(users, connector.StaticUser{Identity: connector.Identity{UserID: id, Email: emails[id]}, Hash: hash})
	}
	static, err := connector.NewStatic(users)
	if err != nil {
		p.t.Fatal(err)
	}
	var records []storage.User
	for _, who := range static.Identities() {
		records = append(records, server.UserRecord(who))
	}
	if err := p.store.SyncUsers(p.t.Context(), connector.StaticName, records); err != nil {
		p.t.Fatal(err)
	}
	p.cfg.Connectors = local(static)
}

// stolen is all that a thief can have got of a user, while it is good.
type stolen struct {
	browser       *browser // with the session's cookie
	signIn        reply    // tokens with openid
	offline       reply    // tokens that outlive a logout
	code, apiCode string
	device        reply // approved, not yet redeemed
}

func steal(p *idp) stolen {
	p.t.Helper()
	loot := stolen{browser: p.browser()}
	got := func(scope string) reply {
		r := p.exchange(loot.browser.code("scope", scope))
		if r.status != http.StatusOK {
			p.t.Fatalf("%d %s", r.status, r.raw)
		}
		return r
	}
	loot.signIn, loot.offline = got("openid email"), got("openid offline_access threads:read")
	loot.code, loot.apiCode = loot.browser.code("scope", "openid"), loot.browser.code("scope", "threads:read")
	loot.device = p.device()
	p.approve(loot.device)
	return loot
}

// worthless checks that nothing of it is good for anything; but the tokens may have been used up in vain already.
func (loot stolen) worthless(p *idp, rule string) {
	p.t.Helper()
	b := &browser{p, &http.Client{Transport: p.transport, Jar: loot.browser.http.Jar,
		CheckRedirect: loot.browser.http.CheckRedirect}}
	p.redirected(b.get(p.authorizeURL("prompt", "none")), rule+": the session", "login_required")
	if got := b.follow(b.get(p.authorizeURL())); got.asks() != "password" {
		p.t.Errorf("%s: the session lives: asked for %q", rule, got.asks())
	}
	for name, got := range map[string]reply{"sign-in": loot.signIn, "offline": loot.offline} {
		p.dead(rule+": "+name, got)
		if info := p.userinfo(got.text("access_token")); info.status != http.StatusUnauthorized {
			p.t.Errorf("%s: %s: userinfo answers %d", rule, name, info.status)
		}
	}
	p.exchange(loot.code).wants(p.t, rule+": a code with openid", http.StatusBadRequest, "invalid_grant")
	p.exchange(loot.apiCode).wants(p.t, rule+": a code", http.StatusBadRequest, "invalid_grant")
	p.poll(loot.device).wants(p.t, rule+": a device that was approved", http.StatusBadRequest, "invalid_grant")
}

func newEndsIDP(t *testing.T) *idp {
	p := newDeviceIDP(t)
	p.update("my-app", func(c *storage.Client) { c.Scopes = append(c.Scopes, "offline_access") })
	return p
}

// begins checks that the user can begin anew, at this very moment of a clock that stands still.
func (p *idp) begins(password string) {
	p.t.Helper()
	b := p.browser()
	got := b.follow(b.signIn(b.get(p.authorizeURL("scope", "openid")), userEmail, password))
	if got.asks() != "decision" {
		p.t.Fatalf("not asked again what the app may do: %d %s", got.status, shown(got.body))
	}
	tokens := p.exchange(b.answered(b.follow(b.decide(got, "allow")), "signing in anew"))
	if tokens.status != http.StatusOK || !p.active(tokens.text("access_token")) ||
		p.refresh(tokens.text("refresh_token")).status != http.StatusOK {
		p.t.Errorf("what was begun anew is not good: %d %s", tokens.status, tokens.raw)
	}
	b.answered(b.get(p.authorizeURL("scope", "openid", "prompt", "none")), "what was allowed anew")
}

func TestChangedPasswordEndsWhatAThiefHas(t *testing.T) {
	p := newEndsIDP(t)
	p.configured(map[string]string{"user-ann": userPassword, "user-bob": userPassword})
	loot := steal(p)
	p.configured(map[string]string{"user-ann": "another horse", "user-bob": userPassword})
	loot.worthless(p, "the password was changed")
	p.begins("another horse")
	loot.worthless(p, "the user has signed in anew")
}

// A start without a change ends nothing, and neither does a change of a name.
func TestNothingEndsWithoutAChangeOfTheUser(t *testing.T) {
	p := newEndsIDP(t)
	loot := steal(p)
	user, err := p.store.User(t.Context(), "user-ann")
	if err != nil {
		t.Fatal(err)
	}
	renamed := *user
	renamed.Name = "Ann with another name"
	if err := p.store.SyncUsers(t.Context(), connector.StaticName,
		[]storage.User{renamed, {ID: "user-bob", Email: "bob@app.test"}}); err != nil {
		t.Fatal(err)
	}
	if !loot.browser.signedInHere() {
		t.Error("the session has ended")
	}
	for rule, got := range map[string]reply{
		"sign-in": p.refresh(loot.signIn.text("refresh_token")), "code": p.exchange(loot.code), "device": p.poll(loot.device),
	} {
		if got.status != http.StatusOK {
			t.Errorf("%s: %d %s", rule, got.status, got.raw)
		}
	}
}

func TestUserWhoIsAddedAgainRevivesNothing(t *testing.T) {
	for rule, away := range map[string]func(p *idp){
		"removed":  func(p *idp) { p.configured(map[string]string{"user-bob": userPassword}) },
		"disabled": func(p *idp) { p.putUser(storage.User{ID: "user-ann", Email: userEmail, Disabled: true}) },
		"deleted from the database": func(p *idp) {
			if _, err := p.etcd.Client.Delete(p.t.Context(), p.etcd.Prefix+"users/user-ann"); err != nil {
				p.t.Fatal(err)
			}
		},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newEndsIDP(t)
			loot := steal(p)
			user, err := p.store.User(t.Context(), "user-ann")
			if err != nil {
				t.Fatal(err)
			}
			away(p)
			loot.worthless(p, rule)
			again := *user
			again.Term = 0
			p.putUser(again) // as it was
			p.configuredAsBefore()
			loot.worthless(p, rule+" and back")
			p.begins(userPassword)
		})
	}
}

// configuredAsBefore lets both users sign in again.
func (p *idp) configuredAsBefore() {
	p.t.Helper()
	p.configured(map[string]string{"user-ann": userPassword, "user-bob": userPassword})
}

func TestRevokedUserBeginsAnew(t *testing.T) {
	p := newEndsIDP(t)
	loot := steal(p)
	ended := p.operator("POST", "/v1/users/"+url.PathEscape(userEmail)+"/revoke")
	if ended["userId"] != "user-ann" || ended["sessions"] != 2.0 || ended["grants"] != 2.0 || ended["consents"] != 1.0 {
		t.Errorf("%v", ended)
	}
	loot.worthless(p, "revoked")
	p.begins(userPassword)
	loot.worthless(p, "revoked, and signed in anew")
	if strings.Contains(p.etcd.Dump(), "pastterms/") {
		t.Error("the outbox is not empty")
	}
	entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for _, e := range entries {
		count[e.Action]++
		if e.Action == storage.AuditUserCleared && (e.Detail != "user user-ann: 2 sessions, 2 grants, 1 consent" ||
			e.Reason != "revoked by an operator") {
			t.Errorf("%+v", e)
		}
	}
	if count[storage.AuditUserEnded] != 1 || count[storage.AuditUserCleared] != 1 ||
		count[storage.AuditSessionEnded] != 2 {
		t.Errorf("audit: %v", count)
	}
}

// A replica that runs on with the configuration of before lets nobody in with the old password.
func TestOldPasswordAtAReplicaOfBefore(t *testing.T) {
	a := newIDP(t)
	a.configuredAsBefore()
	b := a.replica(a.etcd.Client) // knows the old hashes
	a.configured(map[string]string{"user-ann": "another horse", "user-bob": userPassword})
	thief := b.browser()
	if got := thief.signIn(thief.get(b.authorizeURL()), userEmail,
		userPassword); got.status != http.StatusUnprocessableEntity {
		t.Errorf("signed in: %d", got.status)
	}
	if thief.cookie("session") != "" {
		t.Error("has a session")
	}
}

// Clients are told of sessions that end so, and their records go.
func TestLogoutTokensWhenAPasswordChanges(t *testing.T) {
	back := newReceiver(t)
	p := logoutIDP(t, func(c *storage.Client) { c.BackchannelLogoutURI = back.URL })
	p.configuredAsBefore()
	p.tokens("scope", "openid")
	p.tokens("scope", "openid")
	p.configured(map[string]string{"user-ann": "another horse", "user-bob": userPassword})
	if _, err := p.store.ClearPastTerms(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.sendLogouts()
	if n := len(back.tokens()); n != 2 {
		t.Errorf("told %d times", n)
	}
	raw := p.etcd.Dump()
	for _, prefix := range []string{"sessions/", "sessiongrants/", "chains/", "consents/", "pastterms/"} {
		if strings.Contains(raw, p.etcd.Prefix+prefix) {
			t.Errorf("%s are left", prefix)
		}
	}
}

func TestRevokedGrantDoesNotComeBackSilently(t *testing.T) {
	p := newEndsIDP(t)
	b := p.browser()
	got := p.exchange(b.code("scope", "openid"))
	pending := b.code("scope", "openid")
	list := p.operator("GET", "/v1/grants")["list"].([]any)
	if len(list) != 1 {
		t.Fatalf("%v", list)
	}
	p.operator("DELETE", "/v1/grants/"+list[0].(map[string]any)["id"].(string))
	p.dead("revoked", got)
	p.redirected(b.get(p.authorizeURL("scope", "openid", "prompt", "none")), "silently", "consent_required")
	p.exchange(pending).wants(t, "a code from before", http.StatusBadRequest, "invalid_grant")
	if again := b.follow(b.get(p.authorizeURL("scope", "openid"))); again.asks() != "decision" {
		t.Errorf("not asked: %d", again.status)
	}
	b.code("scope", "openid") // and allowed again
	b.answered(b.get(p.authorizeURL("scope", "openid", "prompt", "none")), "allowed again")
}

func TestRevokedConsent(t *testing.T) {
	p := newEndsIDP(t)
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	loot := steal(p)
	elsewhere := other.exchange((&browser{other, loot.browser.http}).code("scope", "openid"))
	bob := p.browser()
	bobs := p.exchange(bob.answered(bob.follow(bob.decide(
		bob.follow(bob.signIn(bob.get(p.authorizeURL()), "bob@app.test", userPassword)), "allow")), "bob"))
	ended := p.operator("DELETE", "/v1/clients/my-app/consents/"+url.PathEscape(userEmail))
	if ended["clientId"] != p.client.ID || ended["grants"] != 2.0 || ended["consents"] != 1.0 {
		t.Errorf("%v", ended)
	}
	p.redirected(loot.browser.get(p.authorizeURL("prompt", "none")), "silently", "consent_required")
	p.dead("sign-in", loot.signIn)
	p.dead("offline", loot.offline)
	p.exchange(loot.code).wants(t, "a code with openid", http.StatusBadRequest, "invalid_grant")
	p.exchange(loot.apiCode).wants(t, "a code", http.StatusBadRequest, "invalid_grant")
	p.poll(loot.device).wants(t, "a device that was approved", http.StatusBadRequest, "invalid_grant")
	if !p.active(bobs.text("access_token")) || !other.active(elsewhere.text("access_token")) {
		t.Error("another user's grant, or one to another client, has ended")
	}
	p.exchange(loot.browser.code()) // allowed again
}

// Operators end sessions by their names, which open nothing.
func TestRevokedSessions(t *testing.T) {
	p := newEndsIDP(t)
	first, second := p.browser(), p.browser()
	got := p.exchange(first.code("scope", "openid"))
	p.exchange(second.code("scope", "openid"))
	bob, _ := p.signedIn("bob@app.test")
	list := p.operator("GET", "/v1/sessions?user=ANN@app.test")["list"].([]any)
	if len(list) != 2 || len(p.operator("GET", "/v1/sessions")["list"].([]any)) != 3 {
		t.Fatalf("%v", list)
	}
	for _, entry := range list {
		s := entry.(map[string]any)
		if s["userId"] != "user-ann" || s["user"] != userEmail || s["clients"].([]any)[0] != p.client.ID {
			t.Errorf("%v", s)
		}
		sid := s["sid"].(string)
		b := p.browser()
		b.plant("session", sid)
		if b.signedInHere() {
			t.Error("the name of a session opens it")
		}
	}
	for _, entry := range list {
		p.operator("DELETE", "/v1/sessions/"+entry.(map[string]any)["sid"].(string))
		if first.signedInHere() && second.signedInHere() {
			t.Error("neither has ended")
		}
	}
	p.dead("signed out", got)
	if first.signedInHere() || second.signedInHere() || !bob.signedInHere() {
		t.Error("the wrong sessions have ended")
	}
	if ended := p.operator("DELETE", "/v1/users/user-bob/sessions"); ended["sessions"] != 1.0 || bob.signedInHere() {
		t.Errorf("%v", ended)
	}
}

// Once the operator has the reply, nothing that was begun before is good, however refreshes, codes and sign-ins raced
// it.
func TestRefreshRacingRevokeUser(t *testing.T) {
	for what, revoke := range map[string]func(p *idp){
		"user":    func(p *idp) { p.operator("POST", "/v1/users/user-ann/revoke") },
		"consent": func(p *idp) { p.operator("DELETE", "/v1/clients/my-app/consents/user-ann") },
	} {
		t.Run(what, func(t *testing.T) {
			p := newIDP(t)
			for range 6 {
				b := p.browser()
				first := p.exchange(b.code("scope", "openid"))
				codes := make([]string, 4)
				for i := range codes {
					codes[i] = b.code("scope", "openid")
				}
				var mu sync.Mutex
				got := []string{first.text("access_token"), first.text("refresh_token")}
				keep := func(r reply) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, r.text("access_token"), r.text("refresh_token"))
				}
				together(2+len(codes), func(i int) {
					switch i {
					case 0:
						revoke(p)
					case 1:
						for newest := first.text("refresh_token"); ; {
							next := p.refresh(newest)
							if next.status != http.StatusOK {
								next.wants(t, "the refresh that lost", http.StatusBadRequest, "invalid_grant")
								return
							}
							newest = next.text("refresh_token")
							keep(next)
						}
					default:
						r := p.exchange(codes[i-2])
						if r.status == http.StatusOK {
							keep(r)
							return
						}
						r.wants(t, "the code that lost", http.StatusBadRequest, "invalid_grant")
					}
				})
				for _, token := range got {
					if p.active(token) {
						t.Error("a token survived")
					}
				}
				if what == "user" && b.signedInHere() {
					t.Error("the session survived")
				}
				for range 2 { // a silent request gets no code
					if r := b.get(p.authorizeURL("scope", "openid", "prompt", "none")); r.location.Query().Has("code") {
						t.Error("the consent survived")
					}
				}
			}
		})
	}
}

// A consent page that was open when the consent was revoked does not bring it back, but asks.
func TestConsentPageRacingRevokeConsent(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	p.exchange(b.code())
	for range 8 {
		form := b.follow(b.get(p.authorizeURL("prompt", "consent")))
		var answer page
		together(2, func(i int) {
			if i == 0 {
				p.operator("DELETE", "/v1/clients/my-app/consents/user-ann")
				return
			}
			answer = b.decide(form, "allow")
		})
		// Allowed before it was revoked, or after: the code tells which, and so does the consent.
		code := ""
		if answer.location != nil {
			code = answer.location.Query().Get("code")
		}
		good := code != "" && p.exchange(code).status == http.StatusOK
		silent := b.get(p.authorizeURL("prompt", "none")).location.Query().Has("code")
		if silent != good {
			t.Errorf("the code is good: %v, and the next one comes silently: %v", good, silent)
		}
		p.exchange(b.code())
	}
}

// A token that another client got in exchange ends with the user's, and none is got any more.
func TestExchangedTokensEndWithTheUser(t *testing.T) {
	p, runs := newExchanger(t)
	subject := p.tokens("scope", "openid threads:read", "resource", runsAPI).text("access_token")
	exchanged := runs.swap(subject, "scope", "threads:read").text("access_token")
	p.operator("POST", "/v1/users/user-ann/revoke")
	if runs.active(exchanged) {
		t.Error("active")
	}
	runs.swap(subject).wants(t, "exchanged again", http.StatusBadRequest, "invalid_request")
}

// A device that was approved, and has not come yet, is all that there is: no consent, and no grant.
func TestRevokedConsentOfADeviceThatHasNotCome(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p.approve(device)
	if ended := p.operator("DELETE", "/v1/clients/my-app/consents/user-ann"); ended["grants"] != 0.0 ||
		ended["consents"] != 0.0 {
		t.Errorf("%v", ended)
	}
	p.poll(device).wants(t, "approved before", http.StatusBadRequest, "invalid_grant")
	again := p.device()
	p.approve(again)
	if got := p.poll(again); got.status != http.StatusOK {
		t.Errorf("approved after that: %d %s", got.status, got.raw)
	}
}
