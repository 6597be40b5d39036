package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/admin"
)

// reloading reads the configuration again: when its file or one that it names changes, on SIGHUP, and when an operator
// asks (warifu reload). What has changed counts at once, but for what cannot before a restart, which is named. A
// configuration with faults changes nothing. On SIGHUP and when asked, connectors are made anew even if nothing has
// changed in what is read here.
//
// A change of a file is nobody's word that it is meant: an editor writes in several steps, a disk is full, a template
// comes out empty. So what is noticed by watching counts only once the files have been as they are for a while
// ([settling]), not if the file is the beginning of what it was and still the same file (somebody writes it), and not
// if it would drop most of the people, connectors or directories of manifests ([config.Settings.Drops]): what ends with
// them does not come back. An operator who means it says so (warifu reload, SIGHUP), or starts the server anew.
type reloading struct {
	*instance
	file string
	read func() (*config.Settings, error)
	// asked is where SIGHUP arrives.
	asked <-chan os.Signal

	mu sync.Mutex // one at a time; guards the rest
	// told are warnings of which the log has already, and waits the keys that wait for a restart, of which it has as well.
	told  map[string]bool
	waits []string
	// before is the file as it was when it was last taken.
	before original
	// taken is when something of it last counted, and took what that was.
	taken time.Time
	took  []string
}

// original is a file, and what stood in it.
type original struct {
	info os.FileInfo // nil if it could not be read
	text []byte
}

func readOriginal(file string) (o original) {
	text, err := os.ReadFile(file)
	if err != nil {
		return original{}
	}
	if o.info, err = os.Stat(file); err != nil {
		return original{}
	}
	o.text = text
	return o
}

// begins reports whether this is the same file as another one, with only the beginning of what stands there: as it is
// while somebody writes it. One that was put in its place is whole.
func (o original) begins(whole original) bool {
	return o.info != nil && whole.info != nil && os.SameFile(o.info, whole.info) && len(o.text) < len(whole.text) &&
		bytes.HasPrefix(whole.text, o.text)
}

// readLast is what has become of the configuration that was read last.
type readLast struct {
	refused string    // why it is not in use; "" if it is
	since   time.Time // of the refusal
	unasked bool      // it is refused only because nobody has asked for it
	waits   []string  // keys that wait for a restart
}

// unaskedError is that a change is not taken over because nobody has asked for it.
type unaskedError struct{ what string }

func (e *unaskedError) Error() string {
	return e.what + ": that may be a mistake, so none of it takes effect; if it is intended, run warifu reload"
}

// settling is how long files have to be as they are before a change of them counts.
const settling = time.Second

// reason is why a configuration is read again.
type reason struct {
	// anew: connectors that have not changed are made anew as well.
	anew bool
	// watched: nobody has asked for it.
	watched bool
	// tell has the log say so if nothing has changed.
	tell bool
}

// wanted is that somebody has asked for it.
var wanted = reason{anew: true, tell: true}

// run goes on until ctx ends.
func (r *reloading) run(ctx context.Context) {
	r.mu.Lock()
	r.told, r.before = make(map[string]bool), readOriginal(r.file)
	for _, w := range r.cfg.Warnings {
		r.told[w.String()] = true
	}
	r.mu.Unlock()
	r.reloader.Store(r)
	changed := make(chan bool, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watch := func() (files []string, stop context.CancelFunc) {
		files = append([]string{r.file}, r.inUse.Load().Files()...)
		ctx, stop := context.WithCancel(ctx)
		watching.Go(func() { r.watch(ctx, files, changed) })
		return files, stop
	}
	files, stop := watch()
	defer func() { stop() }()
	for {
		why := wanted
		select {
		case <-ctx.Done():
			return
		case <-r.asked:
		case really := <-changed:
			why = reason{watched: true, tell: really}
		}
		_, _ = r.again(ctx, why) // the log has it
		if !slices.Equal(files[1:], r.inUse.Load().Files()) {
			stop()
			files, stop = watch()
		}
	}
}

// watch says when one of the files has changed and settled (true), and once at first (false): something may have
// happened since they were read.
func (r *reloading) watch(ctx context.Context, files []string, changed chan<- bool) {
	watch, err := manifests.NewWatch(files)
	if err != nil {
		r.log.WarnContext(ctx,
			"the configuration file cannot be watched: after a change, send SIGHUP or run warifu reload", "error", err)
		return
	}
	pending := false
	watch.Run(ctx, func(_ context.Context, really bool) time.Duration {
		if really { // looked at again after that, or after the next change
			pending = true
			return settling
		}
		if info, err := os.Stat(r.file); err == nil {
			if age := time.Since(info.ModTime()); age >= 0 && age < settling { // written to since
				return settling - age
			}
		}
		select {
		case changed <- pending:
		default: // it is going to be read anyway
		}
		pending = false
		return 0
	})
}

// reload is for the admin API.
func (i *instance) reload(ctx context.Context) (admin.Reloaded, error) {
	r := i.reloader.Load()
	if r == nil {
		return admin.Reloaded{}, admin.NoConfiguration()
	}
	done, err := r.again(context.WithoutCancel(ctx), wanted) // whoever hangs up does not leave it half done
	var faults strictyaml.Faults
	switch {
	case errors.As(err, &faults):
		return done, admin.InvalidConfiguration("The configuration has faults", "Correct them and try again.",
			faultsOf(manifests.Faults(faults)))
	case err != nil:
		return done, admin.InvalidConfiguration("The configuration cannot be put into effect: "+err.Error(),
			"Correct it and try again.", nil)
	}
	return done, nil
}

// again reads the configuration and takes over what has changed.
func (r *reloading) again(ctx context.Context, why reason) (admin.Reloaded, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done, took, err := r.take(ctx, why)
	last, is := r.last.Load(), readLast{waits: r.waits}
	if err != nil {
		var unasked *unaskedError
		is.refused, is.since = err.Error(), time.Now()
		if is.unasked = errors.As(err, &unasked); is.unasked {
			is.refused = unasked.what + ", which may be a mistake"
		}
		if last != nil && last.refused == is.refused { // or a change that is refused would count again on SIGHUP
			is.since = last.since
		} else {
			r.metrics.ReloadRefused()
		}
	}
	if r.metrics.SetReloadRefused(err != nil); took {
		r.metrics.Reloaded(time.Now())
	}
	if r.last.Store(&is); is.refused != "" && (last == nil || last.refused != is.refused) ||
		is.refused == "" && last != nil && last.refused != "" {
		_ = r.announce(ctx) // as in takeOver
	}
	return done, err
}

// take is again without counting, and reports whether a configuration was taken into use.
func (r *reloading) take(ctx context.Context, why reason) (_ admin.Reloaded, took bool, _ error) {
	var none admin.Reloaded
	text := readOriginal(r.file)
	if why.watched && text.begins(r.before) {
		err := &unaskedError{fmt.Sprintf("%s is the beginning of what it was (%d bytes of %d), as if it were "+
			"still being written",
			r.file, len(text.text), len(r.before.text))}
		r.log.ErrorContext(ctx, unaskedLog, "why", err.Error())
		return none, false, err
	}
	next, err := r.read()
	var faults strictyaml.Faults
	switch {
	case errors.As(err, &faults):
		for _, f := range faults {
			r.log.ErrorContext(ctx, "the configuration was read again and is faulty; the previous one stays in use",
				"fault", f.String())
		}
		return none, false, err
	case err != nil:
		r.log.ErrorContext(ctx, "the configuration cannot be read again; the previous one stays in use", "error", err)
		return none, false, err
	}
	for _, w := range next.Warnings {
		if !r.told[w.String()] {
			r.told[w.String()] = true
			r.log.WarnContext(ctx, "configuration", "fault", w.String())
		}
	}
	changes := next.Since(r.inUse.Load(), r.cfg)
	if changes.Stays() {
		r.log.ErrorContext(ctx, "the configuration was read again, and changes keys that need a restart: none of it "+
			"takes effect until then", "restart_for", changes.RestartFor())
		return none, false, errors.New(strings.Join(changes.RestartFor(), " and ") +
			" cannot change while the server runs, and no other change takes effect either: restart the server, " +
			"or undo that change")
	}
	if drops := next.Drops(r.inUse.Load()); why.watched && len(drops) > 0 {
		err := &unaskedError{"it would end " + strings.Join(drops, ", ") + ", with what they have"}
		r.log.ErrorContext(ctx, unaskedLog, "why", err.Error())
		return none, false, err
	}
	before := r.before
	r.before = text
	if changes.Any() || why.anew {
		ready, err := r.prepare(ctx, next, changes, why.anew)
		if err != nil {
			r.log.ErrorContext(ctx, "the configuration that was read again cannot be put into effect; "+
				"the previous one stays in use", "error", err)
			r.before = before
			return none, false, err
		}
		r.takeOver(ctx, ready)
		took = true
	}
	done := reloaded(changes, next.Warnings)
	if changes.Any() {
		r.taken, r.took = time.Now().UTC(), done.What()
	} else {
		done.Since, done.Before = r.taken, r.took
	}
	if why.tell || changes.Any() || !slices.Equal(r.waits, changes.RestartFor()) {
		r.waits = changes.RestartFor()
		r.log.InfoContext(ctx, "the configuration was read again", changes.Attrs()...)
	}
	return done, took, nil
}

const unaskedLog = "the configuration has changed in a way that may be a mistake, so it waits for warifu reload; " +
	"the previous one stays in use"

func reloaded(c config.Changes, warnings strictyaml.Faults) admin.Reloaded {
	done := admin.Reloaded{
		Changed: append(append([]string{}, c.Keys...), c.Files...), Restart: []admin.Waiting{},
		Connectors: admin.Connectors{Added: c.Added, Changed: c.Changed, Removed: c.Removed, Reordered: c.Order},
		Warnings:   append([]admin.Fault{}, faultsOf(manifests.Faults(warnings))...),
	}
	for _, w := range c.Restart {
		done.Restart = append(done.Restart, admin.Waiting(w))
	}
	return done
}

// reload is the command that asks a running server to read its configuration again.
func (c *cli) reload() *cobra.Command {
	var format string
	command := &cobra.Command{
		Use: "reload", Short: "Have a running server take over its configuration",
		Long: `reload has a running server read its configuration again, and all files that it names, and says what has
taken effect, and what needs a restart, and why. A faulty one is refused as a whole: the server goes on
as before, and the exit code is 3. The server also does this by itself on SIGHUP, and a second after a file
has changed. Such a change must not look like a mistake: with half of the file gone, or most of the people,
connectors or directories of manifests, it counts only after a reload.`,
		Example: "  warifu reload\n  warifu reload -o json",
		Args:    operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			var done admin.Reloaded
			if err := api.do(cmd.Context(), http.MethodPost, "/v1/reload", nil, &done); err != nil {
				return err
			}
			if format != "table" {
				return encode(c.stdout, format, done)
			}
			c.sayReloaded(done)
			return nil
		},
	}
	outputFlag(command, &format, "table", "json", "yaml")
	return command
}

func (c *cli) sayReloaded(done admin.Reloaded) {
	for _, w := range done.Warnings {
		c.say("%s %s", c.paint(c.stderr, yellow, "warning"), harmless(faultOf(w).String()))
	}
	what := done.What()
	for _, line := range what {
		c.say("%s", harmless(line))
	}
	switch {
	case len(what) > 0:
	case done.Since.IsZero():
		c.say("nothing has changed since the server started")
	default:
		c.say("nothing has changed since %s, when this was taken over: %s", done.Since.Local().Format(time.TimeOnly),
			harmless(strings.Join(done.Before, "; ")))
	}
	for _, w := range done.Restart {
		c.say("%s %s waits for a restart: %s", c.paint(c.stderr, yellow, "!"), w.Key, w.Why)
	}
}
