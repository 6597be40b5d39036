package server

import (
	"slices"
	"strings"
	"testing"
)

func TestParseClaims(t *testing.T) {
	got, err := parseClaims(`{"userinfo": {"given_name": {"essential": true}, "email": null, "http://x.test/y": {"purpose": "z"}},
		"id_token": {"auth_time": {"essential": true}, "acr": {"values": ["a", "b"]}, "sub": {"value": "ann"}}, "verified": 1}`)
	if err != nil {
		t.Fatal(err)
	}
	if names := got.forUserinfo().names(); !slices.Equal(names, []string{"email", "given_name", "http://x.test/y"}) {
		t.Errorf("userinfo: %v", names)
	}
	if names := got.forIDToken().names(); !slices.Equal(names, []string{"acr", "auth_time", "sub"}) {
		t.Errorf("id_token: %v", names)
	}
	if !got.Userinfo["given_name"].Essential || got.Userinfo["email"].Essential ||
		!slices.Equal(got.IDToken["acr"].texts(), []string{"a", "b"}) {
		t.Errorf("%+v", got)
	}
	if scopes := got.scopes(); !slices.Equal(scopes, []string{"email", "profile"}) {
		t.Errorf("scopes %v", scopes)
	}
	for rule, param := range map[string]string{
		"empty": `{}`, "null in the place of a list": `{"userinfo": null}`, "unknown members": `{"x": [1]}`,
		"no value": `{"id_token": {"acr": {"value": null}}}`,
	} {
		if got, err := parseClaims(param); err != nil || len(got.Userinfo["x"].Values)+len(got.IDToken["acr"].Values) != 0 {
			t.Errorf("%s: %v %v", rule, got, err)
		}
	}
	for rule, param := range map[string]string{
		"no JSON": `x`, "cut off": `{"userinfo":`, "null": `null`, "a list": `[]`, "a string": `"{}"`, "two objects": `{}{}`,
		"userinfo is no object": `{"userinfo": []}`, "a claim that is true": `{"userinfo": {"email": true}}`,
		"a claim that is a list":  `{"id_token": {"acr": ["x"]}}`,
		"essential is no boolean": `{"id_token": {"acr": {"essential": "yes"}}}`,
		"values is no list":       `{"id_token": {"acr": {"values": "x"}}}`,
		"value and values":        `{"id_token": {"acr": {"value": "x", "values": ["y"]}}}`, "too long": `{"x": "` +
			strings.Repeat("x", 2048) + `"}`,
		"deep": strings.Repeat(`{"userinfo":`, 100),
	} {
		if got, err := parseClaims(param); err == nil {
			t.Errorf("%s: taken as %+v", rule, got)
		}
	}
}

func TestClaimValues(t *testing.T) {
	got,
		err :=
		parseClaims(
			`{"userinfo": {"email": {"value": "a&b@app.test"}, "email_verified": {"value": true}, "name": {"values": ["Ann", 1, {"a": 1}]}, "locale": null}}`)
	if err != nil {
		t.Fatal(err)
	}
	wishes := got.forUserinfo()
	for _, c := range []struct {
		name  string
		value any
		want  bool
	}{
		{"email", "a&b@app.test", true}, {"email", "A&b@app.test", false}, {"email_verified", true, true},
		{"email_verified", false, false}, {"name", "Ann", true},
		{"name", 1, true}, {"name", map[string]int{"a": 1}, true}, {"name", "Bob", false}, {"locale", "ja", true},
		{"nickname", "x", false},
	} {
		if wishes.wants(c.name, c.value) != c.want {
			t.Errorf("%s %v: %v", c.name, c.value, !c.want)
		}
	}
	var none *claimsRequest
	if none.forUserinfo().wants("email", "x") || none.forIDToken().names() != nil || none.scopes() != nil {
		t.Error("no request asks for something")
	}
}
