package dex

import (
	"encoding/json"
	"log/slog"
	"reflect"
	"testing"

	dexconnector "github.com/dexidp/dex/connector"
	"github.com/dexidp/dex/connector/oidc"
)

// The same claims make the same person here and in Dex.
func TestOIDCTellsTheSameAsDex(t *testing.T) {
	t.Parallel()
	type object = map[string]any
	groups := object{"insecureEnableGroups": true}
	roles := object{"insecureEnableGroups": true, "claimMapping": object{"groups": "roles"}}
	mapped := object{"claimMapping": object{"email": "mail", "preferred_username": "nick"}}
	cases := []struct {
		name                     string
		config, claims, userinfo object
	}{
		{"usual", nil, nil, nil},
		{"preferred_username", nil, object{"preferred_username": "ada"}, nil},
		{"no name", nil, object{"name": nil}, nil},
		{"another name", object{"userNameKey": "nick"}, object{"nick": "A", "name": nil}, nil},
		{"another name that is missing", object{"userNameKey": "nick"}, nil, nil},
		{"another id", object{"userIDKey": "oid"}, object{"oid": "1234"}, nil},
		{"another id that is a number", object{"userIDKey": "oid"}, object{"oid": 1234}, nil},
		{"no email", nil, object{"email": nil}, nil},
		{"no email without the scope", object{"scopes": []string{"profile"}},
			object{"email": nil, "email_verified": nil}, nil},
		{"not verified", nil, object{"email_verified": false}, nil},
		{"not known whether verified", nil, object{"email_verified": nil}, nil},
		{"verified as text", nil, object{"email_verified": "true"}, nil},
		{"skip, false", object{"insecureSkipEmailVerified": true}, object{"email_verified": false}, nil},
		{"skip, missing", object{"insecureSkipEmailVerified": true}, object{"email_verified": nil}, nil},
		{"mapped where missing", mapped,
			object{"email": nil, "mail": "a@b.example", "nick": "n"}, nil},
		{"mapped, not missing", mapped,
			object{"mail": "a@b.example", "nick": "n", "preferred_username": "p"}, nil},
		{"mapped always", over(mapped, object{"overrideClaimMapping": true}),
			object{"mail": "a@b.example", "nick": "n", "preferred_username": "p"}, nil},
		{"mapped always, missing", over(mapped, object{"overrideClaimMapping": true}), nil, nil},
		{"groups not enabled", nil, object{"groups": []string{"a"}}, nil},
		{"groups", groups, object{"groups": []string{"a", "b"}}, nil},
		{"a group", groups, object{"groups": "a"}, nil},
		{"no groups", groups, nil, nil},
		{"groups that are objects", groups, object{"groups": []any{object{"name": "a"}, object{"id": "b"}, "c"}}, nil},
		{"groups that are numbers", groups, object{"groups": []any{1}}, nil},
		{"groups called otherwise", roles,
			object{"roles": []string{"r"}}, nil},
		{"groups called otherwise, a text", roles,
			object{"roles": "r", "groups": "g"}, nil},
		{"both", roles,
			object{"roles": []string{"r"}, "groups": []string{"g"}}, nil},
		{"both, overridden", over(roles, object{"overrideClaimMapping": true}),
			object{"roles": []string{"r"}, "groups": []string{"g"}}, nil},
		{"allowed", over(groups, object{"allowedGroups": []string{"b", "c"}}),
			object{"groups": []string{"a", "b"}}, nil},
		{"not allowed", over(groups, object{"allowedGroups": []string{"c"}}),
			object{"groups": []string{"a", "b"}}, nil},
		{"allowed, no groups", over(groups, object{"allowedGroups": []string{"c"}}), nil, nil},
		{"filtered", object{"insecureEnableGroups": true, "claimModifications": object{
			"filterGroupClaims": object{"groupsFilter": "^dev"},
			"modifyGroupNames":  object{"prefix": "up:", "suffix": "!"}}},
			object{"groups": []any{"dev-a", "ops", object{"name": "dev-b"}, object{"name": "ops"}}}, nil},
		{"filtered, a text", object{"insecureEnableGroups": true, "claimModifications": object{
			"filterGroupClaims": object{"groupsFilter": "^dev"}}}, object{"groups": "ops"}, nil},
		{"made of claims", object{"claimModifications": object{"newGroupFromClaims": []any{
			object{"claims": []string{"org", "team", "n"}, "delimiter": "-", "clearDelimiter": true, "prefix": "bk"},
			object{"claims": []string{"org"}, "delimiter": ":"},
			object{"claims": []string{"none"}, "delimiter": ":"}}}},
			object{"org": "a-b", "team": "c", "n": 1}, nil},
		{"userinfo", over(groups, object{"getUserInfo": true}),
			object{"name": nil, "groups": []string{"old"}},
			object{"name": "Of userinfo", "groups": []string{"new"}, "email": "new@example.com"}},
		{"userinfo not asked", nil, object{"name": nil}, object{"name": "Of userinfo"}},
		{"userinfo, verified as text", object{"getUserInfo": true}, nil, object{"email_verified": "true"}},
	}
	p := newProvider(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p.set(func() { p.claims, p.userinfo = c.claims, c.userinfo })
			s := oidcSpec(t, p, c.config)
			var config oidc.Config
			if err := json.Unmarshal(s.Config, &config); err != nil {
				t.Fatal(err)
			}
			opened, err := config.Open("up", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			theirs := opened.(dexconnector.CallbackConnector)
			address, data, err := theirs.LoginURL(dexconnector.Scopes{}, callback, "state")
			if err != nil {
				t.Fatal(err)
			}
			want, wantErr := theirs.HandleCallback(dexconnector.Scopes{}, data, callbackOf(t, address))
			got, err := signIn(t, open(t, s), ask())
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("here: %v, in Dex: %v", err, wantErr)
			}
			if err != nil {
				_ = refused(t, err)
				return
			}
			want.ConnectorData = nil
			told, err := identity(want)
			if err != nil || !reflect.DeepEqual(got, told) {
				t.Errorf("here:   %+v\nin Dex: %+v", got, want)
			}
		})
	}
}
