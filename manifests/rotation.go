package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// A rotation takes these steps. Each is one transaction, so that any replica can take the next one, after any crash:
//
//  1. begun: the client has a second secret, and every env that holds the previous one is to be delivered with the
//     new one;
//  2. served: every delivery of the app is ready, none of them with an older secret;
//  3. used: the new secret has been used to authenticate at any time since the rotation began;
//  4. the grace period begins once both have happened;
//  5. asked: the grace period has passed, and every target is looked at once more, whatever happened to it in the
//     meantime;
//  6. retired: every delivery of the app has been found ready since then.
//
// A target that lags behind, or whose env is still being taken away, keeps the older secret valid for as long as it
// takes. So does an app that never uses the new one, because then it is unknown whether the app has it. Both are
// shown (`warifu get secrets`), and an operator who does not want to wait rotates once more with Compromised.

// DefaultGrace is how long a secret stays valid after all targets serve its successor and that one was used.
const DefaultGrace = 24 * time.Hour

// Refusals of [Deployer.Rotate].
var (
	// ErrRotating means that a rotation is under way; a client has at most two secrets.
	ErrRotating = errors.New("a rotation is under way")
	// ErrNoSecret means that the app has no client, or that its client is public or signs with its own key.
	ErrNoSecret = errors.New("has no client secret")
	// ErrSecret means that a secret from elsewhere cannot be taken.
	ErrSecret = errors.New("the secret")
	// ErrSealed means that an env cannot be decrypted, so it is unknown whether it holds the secret.
	ErrSealed = errors.New("cannot be opened with the encryption keys of this server")
)

// RotatingError is [ErrRotating], with what the rotation waits for.
type RotatingError struct{ App, Waiting string }

func (e *RotatingError) Error() string {
	return fmt.Sprintf("app %s: %s, %s", e.App, ErrRotating, e.Waiting)
}

func (e *RotatingError) Unwrap() error { return ErrRotating }

// RotateOptions say how a secret is replaced.
type RotateOptions struct {
	// Grace is how long the old secret stays valid once the new one is served and used.
	Grace time.Duration
	// Compromised ends all older secrets in the transaction that adds the new one.
	Compromised bool
	// Secret is the new secret, from elsewhere; empty: one is made. Imported: the app has it already.
	Secret   string
	Imported bool
}

// Rotated is a rotation that has begun. It holds no secret.
type Rotated struct {
	Rotation storage.SecretRotation
	// Targets are given the new secret.
	Targets []storage.Target
	// Consequences for the operators and users of the app, in words.
	Consequences []string
}

// Rotate gives an app's client a new secret and has it delivered to every target that has the old one, in one
// transaction. The old secret stays valid until [Deployer.Run], in this process or another, finds that it should no
// longer be needed.
//
// Errors: [storage.ErrNotFound] if there is no such app; [ErrNoSecret], [ErrRotating], [ErrSecret], [ErrSealed] and
// [ErrDeleting]. Nothing was changed then.
func (d *Deployer) Rotate(ctx context.Context, app string, opts RotateOptions) (Rotated, error) {
	reason := ""
	switch {
	case opts.Compromised:
		reason = "compromised"
	case opts.Secret != "":
		reason = "given by an operator"
	}
	return d.rotate(ctx, app, opts, reason)
}

func (d *Deployer) rotate(ctx context.Context, app string, opts RotateOptions, reason string) (Rotated, error) {
	var begun Rotated
	var refusal error
	err := storage.Again(tries, func() (again bool, err error) {
		view, err := d.store.App(ctx, app)
		if err == nil && view.App == nil {
			err = storage.ErrNotFound
		}
		if err != nil {
			return false, err
		}
		var release storage.Release
		if begun, release, refusal = d.rotation(ctx, view, opts); refusal != nil {
			d.refused(ctx, app, refusal)
			return false, nil
		}
		release.Audit = []storage.AuditEntry{{Action: storage.AuditRotate, App: app, Reason: reason,
			Detail: fmt.Sprintf("secret %s replaces %s, %s",
				begun.Rotation.SecretID, begun.Rotation.Previous, count(len(begun.Targets), "target", "targets"))}}
		err = d.store.CommitRelease(ctx, release)
		if errors.Is(err, storage.ErrConflict) {
			return true, nil // a delivery moved on, or the app did: decide anew
		}
		return false, err
	})
	if refusal != nil {
		return Rotated{}, refusal
	}
	if err != nil {
		return Rotated{}, fmt.Errorf("rotate %s: %w", app, err)
	}
	d.metrics.Rotation("begun")
	d.log.InfoContext(ctx, "rotation of a client secret begins", "app", app, "client", begun.Rotation.ClientID,
		"secret", begun.Rotation.SecretID, "previous", begun.Rotation.Previous, "targets", len(begun.Targets),
		"compromised", opts.Compromised)
	return begun, nil
}

// Replaced are the apps whose clients have got other secrets.
type Replaced struct {
	// Delivered to their targets, and handed out by somebody.
	Delivered, ByHand []string
}

// ReplaceSecrets ends the secrets of all apps and gives each client another one, as [Deployer.Rotate] does with
// Compromised: for a database in which secrets that were given up may be valid again.
func (d *Deployer) ReplaceSecrets(ctx context.Context, reason string) (Replaced, error) {
	var out Replaced
	apps, err := d.store.Apps(ctx)
	if err != nil {
		return out, fmt.Errorf("replace client secrets: %w", err)
	}
	for _, app := range apps {
		begun, err := d.rotate(ctx, app.Name, RotateOptions{Compromised: true}, reason)
		switch {
		case errors.Is(err, ErrNoSecret), errors.Is(err, ErrDeleting):
		case err != nil:
			return out, err
		case len(begun.Targets) == 0:
			out.ByHand = append(out.ByHand, app.Name)
		default:
			out.Delivered = append(out.Delivered, app.Name)
		}
	}
	return out, nil
}

// refused writes to the audit log that a rotation was refused.
func (d *Deployer) refused(ctx context.Context, app string, why error) {
	err := d.store.Record(ctx, storage.AuditEntry{Action: storage.AuditRotate, App: app, Outcome: storage.OutcomeRefused,
		Reason: why.Error()})
	if err != nil && ctx.Err() == nil {
		d.log.WarnContext(ctx, "a refused rotation could not be written to the audit log", "app", app, "error", err)
	}
}

// rotation decides from the stored records what a rotation would store.
func (d *Deployer) rotation(ctx context.Context, view storage.AppView, opts RotateOptions) (
	Rotated, storage.Release, error) {
	app, was := view.App, view.Client
	switch {
	case app.Deleting:
		return Rotated{}, storage.Release{}, deleting(app.Name)
	case was == nil || was.Public || len(was.Secrets) == 0:
		return Rotated{}, storage.Release{}, fmt.Errorf("app %s %w: %s", app.Name, ErrNoSecret, noSecret(was))
	}
	if opts.Secret != "" {
		err := oauth.CheckSecret(opts.Secret, opts.Imported)
		if err == nil && was.Verify(opts.Secret) {
			err = errors.New("is the client's already")
		}
		if err != nil {
			return Rotated{}, storage.Release{}, fmt.Errorf("%w %w", ErrSecret, err)
		}
	}
	seen, err := d.store.Secrets(ctx, was.ID)
	if err != nil {
		return Rotated{}, storage.Release{}, fmt.Errorf("rotate %s: %w", app.Name, err)
	}
	if len(was.Secrets) > 1 && !opts.Compromised {
		return Rotated{}, storage.Release{}, &RotatingError{App: app.Name, Waiting: Waiting(view, seen.Rotation, d.now())}
	}
	now := d.now().UTC()
	fresh, value := d.store.NewClientSecret(was.ID)
	if opts.Secret != "" {
		fresh, value = d.store.ClientSecretOf(was.ID, opts.Secret), opts.Secret
	}
	client := *was
	client.UpdatedAt = now
	rot := storage.SecretRotation{
		ClientID: was.ID, App: app.Name, SecretID: fresh.ID, Previous: was.Secrets[len(was.Secrets)-1].ID,
		StartedAt: now, Grace: opts.Grace, Compromised: opts.Compromised,
	}
	if seen.Rotation != nil {
		rot.Revision = seen.Rotation.Revision
	}
	if opts.Compromised {
		client.Secrets, rot.RetiredAt = []storage.ClientSecret{fresh}, now
	} else {
		client.Secrets = append(slices.Clone(was.Secrets), fresh)
	}
	release := storage.Release{App: *app, Client: &client, Rotation: &rot}
	begun := Rotated{Rotation: rot}
	release.Deliveries, err = d.withSecret(view, value)
	if err != nil {
		return Rotated{}, storage.Release{}, err
	}
	for _, x := range release.Deliveries {
		release.App.Generation = x.Generation
		begun.Targets = append(begun.Targets, x.Target)
	}
	grants := 0
	if opts.Compromised {
		if grants, err = d.store.CountGrants(ctx, was.ID); err != nil {
			return Rotated{}, storage.Release{}, fmt.Errorf("rotate %s: %w", app.Name, err)
		}
	}
	begun.Consequences = rotationConsequences(begun, grants)
	if bits := oauth.BitsOf(opts.Secret); opts.Secret != "" && bits < oauth.SecretBits {
		begun.Consequences = append(begun.Consequences, fmt.Sprintf(
			"the secret has %d bits at most, and can be found by whoever gets hold of the database: replace it soon "+
				"(warifu rotate %s)", bits, app.Name))
	}
	return begun, release, nil
}

// noSecret says why there is nothing to rotate.
func noSecret(c *storage.Client) string {
	switch {
	case c == nil:
		return "its manifest has no spec.oauth"
	case c.TokenEndpointAuthMethod == oauth.AuthWorkload:
		return "its client is a workload (" + strings.Join(workloads(&c.Client), ", ") +
			"): there is nothing to rotate, whoever issues its tokens rotates the keys that sign them"
	case c.TokenEndpointAuthMethod == oauth.AuthPrivateKeyJWT:
		return "its client signs with its own key (private_key_jwt), which is replaced in jwks or at jwksUri"
	}
	if c.OnlyForwardAuth() {
		return "it is behind forward auth, and authenticates nowhere"
	}
	return "its client is public"
}

// withSecret returns the deliveries whose env holds one of the client's secrets, changed to hold another one. The
// deploy hooks decide which variable holds the secret; here it is recognized by its value.
func (d *Deployer) withSecret(view storage.AppView, value string) ([]storage.Delivery, error) {
	old, err := d.store.SecretValues(view.Client)
	if err != nil {
		return nil, fmt.Errorf("rotate %s: %w", view.App.Name, err)
	}
	generation := nextGeneration(view)
	var changed []storage.Delivery
	for _, x := range view.Deliveries {
		if x.Remove {
			continue
		}
		env, err := d.store.OpenEnv(x)
		if err != nil {
			return nil, fmt.Errorf("rotate %s: the env of %s %w: put the missing key back into encryptionKeyFiles, or "+
				"apply the app again",
				view.App.Name, words(x.Target), ErrSealed)
		}
		holds := false
		for name, v := range env {
			if slices.Contains(old, v) {
				env[name], holds = value, true
			}
		}
		if !holds {
			continue
		}
		next := d.wish(x, x.App, x.Target, generation)
		next.Digest = plugins.Digest(d.store.DigestKey(), env)
		if err := d.store.SealEnv(&next, env); err != nil {
			return nil, fmt.Errorf("rotate %s: %w", view.App.Name, err)
		}
		changed = append(changed, next)
	}
	return changed, nil
}

func rotationConsequences(r Rotated, grants int) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	rot := r.Rotation
	byHand := fmt.Sprintf("this server delivers the secret to no target: hand it out with warifu credentials %s", rot.App)
	if !rot.Compromised {
		say("both secrets are valid now; %s retires %s after every target serves %s and the app has used it", rot.Previous,
			rot.Grace, rot.SecretID)
		if len(r.Targets) == 0 {
			say("%s", byHand)
		}
		return out
	}
	say("%s is no longer valid: token requests with it, the app's included, get invalid_client", rot.Previous)
	if len(r.Targets) == 0 {
		say("%s; until then the app is cut off", byHand)
	} else {
		names := make([]string, len(r.Targets))
		for i, t := range r.Targets {
			names[i] = words(t)
		}
		say("cut off until their env is delivered: %s", strings.Join(names, ", "))
	}
	say("%s: access tokens keep working, and refresh tokens will work again with the new secret",
		count(grants, "grant stays", "grants stay"))
	return out
}

// lagging are the targets that keep an older secret valid, each with the reason: every target of the app whose
// delivery is not ready, because what it has is not known.
func lagging(view storage.AppView) []string {
	var late []string
	for _, x := range view.Deliveries {
		switch {
		case x.Remove:
			late = append(late, words(x.Target)+" (its env is being taken away)")
		case x.State != storage.DeliveryReady || x.Serving != x.Generation:
			late = append(late, words(x.Target)+" ("+cmp.Or(x.State, storage.DeliveryPending)+")")
		}
	}
	return late
}

// Waiting says what a rotation waits for before the older secret can go. It is empty if none is under way.
func Waiting(view storage.AppView, rot *storage.SecretRotation, now time.Time) string {
	if !rot.UnderWay() {
		return ""
	}
	late := lagging(view)
	switch {
	case len(late) > 0:
		return "waiting for " + strings.Join(late, ", ")
	case rot.ServedAt.IsZero():
		return "waiting for the targets to be observed"
	case rot.UsedAt.IsZero():
		return "waiting until the app uses the new secret"
	case now.Before(rot.RetiresAt):
		return "waiting until the grace period ends at " + rot.RetiresAt.UTC().Format(time.RFC3339)
	}
	return "waiting until every target has been observed once more"
}

// rotations takes rotations on until ctx ends, and begins those of secrets that are too old. It looks at a rotation
// when something has changed that it may wait for, and when time may have taken it further.
func (d *Deployer) rotations(ctx context.Context) {
	mirror := d.store.MirrorRotations(ctx)
	d.metrics.Source("rotations", func(tell metrics.Tell) {
		n, first := mirror.UnderWay()
		age := time.Duration(0)
		if n > 0 {
			age = max(d.now().Sub(first), 0)
		}
		tell(metrics.RotationsUnderWay, float64(n))
		tell(metrics.RotationOldest, age.Seconds())
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	again := make(map[string]time.Time) // when time alone may take a client's rotation further
	var aged time.Time                  // when ages were looked at last
	for {
		var turns []*storage.SecretRotation
		select {
		case <-ctx.Done():
			return
		case <-mirror.Changed:
			turns = mirror.Take()
		case <-timer.C:
		case <-d.aging:
			aged = time.Time{}
		}
		now := d.now()
		for client, at := range again {
			if rot := mirror.Rotation(client); !at.After(now) && rot != nil {
				turns = append(turns, rot)
			}
		}
		for _, rot := range turns {
			delete(again, rot.ClientID)
			if wait := d.advance(ctx, rot); wait > 0 {
				again[rot.ClientID] = now.Add(wait)
			}
		}
		if d.set().maxAge > 0 && now.Sub(aged) >= d.pace.Reconcile {
			aged = now
			d.rotateOld(ctx)
		}
		wait := d.pace.Reconcile
		for _, at := range again {
			wait = min(wait, max(at.Sub(d.now()), d.pace.RetryMin))
		}
		timer.Reset(wait)
	}
}

// advance takes a rotation one step further, if possible, and returns the time after which it is to be looked at
// again even if nothing has changed; 0 means never.
func (d *Deployer) advance(ctx context.Context, rot *storage.SecretRotation) time.Duration {
	wait, err := d.step(ctx, rot)
	switch {
	case err == nil || ctx.Err() != nil:
		return wait
	case errors.Is(err, storage.ErrConflict): // another replica took the step, or what it was decided on has changed
		return d.pace.RetryMin
	}
	d.log.WarnContext(ctx, "a rotation cannot continue; trying again", "app", rot.App, "error", err)
	return d.pace.RetryMax
}

// step takes a rotation one step further, if possible. Storing a step wakes the loop, which takes the next one. It
// returns the time until the rotation can go further without a change; 0 means never.
func (d *Deployer) step(ctx context.Context, rot *storage.SecretRotation) (time.Duration, error) {
	view, err := d.store.App(ctx, rot.App)
	if err != nil {
		return 0, err
	}
	client := view.Client
	switch {
	case rot.Over():
		return 0, nil
	case view.App != nil && view.App.Deleting:
		return 0, nil // it goes with its client
	case client == nil || client.ID != rot.ClientID || len(client.Secrets) == 0 ||
		client.Secrets[len(client.Secrets)-1].ID != rot.SecretID:
		return 0, d.store.DropRotation(ctx, *rot) // the client has become public, or is gone
	}
	confirmed, err := d.confirmed(view)
	if err != nil {
		return 0, err
	}
	now, next := d.now().UTC(), *rot
	entry := storage.AuditEntry{App: rot.App, Detail: "secret " + rot.SecretID}
	if rot.ServedAt.IsZero() && confirmed {
		next.ServedAt, entry.Action = now, storage.AuditSecretServed
	} else if due(rot, now) && rot.AskedAt.IsZero() {
		next.AskedAt = now
	} else if rot.UsedAt.IsZero() {
		seen, err := d.store.Secrets(ctx, rot.ClientID)
		if err != nil {
			return 0, err
		}
		next.UsedAt, entry.Action = seen.Uses[rot.SecretID].First, storage.AuditSecretUsed
	}
	if next != *rot {
		var entries []storage.AuditEntry
		if entry.Action != "" {
			entries = append(entries, entry)
		}
		if next.UnderWay() && next.RetiresAt.IsZero() && !next.ServedAt.IsZero() && !next.UsedAt.IsZero() {
			next.RetiresAt = now.Add(rot.Grace)
		}
		d.log.InfoContext(ctx, "a rotation continues", "app", rot.App, "client", rot.ClientID, "secret", rot.SecretID,
			"served", next.ServedAt, "used", next.UsedAt, "retires", next.RetiresAt)
		err := d.store.UpdateRotation(ctx, next, entries...)
		switch {
		case err != nil:
		case entry.Action == storage.AuditSecretServed:
			d.metrics.Rotation("served")
		case entry.Action == storage.AuditSecretUsed:
			d.metrics.Rotation("used")
		}
		return 0, err
	}
	switch {
	case !rot.UnderWay() || rot.RetiresAt.IsZero():
		return 0, nil
	case !due(rot, now):
		return rot.RetiresAt.Sub(now), nil
	case slices.ContainsFunc(view.Deliveries, func(x *storage.Delivery) bool {
		return x.State == storage.DeliveryReady && x.Revision < rot.Revision
	}):
		return 0, d.ask(ctx, rot.App) // it was ready before, and may have lost its env since
	case !confirmed:
		return 0, nil // a delivery that gets ready wakes the loop
	}
	entry.Action, entry.Detail = storage.AuditSecretRetired, "secret "+rot.Previous
	if err := d.store.RetireSecrets(ctx, *rot, view, entry); err != nil {
		return 0, err
	}
	d.metrics.Rotation("retired")
	d.log.InfoContext(ctx, "a client secret was retired", "app", rot.App, "client", rot.ClientID, "secret", rot.Previous,
		"successor", rot.SecretID)
	return 0, nil
}

// due reports whether the grace period has passed.
func due(rot *storage.SecretRotation, now time.Time) bool {
	return rot.UnderWay() && !rot.RetiresAt.IsZero() && !now.Before(rot.RetiresAt)
}

// confirmed reports whether every target of the app serves what it should, with no older secret in it.
func (d *Deployer) confirmed(view storage.AppView) (bool, error) {
	if len(lagging(view)) > 0 {
		return false, nil
	}
	older := *view.Client
	older.Secrets = older.Secrets[:len(older.Secrets)-1]
	values, err := d.store.SecretValues(&older)
	if err != nil || len(values) == 0 {
		return err == nil, err
	}
	for _, x := range view.Deliveries {
		env, err := d.store.OpenEnv(x)
		if err != nil {
			return false, err
		}
		for _, v := range env {
			if slices.Contains(values, v) {
				return false, nil
			}
		}
	}
	return true, nil
}

// rotateOld begins a rotation for every client of an app whose newest secret is too old. A client with two secrets is
// left alone.
func (d *Deployer) rotateOld(ctx context.Context) {
	maxAge := d.set().maxAge
	clients, err := d.store.Clients(ctx)
	if err != nil {
		if ctx.Err() == nil {
			d.log.WarnContext(ctx, "the ages of client secrets cannot be read; trying again", "error", err)
		}
		return
	}
	for _, c := range clients {
		if ctx.Err() != nil {
			return
		}
		if c.Disabled || c.App == "" || len(c.Secrets) != 1 || d.now().Sub(c.Secrets[0].CreatedAt) < maxAge {
			continue
		}
		_, err := d.rotate(ctx, c.App, RotateOptions{Grace: DefaultGrace}, "older than secretMaxAge, "+maxAge.String())
		if err != nil && !errors.Is(err, ErrRotating) && !errors.Is(err, ErrDeleting) && ctx.Err() == nil {
			d.log.WarnContext(ctx, "a client secret is too old and cannot be rotated; trying again", "app", c.App, "error",
				err)
		}
	}
}
