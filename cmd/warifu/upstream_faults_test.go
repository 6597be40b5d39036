package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server/connector/connectortest"
)

// front is where an upstream is reached, and what happens to whoever comes.
type front struct {
	address string
	healthy string // where the upstream itself is
	way     atomic.Pointer[func(f *front, c net.Conn)]
	visits  atomic.Int64

	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

// newFront begins on the way that it is given.
func newFront(t *testing.T, healthy string, way func(*front, net.Conn)) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{address: l.Addr().String(), healthy: healthy, conns: map[net.Conn]bool{}}
	f.way.Store(&way)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.visits.Add(1)
			f.mu.Lock()
			f.conns[c] = true
			f.mu.Unlock()
			all.Go(func() {
				(*f.way.Load())(f, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.drop()
		all.Wait()
	})
	return f
}

// is changes what happens, also to those who are connected.
func (f *front) is(way func(*front, net.Conn)) {
	f.way.Store(&way)
	f.drop()
}

func (f *front) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
		delete(f.conns, c)
	}
}

// well lets everything through.
func well(f *front, c net.Conn) {
	upstream, err := net.Dial("tcp", f.healthy)
	if err != nil {
		return
	}
	go func() { // ends with either of the two
		_, _ = io.Copy(upstream, c)
		_ = upstream.Close()
	}()
	_, _ = io.Copy(c, upstream)
	_ = c.Close()
}

// hanging takes everything and says nothing.
func hanging(_ *front, c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// refused ends each connection.
func refused(_ *front, c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }

// every answers each connection in TLS, if it is to be, by write.
func every(tlsConfig *tls.Config, write func(c net.Conn)) func(*front, net.Conn) {
	return func(_ *front, c net.Conn) {
		if tlsConfig != nil {
			c = tls.Server(c, tlsConfig)
		}
		go func() { _, _ = io.Copy(io.Discard, c) }() // ends with the connection
		write(c)
	}
}

// slowly says a byte now and then.
func slowly(text string) func(net.Conn) {
	return func(c net.Conn) {
		for i := range len(text) {
			if _, err := c.Write([]byte{text[i]}); err != nil {
				return
			}
			time.Sleep(500 * time.Millisecond) // that is what is wrong with it
		}
	}
}

func atOnce(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, text)
		time.Sleep(100 * time.Millisecond) // so that the reply is read before the connection is reset
	}
}

const httpHead = "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"

func httpReply(status, body string) string { return fmt.Sprintf(httpHead, status, len(body)) + body }

// failures of an upstream: what it says, whatever it is asked.
var failures = []struct{ name, http, ldap string }{
	{"500", httpReply("500 Internal Server Error", "it is jane@example.org"),
		"0\x0c\x02\x01\x01a\x07\n\x014\x04\x00\x04\x00"},
	{"garbage", "\x00\xff\x00garbage of jane@example.org\r\n\r\n", "0\x84\x7f\xff\xff\xff garbage of jane@example.org"},
	{"not JSON", httpReply("200 OK", "<html>jane@example.org</html>"), "GET / HTTP/1.1\r\n\r\n"},
	{"endless", strings.Repeat("x", 1<<20), strings.Repeat("0\x00", 1<<19)},
}

// opened is an OpenID provider that has no users, only what a sign-in begins with.
func opened(t *testing.T) (address func(issuer string) string) {
	t.Helper()
	var issuer atomic.Value
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		at := issuer.Load().(string)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": at, "authorization_endpoint": at + "/authorize",
			"token_endpoint": at + "/token", "jwks_uri": at + "/keys", "response_types_supported": []string{"code"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return func(at string) string {
		issuer.Store(at)
		return strings.TrimPrefix(server.URL, "http://")
	}
}

// Upstreams that fail, from the start and later: the server is ready without any of them, says within ten seconds which
// of them does not answer, and lets everybody else in. They are used again once they work, without a restart.
func TestUpstreamsThatFail(t *testing.T) {
	t.Parallel()
	d := connectortest.StartSlapd(t, connectortest.Entries())
	ca := connectortest.NewCA(t)
	cert, key := ca.Issue(t, "127.0.0.1")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	ldapCert, ldapKey := d.CA.Issue(t, "127.0.0.1")
	ldapPair, err := tls.LoadX509KeyPair(ldapCert, ldapKey)
	if err != nil {
		t.Fatal(err)
	}
	secure := &tls.Config{Certificates: []tls.Certificate{pair}}
	secureLDAP := &tls.Config{Certificates: []tls.Certificate{ldapPair}}

	// GitHub that refuses every code: what it takes to see that it is asked.
	github := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"error":"bad_verification_code"}`)
	}))
	github.TLS = secure
	github.Config.ErrorLog = log.New(io.Discard, "", 0)
	github.StartTLS()
	t.Cleanup(github.Close)

	type upstream struct {
		id, kind string
		*front
		fails func(*front, net.Conn)
	}
	var ups []upstream
	var connectors strings.Builder
	add := func(failure, kind string, fails func(*front, net.Conn)) {
		u := upstream{id: kind + "-" + failure, kind: kind, fails: fails}
		u.id = strings.ReplaceAll(u.id, " ", "-")
		switch kind {
		case "ldap":
			u.front = newFront(t, d.AddrTLS, fails)
			behind := *d
			behind.AddrTLS = u.address
			connectors.WriteString(ldapConnector(&behind, u.id, "groups", ""))
		case "oidc":
			op := opened(t)
			u.front = newFront(t, "", fails)
			u.healthy = op("http://" + u.address)
			fmt.Fprintf(&connectors, "  - {type: oidc, id: %s, name: OP (%s), "+
				"config: {issuer: 'http://%s', clientID: x, clientSecret: x}}\n", u.id, u.id, u.address)
		case "github":
			u.front = newFront(t, github.Listener.Addr().String(), fails)
			fmt.Fprintf(&connectors, "  - {type: github, id: %s, name: Hub (%s), "+
				"config: {hostName: '%s', rootCA: '%s', clientID: x, clientSecret: x}}\n", u.id, u.id, u.address, ca.File)
		}
		ups = append(ups, u)
	}
	for _, kind := range []string{"oidc", "ldap", "github"} {
		add("refused", kind, refused)
		add("hanging", kind, hanging)
		conf := map[string]*tls.Config{"ldap": secureLDAP, "github": secure}[kind]
		text := func(f struct{ name, http, ldap string }) string {
			if kind == "ldap" {
				return f.ldap
			}
			return f.http
		}
		add("slow", kind, every(conf, slowly(text(failures[0]))))
		for _, f := range failures {
			add(f.name, kind, every(conf, atOnce(text(f))))
		}
	}

	began := time.Now()
	s := serveUpstreams(t, "connectors:\n"+connectors.String())
	t.Logf("ready after %v", time.Since(began))
	for _, u := range ups {
		if n := u.visits.Load(); n > 0 {
			t.Errorf("to be ready, %s was asked %d times", u.id, n)
		}
	}
	descriptors := s.descriptors(t)
	all := func(what string, visit func(u upstream)) (others int) {
		t.Helper()
		var visits sync.WaitGroup
		for _, u := range ups {
			visits.Go(func() { visit(u) })
		}
		done := make(chan struct{})
		go func() {
			visits.Wait()
			close(done)
		}()
		for running := true; running; { // meanwhile, others sign in
			v := s.visitor(t).opens("board", "connector_id", "local").fills("ann@example.com", "password")
			if claims := claimsOf(t, v.signedIn("board")); claims["sub"] != "ann" {
				t.Errorf("%s: ann: %v", what, claims)
			}
			select {
			case <-done:
				running = false
			default:
				if others++; others == 10 { // that is enough
					<-done
					running = false
				}
			}
		}
		return others
	}
	// back comes back from an upstream, with a code that it does not know.
	back := func(v *visitor, id string) {
		answer := url.Values{"code": {"x"}, "state": {v.url.Query().Get("state")}}
		v.get(s.issuer + "/callback/" + id + "?" + answer.Encode())
	}
	// tried goes so far with a connector that its upstream must be asked.
	tried := func(u upstream) *visitor {
		v := s.visitor(t)
		v.stays = true
		v.opens("board", "connector_id", u.id)
		switch {
		case u.kind == "ldap":
			v.fills("jane", "jane's password")
		case v.url.Host == u.address && u.kind == "github":
			back(v, u.id)
		}
		return v
	}
	if others := all("at the start", func(u upstream) { tried(u).unavailable(u.id, u.id) }); others < 1 {
		t.Error("nobody else could sign in meanwhile")
	}
	for _, u := range ups {
		u.is(well)
	}
	works := func(u upstream, v *visitor) bool {
		switch u.kind {
		case "ldap":
			return v.url.Host == "board.example.com"
		case "oidc":
			return v.url.Host == u.address && v.url.Path == "/authorize"
		}
		return v.status == http.StatusForbidden // the verdict of GitHub
	}
	all("when they are back", func(u upstream) {
		deadline := time.Now().Add(90 * time.Second)
		for {
			v := tried(u)
			if works(u, v) {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%s does not come back: %d %s at %s", u.id, v.status, v.page.words(), v.url)
				return
			}
			time.Sleep(time.Second)
		}
	})
	if others := all("later", func(u upstream) {
		v := s.visitor(t)
		v.stays = true
		v.opens("board", "connector_id", u.id)
		u.is(u.fails)
		if u.kind == "ldap" {
			v.fills("jane", "jane's password")
		} else {
			back(v, u.id)
		}
		v.unavailable(u.id+", later", u.id)
	}); others < 1 {
		t.Error("nobody else could sign in meanwhile")
	}
	for _, u := range ups {
		u.is(refused)
	}
	for deadline := time.Now().Add(patience); s.descriptors(t) > descriptors+10; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%d files and connections are open, %d were at the start", s.descriptors(t), descriptors)
			break
		}
	}
	for _, secret := range []string{"jane", "dc=example", "'s password", connectortest.ReaderPassword} {
		for line := range strings.Lines(s.said.String()) {
			if strings.Contains(line, secret) {
				t.Errorf("the log says %q: %s", secret, line)
			}
		}
	}
}

// descriptors are how many files and connections the server has open.
func (s *serving) descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
