package server_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/oauth"
)

// scrape is the page of metrics as it stands, and each series of it.
func scrape(t testing.TB, m *metrics.Metrics) (page string, series map[string]float64) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics: %d %s", w.Code, w.Body)
	}
	series = make(map[string]float64)
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[cut+1:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		series[line[:cut]] = value
	}
	return w.Body.String(), series
}

// Whatever people and apps do is counted, in words that are known beforehand, under one configuration and the next; and
// nothing that names somebody or lets somebody in is among them.
func TestWhatIsCounted(t *testing.T) {
	t.Parallel()
	m := metrics.New(metrics.Options{Version: "test", Apps: true})
	p := newIDP(t, trusting("127.0.0.0/8", "::1/128"), withManaged, func(c *server.Config) { c.Metrics = m })
	got := p.tokens()
	refresh := got.text("refresh_token")
	next := p.refresh(refresh)
	if next.status != http.StatusOK {
		t.Fatalf("%+v", next)
	}
	p.reload(func(c *server.Config) { c.Lifetimes.Code = 30 * time.Second })
	if again := p.refresh(refresh); again.status != http.StatusBadRequest { // it was used
		t.Errorf("%+v", again)
	}
	const longAgo = "198.51.100."
	failed := failInAllWays(p)
	secret, _ := p.enrol("user-bob")
	b := p.browser()
	half := b.follow(b.signIn(b.get(p.authorizeURL()), "bob@app.test", userPassword))
	if half.asks() == "" {
		b.follow(b.prove(half, "code", p.codeNow(secret)))
	}
	page, series := scrape(t, m)
	for what, want := range map[string]float64{
		`warifu_grants_total{grant_type="authorization_code",outcome="ok"}`:             1,
		`warifu_grants_total{grant_type="refresh_token",outcome="ok"}`:                  1,
		`warifu_grants_total{grant_type="refresh_token",outcome="refused"}`:             1,
		`warifu_app_grants_total{app="my-app",grant_type="refresh_token",outcome="ok"}`: 1,
		`warifu_grants_total{grant_type="refresh_token",outcome="failed"}`:              0,
		`warifu_requests_total{outcome="ok",route="/oauth/token"}`:                      2,
		`warifu_requests_total{outcome="refused",route="/oauth/token"}`:                 1,
		`warifu_request_duration_seconds_count{route="/oauth/token"}`:                   3,
		`warifu_refusals_total{rule="` + oauth.RuleRefreshTokenUsed + `"}`:              1,
		`warifu_requests_total{outcome="refused",route="other"}`:                        float64(len(forgeries())),
		`warifu_second_factors_total{factor="code",outcome="refused"}`:                  float64(failed[longAgo+"4"]),
		`warifu_sign_ins_total{outcome="failed",way="password"}`:                        0,
		`warifu_sign_ins_total{outcome="ok",way="passkey"}`:                             0,
		`warifu_requests_at_work`:                                                       0,
		`warifu_build_info{go="` + goVersion(series) + `",version="test"}`:              1,
	} {
		if is, there := series[what]; !there || is != want {
			t.Errorf("%s is %v (%v), want %v", what, is, there, want)
		}
	}
	for outcome, rule := range map[string]string{"refused": oauth.RuleSignInWrong, "locked": oauth.RuleSignInLocked} {
		shown := series[`warifu_refusals_total{rule="`+rule+`"}`]
		if counted := series[`warifu_sign_ins_total{outcome="`+outcome+`",way="password"}`]; counted == 0 ||
			counted != shown {
			t.Errorf("%v sign-ins were %s, and %v forms shown again for that", counted, outcome, shown)
		}
	}
	if ok := series[`warifu_sign_ins_total{outcome="ok",way="password"}`]; ok < 2 {
		t.Errorf("%v sign-ins", ok)
	}
	labelsAreKnown(t, series)
	for _, private := range []string{"user-ann", "ann@app.test", "bob", "carol", "nobody", forgedAddress, longAgo, refresh,
		next.text("access_token"), p.secret, p.client.ID} {
		if strings.Contains(page, private) {
			t.Errorf("/metrics has %.20q", private)
		}
	}
	if found := sealedOrSigned.FindString(page); found != "" {
		t.Errorf("/metrics has a secret that begins with %.12s", found)
	}
}

func goVersion(series map[string]float64) string {
	for name := range series {
		if _, version, is := strings.Cut(name, `warifu_build_info{go="`); is {
			return version[:strings.IndexByte(version, '"')]
		}
	}
	return ""
}

var labelled = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)

// labelsAreKnown holds each series to what the table and this program know.
func labelsAreKnown(t *testing.T, series map[string]float64) {
	t.Helper()
	known := map[string][]string{"app": {"my-app"}, "grant_type": oauth.GrantTypes(), "use": nil, "version": nil,
		"go": nil}
	for _, r := range slices.Concat(oauth.Rules(), oauth.RequestRules()) {
		known["rule"] = append(known["rule"], r.Name)
	}
	families := make(map[string]metrics.Family)
	for _, f := range metrics.Families() {
		families[f.Name] = f
		if f.Histogram {
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				families[f.Name+end] = f
			}
		}
	}
	routes := make(map[string]bool)
	for name := range series {
		base, labels, _ := strings.Cut(name, "{")
		if !strings.HasPrefix(base, "warifu_") {
			continue
		}
		f, there := families[base]
		if !there {
			t.Errorf("%s is not in the table", base)
		}
		values := make(map[string]string)
		for _, l := range labelled.FindAllStringSubmatch(labels, -1) {
			if l[1] != "le" {
				values[l[1]] = l[2]
			}
		}
		if got := slices.Sorted(maps.Keys(values)); !slices.Equal(got, slices.Sorted(slices.Values(f.Labels))) {
			t.Errorf("%s has labels %v, want %v", base, got, f.Labels)
			continue
		}
		for i, label := range f.Labels {
			switch among, is := known[label]; {
			case label == "route":
				routes[values[label]] = true
			case f.Values[i] != nil && !slices.Contains(f.Values[i], values[label]),
				f.Values[i] == nil && (!is || among != nil && !slices.Contains(among, values[label])):
				t.Errorf("%s: nobody knows this value of %s", name, label)
			}
		}
	}
	for route := range routes {
		if !regexp.MustCompile(`^(other|assets|/[a-z_/.{}$-]*)$`).MatchString(route) {
			t.Errorf("%q is a route", route)
		}
	}
	if len(routes) < 20 || len(routes) > 100 {
		t.Errorf("%d routes", len(routes))
	}
}

// A line of the access log for each request, whatever somebody sends: with the address before the proxies, who asked,
// by which rule it was refused and how long it took, and nothing that was in a query or a body.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	lines := &logBuffer{}
	p := newIDP(t, trusting("127.0.0.0/8", "::1/128"), withManaged, func(c *server.Config) {
		c.AccessLog = slog.New(server.LogHandler(slog.NewJSONHandler(lines, nil)))
	})
	read := 0
	last := func() map[string]any { // the line of the request that was made last
		t.Helper()
		all := strings.SplitAfter(strings.TrimSuffix(lines.String(), "\n"), "\n")
		if len(all) != read+1 {
			t.Fatalf("%d lines for one request:\n%s", len(all)-read, strings.Join(all[read:], ""))
		}
		read = len(all)
		var entry map[string]any
		if err := json.Unmarshal([]byte(all[len(all)-1]), &entry); err != nil {
			t.Fatalf("%s: %v", all[len(all)-1], err)
		}
		keys := []string{"address", "app", "bytes", "client", "level", "method", "msg", "request_id", "route", "rule",
			"seconds", "status", "time"}
		if got := slices.Sorted(maps.Keys(entry)); !slices.Equal(got, keys) {
			t.Errorf("a line has %v", got)
		}
		return entry
	}
	holds := func(entry map[string]any, want ...any) {
		t.Helper()
		for i := 0; i < len(want); i += 2 {
			if entry[want[i].(string)] != want[i+1] {
				t.Errorf("%s is %v, want %v\n%v", want[i], entry[want[i].(string)], want[i+1], entry)
			}
		}
	}
	const from, farther = "198.51.100.7", "203.0.113.8"
	call := func(method, path, body string, header ...string) map[string]any {
		t.Helper()
		req := p.request(method, p.issuer+path, body, append(header, "X-Forwarded-For", farther+", "+from)...)
		resp, err := p.transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		sent, err := io.Copy(io.Discard, resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // it was read
		// The line comes when the handler is over, which may be after its answer.
		for deadline := time.Now().Add(10 * time.Second); strings.Count(lines.String(), "\n") <= read; {
			if time.Now().After(deadline) {
				t.Fatalf("no line for %s %s", method, path)
			}
			time.Sleep(time.Millisecond)
		}
		entry := last()
		holds(entry, "method", method[:min(len(method), 16)], "status", float64(resp.StatusCode), "bytes", float64(sent),
			"address", from, "level", "INFO",
			"msg", "request", "request_id", resp.Header.Get("X-Request-Id"))
		if seconds, is := entry["seconds"].(float64); !is || seconds <= 0 || seconds > 30 {
			t.Errorf("it took %v", entry["seconds"])
		}
		return entry
	}
	form := []string{"Content-Type", formType}
	const private = "state-that-is-nobodys-business"
	holds(call(http.MethodGet, "/.well-known/openid-configuration", ""), "route", "/.well-known/openid-configuration",
		"rule", "")
	holds(call(http.MethodGet, "/oauth/authorize?state="+private+"&client_id=stranger&login_hint=ann@app.test", ""),
		"route", "/oauth/authorize", "client", "stranger", "rule", oauth.RuleClientUnknown, "app", "")
	holds(call(http.MethodGet, strings.TrimPrefix(p.authorizeURL("state", private, "prompt", "none"), p.issuer), ""),
		"route", "/oauth/authorize", "client", p.client.ID, "app", "my-app")
	credentials := url.Values{"client_id": {p.client.ID}, "client_secret": {p.secret}, "grant_type": {"refresh_token"},
		"refresh_token": {private}}
	holds(call(http.MethodPost, "/oauth/token", credentials.Encode(), form...), "route", "/oauth/token", "app", "my-app",
		"client", p.client.ID, "rule", oauth.RuleRefreshTokenInvalid)
	credentials.Set("client_secret", private)
	holds(call(http.MethodPost, "/oauth/token", credentials.Encode(), form...), "route", "/oauth/token", "app", "my-app",
		"rule", oauth.RuleClientSecretWrong)
	holds(call(http.MethodGet, "/readyz", ""), "route", "/readyz")
	holds(call("PURGE-"+strings.Repeat("X", 100), "/oauth/token", ""), "route", "/oauth/token")
	for _, line := range forgeries() {
		visible := strings.Map(visible, line)
		holds(call(http.MethodGet, "/"+url.PathEscape(line)+"?"+url.QueryEscape(line), "", "User-Agent", visible,
			"Referer", visible,
			"X-Request-Id", visible), "route", "other", "client", "")
		holds(call(http.MethodGet, "/oauth/authorize?client_id="+url.QueryEscape(line), ""), "route", "/oauth/authorize",
			"rule", oauth.RuleClientUnknown)
	}
	for _, secret := range []string{private, p.secret, "ann@app.test", farther} {
		if strings.Contains(lines.String(), secret) {
			t.Errorf("the access log has %.12q", secret)
		}
	}
	p.reload(func(c *server.Config) { c.AccessLog = nil })
	before := lines.String()
	p.browser().get(p.issuer + "/readyz")
	if after := lines.String(); after != before {
		t.Errorf("it was turned off and goes on: %s", after[len(before):])
	}
}
