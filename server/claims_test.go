package server_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
)

// What is known of Ann: every standard claim.
var (
	annProfile = connector.Profile{
		GivenName: "Ann", FamilyName: "Example", MiddleName: "M.", Nickname: "annie", ProfileURL: "https://ann.test/about",
		PictureURL: "https://ann.test/picture.png", WebsiteURL: "https://ann.test/", Gender: "female", Birthdate: "1990-04-01",
		Zoneinfo: "Asia/Tokyo", Locale: "ja-JP", PhoneNumber: "+81 3 1234 5678", PhoneNumberVerified: true,
	}
	annAddress = connector.Address{
		Formatted: "1-2-3 Marunouchi\nChiyoda-ku, Tokyo 100-0005\nJapan", StreetAddress: "1-2-3 Marunouchi", Locality: "Chiyoda-ku",
		Region: "Tokyo", PostalCode: "100-0005", Country: "Japan",
	}
)

// claimsByScope are Ann's, but for updated_at (OpenID Connect Core 1.0 section 5.4).
var claimsByScope = map[string]map[string]any{
	"profile": {
		"name": "Ann", "given_name": "Ann", "family_name": "Example", "middle_name": "M.", "nickname": "annie", "preferred_username": "ann",
		"profile": "https://ann.test/about", "picture": "https://ann.test/picture.png", "website": "https://ann.test/", "gender": "female",
		"birthdate": "1990-04-01", "zoneinfo": "Asia/Tokyo", "locale": "ja-JP",
	},
	"email": {"email": userEmail, "email_verified": true},
	"address": {"address": map[string]any{
		"formatted": "1-2-3 Marunouchi\nChiyoda-ku, Tokyo 100-0005\nJapan", "street_address": "1-2-3 Marunouchi", "locality": "Chiyoda-ku",
		"region": "Tokyo", "postal_code": "100-0005", "country": "Japan",
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
			if _, told := claimsOf(t, issued.text("id_token"))[name]; told {
				t.Errorf("%s is in the ID token, and nobody asked for it there", name)
			}
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
	p.putUser(storage.User{ID: "user-ann", Email: "new@app.test", Profile: storage.Profile{PhoneNumber: "+1 555 0100"}, Address: storage.Address{Country: "Japan"}})
	got = p.userinfo(token)
	if got.json["email_verified"] != false || got.json["phone_number_verified"] != false || !reflect.DeepEqual(got.json["address"], map[string]any{"country": "Japan"}) {
		t.Errorf("%s", got.raw)
	}
}
