package manifests

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

func TestDocumentPlaces(t *testing.T) {
	doc := documents(t, "# a comment\n"+appYML("app"))[0]
	for path, want := range map[string]strictyaml.Position{
		"spec.oauth.redirectUris":       {Line: 9, Column: 5},
		"spec.oauth.redirectUris[0]":    {Line: 9, Column: 20},
		"spec.oauth.scopes[1]":          {Line: 10, Column: 28},
		"spec.oauth.scopes[7]":          {Line: 10, Column: 5}, // of what is not there, what is nearest
		"spec.oauth.grantTypes":         {Line: 7, Column: 3},
		"spec.workers.web.env.OAUTH":    {Line: 12, Column: 13},
		"spec.oauthScopes":              {Line: 5, Column: 1},
		"manifests.localhostRedirects":  {Line: 2, Column: 1},
		"metadata.name":                 {Line: 4, Column: 12},
		"spec.oauth.redirectUris[0].no": {Line: 9, Column: 20},
	} {
		if got := doc.Place(path); got != want {
			t.Errorf("%s is at %v, want %v", path, got, want)
		}
	}
	if got := (&Document{App: doc.App}).Place("spec.oauth"); got != (strictyaml.Position{}) {
		t.Errorf("a manifest that comes from no file has the place %v", got)
	}
}

func TestReleaseKeepsPlacesOfKeys(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	before := r.view("app")
	want := map[string]storage.Place{
		"spec": {4, 1}, "spec.oauth": {6, 3}, "spec.oauth.clientName": {7, 5}, "spec.oauth.redirectUris": {8, 5},
		"spec.oauth.scopes": {9, 5}, "spec.oauth.autoEnv": {10, 5},
	}
	if got := before.App.Lines; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if p := r.apply(d, "# moved by a comment\n"+appYML("app")); p.Changed || len(p.Changes) > 0 {
		t.Errorf("a comment is a change: %+v", p.Changes)
	}
	after := r.view("app")
	if got := after.App.Lines["spec.oauth.scopes"]; got != (storage.Place{10, 5}) {
		t.Errorf("after a comment, scopes are at %v", got)
	}
	if !after.App.Applied.Equal(before.App.Applied) || after.Client.Revision != before.Client.Revision {
		t.Error("a comment made another release")
	}
	if r.apply(d, "# moved by a comment\n"+appYML("app")); r.view("app").App.Revision != after.App.Revision {
		t.Error("the same file again is written again")
	}
}

func TestDenialHasItsPlace(t *testing.T) {
	r := newRig(t).withAmending(amending{Deny: &plugins.Notice{Code: "no_friday", Path: "spec.version",
		Message: "not on a Friday"}})
	_, err := r.deployer().Plan(context.Background(), documents(t, appYML("one")+"---\n"+appYML("two")))
	var denied *DeniedError
	if !errors.As(err, &denied) || len(denied.Denials) != 2 {
		t.Fatal(err)
	}
	for i, line := range []int{5, 18} {
		if got := denied.Denials[i]; got.File != "app.yml" || got.Line != line || got.Column != 3 {
			t.Errorf("%s: %s:%d:%d", got.App, got.File, got.Line, got.Column)
		}
	}
}
