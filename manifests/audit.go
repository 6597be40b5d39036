package manifests

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/warifu/warifu/storage"
)

// recordRefusal writes to the audit log why a plan or an apply was refused. If that cannot be stored, the server's
// log says so.
func (d *Deployer) recordRefusal(ctx context.Context, action, app string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.pace.Look)
	defer cancel()
	if err := d.store.Record(ctx, refusals(action, app, err)...); err != nil {
		d.log.ErrorContext(ctx, "cannot write to the audit log", "action", action, "app", app, "error", err)
	}
}

// refusals are the entries about an error of planning or applying: one for each app that it is about.
func refusals(action, app string, err error) []storage.AuditEntry {
	entry := storage.AuditEntry{Action: action, App: app, Outcome: storage.OutcomeRefused}
	var faults Faults
	var denied *DeniedError
	var deletion *DeletionError
	var untrusted *TrustError
	switch {
	case errors.As(err, &faults):
		entry.Reason = "invalid manifest"
		entry.Detail = faultCount(faults.Errors())
	case errors.As(err, &denied):
		var entries []storage.AuditEntry
		for _, d := range denied.Denials {
			entry.App, entry.Reason, entry.Detail = d.App, "denied by "+d.Hook, strings.TrimSpace(d.Path+" "+d.Message)
			entries = append(entries, entry)
		}
		return entries
	case errors.As(err, &deletion):
		entry.Reason, entry.Detail = "would delete", strings.TrimPrefix(deletion.Error(), "would remove ")
	case errors.As(err, &untrusted):
		entry.App, entry.Reason, entry.Detail = untrusted.App, "needs the operator's word", untrusted.Error()
	case errors.Is(err, ErrDeleting):
		entry.Reason = "the app is being deleted"
	case errors.Is(err, storage.ErrConflict):
		entry.Reason = "stale plan"
	default:
		entry.Outcome, entry.Reason = storage.OutcomeFailed, "see the server's log"
	}
	return []storage.AuditEntry{entry}
}

func faultCount(faults Faults) string {
	if len(faults) == 1 {
		return "1 fault: " + faults[0].String()
	}
	return fmt.Sprintf("%d faults, the first: %s", len(faults), faults[0])
}
