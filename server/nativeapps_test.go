package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/storage"
)

const installed = "com.example.app:/oauth2redirect"

// What AppAuth sends and expects, for Android and iOS: an authorization request with state, nonce and PKCE, a token
// request with client_id and no secret, a refresh, and an end-session request.
func TestAppAuth(t *testing.T) {
	p := newIDP(t)
	client, _ := p.register("phone", func(c *storage.Client) {
		c.Public, c.RedirectURIs, c.PostLogoutRedirectURIs = true, []string{installed}, []string{installed}
	})
	const state, nonce, verifier = "Lg5qKPOb0SvLxMFUTy5qBg", "t2x4qXy6LSdgTMRkEzJ1wA",
		"w2iJkpWqNRbVYzGG5LJ3RQ8Yc4EwRfdv0HkPa1bVY0o1F1mVqTbUDnCzQpKxX7Hn9mGfE2sD4cA6rB8tJ0lZyw"
	request := p.issuer + "/oauth/authorize?" + url.Values{
		"redirect_uri": {installed}, "client_id": {client.ID}, "response_type": {"code"}, "state": {state}, "nonce": {nonce},
		"scope": {"openid email"}, "code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"},
	}.Encode()
	b := p.browser()
	consent := b.follow(b.signIn(b.get(request), userEmail, userPassword))
	if text := shown(consent.body); !strings.Contains(text, "Access goes to an app on this device") ||
		!strings.Contains(text, `<span class="host">com.example.app:</span>`) {
		t.Errorf("the consent page does not say where it goes: %s", text)
	}
	answer := b.decide(consent, "allow")
	if answer.location == nil || !strings.HasPrefix(answer.location.String(), installed+"?code=") ||
		answer.location.Query().Get("state") != state {
		t.Fatalf("answered at %v\n%s", answer.location, shown(answer.body))
	}
	// Browsers that do not leave for an app by themselves leave when somebody presses.
	if !strings.Contains(answer.body, `<a class="button" href="`+installed+`?code=`) {
		t.Errorf("no way to press: %s", shown(answer.body))
	}
	post := func(form url.Values) reply {
		return p.send(p.request(http.MethodPost, p.issuer+"/oauth/token", form.Encode(), "Content-Type", formType, "Accept",
			"application/json"))
	}
	tokens := post(url.Values{"client_id": {client.ID}, "code": {answer.location.Query().Get("code")},
		"redirect_uri": {installed},
		"grant_type":   {"authorization_code"}, "code_verifier": {verifier}})
	if tokens.status != http.StatusOK || claimsOf(t, tokens.text("id_token"))["nonce"] != nonce {
		t.Fatalf("%d %s", tokens.status, tokens.raw)
	}
	if got := post(url.Values{"client_id": {client.ID}, "refresh_token": {tokens.text("refresh_token")},
		"grant_type": {"refresh_token"}}); got.status != http.StatusOK {
		t.Errorf("refresh: %d %s", got.status, got.raw)
	}
	// Any app on the device can take the scheme, so the user is asked each time.
	if got := b.get(request); got.asks() != "decision" {
		t.Errorf("a second time: %d to %v", got.status, got.location)
	}
	denied := b.decide(b.get(request), "deny")
	if denied.location == nil || !strings.HasPrefix(denied.location.String(), installed+"?error=access_denied") {
		t.Errorf("deny: %v", denied.location)
	}
	silent := b.get(request + "&prompt=none")
	if silent.location == nil || silent.location.Query().Get("error") != "consent_required" {
		t.Errorf("silent: %d to %v", silent.status, silent.location)
	}
	posted := b.get(request + "&response_mode=form_post")
	if posted.location == nil || posted.location.Query().Get("error") != "invalid_request" ||
		!strings.HasPrefix(posted.location.String(), installed) {
		t.Errorf("form_post: %d to %v", posted.status, posted.location)
	}
	plain := b.get(strings.NewReplacer("&code_challenge="+challengeOf(verifier), "", "&code_challenge_method=S256",
		"").Replace(request))
	if plain.location == nil || plain.location.Query().Get("error") != "invalid_request" {
		t.Errorf("without PKCE: %d to %v", plain.status, plain.location)
	}
	out := b.get(p.issuer + "/oauth/logout?" + url.Values{"id_token_hint": {tokens.text("id_token")},
		"post_logout_redirect_uri": {installed}, "state": {"s"}}.Encode())
	if out.location == nil || out.location.String() != installed+"?state=s" {
		t.Errorf("end session: %d to %v", out.status, out.location)
	}
}

// Installed apps and those that listen on loopback register themselves, by the rules of manifests; what anybody could
// claim stays for operators.
func TestNativeAppsRegister(t *testing.T) {
	p := newIDP(t, openToAll)
	native := func(uri string) string {
		return `{"application_type":"native","token_endpoint_auth_method":"none","redirect_uris":["` + uri + `"]}`
	}
	for _, uri := range []string{installed, "com.example.app://cb", "http://127.0.0.1/cb", "http://[::1]/cb",
		"http://localhost/cb"} {
		q := p.itself(p.registration(native(uri)))
		asked := strings.Replace(uri, "/cb", ":49152/cb", 1)
		if !strings.HasPrefix(uri, "http") {
			asked = uri
		}
		got := q.browser().get(q.authorizeURL("redirect_uri", asked, "scope", "openid", "code_challenge",
			challengeOf(verifier), "code_challenge_method", "S256"))
		if got.asks() != "password" {
			t.Errorf("%s as %s: %d\n%s", uri, asked, got.status, shown(got.body))
		}
	}
	for rule, body := range map[string]string{
		"web":               strings.Replace(native(installed), "native", "web", 1),
		"no type":           strings.Replace(native(installed), `"application_type":"native",`, "", 1),
		"with a secret":     strings.Replace(native(installed), `"token_endpoint_auth_method":"none",`, "", 1),
		"one word":          native("example:/cb"),
		"a script":          native("javascript:alert(1)"),
		"a script, slashed": native("javascript://com.example.app/%0aalert(1)"),
		"data":              native("data:text/html,x"),
		"a file":            native("file:///etc/passwd"),
		"any port and path": native("http://127.0.0.1:*"),
		"fragment":          native(installed + "#x"),
	} {
		got := p.dynamic(http.MethodPost, p.issuer+"/oauth/register", "", body)
		got.wants(t, rule, http.StatusBadRequest, "invalid_redirect_uri")
	}
}
