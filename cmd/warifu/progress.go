package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
)

// waiting are the flags of commands that may wait for env to be delivered.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) flags(command *cobra.Command) {
	command.Flags().BoolVar(&w.wait, "wait", false,
		"wait until the env is served everywhere, also through a restart of the server, show progress, and fail if it is not")
	command.Flags().DurationVar(&w.timeout, "timeout", 2*time.Minute, "how long --wait waits")
}

// glance is the time between two looks at deliveries.
const glance = 200 * time.Millisecond

// delivered waits, if --wait was given, until every target of the apps is at rest, and fails if one does not serve
// what it should. Each change of a target is a line on stderr. Servers may be restarted meanwhile: the next one
// delivers what is left. The error begins with what, which says what has been done already.
func (c *cli) delivered(ctx context.Context, w waiting, what string, apps ...string) error {
	if !w.wait {
		return nil
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	path := "/v1/deliveries"
	if len(apps) == 1 {
		path += "?app=" + url.QueryEscape(apps[0])
	}
	waited, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	without := outage{c: c, api: api}
	shown := make(map[string]string)
	var late []string
	asking := ctx // the first time, since there must be something to tell in the end
	for moving := true; ; asking = waited {
		listed, err := fetchAll[admin.Delivery](asking, api, path)
		switch {
		case err == nil:
			moving, late = c.unready(shown, listed, apps)
			without.outlasts(nil)
		case asking.Err() != nil: // which is told below
		case !without.outlasts(err):
			return err
		}
		if !moving {
			break
		}
		storage.Pause(waited, glance)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s, but interrupted before every target had its env; warifu get deliveries shows them", what)
		case waited.Err() != nil && without.err != nil:
			return fmt.Errorf("%s, but after %s not every target is known to have its env: %w", what, w.timeout, without.err)
		case waited.Err() != nil:
			return fmt.Errorf("%s, but after %s not every target has its env:\n%s", what, w.timeout, strings.Join(late, "\n"))
		}
	}
	if len(late) > 0 {
		return fmt.Errorf("%s, but not every target has its env:\n%s", what, strings.Join(late, "\n"))
	}
	return nil
}

// unready are the targets of apps that do not serve what they should, as lines; moving: some of them may do so soon.
func (c *cli) unready(shown map[string]string, listed []admin.Delivery, apps []string) (moving bool, late []string) {
	of := make(map[string][]admin.Delivery)
	for _, d := range listed {
		of[d.App] = append(of[d.App], d)
	}
	for _, app := range apps {
		deliveries := of[app]
		for _, d := range deliveries {
			if d.Leaving && held(d, deliveries) {
				continue
			}
			moving = moving || d.State == "pending" || d.State == "rolling"
			if d.State != "ready" {
				late = append(late, deliveryLine(d))
			}
			c.progress(shown, d)
		}
	}
	return moving, late
}

// held reports whether a target cannot leave a runtime yet, because the one to which it moves fails to serve it.
func held(leaving admin.Delivery, deliveries []admin.Delivery) bool {
	return slices.ContainsFunc(deliveries, func(d admin.Delivery) bool {
		return !d.Leaving && !d.Removing && d.Kind == leaving.Kind && d.Name == leaving.Name &&
			(d.State == "failed" || d.State == "degraded")
	})
}

// progress writes the state of a target if it has changed.
func (c *cli) progress(shown map[string]string, d admin.Delivery) {
	name := d.App + " " + d.Kind + "/" + d.Name
	if d.Removing {
		name += " at " + d.Runtime + " (removing)"
	}
	ink := yellow
	switch d.State {
	case "ready":
		ink = green
	case "failed", "degraded":
		ink = red
	}
	now := c.paint(c.stderr, ink, d.State) +
		fmt.Sprintf(", generation %d wanted, %d accepted, %d serving", d.Generation, d.Accepted, d.Serving)
	if d.Instances > 0 {
		now += fmt.Sprintf(", instances: %d", d.Instances)
	}
	if d.Error != "" {
		now += ": " + harmless(d.Error)
	}
	if shown[name] != now {
		shown[name] = now
		c.say("  %s %s", harmless(name), now)
	}
}
