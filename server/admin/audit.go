package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// AuditEntry is a line of the audit log.
type AuditEntry struct {
	At      time.Time `json:"at"`
	Actor   string    `json:"actor" doc:"Who did it: server, uid:N (at the admin socket), token (at the admin API over TCP), or client:ID."`
	Action  string    `json:"action" doc:"A stable name for what was done, such as apply or grant-revoked."`
	App     string    `json:"app,omitempty"`
	Target  string    `json:"target,omitempty" doc:"Such as worker/web."`
	Outcome string    `json:"outcome" enum:"done,refused,failed"`
	Reason  string    `json:"reason,omitempty" doc:"Why it was done, was refused, or failed."`
	Detail  string    `json:"detail,omitempty"`
}

// AuditPage is a part of the audit log, oldest first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries" nullable:"false"`
	Next    string       `json:"next,omitempty" doc:"Pass it as after to get the next page. Left out on the last page."`
}

type auditInput struct {
	App   string    `query:"app" maxLength:"63" doc:"Only entries about this app."`
	Since time.Time `query:"since" doc:"Only entries from this time on, such as 2026-01-31T12:00:00Z. By default all that are kept, which is 400 days."`
	After string    `query:"after" maxLength:"64" doc:"Where the previous page ended."`
	Limit int       `query:"limit" minimum:"1" maximum:"200" default:"200" doc:"The most entries on a page. A page may have fewer, or none, and still not be the last."`
}

func (a *operations) registerAudit(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/v1/audit",
		Summary:     "List what was done, by whom, and with what outcome",
		Description: "An append-only log. It never holds a secret.",
		Tags:        []string{"records"}, Errors: []int{503},
	}, a.listAudit)
}

func (a *operations) listAudit(ctx context.Context, in *auditInput) (*reply[AuditPage], error) {
	query := storage.AuditQuery{Since: in.Since, App: in.App, After: in.After, Limit: in.Limit}
	stored, next, err := a.Store.Audit(ctx, query)
	if err != nil {
		return nil, a.stored(ctx, "audit log", err)
	}
	page := AuditPage{Entries: make([]AuditEntry, 0, len(stored)), Next: next}
	for _, e := range stored {
		page.Entries = append(page.Entries, AuditEntry{
			At: e.At, Actor: e.Actor, Action: e.Action, App: e.App, Target: e.Target,
			Outcome: e.Outcome, Reason: e.Reason, Detail: e.Detail,
		})
	}
	return &reply[AuditPage]{page}, nil
}
