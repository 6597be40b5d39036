package manifests

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

// A host behind forward auth belongs to one app, at whatever port: browsers send the cookies of one to the other. None
// is the server's own.
func TestHostBehindForwardAuthBelongsToOne(t *testing.T) {
	at := func(app, hosts string) string {
		return with(app, "\n    forwardAuth: {hosts: ["+hosts+"]}", "scopes: [", "scopes: [openid, ")
	}
	r := newRig(t)
	d := r.deployer()
	r.apply(d, at("one", "wiki.example.com, localhost:8080"))
	r.apply(d, at("one", "wiki.example.com, 'wiki.example.com:8443', localhost:8080"))
	if p := r.plan(d, at("one", "wiki.example.com, blog.example.com, localhost:8080")); len(p.Changes) == 0 {
		t.Error("another host is no change")
	}
	issuer, err := url.Parse(r.opts.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	for name, manifest := range map[string]string{
		"app one":                  at("two", "wiki.example.com"),
		"app one, at another port": at("two", "'wiki.example.com:9443'"),
		"app one, on this machine": at("two", "localhost:8080"),
		"this server itself":       at("two", issuer.Host),
		"this server itself, too":  at("two", "'"+issuer.Hostname()+":9443'"),
		"app two":                  at("two", "blog.example.com") + "---\n" + at("three", "blog.example.com"),
	} {
		owner, _, _ := strings.Cut(name, ",")
		var denied *DeniedError
		_, err := d.Plan(context.Background(), documents(t, manifest))
		if !errors.As(err, &denied) || len(denied.Denials) != 1 || denied.Denials[0].Code != "host_taken" ||
			denied.Denials[0].Path != "spec.oauth.forwardAuth.hosts[0]" || !strings.Contains(err.Error(), "belongs to "+owner) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.apply(d, at("two", "localhost:8081"))
	r.apply(d, appYML("one"))
	r.apply(d, at("two", "wiki.example.com"))
}

// Two plans that were made before either was applied: the second is refused whole.
func TestThreatOneHostPlannedForTwo(t *testing.T) {
	r := newRig(t)
	d, other := r.deployer(), r.deployer()
	at := func(app string) string {
		return with(app, "\n    forwardAuth: {hosts: [wiki.example.com]}", "scopes: [", "scopes: [openid, ")
	}
	first, second := r.plan(d, at("one")), r.plan(other, at("two"))
	if err := d.Apply(context.Background(), first); err != nil {
		t.Fatal(err)
	}
	before := r.etcd.Dump()
	err := other.Apply(context.Background(), second)
	if !errors.Is(err, storage.ErrConflict) || !strings.Contains(err.Error(), "the host wiki.example.com belongs "+
		"to app one since") {
		t.Errorf("%v", err)
	}
	if r.etcd.Dump() != before {
		t.Error("the plan that was refused has written something")
	}
}

// A host on the user's own machine is for development, as a redirect URI there is.
func TestHostOnTheUsersOwnMachine(t *testing.T) {
	manifest := with("one", "\n    forwardAuth: {hosts: [wiki.example.com, localhost:8080]}", "scopes: [",
		"scopes: [openid, ")
	r := newRig(t)
	p := r.plan(r.deployer(), manifest)
	if len(p.Warnings) != 1 || p.Warnings[0].Code != "loopback_redirect" ||
		p.Warnings[0].Path != "spec.oauth.forwardAuth.hosts[1]" {
		t.Errorf("warnings: %+v", p.Warnings)
	}
	_, err := Parse("app.yml", []byte(manifest), Options{DenyLoopback: true, Scopes: catalogue})
	if err == nil || !strings.Contains(err.Error(), "spec.oauth.forwardAuth.hosts[1] leads to the user's own machine") {
		t.Errorf("where they are denied: %v", err)
	}
}

// The plan of a new app says where it signs people in, and what is wrong with a place is said there.
func TestNewAppBehindForwardAuth(t *testing.T) {
	at := func(forward string) string {
		return strings.Replace(with("app", "\n    forwardAuth: "+forward, "scopes: [", "scopes: [openid, "),
			"    redirectUris: [https://app.example.com/callback]\n", "", 1)
	}
	r := newRig(t)
	p := r.plan(r.deployer(), at("{hosts: [wiki.example.com, 'blog.example.com:8443']}"))
	if said := p.Changes[1].Text; !strings.Contains(said, "sign-ins for wiki.example.com, blog.example.com:8443") {
		t.Errorf("%s", said)
	}
	for forward, want := range map[string]string{
		"{}":                         "spec.oauth.forwardAuth.hosts is required",
		"{user: sub}":                "spec.oauth.forwardAuth.hosts is required",
		"{hosts: []}":                "spec.oauth.forwardAuth.hosts is empty",
		"true":                       "spec.oauth.forwardAuth must be",
		"{host: [wiki.example.com]}": "spec.oauth.forwardAuth.host is not a known key",
	} {
		_, err := Parse("app.yml", []byte(at(forward)), Options{Scopes: catalogue})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "redirectUris") {
			t.Errorf("%s: %v", forward, err)
		}
	}
}

// What follows for users and for the app is said before it is done.
func TestPlanOfForwardAuth(t *testing.T) {
	const token = "its token requests will fail, however it authenticates"
	at := func(oauth string) string {
		return with("app", "", "    scopes: [threads:read, runs:write]\n", "    scopes: [openid, email]\n"+oauth)
	}
	only := func(oauth string) string {
		return strings.Replace(at(oauth), "    redirectUris: [https://app.example.com/callback]\n", "", 1)
	}
	const two = "    forwardAuth: {hosts: [a.example.com, b.example.com], user: sub}\n"
	for name, c := range map[string]struct {
		was, will string
		says      []string
	}{
		"its first": {at(""), at(two), nil},
		"another host, and another name for users": {only(two),
			only("    forwardAuth: {hosts: [b.example.com, c.example.com], user: email}\n"),
			[]string{"removes the host a.example.com: requests to this host will be refused",
				"gives every user another Remote-User: the app will take them for new users"}},
		"the name that it is without one": {only(two), only("    forwardAuth: {hosts: [a.example.com, b.example.com]}\n"),
			nil},
		"nothing else any more":  {at(two), only(two), []string{token}},
		"something else as well": {only(two), at(two), []string{"gives the client a secret"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d := r.deployer()
			r.apply(d, c.was)
			p := r.plan(d, c.will)
			said := strings.Join(p.Consequences, "\n")
			for _, want := range c.says {
				if !strings.Contains(said, want) {
					t.Errorf("consequences: %q\nwant: %q", p.Consequences, want)
				}
			}
			if c.says == nil && strings.Contains(said, "Remote-User") {
				t.Errorf("consequences: %q", p.Consequences)
			}
			if err := d.Apply(context.Background(), p); err != nil {
				t.Fatal(err)
			}
			if again := r.plan(d, c.will); again.Changed {
				t.Errorf("applied, and still: %+v", again.Changes)
			}
			client := r.view("app").Client
			if client.OnlyForwardAuth() != (len(client.Secrets) == 0) {
				t.Errorf("%d secrets", len(client.Secrets))
			}
		})
	}
}

// Whoever plans an app about which no proxy could ask is told so, and goes on.
func TestHostBehindForwardAuthWithoutTrustedProxies(t *testing.T) {
	manifest := with("wiki", "\n    forwardAuth: {hosts: [wiki.example.com]}", "scopes: [", "scopes: [openid, ")
	for _, c := range []struct {
		manifest string
		opts     Options
		want     int
	}{{manifest, Options{}, 0}, {manifest, Options{NoProxies: true}, 1}, {appYML("board"), Options{NoProxies: true}, 0}} {
		documents, faults := Parse("app.yml", []byte(c.manifest), c.opts)
		if len(documents) != 1 || len(faults) != c.want || faults.Err() != nil ||
			c.want == 1 && (faults[0].Path != "spec.oauth.forwardAuth.hosts" || faults[0].Line != 8 ||
				!strings.Contains(faults[0].Message, "web.trustedProxies")) {
			t.Errorf("%+v: %v", c.opts, faults)
		}
	}
}
