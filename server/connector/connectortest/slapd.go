package connectortest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The directory of every [Slapd].
const (
	BaseDN = "dc=example,dc=org"
	// ReaderDN may read everything but passwords, with ReaderPassword; it gets as many entries as there are. Everybody
	// else gets 500 at most, as is usual, and reads only with a name.
	ReaderDN       = "cn=reader,dc=example,dc=org"
	ReaderPassword = "reader's own"
)

// Slapd is a directory of OpenLDAP that runs.
type Slapd struct {
	// Addr is for plain LDAP and for StartTLS, AddrTLS for LDAPS. They stay the same when it is started again.
	Addr, AddrTLS string
	CA            *CA

	program, dir string
	cmd          *exec.Cmd
	log          *bytes.Buffer
}

// StartSlapd starts a directory with these entries below [BaseDN] (LDIF, entries divided by empty lines). People are
// inetOrgPerson, groups groupOfNames or posixGroup.
func StartSlapd(t testing.TB, ldif string) *Slapd {
	t.Helper()
	s := &Slapd{
		program: Need(t, "slapd", "apt-get install -y slapd"),
		Addr:    "127.0.0.1:" + FreePort(t), AddrTLS: "127.0.0.1:" + FreePort(t),
		CA: NewCA(t), dir: t.TempDir(),
	}
	cert, key := s.CA.Issue(t, "127.0.0.1", "localhost")
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := strings.NewReplacer("{dir}", s.dir, "{ca}", s.CA.File, "{cert}", cert, "{key}", key)
	s.write(t, "slapd.conf", files.Replace(slapdConf))
	s.write(t, "entries.ldif", slapdBase+ldif)
	add := exec.Command(s.program, "-T", "add", "-q", "-f", s.file("slapd.conf"), "-l", s.file("entries.ldif"))
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	t.Cleanup(s.Kill)
	s.Start(t)
	return s
}

// Start starts it again, with the entries that it had, and waits until it answers.
func (s *Slapd) Start(t testing.TB) {
	t.Helper()
	s.log = new(bytes.Buffer)
	// -d keeps it in the foreground.
	s.cmd = exec.Command(s.program, "-d", "0", "-f", s.file("slapd.conf"), "-h",
		fmt.Sprintf("ldap://%s ldaps://%s", s.Addr, s.AddrTLS))
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := spawner.Start(s.cmd); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", s.AddrTLS,
			&tls.Config{InsecureSkipVerify: true}) // only whether it answers
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.Kill()
			t.Fatalf("slapd does not answer: %v\n%s", err, s.log.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Pause stops its process with connections open, so that it hangs; Resume lets it go on.
func (s *Slapd) Pause()  { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }
func (s *Slapd) Resume() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

// Kill ends it at once, if it runs.
func (s *Slapd) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

func (s *Slapd) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Slapd) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/slapd.pid
argsfile {dir}/slapd.args
TLSCACertificateFile {ca}
TLSCertificateFile {cert}
TLSCertificateKeyFile {key}
allow bind_anon_cred bind_anon_dn
database mdb
maxsize 268435456
suffix "` + BaseDN + `"
rootdn "cn=root,` + BaseDN + `"
directory "{dir}/db"
dbnosync
index objectClass,uid,mail,cn,member,memberUid eq
limits dn.exact="` + ReaderDN + `" size=unlimited
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
`

const slapdBase = `dn: ` + BaseDN + `
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ` + ReaderDN + `
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: ` + ReaderPassword + `

`
