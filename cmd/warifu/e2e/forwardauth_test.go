//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// wall is a proxy before two apps that know no OAuth, with the files of manifests/deploy as people install them.
type wall struct {
	t      *testing.T
	server *process
	port   string
	wiki   *hidden // at localhost
	vault  *hidden // at 127.0.0.1, for the group of which nobody is
}

// hidden is an app that knows no OAuth. It says what it is told of its users, and takes WebSockets.
type hidden struct {
	*httptest.Server
	came atomic.Int64
	last atomic.Pointer[http.Header]
}

func newHidden(t *testing.T) *hidden {
	a := &hidden{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/favicon.ico" { // whenever the browser likes
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header := r.Header.Clone()
		a.last.Store(&header)
		a.came.Add(1)
		if r.Header.Get("Upgrade") == "websocket" {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(w, `<!doctype html><title>Wiki</title><p id="result">%s %s</p>`, r.Method,
			html.EscapeString(r.URL.RequestURI()))
	}))
	t.Cleanup(a.Close)
	return a
}

// told are the headers of the last request that a gateway would take for those which say who the user is.
func (a *hidden) told() string {
	header := a.last.Swap(nil)
	if header == nil {
		return "nothing has come"
	}
	told := make(map[string][]string)
	for name, values := range *header {
		if strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), "remote-") &&
			strings.Join(values, "") != "" {
			told[name] = values
		}
	}
	text, err := json.Marshal(told)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// proxies are those that people have before their apps: each gets the files of manifests/deploy and a configuration
// around them.
var proxies = map[string]struct {
	install, files string
	config         func(w *wall) string
	command        func(dir, config string) *exec.Cmd
}{
	"nginx": {"nginx", "nginx", nginxConfig, func(dir, config string) *exec.Cmd {
		return exec.Command("nginx", "-p", dir, "-c", config, "-e", "stderr")
	}},
	"caddy": {"caddy", "caddy", caddyConfig, func(dir, config string) *exec.Cmd {
		return exec.Command("caddy", "run", "--adapter", "caddyfile", "--config", config)
	}},
}

func nginxConfig(w *wall) string {
	site := func(host string, app *hidden) string {
		return fmt.Sprintf(`
	server {
		listen 127.0.0.1:%[1]s;
		server_name %[2]s;
		set $warifu_host %[2]s:%[1]s;
		set $warifu_scheme http;
		include snippets/warifu.conf;
		location / { proxy_pass %[3]s; }
		location /ws {
			include snippets/warifu-user.conf;
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $connection_upgrade;
			proxy_pass %[3]s;
		}
	}`, w.port, host, app.URL)
	}
	return fmt.Sprintf(`daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events {}
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	underscores_in_headers on; # as it comes it drops them: here they are to arrive
	map $http_upgrade $connection_upgrade { default upgrade; "" close; }
	upstream warifu { server %s; keepalive 16; }%s%s
}
`, strings.TrimPrefix(w.server.ready.Issuer, "http://"), site("localhost", w.wiki), site("127.0.0.1", w.vault))
}

func caddyConfig(w *wall) string {
	site := func(host string, app *hidden) string {
		return fmt.Sprintf("http://%s:%s {\n\troute {\n\t\timport warifu\n\t\treverse_proxy %s\n\t}\n}\n",
			host, w.port, app.URL)
	}
	return "{\n\tadmin off\n\tauto_https off\n}\nimport snippets/warifu.caddy\n" + site("localhost", w.wiki) +
		site("127.0.0.1", w.vault)
}

// newWall starts a server, two apps and a proxy before them.
func newWall(t *testing.T, name string) *wall {
	proxy := proxies[name]
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: apt-get install --no-install-recommends %s, and mask its service", name, proxy.install)
	}
	dir := t.TempDir()
	server := serve(t, t.TempDir(), map[string]string{"ann": "ann's password"})
	address := freeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	w := &wall{t: t, server: server, port: port, wiki: newHidden(t), vault: newHidden(t)}
	for app, at := range map[string]struct{ host, more string }{
		"wiki": {"localhost", ""}, "vault": {"127.0.0.1", "access: {groups: [keepers]}"},
	} {
		command(t, fmt.Sprintf(`apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: %[1]s}
spec:
  version: 1.0.0
  oauth:
    clientName: The %[1]s
    scopes: [openid, profile, email, groups]
    forwardAuth: {hosts: ["%[2]s:%[3]s"]}
    %[4]s
`, app, at.host, port, at.more), "apply", "--yes", "--admin", server.ready.Admin, "-f", "-")
	}
	snippets := filepath.Join(dir, "snippets")
	if err := os.CopyFS(snippets, os.DirFS("../../../manifests/deploy/"+proxy.files)); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "proxy.conf")
	if err := os.WriteFile(config, []byte(proxy.config(w)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := proxy.command(dir, config)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir,
		"WARIFU="+strings.TrimPrefix(server.ready.Issuer, "http://"))
	said := &transcript{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = cmd.Wait() // it is told to end, and how it does so is its own affair
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("%s does not end on SIGTERM", name)
			_ = cmd.Process.Kill() // no more can be done
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, said)
		}
	})
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close() // it was there
			return w
		}
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", name, said)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not there: %v\n%s", name, err, said)
		}
	}
}

// send writes a request as it stands, and gives the answer; a name in it can be spelled as nobody would.
func (w *wall) send(line string, header ...string) *http.Response {
	w.t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+w.port)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the answer has been read
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	all := append([]string{line + " HTTP/1.1"}, header...)
	if _, err := conn.Write([]byte(strings.Join(all, "\r\n") + "\r\n\r\n")); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Fatalf("%s: %v", line, err)
	}
	_ = resp.Body.Close() // of the answer, status and header count
	return resp
}

func TestForwardAuthByNginx(t *testing.T) { forwardAuth(t, "nginx") }

func TestForwardAuthByCaddy(t *testing.T) { forwardAuth(t, "caddy") }

// forwardAuth: a person comes to an app that knows no OAuth, signs in, and is let through; what others send in their
// place is not; and when they have signed out, nothing is.
func forwardAuth(t *testing.T, name string) {
	t.Parallel()
	w := newWall(t, name)
	const here = "/pages/a%2Fb?q=1&r=%2F.."
	wiki, vault := "http://localhost:"+w.port, "http://127.0.0.1:"+w.port
	_, b := newPerson(t, "en-US,en")
	b.open(wiki + here)
	b.signIn("ann@example.com", "ann's password")
	if asked := b.readConsent(); !strings.Contains(asked.Heading, "The wiki") || asked.Host != "localhost:"+w.port {
		t.Errorf("%q, for %q", asked.Heading, asked.Host)
	}
	b.press(allow)
	b.onApp("GET " + here)
	if b.address() != wiki+here {
		t.Errorf("back at %s", b.address())
	}
	var told map[string][]string
	if err := json.Unmarshal([]byte(w.wiki.told()), &told); err != nil || len(told["Remote-User"]) != 1 ||
		told["Remote-Name"] == nil && told["Remote-Email"][0] != "ann@example.com" {
		t.Fatalf("the app is told %v %v", told, err)
	}
	honest, err := json.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	host, cookie := "Host: localhost:"+w.port, fmt.Sprintf("Cookie: warifu_app_%[1]s=%[2]s", w.port,
		b.cookie("warifu_app_"+w.port))
	const page, script = "Accept: text/html", "Accept: */*"

	for _, c := range []struct {
		rule, line string
		header     []string
		status     int
		let        bool // through to the app, which is told the truth
	}{
		{"a script", "GET /", []string{host, cookie, script}, 200, true},
		{"a form", "POST /x", []string{host, cookie, script, "Content-Length: 0"}, 200, true},
		{"a host in capitals", "GET /", []string{"Host: LOCALHOST:" + w.port, cookie, script}, 200, true},
		{"a name that is no app's header", "GET /", []string{host, cookie, "X-Remote-User: boss"}, 200, true},
		{"what is forwarded, by the client", "GET /", []string{host, cookie, "X-Forwarded-Host: 127.0.0.1:" +
			w.port, "X-Forwarded-Uri: /.warifu/logout",
			"X-Forwarded-Proto: https", "X-Forwarded-Method: BREW", "X-Forwarded-For: 192.0.2.1"}, 200, true},
		{"what is forwarded, named in Connection", "GET /", []string{host, cookie, script, "Connection: X-Forwarded-Host, " +
			"X-Forwarded-Uri, Remote-User, remote-email"}, 200, true},
		{"a WebSocket", "GET /ws", []string{host, cookie, "Upgrade: websocket", "Connection: Upgrade"}, 101, true},
		{"nobody", "GET /", []string{host, script}, 401, false},
		{"nobody, by a form", "POST /", []string{host, page, "Content-Length: 0"}, 401, false},
		{"nobody, by a browser", "GET /", []string{host, page}, 303, false},
		{"nobody, by a WebSocket", "GET /ws", []string{host, "Upgrade: websocket", "Connection: Upgrade",
			"Sec-Fetch-Mode: websocket"}, 401, false},
		{"a sign-in of nobody's", "GET /", []string{host, script, "Cookie: warifu_app_" + w.port + "=wfg_x"}, 401, false},
		{"the page that belongs to warifu", "GET /.warifu/x", []string{host, cookie, page}, 404, false},
		{"and in another spelling", "GET /%2ewarifu/x", []string{host, cookie, page}, 404, false},
		{"the way out", "GET /.warifu/logout", []string{host, cookie, page}, 303, false},
		{"the question itself", "GET /.warifu/ask", []string{host, cookie, page}, 404, false},
		{"the sign-in of one app at another", "GET /", []string{"Host: 127.0.0.1:" + w.port, cookie, script}, 401, false},
		{"which the first line names", "GET http://127.0.0.1:" + w.port + "/", []string{host, cookie, script}, 401, false},
		{"a page below that of warifu", "GET /.warifu/../x", []string{host, cookie, page}, 0, false},
		{"a user of the client's own", "GET /", []string{host, "Remote-User: boss", script}, 0, false},
	} {
		before, other := w.wiki.came.Load(), w.vault.came.Load()
		got := w.send(c.line, c.header...)
		if got.StatusCode != c.status && (c.status != 0 || got.StatusCode < 401 || got.StatusCode > 404) {
			t.Errorf("%s: %s, want %d", c.rule, got.Status, c.status)
		}
		if !c.let && got.StatusCode != http.StatusBadRequest && c.rule != "the question itself" &&
			got.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %s without the id of the request", c.rule, got.Status)
		}
		if let := w.wiki.came.Load() > before; let != c.let || w.vault.came.Load() != other {
			t.Errorf("%s: through to the wiki: %t; %d to the vault", c.rule, let, w.vault.came.Load()-other)
		}
		if c.let {
			if told := w.wiki.told(); told != string(honest) {
				t.Errorf("%s: the app is told %s, and not %s", c.rule, told, honest)
			}
		}
		for _, header := range []string{"Remote-User", "Remote-Email"} {
			if !c.let && got.Header.Get(header) != "" {
				t.Errorf("%s: the browser is told %s", c.rule, header)
			}
		}
	}
	// Whatever becomes of what the client says of itself: the app hears the truth, or nothing comes.
	for _, forged := range []string{"Remote-User: boss", "remote-user: boss", "Remote-User:",
		"Remote-Email: boss@example.com", "Remote-Groups: keepers",
		"Remote_User: boss", "REMOTE_USER: boss", "Remote_Groups: keepers", "Remote.User: boss", "Remote~User: boss"} {
		field, _, _ := strings.Cut(forged, ":")
		for _, more := range [][]string{nil, {"Connection: " + field}, {"Connection: close, " + field}, {forged}} {
			before := w.wiki.came.Load()
			got := w.send("GET /", append([]string{host, cookie, script, forged}, more...)...)
			switch came := w.wiki.came.Load() > before; {
			case !came && (got.StatusCode == http.StatusForbidden || got.StatusCode == http.StatusBadRequest):
			case !came || got.StatusCode != http.StatusOK:
				t.Errorf("%q %q: %s, and through to the app: %t", forged, more, got.Status, came)
			default:
				if told := w.wiki.told(); told != string(honest) {
					t.Errorf("%q %q: the app is told %s", forged, more, told)
				}
			}
		}
	}

	// The rules of the other app: it is told to the person, and nothing comes.
	b.open(vault + "/")
	if b.has("#result") || w.vault.came.Load() != 0 || !strings.Contains(b.text("body"), "The vault") {
		t.Errorf("the vault: %s: %s", b.address(), b.text("body"))
	}
	b.excuse("403")
	// The way out asks, and then nobody is let through any more.
	b.open(wiki + "/.warifu/logout")
	b.press(`button[value="signout"]`)
	if got := w.send("GET /", host, cookie, script); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("signed out: %s", got.Status)
	}
	b.open(wiki + here)
	b.onSignIn()
}
