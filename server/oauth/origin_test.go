package oauth

import (
	"slices"
	"testing"
)

func TestOrigins(t *testing.T) {
	client := &Client{RedirectURIs: []string{
		"https://app.test/cb?x=1", "https://APP.test:443/cb", "https://app.test:8443/", "http://localhost:3000/cb",
		"http://localhost:*/cb",
		"http://127.0.0.1/cb", "http://[::1]", "https://localhost/cb", "com.example.app:/cb", "javascript:alert(1)", "",
	}}
	client.AllowedOrigins = []string{"https://pages.test"}
	want := []string{"https://pages.test", "https://app.test", "https://app.test", "https://app.test:8443",
		"http://localhost:3000",
		"http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*", "https://localhost"}
	if got := client.Origins(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMatchOrigin(t *testing.T) {
	for _, c := range []struct {
		allowed, got string
		want         bool
	}{
		{"https://app.test", "https://app.test", true},
		{"*", "https://any.test", true},
		{"http://localhost:*", "http://localhost:5173", true},
		{"http://localhost:*", "http://localhost", true},
		{"https://localhost:*", "https://localhost:5173", true},
		{"http://[::1]:*", "http://[::1]:80", true},
		{"https://app.test", "https://app.test:8443", false},
		{"https://app.test", "http://app.test", false},
		{"https://app.test", "https://evil.app.test", false},
		{"https://app.test", "https://app.test.evil.test", false},
		{"https://app.test", "null", false},
		{"http://localhost:*", "https://localhost:1", false},
		{"http://localhost:*", "http://localhost.evil.test", false},
		{"http://localhost:*", "http://localhost:80.evil.test", false},
		{"http://localhost:*", "http://localhost:", false},
		{"http://localhost:*", "http://127.0.0.1:1", false},
		{"https://app.test:*", "https://app.test:1", false},
		{"https://*.app.test", "https://x.app.test", false},
		{"", "", true}, // no browser sends it
	} {
		if got := MatchOrigin([]string{c.allowed}, c.got); got != c.want {
			t.Errorf("%q allows %q: %v", c.allowed, c.got, got)
		}
	}
}
