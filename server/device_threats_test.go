package server_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// RFC 8628 section 5.4: who sends somebody a link to a device that is not theirs gets nothing by the visit alone, and
// nothing by what the victim allowed the same app before.
func TestDeviceRemotePhishing(t *testing.T) {
	p := newDeviceIDP(t)
	victim := p.browser()
	victim.code() // signed in, and the app is allowed
	device := p.device()
	got := victim.follow(victim.get(device.text("verification_uri_complete")))
	if _, form := victim.form(got, "user_code"); form.Get("form") == "" {
		t.Errorf("no form: %s", shown(got.body))
	}
	p.poll(device).wants(t, "the link was opened", http.StatusBadRequest, "authorization_pending")
	got = victim.enter(device.text("user_code"))
	for _, want := range []string{device.text("user_code"), "My App", "Did you start this yourself?",
		"somebody sent you this code"} {
		if !strings.Contains(got.body, want) {
			t.Errorf("the page does not say %q: %s", want, shown(got.body))
		}
	}
	p.poll(device).wants(t, "nothing was decided", http.StatusBadRequest, "authorization_pending")
	victim.follow(victim.decide(got, "allow"))
	if tokens := p.poll(device); tokens.status != http.StatusOK {
		t.Errorf("%s", tokens.raw)
	}
	// It is no consent: the next device is asked about again, and another browser is asked by authorize.
	other := p.browser()
	if asked := other.follow(other.signIn(other.get(p.authorizeURL("scope", "runs:write")), "bob@app.test",
		userPassword)); asked.asks() != "decision" {
		t.Errorf("%s", shown(asked.body))
	}
	bobs := p.device("scope", "runs:write")
	other.follow(other.decide(other.reach(bobs, ""), "allow"))
	p.redirected(other.get(p.authorizeURL("scope", "runs:write", "prompt", "none")), "a device's approval",
		"consent_required")
}

// Who may decide about a device is the browser, and in it the account, that was shown the question.
func TestDeviceApprovalInAnotherBrowser(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	b := p.browser()
	asked := b.reach(device, userEmail)
	action, form := b.form(asked, "decision")
	form.Set("decision", "allow")
	bob, _ := p.signedIn("bob@app.test")
	for rule, got := range map[string]page{
		"the page":            bob.get(asked.address),
		"the form":            bob.post(action, form),
		"a browser like none": p.browser().post(action, form),
	} {
		got.wants(t, rule, http.StatusBadRequest, "invalid_request")
	}
	// Somebody else has signed in in the same browser, in another tab.
	p.clock.forward(time.Second)
	b.signIn(b.get(p.authorizeURL("prompt", "login")), "bob@app.test", userPassword)
	if got := b.post(action, form); got.asks() != "decision" || !strings.Contains(got.body, "bob@app.test") {
		t.Errorf("%d %s", got.status, shown(got.body))
	}
	p.poll(device).wants(t, "nobody decided", http.StatusBadRequest, "authorization_pending")
}

func TestDeviceCSRF(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	b := p.browser()
	asked := b.reach(device, userEmail)
	codePage := b.get(p.issuer + "/device")
	codeAction, codeForm := b.form(codePage, "user_code")
	codeForm.Set("user_code", device.text("user_code"))
	confirmAction, confirmForm := b.form(asked, "decision")
	confirmForm.Set("decision", "allow")
	for what, target := range map[string]struct {
		action      string
		form, other url.Values
	}{"code": {codeAction, codeForm, confirmForm}, "decision": {confirmAction, confirmForm, codeForm}} {
		for rule, token := range map[string]string{"no token": "", "a wrong token": "wff_x",
			"the token of the other form": target.other.Get("form")} {
			form := url.Values{}
			for name, values := range target.form {
				form[name] = values
			}
			form.Set("form", token)
			b.post(target.action, form).wants(t, what+": "+rule, http.StatusForbidden, "invalid_request")
		}
		p.browser().post(target.action, target.form).wants(t, what+": a browser without cookies", http.StatusBadRequest,
			"invalid_request")
		for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.test"},
			{"Origin", "null"}} {
			req := p.request(http.MethodPost, target.action, target.form.Encode(), append(header, "Content-Type", formType)...)
			if got := b.do(req); got.status != http.StatusForbidden || got.location != nil {
				t.Errorf("%s: %v: %d", what, header, got.status)
			}
		}
	}
	p.poll(device).wants(t, "nobody decided", http.StatusBadRequest, "authorization_pending")
	if got := b.follow(b.post(confirmAction, confirmForm)); !strings.Contains(got.body, "Your device is connected") {
		t.Errorf("its own form: %s", shown(got.body))
	}
}

func TestDevicePagesCannotBeFramed(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	b := p.browser()
	asked := b.reach(device, userEmail)
	for rule, got := range map[string]page{
		"code":       b.get(p.issuer + "/device?user_code=" + url.QueryEscape(`"><script>alert(1)</script>`)),
		"wrong code": b.enter("BBBBBBBB"),
		"question":   asked, "done": b.follow(b.decide(asked, "allow")),
	} {
		policy := got.header.Get("Content-Security-Policy")
		if got.header.Get("X-Frame-Options") != "DENY" || !strings.Contains(policy, "frame-ancestors 'none'") ||
			strings.Contains(policy, "script-src") ||
			got.header.Get("Cache-Control") != "no-store" || got.header.Get("Referrer-Policy") != "no-referrer" ||
			strings.Contains(got.body, "<script") {
			t.Errorf("%s: %v", rule, got.header)
		}
	}
}

// RFC 8628 section 5.1: guesses are counted for the account before anything is looked up, in parallel, too, and without
// an account there are none.
func TestUserCodeGuessing(t *testing.T) {
	p := newDeviceIDP(t)
	right := p.device().text("user_code")
	stranger := p.browser()
	if counts := p.etcd.Count(func() {
		known, unknown := stranger.enter(right), stranger.enter("BBBB-BBBB")
		if known.asks() != "password" || unknown.asks() != "password" || strings.Contains(known.body, "My App") {
			t.Errorf("%s\n%s", shown(known.body), shown(unknown.body))
		}
	}); counts != (storagetest.Counts{}) {
		t.Errorf("a stranger's codes reach storage: %+v", counts)
	}

	first, _ := p.signedIn(userEmail)
	second, _ := p.signedIn(userEmail)
	var wrong, locked, other atomic.Int64
	counts := p.etcd.Count(func() {
		together(30, func(i int) {
			b := []*browser{first, second}[i%2]
			switch got := b.enter("BBBB-BBBB"); got.status {
			case http.StatusUnprocessableEntity:
				wrong.Add(1)
			case http.StatusTooManyRequests:
				locked.Add(1)
			default:
				other.Add(1)
			}
		})
	})
	if wrong.Load() != 20 || locked.Load() != 10 || other.Load() != 0 {
		t.Errorf("%d wrong, %d locked, %d other; %+v", wrong.Load(), locked.Load(), other.Load(), counts)
	}
	got := first.enter(right)
	if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" ||
		!strings.Contains(got.body, "Too many codes") {
		t.Errorf("the right one while locked: %d %s", got.status, shown(got.body))
	}
	bob, _ := p.signedIn("bob@app.test")
	if got := bob.enter(right); got.asks() != "decision" {
		t.Errorf("another account: %d %s", got.status, shown(got.body))
	}
	p.clock.forward(15 * time.Minute)
	if got := first.enter(p.device().text("user_code")); got.asks() != "decision" {
		t.Errorf("after the window: %d %s", got.status, shown(got.body))
	}
}

func TestDeviceCodeOfAnotherClient(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p.approve(device)
	other := p.as(p.register("other-app", func(c *storage.Client) { c.GrantTypes = []string{deviceGrant} }))
	other.poll(device).wants(t, "another client", http.StatusBadRequest, "invalid_grant")
	if got := p.pollNow(device); got.status != http.StatusOK {
		t.Errorf("the owner's does not work any more: %d %s", got.status, got.raw)
	}
}

func TestOtherSealedStringsAsDeviceCodes(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p.approve(device)
	code, refresh := p.code(), p.tokens().text("refresh_token")
	sealed := device.text("device_code")
	for rule, value := range map[string]string{
		"a code": code, "a refresh token": refresh, "a code as one": "wfd_" + code[4:], "garbage": "wfd_AAAAAQ", "text": "x",
		"altered":       sealed[:len(sealed)-2] + "AA",
		"its user code": device.text("user_code"), "with a line break": sealed[:9] + "\n" + sealed[9:],
	} {
		if counts := p.etcd.Count(func() {
			p.call("/oauth/token", url.Values{"grant_type": {deviceGrant}, "device_code": {value}}).wants(t, rule,
				http.StatusBadRequest, "invalid_grant")
		}); counts != (storagetest.Counts{}) {
			t.Errorf("%s reaches storage: %+v", rule, counts)
		}
	}
	p.exchange(sealed).wants(t, "a device code as a code", http.StatusBadRequest, "invalid_grant")
	p.refresh(sealed).wants(t, "a device code as a refresh token", http.StatusBadRequest, "invalid_grant")
	p.pollNow(device, "device_code", "").wants(t, "no device code", http.StatusBadRequest, "invalid_request")
	if got := p.poll(device); got.status != http.StatusOK {
		t.Errorf("%s", got.raw)
	}
}

// At one replica a racing poll is too early, so one gets tokens, and they stay good.
func TestDevice32PollsAtOnce(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p.approve(device)
	var won, slow atomic.Int64
	var tokens atomic.Value
	together(32, func(int) {
		switch got := p.pollNow(device); {
		case got.status == http.StatusOK:
			won.Add(1)
			tokens.Store(got.text("access_token"))
		case got.text("error") == "slow_down":
			slow.Add(1)
		default:
			t.Errorf("%d %s", got.status, got.raw)
		}
	})
	if won.Load() != 1 || slow.Load() != 31 || !p.active(tokens.Load().(string)) {
		t.Errorf("%d got tokens, %d were slowed", won.Load(), slow.Load())
	}
}

// Each at a replica of its own, one gets tokens at the most, and the others are replays.
func TestDevice32ReplicasAtOnce(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p.approve(device)
	replicas := make([]*idp, 32)
	for i := range replicas {
		replicas[i] = p.replica(p.etcd.Client)
	}
	var won atomic.Int64
	var refresh atomic.Value
	together(len(replicas), func(i int) {
		switch got := replicas[i].pollNow(device); {
		case got.status == http.StatusOK:
			won.Add(1)
			refresh.Store(got.text("refresh_token"))
		case got.text("error") != "invalid_grant":
			t.Errorf("%d %s", got.status, got.raw)
		}
	})
	if won.Load() != 1 {
		t.Fatalf("%d got tokens", won.Load())
	}
	p.refresh(refresh.Load().(string)).wants(t, "after so many replays", http.StatusBadRequest, "invalid_grant")
}

func TestDeviceCodeReplayKillsTheFamily(t *testing.T) {
	for rule, wait := range map[string]time.Duration{"at once": 0, "after the code has expired": time.Hour - time.Minute} {
		t.Run(rule, func(t *testing.T) {
			p := newDeviceIDP(t)
			device := p.device()
			p.approve(device)
			first := p.poll(device)
			next := p.refresh(first.text("refresh_token"))
			p.clock.forward(wait)
			p.poll(device).wants(t, "replay", http.StatusBadRequest, "invalid_grant")
			p.refresh(next.text("refresh_token")).wants(t, "after the replay", http.StatusBadRequest, "invalid_grant")
			if wait == 0 && p.active(next.text("access_token")) {
				t.Error("the access token is active")
			}
			p.poll(device).wants(t, "and again", http.StatusBadRequest, map[bool]string{true: "invalid_grant",
				false: "expired_token"}[wait == 0])
		})
	}
}

// A client, be it public and anybody, gets so many device codes at once and so many a second, at each replica; the
// others do not suffer.
func TestFloodOfDeviceAuthorizations(t *testing.T) {
	p := newDeviceIDP(t)
	public := p.as(p.register("public-app", func(c *storage.Client) {
		c.Public, c.GrantTypes = true,
			[]string{deviceGrant}
	}))
	p.device() // the shared lease is there
	var fine, busy atomic.Int64
	counts := p.etcd.Count(func() {
		together(8, func(int) {
			for range 20 {
				switch got := public.asks("client_id", public.client.ID); got.status {
				case http.StatusOK:
					fine.Add(1)
				case http.StatusTooManyRequests:
					busy.Add(1)
					if got.header.Get("Retry-After") == "" || got.text("error") != "temporarily_unavailable" {
						t.Errorf("%v %s", got.header, got.raw)
					}
				default:
					t.Errorf("%d %s", got.status, got.raw)
				}
			}
		})
	})
	if fine.Load() != 100 || busy.Load() != 60 || counts.Reads != 0 || counts.Proposals != 100 {
		t.Errorf("%d fine, %d busy, %+v", fine.Load(), busy.Load(), counts)
	}
	p.device()
	p.clock.forward(time.Second)
	if got := public.asks("client_id", public.client.ID); got.status != http.StatusOK {
		t.Errorf("a second later: %d %s", got.status, got.raw)
	}
}

// Whatever step of the flow meets a fault of storage, it says 503, and then either nothing happened or all of it did.
func TestDeviceStorageFaults(t *testing.T) {
	p := newDeviceIDP(t)
	p.tokens() // the shared leases are there
	p.approve(p.device())
	broken := func(rule string, afterwards bool, do func() answer) (fired bool) {
		t.Helper()
		happened := p.nth(1, afterwards)
		got := do()
		p.etcd.Inject(nil)
		if happened.Load() && (got.status != http.StatusServiceUnavailable || strings.Contains(got.body, "10.0.0.7")) {
			t.Errorf("%s: %d %s", rule, got.status, shown(got.body))
		}
		return happened.Load()
	}
	for _, afterwards := range []bool{false, true} {
		broken("device authorization", afterwards, func() answer { return ofReply(p.asks()) })

		device := p.device()
		b := p.browser()
		b.code()
		broken("entering a code", afterwards, func() answer { return ofPage(b.enter(device.text("user_code"))) })
		asked := b.enter(device.text("user_code"))
		if asked.asks() != "decision" {
			t.Fatalf("afterwards: %d %s", asked.status, shown(asked.body))
		}
		p.clock.forward(time.Minute)
		broken("a poll", afterwards, func() answer { return ofReply(p.pollNow(device)) })
		p.poll(device).wants(t, "afterwards", http.StatusBadRequest, "authorization_pending")

		// The read that says who is there, and the write of the decision.
		for step := int64(1); step <= 2; step++ {
			happened := p.nth(step, afterwards)
			got := b.decide(asked, "allow")
			p.etcd.Inject(nil)
			if !happened.Load() || got.status != http.StatusServiceUnavailable {
				t.Errorf("deciding, step %d: %d %s", step, got.status, shown(got.body))
			}
			if step == 1 || !afterwards {
				p.poll(device).wants(t, "nothing was decided", http.StatusBadRequest, "authorization_pending")
			}
		}
		if !afterwards {
			b.follow(b.decide(asked, "allow"))
		}
		warm := p.device()
		p.approve(warm)
		p.poll(warm) // the shared leases are there
		happened := p.nth(2, afterwards)
		got := p.pollNow(device)
		p.etcd.Inject(nil)
		if got.wants(t, "redeeming", http.StatusServiceUnavailable, "temporarily_unavailable"); !happened.Load() {
			t.Error("no fault")
		}
		if again := p.poll(device); !afterwards && again.status != http.StatusOK {
			t.Errorf("the device code does not work any more: %d %s", again.status, again.raw)
		} else if afterwards { // the reply is lost: to hand out tokens again would be to accept a replay
			again.wants(t, "it was redeemed", http.StatusBadRequest, "invalid_grant")
		}
	}
}

// A fault is no verdict about a device code that was used.
func TestDeviceReplayMeetsAFault(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p.approve(device)
	tokens := p.poll(device)
	p.clock.forward(time.Minute)
	p.etcd.Inject(func(write, _ bool) error {
		if write {
			return errors.New(faultText)
		}
		return nil
	})
	p.pollNow(device).wants(t, "the grant could not be ended", http.StatusServiceUnavailable, "temporarily_unavailable")
	p.etcd.Inject(nil)
	if !p.active(tokens.text("access_token")) {
		t.Error("it was ended all the same")
	}
	p.poll(device).wants(t, "the next one", http.StatusBadRequest, "invalid_grant")
	if p.active(tokens.text("access_token")) {
		t.Error("the grant lives")
	}
}

var issuedTokens = regexp.MustCompile(`"access_token":|"refresh_token":|wf[rc]_`)

// FuzzDevice sends bodies to the device authorization endpoint, and to the page where codes are typed in: no fault of
// ours, no token, and no code without the client's credentials.
func FuzzDevice(f *testing.F) {
	p := withDevices(newFuzzed(f))
	credentials := "client_id=" + p.client.ID + "&client_secret=" + p.secret
	for _, body := range []string{
		"", credentials, "scope=threads:read&" + credentials, "scope=threads:read&client_id=" + p.client.ID,
		"scope=%ff&resource=x&resource=y&" + credentials,
		"grant_type=x&scope=threads:read&" + credentials, "user_code=WDJB-MJHT&form=wff_x", "user_code=%EF%BC%A2&lang=ja",
		"user_code=a&user_code=b", "scope=a;b", "%", "user_code=%00",
		"grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=wfd_AAAAAQ&" + credentials,
	} {
		f.Add(body, "")
		f.Add(body, basic(p.client.ID, p.secret))
	}
	f.Fuzz(func(t *testing.T, body, authorization string) {
		right := strings.Contains(body, p.secret) || authorization == basic(p.client.ID, p.secret)
		for _, path := range []string{"/oauth/device_authorization", "/oauth/token", "/device", "/device?" +
			url.QueryEscape(body)} {
			method := http.MethodPost
			if strings.Contains(path, "?") {
				method = http.MethodGet
			}
			req := httptest.NewRequest(method, path, strings.NewReader(body))
			if method == http.MethodGet {
				req.URL.RawQuery = body
			}
			req.Header.Set("Content-Type", formType)
			if authorization != "" {
				req.Header.Set("Authorization", authorization)
			}
			got := p.serveOnce(req)
			if faults := p.log.faults(); faults != "" || got.Code >= 500 && got.Code != http.StatusServiceUnavailable {
				t.Errorf("%s: %d %s\n%s", path, got.Code, got.Body, faults)
			}
			if found := issuedTokens.FindString(got.Body.String()); found != "" || got.Header().Get("Location") != "" {
				t.Errorf("%s: %d %s", path, got.Code, got.Body)
			}
			if strings.Contains(got.Body.String(), "wfd_") && (!right || path != "/oauth/device_authorization") {
				t.Errorf("%s: a device code: %s", path, got.Body)
			}
		}
	})
}
