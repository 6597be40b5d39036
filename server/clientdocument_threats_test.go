package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// What makes a document no client. Its developer is told what is wrong with it, and nobody of what else is at a URL.
func TestDocumentsThatAreRefused(t *testing.T) {
	p, s := newDescribed(t)
	elsewhere := newDocumentServer(t)
	elsewhere.says(s.document(nil))
	private := jwksOf(t, jose.JSONWebKey{Key: testKeys()["ES256"], KeyID: "k"})
	const secrets = "token_endpoint_auth_method must be none or private_key_jwt"
	refused := func(rule, why string) {
		t.Helper()
		p.clock.forward(48 * time.Hour)
		before := s.asked.Load()
		got := p.browser().get(p.authorizeURL(withPKCE...))
		got.wants(t, rule, http.StatusBadRequest, "invalid_client")
		if why == "" {
			why = "there is none at the client_id URL, or it could not be fetched"
		}
		if !strings.Contains(got.body, why) {
			t.Errorf("%s: the developer is not told %q: %s", rule, why, shown(got.body))
		}
		p.refresh("wfr_x").wants(t, rule, http.StatusUnauthorized, "invalid_client")
		if got := s.asked.Load() - before; got != 1 {
			t.Errorf("%s: fetched %d times", rule, got)
		}
	}
	for rule, c := range map[string]struct {
		changes map[string]any
		why     string
	}{
		"client_id of another": {map[string]any{"client_id": "https://app.test/client"}, ""},
		"client_id in another spelling": {map[string]any{"client_id": strings.Replace(s.id(), "127.0.0.1", "127.0.0.01", 1)},
			""},
		"client_id with a slash more": {map[string]any{"client_id": s.id() + "/"}, ""},
		"no client_id":                {map[string]any{"client_id": nil}, ""},
		"client_id in capitals":       {map[string]any{"client_id": nil, "Client_ID": s.id()}, ""},
		"client_id that is no text":   {map[string]any{"client_id": []string{s.id()}}, ""},
		"client_secret":               {map[string]any{"client_secret": "x"}, "must not have client_secret"},
		"client_secret, empty": {map[string]any{"client_secret": nil, "client_secret_expires_at": 0},
			"must not have client_secret_expires_at"},
		"client_secret_basic": {map[string]any{"token_endpoint_auth_method": "client_secret_basic"}, secrets},
		"client_secret_post":  {map[string]any{"token_endpoint_auth_method": "client_secret_post"}, secrets},
		"client_secret_jwt":   {map[string]any{"token_endpoint_auth_method": "client_secret_jwt"}, secrets},
		"tls_client_auth":     {map[string]any{"token_endpoint_auth_method": "tls_client_auth"}, secrets},
		"private_key_jwt without keys": {map[string]any{"token_endpoint_auth_method": "private_key_jwt"},
			"needs jwks or jwks_uri"},
		"a private key": {map[string]any{"token_endpoint_auth_method": "private_key_jwt",
			"jwks": json.RawMessage(private)}, "is part of a private key"},
		"a symmetric key": {map[string]any{"jwks": map[string]any{"keys": []any{map[string]any{"kty": "oct",
			"k": "c2VjcmV0"}}}}, "is part of a private key"},
		"jwks and jwks_uri": {map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": s.URL +
			"/keys", "jwks": json.RawMessage(jwksOf(t, publicJWK(testKeys()["ES256"], "k")))}, "exclude each other"},
		"no redirect URIs": {map[string]any{"redirect_uris": nil}, "redirect_uris is required"},
		"a redirect URI of plain http": {map[string]any{"redirect_uris": []string{"http://app.test/cb"}},
			"redirect_uris[0] must be https"},
		"a redirect URI that is script": {map[string]any{"redirect_uris": []string{"javascript:alert(1)"}}, "redirect_uris"},
		"any port of this machine": {map[string]any{"redirect_uris": []string{"http://localhost:*"}},
			"redirect_uris[0] must not have a wildcard"},
		"a logo that is script": {map[string]any{"logo_uri": "javascript:alert(1)"}, "logo_uri must be an https URL"},
		"a logo of plain http": {map[string]any{"logo_uri": "http://app.test/logo"},
			"logo_uri must be an https URL"},
		"a name that turns around": {map[string]any{"client_name": "Fancy \u202eknaB"}, "client_name"},
		"a name without end":       {map[string]any{"client_name": strings.Repeat("x", 101)}, "client_name"},
		"client credentials alone": {map[string]any{"grant_types": []string{"client_credentials"}},
			"grant_types has none"},
		"token exchange alone": {map[string]any{"grant_types": []string{oauth.GrantTokenExchange}},
			"grant_types has none"},
		"implicit alone": {map[string]any{"grant_types": []string{"implicit"},
			"response_types": []string{"token"}}, "grant_types has none"},
		"no code": {map[string]any{"response_types": []string{"id_token"}},
			"response_types must be code"},
		"a member of another type": {map[string]any{"redirect_uris": callback}, "redirect_uris must be a list of texts"},
		"devices in any sector": {map[string]any{"subject_type": "pairwise",
			"grant_types": []string{"authorization_code", deviceGrant}}, "must be the host of the document"},
		"redirects of somebody else": {map[string]any{"subject_type": "pairwise"}, "must be the host of the document"},
		"a sector of somebody else": {map[string]any{"subject_type": "pairwise",
			"sector_identifier_uri": "https://10.0.0.1/sector"}, "must be the host of the document"},
		"a sector that is not fetched": {map[string]any{"sector_identifier_uri": "https://10.0.0.1/sector"},
			"sector_identifier_uri cannot be fetched"},
	} {
		s.says(s.document(c.changes))
		refused(rule, c.why)
	}
	good := s.document(nil)
	for rule, answer := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.id(), http.StatusFound)
		},
		"a redirect to us": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, p.issuer, http.StatusFound) },
		"status 201": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(good))
		},
		"status 404": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, good, http.StatusNotFound) },
		"status 500": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, good, http.StatusInternalServerError) },
		"HTML": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(good))
		},
		"text": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte(good))
		},
		"no type": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = w.Write([]byte(good))
		},
		"a connection lost": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		s.does(answer)
		refused(rule, "")
	}
	for rule, text := range map[string]string{
		"no JSON": "<html>", "nothing": "", "null": "null", "an array": "[" + good + "]", "a string": `"x"`,
		"two documents": good + good, "cut off": good[:len(good)-1],
		"17 KiB": good + strings.Repeat(" ", 17<<10), "deep": strings.Repeat("[", 16000), "bad text": strings.Replace(good,
			"Fancy", "\xff\x00", 1),
	} {
		s.says(text)
		refused(rule, "")
	}
	if elsewhere.asked.Load() != 0 {
		t.Error("a redirect was followed")
	}
	s.says(good, "Content-Type", "application/oauth-client+json")
	p.clock.forward(48 * time.Hour)
	if c := p.knows(s.id()); c == nil || c.ClientName != "Fancy Agent" {
		t.Error("a good document is not taken after all that")
	}
	if fault := sealedOrSigned.FindString(p.log.String()); fault != "" || strings.Contains(p.log.String(), "level=ERROR") {
		t.Error("the log has faults")
	}
}

// A document is written for many servers: what this one does not have for it is left out, and is no fault of it.
func TestDocumentForManyServers(t *testing.T) {
	p, s := newDescribed(t)
	s.says(s.document(map[string]any{
		"grant_types":    []string{"authorization_code", "client_credentials", oauth.GrantTokenExchange, "urn:example:other"},
		"response_types": []string{"code", "code id_token"}, "scope": "openid other:read threads:read",
		"token_endpoint_auth_method": nil,
		"client_uri":                 "https://app.test/", "software_version": "7", "contacts": []string{"a@app.test"},
		"client_name#ja": "すごい",
	}))
	c := p.knows(s.id())
	if c == nil {
		t.Fatal("refused")
	}
	if got := strings.Join(c.GrantTypes, " ") + " / " + strings.Join(c.Scopes, " "); got != "authorization_code / "+
		"openid threads:read" {
		t.Errorf("grant types and scopes %q", got)
	}
	if !c.Public || c.Revision != 0 || len(c.Secrets) > 0 || c.App != "" {
		t.Errorf("%+v", c)
	}
	s.says(s.document(map[string]any{"scope": nil, "grant_types": nil, "response_types": nil}))
	p.clock.forward(time.Hour)
	if c := p.knows(s.id()); c == nil || strings.Contains(strings.Join(c.Scopes, " "), "threads") || len(c.Scopes) == 0 {
		t.Errorf("by default: %+v", c)
	}
}

// SSRF: an address that is not public is not even dialled.
func TestDocumentOnLoopbackIsNeverDialled(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dialled atomic.Int64
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			_ = conn.Close()
		}
	}()
	p := newIDP(t, func(c *server.Config) { c.ClientIDMetadataDocuments = true })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"} {
		q := p.as(&storage.Client{ID: "https://" + host + ":" + port + "/c"}, "")
		q.browser().get(q.authorizeURL(withPKCE...)).wants(t, host, http.StatusBadRequest, "invalid_client")
		q.refresh("wfr_x").wants(t, host, http.StatusUnauthorized, "invalid_client")
	}
	for _, id := range []string{"http://127.0.0.1:" + port + "/c", "https://a@127.0.0.1:" + port +
		"/c", "https://127.0.0.1:" + port, "https://127.0.0.1:" + port + "/a/../c"} {
		q := p.as(&storage.Client{ID: id}, "")
		q.browser().get(q.authorizeURL(withPKCE...)).wants(t, id, http.StatusBadRequest, "invalid_client")
	}
	_ = listener.Close()
	<-closed
	if dialled.Load() != 0 {
		t.Errorf("dialled %d times", dialled.Load())
	}
}

// A document is fetched again when it has grown old, and what it says then counts at once for what users allowed
// before.
func TestDocumentChanges(t *testing.T) {
	p, s := newDescribed(t)
	tokens := p.described("scope", "openid threads:read")
	s.says(s.document(map[string]any{"redirect_uris": []string{"https://app.test/new"}, "scope": "openid"}))
	code := p.code(withPKCE...)
	p.clock.forward(11 * time.Minute)
	b := p.browser()
	b.get(p.authorizeURL(withPKCE...)).wants(t, "a redirect URI that was removed", http.StatusBadRequest,
		"unauthorized_client")
	if got := b.get(p.authorizeURL(withPKCE...)); !strings.Contains(got.body, "add it to redirect_uris of the "+
		"client&#39;s document") {
		t.Errorf("the developer is not told what to do: %s", shown(got.body))
	}
	p.exchange(code, "code_verifier", verifier).wants(t, "an old code", http.StatusBadRequest, "invalid_grant")
	next := p.refresh(tokens.text("refresh_token"))
	if next.status != http.StatusOK || next.text("scope") != "openid" {
		t.Errorf("a scope that was removed: %d %s", next.status, next.raw)
	}

	// It becomes a confidential client: nobody refreshes without its key.
	s.says(s.document(map[string]any{"token_endpoint_auth_method": "private_key_jwt",
		"jwks": json.RawMessage(jwksOf(t, publicJWK(testKeys()["ES256"], "k")))}))
	p.clock.forward(11 * time.Minute)
	p.refresh(next.text("refresh_token")).wants(t, "without the key", http.StatusUnauthorized, "invalid_client")
	next = p.asserting("/oauth/token", p.assertion("ES256", nil), refreshing(next.text("refresh_token")))
	if next.status != http.StatusOK {
		t.Fatalf("with the key: %d %s", next.status, next.raw)
	}

	// Its site fails for a while, then says that it is gone.
	s.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	p.clock.forward(23 * time.Hour)
	next = p.asserting("/oauth/token", p.assertion("ES256", nil), refreshing(next.text("refresh_token")))
	if next.status != http.StatusOK {
		t.Fatalf("while the site fails: %d %s", next.status, next.raw)
	}
	s.does(http.NotFound)
	p.clock.forward(11 * time.Second)
	p.asserting("/oauth/token", p.assertion("ES256", nil), refreshing(next.text("refresh_token"))).
		wants(t, "when it is gone", http.StatusUnauthorized, "invalid_client")
	p.userinfo(next.text("access_token")).wants(t, "userinfo when it is gone", http.StatusUnauthorized, "invalid_token")
	s.says(s.document(nil))
	p.clock.forward(11 * time.Second)
	if got := p.refresh(next.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("when it is back: %d %s", got.status, got.raw)
	}
	s.does(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	p.clock.forward(25 * time.Hour)
	if p.knows(s.id()) != nil {
		t.Error("a document is used for ever while its site is away")
	}
}

// Section 5.2, RFC 9111 section 5.2.2: its site says how long a document is good, within bounds.
func TestDocumentCaching(t *testing.T) {
	for control, want := range map[string]time.Duration{
		"": 10 * time.Minute, "public": 10 * time.Minute, "max-age=600": 10 * time.Minute, "public, MAX-AGE=3600": time.Hour,
		`max-age="120"`: 2 * time.Minute,
		"max-age=0":     time.Minute, "no-store": time.Minute, "max-age=3600, no-cache": time.Minute,
		"max-age=99999999": 24 * time.Hour,
		"max-age=-1":       10 * time.Minute, "max-age=x": 10 * time.Minute, "max-age=99999999999999999999": 10 * time.Minute,
		"max-age": 10 * time.Minute, ",,=,": 10 * time.Minute,
	} {
		if got := server.FreshFor(control); got != want {
			t.Errorf("%q: %s, want %s", control, got, want)
		}
	}
	p, s := newDescribed(t)
	step := func(rule, name string, asked int64) {
		t.Helper()
		got := ""
		if c := p.knows(s.id()); c != nil {
			got = c.ClientName
		}
		if got != name || s.asked.Load() != asked {
			t.Errorf("%s: %q, asked %d times; want %q, %d", rule, got, s.asked.Load(), name, asked)
		}
	}
	s.says(s.document(map[string]any{"client_name": "one"}), "Cache-Control", "max-age=3600")
	step("first", "one", 1)
	s.says(s.document(map[string]any{"client_name": "two"}), "Cache-Control", "no-store")
	p.clock.forward(59 * time.Minute)
	step("from memory", "one", 1)
	p.clock.forward(2 * time.Minute)
	step("grown old", "two", 2)
	p.clock.forward(50 * time.Second)
	step("not to be stored", "two", 2)
	s.says("<html>")
	p.clock.forward(11 * time.Second)
	step("no document any more", "", 3)
	for range 5 {
		step("what is bad is not fetched at each request", "", 3)
	}
	s.says(s.document(map[string]any{"client_name": "three"}))
	step("just after a fetch", "", 3)
	p.clock.forward(11 * time.Second)
	step("what is bad is not kept", "three", 4)
	s.says(s.document(map[string]any{"client_secret": "x"}))
	p.clock.forward(11 * time.Minute)
	step("bad", "", 5)
	s.says(s.document(map[string]any{"client_name": "four"}))
	p.clock.forward(11 * time.Second)
	step("good again", "four", 6)
}

func TestDocumentIsFetchedOnceForAllWhoWait(t *testing.T) {
	p, s := newDescribed(t)
	waiting, text := make(chan struct{}), s.document(nil)
	s.does(func(w http.ResponseWriter, _ *http.Request) {
		<-waiting
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(text))
	})
	var begun, found atomic.Int64
	together(32, func(int) {
		if begun.Add(1) == 32 {
			close(waiting)
		}
		if p.knows(s.id()) != nil {
			found.Add(1)
		}
	})
	if found.Load() != 32 || s.asked.Load() != 1 {
		t.Errorf("%d found the client, its site was asked %d times", found.Load(), s.asked.Load())
	}
}

// A document that is slow to come keeps few waiting, and everybody else is served.
func TestSlowDocumentKeepsNobodyOut(t *testing.T) {
	p, s := newDescribed(t)
	waiting := make(chan struct{})
	s.does(func(w http.ResponseWriter, _ *http.Request) { <-waiting })
	var all sync.WaitGroup
	var busy atomic.Int64
	for range server.MostAtWork + 50 {
		all.Go(func() {
			if r := p.browser().get(p.authorizeURL(withPKCE...)); r.status == http.StatusServiceUnavailable {
				busy.Add(1)
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); busy.Load() < server.MostAtWork; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d were told to come back", busy.Load())
		}
	}
	if r := p.browser().get(p.issuer + "/device"); r.status != http.StatusOK {
		t.Errorf("another page: %d %s", r.status, shown(r.body))
	}
	close(waiting)
	all.Wait()
}

// However many documents are named: memory is bounded, and so are the fetches, of each host as well. Who is known goes
// on.
func TestFloodOfDocuments(t *testing.T) {
	p, s := newDescribed(t)
	if p.knows(s.id()) == nil {
		t.Fatal("not known")
	}
	srv := p.handler.(*server.Server)
	busy := func(id func(int) string) (n int) {
		for i := range 1500 {
			switch _, err := srv.KnownClient(t.Context(), id(i)); {
			case err == nil:
				t.Error("a client from nowhere")
			case !errors.Is(err, storage.ErrNotFound):
				n++
			}
		}
		return n
	}
	before := s.asked.Load()
	if got := busy(func(i int) string { return fmt.Sprintf("%s/%d", s.URL, i) }); got != 1481 ||
		s.asked.Load()-before != 19 {
		t.Errorf("one host: %d refused, asked %d times", got, s.asked.Load()-before)
	}
	if got := busy(func(i int) string { return fmt.Sprintf("https://10.0.%d.%d/c", i/250, i%250) }); got < 1400 ||
		got > 1450 {
		t.Errorf("many hosts: %d refused", got)
	}
	if got := srv.Documents(); got != 1000 {
		t.Errorf("%d kept", got)
	}
	q := p.as(&storage.Client{ID: "https://10.9.9.9/c"}, "")
	q.browser().get(q.authorizeURL(withPKCE...)).wants(t, "beyond the limit", http.StatusServiceUnavailable,
		"temporarily_unavailable")
	q.refresh("wfr_x").wants(t, "beyond the limit", http.StatusServiceUnavailable, "temporarily_unavailable")
	lines := 0
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, "client ID metadata document") && !strings.Contains(line, `msg="request refused"`) {
			lines++
		}
	}
	if errs := strings.Count(p.log.String(), "level=ERROR"); lines > 40 || errs > 0 {
		t.Errorf("a stranger causes %d lines about documents, and %d errors", lines, errs)
	}
	before = s.asked.Load()
	if p.knows(s.id()) == nil || s.asked.Load() != before {
		t.Error("a client that is known suffers")
	}
	s.says(s.document(map[string]any{"client_name": "Newer"}))
	p.clock.forward(11 * time.Minute)
	busy(func(i int) string { return fmt.Sprintf("https://10.1.%d.%d/c", i/250, i%250) })
	if c := p.knows(s.id()); c == nil || c.ClientName != "Newer" {
		t.Error("a client that is known is not fetched again in a flood")
	}
}

// Anybody can publish a document: this server must not become a way to send browsers anywhere (RFC 9700 section
// 4.11.2).
func TestOpenRedirectByADocument(t *testing.T) {
	p, s := newDescribed(t)
	s.says(s.document(map[string]any{"redirect_uris": []string{callback, "https://evil.test/"},
		"initiate_login_uri": "https://evil.test/"}))
	for rule, change := range map[string][]string{
		"a scope that is none": {"scope", "x"}, "no PKCE": {"code_challenge", ""}, "another response type": {"response_type",
			"token"}, "a prompt that is none": {"prompt", "x"},
		"a form post": {"response_type", "token", "response_mode", "form_post"},
	} {
		got := p.browser().get(p.authorizeURL(append(append([]string{"redirect_uri", "https://evil.test/"}, withPKCE...),
			change...)...))
		if got.status != http.StatusBadRequest || got.location != nil || strings.Contains(got.body, "<script") {
			t.Errorf("%s: %d, %v, %s", rule, got.status, got.location, shown(got.body))
		}
	}
	if got := p.browser().get(p.issuer + "/oauth/start?" +
		url.Values{"client_id": {s.id()}}.Encode()); got.status != http.StatusBadRequest || got.location != nil {
		t.Errorf("start: %d %v", got.status, got.location)
	}
	b, page := p.signedInAt(withPKCE...)
	if got := b.decide(page, "deny"); got.location != nil ||
		b.link(got, "denied").Query().Get("error") != "access_denied" {
		t.Errorf("denied: %d %v", got.status, got.location)
	}
	silent := p.browser().get(p.authorizeURL(append(withPKCE, "prompt", "none")...))
	if silent.location != nil || b.link(silent, "silent authentication").Query().Get("error") != "login_required" {
		t.Errorf("silent authentication: %d %v", silent.status, silent.location)
	}
}

// A program on the user's computer can say that it is any public client (RFC 8252 section 8.6): the user is asked each
// time.
func TestDocumentOfALocalProgram(t *testing.T) {
	p, s := newDescribed(t)
	const local = "http://127.0.0.1:33418/"
	s.says(s.document(map[string]any{"redirect_uris": []string{callback, local}}))
	b := p.browser()
	b.code(append(withPKCE, "redirect_uri", local)...)
	if got := b.get(p.authorizeURL(append(withPKCE, "redirect_uri", local)...)); got.asks() != "decision" {
		t.Errorf("not asked again: %d %v", got.status, got.location)
	}
	if got := b.get(p.authorizeURL(append(withPKCE, "redirect_uri", local, "prompt", "none")...)); b.link(got,
		"prompt=none").Query().Get("error") != "consent_required" {
		t.Errorf("prompt=none: %d %v", got.status, got.location)
	}
	pushed := p.push(append(withPKCE, "redirect_uri", local)...)
	if got := b.get(p.pushedURL(pushed)); got.asks() != "decision" {
		t.Errorf("not asked again after a push: %d %v", got.status, got.location)
	}
	b.allows(p.authorizeURL(withPKCE...), "where the client is known by its address")
}

// signedInAt is a browser that has signed in for a request and has not decided anything.
func (p *idp) signedInAt(changes ...string) (*browser, page) {
	p.t.Helper()
	b := p.browser()
	got := b.follow(b.signIn(b.follow(b.get(p.authorizeURL(changes...))), userEmail, userPassword))
	if got.asks() != "decision" {
		p.t.Fatalf("no consent page: %d %s", got.status, shown(got.body))
	}
	return b, got
}

// A record that an operator stores under a URL takes the place of the document, even where memory lags behind; and it
// is as gone when it is removed as any other.
func TestRecordInThePlaceOfADocument(t *testing.T) {
	p, s := newDescribed(t)
	tokens := p.described()
	code := p.code(withPKCE...)
	behind := p.replica(p.lagging()).as(p.client, "")
	if behind.knows(s.id()) == nil {
		t.Fatal("not known at the replica")
	}
	stored, secret := p.register("agent", func(c *storage.Client) { c.ID = s.id(); c.ClientName = "Registered" })
	if c := p.knows(s.id()); c == nil || c.ClientName != "Registered" {
		t.Fatalf("%+v", c)
	}
	behind.exchange(code, "code_verifier", verifier).wants(t, "by the document, where memory lags",
		http.StatusUnauthorized, "invalid_client")
	p.refresh(tokens.text("refresh_token")).wants(t, "by the document", http.StatusUnauthorized, "invalid_client")
	if got := p.as(stored, secret).exchange(p.code(), "client_secret", secret); got.status != http.StatusOK {
		t.Errorf("by the record: %d %s", got.status, got.raw)
	}
	asked := s.asked.Load()
	p.clock.forward(48 * time.Hour)
	p.update("agent", func(c *storage.Client) { c.Disabled = true })
	if p.knows(s.id()) != nil || s.asked.Load() != asked {
		t.Error("a disabled record gives way to the document")
	}
}

// The transaction of a grant compares the user as well: a change is decided anew, on the document.
func TestUserChangesWithADocument(t *testing.T) {
	p, s := newDescribed(t)
	tokens := p.described()
	code := p.code(withPKCE...)
	p.putUser(storage.User{ID: "user-ann", Email: "new@app.test"})
	var next, exchanged reply
	if got := p.etcd.Count(func() {
		next = p.refresh(
			tokens.text("refresh_token"))
	}); got != (storagetest.Counts{Proposals: 2, Reads: 1}) || next.status != http.StatusOK {
		t.Errorf("refresh: %+v, %d %s", got, next.status, next.raw)
	}
	if exchanged = p.exchange(code, "code_verifier", verifier); exchanged.status != http.StatusOK {
		t.Errorf("exchange: %d %s", exchanged.status, exchanged.raw)
	}
	// The document ends in the very moment in which the user changes.
	s.does(http.NotFound)
	p.putUser(storage.User{ID: "user-ann", Email: "newer@app.test", Disabled: true})
	p.refresh(next.text("refresh_token")).wants(t, "a disabled user", http.StatusBadRequest, "invalid_grant")
}

// A client that is a document costs etcd nothing that another does not.
func TestWhatDocumentsAskOfEtcd(t *testing.T) {
	p, s := newDescribed(t)
	warm := p.described("scope", "openid")
	code := p.code(append(withPKCE, "scope", "openid")...)
	stranger := p.browser()
	p.clock.forward(11 * time.Minute)
	p.described() // the leases of this time
	s.asked.Store(0)
	p.clock.forward(time.Minute)
	for _, c := range []struct {
		rule   string
		want   storagetest.Counts
		status int
		do     func() int
	}{
		{"authorize before sign-in", storagetest.Counts{}, 200, func() int {
			return stranger.get(p.authorizeURL(withPKCE...)).status
		}},
		{"authorize with a document that is none", storagetest.Counts{}, 400, func() int {
			return stranger.get(p.authorizeURL("client_id", "https://10.0.0.1/c")).status
		}},
		{"refresh", storagetest.Counts{Proposals: 1}, 200, func() int {
			warm = p.refresh(warm.text("refresh_token"))
			return warm.status
		}},
		{"userinfo", storagetest.Counts{Reads: 1}, 200, func() int { return p.userinfo(warm.text("access_token")).status }},
		{"an unknown document at the token endpoint", storagetest.Counts{}, 401, func() int {
			return p.refresh("wfr_x", "client_id", "https://10.0.0.2/c").status
		}},
	} {
		status := 0
		if got := p.etcd.Count(func() { status = c.do() }); got != c.want || status != c.status {
			t.Errorf("%s: %+v, want %+v; status %d, want %d", c.rule, got, c.want, status, c.status)
		}
	}
	if p.exchange(code, "code_verifier", verifier).status != http.StatusBadRequest {
		t.Error("a code of 12 minutes is good")
	}
	code = p.code(append(withPKCE, "scope", "openid")...)
	if got := p.etcd.Count(func() {
		p.exchange(code, "code_verifier",
			verifier)
	}); got != (storagetest.Counts{Proposals: 1}) {
		t.Errorf("exchange: %+v", got)
	}
}
