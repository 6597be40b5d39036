package manifests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

const skips = "\n    consent: skip"

// A manifest alone does not keep users from being asked: it takes the operator's word, which the plan says and the
// audit log keeps, and which holds for what it was given for.
func TestConsentIsSkippedOnlyOnTheOperatorsWord(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	apply := func(text string, opts ApplyOptions) (*Plan, error) {
		plans, _, err := d.ApplyFiles(t.Context(), filesNamed(text), opts)
		if err != nil {
			return nil, err
		}
		return plans[0], nil
	}
	trust := ApplyOptions{Trust: true}
	refused := func(rule, text string, further ...string) {
		t.Helper()
		before := r.view("app")
		_, err := apply(text, ApplyOptions{})
		var untrusted *TrustError
		if !errors.As(err, &untrusted) || untrusted.App != "app" || !slices.Equal(untrusted.Further, further) {
			t.Errorf("%s: %v", rule, err)
		}
		if after := r.view("app"); revisionsOf(after) != revisionsOf(before) {
			t.Errorf("%s: something was written", rule)
		}
	}
	trusted := func(rule string, want bool) {
		t.Helper()
		if c := r.view("app").Client; c.Trusted != want || c.Consent != oauth.ConsentSkip {
			t.Errorf("%s: %+v", rule, c)
		}
	}

	refused("without a word", with("app", skips))
	if p := r.plan(d, with("app", skips)); p.Trust != TrustNeeded ||
		!strings.Contains(strings.Join(p.Consequences, "\n"), "needs the operator's word for app") {
		t.Errorf("the plan says %q, %q", p.Trust, p.Consequences)
	}
	p, err := apply(with("app", skips), trust)
	if err != nil || p.Trust != TrustGiven || !slices.Contains(p.Consequences, "skips the question for consent: users "+
		"are not asked what the app may do") {
		t.Fatalf("with the word: %+v, %v", p, err)
	}
	trusted("with the word", true)
	if entries, _, err := r.store.Audit(t.Context(), storage.AuditQuery{}); err != nil ||
		!slices.ContainsFunc(entries, func(e storage.AuditEntry) bool {
			return e.Action == storage.AuditApply && strings.Contains(e.Detail, "users are not asked for consent (by the "+
				"operator's word)")
		}) {
		t.Errorf("audit log: %+v, %v", entries, err)
	}
	for _, c := range []struct{ rule, text string }{
		{"the same", with("app", skips)}, {"another name", with("app", skips, "clientName: My App", "clientName: Mine")},
		{"fewer scopes", with("app", skips, ", runs:write", "")},
	} {
		if _, err := apply(c.text, ApplyOptions{}); err != nil {
			t.Errorf("%s: %v", c.rule, err)
		}
		trusted(c.rule, true)
	}
	refused("a scope more", with("app", skips), "scopes: add runs:write")
	refused("another place to go back to", with("app", skips, ", runs:write", "", "callback]",
		"callback, https://evil.example/cb]"),
		"redirectUris: add https://evil.example/cb")
	refused("public", with("app", skips+"\n    public: true", ", runs:write", ""), "public: true")
	refused("another resource server", with("app", skips+"\n    tokenExchangeAudiences: [urn:a]", ", runs:write", ""),
		"tokenExchangeAudiences: add urn:a")
	if _, err := apply(with("app", skips), trust); err != nil {
		t.Errorf("a scope more, with the word: %v", err)
	}
	trusted("a scope more, with the word", true)
	p, err = apply(with("app", ""), ApplyOptions{})
	if err != nil || r.view("app").Client.Trusted || !slices.Contains(p.Consequences,
		"asks users for consent from now on") {
		t.Errorf("without consent: %+v, %v", p, err)
	}
	refused("consent: skip again", with("app", skips))

	// The configuration's word is for the app, whatever it says; a word that is given later is kept all the same.
	r.opts.Trusted = []string{"app"}
	d = r.deployer()
	p, err = apply(with("app", skips), ApplyOptions{})
	if err != nil || p.Trust != TrustConfigured {
		t.Errorf("configured: %+v, %v", p, err)
	}
	trusted("configured", false)
	if p, err = apply(with("app", skips), trust); err != nil || !p.Changed {
		t.Errorf("the word beside the configuration: %+v, %v", p, err)
	}
	trusted("the word beside the configuration", true)
	if got := r.refusedIn(); len(got) != 6 || got[0] != "apply app: needs the operator's word" {
		t.Errorf("audit log: %q", got)
	}
}

// A directory that is watched gives no word: what its manifest wants is told once, and not tried again and again.
func TestAWatchedManifestGivesNoWord(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.yml"), []byte(with("app", skips)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.deployer().Follow(t.Context(), []string{dir}, false); err != nil { // it returns when nothing is left to do
		t.Fatal(err)
	}
	if r.view("app").App != nil || !strings.Contains(r.log.String(), "needs the operator's word for app") {
		t.Errorf("%+v\n%s", r.view("app").App, r.log)
	}
	r.opts.Trusted = []string{"app"}
	if err := r.deployer().Follow(t.Context(), []string{dir}, false); err != nil {
		t.Fatal(err)
	}
	if c := r.view("app").Client; c == nil || c.Consent != oauth.ConsentSkip {
		t.Errorf("trusted: %+v", c)
	}
	r.opts.Trusted = nil
	if err := r.deployer().Follow(t.Context(), []string{dir}, false); err != nil {
		t.Fatal(err)
	}
	if refused := r.view("app").App.Refused; refused == nil || !strings.HasPrefix(refused.Reason,
		"needs the operator's word for app") {
		t.Errorf("not trusted any more: %+v", refused)
	}
}

// forgetful is a hook that was built before manifests could say who may use an app.
type forgetful struct{ Hook }

func (f forgetful) Evaluate(ctx context.Context, req plugins.EvaluateRequest) (plugins.Answer, error) {
	answer, err := f.Hook.Evaluate(ctx, req)
	if answer.Client != nil {
		answer.Client.AccessGroups, answer.Client.AccessConnectors, answer.Client.AccessMFA = nil, nil, ""
	}
	return answer, err
}

// What a manifest says of who may use the app is not lost on the way to the client.
func TestAHookCannotLoseTheAccess(t *testing.T) {
	r := newRig(t)
	r.opts.Hooks = []Hook{forgetful{r.opts.Hooks[0]}}
	d := r.deployer()
	text := with("app", "\n    access: {groups: [staff], connectors: [local], emails: [ann@example.com], mfa: required}")
	_, err := d.Plan(t.Context(), documents(t, text))
	var denied *DeniedError
	if !errors.As(err, &denied) || len(denied.Denials) != 3 || denied.Denials[0].Code != "access_lost" ||
		denied.Denials[0].Path != "spec.oauth.access.groups" || denied.Denials[1].Path != "spec.oauth.access.connectors" ||
		denied.Denials[2].Path != "spec.oauth.access.mfa" {
		t.Errorf("%v", err)
	}
	r.plan(d, with("app", "\n    access: {emails: [ann@example.com]}"))
}

// Who may use an app is a fault or a warning where it cannot be meant: never everybody, and never silently nobody.
func TestAccessThatCannotBeMeant(t *testing.T) {
	opts := Options{
		Scopes: []string{"threads:read", "runs:write", "groups", "profile"}, Groups: []string{"staff", "team-a"},
		Connectors: []string{"local"},
		Claims:     map[string]string{"groups": "groups", "department": "profile", "email": "email"},
	}
	for lines, want := range map[string]string{
		"access:":                                      "spec.oauth.access required",
		"access: {}":                                   "spec.oauth.access required",
		"access: {groups: []}":                         "spec.oauth.access.groups required",
		"access: {groups: }":                           "spec.oauth.access.groups required",
		"access: {group: [staff]}":                     "spec.oauth.access.group unknown-key groups",
		"access: {groups: staff}":                      "spec.oauth.access.groups wrong-type [staff]",
		"access: {groups: [staf]}":                     "spec.oauth.access.groups[0] unknown-group staff",
		"access: {groups: [staff, staff]}":             "spec.oauth.access.groups[1] duplicate",
		`access: {groups: ["team-*"]}`:                 "spec.oauth.access.groups[0] group",
		`access: {groups: [" staff"]}`:                 "spec.oauth.access.groups[0] group",
		"access: {connectors: [locl]}":                 "spec.oauth.access.connectors[0] unknown-connector local",
		"access: {emails: [ann]}":                      "spec.oauth.access.emails[0] email",
		`access: {emails: ["*@"]}`:                     "spec.oauth.access.emails[0] email",
		`access: {emails: ["a*@example.com"]}`:         "spec.oauth.access.emails[0] email",
		`access: {emails: ["*@*.com"]}`:                "spec.oauth.access.emails[0] email",
		"access: {mfa: requird}":                       "spec.oauth.access.mfa wrong-value required",
		"access: {mfa: }":                              "spec.oauth.access.mfa required",
		`access: {mfa: ""}`:                            "spec.oauth.access.mfa required",
		"access: {mfa: true}":                          "spec.oauth.access.mfa wrong-type",
		"access: {mfa: phishing-resistant}":            "",
		"consent: skp":                                 "spec.oauth.consent wrong-value skip",
		"groupFilter: [a*]":                            "spec.oauth.groupFilter unused",
		"claims: [departmnt]":                          "spec.oauth.claims[0] unknown-claim department",
		"accessTokenClaims: [groups]":                  "spec.oauth.accessTokenClaims[0] unused",
		"access: {groups: [staff]}":                    "",
		"access: {emails: [ann@example.com, '*@x.y']}": "",
		"consent: ask":                                 "",
	} {
		_, faults := Parse("app.yml", []byte(with("app", "\n    "+lines)), opts)
		var got []string
		for _, f := range faults {
			if f.Code == "loopback-redirect" {
				continue
			}
			got = append(got, strings.TrimSpace(f.Path+" "+f.Code+" "+f.Suggestion))
			if f.Line < 8 || f.Column < 5 {
				t.Errorf("%s: it is at %d:%d", lines, f.Line, f.Column)
			}
			warns := f.Code == "unused" || f.Code == "unknown-group"
			if (f.Severity == SeverityWarning) != warns {
				t.Errorf("%s: severity %s", lines, f.Severity)
			}
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s: %q, want %q", lines, got, want)
		}
	}
}

// Nobody is warned of a group in which somebody may be who is kept in the store, whichever replica has put them there:
// in the same moment, and without a start.
func TestGroupsOfPeopleInTheStore(t *testing.T) {
	r := newRig(t)
	warnings := func(groups []string) (out []string) {
		t.Helper()
		d := r.deployer(func(o *DeployerOptions) { o.Parsing.Groups = groups })
		_, faults, err := d.PlanFiles(t.Context(), filesNamed(with("app", "\n    access: {groups: [staff]}")))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range faults {
			if f.Code != "loopback-redirect" {
				out = append(out, f.Code)
			}
		}
		return out
	}
	for _, groups := range [][]string{{}, {"admins"}} {
		if got := warnings(groups); !slices.Equal(got, []string{"unknown-group"}) {
			t.Errorf("nobody but those of the configuration, in %q: %q", groups, got)
		}
	}
	if got := warnings(nil); got != nil {
		t.Errorf("connectors know: %q", got)
	}
	ann := storage.User{ID: "ann", Connector: "local", Email: "ann@example.com",
		Groups: storage.NamesOf([]string{"staff"})}
	if _, err := r.store.PutAccount(t.Context(), ann, nil, nil, storage.AuditEntry{}); err != nil {
		t.Fatal(err)
	}
	for _, groups := range [][]string{{}, {"admins"}, {"staff"}} {
		if got := warnings(groups); got != nil {
			t.Errorf("with somebody in the store beside %q: %q", groups, got)
		}
	}
}
