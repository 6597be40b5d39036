//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/pquerna/otp/totp"
)

// device is what somebody makes and uses passkeys with, in one tab.
type device struct {
	b  *tab
	id webauthn.AuthenticatorID
}

// newDevice gives a tab a device that recognises its user and answers as soon as it is asked.
func (b *tab) newDevice() *device {
	b.t.Helper()
	return &device{b, run(b, func(ctx context.Context, target *chromedp.Target) (webauthn.AuthenticatorID, error) {
		if _, err := cdp.Call(ctx, target, webauthn.Enable, webauthn.EnableParams{}); err != nil {
			return "", err
		}
		made, err := cdp.Call(ctx, target, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
			Options: &webauthn.VirtualAuthenticatorOptions{Protocol: webauthn.AuthenticatorProtocolCtap2,
				Ctap2version: webauthn.Ctap2versionCtap21, Transport: webauthn.AuthenticatorTransportInternal,
				HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, HasCmtgKey: true,
				AutomaticPresenceSimulation: true}})
		return made.AuthenticatorID, err
	})}
}

// answers says whether somebody touches it when it asks.
func (d *device) answers(at bool) {
	d.b.t.Helper()
	run(d.b, func(ctx context.Context, target *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, target, webauthn.SetAutomaticPresenceSimulation,
			webauthn.SetAutomaticPresenceSimulationParams{AuthenticatorID: d.id, Enabled: at})
	})
}

// lies says what is wrong with its answers.
func (d *device) lies(bogusSignature, badUV bool) {
	d.b.t.Helper()
	run(d.b, func(ctx context.Context, target *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, target, webauthn.SetResponseOverrideBits, webauthn.SetResponseOverrideBitsParams{
			AuthenticatorID: d.id, IsBogusSignature: &bogusSignature, IsBadUV: &badUV})
	})
}

// holds are its passkeys.
func (d *device) holds() []*webauthn.Credential {
	d.b.t.Helper()
	return run(d.b, func(ctx context.Context, target *chromedp.Target) ([]*webauthn.Credential, error) {
		got, err := cdp.Call(ctx, target, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: d.id})
		return got.Credentials, err
	})
}

// forgets waits until it has no passkeys, because the page has told it that none counts.
func (d *device) forgets() {
	d.b.t.Helper()
	ctx, cancel := d.b.within()
	defer cancel()
	for len(d.holds()) > 0 {
		if ctx.Err() != nil {
			d.b.t.Fatal("the device still holds a passkey that was removed")
		}
	}
}

// gets a copy of a passkey, with a counter of its own.
func (d *device) gets(key webauthn.Credential, count float64) {
	d.b.t.Helper()
	key.SignCount, key.CmtgKeys, key.ActiveCmtgKeyIndex = count, nil, nil
	run(d.b, func(ctx context.Context, target *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, target, webauthn.AddCredential,
			webauthn.AddCredentialParams{AuthenticatorID: d.id, Credential: &key})
	})
}

// count sets the counter of its passkeys.
func (d *device) count(n float64) {
	d.b.t.Helper()
	for _, key := range d.holds() {
		run(d.b, func(ctx context.Context, target *chromedp.Target) (cdp.Empty, error) {
			return cdp.Call(ctx, target, webauthn.SetCredentialProperties, webauthn.SetCredentialPropertiesParams{
				AuthenticatorID: d.id, CredentialID: key.CredentialID, SignCount: &n})
		})
	}
}

// usePasskey is the button of each page that asks for one.
const usePasskey = `button[form="passkey"]`

// touch touches the device and presses that button, which leads to another page. The device may answer before that what
// the page asks for by itself; then the page is gone, and nobody has touched it.
func (b *tab) touch(d *device) {
	b.t.Helper()
	b.eval(`window.untouched = true`)
	d.answers(true)
	ctx, cancel := b.within()
	defer cancel()
	const still = `window.untouched === true && document.querySelector('` + usePasskey + `') !== null`
	for ctx.Err() == nil {
		if is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](still)); err != nil || !is {
			break
		}
		once, enough := context.WithTimeout(ctx, 3*time.Second)
		_, err := chromedp.RunResponse(once, chromedp.Click(chromedp.CSS(usePasskey)))
		enough()
		if err == nil {
			break
		}
	}
	b.until(`window.untouched === undefined`)
	b.passOn()
	b.excuse("NavigationEntryMarkedSkippable")
}

// answerLater keeps the answer of the next passkey in the tab, and posts it as the page would.
const answerLater = `(() => { const form = document.getElementById('passkey'); form.submit = () => {
	sessionStorage.answer = form.elements.answer.value; sessionStorage.challenge = form.elements.challenge.value;
	HTMLFormElement.prototype.submit.call(form); }; })()`

// notTaken waits until the sign-in page is there again and says so.
func (b *tab) notTaken(why, title string) {
	b.t.Helper()
	b.t.Log(why)
	b.until(fmt.Sprintf(`document.readyState === 'complete' && document.querySelector('#password') !== null &&
		document.querySelector('#problem b') !== null && document.querySelector('#problem b').textContent === %q`, title))
}

// TestPasskeys makes, uses and removes passkeys as people do, in both languages, on a desktop and on a phone; and as
// nobody should.
func TestPasskeys(t *testing.T) {
	t.Parallel()
	_, port, _ := strings.Cut(freeAddress(t), ":")
	words := map[string][4]string{
		"en": {"That passkey did not work", "There may be a copy of this passkey", "Please try again",
			"There is a passkey already"},
		"ja": {"このパスキーではログインできませんでした", "このパスキーは複製されている可能性があります", "もう一度お試しください", "すでにパスキーがあります"},
	}
	people := map[string]string{}
	for lang := range words {
		for _, w := range windows {
			people[lang+w.name] = "correct horse"
		}
	}
	server := serveAt(t, t.TempDir(), "http://localhost:"+port, people)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprint(w,
			`<!doctype html><html lang="en"><title>Elsewhere</title><link rel="icon" href="data:,"><p>Elsewhere`)
	}))
	t.Cleanup(elsewhere.Close)
	for lang, says := range words {
		for _, w := range windows {
			t.Run(lang+" "+w.name, func(t *testing.T) {
				walkPasskeys(t, server.ready.Issuer, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), lang+
					w.name, lang, says,
					func(b *tab) { b.resize(w.width, w.height, w.phone) }, w.phone)
			})
		}
	}
}

func walkPasskeys(t *testing.T, issuer, elsewhere, user, lang string, says [4]string, window func(*tab),
	pictures bool) {
	_, b := newPerson(t, lang)
	window(b)
	own := b.newDevice()
	shoot := func(b *tab, name string) {
		if pictures { // one walk for each language is enough
			b.shoot(name, lang)
			window(b)
		}
	}
	b.open(issuer + "/account/passkeys")
	b.onSignIn()
	shoot(b, "passkey-signin")
	b.signIn(user, "correct horse")
	shoot(b, "passkeys-none")
	b.press(usePasskey)
	if !b.has(".done") || !b.has(".facts b") || len(own.holds()) != 1 {
		t.Fatalf("no passkey was made: %s", b.text("main"))
	}
	shoot(b, "passkeys-one")
	b.do(chromedp.Click(chromedp.CSS(usePasskey)))
	b.until(`document.querySelector('[data-error="InvalidStateError"]:not([hidden])') !== null`)
	if got := b.text(`[data-error="InvalidStateError"] b`); got != says[3] {
		t.Errorf("a second passkey on the device: the page says %q", got)
	}
	shoot(b, "passkeys-held")
	key := *own.holds()[0]

	// Their phone, say, has the passkey, too: it is offered where the name is typed, and that is all it takes.
	_, c := newPerson(t, lang)
	window(c)
	phone := c.newDevice()
	phone.gets(key, 100)
	c.open(issuer + "/signin")
	c.until(`location.pathname === '/' && document.readyState === 'complete'`)
	if !strings.Contains(c.text("main"), user+"@example.com") {
		t.Fatalf("not signed in by what is offered: %s", c.text("main"))
	}

	// signOut leaves a tab at the sign-in page, with a device that waits for a touch.
	signOut := func(b *tab, d *device) {
		t.Helper()
		d.answers(false)
		b.open(issuer + "/oauth/logout")
		if b.has(`button[value="signout"]`) {
			b.press(`button[value="signout"]`)
		}
		b.open(issuer + "/signin")
		b.onSignIn()
	}
	c.excuse("NavigationEntryMarkedSkippable")
	signOut(c, phone)
	phone.lies(false, true)
	c.touch(phone)
	c.notTaken("nobody verified", says[0])
	shoot(c, "passkey-refused")
	phone.lies(true, false)
	c.touch(phone)
	c.notTaken("bogus signature", says[0])
	phone.lies(false, false)
	phone.count(1)
	c.touch(phone)
	c.notTaken("cloned counter", says[1])
	shoot(c, "passkey-copied")
	phone.count(200)
	c.eval(answerLater)
	c.touch(phone)
	c.until(`location.pathname === '/'`)

	// What was answered once is no answer again.
	signOut(c, phone)
	c.eval(`(() => { const form = document.getElementById('passkey'); form.elements.answer.value = sessionStorage.answer;
		form.elements.challenge.value = sessionStorage.challenge; HTMLFormElement.prototype.submit.call(form); })()`)
	c.notTaken("replayed challenge", says[2])

	// Another site of the same host gets an answer out of the device, which is none here.
	signOut(c, phone)
	asked := run(c, chromedp.Evaluate[string](`document.getElementById('passkey').dataset.ask`))
	challenge := run(c, chromedp.Evaluate[string](`document.getElementById('passkey').elements.challenge.value`))
	phone.answers(true)
	c.open(elsewhere)
	c.eval(fmt.Sprintf(`(async () => {
		const asked = PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(%q));
		document.title = JSON.stringify(await navigator.credentials.get({ publicKey: asked }));
	})()`, asked))
	c.until(`document.title.startsWith('{')`)
	answer := run(c, chromedp.Title())
	phone.answers(false)
	c.open(issuer + "/signin")
	c.eval(fmt.Sprintf(`(() => { const form = document.getElementById('passkey'); form.elements.answer.value = %q;
		form.elements.challenge.value = %q; HTMLFormElement.prototype.submit.call(form); })()`, answer, challenge))
	c.notTaken("other origin", says[0])

	// After the password it is the second factor of somebody who has an authenticator app.
	b.open(issuer + "/account/totp")
	secret := strings.ReplaceAll(run(b, chromedp.Evaluate[string](`document.querySelector('.steps .code').textContent`)),
		" ", "")
	code, err := totp.GenerateCode(strings.TrimSpace(secret), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b.fill("#code", code)
	b.press(`button[value="confirm"]`)
	signOut(c, phone)
	c.signIn(user, "correct horse")
	if !c.has("#code") || !c.has(usePasskey) {
		t.Fatalf("not the factor page: %s", c.text("main"))
	}
	shoot(c, "passkey-factor")
	c.touch(phone)
	c.until(`location.pathname === '/'`)

	b.open(issuer + "/account/passkeys")
	b.eval(`document.querySelector('details').open = true`)
	shoot(b, "passkeys-change")
	b.fill(`input[name="name"]`, "<b>私の phone</b>")
	b.press(`button[value="rename"]`)
	if got := b.text(".facts b"); got != "<b>私の phone</b>" {
		t.Errorf("it is called %q", got)
	}
	b.eval(`document.querySelector('details').open = true`)
	b.press(`button[value="remove"]`)
	if b.has(".facts b") {
		t.Errorf("it is still there: %s", b.text("main"))
	}
	own.forgets()
	shoot(b, "passkeys-removed")
	signOut(c, phone)
	c.touch(phone)
	c.notTaken("removed key", says[0])
	c.excuse("NavigationEntryMarkedSkippable") // forms were posted here that nobody has touched

	// Where scripts do not run there is no button that does nothing, and the password does as well as ever.
	_, d := newPerson(t, lang)
	d.scripts(false)
	d.open(issuer + "/signin")
	d.scripts(true)
	if shown := run(d,
		chromedp.Evaluate[bool](`document.querySelector('button[form="passkey"]').getClientRects().length > 0`)); shown {
		t.Error("a button that does nothing")
	}
	d.signIn(user+"@example.com", "correct horse")
}
