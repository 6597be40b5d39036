package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

func kinds(p *Plan) []ChangeKind {
	var kinds []ChangeKind
	for _, c := range p.Changes {
		kinds = append(kinds, c.Kind)
	}
	return kinds
}

func TestPlanOfNewApp(t *testing.T) {
	r := newRig(t)
	p := r.plan(r.deployer(), appYML("new"))
	want := []ChangeKind{CreateApp, RegisterClient, AddTarget, AddTarget}
	if !p.Changed || !slices.Equal(kinds(p), want) {
		t.Errorf("changed %t, %v, want %v", p.Changed, kinds(p), want)
	}
	if p.Revisions != (Revisions{}) {
		t.Errorf("revisions of what does not exist: %+v", p.Revisions)
	}
	if last := p.Changes[3]; !slices.Equal(last.Names, []string{"OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET",
		"OAUTH_ISSUER"}) {
		t.Errorf("env of the last target: %v", last.Names)
	}
	for _, c := range p.Changes {
		if c.Text == "" {
			t.Errorf("%s has no words", c.Kind)
		}
	}
}

func TestPlanHasNoSideEffects(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.plan(d, appYML("quiet")) // starts the hook
	if counts := r.etcd.Count(func() { r.plan(d, appYML("quiet")) }); counts.Proposals != 0 {
		t.Errorf("a plan made %d proposals", counts.Proposals)
	}
	r.apply(d, appYML("quiet"))
	change := []string{"threads:read, ", "", "autoEnv: true", "public: true"}
	if counts := r.etcd.Count(func() { r.plan(d, appYML("quiet", change...)) }); counts.Proposals != 0 {
		t.Errorf("a plan of changes made %d proposals", counts.Proposals)
	}
}

func TestPlanOfChanges(t *testing.T) {
	for name, c := range map[string]struct {
		change []string
		want   string // one line a change
		says   []string
	}{
		"nothing":     {},
		"client name": {[]string{"My App", "Your App"}, `clientName: "My App" -> "Your App"`, nil},
		"version":     {[]string{"1.0.0", "1.1.0"}, "version: 1.0.0 -> 1.1.0", nil},
		"another key": {[]string{"web: {}", "web: {triggers: {}}"}, "store the new manifest; nothing else changes", nil},
		"scope added": {[]string{"runs:write", "runs:write, openid"}, "scopes: add openid",
			[]string{"adds `openid`: users are asked to allow it at their next sign-in"}},
		"scopes removed": {[]string{", runs:write", ""}, "scopes: remove runs:write",
			[]string{"removes `runs:write`: 2 grants lose it", "removes all that users allowed: 1 grant ends"}},
		"redirect URI": {[]string{"app.example.com/callback", "app.example.com/cb"},
			"redirectUris: add https://app.example.com/cb\nredirectUris: remove https://app.example.com/callback",
			[]string{"removes https://app.example.com/callback: sign-ins that use it will fail"}},
		"public": {[]string{"autoEnv: true", "autoEnv: true\n    public: true"},
			"public: false -> true\nworker web: take away OAUTH_CLIENT_SECRET\ncontainer api: take away OAUTH_CLIENT_SECRET",
			[]string{"makes the client public: its secret stops working, and PKCE is required of every sign-in"}},
		"autoEnv off": {[]string{"    autoEnv: true\n", ""},
			"container api: take away OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET, OAUTH_ISSUER\nworker web: take away " +
				"OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET, OAUTH_ISSUER", nil},
		"target gone": {[]string{"  containers: {api: {}}\n", ""}, "container api: take away OAUTH_CLIENT_ID, " +
			"OAUTH_CLIENT_SECRET, OAUTH_ISSUER", nil},
		"target new": {[]string{"{web: {}}", "{web: {}, cron: {}}"}, "worker cron: deliver OAUTH_CLIENT_ID, " +
			"OAUTH_CLIENT_SECRET, OAUTH_ISSUER", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d := r.deployer()
			r.apply(d, appYML("app"))
			client := r.view("app").Client.ID
			r.grant(client, "threads:read", "runs:write")
			r.grant(client, "threads:read", "runs:write")
			r.grant(client, "runs:write")
			p := r.plan(d, appYML("app", c.change...))
			var got []string
			for _, change := range p.Changes {
				got = append(got, change.Text)
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("changes:\n%s\nwant:\n%s", strings.Join(got, "\n"), c.want)
			}
			if !slices.Equal(p.Consequences, append([]string{}, c.says...)) {
				t.Errorf("consequences: %q\nwant: %q", p.Consequences, c.says)
			}
			if p.Changed != (c.want != "") {
				t.Errorf("changed: %t", p.Changed)
			}
		})
	}
}

func TestPlanOfRemovedClient(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	client := r.view("app").Client.ID
	g := r.grant(client, "threads:read")
	without := "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: app}\nspec: {version: 1.0.0, " +
		"workers: {web: {}}}\n"
	p := r.plan(d, without)
	if !slices.Equal(p.Consequences, []string{"removes the client: 1 grant ends"}) {
		t.Errorf("%q", p.Consequences)
	}
	if err := d.Apply(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Grant(context.Background(), client, g.ID, g.UserID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the grant outlived its client: %v", err)
	}
	for _, x := range r.view("app").Deliveries {
		if !x.Remove {
			t.Errorf("%s keeps its env", words(x.Target))
		}
	}
	r.apply(d, appYML("app"))
	if back := r.view("app").Client; back.ID != client || back.Returned.IsZero() {
		t.Errorf("a removed client came back as %+v", back)
	}
}

func TestLoopbackIsWarnedOfOutsideDev(t *testing.T) {
	r := newRig(t)
	local := appYML("app", "https://app.example.com/callback", "http://localhost:*")
	for dev, want := range map[bool]int{false: 1, true: 0} {
		p := r.plan(r.deployer(func(o *DeployerOptions) { o.Dev = dev }), local)
		if len(p.Warnings) != want {
			t.Errorf("dev %t: %v", dev, p.Warnings)
		}
	}
	// A command line tool or a phone's app is there in production as well (RFC 8252).
	for uris, want := range map[string]int{
		`"http://127.0.0.1:*"`: 0, `"http://127.0.0.1/cb", "com.example.app:/cb"`: 0,
		`"http://localhost:*", "https://app.example.com/cb"`: 1,
	} {
		native := appYML("app", "[https://app.example.com/callback]", "["+uris+"]", "autoEnv: true", "public: true")
		if p := r.plan(r.deployer(), native); len(p.Warnings) != want {
			t.Errorf("%s: %v", uris, p.Warnings)
		}
	}
}

func TestHooksAreChained(t *testing.T) {
	r := newRig(t).withAmending(amending{
		Client: map[string]any{"clientName": "Amended", "scopes": []string{"openid"}},
		Env:    []plugins.TargetEnv{},
	})
	p := r.plan(r.deployer(), appYML("app", "https://app.example.com/callback", "http://localhost:*"))
	if p.Changes[1].Text != `register client "Amended" with scopes openid` {
		t.Errorf("%q", p.Changes[1].Text)
	}
	if len(p.Warnings) != 2 { // a later hook cannot silence an earlier one
		t.Errorf("warnings: %v", p.Warnings)
	}
}

// No hook can register what a manifest could not ask for.
func TestHookCannotSmuggle(t *testing.T) {
	client := func(field string, value any) amending { return amending{Client: map[string]any{field: value}} }
	env := func(kind, name string, value plugins.EnvValue) amending {
		return amending{Env: []plugins.TargetEnv{{Target: plugins.Target{Kind: kind, Name: name},
			Env: map[string]plugins.EnvValue{"X": value}}}}
	}
	for name, c := range map[string]struct {
		hook amending
		code string
	}{
		"plain http redirect": {client("redirectUris", []string{"http://evil.example.com/"}), "redirect_uri_loopback"},
		"wildcard redirect":   {client("redirectUris", []string{"https://*.example.com/"}), "redirect_uri_wildcard"},
		"script redirect":     {client("redirectUris", []string{"javascript:alert(1)"}), "redirect_uri_scheme"},
		"no redirect":         {client("redirectUris", []string{}), "required"},
		"same redirect twice": {client("redirectUris", []string{"https://a.example.com/", "https://a.example.com/"}),
			"duplicate"},
		"logout redirect": {client("postLogoutRedirectUris", []string{"http://evil.example.com/"}),
			"redirect_uri_loopback"},
		"unknown scope":        {client("scopes", []string{"admin"}), "unknown_scope"},
		"no scope":             {client("scopes", []string{}), "required"},
		"script logo":          {client("logoUri", "javascript:alert(1)"), "url"},
		"deceptive name":       {client("clientName", "My\u202eApp"), "client_name"},
		"target not there":     {env("worker", "other", plugins.EnvValue{Literal: "x"}), "unknown_target"},
		"NUL in a value":       {env("service", "bus", plugins.EnvValue{Literal: "a\x00b"}), "env_value"},
		"own variable changed": {env("service", "bus", plugins.EnvValue{Literal: "x"}), "env_collision"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).withAmending(c.hook)
			service := "    autoEnv: false\n  services: {bus: {env: {X: '1'}}}\n"
			_, err := r.deployer().Plan(context.Background(), documents(t, appYML("app", "    autoEnv: true\n", service)))
			var denied *DeniedError
			if errors.As(err, &denied) {
				codes := make([]string, len(denied.Denials))
				for i, d := range denied.Denials {
					codes[i] = d.Code
				}
				if slices.Contains(codes, c.code) {
					return
				}
			} else if errors.Is(err, plugins.ErrContract) || errors.Is(err, plugins.ErrInvalid) {
				return // the host's own check of answers was first
			}
			t.Errorf("not denied as %s: %v", c.code, err)
		})
	}
}

func TestDenialSaysWhoWhatWhyAndRemedy(t *testing.T) {
	r := newRig(t).withAmending(amending{Deny: &plugins.Notice{
		Code: "no_friday", Path: "spec.version", Message: "nothing is deployed on a Friday", Remedy: "wait until Monday",
	}})
	_, err := r.deployer().Plan(context.Background(), documents(t, appYML("one")+"---\n"+appYML("two")))
	want := ""
	for _, app := range []string{"one", "two"} {
		want += "app " + app + ": deploy hook amending refuses spec.version: nothing is deployed on a Friday [no_friday]; " +
			"wait until Monday\n"
	}
	if err == nil || err.Error() != strings.TrimSpace(want) {
		t.Errorf("%v\nwant:\n%s", err, want)
	}
	if apps, err := r.store.Apps(context.Background()); err != nil || len(apps) != 0 {
		t.Errorf("%d apps after a denial, %v", len(apps), err)
	}
}

func TestTooManyTargetsAreDenied(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	workers := func(prefix string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%s%d: {}, ", prefix, i)
		}
		return appYML("app", "web: {}", b.String(), "  containers: {api: {}}\n", "")
	}
	refused := func(text, code string) {
		t.Helper()
		_, err := d.Plan(context.Background(), documents(t, text))
		var denied *DeniedError
		if !errors.As(err, &denied) || denied.Denials[0].Code != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
	refused(workers("a", maxTargets+1), "too_many_targets")
	refused(workers("a", 3000), "too_many_targets") // more than any hook answers about
	r.apply(d, workers("a", maxTargets))            // fits into etcd's transaction
	refused(workers("b", maxTargets), "too_many_changes")
	r.apply(d, workers("a", 0)) // so does taking all of them away
	if got := len(r.view("app").Deliveries); got != maxTargets {
		t.Errorf("%d deliveries", got)
	}
}

// The largest manifest that is let through fits into etcd's request.
func TestReleaseThatIsTooLargeIsDenied(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	sized := func(n int) string {
		return appYML("app", "  version: 1.0.0", "  version: 1.0.0\n  description: "+strings.Repeat("x", n))
	}
	_, err := d.Plan(context.Background(), documents(t, sized(1<<20-8<<10)))
	if err != nil {
		t.Fatalf("a file of almost 1 MiB: %v", err)
	}
	r.apply(d, sized(1<<20-8<<10))
	urls := make([]string, 0, 600)
	for i := range cap(urls) {
		urls = append(urls, fmt.Sprintf("https://app.example.com/%d%s", i, strings.Repeat("y", 1600)))
	}
	_, err = d.Plan(context.Background(), documents(t, appYML("other", "https://app.example.com/callback",
		strings.Join(urls, ", "))))
	var denied *DeniedError
	if !errors.As(err, &denied) || denied.Denials[0].Code != "too_large" {
		t.Errorf("%.200v", err)
	}
}

func TestPlanWithoutHooksIsRefused(t *testing.T) {
	r := newRig(t)
	d := r.deployer(func(o *DeployerOptions) { o.Hooks = nil })
	if _, err := d.Plan(context.Background(), documents(t, appYML("app"))); err == nil {
		t.Error("planned without anybody who knows what a manifest means")
	}
}

func TestPlanShowsNoSecret(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	p := r.plan(d, appYML("app", "autoEnv: true", "autoEnv: true\n    public: true"))
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if shown := string(data) + fmt.Sprintf("%+v", *p); strings.Contains(shown, r.secret("app")) ||
		strings.Contains(shown, "wfs_") {
		t.Error("a plan shows the client's secret")
	}
}

func TestPlanSurvivesStorageFaults(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	fault := storagetest.Fault(func(_, _ bool) error { return errors.New("etcd is away") })
	r.etcd.Inject(fault)
	_, err := d.Plan(context.Background(), documents(t, appYML("app")))
	r.etcd.Inject(nil)
	if err == nil || !strings.Contains(err.Error(), "plan app") {
		t.Errorf("%v", err)
	}
}
