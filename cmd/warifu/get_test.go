package main

import (
	"strings"
	"testing"

	"github.com/warifu/warifu/server/admin"
)

func TestGrantsNameAppOrClient(t *testing.T) {
	for _, c := range []struct{ app, client, want string }{
		{"my-app", "my-app-abc", "my-app"},
		{"", "client-abc", "client-abc"},
		{"", "https://agent.example/client.json", "https://agent.example/client.json"},
	} {
		if got := grantCells(admin.Grant{ID: "g", App: c.app, ClientID: c.client})[1]; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// The secret that an app behind forward auth has from before is none that anybody uses.
func TestDescribeAppBehindForwardAuthWithASecret(t *testing.T) {
	client := admin.Client{ID: "wiki-1", Name: "Wiki", GrantTypes: []string{}}
	client.ForwardAuthHosts = []string{"wiki.example.com"}
	for uris, want := range map[string]bool{"": false, "https://wiki.example.com/cb": true} {
		client.RedirectURIs = strings.Fields(uris)
		var said strings.Builder
		err := (&cli{stdout: &said}).showApp(admin.AppDetail{Client: &client, Secrets: []admin.Secret{{ID: "old"}}})
		if err != nil || strings.Contains(said.String(), "SECRET") != want ||
			strings.Contains(said.String(), "confidential") != want {
			t.Errorf("with the redirect URI %q: %v\n%s", uris, err, said.String())
		}
	}
}
