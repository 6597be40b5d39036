package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Who waits for env goes on when the server is another one, and is told if none comes in time.
func TestDeliveriesAreWaitedForThroughARestart(t *testing.T) {
	t.Parallel()
	const (
		pending = `[{"app": "shop", "kind": "worker", "name": "web", "state": "pending"}]`
		ready   = `[{"app": "shop", "kind": "worker", "name": "web", "state": "ready"}]`
	)
	var asked atomic.Int64
	c, said, _ := adminAt(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n := asked.Add(1); n {
		case 2:
			panic(http.ErrAbortHandler) // it is killed
		case 3:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"status": 503, "code": "unavailable"}`)
		case 4:
			_, _ = io.WriteString(w, ready)
		default:
			_, _ = io.WriteString(w, pending)
		}
	})
	if err := c.delivered(t.Context(), waiting{wait: true, timeout: time.Minute}, "applied", "shop"); err != nil {
		t.Fatal(err)
	}
	if strings.Count(said.String(), "waiting for the next one") != 1 || !strings.Contains(said.String(), "ready") {
		t.Errorf("it says %s", said)
	}

	c, _, _ = adminAt(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	err := c.delivered(t.Context(), waiting{wait: true, timeout: time.Millisecond}, "applied", "shop")
	if err == nil || !strings.Contains(err.Error(), "not every target is known to have its env: ask the server at") {
		t.Errorf("without a server: %v", err)
	}

	interrupted, stop := context.WithCancel(t.Context())
	c, _, _ = adminAt(t, func(w http.ResponseWriter, _ *http.Request) {
		stop()
		_, _ = io.WriteString(w, pending)
	})
	err = c.delivered(interrupted, waiting{wait: true, timeout: time.Minute}, "applied", "shop")
	if err == nil || !strings.Contains(err.Error(), "applied, but interrupted") {
		t.Errorf("interrupted: %v", err)
	}
}
