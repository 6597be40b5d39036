package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Who chooses apps, clients and users by the command line moves these, and nothing of anybody else: with their ids and
// secrets, without what was begun.
func TestAFewAreExported(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{issuer: "http://" + listener.Addr().String(), dir: t.TempDir()}
	_ = listener.Close()
	in := func(name string) string { return filepath.Join(s.dir, name) }
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configured := func(dir string) string {
		return fmt.Sprintf("issuer: %s\nstorage: {config: {dataDir: %s}}\nweb: {http: %s, drainDelay: 0s}\n"+
			"enablePasswordDB: true\n"+
			"oauth2: {registration: {enabled: true}}\n", s.issuer, in(dir), strings.TrimPrefix(s.issuer, "http://"))
	}
	does := func(words string, args ...string) string {
		t.Helper()
		code, out := s.warifu(t, args...)
		if (code == 0) != (words == "") || !strings.Contains(out, words) {
			t.Fatalf("warifu %s: %d %s\nwant %q", strings.Join(args, " "), code, out, words)
		}
		return out
	}
	stop := func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		<-s.ended
	}
	put("config.yaml", configured("data"))
	s.start(t)
	for _, name := range []string{"board", "wiki"} {
		put(name+".yml", strings.NewReplacer("NAME", name, ", consent: skip, ACCESS", "").Replace(reloadedManifest))
		does("", "apply", "-f", in(name+".yml"), "--yes")
	}
	var ids []string
	for range 2 {
		resp, err := http.Post(s.issuer+"/oauth/register", "application/json",
			strings.NewReader(`{"redirect_uris": ["https://tool.example.com/cb"]}`))
		if err != nil {
			t.Fatal(err)
		}
		var registered struct {
			ID string `json:"client_id"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&registered); err != nil || registered.ID == "" {
			t.Fatalf("%s: %v", resp.Status, err)
		}
		_ = resp.Body.Close()
		ids = append(ids, registered.ID)
	}
	for _, who := range []string{"ann", "ben"} {
		does("", "invite", "user", who+"@example.com", "--user-id", who)
	}
	secret := does("", "credentials", "board")
	stop()

	export := func(file string, more ...string) []string {
		return append([]string{"export", in(file), "--config", in("config.yaml"), "--key", in("export.key")}, more...)
	}
	does("there is no app shop", export("none", "--apps", "board,shop")...)
	does("there is no client that registered itself board", export("none", "--clients", "board")...)
	does("there is no user cyd@example.com", export("none", "--users", "cyd@example.com")...)
	if _, err := os.Lstat(in("none")); err == nil {
		t.Error("there is a file of an export that was refused")
	}
	does("", export("few", "--apps", "board", "--clients", ids[1], "--users", "ben@example.com")...)
	does("", export("apps", "--apps", "*")...)

	for _, moved := range []struct {
		file, says string
		has, lacks []string
	}{
		{"few", "Only apps board, clients " + ids[1] + ", users ben@example.com",
			[]string{"app/board", "client/" + ids[1], "user/ben"}, []string{"app/wiki", ids[0], "user/ann"}},
		{"apps", "Only apps *", []string{"app/board", "app/wiki"}, []string{ids[0], ids[1], "user/"}},
	} {
		put("config.yaml", configured("in-"+moved.file))
		if out := does("", "import", in(moved.file), "--config", in("config.yaml"), "--key",
			in("export.key")); !strings.Contains(out, moved.says) {
			t.Errorf("%s: %s", moved.file, out)
		}
		does("", "verify", "--config", in("config.yaml"))
		s.start(t)
		admin := []string{"--admin", filepath.Join(in("in-"+moved.file), "admin.sock")}
		there := ""
		for _, what := range []string{"apps", "clients", "users"} {
			there += does("", append(admin, "get", what, "-o", "name")...)
		}
		for _, name := range moved.has {
			if !strings.Contains(there, name) {
				t.Errorf("%s: there is no %s in %s", moved.file, name, there)
			}
		}
		for _, name := range moved.lacks {
			if strings.Contains(there, name) {
				t.Errorf("%s: %s has %s", moved.file, there, name)
			}
		}
		if again := does("", append(admin, "credentials", "board")...); again != secret {
			t.Errorf("%s: the secret of the app is another one", moved.file)
		}
		stop()
	}
}
