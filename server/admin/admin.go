// Package admin is the admin API: what the commands of warifu ask of a running server, as JSON over HTTP.
//
// # One operation, one handler
//
// Every operation is a Go function from an input struct to an output struct. huma makes its route, the check of its
// input and its part of the OpenAPI 3.1 document (/openapi.json) from these types, so the document and the handlers
// cannot disagree. The types of this package are the API: a field's json name and doc tag are what callers see.
//
//	request ─ guard (token, panics) ─ huma (schema of the input) ─ operation ─┬─ storage.Store: records
//	                                                                          └─ Apps, Rotations: manifests
//
// Reading records is done here, on package storage. Whatever follows from a manifest (plan, apply, drift, rotation)
// is asked of [Apps] and [Rotations], which the program wires to package manifests: this package knows nothing of
// manifests but their text.
//
// # Lists
//
// A list is an array, of which a reply holds a part; the header Link (RFC 8288) leads to the next one, see [Part]. The
// audit log has pages of its own form.
//
// # Errors
//
// Every error is a [Problem] (RFC 9457) with a stable code, what happened and what to do; it holds all faults of a
// document at once. The errors of the router and of huma have the same form. The text of an unexpected error
// stays in the log.
//
// # Refusals
//
// Every request has an id, in X-Request-Id and in the problem. A replica remembers the last requests that it refused
// ([Refusals]): every problem of this API, whoever finds it, and those of the endpoints of the server, which tells
// [Refusals.Add]. What is kept is short and holds no secret. To explain one is to add, at that moment, the words of its
// rule (package oauth), what is registered that is most like what was asked, and the line of the manifest, from the
// release of the app.
//
// # Access
//
// Over TCP every request carries the bearer token of the configuration. On the Unix socket the file mode decides who
// may connect, and the server that listens names the caller. Either way the caller is the actor of the audit log.
//
// # Secrets
//
// No reply holds a secret, except that of an app's credentials, which is recorded in the audit log before it is sent.
package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/warifu/warifu/server/doctor"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/storage"
)

// Apps is what the admin API asks of the manifests. A [*Problem] is shown to the caller as it is; storage.ErrNotFound
// and storage.ErrConflict keep their meaning; any other error is a fault of the server, which is logged and not
// shown.
type Apps interface {
	// Plan says what applying the documents would change, and changes nothing. Faults that are only warnings come back
	// beside the plans; errors in the documents are a [*Problem] with all faults.
	Plan(ctx context.Context, docs []Document) ([]AppPlan, []Fault, error)
	// Apply does what Plan says, if opts allow it. An app is one transaction; when a later one fails, the error is a
	// [*Problem] that names those that are applied.
	Apply(ctx context.Context, docs []Document, opts ApplyOptions) ([]AppPlan, []Fault, error)
	// Delete begins to delete an app: its grants end at once, its env is taken away, then it is gone.
	Delete(ctx context.Context, name string) error
	// Settle waits until the app's env is served or has failed everywhere; of an app that is being deleted, until it
	// is gone or stuck.
	Settle(ctx context.Context, name string) error
	// Drift compares what was applied with what is there: of the apps of the documents, which it holds against these;
	// of the named app; or of all. It changes nothing.
	Drift(ctx context.Context, docs []Document, app string) (Drift, error)
}

// ApplyOptions say under what conditions documents are applied.
type ApplyOptions struct {
	// Expected holds revisions of earlier plans by app; if one of them is no longer the app's revision, nothing
	// is changed and the error is storage.ErrConflict.
	Expected map[string]string
	// AllowDelete lets clients go. Without it, a plan with Ends changes nothing and is the [*Problem] of [WouldDelete].
	AllowDelete bool
	// Trust is the caller's word for apps whose users are not to be asked for consent. Without it, a plan that needs it
	// changes nothing and is the [*Problem] of [NeedsTrust].
	Trust bool
}

// Config is what the admin API is built from.
type Config struct {
	Store *storage.Store
	Apps  Apps
	// People of documents and of the configuration, and Links for them.
	People People
	Links  Links
	// Rotations of client secrets, and what else is asked of deliveries.
	Rotations Rotations
	// KeySchedules say how the keys of each use follow each other. Nil: there are none.
	KeySchedules func() []storage.KeySchedule
	Issuer       string
	Version      string // of this program
	// Connectors are the ids of those whose users have accounts since they arrived, and AccountOf is the id of the account
	// that an identity of one of them has by itself. Nil: there are none.
	Connectors func() []string
	AccountOf  func(connector, upstreamID string) string
	// Trusted are the apps of which the configuration says that their users need not be asked for consent.
	Trusted func() []string
	// Token is the bearer token that every request must carry; nil on a Unix socket, whose file mode says who may
	// connect.
	Token func() string
	// Reload reads the configuration again and takes it over; nil where there is none to be read. A [*Problem] is shown to
	// the caller as it is.
	Reload func(ctx context.Context) (Reloaded, error)
	// Doctor are the checks of what only this server knows, and Probe makes a probe of it. Nil: there are none.
	Doctor func() []doctor.Check
	Probe  func() (string, error)
	// Refusals is what this replica remembers of the requests that it has refused: all handlers of one program share
	// it. Without it, the handler remembers its own.
	Refusals *Refusals
	// Patience is how long a request may take, not counting the time that its caller wants to wait for deliveries; then
	// the answer is that it did not succeed in time. 0: 15 s.
	Patience time.Duration
	// SessionsEnded is called when sessions have ended by this API, so that their clients are told. It may be nil, and
	// must not block.
	SessionsEnded func()
	// Leaving is closed when the program begins to end, so that requests end that would go on for ever. It may be nil.
	Leaving <-chan struct{}
	// Traces are of requests; nil: there are none.
	Traces *traces.Tracer
	// Metrics are served at /metrics; nil: they are not.
	Metrics http.Handler
	// Schemas are served at /schemas/NAME.json, by name.
	Schemas map[string][]byte
	Logger  *slog.Logger
}

// operations serve the admin API. Each handler is one operation of the OpenAPI document that huma makes from its types.
type operations struct {
	Config
}

// New is the admin API: JSON over HTTP under /v1, described by /openapi.json. Errors are RFC 9457 problems with a
// stable code. No reply holds a secret, except that of an app's credentials.
func New(cfg Config) http.Handler {
	useProblems()
	if cfg.Refusals == nil {
		cfg.Refusals = NewRefusals(DefaultRefusals)
	}
	if cfg.Patience == 0 {
		cfg.Patience = 15 * time.Second
	}
	if cfg.SessionsEnded == nil {
		cfg.SessionsEnded = func() {}
	}
	if cfg.KeySchedules == nil {
		cfg.KeySchedules = func() []storage.KeySchedule { return nil }
	}
	if cfg.Trusted == nil {
		cfg.Trusted = func() []string { return nil }
	}
	if cfg.Connectors == nil {
		cfg.Connectors = func() []string { return nil }
	}
	a := &operations{cfg}
	mux := http.NewServeMux()
	config := huma.DefaultConfig("warifu admin API", cfg.Version)
	config.Info.Description = "What the commands of warifu use: plan and apply manifests, list apps and " +
		"what belongs to them."
	config.DocsPath = ""    // the page would load scripts from elsewhere
	config.SchemasPath = "" // schemas are inside the document
	config.Transformers = []huma.Transformer{a.mark}
	config.CreateHooks = nil // no $schema in every reply
	config.RejectUnknownQueryParameters = true
	if cfg.Token != nil {
		config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
		config.Security = []map[string][]string{{"token": {}}}
	}
	api := humago.New(mux, config)
	a.registerApps(api)
	a.registerRecords(api)
	a.registerEnds(api)
	a.registerUsers(api)
	a.registerPeople(api)
	a.registerRotations(api)
	a.registerKeys(api)
	a.registerEncryption(api)
	a.registerDrift(api)
	a.registerAudit(api)
	a.registerBackup(api)
	a.registerAbout(api)
	a.registerReplicas(api)
	a.registerReload(api)
	a.registerDoctor(api)
	a.registerRefusals(api)
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	mux.HandleFunc("/", a.noSuchOperation(api.OpenAPI()))
	return a.guard(mux)
}

// problemsOnce guards huma's own variables.
var problemsOnce sync.Once

// useProblems gives the errors that huma itself finds (a body that does not fit its schema, ...) the form of a
// [Problem]. huma keeps the constructors in package variables; nothing else in this program uses huma.
func useProblems() {
	problemsOnce.Do(func() {
		huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
			return newProblem(status, msg, errs)
		}
	})
}

// guard gives the request its id, asks for the token, keeps replies out of caches and turns a panic into a problem.
func (a *operations) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var raw [8]byte
		_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the process instead
		id := hex.EncodeToString(raw[:])
		r = r.WithContext(context.WithValue(r.Context(), requestIDs{}, id))
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if a.Token != nil {
			scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(a.Token()))
			if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
				w.Header().Set("WWW-Authenticate", `Bearer realm="warifu admin"`)
				a.refuse(w, r, problem(http.StatusUnauthorized, codeUnauthorized, "The admin API over TCP needs its bearer token.",
					"Send the content of the server's admin.tokenFile as Authorization: Bearer."))
				return
			}
			from, _, _ := net.SplitHostPort(r.RemoteAddr)
			r = r.WithContext(context.WithValue(storage.WithActor(r.Context(), "token"), storage.AddressKey{}, from))
		}
		traced, span := a.Traces.Request(r.Context(), r.Header, true, "admin")
		r = r.WithContext(traced)
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				a.Logger.Error("admin API panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "request_id", id)
				a.refuse(w, r, internalProblem())
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), callers{}, r.Context()), a.Patience)
		defer cancel()
		defer span.End(false)
		r = r.WithContext(ctx)
		next.ServeHTTP(w, r)
		if span != nil && r.Pattern != "" { // which the router has said
			span.Named("admin " + r.Pattern)
			span.Set(traces.Route, r.Pattern)
			span.Set(traces.Request, id)
		}
	})
}

// callers is the key of the context that ends when the caller goes, and not when patience does.
type callers struct{}

// within is the context of a part of a request that has a time of its own, such as a wait that the caller has asked
// for.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(callerOf(ctx), d)
}

// callerOf is the context that ends when the caller of a request goes.
func callerOf(ctx context.Context) context.Context {
	if whole, ok := ctx.Value(callers{}).(context.Context); ok {
		return whole
	}
	return ctx
}

// noSuchOperation answers what no operation matches: 405 where the path has others, 404 elsewhere.
func (a *operations) noSuchOperation(doc *huma.OpenAPI) http.HandlerFunc {
	paths := http.NewServeMux() // matches the same paths, whatever the method
	for path := range doc.Paths {
		paths.Handle(path, http.NotFoundHandler())
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := paths.Handler(r); pattern != "" {
			allow := methodsOf(doc.Paths[pattern])
			w.Header().Set("Allow", strings.Join(allow, ", "))
			a.refuse(w, r, problem(http.StatusMethodNotAllowed, codeMethodNotAllowed,
				"This path takes "+strings.Join(allow, " and ")+".", ""))
			return
		}
		a.refuse(w, r, problem(http.StatusNotFound, codeNoSuchPath,
			"There is no such path in the admin API.", "See /openapi.json."))
	}
}

func methodsOf(item *huma.PathItem) []string {
	var methods []string
	for method, op := range map[string]*huma.Operation{
		"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete,
	} {
		if op != nil {
			methods = append(methods, method)
		}
	}
	slices.Sort(methods)
	return methods
}
