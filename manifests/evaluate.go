package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

const (
	// maxTargets bounds the targets of one app, because a release is one transaction and etcd takes 128 operations per
	// transaction.
	maxTargets = 100
	// maxTouched bounds the targets that one release adds, changes and takes away.
	maxTouched = 118
	// maxRelease bounds the bytes of one release: etcd takes 1.5 MiB per request.
	maxRelease = 1400 << 10
)

// Denial is one reason why a manifest is refused.
type Denial struct {
	App string `json:"app"`
	// Hook is the name of the hook that refuses; "warifu" if the server itself does.
	Hook string `json:"hook"`
	// File, Line and Column say where in the manifest the denied key is, as in a [Fault].
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	plugins.Notice
}

// String says which hook refuses what, why, and what to do about it.
func (d Denial) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "app %s: %s refuses %s: %s [%s]", d.App, d.Hook, cmp.Or(d.Path, "the manifest"), d.Message, d.Code)
	if d.Remedy != "" {
		b.WriteString("; " + d.Remedy)
	}
	return b.String()
}

// DeniedError says that one or more manifests may not be applied. Nothing was written.
type DeniedError struct {
	Denials []Denial
}

func (e *DeniedError) Error() string {
	lines := make([]string, len(e.Denials))
	for i, d := range e.Denials {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// ownDenial is a denial by the server itself.
func ownDenial(app string, notice plugins.Notice) Denial {
	return Denial{App: app, Hook: ourselves, Notice: notice}
}

// ourselves is the name under which the server denies.
const ourselves = "warifu"

// evaluate asks the chain of hooks what the manifest means, and checks the answer against the rules that no hook may
// break.
func (d *Deployer) evaluate(ctx context.Context, doc *Document, manifest []byte,
	registered *plugins.Registration) (plugins.Answer, []Denial, error) {
	hooks := d.set().hooks
	if len(hooks) == 0 {
		return plugins.Answer{}, nil, errors.New("no deploy hook is configured, so manifests cannot be evaluated")
	}
	app := doc.App.Metadata.Name
	var answer plugins.Answer
	var warnings []plugins.Notice
	var denials []Denial
	req := plugins.EvaluateRequest{Manifest: manifest, Registered: registered, Issuer: d.issuer, Dev: d.set().dev}
	names := make([]string, len(hooks))
	for i, hook := range hooks {
		names[i] = hook.Name()
		var err error
		if answer, err = hook.Evaluate(ctx, req); err != nil {
			return answer, nil, fmt.Errorf("evaluate %s: %w", app, err)
		}
		warnings = append(warnings, answer.Warnings...)
		for _, notice := range answer.Denials {
			denials = append(denials, Denial{App: app, Hook: "deploy hook " + hook.Name(), Notice: notice})
		}
		previous := answer
		req.Previous = &previous
	}
	answer.Warnings = warnings
	by := "deploy hook " + strings.Join(names, ", ")
	for _, notice := range d.checkAnswer(doc, &answer) {
		denials = append(denials, Denial{App: app, Hook: ourselves, Notice: plugins.Notice{
			Code: notice.Code, Path: notice.Path,
			Message: notice.Message + " (so answered " + by + ")",
			Remedy:  cmp.Or(notice.Remedy, "correct the manifest, or the hook that changes it"),
		}})
	}
	return answer, denials, nil
}

// checkAnswer checks what the hooks want to register against the rules of the manifest itself, so that no hook can
// register what a manifest could not ask for.
func (d *Deployer) checkAnswer(doc *Document, answer *plugins.Answer) []plugins.Notice {
	var notices []plugins.Notice
	if answer.Client != nil {
		notices = d.checkRegistration(answer.Client)
	}
	add := func(code, path, format string, args ...any) {
		notices = append(notices, plugins.Notice{Code: code, Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if written := doc.App.Spec.OAuth; written != nil && answer.Client != nil {
		for _, list := range [...]struct {
			key             string
			written, answer []string
		}{
			{"groups", written.Access.Groups, answer.Client.AccessGroups},
			{"connectors", written.Access.Connectors, answer.Client.AccessConnectors},
			{"emails", written.Access.Emails, answer.Client.AccessEmails},
		} {
			// A hook that was built before there was the key says nothing of it, which would let everybody in.
			if len(list.written) > 0 && len(list.answer) == 0 {
				add("access_lost", "spec.oauth.access."+list.key, "is not in the answer: the app would be open to others")
			}
		}
		if oauth.AssuranceOfDemand(answer.Client.AccessMFA) < oauth.AssuranceOfDemand(written.Access.MFA) {
			add("access_lost", "spec.oauth.access.mfa", "is not in the answer: the app would be open without a second factor")
		}
	}
	known := targetsOf(doc.App)
	seen := make(map[plugins.Target]bool)
	for _, t := range answer.Targets {
		path := targetPath(t.Target)
		if !slices.Contains(known, targetOf(t.Target)) {
			add("unknown_target", path, "the manifest has no %s", t.Target)
		}
		if seen[t.Target] {
			add("duplicate_target", path, "%s gets its env twice", t.Target)
		}
		seen[t.Target] = true
		for _, name := range slices.Sorted(maps.Keys(t.Env)) {
			value := t.Env[name]
			switch {
			case !plugins.ValidEnvName(name):
				add("env_name", path, "%q cannot be the name of a variable", name)
			case answer.Client == nil && (value.Source == plugins.SourceClientID || value.Source == plugins.SourceClientSecret):
				add("env_source", path, "%s wants the credentials of a client that the app does not have", name)
			case value.Source == plugins.SourceClientSecret && answer.Client.Public:
				add("env_source", path, "%s wants the secret of a public client, which has none", name)
			case value.Source == plugins.SourceClientSecret &&
				answer.Client.TokenEndpointAuthMethod == plugins.AuthMethodWorkload:
				add("env_source", path, "%s wants the secret of a client that is a workload (identities) and has no secret", name)
			case value.Source == plugins.SourceClientSecret && answer.Client.OnlyForwardAuth():
				add("env_source", path, "%s wants the secret of an app that is only behind "+
					"forward auth and has no secret", name)
			case value.Source == plugins.SourceClientSecret && !answer.Client.HasSecret():
				add("env_source", path, "%s wants the secret of a client that signs with its own key (private_key_jwt) and "+
					"has no secret", name)
			case strings.ContainsRune(value.Literal, 0):
				add("env_value", path, "%s has a NUL byte in its value", name)
			}
		}
		own := envOf(doc.App, t.Target)
		for _, name := range own {
			if _, ours := t.Env[name]; ours {
				add("env_collision", path+".env."+name, "%s is set by the manifest itself and would be replaced", name)
			}
		}
	}
	return notices
}

// warnings are those of the hooks and those that no hook may suppress.
func (d *Deployer) warnings(answer *plugins.Answer) []plugins.Notice {
	warnings := answer.Warnings
	if d.set().dev || answer.Client == nil {
		return warnings
	}
	said := func(n plugins.Notice) bool { return n.Code == "loopback_redirect" }
	if !slices.ContainsFunc(warnings, said) && !answer.Client.IsNative() {
		for i, uri := range answer.Client.RedirectURIs {
			if oauth.IsLoopbackRedirect(uri) {
				warnings = append(warnings, plugins.Notice{
					Code: "loopback_redirect", Path: fmt.Sprintf("spec.oauth.redirectUris[%d]", i),
					Message: "leads to the user's own machine, where any program may listen",
					Remedy:  "remove it before production",
				})
			}
		}
	}
	for i, host := range answer.Client.ForwardAuthHosts {
		if oauth.IsLoopbackRedirect(oauth.ForwardCallback(host)) {
			warnings = append(warnings, plugins.Notice{
				Code: "loopback_redirect", Path: fmt.Sprintf("spec.oauth.forwardAuth.hosts[%d]", i),
				Message: "is the user's own machine, where any program may listen, and without TLS",
				Remedy:  "remove it before production",
			})
		}
	}
	for _, address := range [...]struct{ key, uri string }{
		{"jwksUri", answer.Client.JWKSURI}, {"backchannelLogoutUri", answer.Client.BackchannelLogoutURI},
	} {
		if oauth.IsLoopbackRedirect(address.uri) {
			warnings = append(warnings, plugins.Notice{
				Code: "loopback_address", Path: "spec.oauth." + address.key,
				Message: "leads to the machine that this server runs on, where it sends requests only if outbound.allow in its " +
					"configuration permits it",
				Remedy: "use an https address before production",
			})
		}
	}
	return warnings
}

// targetsOf are the targets of a manifest, sorted.
func targetsOf(app *App) []storage.Target {
	var targets []storage.Target
	for _, kind := range [...]struct {
		name    string
		targets map[string]Target
	}{
		{plugins.TargetContainer, app.Spec.Containers},
		{plugins.TargetService, app.Spec.Services},
		{plugins.TargetWorker, app.Spec.Workers},
	} {
		for _, name := range slices.Sorted(maps.Keys(kind.targets)) {
			targets = append(targets, storage.Target{Kind: kind.name, Name: name})
		}
	}
	return targets
}

// envOf are the names that the manifest itself sets at a target.
func envOf(app *App, t plugins.Target) EnvNames {
	switch t.Kind {
	case plugins.TargetContainer:
		return app.Spec.Containers[t.Name].Env
	case plugins.TargetService:
		return app.Spec.Services[t.Name].Env
	default:
		return app.Spec.Workers[t.Name].Env
	}
}

func targetPath(t plugins.Target) string { return "spec." + t.Kind + "s." + t.Name }
