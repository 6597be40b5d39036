package server_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// newSecret gives p's client one more secret, and p seen by an app that has it. With alone the others end.
func (p *idp) newSecret(alone bool) *idp {
	p.t.Helper()
	record, value := p.store.NewClientSecret(p.client.ID)
	p.update(p.client.App, func(c *storage.Client) {
		if alone {
			c.Secrets = nil
		}
		c.Secrets = append(c.Secrets[:len(c.Secrets):len(c.Secrets)], record)
	})
	return p.as(p.client, value)
}

// retire ends all secrets but the newest.
func (p *idp) retire() {
	p.t.Helper()
	p.update(p.client.App, func(c *storage.Client) { c.Secrets = c.Secrets[len(c.Secrets)-1:] })
}

// Both secrets work while one takes the other's place, and what was granted with one goes on with the other.
func TestRotationThroughTheTokenEndpoint(t *testing.T) {
	old := newIDP(t)
	first := old.tokens()
	next := old.newSecret(false)
	refreshed := next.refresh(first.text("refresh_token"))
	again := old.refresh(refreshed.text("refresh_token"))
	for name, got := range map[string]reply{"refresh with the new one": refreshed, "with the old one": again,
		"code with the new one": next.tokens(), "with the old": old.tokens()} {
		if got.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
	old.retire()
	old.refresh(again.text("refresh_token")).wants(t, "the old one, retired", http.StatusUnauthorized, "invalid_client")
	if got := next.refresh(again.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("the grant did not survive: %d %s", got.status, got.raw)
	}
	if !next.active(next.tokens().text("access_token")) {
		t.Error("introspection with the new secret")
	}
}

// A rotation costs requests nothing: what they ask of etcd stays, and uses are written later, once.
func TestWhatRotationCostsRequests(t *testing.T) {
	old := newIDP(t)
	old.clock.stop()
	token := old.tokens()
	next := old.newSecret(false)
	code, one := old.code(), storagetest.Counts{Proposals: 1}
	for name, do := range map[string]func() reply{
		"exchange": func() reply { return next.exchange(code) },
		"refresh":  func() reply { token = next.refresh(token.text("refresh_token")); return token },
	} {
		var got reply
		if counts := old.etcd.Count(func() { got = do() }); counts != one || got.status != http.StatusOK {
			t.Errorf("%s with the new secret: %+v, %d", name, counts, got.status)
		}
	}
	together(50, func(int) { next.call("/oauth/introspect", url.Values{"token": {"x"}}) })
	flush := func() storagetest.Counts {
		return old.etcd.Count(func() {
			if err := old.store.FlushUses(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	if got := flush(); got.Proposals != 2 {
		t.Errorf("two secrets were used: %+v", got)
	}
	next.refresh(token.text("refresh_token"))
	if got := flush(); got.Proposals != 0 {
		t.Errorf("and once more: %+v", got)
	}
	seen, err := old.store.Secrets(t.Context(), old.client.ID)
	if err != nil || len(seen.Uses) != 2 {
		t.Errorf("%+v, %v", seen, err)
	}
	// A wrong secret is no use of any.
	old.exchange("x", "client_id", old.client.ID, "client_secret", "wfs_"+strings.Repeat("A", 43)).wants(t, "wrong",
		http.StatusUnauthorized, "invalid_client")
	if got := flush(); got != (storagetest.Counts{}) {
		t.Errorf("a wrong secret: %+v", got)
	}
}

// A replica that has not heard of a rotation takes the new secret at once, and lets a grant do nothing for a secret
// that ended.
func TestReplicaThatMissedARotation(t *testing.T) {
	p := newIDP(t)
	token := p.tokens()
	behind := p.replica(p.lagging())
	next := p.newSecret(false)
	q := behind.as(next.client, next.secret)
	var got reply
	if counts := p.etcd.Count(func() { got = q.refresh(token.text("refresh_token")) }); got.status != http.StatusOK ||
		counts.Reads != 1 {
		t.Fatalf("the new secret: %d %s, %+v", got.status, got.raw, counts)
	}
	behind = p.replica(p.lagging())
	last := p.newSecret(true)
	behind.as(next.client, next.secret).refresh(got.text("refresh_token")).wants(t, "compromised", http.StatusUnauthorized,
		"invalid_client")
	if got := behind.as(last.client, last.secret).refresh(got.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("the refusal cost the grant: %d %s", got.status, got.raw)
	}
}

// A fault of storage is no verdict about a secret.
func TestFaultWhileASecretIsLookedUp(t *testing.T) {
	p := newIDP(t)
	token := p.tokens()
	behind := p.replica(p.lagging())
	next := p.newSecret(false)
	q := behind.as(next.client, next.secret)
	p.etcd.Inject(func(bool, bool) error { return errors.New("etcd is away") })
	q.refresh(token.text("refresh_token")).wants(t, "while etcd is away", http.StatusServiceUnavailable,
		"temporarily_unavailable")
	p.etcd.Inject(nil)
	if got := q.refresh(token.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", got.status, got.raw)
	}
}

// Wrong secrets that look right are looked up at a bounded rate; the right one never is.
func TestFloodOfWrongSecrets(t *testing.T) {
	p := newIDP(t)
	token := p.tokens()
	var wrong, busy atomic.Int64
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"wfr_x"}, "client_id": {p.client.ID},
		"client_secret": {"wfs_" + strings.Repeat("B", 43)}}
	counts := p.etcd.Count(func() {
		together(16, func(int) {
			for range 50 {
				switch p.machine("/oauth/token", form).status {
				case http.StatusUnauthorized:
					wrong.Add(1)
				case http.StatusServiceUnavailable:
					busy.Add(1)
				}
			}
		})
	})
	if wrong.Load()+busy.Load() != 800 || busy.Load() == 0 || counts.Reads != wrong.Load() || counts.Proposals != 0 {
		t.Errorf("%d wrong, %d busy, %+v", wrong.Load(), busy.Load(), counts)
	}
	if got := p.refresh(token.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("the right one: %d", got.status)
	}
}

func TestServerWritesUses(t *testing.T) {
	p := newIDP(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.handler.(*server.Server).Run(ctx) }()
	p.tokens()
	for used := false; !used; time.Sleep(2 * time.Millisecond) {
		seen, err := p.store.Secrets(t.Context(), p.client.ID)
		if err != nil {
			t.Fatal(err)
		}
		used = len(seen.Uses) == 1
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
