package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Hosts are refused before anything is fetched from them.
func TestDocumentsOfDeniedHosts(t *testing.T) {
	for rule, hosts := range map[string]oauth.HostRules{
		"denied": {Deny: []string{"other.test", "127.0.0.1"}}, "not allowed": {Allow: []string{"*.test"}},
		"allowed and denied": {Allow: []string{"127.0.0.1"}, Deny: []string{"127.0.0.1"}},
	} {
		p, s := newDescribed(t, func(c *server.Config) { c.ClientDocumentHosts = hosts })
		got := p.browser().get(p.authorizeURL(withPKCE...))
		got.wants(t, rule, http.StatusBadRequest, "invalid_client")
		if !strings.Contains(got.body, "takes no clients from its host") {
			t.Errorf("%s: the developer is not told: %s", rule, shown(got.body))
		}
		p.refresh("wfr_x").wants(t, rule, http.StatusUnauthorized, "invalid_client")
		p.browser().get(p.issuer+"/oauth/logout?client_id="+s.id()).wants(t, rule, http.StatusBadRequest, "invalid_request")
		if s.asked.Load() != 0 {
			t.Errorf("%s: fetched %d times", rule, s.asked.Load())
		}
	}
	p, _ := newDescribed(t, func(c *server.Config) {
		c.ClientDocumentHosts = oauth.HostRules{Allow: []string{"127.0.0.1"}, Deny: []string{"*.test"}}
	})
	p.described()
}

// What a client holds ends when its host is denied, at every endpoint and before anything else has happened; and
// nothing of it comes back when the host is no longer denied. A host that is only missing from a list is refused, and
// loses nothing.
func TestClientsOfAHostThatIsNewlyDenied(t *testing.T) {
	p, s := newDescribed(t, withFilesAPI)
	b := p.browser()
	tokens := p.exchange(b.codeFor(p.withResources("openid threads:read", filesAPI, p.issuer)+"&code_challenge="+
		challengeOf(verifier)+"&code_challenge_method=S256"), "code_verifier", verifier)
	access := tokens.text("access_token")
	p.files(access).active(t, "a resource server asks about a described client's token",
		map[string]any{"client_id": s.id()})
	held := func() []storage.DescribedClient {
		t.Helper()
		list, _, err := p.store.DescribedClients(t.Context(), storage.Part{})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	want := []storage.DescribedClient{{ID: s.id(), Name: "Fancy Agent", Grants: 1, Consents: 1}}
	if got := held(); !slices.Equal(got, want) {
		t.Errorf("held: %+v", got)
	}
	now := func(hosts oauth.HostRules) {
		t.Helper()
		p.cfg.ClientDocumentHosts = hosts
		p.restart()
	}
	refused := func(rule string) {
		t.Helper()
		asked := s.asked.Load()
		p.refresh(tokens.text("refresh_token")).wants(t, rule, http.StatusUnauthorized, "invalid_client")
		p.userinfo(access).wants(t, rule, http.StatusUnauthorized, "invalid_token")
		p.files(access).inactive(t, rule)
		if s.asked.Load() != asked {
			t.Errorf("%s: fetched", rule)
		}
	}
	now(oauth.HostRules{Allow: []string{"app.test"}})
	refused("not allowed")
	p.endDenied()
	now(oauth.HostRules{})
	if got := p.refresh(tokens.text("refresh_token")); got.status != http.StatusOK {
		t.Errorf("allowed again: %d %s", got.status, got.raw)
	} else {
		tokens = got
	}
	now(oauth.HostRules{Deny: []string{"127.0.0.1"}})
	refused("denied")
	p.endDenied()
	if got := held(); len(got) > 0 {
		t.Errorf("left: %+v", got)
	}
	if got := p.audited(storage.AuditClientDenied); len(got) != 1 || !strings.Contains(got[0].Reason,
		"grants: 1, consents: 1") {
		t.Errorf("audit: %+v", got)
	}
	now(oauth.HostRules{})
	p.refresh(tokens.text("refresh_token")).wants(t, "no longer denied", http.StatusBadRequest, "invalid_grant")
	if got := p.userinfo(access); got.status != http.StatusUnauthorized {
		t.Errorf("userinfo: %d %s", got.status, got.raw)
	}
	after := p.browser()
	if got := after.follow(after.signIn(after.get(p.authorizeURL(withPKCE...)), userEmail,
		userPassword)); got.asks() != "decision" {
		t.Errorf("the consent is back: %d %v", got.status, got.location)
	}
}

func (p *idp) endDenied() {
	p.t.Helper()
	if err := p.handler.(*server.Server).EndDenied(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}
