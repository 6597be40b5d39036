package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/doctor"
	"github.com/warifu/warifu/storage"
)

func (c *cli) status() *cobra.Command {
	var format string
	var watch bool
	command := &cobra.Command{
		Use: "status", Short: "Show what the server is doing: deliveries, rotations, keys, replicas, etcd, drift",
		Long: `status shows deliveries of env by their state and those that are not ready, secrets that are being replaced,
keys, replicas, how etcd is, and what differs from what was applied.

With -w it goes on until you end it (Ctrl-C). In a terminal the view is drawn again in place; elsewhere, each
change is a new block. When the server ends, it says so and waits for the next one. Runtimes are asked what
they have (drift) every 30 seconds.`,
		Example: `  warifu status
  warifu status -w
  warifu status -o json | jq .deliveries`,
		Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch && format != "table" {
				return usagef("-w has no end, which -o %s needs: leave one of them out", format)
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			v := newView(api)
			if err := v.once(cmd.Context(), !watch); err != nil {
				return err
			}
			switch {
			case watch:
				return c.watchStatus(cmd.Context(), v)
			case format != "table":
				return encode(c.stdout, format, v.now)
			}
			for _, l := range v.lines(time.Now(), 0) {
				if _, err := fmt.Fprintln(c.stdout, c.line(l, c.width())); err != nil {
					return err
				}
			}
			return nil
		},
	}
	command.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and show what changes")
	outputFlag(command, &format, "table", "json", "yaml")
	return command
}

// standing is what is known of a server.
type standing struct {
	Server admin.Info `json:"server"`
	// Deliveries are counted by state, and Unready are those that are not ready.
	Deliveries map[string]int    `json:"deliveries"`
	Unready    []admin.Delivery  `json:"unready"`
	Rotating   []admin.Secret    `json:"rotating"` // secrets that are next or retiring
	Keys       []admin.Key       `json:"keys"`
	Replicas   []admin.Replica   `json:"replicas"`
	Etcd       []doctor.Finding  `json:"etcd"`
	Drift      *admin.Drift      `json:"drift,omitempty"` // nil: not known yet
	Faults     map[string]string `json:"faults,omitempty"`
}

// view is a standing that is kept up to date, part by part.
type view struct {
	api   *client
	parts []part

	mu      sync.Mutex // guards the rest
	now     standing
	drifted time.Time // when Drift was found
	away    error     // why no server answers; nil: one does
	since   time.Time // when that was found
	changed chan struct{}
}

const partDrift = "drift"

// part is a part of a standing, how it is got, and how often.
type part struct {
	name  string
	every time.Duration
	get   func(ctx context.Context, api *client) (func(*view), error)
}

func newView(api *client) *view {
	return &view{api: api, changed: make(chan struct{}, 1), now: standing{Faults: make(map[string]string)}, parts: []part{
		{"server", 5 * time.Second, getPart("/v1/info", func(v *view, info admin.Info) { v.now.Server = info })},
		{"deliveries", time.Second, listPart("/v1/deliveries", func(v *view, all []admin.Delivery) {
			v.now.Deliveries, v.now.Unready = map[string]int{}, []admin.Delivery{}
			for _, d := range all {
				if v.now.Deliveries[d.State]++; d.State != "ready" || d.Removing {
					v.now.Unready = append(v.now.Unready, d)
				}
			}
		})},
		// Each app costs reads.
		{"secrets", 5 * time.Second, getPart("/v1/secrets", func(v *view, all []admin.Secret) {
			v.now.Rotating = slices.DeleteFunc(all, func(s admin.Secret) bool { return s.State == "current" && s.Waiting == "" })
		})},
		{"keys", 10 * time.Second, getPart("/v1/keys", func(v *view, keys []admin.Key) { v.now.Keys = keys })},
		{"replicas", 5 * time.Second, getPart("/v1/replicas", func(v *view, all []admin.Replica) { v.now.Replicas = all })},
		{"etcd", 5 * time.Second, getPart("/v1/doctor?check=etcd",
			func(v *view, found admin.Examined) { v.now.Etcd = found.Findings })},
		// Every runtime is asked about every target.
		{partDrift, 30 * time.Second, func(ctx context.Context, api *client) (func(*view), error) {
			var found admin.Drift
			err := api.do(ctx, http.MethodPost, "/v1/drift", driftRequest{}, &found)
			return func(v *view) { v.now.Drift, v.drifted = &found, time.Now() }, err
		}},
	}}
}

func getPart[T any](path string, take func(*view, T)) func(context.Context, *client) (func(*view), error) {
	return func(ctx context.Context, api *client) (func(*view), error) {
		var got T
		err := api.do(ctx, http.MethodGet, path, nil, &got)
		return func(v *view) { take(v, got) }, err
	}
}

func listPart[T any](path string, take func(*view, []T)) func(context.Context, *client) (func(*view), error) {
	return func(ctx context.Context, api *client) (func(*view), error) {
		all, err := fetchAll[T](ctx, api, path+"?"+url.Values{"limit": {"500"}}.Encode())
		return func(v *view) { take(v, all) }, err
	}
}

// once gets every part, but drift only if it is to be waited for. The error is that no server answers, or a verdict on
// what was asked.
func (v *view) once(ctx context.Context, drift bool) error {
	errs := make([]error, len(v.parts))
	var all sync.WaitGroup
	for i, p := range v.parts {
		if p.name != partDrift || drift {
			all.Go(func() { errs[i] = v.update(ctx, p) })
		}
	}
	all.Wait()
	for _, err := range errs {
		var problem *admin.Problem
		if err != nil && (!errors.As(err, &problem) || problem.Status < 500) {
			return err
		}
	}
	return nil
}

// update gets a part. What a server cannot tell at the moment is noted, and the last word on it stays.
func (v *view) update(ctx context.Context, p part) error {
	take, err := p.get(ctx, v.api)
	if ctx.Err() != nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var problem *admin.Problem
	switch {
	case err == nil:
		take(v)
		delete(v.now.Faults, p.name)
		v.away = nil
	case errors.As(err, &problem):
		v.now.Faults[p.name] = problem.Detail
		v.away = nil
	default:
		if v.away == nil {
			v.since = time.Now()
		}
		v.away = err
	}
	select {
	case v.changed <- struct{}{}:
	default:
	}
	return err
}

// follow keeps the parts up to date until ctx ends, each in its time. While no server answers, it is asked each second.
func (v *view) follow(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, p := range v.parts {
		all.Go(func() {
			wait := p.every
			if p.name == partDrift {
				wait = 0 // it was not waited for
			}
			for {
				if storage.Pause(ctx, wait); ctx.Err() != nil {
					return
				}
				began := time.Now()
				if err := v.update(ctx, p); err != nil && away(err) {
					wait = time.Second
				} else {
					wait = max(p.every, 5*time.Since(began)) // a large installation is not to be kept busy by who looks
				}
			}
		})
	}
}

// fact is a piece of a line of the view. What passes on its own, such as how long ago something was, is no change.
type fact struct {
	text    string
	ink     color
	passing bool
}

func plain(format string, args ...any) fact   { return fact{text: fmt.Sprintf(format, args...)} }
func passing(format string, args ...any) fact { return fact{fmt.Sprintf(format, args...), faint, true} }
func inked(ink color, format string, args ...any) fact {
	return fact{text: fmt.Sprintf(format, args...), ink: ink}
}

// title begins what is said of one subject.
func title(name string) fact { return inked(bold, "%-12s", name) }

// lines is the view, with so many lines at most of what there may be any number of; 0: as many as there are.
func (v *view) lines(now time.Time, most int) (out [][]fact) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.now
	head := []fact{inked(bold, "warifu %s", s.Server.Version), plain("  %s", s.Server.Issuer), passing("  %s", when(now))}
	out = append(out, head)
	if v.away != nil {
		out = append(out, []fact{inked(red, "no server answers at %s; trying again", v.api.where),
			passing("  what follows is as of %s", when(v.since))})
	}
	out = append(out, v.deliveries(s, most)...)
	out = append(out, v.rotations(s, most)...)
	out = append(out, v.keys(s, now)...)
	out = append(out, v.replicas(s, now)...)
	for i, f := range s.Etcd {
		name := ""
		if i == 0 {
			name = "etcd"
		}
		ink := inkOf[f.State]
		line := []fact{title(name)}
		if f.State == doctor.Fine { // it holds sizes and times, which are never the same
			line = append(line, inked(ink, "ok"), passing("  %s", f.Seen))
		} else {
			line = append(line, inked(ink, "%s  %s", f.State, f.Seen))
		}
		out = append(out, line)
	}
	out = append(out, v.drift(s, now, most)...)
	for _, name := range slices.Sorted(maps.Keys(s.Faults)) {
		out = append(out, []fact{title(name), inked(red, "not known now: %s", s.Faults[name])})
	}
	return out
}

var inkOfDelivery = map[string]color{"ready": green, "failed": red, "degraded": red, "pending": yellow,
	"rolling": yellow}

// some are the first of what there may be any number of.
func some[T any](all []T, most int, line func(T) []fact) (out [][]fact) {
	for i, one := range all {
		if most > 0 && i == most-1 && len(all) > most {
			return append(out, []fact{plain("  %d more", len(all)-i)})
		}
		out = append(out, line(one))
	}
	return out
}

func (v *view) deliveries(s standing, most int) (out [][]fact) {
	line := []fact{title("deliveries")}
	for _, state := range []string{"ready", "rolling", "pending", "degraded", "failed"} {
		if n := s.Deliveries[state]; n > 0 {
			line = append(line, inked(inkOfDelivery[state], "%d %s  ", n, state))
		}
	}
	if len(line) == 1 {
		line = append(line, plain("none"))
	}
	out = append(out, line)
	return append(out, some(s.Unready, most, func(d admin.Delivery) []fact {
		return []fact{plain("  "), inked(inkOfDelivery[d.State], "%-10s", deliveryState(d)),
			plain("%s %s/%s  %s  generation %d of %d  ", d.App, d.Kind, d.Name, cmp.Or(d.Runtime, "no runtime"), d.Serving,
				d.Generation),
			inked(red, "%s", d.Error)}
	})...)
}

func (v *view) rotations(s standing, most int) (out [][]fact) {
	apps := make(map[string]bool)
	for _, secret := range s.Rotating {
		apps[secret.App] = true
	}
	out = [][]fact{{title("rotations"), plain("%s", orNone(len(apps)))}}
	return append(out, some(s.Rotating, most, func(secret admin.Secret) []fact {
		line := []fact{plain("  "), inked(yellow, "%-10s", secret.State), plain("%s %s", secret.App, secret.ID)}
		if !secret.RetiresAt.IsZero() {
			line = append(line, plain("  until %s", when(secret.RetiresAt)))
		}
		return append(line, plain("  %s", secret.Waiting))
	})...)
}

func orNone(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

func (v *view) keys(s standing, now time.Time) [][]fact {
	line := []fact{title("keys")}
	for _, k := range s.Keys {
		if k.State != string(storage.KeyActive) {
			continue
		}
		line = append(line, plain("%s %s", k.Use, shortened(k.KID, 11)))
		if !k.Until.IsZero() {
			line = append(line, passing(" (%s left)", untilWords(k.Until.Sub(now))))
		}
		line = append(line, plain("  "))
	}
	return [][]fact{line}
}

func untilWords(d time.Duration) string {
	switch {
	case d < 0:
		return "no time"
	case d < time.Hour:
		return d.Round(time.Minute).String()
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

func (v *view) replicas(s standing, now time.Time) (out [][]fact) {
	own := ""
	for _, r := range s.Replicas {
		if r.Self {
			own = r.Config
		}
	}
	for i, r := range s.Replicas {
		name := ""
		if i == 0 {
			name = "replicas"
		}
		line := []fact{title(name), plain("%s  %s", r.Name, r.Version),
			passing("  last heard from %s ago", heardAgo(now.Sub(r.At)))}
		if own != "" && r.Config != "" && r.Config != own {
			line = append(line, inked(yellow, "  another configuration"))
		}
		if r.Refused != "" {
			line = append(line, inked(red, "  goes on with an older configuration (warifu doctor says why)"))
		}
		out = append(out, line)
	}
	return out
}

func heardAgo(d time.Duration) string { return max(d, 0).Round(time.Second).String() }

func (v *view) drift(s standing, now time.Time, most int) (out [][]fact) {
	if s.Drift == nil {
		return [][]fact{{title("drift"), plain("not known yet")}}
	}
	line := []fact{title("drift")}
	if n := len(s.Drift.Findings); n == 0 {
		line = append(line, inked(green, "none"), plain(" (apps: %d, targets: %d)", s.Drift.Apps, s.Drift.Targets))
	} else {
		line = append(line, inked(yellow, "%d", n), plain(" (warifu drift says what to do)"))
	}
	out = append(out, append(line, passing("  asked %s ago", heardAgo(now.Sub(v.drifted)))))
	return append(out, some(s.Drift.Findings, most, func(f admin.DriftFinding) []fact {
		return []fact{plain("  "), inked(yellow, "%-10s", f.Kind),
			plain("%s", strings.TrimSpace(f.App+" "+f.Target+"  "+f.Text))}
	})...)
}
