package manifests

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

// A client id, once given to an app, comes back when the app does; nothing else does.
func TestClientIDComesBack(t *testing.T) {
	for rule, goes := range map[string]func(*rig, *Deployer){
		"after a release without a client": func(r *rig, d *Deployer) { r.apply(d, withoutClient("app")) },
		"after the app was deleted": func(r *rig, d *Deployer) {
			if err := d.Delete(r.t.Context(), "app"); err != nil {
				r.t.Fatal(err)
			}
			if r.view("app").App != nil {
				r.t.Fatal("the app is still there")
			}
		},
	} {
		t.Run(rule, func(t *testing.T) {
			r := newRig(t)
			d := r.deployer()
			manifest := appYML("app")
			manifest = manifest[:strings.Index(manifest, "  workers:")] // nothing to wait for
			r.apply(d, manifest)
			before, secret := r.view("app").Client, r.secret("app")
			g := r.grant(before.ID, "threads:read")
			goes(r, d)
			p := r.plan(d, manifest)
			if want := "brings back the client id " + before.ID; !slices.ContainsFunc(p.Consequences, func(c string) bool {
				return strings.HasPrefix(c, want)
			}) {
				t.Errorf("consequences: %q", p.Consequences)
			}
			ended := r.view("app").Former.Ended
			r.apply(d, manifest)
			client := r.view("app").Client
			if client.ID != before.ID || client.ID != r.view("app").App.ClientID {
				t.Errorf("client %s, and it was %s", client.ID, before.ID)
			}
			if r.secret("app") == secret || len(client.Secrets) != 1 {
				t.Error("the former secret is valid")
			}
			if _, err := r.store.Grant(t.Context(), client.ID, g.ID, g.UserID); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("the former grant: %v", err)
			}
			// Tokens say the second in which they were issued.
			if client.Issued(ended.Truncate(time.Second)) || client.Issued(ended) ||
				!client.Issued(time.Now().Truncate(time.Second)) {
				t.Errorf("ended %s, returned %s", ended, client.Returned)
			}
		})
	}
}

// An app that has never had another client gets an id that is new, and keeps it while it is changed.
func TestClientIDIsNewOnce(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	first := r.view("app")
	if first.Former != nil || !first.Client.Returned.IsZero() {
		t.Errorf("%+v %+v", first.Former, first.Client)
	}
	r.apply(d, strings.Replace(appYML("app"), "1.0.0", "1.0.1", 1))
	if now := r.view("app").Client; now.ID != first.Client.ID || !now.Returned.IsZero() {
		t.Errorf("%+v", now)
	}
}
