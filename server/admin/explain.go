package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Explanation says why a request was refused.
type Explanation struct {
	RequestID string            `json:"requestId"`
	At        time.Time         `json:"at"`
	Endpoint  string            `json:"endpoint" doc:"What was asked: the path of an endpoint, or method and path of the admin API."`
	ClientID  string            `json:"clientId,omitempty" doc:"As it was sent, whether there is such a client or not."`
	App       string            `json:"app,omitempty"`
	Error     string            `json:"error" doc:"The error code of the reply; empty when it had none."`
	Params    map[string]string `json:"params,omitempty" doc:"Parameters of the request that explain it; never a secret."`
	Reasons   []Reason          `json:"reasons" nullable:"false"`
	More      int               `json:"more,omitempty" doc:"How many more reasons there were, which are not kept."`
}

// Reason is one rule that refused.
type Reason struct {
	Rule    string `json:"rule" doc:"A stable name for the rule, as in redirect-uri-unregistered."`
	Meaning string `json:"meaning" doc:"The rule in words."`
	Said    string `json:"said,omitempty" doc:"What the reply said."`
	Asked   string `json:"asked,omitempty" doc:"The value that the rule looked at."`
	Nearest string `json:"nearest,omitempty" doc:"What was probably meant: the registered value that is most like it."`
	Key     string `json:"key,omitempty" doc:"The key of app.yml that decides, as in spec.oauth.redirectUris, or of the server's configuration, as in oauth2.grantTypes."`
	Place   string `json:"place,omitempty" doc:"Where that key is in the manifest: file:line:column."`
	Remedy  string `json:"remedy" doc:"What to do about it."`
}

type explainInput struct {
	ID string `path:"id" maxLength:"128" doc:"The id of the request: from the header X-Request-Id of the reply, or from the error page."`
}

func (a *operations) registerRefusals(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "explain", Method: http.MethodGet, Path: "/v1/refusals/{id}",
		Summary:     "Explain why a request was refused",
		Description: "Each replica remembers the last requests that it has refused, in memory; ask the one that refused.",
		Tags:        []string{"about"}, Errors: []int{404},
	}, a.explain)
}

// requestIDs is the context key of a request's id.
type requestIDs struct{}

// requestID is the id of the request that ctx belongs to.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDs{}).(string)
	return id
}

// mark is what huma calls with every reply, before it is written: a problem is kept.
func (a *operations) mark(ctx huma.Context, _ string, reply any) (any, error) {
	if p, is := reply.(*Problem); is {
		a.keep(ctx.Context(), ctx.Method(), ctx.URL().Path, ctx.Param("name"), p)
	}
	return reply, nil
}

// keep gives a problem the id of its request, and remembers it. Nobody drives out what was to change something by
// reading, or without the token.
func (a *operations) keep(ctx context.Context, method, path, app string, p *Problem) {
	p.RequestID = requestID(ctx)
	refusal := oauth.Refusal{
		RequestID: p.RequestID, At: time.Now().UTC(), Endpoint: method + " " + path, App: app,
		Error:  oauth.Error{Code: p.Code, Rule: ruleOf(p.Code), Description: p.Detail},
		Beyond: method == http.MethodGet || method == http.MethodHead || p.Code == string(codeUnauthorized),
	}
	var reasons []reason
	for _, f := range p.Faults {
		if f.Severity == "warning" {
			continue
		}
		reasons = append(reasons, reason{
			Error: oauth.Error{Code: p.Code, Rule: ruleOf(f.Code), Description: f.Message, Nearest: f.Suggestion, Where: f.Path},
			place: placeOf(f.File, f.Line, f.Column),
		})
	}
	if len(reasons) == 0 {
		reasons = []reason{{Error: refusal.Error}}
	}
	a.Refusals.add(refusal, reasons)
}

// ruleOf is the name of the rule behind a code. Deploy hooks have codes of their own, which stay as they are.
func ruleOf(code string) string {
	if rule, known := oauth.FindRule(code); known {
		return rule.Name
	}
	return code
}

// explain looks a refusal up, and adds what can be known now: the words for the rule, what is registered, and the
// line of the manifest. Nothing of that is worked out while requests are served.
func (a *operations) explain(ctx context.Context, in *explainInput) (*reply[Explanation], error) {
	found, known := a.Refusals.find(in.ID)
	if !known {
		return nil, problem(http.StatusNotFound, codeUnknownRequest,
			fmt.Sprintf("This replica has no record of refusing %s; it keeps the last %d until it restarts.",
				in.ID, a.Refusals.most),
			"A refusal is kept in the memory of the replica that refused; when one address is refused very often, "+
				"its refusals are forgotten sooner. Ask the other replicas (--admin), or make the request again and "+
				"explain that one.")
	}
	out := Explanation{
		RequestID: found.RequestID, At: found.At, Endpoint: found.Endpoint, ClientID: found.ClientID, App: found.App,
		Error: found.Error.Code, Params: found.Params, Reasons: make([]Reason, 0, len(found.reasons)), More: found.more,
	}
	app, client := a.release(ctx, found.App)
	for _, why := range found.reasons {
		out.Reasons = append(out.Reasons, a.reason(ctx, found, why, app, client))
	}
	return &reply[Explanation]{out}, nil
}

func (a *operations) reason(ctx context.Context, of *refused, why reason, app *storage.App,
	client *storage.Client) Reason {
	out := Reason{
		Rule: why.Rule, Said: why.Description, Asked: why.Asked, Nearest: why.Nearest, Key: why.Where, Place: why.place,
	}
	rule, known := oauth.FindRule(why.Rule)
	if !known { // a code of a deploy hook
		rule, _ = oauth.FindRule("denied")
	}
	out.Meaning, out.Remedy = rule.Meaning, rule.RemedyFor(of.App != "")
	if out.Key == "" {
		out.Key = rule.Key()
	}
	candidates := a.candidates(ctx, of.ClientID, client, why.Rule)
	if strings.HasPrefix(out.Key, "spec.") && out.Place == "" {
		if app == nil { // no manifest decides
			out.Key = ""
		} else {
			out.Place = placeIn(app, out.Key)
			if app.Applied.After(of.At) {
				out.Remedy = since(app, out, candidates)
			}
		}
	}
	switch {
	case slices.Contains(candidates, out.Asked): // it is registered now
	case out.Nearest == "":
		out.Nearest = oauth.Nearest(out.Asked, candidates)
	case why.Rule == oauth.RuleResourceUnknown: // one of the configuration, or rather one of these
		out.Nearest = oauth.Nearest(out.Asked, append(candidates, out.Nearest))
	}
	return out
}

// since is the remedy of a refusal after which the manifest was applied again: the place is that of today.
func since(app *storage.App, why Reason, candidates []string) string {
	changed := "The manifest was applied again after this refusal, at " + app.Applied.UTC().Format(time.RFC3339) + ". "
	if why.Asked != "" && slices.Contains(candidates, why.Asked) {
		return changed + "What was asked for is in it now: make the request again."
	}
	return changed + "Make the request again; if it is still refused: " + why.Remedy
}

// release is the release record of an app with its client; nil when there is none, or it cannot be read now: the rest
// can be said all the same.
func (a *operations) release(ctx context.Context, name string) (*storage.App, *storage.Client) {
	if name == "" {
		return nil, nil
	}
	view, err := a.Store.App(ctx, name)
	if err != nil {
		a.logFault(ctx, "admin API: storage failed", "app "+name, err)
		return nil, nil
	}
	return view.App, view.Client
}

// placeIn finds a key in the manifest that an app was applied from: its own place, or that of the mapping where it
// would be written.
func placeIn(app *storage.App, key string) string {
	for {
		if at, written := app.Lines[key]; written {
			return placeOf(app.Source, at[0], at[1])
		}
		dot := strings.LastIndexByte(key, '.')
		if dot < 0 {
			return app.Source // applied by a version that kept no lines
		}
		key = key[:dot]
	}
}

// candidates are the values that would have been right, by what is registered now; of the app's client, if the request
// is its.
func (a *operations) candidates(ctx context.Context, clientID string, c *storage.Client, rule string) []string {
	switch rule {
	case oauth.RuleClientUnknown:
		clients, err := a.Store.Clients(ctx)
		if err != nil {
			a.logFault(ctx, "admin API: storage failed", "clients", err)
		}
		ids := make([]string, 0, len(clients))
		for _, c := range clients {
			ids = append(ids, c.ID)
		}
		return ids
	case oauth.RuleResourceUnknown:
		clients, err := a.Store.Clients(ctx)
		if err != nil {
			a.logFault(ctx, "admin API: storage failed", "clients", err)
		}
		var identifiers []string
		for _, c := range clients {
			identifiers = append(identifiers, c.Resources()...)
		}
		return identifiers
	case oauth.RuleRedirectURIUnregistered, oauth.RuleRedirectURIWithdrawn, oauth.RuleScopeNotInManifest,
		oauth.RuleScopeUnregistered, oauth.RuleGrantTypeUnregistered, oauth.RuleLogoutURIUnregistered:
	default:
		return nil
	}
	if c == nil || c.ID != clientID {
		var err error
		if c, err = a.Store.Client(ctx, clientID); err != nil {
			return nil // gone since, or described by a document
		}
	}
	switch rule {
	case oauth.RuleScopeNotInManifest, oauth.RuleScopeUnregistered:
		return c.Scopes
	case oauth.RuleGrantTypeUnregistered:
		return c.RegisteredGrants()
	case oauth.RuleLogoutURIUnregistered:
		return c.PostLogoutRedirectURIs
	}
	return c.RedirectURIs
}
