package main

import (
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
