package manifests

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// runs has an app be a workload of its own.
func runs(subjects ...string) string {
	lines := "\n    tokenEndpointAuthMethod: workload\n    identities:"
	for _, subject := range subjects {
		lines += "\n      - {issuer: \"https://ci.example.com\", subject: " + subject + "}"
	}
	return lines
}

// An app that becomes a workload loses its secret, is given none, and is told where its token is; it stays the same
// client, also when it gets a secret again.
func TestSecretAndWorkloadInPlace(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	first, secret := r.view("app").Client, r.secret("app")

	p := r.plan(d, with("app", runs("web")))
	for _, want := range []string{`tokenEndpointAuthMethod: "" -> "workload"`,
		"identities: add https://ci.example.com web",
		"worker web: set OAUTH_CLIENT_ASSERTION_FILE", "worker web: take away OAUTH_CLIENT_SECRET"} {
		if !slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Text == want }) {
			t.Errorf("the plan does not say %q: %+v", want, p.Changes)
		}
	}
	if want := "takes the client's secret away: it stops working, and token requests without the token of a " +
		"workload will fail"; !slices.Contains(p.Consequences, want) {
		t.Errorf("%q", p.Consequences)
	}
	r.apply(d, with("app", runs("web")))
	r.awaitReady("app")
	client := r.view("app").Client
	if client.ID != first.ID || len(client.Secrets) != 0 || len(client.Identities) != 1 {
		t.Errorf("as a workload: %+v", client)
	}
	if _, err := d.Rotate(context.Background(), "app", RotateOptions{}); !errors.Is(err, ErrNoSecret) ||
		!strings.Contains(err.Error(), "nothing to rotate") {
		t.Errorf("rotate: %v", err)
	}
	if _, err := d.Rotate(context.Background(), "app", RotateOptions{Secret: strings.Repeat("0123456789abcdef",
		4)}); !errors.Is(err, ErrNoSecret) {
		t.Errorf("credentials set: %v", err)
	}
	for _, kind := range []string{"worker-web", "container-api"} {
		kind, name, _ := strings.Cut(kind, "-")
		if env := r.env("app", kind, name); env["OAUTH_CLIENT_ID"] != first.ID || env["OAUTH_CLIENT_SECRET"] != "" ||
			env["OAUTH_ISSUER"] == "" ||
			env["OAUTH_CLIENT_ASSERTION_FILE"] != "/var/run/secrets/warifu/token" {
			t.Errorf("%s %s: %v", kind, name, env)
		}
	}
	p = r.plan(d, with("app", runs("web", "job")))
	if want := "lets https://ci.example.com job be the app: whoever gets a token of it can do all that " +
		"the app may"; !slices.Contains(p.Consequences, want) {
		t.Errorf("%q", p.Consequences)
	}

	r.apply(d, appYML("app"))
	r.awaitReady("app")
	client = r.view("app").Client
	if client.ID != first.ID || len(client.Secrets) != 1 || len(client.Identities) != 0 || r.secret("app") == secret {
		t.Errorf("with a secret again: %+v", client)
	}
	if env := r.env("app", "worker", "web"); env["OAUTH_CLIENT_SECRET"] == "" || env["OAUTH_CLIENT_ASSERTION_FILE"] != "" {
		t.Errorf("with a secret again: %v", env)
	}
}

func TestPlanShowsWhichWorkloadMayBeTheClient(t *testing.T) {
	r := newRig(t)
	p := r.plan(r.deployer(), with("app", runs("web", "job")))
	const want = `register client "My App" with scopes threads:read runs:write, without a secret: it authenticates with a token of ` +
		"https://ci.example.com web, or of https://ci.example.com job"
	if !slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Text == want }) {
		t.Errorf("%+v", p.Changes)
	}
}

// A workload that could be two apps would be the one that it says.
func TestWorkloadBelongsToOneApp(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, with("one", runs("web")))
	r.apply(d, with("one", runs("web", "job")))
	for owner, manifest := range map[string]string{
		"app one": with("two", runs("own", "job")),
		"app two": with("two", runs("x")) + "---\n" + with("three", runs("own", "x")),
	} {
		var denied *DeniedError
		_, err := d.Plan(context.Background(), documents(t, manifest))
		if !errors.As(err, &denied) || len(denied.Denials) != 1 || denied.Denials[0].Code != "identity_taken" ||
			denied.Denials[0].Path != "spec.oauth.identities[1]" || !strings.Contains(denied.Denials[0].Message, owner) ||
			denied.Denials[0].Line == 0 {
			t.Errorf("%s: %v", owner, err)
		}
	}
	// Both were planned before either was applied: the transaction decides.
	first, second := r.plan(d, with("four", runs("late"))), r.plan(d, with("five", runs("late")))
	if err := d.Apply(context.Background(), first); err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(context.Background(), second); err == nil || !strings.Contains(err.Error(), "belongs to app four") {
		t.Errorf("applied second: %v", err)
	}
}
