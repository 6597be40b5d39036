package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// staff is a directory that can be asked again.
type staff struct {
	directory
	groups     []string
	data       int // what it gives out to be asked with next
	refreshErr error
	asked      []connector.Identity
}

func (d *staff) identity(login string) connector.Identity {
	d.data++
	return connector.Identity{UserID: "uid=" + login, Username: login, Name: strings.ToUpper(login), Groups: d.groups,
		Data: fmt.Appendf(nil, "upstream-token-%d", d.data)}
}

// Login is [connector.Password].
func (d *staff) Login(ctx context.Context, login, password string) (connector.Identity, bool, error) {
	who, is, err := d.directory.Login(ctx, login, password)
	if is {
		who = d.identity(login)
	}
	return who, is, err
}

// Refresh is [connector.Refresher].
func (d *staff) Refresh(_ context.Context, who connector.Identity) (connector.Identity, error) {
	d.asked = append(d.asked, who)
	if d.refreshErr != nil {
		return connector.Identity{}, d.refreshErr
	}
	if string(who.Data) != fmt.Sprintf("upstream-token-%d", d.data) {
		return connector.Identity{}, connector.Refuse("a token that was used before")
	}
	return d.identity(strings.TrimPrefix(who.UserID, "uid=")), nil
}

// employed is a server with that directory, where eve is on the staff.
func employed(t *testing.T) (*idp, *staff) {
	d := &staff{directory: directory{people: map[string]string{"eve": "correct"}}, groups: []string{"staff"}}
	p := newIDP(t, func(c *server.Config) {
		c.Connectors = append(c.Connectors, connector.Connector{ID: "ldap", Name: "LDAP", Password: d, Ask: 15 * time.Minute})
	})
	return p, d
}

// eves are the tokens of eve.
func eves(p *idp, changes ...string) reply {
	p.t.Helper()
	b := p.browser()
	got := b.follow(b.signIn(b.press(b.follow(b.get(p.authorizeURL(changes...))), "ldap"), "eve", "correct"))
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	return p.exchange(b.answered(got, "signed in"))
}

// asks lets time go by, and has p ask what is due then.
func (p *idp) asksAfter(d time.Duration) {
	p.t.Helper()
	p.clock.forward(d)
	if more, err := p.handler.(*server.Server).AskDue(p.t.Context()); err != nil || more {
		p.t.Fatal(more, err)
	}
}

func (p *idp) eve() *storage.User {
	p.t.Helper()
	u, err := p.store.User(p.t.Context(), connector.SubjectsHashed.Of("ldap", "uid=eve"))
	if err != nil {
		p.t.Fatal(err)
	}
	return u
}

// What an upstream says of groups decides at the next refresh, which asks nobody: it is one proposal as before, and
// once two, to look at what has changed.
func TestGroupsOfAnUpstreamActAtTheNextRefresh(t *testing.T) {
	p, d := employed(t)
	p.clock.stop()
	p.update("my-app", func(c *storage.Client) { c.AccessGroups = []string{"staff"} })
	p.member("user-ann", "staff")
	tokens, anns := eves(p, "scope", "openid"), p.tokens("scope", "openid")
	next := func(want storagetest.Counts, status int) {
		t.Helper()
		anns = p.refresh(anns.text("refresh_token")) // makes the leases of this hour
		before := len(d.asked)
		var got reply
		if n := p.etcd.Count(func() { got = p.refresh(tokens.text("refresh_token")) }); n != want || got.status != status ||
			len(d.asked) != before {
			t.Fatalf("%+v, %d %s; asked %d times", n, got.status, got.raw, len(d.asked)-before)
		}
		tokens = got
	}
	p.asksAfter(time.Minute)
	if len(d.asked) != 0 {
		t.Error("asked before it was due")
	}
	p.asksAfter(15 * time.Minute)
	if len(d.asked) != 1 || d.asked[0].UserID != "uid=eve" || d.asked[0].Name != "EVE" || d.asked[0].Groups[0] != "staff" {
		t.Fatalf("%+v", d.asked)
	}
	next(storagetest.Counts{Proposals: 1}, http.StatusOK)
	d.groups = []string{"staff", "board"}
	p.asksAfter(16 * time.Minute)
	if groups := p.eve().GroupNames(); len(groups) != 2 {
		t.Errorf("%v", groups)
	}
	next(storagetest.Counts{Proposals: 2, Reads: 1}, http.StatusOK)
	next(storagetest.Counts{Proposals: 1}, http.StatusOK)
	d.groups = nil
	p.asksAfter(16 * time.Minute)
	next(storagetest.Counts{Proposals: 1, Reads: 1}, http.StatusBadRequest)
}

func TestUpstreamThatSaysNoEndsTheUser(t *testing.T) {
	p, d := employed(t)
	tokens := eves(p, "scope", "openid")
	d.refreshErr = connector.Refuse("the account is gone")
	p.asksAfter(16 * time.Minute)
	if got := p.refresh(tokens.text("refresh_token")); got.status != http.StatusBadRequest ||
		got.text("error") != "invalid_grant" {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if p.active(tokens.text("access_token")) || !p.eve().Active() {
		t.Error("a token is active, or the user may not come back")
	}
	if list := p.audited(storage.AuditUserEnded); len(list) != 1 || list[0].Actor != storage.ActorServer ||
		list[0].Reason != "the connector ldap no longer lets the user sign in: the account is gone" {
		t.Errorf("%+v", list)
	}
	p.asksAfter(16 * time.Minute)
	if len(d.asked) != 1 {
		t.Errorf("asked %d times", len(d.asked))
	}
	d.refreshErr = nil
	if got := eves(p); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

// A fault says nothing about anybody, is told once, and names nobody.
func TestUpstreamThatFailsChangesNothing(t *testing.T) {
	p, d := employed(t)
	tokens := eves(p, "scope", "openid")
	before := p.eve()
	d.refreshErr = errors.New("connection refused")
	p.asksAfter(16 * time.Minute)
	for range 5 {
		p.asksAfter(time.Hour)
	}
	if len(d.asked) != 6 || *p.eve() != *before {
		t.Errorf("asked %d times: %+v", len(d.asked), p.eve())
	}
	if n := strings.Count(p.log.String(), "a connector cannot be asked about its users"); n != 1 {
		t.Errorf("told %d times", n)
	}
	d.refreshErr = nil
	p.asksAfter(time.Hour)
	if len(d.asked) != 7 || !strings.Contains(p.log.String(), "a connector can be asked about its users again") {
		t.Errorf("asked %d times", len(d.asked))
	}
	if got := p.refresh(tokens.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if log := p.log.String(); strings.Contains(log, "EVE") || strings.Contains(log, "upstream-token") {
		t.Error("the log names somebody, or what opens the upstream")
	}
	// The first fault puts the question off for a minute, and a connector that has just failed is not asked at all.
	d.refreshErr = errors.New("connection refused")
	p.asksAfter(16 * time.Minute)
	asked := len(d.asked)
	p.asksAfter(50 * time.Second)
	if len(d.asked) != asked {
		t.Error("asked before its time")
	}
	p.asksAfter(11 * time.Second)
	if len(d.asked) != asked+1 {
		t.Errorf("asked %d times", len(d.asked)-asked)
	}
}

// Where the answer cannot be stored at once, it is tried again: what the upstream was asked with may be of no use now.
func TestAnswersAreNotLost(t *testing.T) {
	p, d := employed(t)
	eves(p, "scope", "openid")
	p.clock.forward(16 * time.Minute)
	writes := 0
	p.etcd.Inject(func(write, after bool) error {
		if write && !after {
			if writes++; writes == 2 { // the claim was the first
				return errors.New("injected")
			}
		}
		return nil
	})
	if _, err := p.handler.(*server.Server).AskDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.etcd.Inject(nil)
	p.asksAfter(16 * time.Minute)
	if len(d.asked) != 2 || d.refreshErr != nil || len(p.audited(storage.AuditUserEnded)) != 0 {
		t.Errorf("asked %d times: %+v", len(d.asked), p.audited(storage.AuditUserEnded))
	}
}

// A connector that has gone is asked nothing, and nothing that opens it is kept.
func TestConnectorThatHasGoneIsNotAsked(t *testing.T) {
	p, d := employed(t)
	eves(p, "scope", "openid")
	if !strings.Contains(p.etcd.Dump(), "upstreams/") {
		t.Fatal("nothing is kept")
	}
	p.reload(func(c *server.Config) { c.Connectors = p.cfg.Connectors[:1] })
	p.asksAfter(16 * time.Minute)
	if dump := p.etcd.Dump(); len(d.asked) != 0 || strings.Contains(dump, "upstreams/") ||
		strings.Contains(dump, "asks/") {
		t.Errorf("asked %d times, or something is left", len(d.asked))
	}
}

// What a sign-in by a connector asks of etcd, the first time and later: the account, what its user has beside that, and
// the history of sign-ins.
func TestWhatASignInByAConnectorAsksOfEtcd(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	p.clock.stop()
	p.browser().by(up, userEmail) // leases are there now
	for _, c := range []struct {
		rule, login string
		want        storagetest.Counts
	}{
		{"for the first time", "bob@app.test", storagetest.Counts{Proposals: 2, Reads: 3}},
		{"when nothing has changed", "bob@app.test", storagetest.Counts{Proposals: 1, Reads: 3}},
	} {
		b := p.browser()
		got := b.through(up, b.press(b.follow(b.get(p.authorizeURL())), "up"), c.login)
		if n := p.etcd.Count(func() { got = b.get(got.location.String()) }); n != c.want {
			t.Errorf("%s: %+v, want %+v", c.rule, n, c.want)
		}
	}
}

// Two people who are not one share an e-mail address.
func TestEmailAddressJoinsNobody(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	here := claimsOf(t, p.exchange(p.browser().code("scope", "openid email")).text("id_token"))
	there := claimsOf(t, p.exchange(p.browser().by(up, userEmail, "scope", "openid email")).text("id_token"))
	if here["email"] != there["email"] || there["email"] == nil || here["sub"] == there["sub"] {
		t.Errorf("%v and %v", here, there)
	}
	ann, err := p.store.User(t.Context(), "user-ann")
	if err != nil || ann.Connector != connector.StaticName {
		t.Errorf("%+v, %v", ann, err)
	}
	// Until an operator says that they are.
	if _, _, err := p.store.LinkUser(t.Context(), storage.Link{Connector: "up", UpstreamID: "user-ann", UserID: "user-ann",
		Own: there["sub"].(string)}); err != nil {
		t.Fatal(err)
	}
	there = claimsOf(t, p.exchange(p.browser().by(up, userEmail, "scope", "openid email")).text("id_token"))
	if here["sub"] != there["sub"] {
		t.Errorf("%v and %v", here, there)
	}
}
