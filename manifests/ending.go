package manifests

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/warifu/warifu/storage"
)

// A manifest says what there should be, so what it leaves out is removed. For a client that cannot be undone: its
// grants end, and with them every sign-in of the app. So a client is removed only if an operator has explicitly
// allowed that, never because a file was saved.

// Ending is a client that is removed, and what ends with it.
type Ending struct {
	App      string `json:"app"`
	ClientID string `json:"clientId"`
	Grants   int    `json:"grants"` // live ones
}

// String is as in "client shop-7k2m: 12 grants end".
func (e Ending) String() string { return "client " + e.ClientID + ": " + grantsEnd(e.Grants) }

func grantsEnd(n int) string { return count(n, "grant ends", "grants end") }

// endings in words.
func endings(list []Ending) string {
	words := make([]string, len(list))
	for i, e := range list {
		words[i] = e.String()
	}
	return strings.Join(words, ", ")
}

// DeletionError says that applying would remove clients, and that this was not allowed. Nothing was changed.
type DeletionError struct {
	Ends []Ending
	// App would be renamed to As; empty when it would not.
	App, As string
}

func (e *DeletionError) Error() string {
	switch {
	case e.As == "":
		return "would remove " + endings(e.Ends)
	case len(e.Ends) == 0:
		return "would rename the app " + e.App + " to " + e.As
	}
	return "would rename the app " + e.App + " to " + e.As + ", and so remove " + endings(e.Ends)
}

func (e *DeletionError) never() string { return "deletes" }

func (e *DeletionError) remedy(doc *Document) string {
	if e.As == "" {
		return "warifu apply -f " + doc.Path + " --allow-delete"
	}
	return "warifu apply -f " + doc.Path + ", then warifu delete app " + e.App
}

// ending is the client of an app, with what goes with it; nil when the app has none.
func (d *Deployer) ending(ctx context.Context, view storage.AppView) (*Ending, error) {
	if view.Client == nil {
		return nil, nil
	}
	grants, err := d.store.CountGrants(ctx, view.Client.ID)
	if err != nil {
		return nil, err
	}
	return &Ending{App: view.App.Name, ClientID: view.Client.ID, Grants: grants}, nil
}

// refusal is why a manifest that this server follows is not applied, though it has no fault: somebody has to say so.
type refusal interface {
	error
	remedy(doc *Document) string // the command that says it
	never() string               // what a file that is watched never does
}

// refuse keeps with the app that the manifest which this server follows was not applied. What is known already, also
// from another replica or before a restart, is neither logged nor recorded again.
func (d *Deployer) refuse(ctx context.Context, app string, doc *Document, why refusal) error {
	content := sha256.Sum256(doc.Raw)
	return storage.Again(tries, func() (again bool, err error) {
		view, err := d.store.App(ctx, app)
		if err != nil || view.App == nil || view.App.Refused != nil &&
			string(view.App.Refused.Content) == string(content[:]) {
			return false, err
		}
		refused := *view.App
		if deletion, is := why.(*DeletionError); !is || deletion.As == "" {
			refused.GoneSince, refused.GoneUnsure = time.Time{}, false
		}
		refused.Refused = &storage.Refusal{Content: content[:], At: d.now().UTC(), Reason: why.Error()}
		err = d.store.CommitRelease(ctx, storage.Release{App: refused, Audit: refusals(storage.AuditApply, app, why)})
		if errors.Is(err, storage.ErrConflict) {
			return true, nil
		}
		if err == nil {
			d.log.ErrorContext(ctx, "manifest not applied: a watched file never "+why.never(), "app", app, "file", doc.Path,
				"error", why, "remedy", why.remedy(doc))
		}
		return false, err
	})
}

// refuseRename keeps with an app that its file describes another one now. The new app can be applied by hand, and the
// old one be deleted; both are what an operator says, and not what a file says.
func (d *Deployer) refuseRename(ctx context.Context, doc *Document, app string) error {
	view, err := d.store.App(ctx, app)
	if err != nil || view.App == nil {
		return err
	}
	why := &DeletionError{App: app, As: doc.App.Metadata.Name}
	ending, err := d.ending(ctx, view)
	if err != nil {
		return err
	}
	if ending != nil {
		why.Ends = []Ending{*ending}
	}
	return d.refuse(ctx, app, doc, why)
}
