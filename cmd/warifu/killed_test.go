package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/storage"
)

// place is a namespace of a cluster, with a configuration for it.
type place struct {
	*serving
	file, namespace string
	etcd            *clientv3.Client
}

// placeOf is a place of a server that has one issuer in all of them.
func placeOf(t *testing.T, issuer, etcd, certificates, namespace string) *place {
	t.Helper()
	p := &place{serving: &serving{issuer: issuer, dir: t.TempDir()}, namespace: namespace}
	p.file = filepath.Join(p.dir, "config.yaml")
	text := fmt.Sprintf(`issuer: %s
storage: {type: etcd, config: {dataDir: %s, endpoints: [%s], namespace: %s, ssl: {caFile: %s}}}
encryptionKeyFiles: [%s]
web: {http: %s, drainDelay: 0s}
enablePasswordDB: true
staticPasswords: [{email: ann@example.com, userID: ann, hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}]
`, issuer, filepath.Join(p.dir, "data"), etcd, namespace, filepath.Join(certificates, "cert.pem"),
		filepath.Join(certificates, "encryption.key"), strings.TrimPrefix(issuer, "http://"))
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Read(p.file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.etcd, err = storage.Dial(t.Context(), cfg.Etcd, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.etcd.Close() })
	return p
}

func (p *place) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.ended
}

// does runs a command that has to succeed, or to fail with words.
func (p *place) does(t *testing.T, words string, args ...string) string {
	t.Helper()
	code, out := p.warifu(t, args...)
	if (code == 0) != (words == "") || !strings.Contains(out, words) {
		t.Fatalf("warifu %s: %d %s\nwant %q", strings.Join(args, " "), code, out, words)
	}
	return out
}

// halfway reports whether what is put there has begun, and is not finished.
func (p *place) halfway(t *testing.T) bool {
	t.Helper()
	resp, err := p.etcd.Get(t.Context(), p.namespace+"compromised/moved")
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Kvs) > 0 && strings.Contains(string(resp.Kvs[0].Value), `"unfinished":true`)
}

// killed kills a command that puts records there when it is on its way.
func (p *place) killed(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("warifu", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !p.halfway(t) {
		if ctx.Err() != nil {
			t.Fatal("it does not begin")
		}
		time.Sleep(time.Millisecond)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if !p.halfway(t) {
		t.Fatal("it came to its end before it was killed: there are too few records for this test")
	}
}

// A restore or an import into a cluster that is killed leaves nothing that is served or that another one takes for its
// own, and the next attempt makes all of it; a backup and an export that are killed leave no file.
func TestKilledOnTheWayNothingIsHalf(t *testing.T) {
	_, etcd, certificates := etcdProcess(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	issuer, dir := "http://"+listener.Addr().String(), t.TempDir()
	_ = listener.Close()
	in := func(name string) string { return filepath.Join(dir, name) }
	from := placeOf(t, issuer, etcd, certificates, "from/")
	from.start(t)
	if err := os.WriteFile(in("app.yml"), []byte(strings.NewReplacer("NAME", "board", ", consent: skip, ACCESS",
		"").Replace(reloadedManifest)), 0o600); err != nil {
		t.Fatal(err)
	}
	from.does(t, "", "apply", "-f", in("app.yml"), "--yes")
	signIn := func(p *place) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "warifu", "--admin", filepath.Join(p.dir, "data", "admin.sock"), "token",
			"board",
			"--login", "ann@example.com", "--password-stdin")
		cmd.Stdin = strings.NewReader("password")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	signIn(from)
	grants, secret := from.does(t, "", "get", "grants", "-o", "name"), from.does(t, "", "credentials", "board")
	// Enough of it, in the audit log.
	// Never fails
	entry, _ := json.Marshal(storage.AuditEntry{At: time.Now(), Actor: "test", Action: "test", Outcome: "done",
		Detail: strings.Repeat("what happened then ", 20)})
	for n := 0; n < 10_000; n += 100 {
		var puts []clientv3.Op
		for i := range 100 {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("from/audit/%016x-%06d", time.Now().UnixNano(), n+i), string(entry)))
		}
		if _, err := from.etcd.Txn(t.Context()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}

	cmd := exec.Command("warifu", "--admin", filepath.Join(from.dir, "data", "admin.sock"), "backup", in("killed"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for begun := false; !begun && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		drafts, err := filepath.Glob(in(draftPrefix + "*"))
		begun = err == nil && len(drafts) > 0
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if _, err := os.Lstat(in("killed")); err == nil {
		t.Error("there is a file of a backup that was killed")
	}
	from.does(t, "", "backup", in("backup"))
	if drafts, err := filepath.Glob(in(draftPrefix + "*")); err != nil || len(drafts) > 0 {
		t.Errorf("of the backup that was killed there is %v, %v", drafts, err)
	}
	from.does(t, "", "verify", in("backup"), "--config", from.file)
	from.does(t, "", "verify", "--config", from.file)
	from.stop()
	from.does(t, "", "export", in("export"), "--config", from.file, "--key", in("export.key"))
	from.does(t, "it is an export", "restore", in("export"), "--config", from.file)
	from.does(t, "a backup is restored with warifu restore", "import", in("backup"), "--config", from.file,
		"--key", in("export.key"))

	restored, imported := placeOf(t, issuer, etcd, certificates, "restored/"),
		placeOf(t, issuer, etcd, certificates, "imported/")
	for _, p := range []struct {
		*place
		args []string
	}{
		{restored, []string{"restore", in("backup"), "--config", restored.file}},
		{imported, []string{"import", in("export"), "--config", imported.file, "--key", in("export.key")}},
	} {
		p.killed(t, p.args...)
		p.does(t, "not finished", "serve", p.file)
		p.does(t, "not finished", "verify", "--config", p.file)
		p.does(t, "", "import", "--discard", "--config", p.file)
		p.killed(t, p.args...)
		p.does(t, "", p.args...)
		p.does(t, "", "verify", "--config", p.file)
		p.does(t, "needs an empty one", p.args...)
		p.start(t)
		there, held := p.does(t, "", "get", "grants", "-o", "name"), p.does(t, "", "credentials", "board")
		if p.place == imported && (there != grants || held != secret) {
			t.Errorf("imported: %s, %s", there, grants)
		}
		if p.place == restored && (strings.Contains(there, strings.TrimSpace(grants)) || held == secret) {
			t.Errorf("what may have ended since the backup lives: %s %s", there, grants)
		}
		signIn(p.place)
		p.stop()
	}

	// The backup of a cluster becomes an embedded database as well.
	alone := filepath.Join(dir, "alone.yaml")
	text := fmt.Sprintf("issuer: %s\nstorage: {config: {dataDir: %s}}\nencryptionKeyFiles: [%s]\nweb: {http: %s}\n",
		issuer, in("data"),
		filepath.Join(certificates, "encryption.key"), strings.TrimPrefix(issuer, "http://"))
	if err := os.WriteFile(alone, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.yaml")
	if err := os.WriteFile(other, []byte(strings.Replace(text, issuer, "https://other.example.com", 1)),
		0o600); err != nil {
		t.Fatal(err)
	}
	from.does(t, "this configuration's issuer is https://other.example.com", "restore", in("backup"), "--config", other)
	if _, err := os.Lstat(in("data")); err == nil {
		t.Error("a database was made for a backup that was refused")
	}
	from.does(t, "", "restore", in("backup"), "--config", alone)
	from.does(t, "", "verify", "--config", alone)
}
