package dex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dex "github.com/dexidp/dex/connector"
	dexldap "github.com/dexidp/dex/connector/ldap"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/connectortest"
)

// ldapConfig is a configuration of the directory, after change.
func ldapConfig(s *connectortest.Slapd, change func(*dexldap.Config)) *dexldap.Config {
	c := &dexldap.Config{Host: s.AddrTLS, RootCA: s.CA.File, BindDN: connectortest.ReaderDN,
		BindPW: connectortest.ReaderPassword}
	c.UserSearch.BaseDN = "ou=people," + connectortest.BaseDN
	c.UserSearch.Filter = "(objectClass=inetOrgPerson)"
	c.UserSearch.Username = []string{"uid"}
	c.UserSearch.IDAttr, c.UserSearch.EmailAttr, c.UserSearch.NameAttr = "uid", "mail", "cn"
	c.UserSearch.PreferredUsernameAttrAttr = "uid"
	c.GroupSearch.BaseDN = "ou=groups," + connectortest.BaseDN
	c.GroupSearch.Filter = "(|(objectClass=groupOfNames)(objectClass=posixGroup))"
	c.GroupSearch.NameAttr = "cn"
	c.GroupSearch.UserMatchers = []dexldap.UserMatcher{{UserAttr: "DN", GroupAttr: "member"}}
	if change != nil {
		change(c)
	}
	return c
}

func openLDAP(t *testing.T, c *dexldap.Config) *directory {
	t.Helper()
	d, err := openDirectory(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// unhurried is how long the tests wait for a directory that should answer.
func unhurried(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func mustSignIn(t *testing.T, d *directory, login, password string) dex.Identity {
	t.Helper()
	who, ok, err := d.Login(unhurried(t), dex.Scopes{Groups: true, OfflineAccess: true}, login, password)
	if err != nil || !ok {
		t.Fatalf("%q cannot sign in: %v %v", login, ok, err)
	}
	return who
}

func TestLDAP(t *testing.T) {
	s := connectortest.StartSlapd(t, connectortest.Entries())
	t.Run("ways to connect", func(t *testing.T) { waysToConnect(t, s) })
	t.Run("the same as Dex", func(t *testing.T) { sameAsDex(t, s) })
	t.Run("what people type", func(t *testing.T) { whatPeopleType(t, s) })
	t.Run("groups", func(t *testing.T) { groupsOf(t, s) })
	t.Run("refresh", func(t *testing.T) { refreshed(t, s) })
	t.Run("time of a wrong password", func(t *testing.T) { timeOfWrongPassword(t, s) })
}

func waysToConnect(t *testing.T, s *connectortest.Slapd) {
	cert, key := s.CA.Issue(t, "warifu")
	other := connectortest.NewCA(t)
	otherPEM, err := os.ReadFile(other.File)
	if err != nil {
		t.Fatal(err)
	}
	caPEM, err := os.ReadFile(s.CA.File)
	if err != nil {
		t.Fatal(err)
	}
	for name, way := range map[string]struct {
		change func(*dexldap.Config)
		fault  string
	}{
		"LDAPS":                  {nil, ""},
		"LDAPS, rootCAData":      {func(c *dexldap.Config) { c.RootCA, c.RootCAData = "", caPEM }, ""},
		"LDAPS, client's own":    {func(c *dexldap.Config) { c.ClientCert, c.ClientKey = cert, key }, ""},
		"plain":                  {func(c *dexldap.Config) { c.Host, c.InsecureNoSSL = s.Addr, true }, ""},
		"StartTLS":               {func(c *dexldap.Config) { c.Host, c.StartTLS = s.Addr, true }, ""},
		"wrong CA":               {func(c *dexldap.Config) { c.RootCA, c.RootCAData = "", otherPEM }, "unknown authority"},
		"wrong CA, not verified": {func(c *dexldap.Config) { c.RootCA, c.InsecureSkipVerify = other.File, true }, ""},
		"wrong CA, StartTLS": {func(c *dexldap.Config) {
			c.Host, c.StartTLS, c.RootCA = s.Addr, true, other.File
		}, "start TLS failed"},
		"another name": {func(c *dexldap.Config) {
			c.Host = strings.Replace(c.Host, "127.0.0.1", "127.0.0.2", 1)
		}, "failed to connect"},
		"LDAPS to the plain port":  {func(c *dexldap.Config) { c.Host = s.Addr }, "failed to connect"},
		"plain to the port of TLS": {func(c *dexldap.Config) { c.InsecureNoSSL = true }, "initial bind"},
		"wrong bindPW":             {func(c *dexldap.Config) { c.BindPW = "not this" }, "initial bind"},
		"anonymous, may not read":  {func(c *dexldap.Config) { c.BindDN, c.BindPW = "", "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openLDAP(t, ldapConfig(s, way.change))
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			who, ok, err := d.Login(ctx, dex.Scopes{Groups: true}, "jane", "jane's password")
			switch {
			case name == "anonymous, may not read":
				if ok {
					t.Error("signs in, although nobody may read without a name")
				}
			case way.fault == "" && (err != nil || !ok || who.UserID != "jane"):
				t.Errorf("got %v %v %v", who, ok, err)
			case way.fault != "" && (err == nil || ok || !strings.Contains(err.Error(), way.fault)):
				t.Errorf("got %v %v, want a fault with %q", ok, err, way.fault)
			}
		})
	}
}

// sameAsDex asks Dex's own connector the same. Names with letters outside ASCII are left out: nobody can sign in with
// them there.
func sameAsDex(t *testing.T, s *connectortest.Slapd) {
	for name, change := range map[string]func(*dexldap.Config){
		"as usual":      nil,
		"list of names": func(c *dexldap.Config) { c.UserSearch.Username = []string{"uid", "mail"} },
		"DN as id":      func(c *dexldap.Config) { c.UserSearch.IDAttr = "DN" },
		"emailSuffix": func(c *dexldap.Config) {
			c.UserSearch.EmailAttr, c.UserSearch.EmailSuffix = "", "example.com"
		},
		"no name": func(c *dexldap.Config) {
			c.UserSearch.NameAttr, c.UserSearch.PreferredUsernameAttrAttr = "", ""
		},
		"one level":          func(c *dexldap.Config) { c.UserSearch.Scope = "one" },
		"no groups":          func(c *dexldap.Config) { c.GroupSearch.BaseDN = "" },
		"groups elsewhere":   func(c *dexldap.Config) { c.GroupSearch.BaseDN = "ou=nowhere," + connectortest.BaseDN },
		"groups of a filter": func(c *dexldap.Config) { c.GroupSearch.Filter = "(cn=team)" },
		"nested groups":      func(c *dexldap.Config) { c.GroupSearch.UserMatchers[0].RecursionGroupAttr = "member" },
		"groups by memberUid": func(c *dexldap.Config) {
			c.GroupSearch.UserMatchers[0] = dexldap.UserMatcher{UserAttr: "uid", GroupAttr: "memberUid"}
		},
		"groups the older way": func(c *dexldap.Config) {
			c.GroupSearch.UserMatchers = nil
			c.GroupSearch.UserAttr, c.GroupSearch.GroupAttr, c.GroupSearch.RecursionGroupAttr = "DN", "member", "member"
		},
		"two matchers": func(c *dexldap.Config) {
			c.GroupSearch.UserMatchers = append(c.GroupSearch.UserMatchers,
				dexldap.UserMatcher{UserAttr: "uid", GroupAttr: "memberUid"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours := openLDAP(t, ldapConfig(s, change))
			opened, err := ldapConfig(s, change).Open("ldap", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			theirs := opened.(dex.PasswordConnector)
			for _, login := range []string{"jane", "john", "JANE", "jane@example.org", "nomail", "twin1", "twin@example.org",
				"deep", "nobody", "*", "jane)(uid=*"} {
				for _, password := range []string{strings.ToLower(login) + "'s password", "jane's password", "wrong", ""} {
					ask := dex.Scopes{Groups: true}
					want, wantOK, wantErr := theirs.Login(unhurried(t), ask, login, password)
					got, gotOK, gotErr := ours.Login(unhurried(t), ask, login, password)
					slices.Sort(want.Groups)
					slices.Sort(got.Groups)
					if gotOK != wantOK || (gotErr == nil) != (wantErr == nil) || !reflect.DeepEqual(got, want) {
						t.Errorf("%q %q:\n got %+v %v %v\nwant %+v %v %v", login, password, got, gotOK, gotErr, want, wantOK, wantErr)
					}
				}
			}
		})
	}
}

func whatPeopleType(t *testing.T, s *connectortest.Slapd) {
	d := openLDAP(t, ldapConfig(s, func(c *dexldap.Config) { c.UserSearch.Username = []string{"uid", "mail"} }))
	for _, p := range connectortest.People {
		if p.Email == "" || p.UID == "nopass" {
			continue
		}
		who := mustSignIn(t, d, p.UID, p.Password())
		if who.UserID != p.UID || who.Email != p.Email || who.Username != p.Name {
			t.Errorf("%s is %+v", p.UID, who)
		}
	}
	// Nobody has these names, whatever the password; and nobody signs in without a password, although this directory
	// answers "success" to a name without one.
	for name, login := range map[string]string{
		"any": "*", "prefix": "jan*", "another filter": "*)(uid=*", "closing": "jane)", "or": "jane)(|(uid=*",
		"true": "*)(&", "NUL": "jane\x00", "NUL inside": "ja\x00ne", "backslash": `jane\`, "escape": `\6aane`,
		"not UTF-8": "jane\xff", "very long": strings.Repeat("a", 1<<20), "long": strings.Repeat("a", maxLogin), "empty": "",
		"a DN": connectortest.DN("jane"), "line break": "jane\r\n", "right to left": "\u202ejane",
	} {
		for _, password := range []string{"jane's password", "", "\x00"} {
			who, ok, err := d.Login(unhurried(t), dex.Scopes{Groups: true}, login, password)
			if ok || err != nil {
				t.Errorf("%s, password %q: %+v %v %v", name, password, who, ok, err)
			}
		}
	}
	for _, uid := range []string{"jane", "nopass"} {
		for _, password := range []string{"", "wrong", "\x00", "jane's password\x00", strings.Repeat("x", 1<<20), "*"} {
			if who, ok, err := d.Login(unhurried(t), dex.Scopes{}, uid, password); ok || err != nil {
				t.Errorf("%s with %.20q: %+v %v %v", uid, password, who, ok, err)
			}
		}
	}
	if _, ok, err := d.Login(unhurried(t), dex.Scopes{}, "twin@example.org", "twin1's password"); ok || err == nil {
		t.Errorf("a name that two have: %v %v, want a fault", ok, err)
	}

	long := openLDAP(t, ldapConfig(s, func(c *dexldap.Config) { c.UserSearch.IDAttr = "DN" }))
	who := mustSignIn(t, long, "deep", "deep's password")
	if sub := connector.DexSubject("ldap", who.UserID); who.UserID != connectortest.DN("deep") || len(sub) < 154 {
		t.Errorf("the id is %q, of which Dex's subject has %d characters", who.UserID, len(sub))
	}
}

func groupsOf(t *testing.T, s *connectortest.Slapd) {
	nested := openLDAP(t, ldapConfig(s, func(c *dexldap.Config) {
		c.GroupSearch.UserMatchers[0].RecursionGroupAttr = "member"
	}))
	who := mustSignIn(t, nested, "山田", "山田's password")
	slices.Sort(who.Groups)
	if want := []string{"company", "department", "team"}; !slices.Equal(who.Groups, want) {
		t.Errorf("nested groups %v, want %v", who.Groups, want)
	}
	many := func(c *dexldap.Config) { c.GroupSearch.BaseDN = "ou=many," + connectortest.BaseDN }
	began := time.Now()
	who = mustSignIn(t, openLDAP(t, ldapConfig(s, many)), "crowd", "crowd's password")
	if len(who.Groups) != connectortest.ManyGroups {
		t.Errorf("got %d groups, want %d", len(who.Groups), connectortest.ManyGroups)
	}
	t.Logf("%d groups: %v", connectortest.ManyGroups, time.Since(began))
	// Whoever may see 500 entries is told that there are more: the groups are never cut off silently.
	_, ok, err := openLDAP(t, ldapConfig(s, func(c *dexldap.Config) {
		many(c)
		c.BindDN, c.BindPW = connectortest.DN("john"), "john's password"
	})).Login(unhurried(t), dex.Scopes{Groups: true}, "crowd", "crowd's password")
	if ok || err == nil || !strings.Contains(err.Error(), "Size Limit Exceeded") {
		t.Errorf("more groups than the directory tells: %v %v, want a fault", ok, err)
	}
}

func refreshed(t *testing.T, s *connectortest.Slapd) {
	d := openLDAP(t, ldapConfig(s, nil))
	who := mustSignIn(t, d, "jane", "jane's password")
	if strings.Contains(string(who.ConnectorData), "password") {
		t.Errorf("the password is kept: %s", who.ConnectorData)
	}
	again, err := d.Refresh(unhurried(t), dex.Scopes{Groups: true}, who)
	if err != nil || !reflect.DeepEqual(again, who) {
		t.Errorf("got %+v %v, want %+v", again, err, who)
	}
	// What Dex has kept works as well.
	opened, err := ldapConfig(s, nil).Open("ldap", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	theirs, _, err := opened.(dex.PasswordConnector).
		Login(unhurried(t), dex.Scopes{OfflineAccess: true}, "jane", "jane's password")
	if err != nil {
		t.Fatal(err)
	}
	if again, err = d.Refresh(unhurried(t), dex.Scopes{}, theirs); err != nil || again.UserID != "jane" {
		t.Errorf("got %+v %v", again, err)
	}
	for name, data := range map[string]string{
		"gone":          `{"username":"nobody","entry":{"DN":"uid=nobody"}}`,
		"another entry": `{"username":"jane","entry":{"DN":"uid=jane,ou=elsewhere"}}`,
	} {
		var refused *connector.RefusedError
		_, err := d.Refresh(unhurried(t), dex.Scopes{}, dex.Identity{ConnectorData: []byte(data)})
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

// timeOfWrongPassword: a name that nobody has costs the directory as much as a wrong password. It compares the least
// times of many, which other work does not touch, and only says what they are.
func timeOfWrongPassword(t *testing.T, s *connectortest.Slapd) {
	d := openLDAP(t, ldapConfig(s, nil))
	least := map[string]time.Duration{"jane": time.Hour, "nobody": time.Hour}
	for range 30 {
		for login := range least {
			began := time.Now()
			if _, ok, err := d.Login(unhurried(t), dex.Scopes{}, login, "wrong"); ok || err != nil {
				t.Fatal(login, ok, err)
			}
			least[login] = min(least[login], time.Since(began))
		}
	}
	t.Logf("wrong password %v, unknown name %v", least["jane"], least["nobody"])
}

// A directory that is stopped, killed or away is a fault by the deadline of whoever asks, leaves nothing behind, and
// works again once it is back.
func TestLDAPThatIsAway(t *testing.T) {
	s := connectortest.StartSlapd(t, connectortest.Entries())
	for _, way := range []struct {
		name   string
		change func(*dexldap.Config)
	}{
		{"LDAPS", nil},
		{"StartTLS", func(c *dexldap.Config) { c.Host, c.StartTLS = s.Addr, true }},
		{"plain", func(c *dexldap.Config) { c.Host, c.InsecureNoSSL = s.Addr, true }},
	} {
		t.Run(way.name, func(t *testing.T) {
			d := openLDAP(t, ldapConfig(s, way.change))
			mustSignIn(t, d, "jane", "jane's password")
			before := runtime.NumGoroutine()

			s.Pause()
			var all sync.WaitGroup
			began := time.Now()
			for range 50 {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					_, ok, err := d.Login(ctx, dex.Scopes{}, "jane", "jane's password")
					if ok || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("a directory that hangs: %v %v", ok, err)
					}
				})
			}
			all.Wait()
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("whoever asked was let go of after %v", took)
			}
			flatLDAP(t, before) // while it still hangs

			ctx, cancel := context.WithCancel(t.Context())
			answers := make(chan error)
			go func() {
				_, _, err := d.Login(ctx, dex.Scopes{}, "jane", "jane's password")
				answers <- err
			}()
			cancel()
			if err := <-answers; !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
			s.Resume()
			mustSignIn(t, d, "jane", "jane's password")

			s.Kill()
			if _, ok, err := d.Login(unhurried(t), dex.Scopes{}, "jane", "jane's password"); ok || err == nil {
				t.Errorf("a directory that is away: %v %v", ok, err)
			}
			s.Start(t)
			mustSignIn(t, d, "jane", "jane's password")
			flatLDAP(t, before)
		})
	}
}

func TestLDAPCancelledBefore(t *testing.T) {
	s := connectortest.StartSlapd(t, connectortest.Entries())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, password := range []string{"jane's password", "", "wrong"} {
		_, ok, err := openLDAP(t, ldapConfig(s, nil)).Login(ctx, dex.Scopes{}, "jane", password)
		if ok || !errors.Is(err, context.Canceled) {
			t.Errorf("%q: %v %v, want a fault", password, ok, err)
		}
	}
}

// flatLDAP waits until there are no more goroutines than before.
func flatLDAP(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		if runtime.NumGoroutine() <= before {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// newLDAP makes a connector as the configuration does, and keeps what it logs.
func newLDAP(t *testing.T, c *dexldap.Config) (connector.Connector, *bytes.Buffer) {
	t.Helper()
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	made, faults := New(Spec{Type: "ldap", ID: "staff", Config: encoded, Ask: time.Hour,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if faults != nil {
		t.Fatal(faults)
	}
	return made, &log
}

func TestLDAPConnector(t *testing.T) {
	s := connectortest.StartSlapd(t, connectortest.Entries())
	made, log := newLDAP(t, ldapConfig(s, func(c *dexldap.Config) { c.UsernamePrompt = "Staff number" }))
	if made.ID != "staff" || made.Prompt != "Staff number" || made.Password == nil {
		t.Fatalf("made %+v", made)
	}
	var told []string // all that is logged or an error
	sign := func(ctx context.Context, login, password string) (connector.Identity, bool, error) {
		who, ok, err := made.Password.Login(ctx, login, password)
		if err != nil {
			told = append(told, err.Error())
		}
		return who, ok, err
	}
	who, ok, err := sign(t.Context(), "jane", "jane's password")
	want := connector.Identity{UserID: "jane", Name: "Jane Doe", PreferredUsername: "jane", Email: "jane@example.org",
		EmailVerified: true, Groups: []string{"department", "team"}, Data: who.Data}
	slices.Sort(who.Groups)
	who.Username, who.AMR = "", nil
	if err != nil || !ok || !reflect.DeepEqual(who, want) {
		t.Errorf("got %+v %v %v, want %+v", who, ok, err, want)
	}
	again, err := made.Password.(connector.Refresher).Refresh(t.Context(), who)
	if err != nil || again.UserID != "jane" {
		t.Errorf("asked again: %+v %v", again, err)
	}
	for _, login := range []string{"nobody", "*", "jane"} {
		if _, ok, err := sign(t.Context(), login, "wrong"); ok || err != nil {
			t.Errorf("%q: %v %v", login, ok, err)
		}
	}
	if _, ok, err := sign(t.Context(), "nomail", "nomail's password"); ok || err == nil {
		t.Errorf("an entry without an address: %v %v, want a fault", ok, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok, _ := sign(cancelled, "jane", "jane's password"); ok {
		t.Error("signs in although nobody waits")
	}

	before := runtime.NumGoroutine()
	s.Pause()
	var all sync.WaitGroup
	for range 100 { // more than run at once
		all.Go(func() {
			began := time.Now()
			if _, ok, err := made.Password.Login(t.Context(), "jane", "jane's password"); ok || err == nil {
				t.Errorf("a directory that hangs: %v %v", ok, err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	all.Wait()
	s.Resume()
	if _, ok, err := sign(t.Context(), "jane", "jane's password"); err != nil || !ok {
		t.Errorf("a directory that goes on: %v %v", ok, err)
	}
	s.Kill()
	if _, ok, err := sign(t.Context(), "jane", "jane's password"); ok || err == nil {
		t.Errorf("a directory that is away: %v %v", ok, err)
	}
	s.Start(t)
	if _, ok, err := sign(t.Context(), "jane", "jane's password"); err != nil || !ok {
		t.Errorf("a directory that is back: %v %v", ok, err)
	}
	flatLDAP(t, before)

	for _, secret := range []string{"jane", "nomail", "dc=example", "password", "reader's own"} {
		for _, text := range append(told, log.String()) {
			if strings.Contains(strings.ReplaceAll(text, "checking the password", ""), secret) {
				t.Errorf("%q is told: %s", secret, text)
			}
		}
	}
	t.Logf("faults:\n%s", strings.Join(told, "\n"))
}
