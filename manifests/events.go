package manifests

import (
	"context"
	"fmt"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// entry is what the audit log says about a delivery.
func (a *attempt) entry(x storage.Delivery, action string) storage.AuditEntry {
	return storage.AuditEntry{Action: action, App: x.App, Target: label(x.Target),
		Detail: fmt.Sprintf("runtime %s, generation %d", x.Runtime, x.Generation)}
}

// told is what the audit log says when x is stored. Only a new state is recorded, not each attempt that fails the
// same way.
func (a *attempt) told(x storage.Delivery) []storage.AuditEntry {
	if x.State == a.before {
		return nil
	}
	action, outcome := "", storage.OutcomeFailed
	switch x.State {
	case storage.DeliveryReady:
		action, outcome = storage.AuditDeliveryReady, storage.OutcomeDone
	case storage.DeliveryFailed:
		action = storage.AuditDeliveryFailed
	case storage.DeliveryDegraded:
		action = storage.AuditDeliveryDegraded
	default:
		return nil
	}
	e := a.entry(x, action)
	e.Outcome, e.Reason = outcome, x.Error
	return []storage.AuditEntry{e}
}

// drifted handles a target that no longer has what it was given. It is delivered again at once, unless drift is to
// stay until an operator has looked at it.
func (a *attempt) drifted(ctx context.Context, x storage.Delivery, st plugins.Status) hold {
	found := foundAt(st, x.Generation)
	a.d.metrics.Drifted()
	e := a.entry(x, storage.AuditDeliveryDrift)
	e.Reason = found
	if a.d.set().leaveDrift && a.before == storage.DeliveryReady {
		a.before = storage.DeliveryDegraded // the entry of the drift says it all
		e.Outcome = storage.OutcomeFailed
		x.State, x.Error, x.Remedy = storage.DeliveryDegraded, found, "find out why; then warifu retry "+x.App+
			", or apply again"
	} else {
		a.d.afresh(&x)
	}
	a.d.log.WarnContext(ctx, "a target has lost its env", "app", x.App, "target", words(x.Target), "runtime", x.Runtime,
		"generation", x.Generation, "found", st.AcceptedGeneration, "state", x.State)
	return a.settle(ctx, x, e)
}

// foundAt describes how a target differs from what it was given.
func foundAt(st plugins.Status, generation int64) string {
	switch {
	case !st.Present:
		return "the runtime no longer has this env"
	case st.AcceptedGeneration < generation:
		return fmt.Sprintf("the runtime has generation %d, older than %d", st.AcceptedGeneration, generation)
	case st.AcceptedGeneration > generation:
		return fmt.Sprintf("the runtime has generation %d, which this server did not deliver", st.AcceptedGeneration)
	}
	return "the runtime has other values"
}
