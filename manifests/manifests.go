// Package manifests turns app.yml files into what the server keeps about apps.
//
// An app.yml describes one app: its name and version, the OAuth client it wants (spec.oauth), and the Workers,
// Containers and Services that run it. Use [Load] for what a command line names (files, directories, standard input)
// and [Parse] for bytes that have been read already.
//
// # Flow
//
// Bytes become documents in four steps, each of which only sees what the one before let through:
//
//  1. The bytes are checked and split: size, encoding, control characters, number of documents.
//  2. Each document becomes a tree of values with positions: depth, aliases, merge keys, duplicate keys, tags. This
//     step and the first are package strictyaml's, which reads the configuration as well.
//  3. The tree is checked against the table of known keys (table.go; table_oauth.go, which is made from
//     [oauth.Fields]) by the checker (check.go), then parts are checked against each other: routes against targets
//     and env against what is injected. What spec.oauth says of the client goes through [oauth.Check] (oauth.go).
//  4. What has no error becomes an [App].
//
// # From a document to an app
//
// A [Deployer] takes it from there. [Deployer.Plan] asks the deploy hooks what the manifest means (evaluate.go) and
// compares the answer with the store (plan.go, plan_client.go, plan_metadata.go); it has no side effects, and no secret
// is in what it returns. What hooks answer about the client goes through the same check as what was written (oauth.go),
// and what it claims must be its own (claims.go): resource identifiers, a sector. A plan that would remove a client is
// applied only if that is allowed (ending.go), and one after which users are not asked for consent only with the
// operator's word (trust.go). [Deployer.Apply] commits client, release record and outbox in one
// transaction, guarded by the revisions that the plan was made from (apply.go). [Deployer.PlanFiles] and
// [Deployer.ApplyFiles] do all of it, from bytes to the store, and record in the audit log what was refused
// (apply_files.go, audit.go); so does [Deployer.Follow], as often as files change (follow.go). [Deployer.Run] is the
// outbox (delivery.go: what is due; attempt.go: what is done about it): it calls the runtimes until each target
// confirms, and removes what is being deleted once nothing of it is left (deletions.go). [Watch] reports when manifests
// on disk have changed.
//
// A delivery is a wish, with a generation that grows with every wish. It is
//
//   - pending until a runtime accepts it, rolling until every instance serves it, then ready;
//   - failed while attempts fail: tried again from 1 s to 5 min apart, with jitter;
//   - degraded when trying again cannot help or has not helped for 20 minutes, until an operator applies or retries;
//     if the runtime could not be reached in all that time, until it answers.
//
// A target has one runtime at a time: the one that the configuration assigns, or else the one that has it, or else
// the first that serves its kind (routing.go). When that changes, the new runtime serves the target before the old
// one loses its env: until then a second delivery says what is still to be taken away. [Deployer.Drift] compares all
// of it with what is there.
//
// # Client secrets
//
// [Deployer.Rotate] gives a client a second secret, and the targets the new one, in one transaction; [Deployer.Run]
// ends the old one, step by step (rotation.go lists the steps). The progress of a rotation is in a record of its own,
// not in the client's, because every grant and every plan compares the client's revision. [Deployer.Secrets] reports
// it, without values.
//
// # Invariants
//
//   - A secret that is replaced stays valid while a target is not ready, while a target has not been looked at since
//     the grace period passed, and while the new one has not been used. Only an operator who calls it compromised
//     ends it earlier.
//   - An env that is computed, by an apply or a rotation, holds the newest secret; a client has two at the most.
//   - Once a release is committed, its env arrives, whichever process dies: at least once, and the same generation is
//     rolled out once. After an attempt whose outcome is unknown, the target is observed before anything is pushed
//     again.
//   - One replica at a time pushes to a target. It claims the delivery by a compare in etcd, renews the claim while it
//     works, and ends before its claim does (claim.go). The record decides: a result is stored only if no newer wish
//     has replaced the one that it belongs to.
//   - Runtimes do not wait for each other, nor do apps. What is ready is observed every 10 minutes and delivered
//     again when it was lost, unless manifests.repair is off and drift stays until an operator has seen it.
//   - A client is removed only when somebody has allowed that (ending.go), never because a watched file was saved. A
//     manifest that has disappeared from a watched directory ends its app only if the configuration says so, and only
//     after it has been missed for a whole delay in which every look could read everything (gone.go): a directory that
//     is empty or cannot be read, and a manifest with a fault, end nothing and have the delay begin anew.
//   - The transaction that changes something also writes it to the audit log.
//   - A client that signs with its own key (private_key_jwt) has no secret, nor does one that is a workload, nor a
//     public one; however that changes, it stays the same client. A workload is one app's (claims.go). Private and
//     symmetric keys are refused wherever they are written.
//   - The values of env are in the store, sealed, and at the target; in no plan, error, status or log.
//   - All faults are reported at once, sorted, each with file, line and column. Nothing is decided on the first one.
//   - The envelope (top level, metadata) and spec.oauth are strict: an unknown key is an error. Elsewhere in spec,
//     keys that belong to the wider platform pass, and unknown keys are a warning, because a manifest is shared with
//     tools that know more than this one. A misspelling of a known key is an error everywhere: a typo must not
//     delete.
//   - Input is hostile: size, depth, aliases and the number of faults are bounded before they cost anything, and no
//     fault repeats the value of an env variable or of a URI, which may hold a secret.
//   - The parser and the JSON Schema (app.schema.json, [Schema]) come from one table, so an editor and the server
//     agree.
package manifests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
)

//go:generate go test -run=^TestSchemaIsWhatTheTableSays$ -update .

// The only version and kind of manifest.
const (
	APIVersion = "takos.dev/v1alpha1"
	Kind       = "App"
)

// injectedEnv are the names that autoEnv sets, and that a manifest therefore must not set itself; resourceEnv those
// that it sets for a resource server.
var (
	injectedEnv = []string{"OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_ISSUER"}
	resourceEnv = []string{"OAUTH_RESOURCE", "OAUTH_RESOURCE_METADATA"}
	workloadEnv = []string{"OAUTH_CLIENT_ASSERTION_FILE"}
)

// Options say what a manifest is checked against.
type Options struct {
	// Dev allows plain http on loopback hosts in spec.oauth.metadata. Redirect URIs may be loopback either way.
	Dev bool
	// DenyLoopback refuses redirect URIs that lead to the user's own machine.
	DenyLoopback bool
	// NoProxies warns of hosts behind forward auth: the server trusts no proxy that could ask about them.
	NoProxies bool
	// Scopes are the names of the server's scope catalogue. When empty, names are only checked for their syntax
	// (RFC 6749 section 3.3), because a command may have no server to ask.
	Scopes []string
	// GrantTypes are those that the server offers. If empty, a manifest may ask for any known one.
	GrantTypes []string
	// Claims are the claims about users that the server can tell, with the scope that covers each; Connectors and Groups
	// its connectors, and the groups in which somebody is. Of those that are nil, nothing is known.
	Claims             map[string]string
	Connectors, Groups []string
	// Issuers are those whose workloads may be clients; nil: nothing is known of them.
	Issuers []string
}

// Document is one YAML document without errors.
type Document struct {
	App  *App
	Path string // the file as it was named, "stdin" for standard input
	Line int    // 1-based line of the file where the document's content begins
	Raw  []byte // the document's own bytes, comments and leading "---" included

	root *strictyaml.Value // with the places of everything; nil when it does not come from a file
}

// App is a manifest. The typed fields are those that this project acts on; [App.JSON] has all that was written.
type App struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`

	written json.RawMessage
}

// Metadata names the app.
type Metadata struct {
	Name  string `json:"name"`            // DNS label (RFC 1123), at most 63 characters
	AppID string `json:"appId,omitempty"` // the wider platform's id, kept as it is
}

// Spec is what the app is made of. A map or list that was not written is nil.
type Spec struct {
	Version    string            `json:"version"` // semantic version 2.0.0
	OAuth      *OAuth            `json:"oauth,omitempty"`
	Workers    map[string]Target `json:"workers,omitempty"`
	Containers map[string]Target `json:"containers,omitempty"`
	Services   map[string]Target `json:"services,omitempty"`
	Routes     []Route           `json:"routes,omitempty"`
}

// OAuth is the client that the app asks for, as far as this package reads it itself; the deploy hooks decide what the
// rest (RFC 7591 section 2) means.
type OAuth struct {
	ClientName             string      `json:"clientName,omitempty"`
	RedirectURIs           []string    `json:"redirectUris,omitempty"`
	Scopes                 []string    `json:"scopes,omitempty"`
	GrantTypes             []string    `json:"grantTypes,omitempty"` // empty: the default, with which users sign in
	AutoEnv                bool        `json:"autoEnv,omitempty"`    // true only when written
	ClientID               string      `json:"clientId,omitempty"`   // empty: one is made, or the app has one
	Public                 bool        `json:"public,omitempty"`     // no secret; PKCE required
	PostLogoutRedirectURIs []string    `json:"postLogoutRedirectUris,omitempty"`
	Resource               string      `json:"resource,omitempty"` // that the app is a resource server
	Metadata               ConsentPage `json:"metadata,omitzero"`
	Access                 Access      `json:"access,omitzero"`
	ForwardAuth            ForwardAuth `json:"forwardAuth,omitzero"`
}

// ForwardAuth is where an app is that knows no OAuth, behind a proxy that asks this server about each request.
type ForwardAuth struct {
	Hosts []string `json:"hosts,omitempty"`
}

// Access is who may use the app, and how they have to prove who they are; all lists are empty when everybody may.
type Access struct {
	Groups     []string `json:"groups,omitempty"`
	Connectors []string `json:"connectors,omitempty"`
	Emails     []string `json:"emails,omitempty"`
	MFA        string   `json:"mfa,omitempty"` // how surely they have to prove who they are
}

// ConsentPage is what the consent page shows of an app. Each is an https URL, or empty.
type ConsentPage struct {
	LogoURI   string `json:"logoUri,omitempty"`
	TosURI    string `json:"tosUri,omitempty"`
	PolicyURI string `json:"policyUri,omitempty"`
}

// Target is a worker, container or service: something with an environment.
type Target struct {
	Env EnvNames `json:"env,omitempty"`
}

// EnvNames are the names, sorted, that a target's own env sets. The values stay in [App.JSON].
type EnvNames []string

// Route sends requests to a target.
type Route struct {
	Name   string `json:"name,omitempty"`
	Target string `json:"target"`
	Path   string `json:"path,omitempty"`
}

// JSON returns the manifest as it was written, as a JSON object: every key, also those that this project only
// tolerates, with aliases and merge keys resolved. Keys are sorted, so two manifests that say the same give the same
// bytes.
func (a *App) JSON() ([]byte, error) {
	if a.written != nil {
		return bytes.Clone(a.written), nil
	}
	type fields App // without the methods, or this would call itself
	written, err := json.Marshal((*fields)(a))
	if err != nil {
		return nil, fmt.Errorf("encode app %q: %w", a.Metadata.Name, err)
	}
	return written, nil
}

// MarshalJSON is [App.JSON].
func (a *App) MarshalJSON() ([]byte, error) { return a.JSON() }

// UnmarshalJSON reads what [App.JSON] returned. It does not check anything: [Parse] has done that.
func (a *App) UnmarshalJSON(data []byte) error {
	type fields App
	var read fields
	if err := json.Unmarshal(data, &read); err != nil {
		return fmt.Errorf("decode app: %w", err)
	}
	*a = App(read)
	a.written = bytes.Clone(data)
	return nil
}

// UnmarshalJSON takes the names from any of the spellings that are in use: a map of names to values, a list of
// {"name": ..., "value": ...}, a list of "NAME=value".
func (e *EnvNames) UnmarshalJSON(data []byte) error {
	var written any
	if err := json.Unmarshal(data, &written); err != nil {
		return fmt.Errorf("decode env: %w", err)
	}
	var names EnvNames
	switch env := written.(type) {
	case map[string]any:
		for name := range env {
			names = append(names, name)
		}
	case []any:
		for _, item := range env {
			switch item := item.(type) {
			case string:
				name, _, _ := strings.Cut(item, "=")
				names = append(names, name)
			case map[string]any:
				if name, ok := item["name"].(string); ok {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	*e = slices.Compact(names)
	return nil
}
