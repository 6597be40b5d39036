package runtimecontainers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/warifu/warifu/plugins"
)

const (
	// callTimeout bounds what the engine does at once, stopTimeout what it does
	// beyond the time that a container is given to end by itself.
	callTimeout = 30 * time.Second
	stopTimeout = 15 * time.Second
	// defaultGrace is what engines give a container that does not say.
	defaultGrace = 10 * time.Second
	// atOnce is how many containers are created and started at the same time, so
	// that a server that pushes to everybody does not smother the machine.
	atOnce = 4
	// tries and pause are for questions that fail inside the engine.
	tries = 5
	pause = 100 * time.Millisecond
)

// engine is the Docker Engine API as far as it is used here, with a time limit on
// each call. It is safe for several goroutines.
type engine struct {
	api  *client.Client
	busy chan struct{} // holds atOnce

	images sync.Map // id to map[string]string, the labels
}

// dial makes a client; nothing is connected yet. The version of the API is agreed
// on with the first call.
func dial(s settings) (*engine, error) {
	opts := []client.Opt{client.WithHost(s.Host), client.WithUserAgent("warifu")}
	if s.TLS != nil {
		opts = append(opts, client.WithTLSClientConfig(s.TLS.CA, s.TLS.Cert, s.TLS.Key))
	}
	api, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", s.Host, err)
	}
	return &engine{api: api, busy: make(chan struct{}, atOnce)}, nil
}

// fault is a replacement that failed: what a person is told about it.
type fault struct {
	message   string
	remedy    string
	retryable bool
	err       error // may be nil
}

func (f *fault) Error() string {
	if f.err == nil {
		return f.message
	}
	return f.message + ": " + f.err.Error()
}

func (f *fault) Unwrap() error { return f.err }

// unanswered is a call that the engine refused or did not answer.
func unanswered(op string, err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", op, err)
	}
	f := &fault{message: op, err: err, retryable: true,
		remedy: "check that the engine works; this is retried automatically"}
	if cerrdefs.IsInvalidArgument(err) {
		f.retryable, f.remedy = false, "the engine refuses what it said about the container itself; recreate the container "+
			"by hand, then apply again"
	}
	return f
}

// unasked is a question without an answer: the engine's fault, unless nobody waits
// for the answer any more.
func unasked(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	return fmt.Errorf("%w: %s: %w", plugins.ErrUnavailable, op, err)
}

// list gives the containers that have these labels, stopped ones too. The engine
// filters, and is not trusted to.
func (e *engine) list(caller context.Context, labels ...string) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	opts := client.ContainerListOptions{All: true}
	if len(labels) > 0 {
		opts.Filters = make(client.Filters).Add("label", labels...)
	}
	result, err := again(ctx, func() (client.ContainerListResult, error) { return e.api.ContainerList(ctx, opts) })
	if err != nil {
		return nil, unasked(caller, "list containers", err)
	}
	return slices.DeleteFunc(result.Items, func(c container.Summary) bool { return !hasLabels(c.Labels, labels) }), nil
}

// hasLabels reports whether all wanted labels, "key" or "key=value", are there.
func hasLabels(has map[string]string, wanted []string) bool {
	for _, label := range wanted {
		key, value, valued := strings.Cut(label, "=")
		if got, there := has[key]; !there || valued && got != value {
			return false
		}
	}
	return true
}

// inspect gives nil for a container that is gone. Its labels are those that it was given itself: see ownLabels.
func (e *engine) inspect(caller context.Context, id string) (*container.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	result, err := again(ctx, func() (client.ContainerInspectResult, error) {
		return e.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	})
	if cerrdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, unasked(caller, "inspect container", err)
	}
	c := result.Container
	if c.Config == nil || c.HostConfig == nil || c.State == nil {
		return nil, fmt.Errorf("%w: inspect container %s: the engine's answer is incomplete", plugins.ErrUnavailable,
			short(id))
	}
	inherited, err := e.imageLabels(ctx, &c)
	if err != nil {
		return nil, unasked(caller, "inspect image of container "+short(id), err)
	}
	c.Config.Labels = ownLabels(c.Config.Labels, inherited)
	return &c, nil
}

// imageLabels gives the labels of the image that a container was made of, and remembers them: an image never changes.
// An image that is gone tells nothing, so every label might be its own: then the container's are given.
func (e *engine) imageLabels(ctx context.Context, c *container.InspectResponse) (map[string]string, error) {
	if !mayMatter(c.Config.Labels) {
		return nil, nil
	}
	if labels, known := e.images.Load(c.Image); known {
		return labels.(map[string]string), nil
	}
	// By its name as well: some engines know an image that has lost its id's place by that alone.
	for _, name := range []string{c.Image, c.Config.Image} {
		result, err := e.api.ImageInspect(ctx, name)
		if cerrdefs.IsNotFound(err) || err == nil && result.ID != c.Image {
			continue
		}
		if err != nil {
			return nil, err
		}
		var labels map[string]string
		if result.Config != nil {
			labels = result.Config.Labels
		}
		e.images.Store(c.Image, labels)
		return labels, nil
	}
	return c.Config.Labels, nil
}

// again repeats a question that the engine has failed at: podman does that while a
// container of the answer is going away.
func again[T any](ctx context.Context, question func() (T, error)) (answer T, err error) {
	for try := 0; ; try++ {
		answer, err = question()
		if !cerrdefs.IsInternal(err) || try == tries {
			return answer, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// imageConfig gives the id that a name stands for now and the image's entrypoint;
// nothing for a name that stands for none.
func (e *engine) imageConfig(ctx context.Context, name string) (id string, entrypoint []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := e.api.ImageInspect(ctx, name)
	if cerrdefs.IsNotFound(err) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, unanswered("inspect image "+name, err)
	}
	if result.Config != nil {
		entrypoint = result.Config.Entrypoint
	}
	return result.ID, entrypoint, nil
}

// create makes a container under the first of the names that is free, and joins it
// to its networks. It gives the id also when joining failed.
func (e *engine) create(ctx context.Context, b blueprint) (id, name string, err error) {
	if err := e.enter(ctx); err != nil {
		return "", "", err
	}
	defer e.leave()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, name = range b.names {
		var result client.ContainerCreateResult
		result, err = e.api.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name: name, Config: b.config, HostConfig: b.host, NetworkingConfig: b.first,
		})
		id = result.ID
		if !taken(err) {
			break
		}
	}
	if err != nil {
		if cerrdefs.IsNotFound(err) {
			return "", name, &fault{message: "create " + name, err: err,
				remedy: "pull or build the image " + b.config.Image + " again, then apply again"}
		}
		return "", name, unanswered("create "+name, err)
	}
	for network, endpoint := range b.others {
		as := client.NetworkConnectOptions{Container: id, EndpointConfig: endpoint}
		if _, err := e.api.NetworkConnect(ctx, network, as); err != nil {
			return id, name, unanswered("join "+name+" to network "+network, err)
		}
	}
	return id, name, nil
}

// taken reports whether a name was refused because it is another's. Podman calls
// that an internal error when only its storage knows the other.
func taken(err error) bool {
	return cerrdefs.IsConflict(err) || cerrdefs.IsInternal(err) && strings.Contains(err.Error(), "name is already in use")
}

func (e *engine) start(ctx context.Context, id, name string) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := e.api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return unanswered("start "+name, err)
	}
	return nil
}

// stop asks a container to end and waits for it, as long as it was made to be
// waited for. One that is gone has ended.
func (e *engine) stop(ctx context.Context, c *container.InspectResponse) error {
	grace := defaultGrace
	if c.Config.StopTimeout != nil {
		grace = time.Duration(max(*c.Config.StopTimeout, 0)) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, grace+stopTimeout)
	defer cancel()
	if _, err := e.api.ContainerStop(ctx, c.ID, client.ContainerStopOptions{}); err != nil && !cerrdefs.IsNotFound(err) {
		return unanswered("stop "+nameOf(c), err)
	}
	return nil
}

// remove takes a container away; its volumes stay. One that is gone, or going
// because it was made with --rm, is done.
func (e *engine) remove(ctx context.Context, c *container.InspectResponse) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := e.api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
	if err != nil && !cerrdefs.IsNotFound(err) && (!c.HostConfig.AutoRemove || !cerrdefs.IsConflict(err)) {
		return unanswered("remove "+nameOf(c), err)
	}
	return nil
}

func (e *engine) enter(ctx context.Context) error {
	select {
	case e.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *engine) leave() { <-e.busy }

// nameOf gives a container's name as people write it.
func nameOf(c *container.InspectResponse) string { return strings.TrimPrefix(c.Name, "/") }

// short is an id as engines show it.
func short(id string) string { return id[:min(len(id), 12)] }

// blueprint is a container to be made.
type blueprint struct {
	names  []string // to be tried in this order
	base   string   // the name without our addition
	config *container.Config
	host   *container.HostConfig
	first  *network.NetworkingConfig            // the network to be created in, and
	others map[string]*network.EndpointSettings // those to join then: engines before API 1.44 take one at creation
}
