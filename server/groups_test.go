package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// saysGroups checks the claim groups, which is an array or not there.
func saysGroups(t *testing.T, where string, claims map[string]any, want ...string) {
	t.Helper()
	list, is := claims["groups"].([]any)
	if want == nil {
		if claims["groups"] != nil {
			t.Errorf("%s: %v, and nobody asked for groups", where, claims["groups"])
		}
		return
	}
	got := []string{}
	for _, item := range list {
		got = append(got, fmt.Sprint(item))
	}
	if !is || !slices.Equal(got, want) {
		t.Errorf("%s: groups are %#v, want %q", where, claims["groups"], want)
	}
}

// The scope groups tells the groups of a user wherever claims are told: always as an array, also of one group and of
// none; in access tokens when the manifest says so.
func TestGroupsAreToldByTheirScope(t *testing.T) {
	p := newIDP(t, withFilesAPI).withAllScopes()
	none := []string{}
	for _, c := range []struct {
		rule, scope string
		groups      []string
		change      func(*storage.Client)
		want        []string // in ID token, userinfo and introspection
		access      []string
	}{
		{"two groups", "openid groups", []string{"staff", "admins"}, nil, []string{"admins", "staff"}, nil},
		{"one group", "openid groups", []string{"staff"}, nil, []string{"staff"}, nil},
		{"no group", "openid groups", nil, nil, none, nil},
		{"without the scope", "openid profile email", []string{"staff"}, nil, nil, nil},
		{"in access tokens", "openid groups", []string{"staff"},
			func(c *storage.Client) { c.AccessTokenClaims = []string{"groups", "email"} }, []string{"staff"}, []string{"staff"}},
		{"in access tokens, none", "openid groups", nil, nil, none, none},
		{"in access tokens, without the scope", "openid profile", []string{"staff"}, nil, nil, nil},
		{"those of the filter", "openid groups", []string{"team-a", "team-b", "team", "a-team-b", "ops"},
			func(c *storage.Client) { c.GroupFilter = []string{"team-*", "ops"} }, []string{"ops", "team-a", "team-b"},
			[]string{"ops", "team-a", "team-b"}},
		{"none of the filter", "openid groups", []string{"x"}, nil, none, none},
	} {
		if c.change != nil {
			p.update("my-app", c.change)
		}
		p.member("user-ann", c.groups...)
		issued := p.tokens("scope", c.scope)
		for _, got := range []reply{issued, p.refresh(issued.text("refresh_token"))} {
			if id := got.text("id_token"); id != "" {
				saysGroups(t, c.rule+", ID token", claimsOf(t, id), c.want...)
			}
			token := got.text("access_token")
			saysGroups(t, c.rule+", access token", claimsOf(t, token), c.access...)
			saysGroups(t, c.rule+", userinfo", p.userinfo(token).json, c.want...)
			saysGroups(t, c.rule+", introspection", p.introspect(token).json, c.want...)
			if told := claimsOf(t, token); told["email"] != nil {
				t.Errorf("%s: the access token tells %v without the scope", c.rule, told["email"])
			}
		}
	}
	both := claimsOf(t, p.tokens("scope", "openid groups email").text("access_token"))
	if both["email"] != userEmail || both["email_verified"] != nil {
		t.Errorf("accessTokenClaims: %v", both)
	}
	if doc := p.document(p.issuer + "/.well-known/openid-configuration").json; !slices.Contains(
		texts(doc["scopes_supported"]), "groups") ||
		!slices.Contains(texts(doc["claims_supported"]), "groups") {
		t.Errorf("discovery: %v %v", doc["scopes_supported"], doc["claims_supported"])
	}
}

// A token from an exchange has the groups that its own client may know, by its own filter.
func TestGroupsOfExchangedTokens(t *testing.T) {
	p, runs := newExchanger(t)
	p.withAllScopes()
	p.member("user-ann", "staff", "team-a")
	p.update("runs-api", func(c *storage.Client) {
		c.Scopes = append(c.Scopes, "groups")
		c.AccessTokenClaims, c.GroupFilter = []string{"groups"}, []string{"team-*"}
	})
	subject := p.tokens("scope", "threads:read groups", "resource", runsAPI).text("access_token")
	saysGroups(t, "the token before", claimsOf(t, subject))
	token := runs.swap(subject).text("access_token")
	saysGroups(t, "the exchanged token", claimsOf(t, token), "team-a")
	saysGroups(t, "its introspection", p.files(token).json, "team-a")
	saysGroups(t, "without the scope", claimsOf(t, runs.swap(subject, "scope", "threads:read").text("access_token")))
}

// What tokens tell of a user costs no request of its own.
func TestGroupsInTokensCostNothing(t *testing.T) {
	p := newIDP(t).withAllScopes()
	p.clock.stop()
	p.member("user-ann", "staff")
	p.update("my-app", func(c *storage.Client) {
		c.AccessTokenClaims, c.AccessGroups = []string{"groups"},
			[]string{"staff"}
	})
	newest := p.refresh(p.tokens("scope", "openid groups").text("refresh_token"))
	code := p.code("scope", "openid groups")
	for rule, do := range map[string]func() reply{
		"code exchange": func() reply { return p.exchange(code) },
		"refresh":       func() reply { return p.refresh(newest.text("refresh_token")) },
	} {
		var got reply
		if counts := p.etcd.Count(func() { got = do() }); counts != (storagetest.Counts{Proposals: 1}) ||
			got.status != http.StatusOK {
			t.Errorf("%s: %+v, %d", rule, counts, got.status)
		}
		saysGroups(t, rule, claimsOf(t, got.text("access_token")), "staff")
	}
}

// The largest list of groups and attributes that a user can have makes tokens that this server still takes.
func TestTheLargestTokensAreTaken(t *testing.T) {
	p := newIDP(t, func(c *server.Config) { c.Claims = []server.Claim{{Name: "roles", Scope: "profile"}} }).withAllScopes()
	var roles []any
	var names []string
	for i := range 125 {
		names = append(names, fmt.Sprintf("a-group-of-this-name-%08d", i))
	}
	for i := range 90 {
		roles = append(roles, fmt.Sprintf("a-role-of-it-%05d", i))
	}
	attributes := map[string]any{"roles": roles}
	if name, wrong := connector.CheckAttributes(attributes); wrong != "" {
		t.Fatal(name, wrong)
	}
	if _, wrong := oauth.CheckGroups(names); wrong != "" {
		t.Fatal(wrong)
	}
	u, err := p.store.User(t.Context(), "user-ann")
	if err != nil {
		t.Fatal(err)
	}
	u.Groups = storage.NamesOf(names)
	if u.Attributes, err = storage.AttributesOf(attributes); err != nil {
		t.Fatal(err)
	}
	p.putUser(*u)
	p.update("my-app", func(c *storage.Client) {
		c.AccessTokenClaims = []string{"groups", "roles", "name", "email", "address", "picture", "website",
			"profile", "phone_number"}
	})
	issued := p.tokens("scope", "openid profile email address phone groups")
	token := issued.text("access_token")
	if len(token) < 8<<10 {
		t.Errorf("the token has %d bytes, which proves nothing", len(token))
	}
	if got := p.userinfo(token); got.status != http.StatusOK || len(got.json["groups"].([]any)) != len(names) {
		t.Errorf("userinfo: %d %s", got.status, got.raw)
	}
	if !p.active(token) {
		t.Error("introspection does not take it")
	}
	b := p.browser()
	if got := b.post(p.issuer+"/oauth/logout", url.Values{"id_token_hint": {issued.text(
		"id_token")}}); got.status >= http.StatusBadRequest {
		t.Errorf("as a hint: %d %s", got.status, shown(got.body))
	}
}

// Claims that the configuration makes of attributes come with their scope, or to the apps that list them; the claims
// parameter asks for them as for others.
func TestClaimsOfAttributes(t *testing.T) {
	p := newIDP(t, func(c *server.Config) {
		c.Claims = []server.Claim{
			{Name: "department", Scope: "profile"}, {Name: "https://app.test/level", Attribute: "level", Scope: "threads:read"},
			{Name: "roles"},
		}
	}).withAllScopes()
	u, err := p.store.User(t.Context(), "user-ann")
	if err != nil {
		t.Fatal(err)
	}
	u.PreferredUsername = "ann.example"
	if u.Attributes, err = storage.AttributesOf(map[string]any{
		"department": "Sales & <More>", "level": 3, "roles": []any{"a", "b"}, "secret": "of nobody's business"}); err != nil {
		t.Fatal(err)
	}
	p.putUser(*u)
	const level = "https://app.test/level"
	roles := []any{"a", "b"}
	check := func(rule string, issued reply, want map[string]any) {
		t.Helper()
		for where, claims := range map[string]map[string]any{
			"userinfo": p.userinfo(issued.text("access_token")).json, "ID token": claimsOf(t, issued.text("id_token")),
		} {
			for _, name := range []string{"department", level, "roles", "level", "secret"} {
				if !reflect.DeepEqual(claims[name], want[name]) {
					t.Errorf("%s, %s: %s is %#v, want %#v", rule, where, name, claims[name], want[name])
				}
			}
		}
	}
	check("profile", p.tokens("scope", "openid profile"), map[string]any{"department": "Sales & <More>"})
	check("a scope of the catalogue", p.tokens("scope", "openid threads:read"), map[string]any{level: 3.0})
	wish := asking(`{"roles": null, "department": null}`, `{"roles": null, "department": null}`)
	check("by name", p.tokens(append(wish, "scope", "openid")...), map[string]any{"department": "Sales & <More>"})
	p.update("my-app", func(c *storage.Client) { c.Claims = []string{"roles"} })
	check("listed", p.tokens("scope", "openid profile"), map[string]any{"department": "Sales & <More>", "roles": roles})
	check("listed, without the scope", p.tokens("scope", "openid"), nil)
	check("listed, by name", p.tokens(append(wish, "scope", "openid")...), map[string]any{"department": "Sales & <More>",
		"roles": roles})
	if got := p.userinfo(p.tokens("scope", "openid profile").text(
		"access_token")).json["preferred_username"]; got != "ann.example" {
		t.Errorf("preferred_username is %v", got)
	}
	b, first := p.signedIn("bob@app.test")
	got := b.get(p.authorizeURL(append(wish, "scope", "openid", "prompt", "consent")...))
	if first.asks() != "decision" || !strings.Contains(got.body, "<code>profile</code>") {
		t.Errorf("the scope of a claim by name is not asked for: %s", shown(got.body))
	}
	if doc := p.document(p.issuer + "/.well-known/openid-configuration").json; !slices.Contains(
		texts(doc["claims_supported"]), level) {
		t.Errorf("claims_supported: %v", doc["claims_supported"])
	}
}

// A server is not made of claims that would take the place of others, or come with a scope that there is not.
func TestCheckClaims(t *testing.T) {
	scopes := server.ScopeNames(server.DefaultScopes())
	wrong := server.CheckClaims([]server.Claim{
		{Name: "fine"}, {Name: "sub"}, {Name: "email"}, {Name: "groups"}, {Name: "fine"}, {Name: ""}, {Name: "a b"},
		{Name: "x", Scope: "profil"}, {Name: "y", Attribute: "a b"}, {Name: "scope"}, {Name: "username"},
	}, scopes)
	var got []string
	for _, w := range wrong {
		got = append(got, fmt.Sprintf("%d %s %d %s", w.Index, w.Key, w.Twin, w.Nearest))
	}
	want := []string{"1 name -1 ", "2 name -1 ", "3 name -1 ", "4 name 0 ", "5 name -1 ", "6 name -1 ",
		"7 scope -1 profile",
		"8 attribute -1 ", "9 name -1 ", "10 name -1 "}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
