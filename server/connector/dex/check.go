package dex

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/dexidp/dex/connector/ldap"
	"github.com/dexidp/dex/pkg/httpclient"
	goldap "github.com/go-ldap/ldap/v3"
	"github.com/jcmturner/gokrb5/v8/keytab"
	googleoauth "golang.org/x/oauth2/google"

	"github.com/warifu/warifu/server/oauth"
)

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func (r *report) required(path, value string) bool {
	if value == "" {
		r.fault(path, "required", "", "is required")
	}
	return value != ""
}

func (r *report) requiredAt(list string, i int, key, value string) {
	r.required(index(list, i)+"."+key, value)
}

// client checks what this server is known by to nearly all upstreams.
func (r *report) client(id, secret string) {
	r.required("clientID", id)
	r.required("clientSecret", secret)
}

// oneOf checks a word; "" is the default.
func (r *report) oneOf(path, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		r.fault(path, "value", oauth.Nearest(value, allowed), "must be one of %s", strings.Join(allowed, ", "))
	}
}

// address checks the address of an upstream; "" is the default.
func (r *report) address(path, value string) {
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		r.fault(path, "value", "", "must be an address that begins with https:// or http://")
	}
}

// file reads a file that the configuration names. What it holds may be a secret, so no error quotes it.
func (r *report) file(path, name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		r.fault(path, "file", "", "names a file that cannot be read: %v", err)
	}
	return data
}

// authority checks certificates of authorities as Dex takes them: in a file, as PEM, or as PEM in base64.
func (r *report) authority(path, value string) {
	if value == "" {
		return
	}
	if _, err := httpclient.NewHTTPClient([]string{value}, false); err != nil {
		if _, err := os.Stat(value); err == nil || !strings.Contains(value, "-----") && len(value) < 200 {
			r.fault(path, "file", "", "must name a file that can be read and holds certificates in PEM, or hold them itself")
			return
		}
		r.fault(path, "value", "", "must hold certificates in PEM")
	}
}

func (r *report) certificates(path, code string, data []byte) {
	if !r.has(path) && !x509.NewCertPool().AppendCertsFromPEM(data) {
		r.fault(path, code, "", "must hold certificates in PEM")
	}
}

func (r *report) serviceAccount(path, name string) {
	data := r.file(path, name)
	if r.has(path) {
		return
	}
	if _, err := googleoauth.JWTConfigFromJSON(data); err != nil {
		r.fault(path, "file", "", "names a file that is not the JSON key of a service account")
	}
}

func checkLDAP(c *ldap.Config, r *report) {
	r.required("host", c.Host)
	if strings.Contains(c.Host, "/") {
		r.fault("host", "value", "", "must be a host with or without a port, as in ldap.example.com:636, without a scheme")
	}
	if c.InsecureNoSSL && c.StartTLS {
		r.fault("startTLS", "value", "",
			"cannot be combined with insecureNoSSL, with which nothing is encrypted: remove one of them")
	}
	if len(c.RootCAData) > 0 {
		r.certificates("rootCAData", "value", c.RootCAData)
	} else if c.RootCA != "" {
		r.certificates("rootCA", "file", r.file("rootCA", c.RootCA))
	}
	switch {
	case c.ClientCert != "" && c.ClientKey != "":
		if _, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey); err != nil {
			r.fault("clientCert", "file", "",
				"and clientKey must name files that can be read and hold a certificate and its key in PEM")
		}
	case c.ClientCert != "":
		r.fault("clientKey", "required", "", "is required with clientCert")
	case c.ClientKey != "":
		r.fault("clientCert", "required", "", "is required with clientKey")
	}
	checkSearches(c, r)
	if k := c.Kerberos; k != nil && k.Enabled {
		if r.required("kerberos.keytabPath", k.KeytabPath) {
			if _, err := keytab.Load(k.KeytabPath); err != nil {
				r.fault("kerberos.keytabPath", "file", "", "must name a file that can be read and is a keytab")
			}
		}
		if word := strings.ToLower(k.UsernameFromPrincipal); word != "samaccountname" && word != "userprincipalname" {
			r.oneOf("kerberos.usernameFromPrincipal", k.UsernameFromPrincipal,
				"localpart", "sAMAccountName", "userPrincipalName")
		}
	}
}

func checkSearches(c *ldap.Config, r *report) {
	user, group := c.UserSearch, c.GroupSearch
	r.required("userSearch.baseDN", user.BaseDN)
	r.required("userSearch.username", strings.Join(user.Username, ""))
	r.required("userSearch.idAttr", user.IDAttr)
	if user.EmailSuffix == "" {
		r.required("userSearch.emailAttr", user.EmailAttr)
	}
	r.oneOf("userSearch.scope", user.Scope, "sub", "one")
	r.filter("userSearch.filter", user.Filter)
	r.oneOf("groupSearch.scope", group.Scope, "sub", "one")
	r.filter("groupSearch.filter", group.Filter)
	if group.BaseDN == "" {
		return
	}
	r.required("groupSearch.nameAttr", group.NameAttr)
	if len(group.UserMatchers) == 0 && (group.UserAttr == "" || group.GroupAttr == "") {
		r.fault("groupSearch.userMatchers", "required", "", "is required: by which attributes a user is found in a group")
	}
	for i, m := range group.UserMatchers {
		r.requiredAt("groupSearch.userMatchers", i, "userAttr", m.UserAttr)
		r.requiredAt("groupSearch.userMatchers", i, "groupAttr", m.GroupAttr)
	}
}

// filter checks a filter of a search (RFC 4515).
func (r *report) filter(path, filter string) {
	if filter == "" {
		return
	}
	if _, err := goldap.CompileFilter(filter); err != nil {
		r.fault(path, "value", "", "must be a filter of LDAP, as in (objectClass=person)")
	}
}
