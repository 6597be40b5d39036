package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"

	"github.com/warifu/warifu/server/admin"
)

const deviceGrants = `grantTypes: [authorization_code, refresh_token, "urn:ietf:params:oauth:grant-type:device_code"]
    autoEnv`

// deviceOf is what `warifu token --device` makes of an app of the instance; wait stands for the pauses between its
// polls.
func (i *instance) deviceOf(t *testing.T, app string, wait func(ctx context.Context, d time.Duration) error) device {
	t.Helper()
	c := &cli{admin: i.cfg.Socket}
	creds, err := fetch[admin.Credentials](t.Context(), c, appPath(app)+"/credentials")
	if err != nil {
		t.Fatal(err)
	}
	a := &authorization{http: http.DefaultClient, issuer: creds.Issuer, credentials: creds}
	if err := a.discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return device{a, wait}
}

func TestTokenShowsACodeAndWaits(t *testing.T) {
	i := testInstance(t)
	i.applied(t, "tv", "http://localhost:*", deviceGrants)
	said := &bytes.Buffer{}
	c := &cli{stderr: said}
	var waits []time.Duration
	d := i.deviceOf(t, "tv", nil)
	d.wait = func(ctx context.Context, pause time.Duration) error {
		waits = append(waits, pause)
		shown := regexp.MustCompile(`[B-Z]{4}-[B-Z]{4}`).FindString(said.String())
		person := &authorization{http: http.DefaultClient, issuer: d.issuer}
		_, err := person.walk(ctx, d.issuer+"/device?user_code="+shown, "ann@example.com", "password")
		return err
	}
	reply, err := c.deviceTokens(t.Context(), d, []string{"openid", "threads:read"}, tokenOptions{})
	if err != nil {
		t.Fatal(err, said)
	}
	var tokens map[string]any
	if err := json.Unmarshal(reply, &tokens); err != nil || tokens["id_token"] == nil || tokens["refresh_token"] == nil ||
		tokens["scope"] != "openid threads:read" {
		t.Errorf("%v in %s", err, reply)
	}
	if !slices.Equal(waits, []time.Duration{5 * time.Second}) {
		t.Errorf("it waited %v", waits)
	}
	if !strings.Contains(said.String(), d.issuer+"/device\n") || !strings.Contains(said.String(), "█") ||
		strings.Contains(said.String(), "wfd_") {
		t.Errorf("it says %s", said)
	}
}

func TestTokenOfADeviceThatIsRefused(t *testing.T) {
	i := testInstance(t)
	i.applied(t, "web", "http://localhost:*", "autoEnv")
	var out bytes.Buffer
	said := newLines()
	code := run(t.Context(), []string{"--admin", i.cfg.Socket, "token", "web", "--device"}, strings.NewReader(""),
		&out, said)
	if code != exitFailed || !strings.Contains(said.String(), "add urn:ietf:params:oauth:grant-type:device_code to "+
		"spec.oauth.grantTypes") {
		t.Errorf("exit code %d: %s", code, said)
	}
	i.applied(t, "tv", "http://localhost:*", deviceGrants)
	code = run(t.Context(), []string{"--admin", i.cfg.Socket, "token", "tv", "--device", "--scope", "files:read"},
		strings.NewReader(""), &out, said)
	if code != exitFailed || !strings.Contains(said.String(), "invalid_scope") || out.Len() > 0 {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// A device does as it is told: it polls no faster than the interval, and slower when it has to.
func TestTokenSlowsDown(t *testing.T) {
	answers := []string{"authorization_pending", "slow_down", "authorization_pending", "access_denied"}
	polls := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.PostForm.Get("device_code") != "d" ||
			r.PostForm.Get("client_secret") != "s" {
			t.Errorf("%v %v", err, r.PostForm)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": answers[polls], "error_description": "\x1b[2J"})
		polls++
	}))
	defer s.Close()
	a := &authorization{http: s.Client(), tokenAt: s.URL, credentials: admin.Credentials{ClientID: "c", ClientSecret: "s"}}
	var waits []time.Duration
	_, err := device{a, func(_ context.Context, pause time.Duration) error {
		waits = append(waits, pause)
		return nil
	}}.poll(t.Context(), asked{DeviceCode: "d", Interval: 7})
	if err == nil || !strings.Contains(err.Error(), "access_denied: \uFFFD[2J") {
		t.Error(err)
	}
	if want := []time.Duration{7 * time.Second, 12 * time.Second, 12 * time.Second}; !slices.Equal(waits, want) {
		t.Errorf("it waited %v, want %v", waits, want)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := sleep(ended, time.Hour); err == nil {
		t.Error("an interruption does not end the pause")
	}
}

// What is drawn is the QR code, with the light margin that scanners need.
func TestDrawnCode(t *testing.T) {
	code, err := qr.Encode("https://id.example.com/device?"+url.Values{"user_code": {"WDJB-MJHT"}}.Encode(), qr.L)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix((&cli{stderr: &bytes.Buffer{}}).drawn(code), "\n"), "\n")
	light := map[rune][2]bool{'█': {true, true}, '▀': {true, false}, '▄': {false, true}, ' ': {}}
	for y, line := range lines {
		runes := []rune(line)
		if len(runes) != code.Size+8 {
			t.Fatalf("line %d is %d wide", y, len(runes))
		}
		for x, r := range runes {
			for half, isLight := range light[r] {
				if isLight == code.Black(x-4, 2*y+half-4) {
					t.Fatalf("module %d, %d is wrong", x-4, 2*y+half-4)
				}
			}
		}
	}
	if len(lines)*2 < code.Size+8 {
		t.Errorf("%d lines for %d modules", len(lines), code.Size)
	}
}
