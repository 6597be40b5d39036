package runtimecontainers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"
)

const (
	// probeEvery is how often a starting container is looked at.
	probeEvery = 50 * time.Millisecond
	// probeTry bounds one connection or request.
	probeTry = 2 * time.Second
)

// prober sends the requests of probes: no proxy, no connection kept, no redirect
// followed.
var prober = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil,
		DialContext: (&net.Dialer{Timeout: probeTry}).DialContext},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       probeTry,
}

var errStarting = errors.New("it is still starting")

// probe waits until a started container may take over. One that ends, even when
// the engine starts it again, has failed.
func (r *containerRuntime) probe(ctx context.Context, id string) error {
	limited, cancel := context.WithTimeout(ctx, time.Duration(r.settings.ProbeTimeout))
	defer cancel()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	begun, last := time.Now(), errStarting
	for {
		c, err := r.engine.inspect(limited, id)
		switch {
		case limited.Err() != nil:
		case err != nil:
			last = err // an engine that is away for a moment says nothing about the container
		case c == nil:
			return &fault{message: "the new container was removed by somebody else", remedy: "it is retried automatically",
				retryable: true}
		case !running(c) || c.RestartCount > 0:
			return &fault{message: fmt.Sprintf("the new container %s", condition(c)), retryable: true,
				remedy: "the old one keeps serving; see what the app wants of the variables of this generation"}
		default:
			if last = r.passes(limited, c, time.Since(begun)); last == nil {
				return nil
			}
			var final *fault
			if errors.As(last, &final) {
				return final
			}
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &fault{err: last, retryable: true,
				message: fmt.Sprintf("the new container was not ready within %s", time.Duration(r.settings.ProbeTimeout)),
				remedy: "the old one keeps serving; see the container's label " + labelProbe +
					" (that of an image does not count) or its health check, " +
					"or give it more time with probeTimeout"}
		}
	}
}

// passes asks a running container once. A fault is final; after any other error it
// is asked again.
func (r *containerRuntime) passes(ctx context.Context, c *container.InspectResponse, age time.Duration) error {
	wants, labelled := c.Config.Labels[labelProbe]
	if !labelled {
		if health := c.State.Health; health != nil && health.Status != "" && health.Status != container.NoHealthcheck {
			return healthy(health.Status)
		}
		wants = r.settings.Probe
	}
	p, err := parseProbe(wants)
	if err != nil {
		return &fault{message: "label " + labelProbe, err: err,
			remedy: "recreate the container with a label that can be read, then apply again"}
	}
	switch p.scheme {
	case probeSteady:
		if age < time.Duration(r.settings.Steady) {
			return errStarting
		}
		return nil
	case "tcp":
		return connects(ctx, p.address(ownAddress(c)))
	default:
		return answers(ctx, "http://"+p.address(ownAddress(c))+p.path)
	}
}

func healthy(status container.HealthStatus) error {
	switch status {
	case container.Healthy:
		return nil
	case container.Unhealthy:
		return &fault{message: "the new container is unhealthy by its own check", retryable: true,
			remedy: "the old one keeps serving; see what its health check says"}
	}
	return errStarting
}

func connects(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: probeTry}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := prober.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("it answers with status %d", resp.StatusCode)
	}
	return nil
}

// ownAddress is where a container is reached from this machine.
func ownAddress(c *container.InspectResponse) string {
	if c.NetworkSettings != nil {
		for _, endpoint := range c.NetworkSettings.Networks {
			if endpoint == nil {
				continue
			}
			if endpoint.IPAddress.IsValid() {
				return endpoint.IPAddress.String()
			}
			if endpoint.GlobalIPv6Address.IsValid() {
				return endpoint.GlobalIPv6Address.String()
			}
		}
	}
	return "127.0.0.1" // the host's network
}
