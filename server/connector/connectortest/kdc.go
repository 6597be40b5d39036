package connectortest

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/spnego"
)

// KDC is a Kerberos realm of MIT's krb5.
type KDC struct {
	Realm, Addr string
	dir         string
	env         []string
}

// StartKDC starts the key distribution center of a realm. Beside the realm's own it has no principals yet.
func StartKDC(t testing.TB, realm string) *KDC {
	t.Helper()
	const install = "apt-get install -y --no-install-recommends krb5-kdc krb5-admin-server"
	program := Need(t, "krb5kdc", install)
	Need(t, "kadmin.local", install)
	k := &KDC{Realm: realm, Addr: "127.0.0.1:" + FreePort(t), dir: t.TempDir()}
	profile := filepath.Join(k.dir, "kdc.conf")
	text := strings.NewReplacer("{dir}", k.dir, "{realm}", realm, "{addr}", k.Addr).Replace(kdcConf)
	if err := os.WriteFile(profile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.env = append(os.Environ(), "KRB5_CONFIG="+clientConfig(t, k), "KRB5_KDC_PROFILE="+profile)
	k.run(t, "kdb5_util", "create", "-s", "-P", "master key")

	var log bytes.Buffer
	cmd := exec.Command(program, "-n")
	cmd.Env, cmd.Stdout, cmd.Stderr = k.env, &log, &log
	if err := spawner.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", k.Addr)
		if err == nil {
			_ = conn.Close()
			return k
		}
		if time.Now().After(deadline) {
			t.Fatalf("krb5kdc does not answer: %v\n%s", err, log.String())
		}
	}
}

// AddUser adds somebody with a password.
func (k *KDC) AddUser(t testing.TB, name, password string) {
	t.Helper()
	k.run(t, "kadmin.local", "add_principal", "-pw", password, name)
}

// AddService adds a service, such as HTTP/localhost, and returns a file with its key.
func (k *KDC) AddService(t testing.TB, name string) (keytab string) {
	t.Helper()
	keytab = filepath.Join(t.TempDir(), "keytab")
	k.run(t, "kadmin.local", "add_principal", "-randkey", name)
	k.run(t, "kadmin.local", "ktadd", "-k", keytab, name)
	return keytab
}

// Trust lets people of the other realm in at services of this one.
func (k *KDC) Trust(t testing.TB, other *KDC) {
	t.Helper()
	for _, realm := range []*KDC{k, other} {
		realm.run(t, "kadmin.local", "add_principal", "-pw", "shared key", "krbtgt/"+k.Realm+"@"+other.Realm)
	}
}

// Ticket is what the browser of somebody who has signed in to the realm sends to a service (RFC 4559). The service may
// be in another realm.
func (k *KDC) Ticket(t testing.TB, user, password, service string, at ...*KDC) (authorization string) {
	t.Helper()
	c, err := config.Load(clientConfig(t, append([]*KDC{k}, at...)...))
	if err != nil {
		t.Fatal(err)
	}
	person := client.NewWithPassword(user, k.Realm, password, c, client.DisablePAFXFAST(true))
	defer person.Destroy()
	r, err := http.NewRequest(http.MethodGet, "http://localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := spnego.SetSPNEGOHeader(person, r, service); err != nil {
		t.Fatal(err)
	}
	return r.Header.Get("Authorization")
}

func (k *KDC) run(t testing.TB, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(Need(t, program, "apt-get install -y krb5-kdc krb5-admin-server"), args...)
	cmd.Env = k.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
}

// clientConfig writes a krb5.conf for people of the first realm. The services on localhost are in the last.
func clientConfig(t testing.TB, realms ...*KDC) (file string) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `[libdefaults]
default_realm = %s
dns_lookup_kdc = false
dns_lookup_realm = false
udp_preference_limit = 1
rdns = false
[domain_realm]
localhost = %s
[realms]
`, realms[0].Realm, realms[len(realms)-1].Realm)
	for _, k := range realms {
		fmt.Fprintf(&b, "%s = {\n  kdc = %s\n}\n", k.Realm, k.Addr)
	}
	file = filepath.Join(t.TempDir(), "krb5.conf")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const kdcConf = `[kdcdefaults]
kdc_listen = {addr}
kdc_tcp_listen = {addr}
[realms]
{realm} = {
  database_name = {dir}/principal
  key_stash_file = {dir}/stash
  supported_enctypes = aes256-cts-hmac-sha1-96:normal
  max_life = 1h
}
[logging]
kdc = STDERR
`
