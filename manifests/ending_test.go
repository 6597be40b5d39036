package manifests

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

// withoutClient is a manifest of an app that has no spec.oauth.
func withoutClient(app string) string {
	return "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: " + app +
		"}\nspec: {version: 1.0.0, workers: {web: {}}}\n"
}

// audited are the entries of the audit log about an app that hold all of the words, oldest first.
func (r *rig) audited(app string, words ...string) []storage.AuditEntry {
	r.t.Helper()
	entries, _, err := r.store.Audit(r.t.Context(), storage.AuditQuery{App: app})
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(entries, func(e storage.AuditEntry) bool {
		text := strings.Join([]string{e.Action, e.Outcome, e.Reason, e.Detail}, "|")
		return slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	})
}

func TestFileThatLeavesOutTheClientIsRefused(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	client := r.view("app").Client.ID
	r.grant(client, "threads:read")
	files := filesNamed(appYML("other"), withoutClient("app"))
	plans, _, err := d.PlanFiles(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	want := Ending{App: "app", ClientID: client, Grants: 1}
	if !slices.Equal(plans[1].Ends, []Ending{want}) || len(plans[0].Ends) != 0 {
		t.Errorf("plans end %v and %v", plans[0].Ends, plans[1].Ends)
	}
	var deletion *DeletionError
	if _, _, err := d.ApplyFiles(t.Context(), files, ApplyOptions{}); !errors.As(err, &deletion) ||
		!slices.Equal(deletion.Ends, []Ending{want}) {
		t.Fatalf("applied without a word that it may: %v", err)
	}
	if r.view("app").Client == nil || r.view("other").App != nil {
		t.Error("something was changed")
	}
	if len(r.audited("app", "apply|refused|would delete", client, "1 grant ends")) != 1 {
		t.Error("the audit log does not tell what was refused")
	}
	if _, _, err := d.ApplyFiles(t.Context(), files, ApplyOptions{AllowDelete: true}); err != nil {
		t.Fatal(err)
	}
	if r.view("app").Client != nil {
		t.Error("the client is still there")
	}
	if len(r.audited("app", "apply|done", "removes client "+client+": 1 grant ends")) != 1 {
		t.Error("the audit log does not tell what has ended")
	}
}

func TestWatchedFileThatLeavesOutTheClientIsRefusedOnce(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "app.yml")
	write(t, path, appYML("app"))
	d := r.deployer()
	d.ApplyPaths(t.Context(), []string{dir})
	before := r.view("app")
	if !before.App.Watched || before.App.Source != path {
		t.Fatalf("%+v", before.App)
	}
	client := before.Client.ID
	g := r.grant(client, "threads:read")
	write(t, path, withoutClient("app"))
	d.ApplyPaths(t.Context(), []string{dir})
	d.ApplyPaths(t.Context(), []string{dir})
	r.deployer().ApplyPaths(t.Context(), []string{dir}) // another replica, or the next start
	view := r.view("app")
	if view.Client == nil || view.App.Version != before.App.Version ||
		string(view.App.Manifest) != string(before.App.Manifest) {
		t.Fatal("a saved file removed a client")
	}
	if _, err := r.store.Grant(t.Context(), client, g.ID, g.UserID); err != nil {
		t.Errorf("its grant: %v", err)
	}
	if view.App.Refused == nil || view.App.Refused.Reason != "would remove client "+client+": 1 grant ends" {
		t.Errorf("refused: %+v", view.App.Refused)
	}
	if n := strings.Count(r.log.String(), "a watched file never deletes"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if n := len(r.audited("app", "apply|refused|would delete", client)); n != 1 {
		t.Errorf("recorded %d times", n)
	}

	// Another content is told of again, and the one that was there before ends it, though it changes nothing.
	write(t, path, "# without\n"+withoutClient("app"))
	d.ApplyPaths(t.Context(), []string{dir})
	if n := len(r.audited("app", "apply|refused|would delete", client)); n != 2 {
		t.Errorf("recorded %d times, of two contents", n)
	}
	write(t, path, appYML("app"))
	d.ApplyPaths(t.Context(), []string{dir})
	if view := r.view("app"); view.App.Refused != nil || view.Client.ID != client {
		t.Errorf("after it was corrected: %+v", view.App)
	}
}

// An operator who applies by hand takes the app over; the watch takes it back when it applies.
func TestAppliedByHandIsNotWatched(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "app.yml")
	write(t, path, appYML("app"))
	d := r.deployer()
	d.ApplyPaths(t.Context(), []string{dir})
	r.apply(d, "# a comment\n"+appYML("app"))
	if app := r.view("app").App; !app.Watched || app.Source != path {
		t.Errorf("the same, applied by hand: %+v", app)
	}
	r.apply(d, strings.Replace(appYML("app"), "1.0.0", "1.0.1", 1))
	if app := r.view("app").App; app.Watched || app.Source == path {
		t.Errorf("another version, applied by hand: %+v", app)
	}
	d.ApplyPaths(t.Context(), []string{dir})
	if app := r.view("app").App; !app.Watched || app.Source != path || app.Version != "1.0.0" {
		t.Errorf("applied by the watch again: %+v", app)
	}
}

func TestDeletionIsAuditedWithWhatEnds(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	client := r.view("app").Client.ID
	r.grant(client, "threads:read")
	if err := d.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if len(r.audited("app", "delete|done", "client "+client+": 1 grant ends; ")) != 1 {
		t.Error("the audit log does not tell what has ended")
	}
}
