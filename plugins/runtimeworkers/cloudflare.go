package runtimeworkers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
)

const (
	defaultAPI = "https://api.cloudflare.com/client/v4"
	// The most that one call of secrets-bulk takes, deletions counted.
	maxOperations = 100
	// A pending version is often the moment between an upload and its deployment,
	// so a push tries this often itself before it is FAILED.
	pendingTries = 4
)

// cloudflareSettings is the config of the driver cloudflare.
type cloudflareSettings struct {
	Driver    string `json:"driver"`
	AccountID string `json:"accountId"`
	// TokenFile holds an API token that may edit Workers scripts. It is read for
	// each call.
	TokenFile string `json:"tokenFile"`
	// Script is the name of a Worker's script at Cloudflare: {app} and {worker}
	// stand for the names. Workers, by "app/worker", has those that are not so.
	Script  string            `json:"script"`
	Workers map[string]string `json:"workers"`
	// API is the address of the API when it is not Cloudflare's own.
	API string `json:"api"`
}

// cloudflare is the driver that writes secrets to Cloudflare.
type cloudflare struct {
	settings cloudflareSettings
	store    *store
	api      *api
	pause    time.Duration // after the first answer of a pending version; doubled

	mu    sync.Mutex // owns what follows
	turns map[string]chan struct{}
}

var (
	scriptName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$`)
	accountID  = regexp.MustCompile(`^[A-Za-z0-9]+$`)
)

func newCloudflare(s cloudflareSettings, records *store) (*cloudflare, error) {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{plugins.ErrInvalid}, args...)...)
	}
	if !accountID.MatchString(s.AccountID) {
		return nil, invalid("accountId %q is not the id of an account", s.AccountID)
	}
	if !filepath.IsAbs(s.TokenFile) {
		return nil, invalid("tokenFile %q is not an absolute path", s.TokenFile)
	}
	if text, err := os.ReadFile(s.TokenFile); err != nil {
		return nil, invalid("tokenFile: %w", err)
	} else if strings.TrimSpace(string(text)) == "" {
		return nil, invalid("tokenFile %s is empty", s.TokenFile)
	}
	if s.Script == "" {
		s.Script = "{app}-{worker}"
	}
	if s.API == "" {
		s.API = defaultAPI
	}
	if u, err := url.Parse(s.API); err != nil || u.Host == "" || u.Scheme != "https" &&
		!oauth.IsThisMachine(u.Hostname()) {
		return nil, invalid("api %q is not an https address", s.API)
	}
	d := &cloudflare{settings: s, store: records, pause: time.Second, turns: map[string]chan struct{}{}}
	d.api = &api{base: strings.TrimSuffix(s.API, "/"), account: s.AccountID, tokenFile: s.TokenFile,
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if _, err := records.all(); err != nil { // takes away what a killed process left
		return nil, err
	}
	return d, nil
}

func (d *cloudflare) close() { d.api.client.CloseIdleConnections() }

// acquire waits until nobody else changes the Worker; the result gives that back.
func (d *cloudflare) acquire(ctx context.Context, app, worker string) (func(), error) {
	d.mu.Lock()
	turn := d.turns[app+"\x00"+worker]
	if turn == nil {
		turn = make(chan struct{}, 1)
		turn <- struct{}{}
		d.turns[app+"\x00"+worker] = turn
	}
	d.mu.Unlock()
	select {
	case <-turn:
		return func() { turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *cloudflare) script(app, worker string) (string, error) {
	name, named := d.settings.Workers[app+"/"+worker]
	if !named {
		name = strings.NewReplacer("{app}", app, "{worker}", worker).Replace(d.settings.Script)
	}
	if !scriptName.MatchString(name) {
		return "", &problem{message: fmt.Sprintf("%q cannot be the name of a script at Cloudflare", name),
			remedy: "name the script below workers in the runtime's config"}
	}
	return name, nil
}

// PushEnv writes the record of what it is about to do, the secrets, and then the
// record of what it did: whatever interrupts it, the next push knows every name
// that may be ours.
func (d *cloudflare) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	release, err := d.acquire(ctx, req.App, req.Target.Name)
	if err != nil {
		return plugins.Status{}, err
	}
	defer release()
	rec, err := d.store.load(req.App, req.Target.Name)
	if err != nil && !errors.Is(err, errDamaged) {
		return plugins.Status{}, err
	}
	if err := plugins.Admit(rec.held(), req); err != nil {
		return plugins.Status{}, err
	}
	if rec != nil && rec.Generation == req.Generation {
		st, err := d.look(ctx, rec)
		var p *problem
		switch {
		case err != nil && !errors.As(err, &p):
			return plugins.Status{}, err
		case err == nil && st.State == plugins.StateReady:
			return st, d.refence(rec, req.Fence)
		}
	}
	st, err := d.write(ctx, rec, req)
	if err != nil {
		return refused(d.before(rec), err)
	}
	return st, nil
}

// refence keeps a newer fence of a push that changes nothing else.
func (d *cloudflare) refence(rec *record, fence int64) error {
	if rec.Fence == fence {
		return nil
	}
	rec.Fence = fence
	return d.store.save(*rec)
}

// before is what serves while a push cannot be written.
func (d *cloudflare) before(rec *record) plugins.Status {
	if rec == nil {
		return plugins.Status{}
	}
	st := d.status(rec)
	st.ServingGeneration = rec.Serving
	if rec.Version != "" {
		st.ServingGeneration = rec.Generation
	}
	return st
}

func (d *cloudflare) write(ctx context.Context, rec *record, req plugins.PushRequest) (plugins.Status, error) {
	script, err := d.script(req.App, req.Target.Name)
	if err != nil {
		return plugins.Status{}, err
	}
	names, err := d.api.secretNames(ctx, script)
	if err != nil {
		return plugins.Status{}, explain(script, err)
	}
	next := record{App: req.App, Worker: req.Target.Name, Script: script, Generation: req.Generation, Fence: req.Fence,
		Digest: req.Digest}
	var gone []string
	if rec != nil {
		next.Serving = rec.Serving
		if rec.Version != "" {
			next.Serving = rec.Generation
		}
		if rec.Script == script {
			gone = slices.DeleteFunc(slices.Clone(rec.Names), func(name string) bool {
				_, wanted := req.Env[name]
				return wanted || !names[name]
			})
		}
	}
	if operations := len(req.Env) + len(gone); operations > maxOperations {
		return plugins.Status{}, &problem{message: fmt.Sprintf("%d variables are to be written or deleted; Cloudflare "+
			"takes %d at once", operations, maxOperations),
			remedy: "give the Worker fewer variables"}
	}
	wanted := slices.Sorted(maps.Keys(req.Env))
	next.Names = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(wanted), gone...))))
	if err := d.patch(ctx, rec, next, req.Env, gone); err != nil {
		return plugins.Status{}, err
	}
	next.Names = wanted
	versions, err := d.api.deployed(ctx, script)
	if err != nil {
		return plugins.Status{}, explain(script, err)
	}
	next.Version = strings.Join(versions, " ")
	if err := d.store.save(next); err != nil {
		return plugins.Status{}, err
	}
	return d.look(ctx, &next)
}

// patch keeps the record and writes the secrets. When Cloudflare refuses them, the
// record is the one before again.
func (d *cloudflare) patch(ctx context.Context, rec *record, next record, env map[string]string, gone []string) error {
	if err := d.store.save(next); err != nil {
		return err
	}
	err := d.patchPatiently(ctx, next.Script, env, gone, map[string]string{
		"warifu-generation": strconv.FormatInt(next.Generation, 10), "warifu-digest": next.Digest})
	var refusal *apiError
	if !errors.As(err, &refusal) {
		return err // done, or nobody knows
	}
	var restore error
	if rec == nil {
		restore = d.store.remove(next.App, next.Worker)
	} else {
		restore = d.store.save(*rec)
	}
	if restore != nil {
		return restore
	}
	return explain(next.Script, err)
}

// patchPatiently waits a while for somebody's pending version to be deployed.
func (d *cloudflare) patchPatiently(ctx context.Context, script string, env map[string]string, gone []string,
	tags map[string]string) error {
	pause := d.pause
	for try := 1; ; try++ {
		err := d.api.patchSecrets(ctx, script, env, gone, tags)
		var refusal *apiError
		if !errors.As(err, &refusal) || !refusal.has(pendingVersion) || try == pendingTries {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		pause *= 2
	}
}

// explain makes a problem of a refusal. A rate limit says nothing of the script.
func explain(script string, err error) error {
	var refusal *apiError
	if !errors.As(err, &refusal) {
		return err
	}
	if refusal.status == http.StatusTooManyRequests {
		return fmt.Errorf("%w: %w", plugins.ErrUnavailable, err)
	}
	p := &problem{message: fmt.Sprintf("script %s: %v", script, err)}
	switch {
	case refusal.has(pendingVersion):
		p.remedy, p.retryable = "deploy the version that was uploaded last, or roll it back; writing now "+
			"would deploy it", true
	case refusal.has(noScript) || refusal.status == http.StatusNotFound:
		p.remedy, p.retryable = "deploy the script first, or correct its name in the runtime's config", true
	case refusal.status == http.StatusUnauthorized || refusal.status == http.StatusForbidden:
		p.remedy, p.retryable = "put a token that may edit Workers scripts of this account into tokenFile", true
	default:
		p.remedy = "correct what Cloudflare names"
	}
	return p
}

// ObserveEnv asks Cloudflare what is there.
func (d *cloudflare) ObserveEnv(ctx context.Context, app string, t plugins.Target) (plugins.Status, error) {
	rec, err := d.store.load(app, t.Name)
	if err != nil && !errors.Is(err, errDamaged) {
		return plugins.Status{}, err
	}
	if rec == nil {
		st := plugins.Status{State: plugins.StateFailed, Present: err != nil,
			Diagnostic: &plugins.Diagnostic{
				Message: "the Worker has no environment of warifu's", Remedy: "apply the app again", Retryable: true,
			}}
		if err != nil {
			st.Diagnostic.Message = err.Error()
		}
		return st, nil
	}
	st, err := d.look(ctx, rec)
	var p *problem
	if errors.As(err, &p) {
		return refused(d.status(rec), err)
	}
	return st, err
}

func (d *cloudflare) status(rec *record) plugins.Status {
	return plugins.Status{State: plugins.StateFailed, AcceptedGeneration: rec.Generation,
		Digest: rec.Digest, Present: true,
		Location: "cloudflare script " + rec.Script}
}

// look holds the record against what Cloudflare has: names and version.
func (d *cloudflare) look(ctx context.Context, rec *record) (plugins.Status, error) {
	st := d.status(rec)
	drift := func(message string) (plugins.Status, error) {
		return refused(st, &problem{message: message, remedy: "apply the app again; the secrets are then written again",
			retryable: true})
	}
	names, err := d.api.secretNames(ctx, rec.Script)
	if err != nil {
		return plugins.Status{}, explain(rec.Script, err)
	}
	for _, name := range rec.Names {
		if !names[name] && rec.Version != "" {
			return drift("the secret " + name + " is gone from the script")
		}
	}
	if rec.Version == "" {
		st.ServingGeneration = rec.Serving
		return drift("it is unknown whether the last write reached Cloudflare")
	}
	versions, err := d.api.deployed(ctx, rec.Script)
	if err != nil {
		return plugins.Status{}, explain(rec.Script, err)
	}
	if strings.Join(versions, " ") != rec.Version {
		return drift("another version was deployed since; its secrets may have other values")
	}
	st.State, st.ServingGeneration, st.Instances = plugins.StateReady, rec.Generation, 1
	return st, nil
}

// RemoveEnv deletes our secrets. A script that is gone has none.
func (d *cloudflare) RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error {
	release, err := d.acquire(ctx, req.App, req.Target.Name)
	if err != nil {
		return err
	}
	defer release()
	rec, err := d.store.load(req.App, req.Target.Name)
	if err != nil && !errors.Is(err, errDamaged) {
		return err
	}
	if err := plugins.AdmitRemoval(rec.held(), req); err != nil {
		return err
	}
	if rec != nil {
		if err := d.unset(ctx, rec); err != nil {
			return err
		}
	}
	return d.store.remove(req.App, req.Target.Name)
}

func (d *cloudflare) unset(ctx context.Context, rec *record) error {
	names, err := d.api.secretNames(ctx, rec.Script)
	if err == nil {
		ours := slices.DeleteFunc(slices.Clone(rec.Names), func(name string) bool { return !names[name] })
		if len(ours) == 0 {
			return nil
		}
		err = d.patchPatiently(ctx, rec.Script, nil, ours, nil)
	}
	var refusal *apiError
	if !errors.As(err, &refusal) {
		return err
	}
	if refusal.has(noScript) || refusal.status == http.StatusNotFound {
		return nil
	}
	return fmt.Errorf("%w: %w", plugins.ErrUnavailable, explain(rec.Script, err))
}

// ListTargets gives the Workers that have secrets of ours.
func (d *cloudflare) ListTargets(_ context.Context, app string) ([]plugins.AppTarget, error) {
	records, err := d.store.all()
	if err != nil {
		return nil, err
	}
	var out []plugins.AppTarget
	for _, rec := range records {
		if app == "" || app == rec.App {
			target := plugins.Target{Kind: plugins.TargetWorker, Name: rec.Worker}
			out = append(out, plugins.AppTarget{App: rec.App, Target: target})
		}
	}
	return out, nil
}
