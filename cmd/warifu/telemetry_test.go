package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/server/traces/tracestest"
)

// fetched is what an address answers, and with which status.
func fetched(t *testing.T, client *http.Client, address, bearer string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // opened for reading
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// value is a series of /metrics; -1 if there is none.
func value(page, series string) float64 {
	for line := range strings.Lines(page) {
		if rest, is := strings.CutPrefix(line, series+" "); is {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err == nil {
				return v
			}
		}
	}
	return -1
}

// A server that is in use has every family of the table, at the listener for Prometheus and on both sides of the admin
// API, and says how its configuration fares.
func TestMetricsOfARunningServer(t *testing.T) {
	t.Parallel()
	const people = "enablePasswordDB: true\nstaticPasswords:\n" +
		"  - {email: ann@example.com, userID: ann, hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n"
	cert, key := writeCertificate(t, t.TempDir(), 1)
	more := func(s *serving) string {
		return people + "telemetry: {http: 127.0.0.1:0, apps: true}\nadmin: {listen: 127.0.0.1:0, tokenFile: " + s.token +
			", tlsCert: " + cert + ", tlsKey: " + key + "}\n" +
			"mail: {server: 'localhost:1', tls: none, from: warifu@example.com}\n"
	}
	s := serveReloadable(t, more)
	at := func(name string) string {
		return "http://" + regexp.MustCompile(regexp.QuoteMeta(name) + ` ([0-9.:]+)`).FindStringSubmatch(s.said.String())[1]
	}
	telemetry, admin := at("telemetry.http"), strings.Replace(at("admin.listen"), "http:", "https:", 1)
	remote := &http.Client{Transport: &http.Transport{ // the certificate is signed by itself
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer remote.CloseIdleConnections()
	socket := filepath.Join(s.dir, "data", "admin.sock")
	cmd := exec.CommandContext(t.Context(), "warifu", "--admin", socket, "token", "board", "--login", "ann@example.com",
		"--password-stdin")
	cmd.Stdin = strings.NewReader("password")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := s.authorize(person(), "stranger", ""); !strings.HasPrefix(got, "400") {
		t.Errorf("a stranger's request: %s", got)
	}

	code, page := fetched(t, http.DefaultClient, telemetry+"/metrics", "")
	if code != http.StatusOK {
		t.Fatalf("/metrics: %d %s", code, page)
	}
	for _, f := range metrics.Families() {
		name := f.Name
		if f.Histogram {
			name += "_count"
		}
		if !regexp.MustCompile(`(?m)^` + name + `[{ ]`).MatchString(page) {
			t.Errorf("nothing is told of %s", name)
		}
		if !strings.Contains(page, "# HELP "+f.Name+" ") {
			t.Errorf("%s is not explained", f.Name)
		}
	}
	for series, least := range map[string]float64{
		`warifu_app_grants_total{app="board",grant_type="authorization_code",outcome="ok"}`: 1,
		`warifu_sign_ins_total{outcome="ok",way="password"}`:                                1,
		`warifu_refusals_total{rule="client-unknown"}`:                                      1,
		`warifu_etcd_up{member="embedded"}`:                                                 1,
		`warifu_etcd_requests_total{kind="write",outcome="ok"}`:                             1,
		`warifu_plugin_up{kind="hook",plugin="oauth"}`:                                      1,
		`warifu_clients{origin="manifest"}`:                                                 1,
		`warifu_replicas`:                                                                   1,
		`warifu_certificate_end_timestamp_seconds{listener="admin.listen"}`:                 float64(time.Now().Unix()),
		`go_goroutines`:    1,
		`process_open_fds`: 1,
	} {
		if v := value(page, series); v < least {
			t.Errorf("%s is %v", series, v)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/": 404, "/debug/pprof/": 404,
		"/v1/apps": 404} {
		if code, body := fetched(t, http.DefaultClient, telemetry+path, ""); code != want {
			t.Errorf("telemetry %s: %d, want %d: %.100s", path, code, want, body)
		}
	}
	if code, _ := fetched(t, http.DefaultClient, s.issuer+"/metrics", ""); code != http.StatusNotFound {
		t.Errorf("the public has /metrics: %d", code)
	}
	if code, _ := fetched(t, remote, admin+"/metrics", ""); code != http.StatusUnauthorized {
		t.Errorf("the admin API without a token: %d", code)
	}
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context,
		_, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer local.CloseIdleConnections()
	for _, get := range []func() (int, string){
		func() (int, string) { return fetched(t, remote, admin+"/metrics", strings.Repeat("t", 40)) },
		func() (int, string) { return fetched(t, local, "http://admin/metrics", "") },
	} {
		if code, page := get(); code != http.StatusOK || value(page, "warifu_replicas") != 1 {
			t.Errorf("the admin API: %d %.200s", code, page)
		}
	}

	reloads := func(when string, ok, refused, is float64) {
		t.Helper()
		_, page := fetched(t, http.DefaultClient, telemetry+"/metrics", "")
		for deadline := time.Now().Add(patience); value(page, `warifu_configuration_refused`) != is &&
			time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond) // the log says it before it is counted
			_, page = fetched(t, http.DefaultClient, telemetry+"/metrics", "")
		}
		for series, want := range map[string]float64{`warifu_configuration_reloads_total{outcome="ok"}`: ok,
			`warifu_configuration_reloads_total{outcome="refused"}`: refused, `warifu_configuration_refused`: is} {
			if v := value(page, series); v != want {
				t.Errorf("%s: %s is %v, want %v", when, series, v, want)
			}
		}
	}
	reloads("at the start", 0, 0, 0)
	_, before := fetched(t, http.DefaultClient, telemetry+"/metrics", "")
	s.write(t, more(s)+"brandling: {}\n")
	s.says(t, "brandling is not a key")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.says(t, "brandling is not a key")
	if code, out := s.warifu(t, "reload"); code != 3 { // when it is over, so are those before
		t.Errorf("%d %s", code, out)
	}
	reloads("after one fault that was read three times", 0, 1, 1)
	mended := strings.Replace(more(s), "apps: true", "apps: false", 1)
	s.write(t, mended+"branding: {name: Another}\n")
	s.says(t, `changed=\[branding.name\] restart_for=\[telemetry.apps\]`)
	reloads("when it is mended", 1, 1, 0)
	_, after := fetched(t, http.DefaultClient, telemetry+"/metrics", "")
	const last = "warifu_configuration_last_reload_timestamp_seconds"
	if value(after, last) <= value(before, last) {
		t.Errorf("last taken into use: %v, then %v", value(before, last), value(after, last))
	}
	if got := value(after, `warifu_sign_ins_total{outcome="ok",way="password"}`); got != 1 {
		t.Errorf("under another configuration it has forgotten sign-ins: %v", got)
	}

	s.write(t, mended+"logger: {access: true, level: error}\n")
	if code, out := s.warifu(t, "reload"); code != 0 { // when it is over, so is what the watch has begun
		t.Errorf("%d %s", code, out)
	}
	fetched(t, http.DefaultClient, s.issuer+"/nowhere?secret=nobody-knows", "")
	s.says(t, `msg=request address=127.0.0.1 method=GET route=other status=404 `)
	if strings.Contains(s.said.String(), "nobody-knows") {
		t.Error("the log has a query")
	}
}

// The metrics of grants name apps only where the configuration says so, lines of the access log are JSON where the log
// is, and traces go to the collector with its headers: those of people, of operators with the plugins that they need,
// and of deliveries.
func TestAccessLogAndTracesOfARunningServer(t *testing.T) {
	t.Parallel()
	collector := tracestest.Start(t)
	telemetry := ""
	s := serveReloadable(t, func(s *serving) string {
		headers := filepath.Join(s.dir, "headers")
		if err := os.WriteFile(headers, []byte("X-Collector-Token: the-token-of-the-collector\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		telemetry = "telemetry: {http: 127.0.0.1:0, traces: {endpoint: '" + strings.TrimSuffix(collector.URL, "/v1/traces") +
			"', sample: 100%, headersFile: " + headers + "}}\n"
		return telemetry + "logger: {level: info, access: true, format: text}\nconnectors:\n" +
			s.connector("one", "One", "ann")
	})
	if got := s.authorize(person(), "board", "one"); got != "code" {
		t.Fatal(got)
	}
	s.write(t, telemetry+"logger: {level: info, access: true, format: json}\nconnectors:\n"+
		s.connector("one", "One", "ann"))
	s.says(t, `"msg":"the configuration was read again"`)
	if got := s.authorize(person(), "board", "one", "nonce", "nobody-knows"); got != "code" {
		t.Fatal(got)
	}
	s.says(t, `"route":"/callback/\{id\}"`)
	var routes []string
	for line := range strings.Lines(s.said.String()) {
		var entry struct {
			Msg, Route, Address, Client, App string
			Status                           int
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "request" {
			routes = append(routes, entry.Route)
			if entry.Address != "127.0.0.1" || entry.Status == 0 {
				t.Errorf("%s", line)
			}
		}
	}
	for _, want := range []string{"/oauth/authorize", "/callback/{id}"} {
		if !slices.Contains(routes, want) {
			t.Errorf("%s is missing among %v", want, routes)
		}
	}
	if strings.Contains(s.said.String(), "nobody-knows") {
		t.Error("the log has a query")
	}
	page := regexp.MustCompile(`telemetry\.http ([0-9.:]+)`).FindStringSubmatch(s.said.String())[1]
	if _, page := fetched(t, http.DefaultClient, "http://"+page+"/metrics", ""); strings.Contains(page, "board") {
		t.Error("an app is named")
	}

	app := filepath.Join(t.TempDir(), "app.yml")
	manifest := strings.NewReplacer("NAME", "traced", "consent: skip, ACCESS", "autoEnv: true").Replace(reloadedManifest) +
		"  workers: {web: {}}\n"
	if err := os.WriteFile(app, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := s.warifu(t, "apply", "-f", app, "--yes"); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	applied := collector.Await(t, "apply", func(s tracestest.Span) bool { return s.Name == "admin POST /v1/apply" })
	collector.Await(t, "the deploy hook of apply", func(s tracestest.Span) bool {
		return s.Parent == applied.ID && s.TraceID == applied.TraceID && s.Attributes[string(traces.Plugin)] == "oauth"
	})
	collector.Await(t, "the transaction of apply", func(s tracestest.Span) bool {
		return s.Parent == applied.ID && s.Name == "etcd txn"
	})
	pushed := collector.Await(t, "the runtime of a delivery", func(s tracestest.Span) bool {
		return s.Name == "plugin PushEnv" && s.Attributes[string(traces.Plugin)] == "file"
	})
	collector.Await(t, "a delivery", func(s tracestest.Span) bool {
		return s.Name == "delivery" && s.ID == pushed.Parent && s.Attributes[string(traces.App)] == "traced"
	})
	collector.Await(t, "a sign-in", func(s tracestest.Span) bool { return s.Name == "GET /callback/{id}" })
	if collector.Header("X-Collector-Token") != "the-token-of-the-collector" {
		t.Error("the collector does not get its header")
	}
	for _, private := range []string{"nobody-knows", "ann@example.com", "the-token-of-the-collector"} {
		if strings.Contains(collector.Raw()+s.said.String(), private) {
			t.Errorf("%s is told", private)
		}
	}
}
