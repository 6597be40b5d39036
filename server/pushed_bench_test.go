package server_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// BenchmarkPush is a pushed request (RFC 9126), and the whole way from there to a code for somebody who has allowed it
// before.
func BenchmarkPush(b *testing.B) {
	p := newBenchIDP(b)
	push := func(b *testing.B) string {
		return post(b, p.handler, "/oauth/par", p.withClient(url.Values{
			"redirect_uri": {callback}, "response_type": {"code"}, "scope": {"threads:read"},
			"code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}}))["request_uri"].(string)
	}
	b.Run("push", func(b *testing.B) {
		bothWays(b, func() string { return "" }, func(b *testing.B, _ string) string { return push(b) })
	})
	b.Run("code", func(b *testing.B) {
		session := p.signedIn(b, "threads:read")
		bothWays(b, func() *benchSession { return session }, func(b *testing.B, session *benchSession) *benchSession {
			visit := *session
			visit.request = "/oauth/authorize?" + url.Values{"client_id": {p.client.ID}, "request_uri": {push(b)}}.Encode()
			visit.code(b)
			return session
		})
	})
}

// BenchmarkRequestObject is a request whose parameters are in a signed request object (RFC 9101), up to the sign-in
// page.
func BenchmarkRequestObject(b *testing.B) {
	p := newBenchIDP(b)
	key := p.withKeys()["ES256"]
	address := p.objectURL(signedBy(b, key, "ES256", nil, p.asked(nil)))
	bothWays(b, func() string { return address }, func(b *testing.B, address string) string {
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, address, nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
		return address
	})
}
