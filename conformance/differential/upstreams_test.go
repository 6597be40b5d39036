package differential

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"html/template"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crewjam/saml/samlidp"
)

// A password that all have, and its bcrypt hash.
const (
	password     = "password"
	passwordHash = "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"
)

// startDirectory starts slapd, and returns its address.
func startDirectory(t *testing.T) string {
	dir, address := t.TempDir(), freeAddress(t)
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := write(t, filepath.Join(dir, "slapd.conf"), fill(slapdConf, "{dir}", dir))
	entries := write(t, filepath.Join(dir, "entries.ldif"), directory)
	if out, err := exec.Command("slapadd", "-f", conf, "-l", entries).CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	p := start(t, exec.Command("slapd", "-d", "0", "-f", conf, "-h", "ldap://"+address))
	for deadline := time.Now().Add(time.Minute); ; {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			p.stop()
			t.Fatalf("slapd does not answer:\n%s", p.said.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/slapd.pid
argsfile {dir}/slapd.args
database mdb
suffix "dc=example,dc=org"
rootdn "cn=root,dc=example,dc=org"
rootpw root
directory "{dir}/db"
`

// directory has somebody of each sort: in several groups, in one, in none, with a name in other letters, with a DN that
// has to be escaped, and without an address.
const directory = `dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: uid=ann,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: ann
cn: Ann Example
sn: Example
mail: ann@example.org
mail: ann.example@example.org
displayName: Annie
userPassword: password

dn: uid=jiro,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: jiro
cn:: 5bGx55Sw5qyh6YOO
sn: Yamada
mail: Jiro@Example.org
userPassword: password

dn: cn=O\2CHara\, Pat,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: pat
cn: O,Hara, Pat
sn: O'Hara
mail: pat@example.org
userPassword: password

dn: uid=nomail,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: nomail
cn: No Mail
sn: Mail
userPassword: password

dn: cn=staff,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: staff
member: uid=ann,ou=people,dc=example,dc=org
member: uid=jiro,ou=people,dc=example,dc=org

dn: cn=admins,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: admins
member: uid=ann,ou=people,dc=example,dc=org
member: cn=O\2CHara\, Pat,ou=people,dc=example,dc=org
`

// startProvider starts a Dex that is the OpenID provider of both, and returns its issuer.
func startProvider(t *testing.T, callback string) string {
	dir, address := t.TempDir(), freeAddress(t)
	issuer := "http://" + address + "/upstream"
	config := write(t, filepath.Join(dir, "config.yaml"), fill(provider, "{issuer}", issuer, "{address}", address,
		"{callback}", callback, "{hash}", passwordHash))
	startDex(t, config)
	return issuer
}

const provider = `issuer: {issuer}
storage: {type: memory}
web: {http: "{address}"}
oauth2: {skipApprovalScreen: true}
enablePasswordDB: true
staticPasswords:
- email: up@example.com
  username: up
  name: Up Stream
  preferredUsername: upper
  userID: up-1
  groups: [one, two, "three: 3"]
  hash: "{hash}"
- {email: unverified@example.com, username: unverified, userID: "up/2", emailVerified: false, hash: "{hash}"}
staticClients:
- {id: both, name: Both, secret: upstream-secret, redirectURIs: ["{callback}"]}
`

// startOAuth starts what is no OpenID provider: it gives a code to whoever comes, and tells who the user is.
func startOAuth(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		http.Redirect(w, r, q.Get("redirect_uri")+"?code=code&state="+q.Get("state"), http.StatusFound)
	})
	reply := func(value any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(value)
		}
	}
	mux.HandleFunc("POST /token", reply(map[string]any{"access_token": "token", "token_type": "Bearer"}))
	mux.HandleFunc("GET /user", reply(map[string]any{"id": 4711, "login": "octo", "mail": "octo@example.net",
		"mail_verified": true, "real_name": "Octo Cat", "teams": []string{"a", "b"}}))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// startSAML starts a provider of SAML 2.0 that knows a service by the address where its answers go, and one person. It
// returns its address and its certificate, in base64.
func startSAML(t *testing.T, callback string) (address, certificate string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	self := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, self, self, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	signedBy, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	var idp http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { idp.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	store := &samlidp.MemoryStore{}
	idp, err = samlidp.New(samlidp.Options{
		URL: *at, Signer: key, Certificate: signedBy, Store: store, Logger: log.New(io.Discard, "", 0),
		LoginFormTemplate: template.Must(template.New("").Parse(`<form method="post" action="{{.URL}}">` +
			`<input type="hidden" name="SAMLRequest" value="{{.SAMLRequest}}">` +
			`<input type="hidden" name="RelayState" value="{{.RelayState}}">` +
			`<input type="text" name="user"><input type="password" name="password"></form>`)),
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func(path, body string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, path, strings.NewReader(body))
		w := httptest.NewRecorder()
		if idp.ServeHTTP(w, r); w.Code >= http.StatusMultipleChoices {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	put("/services/both", fill(service, "{callback}", callback))
	put("/users/ada", `{"name": "ada", "password": "password", "email": "ada@example.com", "common_name": "Ada Lovelace",
		"groups": ["staff", "analysts"]}`)
	return server.URL, base64.StdEncoding.EncodeToString(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

const service = `<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{callback}">
<SPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">
<AssertionConsumerService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="{callback}" index="1"
 isDefault="true"/>
</SPSSODescriptor></EntityDescriptor>`
