package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
)

// busy is a server in this process, of which the configuration changes while apps and people use it.
type busy struct {
	*reloading
	issuer, secure, secret string
	pairs                  [2][2]string // files of certificates and keys
	served                 [4]atomic.Int64
}

const manyReloads = 1000

// alternating are two configurations that differ in much of what counts without a restart.
func (b *busy) alternating(n int, connector func(id, name, who string) string, dir, address string) string {
	text := fmt.Sprintf("issuer: http://%s\nstorage: {config: {dataDir: %s}}\nexpiry: {sessions: %dh}\n",
		address, dir, 1+n%2) +
		fmt.Sprintf("manifests: {directories: [%s], watch: true}\ntrusted: [board]\n", filepath.Join(dir, "apps"))
	connectors := "connectors:\n" + connector("one", "One", "ann")
	web := fmt.Sprintf("web: {http: %s, https: 127.0.0.1:0, tlsCert: %s, tlsKey: %s", address, b.pairs[n%2][0],
		b.pairs[n%2][1])
	if n%2 == 0 {
		return text + web + "}\n" + connectors
	}
	return text + web + ", allowedOrigins: ['https://page.example.com'], maxConnections: 500}\n" + connectors +
		connector("two", "Two", "ben") +
		"enablePasswordDB: true\nstaticPasswords:\n  - {email: eve@example.com, userID: eve, hash: " +
		"$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n" +
		"branding: {name: Other}\nlogger: {level: warn, format: json}\n" +
		"oauth2: {alwaysShowLoginScreen: false, registration: {enabled: true}}\nmfa: {groups: {staff: required}}\n"
}

// A thousand reloads while people sign in, and apps redeem codes, refresh tokens and read keys, also over TLS: nobody
// notices, and nothing is left behind.
func TestManyReloadsUnderLoad(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	upstream := imitation(t)
	upstream.Start()
	dir, address := t.TempDir(), listener.Addr().String()
	described := &serving{upstream: upstream.URL}
	b := &busy{issuer: "http://" + address}
	for serial := range b.pairs {
		cert, key := writeCertificate(t, t.TempDir(), int64(serial+1))
		b.pairs[serial] = [2]string{cert, key}
	}
	if err := os.Mkdir(filepath.Join(dir, "apps"), 0o700); err != nil {
		t.Fatal(err)
	}
	manifest := strings.NewReplacer("NAME", "board", "scopes: [openid]", "scopes: [openid, offline_access]", "ACCESS",
		"autoEnv: false").
		Replace(reloadedManifest)
	if err := os.WriteFile(filepath.Join(dir, "apps", "board.yml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	file, n := filepath.Join(dir, "config.yaml"), 0
	read := func() (*config.Settings, error) {
		text := b.alternating(n, described.connector, dir, address)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		n++
		return config.Read(file, []string{"UPSTREAM_SECRET=the-secret-of-the-upstream"})
	}
	settings, err := read()
	if err != nil {
		t.Fatal(err)
	}
	log, relog := newLogger(settings.Logger, io.Discard)
	i, err := build(t.Context(), settings, building{web: []net.Listener{listener}, log: log, relog: relog})
	if err != nil {
		t.Fatal(err)
	}
	b.reloading = &reloading{instance: i, file: file, read: read, told: make(map[string]bool)}
	b.secure = "https://" + i.endpoints[1].listener.Addr().String()
	ctx, end := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { // ends with end
		err := i.run(ctx, func(context.Context) error { close(ready); return nil })
		i.close()
		ended <- err
	}()
	<-ready
	defer func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	i.apps.deployer.ApplyPaths(ctx, settings.Manifests.Directories)
	c, err := i.store.Client(ctx, "board")
	if err != nil {
		t.Fatal(err)
	}
	if b.secret, err = i.store.ClientSecretValue(c); err != nil {
		t.Fatal(err)
	}
	reload := func() {
		if _, err := b.again(ctx, reason{anew: n%50 == 0, tell: true}); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 { // what is made once is made
		reload()
	}
	if err := b.signsIn(); err != nil {
		t.Fatal(err)
	}
	upstream.CloseClientConnections() // idle ones of connectors that were replaced end by themselves, in half a minute
	goroutines, memory := settled(0)

	using, stop := context.WithCancel(t.Context())
	var users sync.WaitGroup
	secure := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for at, use := range []func() error{
		b.signsIn, b.refreshes(), func() error { return fetches(http.DefaultClient, b.issuer) },
		func() error { return fetches(secure, b.secure) },
	} {
		users.Go(func() {
			for using.Err() == nil {
				if err := use(); err != nil {
					t.Errorf("meanwhile: %v", err)
					return
				}
				b.served[at].Add(1)
			}
		})
	}
	for range manyReloads {
		reload()
	}
	stop()
	users.Wait()
	for at, what := range []string{"sign-ins", "refreshes", "documents", "documents over TLS"} {
		served := b.served[at].Load()
		t.Logf("%s: %d", what, served)
		if served == 0 {
			t.Errorf("no %s meanwhile", what)
		}
	}
	secure.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
	upstream.CloseClientConnections()
	after, then := settled(goroutines + 20)
	t.Logf("goroutines: %d, %d; memory: %d KiB, %d KiB", goroutines, after, memory>>10, then>>10)
	if after > goroutines+20 {
		var stacks [1 << 20]byte
		t.Errorf("%d goroutines before, %d after\n%s", goroutines, after, stacks[:runtime.Stack(stacks[:], true)])
	}
	if then > memory+memory/2+16<<20 {
		t.Errorf("%d KiB before, %d KiB after", memory>>10, then>>10)
	}
}

// settled is how many goroutines there are, and how much memory is in use. Goroutines of what was closed take a moment
// to end, which nobody tells.
func settled(most int) (goroutines int, memory uint64) {
	for end := time.Now().Add(10 * time.Second); most > 0 && runtime.NumGoroutine() > most && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	runtime.GC()
	runtime.GC() // what finalizers have freed
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return runtime.NumGoroutine(), stats.HeapAlloc
}

// fetches reads what is public.
func fetches(client *http.Client, base string) error {
	for _, path := range []string{"/oauth/jwks", "/.well-known/openid-configuration"} {
		resp, err := client.Get(base + path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s %w", path, resp.Status, err)
		}
	}
	return nil
}

// signsIn is somebody new who signs in, and the app that redeems the code.
func (b *busy) signsIn() error {
	_, err := b.grant("openid")
	return err
}

// refreshes uses one refresh token after the other.
func (b *busy) refreshes() func() error {
	token := ""
	return func() (err error) {
		if token == "" {
			token, err = b.grant("openid offline_access")
			return err
		}
		token, err = b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
		return err
	}
}

// onward is the address to which a page leads, or the one of a redirect.
var onward = regexp.MustCompile(`https://board\.example\.com/cb\?[^"]*`)

func (b *busy) grant(scope string) (refresh string, err error) {
	q := url.Values{"response_type": {"code"}, "client_id": {"board"}, "redirect_uri": {"https://board.example.com/cb"},
		"scope": {scope}, "state": {"x"}, "connector_id": {"one"}}
	resp, err := person().Get(b.issuer + "/oauth/authorize?" + q.Encode())
	if err != nil {
		return "", err
	}
	page, _ := io.ReadAll(resp.Body) // what is missing is found below
	page = append(page, resp.Header.Get("Location")...)
	_ = resp.Body.Close()
	to, err := url.Parse(html.UnescapeString(string(onward.Find(page))))
	if err != nil || to.Query().Get("code") == "" {
		return "", fmt.Errorf("no code: %s %.300s", resp.Status, page)
	}
	return b.token(url.Values{"grant_type": {"authorization_code"}, "code": {to.Query().Get("code")},
		"redirect_uri": {"https://board.example.com/cb"}})
}

func (b *busy) token(form url.Values) (refresh string, err error) {
	form.Set("client_id", "board")
	form.Set("client_secret", b.secret)
	resp, err := http.PostForm(b.issuer+"/oauth/token", form)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var reply struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Error   string `json:"error"`
		Why     string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || reply.Access == "" {
		return "", fmt.Errorf("no token: %s %s %s %w", resp.Status, reply.Error, reply.Why, err)
	}
	return reply.Refresh, nil
}
