package runtimecontainers

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
)

// labelSwarmTask is on containers that a Swarm manager makes again by itself.
const labelSwarmTask = "com.docker.swarm.task.id"

// replace puts a container with the wish's variables in the place of one. On any
// error the old one is there and, if it ran, runs; a next one that could not be
// removed is found by the next push.
//
// A container that takes variables over is started and has to pass. One that only
// loses them runs if the old one did, and stays also when it does not pass: it may
// not work without them, and they are not to come back.
func (r *containerRuntime) replace(ctx context.Context, old *container.InspectResponse, w *wish,
	accepted func()) error {
	side := overlaps(old) || !alive(old)
	if err := r.refuse(ctx, old, side); err != nil {
		return err
	}
	img := image{id: old.Image}
	var err error
	if img.named, img.entrypoint, err = r.engine.imageConfig(ctx, old.Config.Image); err != nil {
		return err
	}
	b := draw(old, img, w, r.key)
	id, name, err := r.engine.create(ctx, b)
	next := &container.InspectResponse{ID: id, Name: name, Config: b.config, HostConfig: b.host}
	if err == nil {
		accepted()
	}
	stopped := err == nil && !side
	if stopped {
		err = r.engine.stop(ctx, old)
	}
	if err == nil && (w != nil || alive(old)) {
		if err = r.engine.start(ctx, id, name); err == nil {
			err = r.probe(ctx, id)
			if w == nil && ctx.Err() == nil {
				err = nil
			}
		}
	}
	if err != nil {
		return r.back(ctx, old, next, stopped, err)
	}
	return r.retire(ctx, old)
}

// refuse says which containers cannot be replaced without harm.
func (r *containerRuntime) refuse(ctx context.Context, old *container.InspectResponse, side bool) error {
	byHand := "give it the variables by hand (autoEnv: false shows them), or run it otherwise; then apply again"
	switch {
	case old.Config.Labels[labelSwarmTask] != "":
		return &fault{remedy: byHand,
			message: fmt.Sprintf("container %s belongs to a Swarm service, which would undo the change", nameOf(old))}
	case old.State.Paused:
		return &fault{message: fmt.Sprintf("container %s is paused", nameOf(old)), remedy: "unpause it", retryable: true}
	case !side && old.HostConfig.AutoRemove:
		return &fault{message: fmt.Sprintf("container %s was made with --rm and has a fixed port or address: it cannot be "+
			"kept while the next one is tried", nameOf(old)),
			remedy: "recreate it without --rm, then apply again"}
	}
	all, err := r.engine.list(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.ID != old.ID && c.HostConfig.NetworkMode == "container:"+old.ID {
			return &fault{message: fmt.Sprintf("container %s uses the network of %s and would lose it",
				short(c.ID), nameOf(old)),
				remedy: "let " + nameOf(old) + " use the other's network instead, then apply again"}
		}
	}
	return nil
}

// back undoes a replacement, also when nobody waits for it any more: the next one
// goes, and the old one runs again if it was stopped for it. It gives the cause,
// with what else went wrong.
func (r *containerRuntime) back(ctx context.Context, old, next *container.InspectResponse, stopped bool,
	cause error) error {
	ctx = context.WithoutCancel(ctx)
	if next.ID != "" {
		if err := r.discard(ctx, next); err != nil {
			cause = also(cause, err)
		}
	}
	if !stopped {
		return cause
	}
	if err := r.engine.start(ctx, old.ID, nameOf(old)); err != nil {
		return &fault{message: "the next container failed and the old one does not start again", err: errors.Join(cause, err),
			remedy: "start " + nameOf(old) + " by hand", retryable: true}
	}
	// Each try is an interruption: once is enough until somebody looks.
	var f *fault
	if errors.As(cause, &f) && f.retryable {
		once := *f
		once.retryable, once.remedy = false, f.remedy+"; each try stops the container for a moment, so apply again "+
			"when it is mended"
		return &once
	}
	return cause
}

// also adds what went wrong while undoing, and keeps what the cause says about
// trying again.
func also(cause, err error) error {
	var f *fault
	if !errors.As(cause, &f) {
		return errors.Join(cause, err)
	}
	both := *f
	both.err = errors.Join(f.err, err)
	return &both
}

// discard ends and removes a container that did not get to serve, or one that does
// no more; it may have requests in flight.
func (r *containerRuntime) discard(ctx context.Context, c *container.InspectResponse) error {
	if err := r.engine.stop(ctx, c); err != nil {
		return err
	}
	return r.engine.remove(ctx, c)
}

// retire takes the old container away. From here on the next one is the one, so
// nobody's giving up stops it.
func (r *containerRuntime) retire(ctx context.Context, old *container.InspectResponse) error {
	return r.discard(context.WithoutCancel(ctx), old)
}

// finish ends a replacement that was interrupted: by the next one if it runs and
// passes, else by the old one.
func (r *containerRuntime) finish(ctx context.Context, p pair) error {
	if alive(p.next) {
		err := r.probe(ctx, p.next.ID)
		if err == nil {
			return r.retire(ctx, p.old)
		}
		var failed *fault
		if !errors.As(err, &failed) {
			return err
		}
	}
	if err := r.discard(context.WithoutCancel(ctx), p.next); err != nil {
		return err
	}
	if alive(p.old) || neverRan(p.old) {
		return nil
	}
	return r.engine.start(context.WithoutCancel(ctx), p.old.ID, nameOf(p.old))
}

func neverRan(c *container.InspectResponse) bool { return c.State.Status == container.StateCreated }
