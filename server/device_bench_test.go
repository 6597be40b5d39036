package server_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// newBenchDevices is a provider for devices whose time goes on with each request, so that its client never asks too
// often.
func newBenchDevices(b *testing.B) (p *benchIDP, ask func(b *testing.B, code string) string) {
	b.Helper()
	p = newBenchIDP(b)
	p.idp = withDevices(p.idp)
	p.clock.stop()
	return p, func(b *testing.B, _ string) string {
		p.clock.forward(100 * time.Millisecond)
		return post(b, p.handler, "/oauth/device_authorization",
			p.withClient(url.Values{"scope": {"threads:read"}}))["device_code"].(string)
	}
}

func none() string { return "" }

// BenchmarkDeviceAuthorization is one write.
func BenchmarkDeviceAuthorization(b *testing.B) {
	_, ask := newBenchDevices(b)
	bothWays(b, none, ask)
}

// BenchmarkDevicePoll is a device authorization and its first poll, which is a read more: the next one would be due
// only seconds later.
func BenchmarkDevicePoll(b *testing.B) {
	p, ask := newBenchDevices(b)
	bothWays(b, none, func(b *testing.B, _ string) string {
		code := ask(b, "")
		form := p.withClient(url.Values{"grant_type": {deviceGrant}, "device_code": {code}})
		req := httptest.NewRequest(http.MethodPost, "/oauth/token", strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", formType)
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, req)
		if !strings.Contains(w.Body.String(), "authorization_pending") {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
		return code
	})
}
