package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const deviceGrant = oauth.GrantDeviceCode

// withDevices is p whose app may use the device grant.
func withDevices(p *idp) *idp {
	p.t.Helper()
	p.update("my-app", func(c *storage.Client) { c.GrantTypes = append(server.DefaultGrantTypes(), c.GrantTypes...) })
	q := *p
	var err error
	if q.client, err = p.store.Client(p.t.Context(), p.client.ID); err != nil {
		p.t.Fatal(err)
	}
	return &q
}

// newDeviceIDP is a provider whose app may use the device grant. Its clock stands still, so that polls are as far apart
// as a test says.
func newDeviceIDP(t testing.TB, change ...func(*server.Config)) *idp {
	t.Helper()
	p := withDevices(newIDP(t, change...))
	p.clock.stop()
	return p
}

// asks is what a device does first; more are name, value pairs.
func (p *idp) asks(more ...string) reply {
	p.t.Helper()
	form := url.Values{"scope": {"threads:read"}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return p.call("/oauth/device_authorization", form)
}

// device is one that has asked.
func (p *idp) device(more ...string) reply {
	p.t.Helper()
	got := p.asks(more...)
	if got.status != http.StatusOK {
		p.t.Fatalf("device authorization: %d %s", got.status, got.raw)
	}
	return got
}

// poll is a poll of a device, as soon as it is due.
func (p *idp) poll(device reply, more ...string) reply {
	p.t.Helper()
	p.clock.forward(time.Minute) // beyond any interval
	return p.pollNow(device, more...)
}

func (p *idp) pollNow(device reply, more ...string) reply {
	p.t.Helper()
	form := url.Values{"grant_type": {deviceGrant}, "device_code": {device.text("device_code")}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return p.call("/oauth/token", form)
}

// enter types a code into the page for it.
func (b *browser) enter(code string) page {
	b.p.t.Helper()
	action, form := b.form(b.get(b.p.issuer+"/device"), "user_code")
	form.Set("user_code", code)
	return b.follow(b.post(action, form))
}

// reach walks to the page that asks about a device.
func (b *browser) reach(device reply, login string) page {
	b.p.t.Helper()
	got := b.enter(device.text("user_code"))
	if got.asks() == "password" {
		got = b.follow(b.signIn(got, login, userPassword))
	}
	if got.asks() != "decision" {
		b.p.t.Fatalf("nobody asks about the device: %d %s", got.status, shown(got.body))
	}
	return got
}

// approve lets a new browser approve a device.
func (p *idp) approve(device reply) {
	p.t.Helper()
	b := p.browser()
	if got := b.follow(b.decide(b.reach(device, userEmail), "allow")); !strings.Contains(got.body,
		"Your device is connected") {
		p.t.Fatalf("%d %s", got.status, shown(got.body))
	}
}

func TestDeviceFlow(t *testing.T) {
	texts := map[string][]string{
		"en": {"Connect a device", "Let a device use “My App” with your account?", "Did you start this yourself?",
			"Your device is connected"},
		"ja": {"デバイスを接続", "デバイスで「My App」を使うことを許可しますか？", "ご自身で始めた操作ですか？", "デバイスを接続しました"},
	}
	for lang, want := range texts {
		t.Run(lang, func(t *testing.T) {
			p := newDeviceIDP(t)
			device := p.device("scope", "openid threads:read")
			code := device.text("user_code")
			if device.text("verification_uri") != p.issuer+"/device" || device.text("verification_uri_complete") != p.issuer+
				"/device?user_code="+code ||
				device.json["expires_in"] != 600.0 || device.json["interval"] != 5.0 {
				t.Errorf("%s", device.raw)
			}
			if device.header.Get("Cache-Control") != "no-store" {
				t.Error("the codes may be cached")
			}
			p.poll(device).wants(t, "nobody has decided", http.StatusBadRequest, "authorization_pending")

			b := p.browser()
			got := b.get(device.text("verification_uri_complete") + "&lang=" + lang)
			if !strings.Contains(got.body, want[0]) || !strings.Contains(got.body, `value="`+code+`"`) {
				t.Errorf("code page: %s", shown(got.body))
			}
			action, form := b.form(got, "user_code")
			form.Set("user_code", " "+strings.ToLower(strings.ReplaceAll(code, "-", " ")))
			got = b.follow(b.post(action, form))
			if got.asks() != "password" {
				t.Fatalf("no sign-in: %s", shown(got.body))
			}
			got = b.follow(b.signIn(got, userEmail, userPassword))
			for _, text := range append(want[1:3], code, "threads:read") {
				if !strings.Contains(got.body, text) {
					t.Errorf("the page does not say %q: %s", text, shown(got.body))
				}
			}
			p.poll(device).wants(t, "still nobody", http.StatusBadRequest, "authorization_pending")
			answer := b.decide(got, "allow")
			if answer.status != http.StatusSeeOther {
				t.Errorf("a reload would decide again: %d", answer.status)
			}
			if got = b.follow(answer); !strings.Contains(got.body, want[3]) {
				t.Errorf("%s", shown(got.body))
			}
			if again := b.get(got.address); !strings.Contains(again.body, want[3]) {
				t.Errorf("after a reload: %s", shown(again.body))
			}

			tokens := p.poll(device)
			if tokens.status != http.StatusOK || tokens.text("scope") != "openid threads:read" ||
				tokens.text("token_type") != "Bearer" ||
				tokens.json["expires_in"] != 3600.0 || tokens.text("id_token") == "" {
				t.Fatalf("%d %s", tokens.status, tokens.raw)
			}
			if !p.active(tokens.text("access_token")) {
				t.Error("the access token is not active")
			}
			if got := p.userinfo(tokens.text("access_token")); got.text("sub") != "user-ann" {
				t.Errorf("userinfo: %s", got.raw)
			}
			if next := p.refresh(tokens.text("refresh_token")); next.status != http.StatusOK {
				t.Errorf("refresh: %d %s", next.status, next.raw)
			}
		})
	}
}

// What is off is not there: neither endpoint nor page, and discovery says nothing of it.
func TestDeviceGrantOff(t *testing.T) {
	p := newDeviceIDP(t, func(c *server.Config) { c.GrantTypes = []string{oauth.GrantClientCredentials} })
	if got := p.asks(); got.status != http.StatusNotFound {
		t.Errorf("the endpoint answers %d", got.status)
	}
	if got := p.browser().get(p.issuer + "/device"); got.status != http.StatusNotFound {
		t.Errorf("the page answers %d", got.status)
	}
	p.call("/oauth/token", url.Values{"grant_type": {deviceGrant}, "device_code": {"wfd_x"}}).
		wants(t, "the grant type", http.StatusBadRequest, "unsupported_grant_type")
	if doc := p.document(p.issuer + "/.well-known/openid-configuration"); strings.Contains(doc.raw, "device") {
		t.Errorf("discovery: %s", doc.raw)
	}
}

func TestDeviceAuthorizationRequest(t *testing.T) {
	p := newDeviceIDP(t)
	p.asks("scope", "").wants(t, "no scope", http.StatusBadRequest, "invalid_scope")
	p.asks("scope", "repos:write").wants(t, "a scope that app.yml does not list", http.StatusBadRequest, "invalid_scope")
	p.asks("resource", "https://unknown.test").wants(t, "a resource that nobody knows", http.StatusBadRequest,
		"invalid_target")
	p.asks("client_id", p.client.ID, "client_secret", "wrong").wants(t, "a wrong secret", http.StatusUnauthorized,
		"invalid_client")
	other := p.as(p.register("other-app", func(*storage.Client) {}))
	other.asks().wants(t, "the grant type is not registered", http.StatusBadRequest, "unauthorized_client")
	other.pollNow(p.device()).wants(t, "the grant type is not registered", http.StatusBadRequest, "unauthorized_client")
	if got := p.send(p.request(http.MethodGet, p.issuer+"/oauth/device_authorization",
		"")); got.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", got.status)
	}
	if got := p.send(p.request(http.MethodPost, p.issuer+"/oauth/device_authorization?scope=threads:read", "",
		"Content-Type", formType)); got.status != http.StatusBadRequest {
		t.Errorf("parameters in the query: %d", got.status)
	}

	public := p.as(p.register("public-app", func(c *storage.Client) {
		c.Public, c.GrantTypes = true,
			[]string{deviceGrant}
	}))
	device := public.device("client_id", public.client.ID)
	public.approve(device)
	if got := public.poll(device, "client_id", public.client.ID); got.status != http.StatusOK {
		t.Errorf("a public client: %d %s", got.status, got.raw)
	}
}

func TestDeviceDenied(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	b := p.browser()
	asked := b.reach(device, userEmail)
	if got := b.follow(b.decide(asked, "deny")); !strings.Contains(got.body, "The device was not connected") {
		t.Errorf("%s", shown(got.body))
	}
	p.poll(device).wants(t, "denied", http.StatusBadRequest, "access_denied")
	// Nobody can change that.
	if got := b.follow(b.decide(asked, "allow")); got.status != http.StatusUnprocessableEntity ||
		!strings.Contains(got.body, "This code has been used") {
		t.Errorf("allowed after it was denied: %d %s", got.status, shown(got.body))
	}
	if got := p.browser().enter(device.text("user_code")); got.asks() != "password" {
		t.Errorf("%s", shown(got.body))
	}
	if got := b.enter(device.text("user_code")); !strings.Contains(got.body, "This code has been used") {
		t.Errorf("%s", shown(got.body))
	}
	p.poll(device).wants(t, "denied", http.StatusBadRequest, "access_denied")
}

func TestDeviceExpires(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	b := p.browser()
	asked := b.reach(device, userEmail)
	p.clock.forward(10*time.Minute + time.Second)
	for rule, got := range map[string]page{
		"the page about it":    b.get(asked.address),
		"the code":             b.enter(device.text("user_code")),
		"the form that allows": b.decide(asked, "allow"),
		"the form that denies": b.decide(asked, "deny"),
	} {
		if !strings.Contains(got.body, "This code has expired") || got.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", rule, got.status, shown(got.body))
		}
	}
	p.poll(device).wants(t, "expired", http.StatusBadRequest, "expired_token")

	// Approved in time, fetched too late.
	device = p.device()
	p.approve(device)
	p.clock.forward(10*time.Minute + time.Second)
	p.poll(device).wants(t, "expired", http.StatusBadRequest, "expired_token")
}

// RFC 8628 section 3.5: too early a poll makes the interval 5 seconds longer from then on.
func TestDeviceSlowDown(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	pending := func(rule string, after time.Duration) {
		t.Helper()
		p.clock.forward(after)
		p.pollNow(device).wants(t, rule, http.StatusBadRequest, "authorization_pending")
	}
	slow := func(rule string, after time.Duration) {
		t.Helper()
		p.clock.forward(after)
		p.pollNow(device).wants(t, rule, http.StatusBadRequest, "slow_down")
	}
	pending("the first", 0)
	pending("after the interval", 5*time.Second)
	pending("hardly too early", 4500*time.Millisecond)
	slow("at once", 0)
	pending("as long as was said before", 10*time.Second)
	slow("after 5 seconds, when 10 are due", 5*time.Second)
	pending("the rest of that", 5*time.Second)
	slow("after 10 seconds, when 15 are due", 10*time.Second)
	p.approve(device)
	slow("too early, though it was approved", 0)
	if got := p.poll(device); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

func TestDeviceTokensFollowTheRecords(t *testing.T) {
	disable := func(p *idp, id string) {
		p.putUser(storage.User{ID: id, Email: "x@app.test", Disabled: true})
	}
	t.Run("user disabled meanwhile", func(t *testing.T) {
		p := newDeviceIDP(t)
		device := p.device()
		p.approve(device)
		disable(p, "user-ann")
		p.poll(device).wants(t, "user disabled", http.StatusBadRequest, "invalid_grant")
	})
	t.Run("user disabled before they decided", func(t *testing.T) {
		p := newDeviceIDP(t)
		device := p.device()
		b := p.browser()
		asked := b.reach(device, userEmail)
		disable(p, "user-ann")
		if got := b.follow(b.decide(asked, "allow")); got.asks() != "password" {
			t.Errorf("%d %s", got.status, shown(got.body))
		}
		p.poll(device).wants(t, "nobody decided", http.StatusBadRequest, "authorization_pending")
	})
	t.Run("scopes narrowed meanwhile", func(t *testing.T) {
		p := newDeviceIDP(t)
		device := p.device("scope", "threads:read runs:write")
		p.approve(device)
		p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"threads:read"} })
		if got := p.poll(device); got.text("scope") != "threads:read" {
			t.Errorf("%d %s", got.status, got.raw)
		}
	})
	t.Run("all scopes removed meanwhile", func(t *testing.T) {
		p := newDeviceIDP(t)
		device := p.device()
		p.approve(device)
		p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"files:read"} })
		p.poll(device).wants(t, "no scope left", http.StatusBadRequest, "invalid_grant")
	})
	t.Run("scopes narrowed while the page was read, and back", func(t *testing.T) {
		p := newDeviceIDP(t)
		device := p.device("scope", "threads:read runs:write")
		p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"threads:read"} })
		b := p.browser()
		asked := b.reach(device, userEmail)
		if strings.Contains(asked.body, "runs:write") {
			t.Error("the page asks for what the app may not have")
		}
		p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"threads:read", "runs:write"} })
		b.follow(b.decide(asked, "allow"))
		if got := p.poll(device); got.text("scope") != "threads:read" {
			t.Errorf("granted what nobody was shown: %d %s", got.status, got.raw)
		}
	})
	t.Run("grant type given up meanwhile", func(t *testing.T) {
		p := newDeviceIDP(t)
		device := p.device()
		b := p.browser()
		asked := b.reach(device, userEmail)
		p.update("my-app", func(c *storage.Client) { c.GrantTypes = nil })
		b.decide(asked, "allow").wants(t, "the form", http.StatusBadRequest, "unauthorized_client")
		p.poll(device).wants(t, "the poll", http.StatusBadRequest, "unauthorized_client")
	})
	t.Run("client removed meanwhile", func(t *testing.T) {
		p := newDeviceIDP(t)
		device := p.device()
		b := p.browser()
		asked := b.reach(device, userEmail)
		p.update("my-app", func(c *storage.Client) { c.Disabled = true })
		b.decide(asked, "allow").wants(t, "the form", http.StatusBadRequest, "invalid_client")
		p.poll(device).wants(t, "the poll", http.StatusUnauthorized, "invalid_client")
	})
	t.Run("at a replica that has not heard of it", func(t *testing.T) {
		p := newDeviceIDP(t)
		lagging := p.replica(p.lagging())
		device := p.device("scope", "threads:read runs:write")
		p.approve(device)
		p.update("my-app", func(c *storage.Client) { c.Scopes = []string{"threads:read"} })
		if got := lagging.poll(device); got.text("scope") != "threads:read" {
			t.Errorf("%d %s", got.status, got.raw)
		}
	})
}

// What is decided survives the process.
func TestDeviceSurvivesRestart(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	p.approve(device)
	p.restart()
	got := p.poll(device)
	if got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	p.restart()
	p.poll(device).wants(t, "used before the restart", http.StatusBadRequest, "invalid_grant")
	p.refresh(got.text("refresh_token")).wants(t, "after a replay", http.StatusBadRequest, "invalid_grant")
}

// Signing out in the browser leaves the device alone, and its ID token names no session.
func TestDeviceIsNotOfTheBrowsersSession(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device("scope", "openid")
	p.approve(device)
	got := p.poll(device)
	claims := claimsOf(t, got.text("id_token"))
	if claims["sid"] != nil || claims["sub"] != "user-ann" || claims["auth_time"] == nil || claims["at_hash"] == nil {
		t.Errorf("%v", claims)
	}
}

// Codes are taken as people type them.
func TestUserCodeAsTyped(t *testing.T) {
	p := newDeviceIDP(t)
	device := p.device()
	code := device.text("user_code")
	if len(code) != 9 || code[4] != '-' || strings.Trim(strings.Replace(code, "-", "", 1), "BCDFGHJKLMNPQRSTVWXZ") != "" {
		t.Errorf("user code %q", code)
	}
	wide := strings.Map(func(r rune) rune { return r - 'A' + 'Ａ' }, strings.Replace(code, "-", "", 1))
	b := p.browser()
	b.reach(device, userEmail)
	for _, typed := range []string{code, strings.ToLower(code), code[:4] + code[5:], " " + code[:4] + " " + code[5:] +
		" ", code[:4] + "–" + code[5:], wide[:12] + "－" + wide[12:], wide[:12] + "　" + strings.ToLower(wide[12:]), code[:4] +
		"ー" + code[5:]} {
		if got := b.enter(typed); got.asks() != "decision" {
			t.Errorf("%q: %d %s", typed, got.status, shown(got.body))
		}
	}
	for _, typed := range []string{"", "x", code[:8], code + "B", "AEIO-UYAA", "1234-5678", strings.Repeat("B", 300),
		"<script>", "WDJB\x00MJHT"} {
		if got := b.enter(typed); got.status != http.StatusUnprocessableEntity ||
			!strings.Contains(got.body, "This is not a code") || strings.Contains(got.body, "<script>") {
			t.Errorf("%q: %d %s", typed, got.status, shown(got.body))
		}
	}
}

// A browser that is signed in already is asked all the same, and somebody else can take over.
func TestDeviceOfSomebodyElse(t *testing.T) {
	p := newDeviceIDP(t)
	b, _ := p.signedIn("bob@app.test")
	device := p.device()
	got := b.enter(device.text("user_code"))
	if got.asks() != "decision" || !strings.Contains(got.body, "bob@app.test") {
		t.Fatalf("%s", shown(got.body))
	}
	got = b.follow(b.decide(got, "switch"))
	if got.asks() != "password" {
		t.Fatalf("%s", shown(got.body))
	}
	got = b.follow(b.signIn(got, userEmail, userPassword))
	if got.asks() != "decision" || !strings.Contains(got.body, userEmail) {
		t.Fatalf("%s", shown(got.body))
	}
	b.follow(b.decide(got, "allow"))
	if tokens := p.poll(device); tokens.status != http.StatusOK ||
		claimsOf(t, tokens.text("access_token"))["sub"] != "user-ann" {
		t.Errorf("%s", tokens.raw)
	}
}

// RFC 9449 section 5 with a device: the nonce that it is told first is no poll, and what it gets is bound to its key.
func TestDeviceProvesItsKey(t *testing.T) {
	p := newDeviceIDP(t)
	public := p.as(p.register("public-app", func(c *storage.Client) {
		c.Public, c.GrantTypes, c.DPoPBoundAccessTokens = true, []string{deviceGrant, oauth.GrantRefreshToken}, true
	}))
	device := public.device("client_id", public.client.ID)
	public.poll(device, "client_id", public.client.ID).wants(t, "no proof", http.StatusBadRequest, "invalid_dpop_proof")
	public.approve(device)
	p.clock.forward(time.Minute)
	form := url.Values{"grant_type": {deviceGrant}, "device_code": {device.text("device_code")},
		"client_id": {public.client.ID}}
	d := public.prover()
	got := d.token(form)
	if got.status != http.StatusOK || got.text("token_type") != "DPoP" {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.text("refresh_token")},
		"client_id": {public.client.ID}}
	public.prover().token(refresh).wants(t, "another key", http.StatusBadRequest, "invalid_grant")
	if next := d.token(refresh); next.status != http.StatusOK {
		t.Errorf("its own key: %d %s", next.status, next.raw)
	}
}

// Whom the tokens are for is asked for by the device, as an authorization request asks (RFC 8707).
func TestDeviceResources(t *testing.T) {
	const api = "https://api.test"
	p := newDeviceIDP(t, func(c *server.Config) {
		c.ResourceServers = []server.ResourceServer{{ID: "api", Identifier: api, Secret: strings.Repeat("x", 32)}}
	})
	device := p.device("resource", api)
	p.approve(device)
	got := p.poll(device)
	if claims := claimsOf(t, got.text("access_token")); claims["aud"] != api {
		t.Errorf("%v", claims)
	}
	device = p.device()
	p.approve(device)
	p.poll(device, "resource", api).wants(t, "what was not asked for", http.StatusBadRequest, "invalid_target")
	if got := p.poll(device); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

// What the flow asks of etcd, once the shared leases are there.
func TestWhatDevicesAskOfEtcd(t *testing.T) {
	p := newDeviceIDP(t)
	p.clock.begin()
	p.approve(p.device())
	warm := p.device()
	p.approve(warm)
	p.poll(warm)
	var device reply
	b := p.browser()
	b.code()
	var asked page
	for _, c := range []struct {
		rule string
		want storagetest.Counts
		do   func() (status int)
		fine int
	}{
		{"device authorization", storagetest.Counts{Proposals: 1}, func() int { device = p.asks(); return device.status },
			200},
		{"a pending poll", storagetest.Counts{Reads: 1}, func() int { return p.pollNow(device).status }, 400},
		{"a poll too early", storagetest.Counts{}, func() int { return p.pollNow(device).status }, 400},
		{"a poll with garbage", storagetest.Counts{}, func() int {
			return p.pollNow(device, "device_code", "wfd_garbage").status
		}, 400},
		{"the page for the code", storagetest.Counts{}, func() int {
			return b.get(device.text("verification_uri_complete")).status
		}, 200},
		{"a code that cannot be one", storagetest.Counts{}, func() int { return b.enter("x").status }, 422},
		{"a stranger's code", storagetest.Counts{}, func() int { return p.browser().enter(device.text("user_code")).status },
			200},
		// Who is there, twice; the guess; the record.
		{"a code", storagetest.Counts{Reads: 3, Proposals: 1}, func() int {
			asked = b.enter(device.text("user_code"))
			return asked.status
		}, 200},
		{"the question again", storagetest.Counts{Reads: 1}, func() int { return b.get(asked.address).status }, 200},
		{"the decision", storagetest.Counts{Reads: 1, Proposals: 1}, func() int {
			return b.follow(b.decide(asked, "allow")).status
		}, 200},
		{"the poll that gets tokens", storagetest.Counts{Reads: 1, Proposals: 1}, func() int {
			return p.pollNow(device).status
		}, 200},
		{"its replay", storagetest.Counts{Reads: 1, Proposals: 1}, func() int { return p.pollNow(device).status }, 400},
	} {
		if c.rule != "a poll too early" {
			p.clock.forward(11 * time.Second)
		}
		status := 0
		if got := p.etcd.Count(func() { status = c.do() }); got != c.want || status != c.fine {
			t.Errorf("%s: %+v, want %+v; status %d, want %d", c.rule, got, c.want, status, c.fine)
		}
	}
}

// A client that signs with a key does so with each request, and each assertion works once.
func TestDeviceOfAClientWithAKey(t *testing.T) {
	p := newDeviceIDP(t)
	k := p.keyed("key-app", "ES256", func(c *storage.Client) { c.GrantTypes = append(c.GrantTypes, deviceGrant) })
	const asking = "/oauth/device_authorization"
	scope, first := url.Values{"scope": {"threads:read"}}, k.assertion("ES256", nil)
	device := k.asserting(asking, first, scope)
	if device.status != http.StatusOK {
		t.Fatalf("%d %s", device.status, device.raw)
	}
	k.asserting(asking, first, scope).wants(t, "the assertion again", http.StatusUnauthorized, "invalid_client")
	poll := url.Values{"grant_type": {deviceGrant}, "device_code": {device.text("device_code")}}
	k.asserting("/oauth/token", first, poll).wants(t, "the assertion again, to poll", http.StatusUnauthorized,
		"invalid_client")
	shown := k.assertion("ES256", nil)
	k.asserting("/oauth/token", shown, poll).wants(t, "a poll", http.StatusBadRequest, "authorization_pending")
	k.approve(device)
	p.clock.forward(10 * time.Second)
	k.asserting("/oauth/token", shown, poll).wants(t, "the assertion of another poll", http.StatusUnauthorized,
		"invalid_client")
	if got := k.asserting("/oauth/token", k.assertion("ES256", nil), poll); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.raw)
	}
}
