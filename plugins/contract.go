package plugins

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"

	"github.com/warifu/warifu/server/oauth"
)

// Kinds of targets, as the manifest names them.
const (
	TargetWorker    = "worker"
	TargetContainer = "container"
	TargetService   = "service"
)

// Target is one part of an app that takes an environment: its kind and its key
// below spec.workers, spec.containers or spec.services.
type Target struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// String gives kind/name, for people.
func (t Target) String() string { return t.Kind + "/" + t.Name }

// Check reports a target that no runtime can have: an unknown kind or no name.
func (t Target) Check() error {
	switch t.Kind {
	case TargetWorker, TargetContainer, TargetService:
	default:
		return fmt.Errorf("target kind %q is not worker, container or service", t.Kind)
	}
	if t.Name == "" {
		return errors.New("target has no name")
	}
	return nil
}

// AppTarget is a target and the app that it belongs to.
type AppTarget struct {
	App    string `json:"app"`
	Target Target `json:"target"`
}

// Description is what a plugin says about itself, for people.
type Description struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Kinds   []string `json:"kinds,omitempty"` // target kinds a runtime serves; none means all
}

// Registration is what a deploy hook decides about a client. The names are those
// of RFC 7591 section 2.
type Registration = oauth.Client

// ClientMetadata is how a client gets tokens, authenticates, signs and is told of
// logouts. What is empty has its default.
type ClientMetadata = oauth.ClientMetadata

// AuthMethodPrivateKeyJWT is the token endpoint authentication method of clients
// that sign with a key of their own and so have no secret.
const AuthMethodPrivateKeyJWT = oauth.AuthPrivateKeyJWT

// AuthMethodWorkload is that of clients which are workloads: they show the token
// that their platform has issued to them, and have neither secret nor key.
const AuthMethodWorkload = oauth.AuthWorkload

// EnvSource names what the server puts into a variable.
type EnvSource string

// Sources of a variable's value. The zero value is the literal one.
const (
	SourceLiteral      EnvSource = ""
	SourceClientID     EnvSource = "clientId"
	SourceClientSecret EnvSource = "clientSecret"
	SourceIssuer       EnvSource = "issuer"
)

// EnvValue is a literal, or the name of something that the server fills in, so
// that a hook can place a secret without ever seeing it.
type EnvValue struct {
	Source  EnvSource `json:"source,omitempty"`
	Literal string    `json:"literal,omitempty"` // only with SourceLiteral
}

// TargetEnv is every variable that warifu is to own at a target. An empty Env
// takes away what was there.
type TargetEnv struct {
	Target Target              `json:"target"`
	Env    map[string]EnvValue `json:"env"`
}

// Notice is a warning or a denial in words for the author of the manifest.
type Notice struct {
	Code    string `json:"code"`           // stable, lower_snake_case
	Path    string `json:"path,omitempty"` // spec.oauth.redirectUris[0]
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// EvaluateRequest is what a deploy hook decides on.
type EvaluateRequest struct {
	Manifest   json.RawMessage // the app.yml as written, as JSON
	Registered *Registration   // as it is now; nil for a new app
	Previous   *Answer         // of the hook before in the chain; nil for the first
	Issuer     string
	Dev        bool // a development server
}

// Answer is the whole wish, not a change: what it leaves out is not wanted.
type Answer struct {
	Client   *Registration `json:"client,omitempty"` // nil: the app has no client
	Targets  []TargetEnv   `json:"targets,omitempty"`
	Warnings []Notice      `json:"warnings,omitempty"`
	Denials  []Notice      `json:"denials,omitempty"` // any of them refuses the manifest
}

// PushRequest says which variables warifu owns at a target. Its text forms leave
// the values out.
type PushRequest struct {
	App        string
	Target     Target
	Generation int64             // counts the wishes for this target, from 1
	Fence      int64             // grows when another server takes over delivery
	Digest     string            // see [Digest]
	Env        map[string]string // every variable of ours; secret
}

// String leaves the values out.
func (p PushRequest) String() string {
	return fmt.Sprintf("push of %d variables to %s %s, generation %d, fence %d",
		len(p.Env), p.App, p.Target, p.Generation, p.Fence)
}

// Format leaves the values out of every verb, %+v and %#v too.
func (p PushRequest) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(p.String())) }

// LogValue leaves the values out.
func (p PushRequest) LogValue() slog.Value { return slog.StringValue(p.String()) }

// RemoveRequest takes warifu's variables away from a target. Generation and
// fence are at least those that the target has.
type RemoveRequest struct {
	App        string
	Target     Target
	Generation int64
	Fence      int64
}

// State is how far a runtime has got with what it was asked for.
type State string

// States of a target.
const (
	StateRolling State = "rolling" // accepted, not yet served by every instance
	StateReady   State = "ready"   // every instance serves ServingGeneration
	StateFailed  State = "failed"  // see Diagnostic; what served before still serves
)

// Status is what a target has, as its runtime reports it.
type Status struct {
	State              State       `json:"state"`
	AcceptedGeneration int64       `json:"acceptedGeneration"`
	ServingGeneration  int64       `json:"servingGeneration"`
	Digest             string      `json:"digest,omitempty"`    // that came with AcceptedGeneration
	Instances          int         `json:"instances,omitempty"` // 0 where that means nothing
	Location           string      `json:"location,omitempty"`  // file path, container name, URL
	Present            bool        `json:"present"`             // variables of ours are there
	Diagnostic         *Diagnostic `json:"diagnostic,omitempty"`
}

// Diagnostic says what is wrong at a target. It never holds a variable's value.
type Diagnostic struct {
	Message   string `json:"message"`
	Remedy    string `json:"remedy,omitempty"`
	Retryable bool   `json:"retryable"` // the same push may succeed later by itself
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ValidEnvName reports whether name can be an environment variable everywhere:
// a letter or underscore, then letters, digits and underscores.
func ValidEnvName(name string) bool { return envName.MatchString(name) }
