package server_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

func TestRefresh64AtOnce(t *testing.T) {
	p := newIDP(t)
	first := p.tokens()
	replies := make([]reply, 64)
	together(len(replies), func(i int) { replies[i] = p.refresh(first.text("refresh_token")) })
	var won []reply
	for _, got := range replies {
		if got.status == http.StatusOK {
			won = append(won, got)
			continue
		}
		got.wants(t, "a racer that lost", http.StatusBadRequest, "invalid_grant")
	}
	if len(won) != 1 {
		t.Fatalf("%d refreshes of one token succeeded", len(won))
	}
	p.dead("the others were replays", won[0])
	p.dead("the first one", first)
}

func TestRefreshReplay(t *testing.T) {
	for rule, between := range map[string]func(*idp, string) string{
		"in the same second": func(_ *idp, newest string) string { return newest },
		"after a restart": func(p *idp, newest string) string {
			p.restart()
			return newest
		},
		"after more refreshes": func(p *idp, newest string) string {
			return p.refresh(p.refresh(newest).text("refresh_token")).text("refresh_token")
		},
		"after a week": func(p *idp, newest string) string {
			p.clock.forward(7 * 24 * time.Hour)
			return newest
		},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newIDP(t)
			p.clock.stop()
			old := p.tokens().text("refresh_token")
			next := p.refresh(old)
			newest := between(p, next.text("refresh_token"))
			if !p.active(newest) {
				t.Fatal("the newest is not active")
			}
			if p.active(old) {
				t.Error("a used token is active")
			}
			p.refresh(old).wants(t, rule, http.StatusBadRequest, "invalid_grant")
			p.refresh(newest).wants(t, rule+", the newest", http.StatusBadRequest, "invalid_grant")
			p.dead(rule, next)
		})
	}
}

// Once revocation has answered 200, nothing of the family is good, however a refresh raced it.
func TestRefreshRacingRevoke(t *testing.T) {
	p := newIDP(t)
	for range 12 {
		first := p.tokens()
		var mu sync.Mutex
		got := []string{first.text("access_token"), first.text("refresh_token")}
		var revoked reply
		together(2, func(i int) {
			if i == 0 {
				revoked = p.call("/oauth/revoke", url.Values{"token": {first.text("access_token")}})
				return
			}
			for newest := first.text("refresh_token"); ; {
				next := p.refresh(newest)
				if next.status != http.StatusOK {
					next.wants(t, "the refresh that lost", http.StatusBadRequest, "invalid_grant")
					return
				}
				newest = next.text("refresh_token")
				mu.Lock()
				got = append(got, next.text("access_token"), newest)
				mu.Unlock()
			}
		})
		if revoked.status != http.StatusOK {
			t.Fatalf("revocation: %d %s", revoked.status, revoked.raw)
		}
		for _, token := range got {
			if p.active(token) {
				t.Error("a token survived the revocation")
			}
		}
	}
}

func TestRefreshScopes(t *testing.T) {
	p := newIDP(t)
	got := p.tokens("scope", "threads:read runs:write")
	for _, more := range []string{"threads:read runs:write email", "openid", "nonsense", "threads:read threads:writ"} {
		p.refresh(got.text("refresh_token"), "scope", more).wants(t, "scope growth", http.StatusBadRequest, "invalid_scope")
	}
	less := p.refresh(got.text("refresh_token"), "scope", "threads:read")
	if less.text("scope") != "threads:read" || claimsOf(t, less.text("access_token"))["scope"] != "threads:read" {
		t.Errorf("asked for less: %d %s", less.status, less.raw)
	}
	// What was not asked for once is not lost (RFC 6749 section 6).
	all := p.refresh(less.text("refresh_token"))
	if all.text("scope") != "threads:read runs:write" {
		t.Errorf("asked for all again: %d %s", all.status, all.raw)
	}
}

func TestRefreshOfAnotherClientsToken(t *testing.T) {
	p := newIDP(t)
	got := p.tokens()
	used := p.refresh(got.text("refresh_token"))
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	public := p.as(p.register("public-app", func(c *storage.Client) { c.Public = true }))
	for rule, token := range map[string]string{"newest": used.text("refresh_token"), "used": got.text("refresh_token")} {
		other.refresh(token).wants(t, rule, http.StatusBadRequest, "invalid_grant")
		public.refresh(token, "client_id", public.client.ID).wants(t, rule+", by a public client", http.StatusBadRequest,
			"invalid_grant")
		if got := other.call("/oauth/revoke", url.Values{"token": {token}}); got.status == http.StatusOK {
			t.Errorf("%s: revoked by a stranger", rule)
		}
	}
	if got := other.call("/oauth/revoke", url.Values{"token": {used.text("access_token")}}); got.status == http.StatusOK {
		t.Error("access token revoked by a stranger")
	}
	if got := p.refresh(used.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("the owner's token died: %d %s", got.status, got.raw)
	}
}

// What has changed since the grant is honoured at the next refresh.
func TestRefreshAfterChanges(t *testing.T) {
	for rule, c := range map[string]struct {
		change func(*idp)
		status int
		want   string // the error, or the scope
	}{
		"user disabled": {func(p *idp) { p.putUser(storage.User{ID: "user-ann", Email: userEmail, Disabled: true}) },
			400, "invalid_grant"},
		"user removed from the configuration": {func(p *idp) {
			if err := p.store.SyncUsers(p.t.Context(), "local",
				[]storage.User{{ID: "user-bob", Email: "bob@app.test"}}); err != nil {
				p.t.Fatal(err)
			}
		}, 400, "invalid_grant"},
		"user gone": {func(p *idp) {
			if _, err := p.etcd.Client.Delete(p.t.Context(), p.etcd.Prefix+"users/user-ann"); err != nil {
				p.t.Fatal(err)
			}
		}, 400, "invalid_grant"},
		"client disabled": {func(p *idp) { p.update("my-app", func(c *storage.Client) { c.Disabled = true }) }, 401,
			"invalid_client"},
		"client deleted": {(*idp).deleteApp, 401, "invalid_client"},
		"a scope removed": {func(p *idp) {
			p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"runs:write", "email"} })
		}, 200, "runs:write"},
		"all scopes removed": {func(p *idp) { p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"email"} }) },
			400, "invalid_grant"},
		"a scope removed from the catalogue": {func(p *idp) {
			p.cfg.Scopes = slices.DeleteFunc(server.DefaultScopes(), func(s server.Scope) bool {
				return s.Name == "threads:read"
			})
			p.restart()
		}, 200, "runs:write"},
	} {
		t.Run(rule, func(t *testing.T) {
			p := newIDP(t)
			got := p.tokens("scope", "threads:read runs:write")
			c.change(p)
			next := p.refresh(got.text("refresh_token"))
			if c.status != http.StatusOK {
				next.wants(t, rule, c.status, c.want)
				return
			}
			if next.text("scope") != c.want || claimsOf(t, next.text("access_token"))["scope"] != c.want {
				t.Errorf("%d %s", next.status, next.raw)
			}
			if again := p.refresh(next.text("refresh_token")); again.text("scope") != c.want {
				t.Errorf("the refresh after that: %d %s", again.status, again.raw)
			}
		})
	}
}

// What a user had before they were disabled is over, and using it is no replay: it stays what it is.
func TestRefreshAfterTheUserIsBack(t *testing.T) {
	p := newIDP(t)
	got := p.tokens("scope", "openid")
	p.putUser(storage.User{ID: "user-ann", Email: userEmail, Disabled: true})
	p.refresh(got.text("refresh_token")).wants(t, "disabled", http.StatusBadRequest, "invalid_grant")
	if p.active(got.text("access_token")) || p.userinfo(got.text("access_token")).status != http.StatusUnauthorized {
		t.Error("a disabled user's access token is good")
	}
	p.putUser(storage.User{ID: "user-ann", Email: userEmail})
	p.dead("enabled again", got)
}

func TestReuseInterval(t *testing.T) {
	p := newIDP(t, func(c *server.Config) { c.Lifetimes.RefreshReuse = 30 * time.Second })
	p.clock.stop()
	first := p.tokens().text("refresh_token")
	second := p.refresh(first)
	p.clock.forward(10 * time.Second)
	tabs := func(token, want string) { // eight browser tabs
		t.Helper()
		again, access := make([]reply, 8), make(map[string]bool)
		together(len(again), func(i int) { again[i] = p.refresh(token) })
		for _, got := range again {
			if got.text("refresh_token") != want || !p.active(got.text("access_token")) {
				t.Errorf("inside the interval: %d %s", got.status, got.raw)
			}
			access[got.text("access_token")] = true
		}
		if len(access) != len(again) {
			t.Error("two replies have one access token")
		}
	}
	tabs(first, second.text("refresh_token"))
	third := p.refresh(second.text("refresh_token"))
	tabs(first, third.text("refresh_token")) // there is one chain, also after the successor was used
	tabs(second.text("refresh_token"), third.text("refresh_token"))
	grants, _, err := p.store.Grants(t.Context(), storage.GrantQuery{ClientID: p.client.ID})
	if err != nil || len(grants) != 1 {
		t.Errorf("%d families, %v", len(grants), err)
	}
	p.clock.forward(21 * time.Second)
	tabs(second.text("refresh_token"), third.text("refresh_token")) // 21 s after its use
	p.refresh(first).wants(t, "31 s after its use", http.StatusBadRequest, "invalid_grant")
	p.dead("after the interval", third)
}

// What the manifest of an app says of its reuse interval goes before what the server says of all.
func TestReuseIntervalOfAnApp(t *testing.T) {
	p := newIDP(t, func(c *server.Config) { c.Lifetimes.RefreshReuse = 10 * time.Second })
	p.clock.stop()
	for interval, after := range map[string]struct{ good, over time.Duration }{
		"":    {10 * time.Second, time.Second},
		"0s":  {-1, 0},
		"30s": {30 * time.Second, time.Second},
		"1m":  {time.Minute, time.Second},
	} {
		p.update("my-app", func(c *storage.Client) { c.ReuseInterval = interval })
		first := p.tokens().text("refresh_token")
		second := p.refresh(first)
		if after.good >= 0 {
			p.clock.forward(after.good)
			if got := p.refresh(first); got.text("refresh_token") != second.text("refresh_token") {
				t.Errorf("%q: %s after its use: %d %s", interval, after.good, got.status, got.raw)
			}
		}
		p.clock.forward(after.over)
		p.refresh(first).wants(t, interval+": when it is over", http.StatusBadRequest, "invalid_grant")
		p.dead(interval+": when it is over", second)
	}
}

func TestRefreshTokensExpire(t *testing.T) {
	const day = 24 * time.Hour
	p := newIDP(t)
	idle := p.tokens().text("refresh_token")
	p.clock.forward(90*day + time.Minute)
	if p.active(idle) {
		t.Error("unused for more than 90 days, and active")
	}
	p.refresh(idle).wants(t, "unused for more than 90 days", http.StatusBadRequest, "invalid_grant")

	newest := p.tokens().text("refresh_token")
	for range 2 { // used again and again, up to 160 days
		p.clock.forward(80 * day)
		got := p.refresh(newest)
		if got.status != http.StatusOK {
			t.Fatalf("used within 90 days: %d %s", got.status, got.raw)
		}
		newest = got.text("refresh_token")
	}
	p.clock.forward(5*day + time.Minute)
	p.refresh(newest).wants(t, "after 165 days", http.StatusBadRequest, "invalid_grant")
}

// An access token ends with its hour, a refresh does not end the one before.
func TestAccessTokensExpire(t *testing.T) {
	p := newIDP(t)
	got := p.tokens("scope", "openid")
	p.clock.forward(59 * time.Minute)
	p.refresh(got.text("refresh_token"))
	if !p.active(got.text("access_token")) {
		t.Error("a refresh ended the access token before")
	}
	p.clock.forward(2 * time.Minute)
	if p.active(got.text("access_token")) || p.userinfo(got.text("access_token")).status != http.StatusUnauthorized {
		t.Error("good after its hour")
	}
}

// The database alone gives nobody a token, a session or a client.
func TestRawDatabaseHoldsNoTokens(t *testing.T) {
	p := newIDP(t)
	b := p.browser()
	code := b.code("scope", "openid threads:read")
	got := p.exchange(code)
	next := p.refresh(got.text("refresh_token"))
	q := withDevices(p)
	device := q.device()
	q.approve(device)
	pushed := b.answered(b.get(p.pushedURL(p.push())), "pushed")
	raw := p.etcd.Dump()
	for name, secret := range map[string]string{
		"code": code, "access token": got.text("access_token"), "refresh token": got.text("refresh_token"),
		"next":     next.text("refresh_token"),
		"ID token": got.text("id_token"), "client secret": p.secret, "session": b.cookie("session"),
		"browser": b.cookie("browser"), "password": userPassword,
		"device code": device.text("device_code"), "user code": device.text("user_code"),
		"user code as it is stored": strings.ReplaceAll(device.text("user_code"), "-", ""),
		"code of a pushed request":  pushed,
	} {
		if secret == "" || strings.Contains(raw, secret) {
			t.Errorf("the %s is in the database, or was never made", name)
		}
	}
}

// Refresh tokens of older versions are written in JSON; they go on, and what comes after them says the same.
func TestRefreshTokensInJSON(t *testing.T) {
	p := newIDP(t)
	got := p.exchange(p.browser().code("scope", "openid threads:read", "claims",
		`{"id_token":{"email":{"essential":true}}}`))
	plain := func(token string) map[string]any {
		t.Helper()
		data, err := p.store.Open(storage.SealRefresh, token)
		if err != nil {
			t.Fatal(err)
		}
		var says map[string]any
		anyMap := cbor.DecOptions{DefaultMapType: reflect.TypeFor[map[string]any]()} // as JSON has them
		if mode, err := anyMap.DecMode(); err != nil || mode.Unmarshal(data, &says) != nil {
			t.Fatalf("%x", data)
		}
		return says
	}
	was := plain(got.text("refresh_token"))
	older, err := json.Marshal(was)
	if err != nil {
		t.Fatal(err)
	}
	token, err := p.store.Seal(storage.SealRefresh, older)
	if err != nil {
		t.Fatal(err)
	}
	got = p.refresh(token)
	if got.status != http.StatusOK {
		t.Fatalf("the older form: %d %v", got.status, got)
	}
	is := plain(got.text("refresh_token"))
	for name, value := range was {
		if name != "v" && name != "i" && !reflect.DeepEqual(is[name], value) {
			t.Errorf("%s was %v, is %v", name, value, is[name])
		}
	}
	p.refresh(token).wants(t, "used again", http.StatusBadRequest, "invalid_grant")
	p.refresh(got.text("refresh_token")).wants(t, "after the replay", http.StatusBadRequest, "invalid_grant")
}
