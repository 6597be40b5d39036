package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/storage"
)

// raw is an answer with its bytes, from a real socket.
func (p *idp) raw(method, address string, header ...string) (*http.Response, string) {
	p.t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(p.request(method, address, "", header...))
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, string(body)
}

var documentPaths = []string{"/oauth/jwks", "/.well-known/openid-configuration",
	"/.well-known/oauth-authorization-server"}

// Who has a document shows its entity tag, and is not sent it again (RFC 9110 section 13.1.2).
func TestDocumentsAreNotSentTwice(t *testing.T) {
	p := newIDP(t)
	for _, path := range documentPaths {
		first, body := p.raw(http.MethodGet, p.issuer+path)
		tag := first.Header.Get("ETag")
		if first.StatusCode != http.StatusOK || len(tag) < 10 || tag[0] != '"' ||
			first.Header.Get("Content-Length") != strconv.Itoa(len(body)) {
			t.Fatalf("%s: %d %v", path, first.StatusCode, first.Header)
		}
		for _, held := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			got, body := p.raw(http.MethodGet, p.issuer+path, "If-None-Match", held)
			if got.StatusCode != http.StatusNotModified || body != "" || got.Header.Get("ETag") != tag ||
				got.Header.Get("Cache-Control") != first.Header.Get("Cache-Control") || got.Header.Get("Content-Type") != "" {
				t.Errorf("%s with If-None-Match %s: %d %v", path, held, got.StatusCode, got.Header)
			}
		}
		for _, other := range []string{`"other"`, tag[1 : len(tag)-1], "w/" + tag, ""} {
			got, again := p.raw(http.MethodGet, p.issuer+path, "If-None-Match", other)
			if got.StatusCode != http.StatusOK || again != body {
				t.Errorf("%s with If-None-Match %s: %d", path, other, got.StatusCode)
			}
		}
		head, none := p.raw(http.MethodHead, p.issuer+path)
		if head.StatusCode != http.StatusOK || none != "" || head.Header.Get("ETag") != tag ||
			head.ContentLength != int64(len(body)) {
			t.Errorf("HEAD %s: %d %v", path, head.StatusCode, head.Header)
		}
		got, _ := p.raw(http.MethodPost, p.issuer+path)
		if got.StatusCode != http.StatusMethodNotAllowed || got.Header.Get("ETag") != "" {
			t.Errorf("POST %s: %d %v", path, got.StatusCode, got.Header)
		}
	}
}

// The key set, and with it its tag, is another one as soon as there is another key, and the same at every replica.
func TestKeySetFollowsTheKeys(t *testing.T) {
	p := newIDP(t)
	other := p.replica(p.etcd.Client)
	tag := func(p *idp) string {
		got := p.send(p.request(http.MethodGet, p.issuer+"/oauth/jwks", ""))
		return fmt.Sprint(got.header.Get("ETag"), len(got.json["keys"].([]any)))
	}
	before := tag(p)
	if got := tag(other); got != before {
		t.Errorf("tags %s and %s of the same keys", before, got)
	}
	next := storage.KeySchedule{Use: storage.UseES256, Period: time.Hour, Overlap: time.Hour}
	if err := p.store.RotateKeys(t.Context(), false, next); err != nil {
		t.Fatal(err)
	}
	after := tag(p)
	if after == before {
		t.Errorf("tag %s before and after a key came", before)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for tag(other) != after { // which hears of it by its watch
		if ctx.Err() != nil {
			t.Fatalf("tag %s at the other replica, %s here", tag(other), after)
		}
		time.Sleep(time.Millisecond)
	}
}

// Documents are for pages of all origins, and are found on both sides of the issuer's path.
func TestDocumentsBelowAPathAndOfOtherOrigins(t *testing.T) {
	p := newIDP(t, func(c *server.Config) { c.Issuer += "/id" })
	root := p.issuer[:len(p.issuer)-len("/id")]
	for _, address := range []string{
		p.issuer + "/oauth/jwks",
		p.issuer + "/.well-known/openid-configuration", root + "/.well-known/openid-configuration/id",
		p.issuer + "/.well-known/oauth-authorization-server", root + "/.well-known/oauth-authorization-server/id",
	} {
		got := p.send(p.request(http.MethodGet, address, "", "Origin", "https://any.test"))
		if got.status != http.StatusOK || got.header.Get("Access-Control-Allow-Origin") != "*" ||
			got.header.Get("ETag") == "" {
			t.Errorf("%s: %d %v", address, got.status, got.header)
		}
	}
}
