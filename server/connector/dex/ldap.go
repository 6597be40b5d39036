package dex

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	dex "github.com/dexidp/dex/connector"
	dexldap "github.com/dexidp/dex/connector/ldap"
	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"github.com/warifu/warifu/server/connector"
)

const (
	// maxLogin is the longest name that a directory is asked for.
	maxLogin = 1024
	// groupPage is how many groups a directory is asked for at once; Active Directory gives 1,000 at most.
	groupPage = 500
	// maxMessage is the longest message of a directory that is read.
	maxMessage = 64 << 20
)

// directory is a connector of LDAP (RFC 4511), with Dex's keys and what Dex makes of an entry. It is ours because Dex's
// knows no deadline, so that a directory that hangs holds on to everything that asked it; because it connects and signs
// in anew for each search, of which nested groups need many; and because it escapes what people type twice, so that
// nobody can sign in whose name has a letter outside ASCII.
type directory struct {
	config    *dexldap.Config
	host      string // with the port
	tls       *tls.Config
	userScope int
	// groupScope and matchers: how groups are found.
	groupScope int
	matchers   []dexldap.UserMatcher
	// nobody is a DN that no entry has.
	nobody string
	krb    *kerberos // nil without
}

var (
	_ dex.PasswordConnector = (*directory)(nil)
	_ dex.RefreshConnector  = (*directory)(nil)
)

var boundMessages = sync.OnceFunc(func() { ber.MaxPacketLengthBytes = maxMessage })

// openDirectory reads the files that the configuration names. It asks no directory.
func openDirectory(config *dexldap.Config) (*directory, error) {
	boundMessages()
	d := &directory{config: config, host: config.Host, nobody: "cn=" + rand.Text() + "," + config.UserSearch.BaseDN}
	name, _, err := net.SplitHostPort(config.Host)
	if err != nil {
		name = strings.Trim(config.Host, "[]")
		port := "636"
		if config.InsecureNoSSL {
			port = "389"
		}
		d.host = net.JoinHostPort(name, port)
	}
	if d.tls, err = directoryTLS(config, name); err != nil {
		return nil, err
	}
	var known bool
	if d.userScope, known = searchScopes[config.UserSearch.Scope]; !known {
		return nil, errors.New("userSearch.scope is neither sub nor one")
	}
	if d.groupScope, known = searchScopes[config.GroupSearch.Scope]; !known {
		return nil, errors.New("groupSearch.scope is neither sub nor one")
	}
	d.matchers = config.GroupSearch.UserMatchers
	if len(d.matchers) == 0 || d.matchers[0].UserAttr == "" { // before there were userMatchers
		d.matchers = []dexldap.UserMatcher{{
			UserAttr: config.GroupSearch.UserAttr, GroupAttr: config.GroupSearch.GroupAttr,
			RecursionGroupAttr: config.GroupSearch.RecursionGroupAttr,
		}}
	}
	d.krb, err = openKerberos(config)
	return d, err
}

var searchScopes = map[string]int{
	"": ldap.ScopeWholeSubtree, "sub": ldap.ScopeWholeSubtree, "one": ldap.ScopeSingleLevel,
}

func directoryTLS(config *dexldap.Config, name string) (*tls.Config, error) {
	c := &tls.Config{ServerName: name, InsecureSkipVerify: config.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	roots := config.RootCAData
	if config.RootCA != "" && len(roots) == 0 {
		var err error
		if roots, err = os.ReadFile(config.RootCA); err != nil {
			return nil, fmt.Errorf("rootCA: %w", err)
		}
	}
	if len(roots) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(roots) {
			return nil, errors.New("rootCA has no certificate in PEM")
		}
	}
	if config.ClientCert != "" && config.ClientKey != "" {
		pair, err := tls.LoadX509KeyPair(config.ClientCert, config.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("clientCert and clientKey: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// with calls f with a connection, signed in as bindDN, that ends with ctx at the latest. What f found out after that is
// dropped.
func (d *directory) with(ctx context.Context, f func(*ldap.Conn) error) error {
	conn, done, err := d.dial(ctx)
	if err == nil {
		defer done()
		if err = d.bindReader(conn); err == nil {
			err = f(conn)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the directory has not answered in time: %w", ctx.Err())
	}
	return err
}

func (d *directory) dial(ctx context.Context) (conn *ldap.Conn, done func(), err error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", d.host)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to connect: %w", err)
	}
	// From here on, whoever waits for the directory is let go of when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	overTLS := !d.config.InsecureNoSSL && !d.config.StartTLS
	stream := raw
	if overTLS {
		secure := tls.Client(raw, d.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			stop()
			_ = raw.Close()
			return nil, nil, fmt.Errorf("failed to connect: %w", err)
		}
		stream = secure
	}
	conn = ldap.NewConn(stream, overTLS)
	conn.Start()
	done = func() {
		_ = conn.Close()
		stop()
	}
	// As in Dex, insecureNoSSL outranks startTLS.
	if d.config.StartTLS && !d.config.InsecureNoSSL {
		if err := conn.StartTLS(d.tls); err != nil {
			done()
			return nil, nil, fmt.Errorf("start TLS failed: %w", err)
		}
	}
	return conn, done, nil
}

func (d *directory) bindReader(conn *ldap.Conn) error {
	if d.config.BindDN == "" && d.config.BindPW == "" {
		if err := conn.UnauthenticatedBind(""); err != nil {
			return fmt.Errorf("initial anonymous bind failed: %w", err)
		}
		return nil
	}
	if err := conn.Bind(d.config.BindDN, d.config.BindPW); err != nil {
		return fmt.Errorf("initial bind for user failed: %w", err)
	}
	return nil
}

// Prompt is what the form calls the name that people type; "" for the usual words.
func (d *directory) Prompt() string { return d.config.UsernamePrompt }

// ldapData is what a directory needs to ask again. Dex's has the whole entry beside it.
type ldapData struct {
	Username string `json:"username"`
	Entry    struct {
		DN string
	} `json:"entry"`
}

// Login checks a password. A name that nobody has costs a bind as well, so that it takes as long as a wrong password,
// but for what the directory does to compare one.
func (d *directory) Login(ctx context.Context, s dex.Scopes, login, password string) (dex.Identity, bool, error) {
	if password == "" || login == "" || len(login) > maxLogin {
		// With a name and no password, many directories answer "success", as nobody (RFC 4513 section 5.1.2).
		return dex.Identity{}, false, ctx.Err()
	}
	var who dex.Identity
	valid := false
	err := d.with(ctx, func(conn *ldap.Conn) error {
		user, err := d.user(conn, login)
		if err != nil {
			return err
		}
		dn := d.nobody
		if user != nil {
			dn = user.DN
		}
		switch err := conn.Bind(dn, password); {
		case user == nil, ldap.IsErrorAnyOf(err, wrongPassword...):
			return nil
		case ldap.IsErrorWithCode(err, ldap.LDAPResultUnwillingToPerform):
			return connector.Refuse("the directory is unwilling to let the user in (53): the account may be locked")
		case err != nil:
			return fmt.Errorf("failed to bind as dn: %w", err)
		}
		if who, err = d.identity(conn, s, login, user); err != nil {
			return err
		}
		valid = true
		return nil
	})
	if err != nil || !valid {
		return dex.Identity{}, false, err
	}
	return who, true, nil
}

// wrongPassword are what a directory answers to a password that is wrong, locked, or not set at all.
var wrongPassword = []uint16{ldap.LDAPResultInvalidCredentials, ldap.LDAPResultConstraintViolation,
	ldap.LDAPResultInappropriateAuthentication}

// Refresh asks for somebody who signed in before.
func (d *directory) Refresh(ctx context.Context, s dex.Scopes, before dex.Identity) (dex.Identity, error) {
	var data ldapData
	if err := json.Unmarshal(before.ConnectorData, &data); err != nil {
		return dex.Identity{}, fmt.Errorf("what is kept of the user is not JSON: %w", err)
	}
	var who dex.Identity
	err := d.with(ctx, func(conn *ldap.Conn) error {
		user, err := d.user(conn, data.Username)
		switch {
		case err != nil:
			return err
		case user == nil:
			return connector.Refuse("the directory no longer has the user")
		case user.DN != data.Entry.DN:
			return connector.Refuse("the directory has another entry under the user's name")
		}
		who, err = d.identity(conn, s, data.Username, user)
		return err
	})
	if err != nil {
		return dex.Identity{}, err
	}
	who.ConnectorData = before.ConnectorData
	return who, nil
}

// user is the entry of who has this name; nil if nobody has it.
func (d *directory) user(conn *ldap.Conn, login string) (*ldap.Entry, error) {
	search := d.config.UserSearch
	var any strings.Builder
	for _, attr := range search.Username {
		fmt.Fprintf(&any, "(%s=%s)", attr, ldap.EscapeFilter(login))
	}
	filter := any.String()
	if len(search.Username) > 1 {
		filter = "(|" + filter + ")"
	}
	if search.Filter != "" {
		filter = "(&" + search.Filter + filter + ")"
	}
	attrs := slices.Concat([]string{search.IDAttr, search.EmailAttr, search.NameAttr, search.PreferredUsernameAttrAttr},
		search.Username)
	for _, m := range d.matchers {
		attrs = append(attrs, m.UserAttr)
	}
	attrs = slices.DeleteFunc(attrs, func(a string) bool { return a == "" || strings.EqualFold(a, "dn") })
	slices.Sort(attrs)
	found, err := conn.Search(&ldap.SearchRequest{BaseDN: search.BaseDN, Scope: d.userScope, Filter: filter,
		Attributes: slices.Compact(attrs), SizeLimit: 2})
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), err == nil && len(found.Entries) > 1:
		return nil, errors.New("filter returned multiple results")
	case err != nil:
		return nil, fmt.Errorf("search with filter failed: %w", err)
	case len(found.Entries) == 0:
		return nil, nil
	}
	return found.Entries[0], nil
}

// identity is what an entry says of a user, with their groups. The connection is signed in as somebody, perhaps as the
// user, who need not be allowed to search.
func (d *directory) identity(conn *ldap.Conn, s dex.Scopes, login string, user *ldap.Entry) (dex.Identity, error) {
	search := d.config.UserSearch
	who := dex.Identity{UserID: valueIn(user, search.IDAttr), EmailVerified: true}
	missing := who.UserID == ""
	if search.NameAttr != "" {
		who.Username = valueIn(user, search.NameAttr)
		missing = missing || who.Username == ""
	}
	if search.PreferredUsernameAttrAttr != "" {
		who.PreferredUsername = valueIn(user, search.PreferredUsernameAttrAttr)
		missing = missing || who.PreferredUsername == ""
	}
	if search.EmailSuffix != "" {
		who.Email = who.Username + "@" + search.EmailSuffix
	} else {
		who.Email = valueIn(user, search.EmailAttr)
		missing = missing || who.Email == ""
	}
	if missing {
		return dex.Identity{}, errors.New("entry missing following required attribute")
	}
	if s.Groups && d.config.GroupSearch.BaseDN != "" {
		err := d.bindReader(conn)
		if err == nil {
			who.Groups, err = d.groups(conn, user)
		}
		if err != nil {
			return dex.Identity{}, fmt.Errorf("failed to query groups: %w", err)
		}
	}
	if s.OfflineAccess {
		data := ldapData{Username: login}
		data.Entry.DN = user.DN
		who.ConnectorData, _ = json.Marshal(data) // texts
	}
	return who, nil
}

// groups are the names of the groups of a user, and, where there is a recursionGroupAttr, of the groups that these are
// in. Groups that hold each other are no loop.
func (d *directory) groups(conn *ldap.Conn, user *ldap.Entry) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for _, m := range d.matchers {
		asked := map[string]bool{} // whose parents are known, by DN
		var level []*ldap.Entry
		for _, v := range valuesIn(user, m.UserAttr) {
			groups, err := d.groupsWith(conn, m.GroupAttr, v)
			if err != nil {
				return nil, err
			}
			level = append(level, groups...)
		}
		for len(level) > 0 {
			var parents []*ldap.Entry
			for _, group := range level {
				name := valueIn(group, d.config.GroupSearch.NameAttr)
				if name == "" {
					return nil, errors.New("group entity missing required attribute")
				}
				if !seen[name] {
					seen[name] = true
					names = append(names, name)
				}
				if m.RecursionGroupAttr == "" || asked[group.DN] {
					continue
				}
				asked[group.DN] = true
				above, err := d.groupsWith(conn, m.RecursionGroupAttr, group.DN)
				if err != nil {
					return nil, err
				}
				parents = append(parents, above...)
			}
			level = parents
		}
	}
	return names, nil
}

// groupsWith are the groups that have a value.
func (d *directory) groupsWith(conn *ldap.Conn, attr, value string) ([]*ldap.Entry, error) {
	search := d.config.GroupSearch
	filter := fmt.Sprintf("(%s=%s)", attr, ldap.EscapeFilter(value))
	if search.Filter != "" {
		filter = "(&" + search.Filter + filter + ")"
	}
	found, err := conn.SearchWithPaging(&ldap.SearchRequest{BaseDN: search.BaseDN, Scope: d.groupScope, Filter: filter,
		Attributes: []string{search.NameAttr}}, groupPage)
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("search failed: %w", err)
	}
	return found.Entries, nil
}

// valuesIn are those of an attribute, whose name has no case (RFC 4512 section 2.5); the DN counts as one.
func valuesIn(e *ldap.Entry, attr string) []string {
	if found := e.GetEqualFoldAttributeValues(attr); len(found) > 0 {
		return found
	}
	if strings.EqualFold(attr, "dn") {
		return []string{e.DN}
	}
	return nil
}

func valueIn(e *ldap.Entry, attr string) string {
	if found := valuesIn(e, attr); len(found) > 0 {
		return found[0]
	}
	return ""
}
