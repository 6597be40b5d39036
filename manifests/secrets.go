package manifests

import (
	"context"
	"fmt"
	"time"

	"github.com/warifu/warifu/storage"
)

// States of a [Secret].
const (
	SecretCurrent  = "current"  // the one to use
	SecretNext     = "next"     // valid, and on its way to the targets
	SecretRetiring = "retiring" // valid until its grace period ends; its successor is in use
)

// Secret is what may be shown of a client's secret, which is never its value.
type Secret struct {
	App, ClientID, ID string
	State             string
	CreatedAt         time.Time
	// ServedAt is when every target was found to serve a secret that a rotation made.
	ServedAt time.Time
	// UsedAt is its first use, LastUsedAt its last one, up to [storage.UsePrecision] ago.
	UsedAt, LastUsedAt time.Time
	// RetiresAt is when its grace period ends; zero while that has not begun.
	RetiresAt time.Time
	// Waiting says what keeps a secret valid that is to be replaced.
	Waiting string
}

// Secrets lists the valid secrets of an app, oldest first, or of all apps if app is empty. An app without a client,
// or with a public one, has none. It returns [storage.ErrNotFound] if there is no such app.
func (d *Deployer) Secrets(ctx context.Context, app string) ([]Secret, error) {
	if app != "" {
		view, err := d.store.App(ctx, app)
		if err == nil && view.App == nil {
			err = storage.ErrNotFound
		}
		if err != nil {
			return nil, fmt.Errorf("secrets of %s: %w", app, err)
		}
		return d.secrets(ctx, view)
	}
	clients, err := d.store.Clients(ctx)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	var out []Secret
	for _, c := range clients {
		view, err := d.store.App(ctx, c.App)
		if err != nil {
			return nil, fmt.Errorf("secrets of %s: %w", c.App, err)
		}
		if view.Client == nil || view.Client.ID != c.ID {
			continue // just gone
		}
		secrets, err := d.secrets(ctx, view)
		if err != nil {
			return nil, err
		}
		out = append(out, secrets...)
	}
	return out, nil
}

func (d *Deployer) secrets(ctx context.Context, view storage.AppView) ([]Secret, error) {
	c := view.Client
	if c == nil || len(c.Secrets) == 0 {
		return nil, nil
	}
	seen, err := d.store.Secrets(ctx, c.ID)
	if err != nil {
		return nil, fmt.Errorf("secrets of %s: %w", c.App, err)
	}
	var out []Secret
	rot, last := seen.Rotation, len(c.Secrets)-1
	for i, s := range c.Secrets {
		use := seen.Uses[s.ID]
		one := Secret{
			App: c.App, ClientID: c.ID, ID: s.ID, State: SecretCurrent, CreatedAt: s.CreatedAt, UsedAt: use.First,
			LastUsedAt: use.Last,
		}
		if rot != nil && rot.SecretID == s.ID {
			one.ServedAt = rot.ServedAt
		}
		begun := rot != nil && !rot.RetiresAt.IsZero() // the grace
		switch {
		case i < last:
			one.Waiting = Waiting(view, rot, d.now())
			if begun {
				one.State, one.RetiresAt = SecretRetiring, rot.RetiresAt
			}
		case i > 0 && !begun:
			one.State = SecretNext
		}
		out = append(out, one)
	}
	return out, nil
}
