package server_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// What is known of Ann: every standard claim.
var (
	annProfile = connector.Profile{
		GivenName: "Ann", FamilyName: "Example", MiddleName: "M.", Nickname: "annie", ProfileURL: "https://ann.test/about",
		PictureURL: "https://ann.test/picture.png", WebsiteURL: "https://ann.test/", Gender: "female",
		Birthdate: "1990-04-01",
		Zoneinfo:  "Asia/Tokyo", Locale: "ja-JP", PhoneNumber: "+81 3 1234 5678", PhoneNumberVerified: true,
	}
	annAddress = connector.Address{
		Formatted: "1-2-3 Marunouchi\nChiyoda-ku, Tokyo 100-0005\nJapan", StreetAddress: "1-2-3 Marunouchi",
		Locality: "Chiyoda-ku",
		Region:   "Tokyo", PostalCode: "100-0005", Country: "Japan",
	}
)

// claimsByScope are Ann's, but for updated_at (OpenID Connect Core 1.0 section 5.4).
var claimsByScope = map[string]map[string]any{
	"profile": {
		"name": "Ann", "given_name": "Ann", "family_name": "Example", "middle_name": "M.", "nickname": "annie",
		"preferred_username": "ann",
		"profile":            "https://ann.test/about", "picture": "https://ann.test/picture.png",
		"website":   "https://ann.test/",
		"gender":    "female",
		"birthdate": "1990-04-01", "zoneinfo": "Asia/Tokyo", "locale": "ja-JP",
	},
	"email": {"email": userEmail, "email_verified": true},
	"address": {"address": map[string]any{
		"formatted": "1-2-3 Marunouchi\nChiyoda-ku, Tokyo 100-0005\nJapan", "street_address": "1-2-3 Marunouchi",
		"locality": "Chiyoda-ku",
		"region":   "Tokyo", "postal_code": "100-0005", "country": "Japan",
	}},
	"phone": {"phone_number": "+81 3 1234 5678", "phone_number_verified": true},
}

// withAllScopes lets the app ask for everything.
func (p *idp) withAllScopes() *idp {
	p.t.Helper()
	p.update(p.client.App, func(c *storage.Client) { c.Scopes = server.ScopeNames(server.DefaultScopes()) })
	return p
}

func TestEachScopeGivesItsClaims(t *testing.T) {
	p := newIDP(t).withAllScopes()
	for scope, want := range claimsByScope {
		issued := p.tokens("scope", "openid "+scope)
		got := p.userinfo(issued.text("access_token"))
		if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %d %s", scope, got.status, got.raw)
		}
		if scope == "profile" {
			if n, _ := got.json["updated_at"].(float64); n <= 0 {
				t.Errorf("updated_at: %v", got.json["updated_at"])
			}
			delete(got.json, "updated_at")
		}
		if got.json["sub"] != "user-ann" || len(got.json) != len(want)+1 {
			t.Errorf("%s: %s", scope, got.raw)
		}
		for name, value := range want {
			if !reflect.DeepEqual(got.json[name], value) {
				t.Errorf("%s: %v, want %v", name, got.json[name], value)
			}
			if told := claimsOf(t, issued.text("id_token"))[name]; !reflect.DeepEqual(told, value) {
				t.Errorf("%s in the ID token: %v, want %v", name, told, value)
			}
		}
	}
}

// Most clients know users by their ID token alone, so it says what the scopes cover; server and client can have it
// sparse. What a refresh brings says the same.
func TestIDTokenTellsTheClaimsOfScopes(t *testing.T) {
	p := newIDP(t)
	sparse := p.replica(p.etcd.Client)
	sparse.cfg.IDTokenClaims = oauth.IDTokenStandard
	sparse.serve(sparse.store)
	standard := p.as(p.register("standard", func(c *storage.Client) { c.IDTokenClaims = oauth.IDTokenStandard }))
	scopes := p.as(p.register("scopes", func(c *storage.Client) { c.IDTokenClaims = oauth.IDTokenScopes }))
	for rule, c := range map[string]struct {
		server, client *idp
		told           bool
	}{
		"by default": {p, p, true}, "client standard": {p, standard, false}, "client scopes": {p, scopes, true},
		"server standard": {sparse, p, false}, "server standard, client standard": {sparse, standard, false},
		"server standard, client scopes": {sparse, scopes, true},
	} {
		q := c.server.as(c.client.client, c.client.secret)
		issued := q.tokens(append(asking(`{}`, `{"nickname": null}`), "scope", "openid email threads:read")...)
		for _, got := range []reply{issued, q.refresh(issued.text("refresh_token"))} {
			claims := claimsOf(t, got.text("id_token"))
			if _, told := claims["email"]; told != c.told || told && (claims["email"] != userEmail ||
				claims["email_verified"] != true) {
				t.Errorf("%s: %v", rule, claims)
			}
			if claims["nickname"] != "annie" || claims["name"] != nil {
				t.Errorf("%s: asked for one by one: %v", rule, claims)
			}
		}
		if info := q.userinfo(issued.text("access_token")).json; info["email"] != userEmail || info["nickname"] != nil {
			t.Errorf("%s: userinfo %v", rule, info)
		}
	}
}

// What is not known is left out: neither null nor empty (OpenID Connect Core 1.0 section 5.3.2).
func TestUnknownClaimsAreLeftOut(t *testing.T) {
	p := newIDP(t).withAllScopes()
	token := p.tokens("scope", "openid profile email address phone").text("access_token")
	p.putUser(storage.User{ID: "user-ann"})
	got := p.userinfo(token)
	delete(got.json, "updated_at")
	if want, _ := json.Marshal(map[string]any{"sub": "user-ann"}); got.status != http.StatusOK || len(got.json) != 1 {
		t.Errorf("%s, want %s", got.raw, want)
	}
	p.putUser(storage.User{ID: "user-ann", Email: "new@app.test", Profile: storage.Profile{PhoneNumber: "+1 555 0100"},
		Address: storage.Address{Country: "Japan"}})
	got = p.userinfo(token)
	if got.json["email_verified"] != false || got.json["phone_number_verified"] != false ||
		!reflect.DeepEqual(got.json["address"], map[string]any{"country": "Japan"}) {
		t.Errorf("%s", got.raw)
	}
}

// asking is a claims parameter.
func asking(userinfo, idToken string) []string {
	return []string{"claims", `{"userinfo": ` + userinfo + `, "id_token": ` + idToken + `}`}
}

// The claims parameter (OpenID Connect Core 1.0 section 5.5): each claim where it was asked for, essential or not, and
// nothing beside it.
func TestEachClaimWhereItIsAskedFor(t *testing.T) {
	p := newIDP(t).withAllScopes()
	for _, claims := range claimsByScope {
		for name, want := range claims {
			for _, how := range []string{`null`, `{"essential": true}`, `{"essential": false}`} {
				wish := `{"` + name + `": ` + how + `}`
				told, asked := p.tokens(append(asking(wish, `{}`), "scope", "openid")...),
					p.tokens(append(asking(`{}`, wish), "scope", "openid")...)
				for rule, c := range map[string]struct {
					issued      reply
					info, token bool
				}{"userinfo": {told, true, false}, "ID token": {asked, false, true}} {
					info := p.userinfo(c.issued.text("access_token")).json
					id := claimsOf(t, c.issued.text("id_token"))
					if reflect.DeepEqual(info[name], want) != c.info || reflect.DeepEqual(id[name], want) != c.token {
						t.Errorf("%s %s in %s: userinfo %v, ID token %v", name, how, rule, info[name], id[name])
					}
					if c.info && len(info) != 2 || !c.info && len(info) != 1 {
						t.Errorf("%s in %s: userinfo %v", name, rule, info)
					}
					if got := c.issued.text("scope"); got != "openid" {
						t.Errorf("scope %s", got)
					}
				}
			}
		}
	}
}

// A claim that is asked for with a value is told when it has that value, and is no error when it has not (section
// 5.5.1).
func TestClaimsWithValues(t *testing.T) {
	p := newIDP(t).withAllScopes()
	for wish, told := range map[string]bool{
		`{"email": {"value": "ann@app.test"}}`:                    true,
		`{"email": {"value": "bob@app.test", "essential": true}}`: false,
		`{"email": {"values": ["bob@app.test", "ann@app.test"]}}`: true,
		`{"email": {"values": ["bob@app.test"]}}`:                 false,
		`{"email_verified": {"value": true}}`:                     true,
		`{"email_verified": {"value": false}}`:                    false,
		`{"email_verified": {"value": "true"}}`:                   false,
		`{"address": {"value": {"country": "Japan"}}}`:            false,
		`{"nobody_knows_this": {"essential": true}}`:              false,
		`{"sub": null}`: false, // always there, see below
		`{"name": {"value": "A\u006en"}, "amr": null, "auth_time": null}`: true,
	} {
		issued := p.tokens(append(asking(wish, wish), "scope", "openid")...)
		info, id := p.userinfo(issued.text("access_token")).json, claimsOf(t, issued.text("id_token"))
		extra := 0
		for name := range aboutAnn() {
			if _, in := id[name]; in {
				extra++
			}
		}
		if (len(info) == 2) != told || (extra == 1) != told || info["sub"] != "user-ann" || id["sub"] != "user-ann" {
			t.Errorf("%s: userinfo %v, ID token %v", wish, info, id)
		}
	}
}

// aboutAnn are the names of all claims about Ann.
func aboutAnn() map[string]bool {
	names := map[string]bool{"updated_at": true}
	for _, claims := range claimsByScope {
		for name := range claims {
			names[name] = true
		}
	}
	return names
}

// What app.yml does not let the app ask for is left out, whether it never did or does not any more; what stays is told
// as long as the grant lives.
func TestClaimsNeedTheScopeThatCoversThem(t *testing.T) {
	p := newIDP(t)
	wish := `{"email": null, "phone_number": {"essential": true}, "nickname": null}`
	ask := append(asking(wish, wish), "scope", "openid")
	issued := p.tokens(ask...)
	told := func(claims map[string]any, rule string, want map[string]any) {
		t.Helper()
		for name := range aboutAnn() {
			if claims[name] != want[name] {
				t.Errorf("%s: %s is %v, want %v", rule, name, claims[name], want[name])
			}
		}
	}
	want := map[string]any{"email": userEmail, "nickname": "annie"} // the app lists no phone
	told(p.userinfo(issued.text("access_token")).json, "userinfo", want)
	told(claimsOf(t, issued.text("id_token")), "ID token", want)
	refreshed := p.refresh(issued.text("refresh_token"))
	told(p.userinfo(refreshed.text("access_token")).json, "after a refresh", want)

	p.putUser(storage.User{ID: "user-ann", Username: "ann", Email: "new@app.test"})
	told(p.userinfo(refreshed.text("access_token")).json, "of a changed user", map[string]any{"email": "new@app.test"})
	code := p.code(ask...)
	p.putUser(storage.User{ID: "user-ann", Username: "ann", Email: "newest@app.test",
		Profile: storage.Profile{Nickname: "a"}})
	now := p.exchange(code)
	told(claimsOf(t, now.text("id_token")), "of a user who changed after the code",
		map[string]any{"email": "newest@app.test", "nickname": "a"})

	code = p.code(ask...)
	p.update(p.client.App, func(c *storage.Client) { c.Scopes = []string{"openid", "profile"} })
	now = p.exchange(code)
	told(claimsOf(t, now.text("id_token")), "scope lost after the code", map[string]any{"nickname": "a"})
	told(p.userinfo(now.text("access_token")).json, "scope lost after the code, userinfo", map[string]any{"nickname": "a"})
	told(p.userinfo(refreshed.text("access_token")).json, "scope lost since", map[string]any{"nickname": "a"})
}

// Neither the address bar nor a token shows what was asked for, and the one transaction stays one.
func TestClaimsAreInNoToken(t *testing.T) {
	p := newIDP(t).withAllScopes()
	p.clock.stop()
	p.tokens("scope", "openid")
	wish := `{"email": null, "address": null, "phone_number": null, "name": null}`
	code := p.code(append(asking(wish, wish), "scope", "openid")...)
	var issued, info reply
	if got := p.etcd.Count(func() { issued = p.exchange(code) }); got != (storagetest.Counts{Proposals: 1}) {
		t.Errorf("exchange: %+v", got)
	}
	if got := p.etcd.Count(func() {
		info = p.userinfo(
			issued.text("access_token"))
	}); got != (storagetest.Counts{Reads: 1}) || len(info.json) != 5 {
		t.Errorf("userinfo: %+v, %s", got, info.raw)
	}
	if len(code) > 2000 {
		t.Errorf("a code of %d bytes", len(code))
	}
	plain := p.tokens("scope", "openid")
	if with, without := len(issued.text("refresh_token")), len(plain.text("refresh_token")); with > without+150 {
		t.Errorf("the refresh token has %d bytes with claims, %d without", with, without)
	}
	for name := range claimsOf(t, issued.text("access_token")) {
		if aboutAnn()[name] {
			t.Errorf("%s in the access token", name)
		}
	}
	for _, value := range []string{userEmail, "Marunouchi"} {
		if strings.Contains(p.log.String(), value) {
			t.Errorf("the log holds %s", value)
		}
	}
}

// A claim takes the user's consent to the scope that covers it, however small it is, and as the page says it.
func TestClaimsNeedConsent(t *testing.T) {
	p := newIDP(t).withAllScopes()
	b := p.browser()
	b.code("scope", "openid")
	for wish, c := range map[string]struct{ description, scope string }{
		`{"nickname": null}`: {"See your name, user name, picture, web pages, gender, date of birth, " +
			"time zone and language<", "profile"},
		`{"email_verified": null}`:               {"See your e-mail address<", "email"},
		`{"address": {"essential": true}}`:       {"See your postal address<", "address"},
		`{"phone_number": {"value": "+1 2345"}}`: {"See your phone number<", "phone"},
	} {
		for _, ask := range [][]string{asking(wish, `{}`), asking(`{}`, wish)} {
			ask = append(ask, "scope", "openid")
			p.redirected(b.get(p.authorizeURL(append(ask, "prompt", "none")...)), wish, "consent_required")
			shown := b.get(p.authorizeURL(ask...))
			if shown.asks() != "decision" || !strings.Contains(shown.body, c.description) {
				t.Errorf("%s: the page does not say %q", wish, c.description)
			}
			p.redirected(b.decide(shown, "deny"), wish, "access_denied")
		}
		ask := append(asking(wish, wish), "scope", "openid")
		issued := p.exchange(b.code(ask...))
		if issued.text("scope") != "openid" {
			t.Errorf("%s: scope %q", wish, issued.text("scope"))
		}
		b.answered(b.get(p.authorizeURL(append(ask, "prompt", "none")...)), wish+" again")
		b.answered(b.get(p.authorizeURL("scope", "openid "+c.scope, "prompt", "none")), "its scope, which was allowed")
	}
}
