package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/warifu/warifu/storage"
)

// AuditEntry is a line of the audit log.
type AuditEntry struct {
	At      time.Time `json:"at"`
	Actor   string    `json:"actor" doc:"Who did it: server, uid:N (at the admin socket), token (at the admin API over TCP), client:ID, user:ID, or stranger."`
	Action  string    `json:"action" doc:"A stable name for what was done, such as apply or grant-revoked."`
	App     string    `json:"app,omitempty"`
	Target  string    `json:"target,omitempty" doc:"Such as worker/web."`
	Outcome string    `json:"outcome" enum:"done,refused,failed"`
	Reason  string    `json:"reason,omitempty" doc:"Why it was done, was refused, or failed."`
	Detail  string    `json:"detail,omitempty"`
	Client  string    `json:"client,omitempty" doc:"The client for which a user did it."`
	Address string    `json:"address,omitempty" doc:"The IP address that it came from."`
	User    string    `json:"user,omitempty" doc:"Id of the user whom it is about, where that is not the actor."`
}

// AuditPage is a part of the audit log, oldest first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries" nullable:"false"`
	Next    string       `json:"next,omitempty" doc:"Pass it as after to get the next page. Left out on the last page."`
}

// AuditFilter narrows the audit log.
type AuditFilter struct {
	App   string    `query:"app" maxLength:"63" doc:"Only entries about this app."`
	User  string    `query:"user" maxLength:"256" doc:"Only what this user did, or what was done to them: an id, also of somebody who is gone, an e-mail address or a user name."`
	Since time.Time `query:"since" doc:"Only entries from this time on, such as 2026-01-31T12:00:00Z. By default all that are kept, which is 400 days."`
}

type auditInput struct {
	AuditFilter
	After string `query:"after" maxLength:"64" doc:"Where the previous page ended."`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"200" doc:"The most entries on a page. A page may have fewer, or none, and still not be the last."`
}

func (a *operations) registerAudit(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/v1/audit",
		Summary:     "List what was done, by whom, and with what outcome",
		Description: "An append-only log. It never holds a secret.",
		Tags:        []string{"records"}, Errors: []int{409, 503},
	}, a.listAudit)
	huma.Register(api, huma.Operation{
		OperationID: "follow-audit", Method: http.MethodGet, Path: "/v1/audit/follow",
		Summary: "Follow what is done, by whom, and with what outcome",
		Description: "The entries that there are, and then each that is added, one in a line of JSON. " +
			"The reply ends when the server does.",
		Tags: []string{"records"}, Errors: []int{409, 503},
		Responses: map[string]*huma.Response{"200": {
			Description: "Entries, one in each line",
			Content: map[string]*huma.MediaType{"application/jsonl": {
				Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[AuditEntry](), true, "AuditEntry")}},
		}},
	}, a.followAudit)
}

// auditQuery is what a filter asks of the store. A user who is gone can be named by id alone.
func (a *operations) auditQuery(ctx context.Context, f AuditFilter) (storage.AuditQuery, error) {
	query := storage.AuditQuery{Since: f.Since, App: f.App}
	if f.User == "" {
		return query, nil
	}
	u, err := a.user(ctx, f.User)
	var unknown *Problem
	switch {
	case err == nil:
		query.User = u.ID
	case errors.As(err, &unknown) && unknown.Status == http.StatusNotFound:
		query.User = f.User
	default:
		return query, err
	}
	return query, nil
}

func auditEntry(e storage.AuditEntry) AuditEntry {
	return AuditEntry{
		At: e.At, Actor: e.Actor, Action: e.Action, App: e.App, Target: e.Target,
		Outcome: e.Outcome, Reason: e.Reason, Detail: e.Detail, Client: e.Client, Address: e.Address, User: e.User,
	}
}

func (a *operations) listAudit(ctx context.Context, in *auditInput) (*reply[AuditPage], error) {
	query, err := a.auditQuery(ctx, in.AuditFilter)
	if err != nil {
		return nil, err
	}
	query.After, query.Limit = in.After, in.Limit
	stored, next, err := a.Store.Audit(ctx, query)
	if err != nil {
		return nil, a.failed(ctx, "audit log", err)
	}
	page := AuditPage{Entries: make([]AuditEntry, 0, len(stored)), Next: next}
	for _, e := range stored {
		page.Entries = append(page.Entries, auditEntry(e))
	}
	return &reply[AuditPage]{page}, nil
}

// auditPatience is how long one write to somebody who follows the log may take.
const auditPatience = 30 * time.Second

var errFollowerGone = errors.New("whoever followed the audit log has gone")

func (a *operations) followAudit(ctx context.Context, in *AuditFilter) (*huma.StreamResponse, error) {
	query, err := a.auditQuery(ctx, *in)
	if err != nil {
		return nil, err
	}
	first := query
	first.Limit = 1
	if _, _, err := a.Store.Audit(ctx, first); err != nil { // while there can be another answer
		return nil, a.failed(ctx, "audit log", err)
	}
	return &huma.StreamResponse{Body: func(to huma.Context) {
		whole, cancel := context.WithCancel(callerOf(ctx))
		defer cancel()
		go func() { // ends with the request
			select {
			case <-a.Leaving:
				cancel()
			case <-whole.Done():
			}
		}()
		to.SetHeader("Content-Type", "application/jsonl")
		_, w := humago.Unwrap(to)
		conn, lines := http.NewResponseController(w), json.NewEncoder(w)
		_ = conn.SetReadDeadline(time.Time{}) // else the listener's ends the request
		err := a.Store.FollowAudit(whole, query, func(entries []storage.AuditEntry) error {
			_ = conn.SetWriteDeadline(time.Now().Add(auditPatience)) // else the listener's stays
			for _, e := range entries {
				if lines.Encode(auditEntry(e)) != nil {
					return errFollowerGone
				}
			}
			if conn.Flush() != nil { // from the first on, so that the caller knows that the log is followed
				return errFollowerGone
			}
			return nil
		})
		if whole.Err() == nil && !errors.Is(err, errFollowerGone) {
			a.logFault(whole, "admin API", "audit log", err)
			panic(http.ErrAbortHandler) // so that the caller does not take it for the server's end
		}
	}}, nil
}
