package server_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
)

// refusedLines are the lines of the log about refused requests that an operator sees who has not asked for everything.
func (p *idp) refusedLines() (lines []string) {
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, `msg="request refused"`) && !strings.Contains(line, "level=DEBUG") {
			lines = append(lines, line)
		}
	}
	return lines
}

// A refused request is told with its client and the rule. What is only a step of a protocol is not told: a poll before
// the user has decided, or one too early, a proof without the nonce, a look without pages for a user who has not signed
// in.
func TestTheLogTellsRefusalsAndNotSteps(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p.poll(device).wants(t, "no decision yet", http.StatusBadRequest, "authorization_pending")
	p.pollNow(device).wants(t, "too early", http.StatusBadRequest, "slow_down")
	proof := p.prover().proof(http.MethodPost, "/oauth/token", "")
	p.machine("/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {p.code()},
		"redirect_uri": {callback},
		"client_id":    {p.client.ID}, "client_secret": {p.secret}}, "DPoP", proof).
		wants(t, "no nonce", http.StatusBadRequest, "use_dpop_nonce")
	p.redirected(p.browser().get(p.authorizeURL("prompt", "none")), "nobody is there", "login_required")
	if lines := p.refusedLines(); len(lines) > 0 {
		t.Errorf("steps are told as refusals:\n%s", strings.Join(lines, ""))
	}
	token := p.tokens("scope", "openid").text("access_token")
	for rule, ask := range map[string]func(){
		"client-secret-wrong": func() { p.as(p.client, "wrong").exchange("wfc_x") },
		"code-invalid":        func() { p.exchange("made-up") },
		"redirect-uri-unregistered": func() {
			p.browser().get(p.authorizeURL("redirect_uri", "https://elsewhere.test/"))
		},
		"access-token-scheme": func() {
			p.send(p.request(http.MethodGet, p.issuer+"/oauth/userinfo", "", "Authorization", "DPoP "+token))
		},
	} {
		before := len(p.refusedLines())
		ask()
		lines := p.refusedLines()[before:]
		if len(lines) != 1 || !strings.Contains(lines[0], " rule="+rule+" ") || !strings.Contains(lines[0], " client="+
			p.client.ID+" ") {
			t.Errorf("%s is told as %q", rule, lines)
		}
	}
}

// A fault of the program itself is told as other refusals are, with nothing of what was to be the answer: an operator
// can explain it by the id of the request.
func TestFaultsOfTheProgramAreExplained(t *testing.T) {
	e := newExplained(t)
	s := e.handler.(*server.Server)
	for name, c := range map[string]struct {
		broken http.Handler
		says   string
	}{
		"a page":  {s.BrokenPage(), "<h1>"},
		"a reply": {s.BrokenReply(), `"error":"server_error"`},
	} {
		w := httptest.NewRecorder()
		c.broken.ServeHTTP(w, e.request(http.MethodGet, e.issuer+"/oauth/x", ""))
		if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if why := e.of(w.Header()).Reasons[0]; why.Rule != oauth.RuleServerFault {
			t.Errorf("%s: %+v", name, why)
		}
	}
}

// A fault of the program is told to programs and to people, without a word of what it was; explain knows the request.
func TestPanicsAreAnswered(t *testing.T) {
	refusals := admin.NewRefusals(10)
	p := newIDP(t, func(c *server.Config) {
		c.Refused = func(r oauth.Refusal) {
			if r.Error.Rule != oauth.RuleServerFault {
				panic("canary")
			}
			refusals.Add(r)
		}
	})
	program := p.exchange("made-up")
	program.wants(t, "a program", http.StatusInternalServerError, oauth.CodeServerError)
	person := p.browser().get(p.authorizeURL("client_id", "nobody"))
	person.wants(t, "a person", http.StatusInternalServerError, oauth.CodeServerError)
	for _, header := range []http.Header{program.header, person.header} {
		if why, kept := refusals.Find(header.Get("X-Request-Id")); !kept || why.Error.Rule != oauth.RuleServerFault {
			t.Errorf("%+v", why)
		}
	}
	if strings.Contains(program.raw+person.body+p.log.String(), "canary") {
		t.Error("it is told what the fault was")
	}
}
