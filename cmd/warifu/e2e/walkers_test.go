//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// deployed is an app that warifu's runtimes gave its credentials, in a process or container of its own. The examples
// have the same pages and differ in what runs them.
type deployed struct {
	name, url string
	server    *process
	session   string // name of the cookie of somebody who is signed in
	login     string // of the user; password is theirs
	password  string
}

// signIn walks somebody through the app, from its first page to its greeting, and through one refresh.
func (d *deployed) signIn(b *tab, consented bool) {
	b.t.Helper()
	b.open(d.url + "/")
	b.press("#signin")
	b.signIn(d.login, d.password)
	if !consented {
		b.onConsent()
		b.press(allow)
	}
	d.greets(b, "0")
	b.press("#refresh")
	d.greets(b, "1")
}

func (d *deployed) greets(b *tab, refreshes string) {
	b.t.Helper()
	if !b.has("#user") {
		b.t.Fatalf("not signed in to %s: %s: %s", d.name, b.address(), b.text("body"))
	}
	if user, n := b.text("#user"), b.text("#refreshes"); !strings.HasPrefix(user, strings.TrimSuffix(d.login,
		"@example.com")) || n != refreshes {
		b.t.Fatalf("%s greets %q with %s refreshes, want %s with %s", d.name, user, n, d.login, refreshes)
	}
}

// cookie is a cookie of this tab, also one that scripts cannot read.
func (b *tab) cookie(name string) string {
	b.t.Helper()
	return run(b, func(ctx context.Context, target *chromedp.Target) (string, error) {
		got, err := cdp.Call(ctx, target, network.GetCookies, network.GetCookiesParams{})
		if err != nil {
			return "", err
		}
		for _, c := range got.Cookies {
			if c.Name == name {
				return c.Value, nil
			}
		}
		return "", fmt.Errorf("there is no cookie %s", name)
	})
}

// load is people who use an app all the time: some look at its first page, one who is signed in refreshes on and on.
type load struct {
	cancel           context.CancelFunc
	people           sync.WaitGroup
	asked, refreshed atomic.Int64

	mu     sync.Mutex // guards failed
	failed []string
}

// use puts an app under load. value is the session cookie of somebody who is signed in, whom nobody else may be any
// more.
func (d *deployed) use(ctx context.Context, value string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel}
	for range 2 {
		l.people.Go(func() {
			client := newPatron(false)
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				l.count(d.look(client))
			}
		})
	}
	l.people.Go(func() {
		client := newPatron(true)
		for ctx.Err() == nil {
			next, err := d.refresh(client, value)
			l.count(err)
			if err != nil {
				return // the refresh token may be used up
			}
			l.refreshed.Add(1)
			value = next
		}
	})
	return l
}

// newPatron is a client that does not follow redirects. One that comes anew each time has no connection that may be
// cut.
func newPatron(anew bool) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: anew},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (l *load) count(err error) {
	l.asked.Add(1)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failed = append(l.failed, err.Error())
	}
}

// goneOn waits until somebody has refreshed n more times, so that what happened meanwhile was under load.
func (l *load) goneOn(t testing.TB, n int64) {
	t.Helper()
	from := l.refreshed.Load()
	eventually(t, func() error {
		if done := l.refreshed.Load() - from; done < n && l.lost() == 0 {
			return fmt.Errorf("%d of %d refreshes happened", done, n)
		}
		return nil
	})
}

func (l *load) lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failed)
}

// end sends everybody home and gives what failed.
func (l *load) end() []string {
	l.cancel()
	l.people.Wait()
	return l.failed
}

// look wants the first page.
func (d *deployed) look(client *http.Client) error {
	resp, err := client.Get(d.url + "/")
	if err != nil {
		return err
	}
	return wants(resp, http.StatusOK, "Nobody is signed in")
}

// refresh trades the session for the next one, which must be good for a greeting.
func (d *deployed) refresh(client *http.Client, value string) (string, error) {
	resp, err := d.with(client, http.MethodPost, "/refresh", value)
	if err != nil {
		return "", err
	}
	if err := wants(resp, http.StatusSeeOther, ""); err != nil {
		return "", err
	}
	for _, c := range resp.Cookies() {
		if c.Name == d.session {
			resp, err := d.with(client, http.MethodGet, "/", c.Value)
			if err != nil {
				return "", err
			}
			return c.Value, wants(resp, http.StatusOK, "Hello")
		}
	}
	return "", errors.New("a refresh gives no session")
}

func (d *deployed) with(client *http.Client, method, path, session string) (*http.Response, error) {
	req, err := http.NewRequest(method, d.url+path, nil)
	if err != nil {
		return nil, err
	}
	req.AddCookie(&http.Cookie{Name: d.session, Value: session})
	return client.Do(req)
}

// wants reads an answer to its end.
func wants(resp *http.Response, status int, text string) error {
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != status || !strings.Contains(string(body), text) {
		return fmt.Errorf("%s %s: status %d: %s", resp.Request.Method, resp.Request.URL.Path, resp.StatusCode, body)
	}
	return nil
}

// credentials are what the app's client has now.
type credentials struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	Issuer       string `json:"issuer"`
}

func (d *deployed) credentials(t testing.TB) credentials {
	t.Helper()
	var c credentials
	if err := json.Unmarshal(d.warifu(t, "credentials", d.name), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// rotate replaces the client's secret and waits until every target serves the next one, and only that one is good. The
// app must be in use: a secret that nobody was seen to use does not end the one before.
func (d *deployed) rotate(t testing.TB) {
	t.Helper()
	before := d.credentials(t)
	d.warifu(t, "rotate", d.name, "--grace", "0s", "--wait")
	eventually(t, func() error {
		var secrets []struct {
			ID      string `json:"id"`
			State   string `json:"state"`
			Waiting string `json:"waiting"`
		}
		if err := json.Unmarshal(d.warifu(t, "get", "secrets", d.name, "-o", "json"), &secrets); err != nil {
			t.Fatal(err)
		}
		if len(secrets) != 1 {
			return fmt.Errorf("the rotation has not come to its end: %+v", secrets)
		}
		return nil
	})
	if after := d.credentials(t); after.ClientSecret == before.ClientSecret || after.ClientID != before.ClientID {
		t.Fatal("the rotation changed nothing, or too much")
	}
	if err := before.refused(); err != nil {
		t.Error(err)
	}
}

// refused checks that nobody gets anything with this secret.
func (c credentials) refused() error {
	req, err := http.NewRequest(http.MethodPost, c.Issuer+"/oauth/token", strings.NewReader(url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {"wfr_none"}}.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(c.ClientID, c.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := wants(resp, http.StatusUnauthorized, "invalid_client"); err != nil {
		return fmt.Errorf("the older secret still works: %w", err)
	}
	return nil
}

// warifu runs a command against the app's server.
func (d *deployed) warifu(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(suite.binary, append(args, "--admin", d.server.ready.Admin)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("warifu %s: %v\n%s\n%s", strings.Join(args, " "), err, &stderr, d.server.words)
	}
	return stdout.Bytes()
}

// eventually waits for what other processes do.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	late := time.After(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-late:
			t.Fatal(err)
		}
	}
}

// survives rotates an app's secret under load, and signs somebody in afterwards.
func (d *deployed) survives(t *testing.T, times int) {
	t.Helper()
	l := d.inUse(t)
	defer l.cancel()
	for range times {
		d.rotate(t)
		l.goneOn(t, 3)
	}
	for _, failure := range l.end() {
		t.Errorf("under load: %s", failure)
	}
	t.Logf("%d requests and %d refreshes during %d rotations", l.asked.Load(), l.refreshed.Load(), times)
	_, another := newPerson(t, "en")
	d.signIn(another, true)
}

// inUse signs somebody in with a browser and puts the app under load.
func (d *deployed) inUse(t testing.TB) *load {
	t.Helper()
	_, b := newPerson(t, "en")
	d.signIn(b, false)
	l := d.use(t.Context(), b.cookie(d.session))
	l.goneOn(t, 3)
	return l
}
