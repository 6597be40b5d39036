package manifests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// directory holds one app per name, applied.
func (r *rig) directory(d *Deployer, names ...string) string {
	r.t.Helper()
	dir := r.t.TempDir()
	for _, name := range names {
		write(r.t, filepath.Join(dir, name+".yml"), appYML(name))
	}
	d.ApplyPaths(r.t.Context(), []string{dir})
	for _, name := range names {
		if app := r.view(name).App; app == nil || !app.Watched || !app.GoneSince.IsZero() {
			r.t.Fatalf("%s: %+v", name, app)
		}
	}
	return dir
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) wantsGone(rule, app string, want bool) {
	r.t.Helper()
	view := r.view(app)
	if view.App == nil || view.App.Deleting || view.Client == nil {
		r.t.Fatalf("%s: %s has ended", rule, app)
	}
	if gone := !view.App.GoneSince.IsZero(); gone != want {
		r.t.Errorf("%s: gone: %t", rule, gone)
	}
}

func TestManifestThatDisappears(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	dir := r.directory(d, "one", "two")
	remove(t, filepath.Join(dir, "one.yml"))
	d.ApplyPaths(t.Context(), []string{dir})
	d.ApplyPaths(t.Context(), []string{dir})
	r.wantsGone("its file was removed", "one", true)
	r.wantsGone("its file is there", "two", false)
	if n := strings.Count(r.log.String(), "the manifest of an app is gone"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	since := r.view("one").App.GoneSince
	r.deployer().ApplyPaths(t.Context(), []string{dir})
	if !r.view("one").App.GoneSince.Equal(since) {
		t.Error("the next look begins to count anew")
	}
	write(t, filepath.Join(dir, "again.yml"), appYML("one"))
	d.ApplyPaths(t.Context(), []string{dir})
	r.wantsGone("it is in another file", "one", false)
}

func TestFaultyManifestIsNotGone(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	dir := r.directory(d, "one", "two")
	write(t, filepath.Join(dir, "one.yml"), "faulty: [")
	d.ApplyPaths(t.Context(), []string{dir})
	r.wantsGone("its file is faulty", "one", false)
}

func TestAppsOfNoWatchedFileAreNeverGone(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	dir := r.directory(d, "one")
	r.apply(d, appYML("by-hand"))
	other := r.directory(d, "elsewhere")
	remove(t, filepath.Join(other, "elsewhere.yml"))
	d.ApplyPaths(t.Context(), []string{dir})
	r.wantsGone("applied by hand", "by-hand", false)
	r.wantsGone("of a directory that this server does not follow", "elsewhere", false)
}

// An app that is renamed in its file would be another app, and the one before would be gone with its client.
func TestRenameInAWatchedFileIsRefusedOnce(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	dir := r.directory(d, "one", "two")
	client := r.view("one").Client.ID
	r.grant(client, "threads:read")
	write(t, filepath.Join(dir, "one.yml"), appYML("uno"))
	d.ApplyPaths(t.Context(), []string{dir})
	d.ApplyPaths(t.Context(), []string{dir})
	r.wantsGone("its file has another name", "one", true)
	if r.view("uno").App != nil {
		t.Fatal("the new name was applied")
	}
	want := "would rename the app one to uno, and so remove client " + client + ": 1 grant ends"
	if refused := r.view("one").App.Refused; refused == nil || refused.Reason != want {
		t.Errorf("refused: %+v", refused)
	}
	if n := len(r.audited("one", "apply|refused|would delete", "uno", client)); n != 1 {
		t.Errorf("recorded %d times", n)
	}
	// What an operator applies stands, and is followed from then on.
	r.apply(d, appYML("uno"))
	d.ApplyPaths(t.Context(), []string{dir})
	if uno := r.view("uno").App; uno == nil || !uno.Watched {
		t.Errorf("%+v", uno)
	}
	r.wantsGone("until it is deleted", "one", true)
	// The name as it was brings it back.
	write(t, filepath.Join(dir, "one.yml"), appYML("one"))
	d.ApplyPaths(t.Context(), []string{dir})
	r.wantsGone("its name is back", "one", false)
	if r.view("one").App.Refused != nil {
		t.Error("it is still refused")
	}
}

func TestDirectoryThatDisappears(t *testing.T) {
	for rule, vanish := range map[string]func(dir string){
		"it is empty, as a volume that is not mounted": func(dir string) {
			remove(t, filepath.Join(dir, "one.yml"))
			remove(t, filepath.Join(dir, "two.yml"))
		},
		"it is not there": func(dir string) { remove(t, dir) },
	} {
		t.Run(rule, func(t *testing.T) {
			r := newRig(t)
			d := r.deployer()
			dir := r.directory(d, "one", "two")
			vanish(dir)
			d.ApplyPaths(t.Context(), []string{dir})
			r.wantsGone(rule, "one", true)
			r.wantsGone(rule, "two", true)
			if n := strings.Count(r.log.String(), "all apps of a directory are gone at once"); n != 1 {
				t.Errorf("logged %d times", n)
			}
		})
	}
}

func TestEmptyDirectoryAtTheFirstStart(t *testing.T) {
	r := newRig(t)
	r.deployer().ApplyPaths(t.Context(), []string{t.TempDir()})
	if log := r.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") ||
		!strings.Contains(log, "no manifest in this directory yet") {
		t.Errorf("log:\n%s", log)
	}
	if got := r.refusedIn(); len(got) != 0 {
		t.Errorf("audit log: %q", got)
	}
}
