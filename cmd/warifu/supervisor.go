package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// tellSupervisor tells systemd, if it wants to know (sd_notify(3)), that this server serves, and that it has begun to
// end. If the unit has a watchdog, it is told again and again that the server answers: over the admin socket, with all
// that a request takes but storage, because a server whose etcd is away is not mended by another start.
//
// A reload is asked for by SIGHUP and is not told of: systemd would wait for its end, and a faulty configuration, which
// changes nothing, has none.
func (i *instance) tellSupervisor(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		i.log.WarnContext(ctx, "the supervisor's watchdog gets no notifications: WATCHDOG_USEC or WATCHDOG_PID "+
			"is invalid", "error", err)
	}
	if err := i.answers(ctx, healthTime); err != nil {
		i.log.ErrorContext(ctx, "readiness is not reported to the supervisor, because this server does not answer",
			"error", err)
		return
	}
	i.tell(ctx, daemon.SdNotifyReady+"\nSTATUS=Serves "+i.cfg.Issuer)
	leaving := i.leaving
	var again <-chan time.Time
	if interval > 0 {
		ticker := time.NewTicker(interval / 2)
		defer ticker.Stop()
		again = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-leaving:
			i.tell(ctx, daemon.SdNotifyStopping+"\nSTATUS=Shutting down")
			leaving = nil // it is closed: told once
		case <-again:
			if err := i.answers(ctx, interval/2); err == nil {
				i.tell(ctx, daemon.SdNotifyWatchdog)
			} else if ctx.Err() == nil {
				i.log.ErrorContext(ctx, "the watchdog notification is withheld, because this server does not answer",
					"error", err)
			}
		}
	}
}

func (i *instance) tell(ctx context.Context, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		i.log.WarnContext(ctx, "this server's state cannot be reported to the supervisor (NOTIFY_SOCKET)", "error", err)
	}
}

// answers asks this server who it is, as warifu healthcheck does.
func (i *instance) answers(ctx context.Context, within time.Duration) error {
	address, err := socketAddress(i.cfg.Socket)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", address)
		}}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://warifu/v1/info", nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the admin API answers %s", resp.Status)
	}
	return nil
}
