package manifests

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

func filesNamed(texts ...string) []File {
	var files []File
	for i, text := range texts {
		files = append(files, File{Name: string(rune('a'+i)) + ".yml", Data: []byte(text)})
	}
	return files
}

// refusedIn are the reasons in the audit log, oldest first, as "action app: reason".
func (r *rig) refusedIn() []string {
	r.t.Helper()
	entries, _, err := r.store.Audit(r.t.Context(), storage.AuditQuery{})
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.Outcome != storage.OutcomeDone {
			out = append(out, e.Action+" "+e.App+": "+e.Reason)
		}
	}
	return out
}

func TestFilesAreAppliedAsTheyWereSeen(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	files := filesNamed(appYML("one"), appYML("two"))
	plans, _, err := d.PlanFiles(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, p := range plans {
		seen[p.App] = p.Revisions.String()
	}
	if _, _, err := d.ApplyFiles(t.Context(), files, ApplyOptions{Expected: seen}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.ApplyFiles(t.Context(), files, ApplyOptions{Expected: seen}); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("with a plan that is stale: %v", err)
	}
	if _, _, err := d.ApplyFiles(t.Context(), files, ApplyOptions{}); err != nil {
		t.Errorf("without a plan that was seen: %v", err)
	}
	if got := r.refusedIn(); !slices.Equal(got, []string{"apply one: stale plan"}) {
		t.Errorf("audit log: %q", got)
	}
}

// meddling applies another manifest once, when it is asked about an app: the plan of that other app is stale from then
// on.
type meddling struct {
	Hook
	app   string
	apply func()
}

func (m *meddling) Evaluate(ctx context.Context, req plugins.EvaluateRequest) (plugins.Answer, error) {
	if m.apply != nil && bytes.Contains(req.Manifest, []byte(`"name":"`+m.app+`"`)) {
		apply := m.apply
		m.apply = nil
		apply()
	}
	return m.Hook.Evaluate(ctx, req)
}

// Of several apps, one that cannot be applied leaves those before it applied, and the error says which.
func TestPartOfTheFilesIsApplied(t *testing.T) {
	r := newRig(t)
	other := r.deployer()
	hook := &meddling{Hook: r.opts.Hooks[0], app: "three", apply: func() { r.apply(other, appYML("two")) }}
	d := r.deployer(func(o *DeployerOptions) { o.Hooks = []Hook{hook} })
	_, _, err := d.ApplyFiles(t.Context(), filesNamed(appYML("one"), appYML("two"), appYML("three")), ApplyOptions{})
	var partial *PartialError
	if !errors.As(err, &partial) || !slices.Equal(partial.Applied, []string{"one"}) || partial.App != "two" ||
		!errors.Is(err, storage.ErrConflict) {
		t.Fatalf("error: %v", err)
	}
	if r.view("one").App == nil || r.view("three").App != nil {
		t.Error("what is stored is not what the error says")
	}
	if got := r.refusedIn(); !slices.Equal(got, []string{"apply two: stale plan"}) {
		t.Errorf("audit log: %q", got)
	}
}

func TestLoopbackRedirectsAreDenied(t *testing.T) {
	r := newRig(t)
	d := r.deployer(func(o *DeployerOptions) { o.Parsing.DenyLoopback = true })
	text := strings.Replace(appYML("app"), "redirectUris: [", "redirectUris: ['http://127.0.0.1:*/cb', ", 1)
	_, _, err := d.PlanFiles(t.Context(), filesNamed(text))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Code != "loopback-redirect" ||
		faults[0].Path != "spec.oauth.redirectUris[0]" {
		t.Fatalf("error: %v", err)
	}
	line := strings.Split(text, "\n")[faults[0].Line-1]
	if !strings.HasPrefix(line[faults[0].Column-1:], "'http://127.0.0.1:*/cb'") {
		t.Errorf("the fault is at %d:%d, %q", faults[0].Line, faults[0].Column, line)
	}
	if _, _, err := r.deployer().PlanFiles(t.Context(), filesNamed(text)); err != nil {
		t.Errorf("where they are not denied: %v", err)
	}
	if got := r.refusedIn(); !slices.Equal(got, []string{"plan : invalid manifest"}) {
		t.Errorf("audit log: %q", got)
	}
}
