package server_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/server/traces/otlp"
	"github.com/warifu/warifu/server/traces/tracestest"
)

// The trace of a code exchange is part of the app's, has the one transaction that it takes, and says nothing that lets
// somebody in or names somebody. Log lines have its id.
func TestTraceOfACodeExchange(t *testing.T) {
	t.Parallel()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	collector := tracestest.Start(t)
	tracer, err := otlp.New(otlp.Options{Endpoint: collector.URL, Sample: 1, Version: "test",
		Issuer: "https://id.example.com",
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	lines := &logBuffer{}
	p := newIDP(t, func(c *server.Config) {
		c.Traces, c.AccessLog = tracer, slog.New(server.LogHandler(slog.NewJSONHandler(lines, nil)))
	})
	code := p.code("state", "state-of-nobody", "login_hint", userEmail)
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}
	header := []string{"Content-Type", formType, "Traceparent", "00-" + trace + "-" + parent + "-00", "Authorization",
		basic(p.client.ID, p.secret)}
	var replies []string
	for _, want := range []int{http.StatusOK, http.StatusBadRequest} { // the second one is a replay
		resp, err := p.transport.RoundTrip(p.request(http.MethodPost, p.issuer+"/oauth/token", form.Encode(), header...))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // it was read
		replies = append(replies, string(body))
		if resp.StatusCode != want {
			t.Fatalf("%d %s", resp.StatusCode, replies)
		}
	}
	p.browser().get(p.issuer + "/nowhere/" + url.PathEscape(userEmail) + "?x=" + code)
	p.reload(func(c *server.Config) { c.Traces = nil }) // which lasts
	p.browser().get(p.issuer + "/oauth/authorize?client_id=stranger")
	tracer.Close()

	spans := collector.Spans()
	var exchanges []tracestest.Span
	for _, s := range spans {
		if s.Name == "POST /oauth/token" {
			exchanges = append(exchanges, s)
		}
	}
	if len(exchanges) != 2 {
		t.Fatalf("%d exchanges of %v", len(exchanges), spans)
	}
	for i, s := range exchanges {
		if s.TraceID != trace || s.Parent != parent || s.Kind != "SPAN_KIND_SERVER" || s.Failed {
			t.Errorf("%+v", s)
		}
		for key, want := range map[traces.Key]string{traces.Client: p.client.ID, traces.App: "my-app",
			traces.Route:  "/oauth/token",
			traces.Method: "POST", traces.Rule: []string{"", oauth.RuleCodeUsed}[i], traces.Status: []string{"int_value:200",
				"int_value:400"}[i]} {
			if s.Attributes[string(key)] != want {
				t.Errorf("%s is %q, want %q", key, s.Attributes[string(key)], want)
			}
		}
		calls := 0
		for _, c := range spans {
			if c.TraceID == trace && c.Parent == s.ID && c.Name == "etcd txn" && c.Kind == "SPAN_KIND_CLIENT" {
				calls++
				if c.Took <= 0 || c.Took > s.Took || c.Attributes[string(traces.System)] != "etcd" {
					t.Errorf("%+v", c)
				}
			}
		}
		if calls == 0 || i == 0 && calls != 1 {
			t.Errorf("exchange %d has %d transactions", i, calls)
		}
	}
	for _, want := range []string{"GET /oauth/authorize", "POST /oauth/signin", "GET other"} {
		if !slices.ContainsFunc(spans, func(s tracestest.Span) bool { return s.Name == want }) {
			t.Errorf("no span of %s", want)
		}
	}
	known := []traces.Key{traces.Method, traces.Route, traces.Status, traces.System, traces.Client, traces.App,
		traces.Rule, traces.Request}
	for _, s := range spans {
		for key := range s.Attributes {
			if !slices.Contains(known, traces.Key(key)) {
				t.Errorf("%s says %s", s.Name, key)
			}
		}
	}
	raw := collector.Raw()
	for _, private := range []string{code, p.secret, "state-of-nobody", userEmail, "user-ann", userPassword,
		"stranger", "127.0.0.1"} {
		if strings.Contains(raw, private) {
			t.Errorf("the collector is told %.12q", private)
		}
	}
	if found := sealedOrSigned.FindString(raw); found != "" {
		t.Errorf("the collector is told a secret that begins with %.12s", found)
	}
	if n := strings.Count(lines.String(), `"trace_id":"`+trace+`"`); n != 2 {
		t.Errorf("%d lines of the access log have the id of the trace\n%s", n, lines)
	}
}
