package server_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/storage"
)

// upstream is an identity provider that our own server is, as a connector of another one.
type upstream struct {
	*idp
	id string
	// back is where it sends browsers.
	back string
	// started are the questions so far; failing, what Start and Finish say instead.
	started           []connector.Ask
	startErr, doneErr error
	// always is who everybody is, whatever came back.
	always *connector.Identity
}

// newUpstream is one with the users of newIDP, and us as its client.
func newUpstream(t testing.TB, id string) *upstream {
	return &upstream{idp: newIDP(t), id: id}
}

// of gives it the address of the server whose connector it is.
func (u *upstream) of(issuer string) connector.Connector {
	u.back = issuer + "/callback/" + u.id
	u.update("my-app", func(c *storage.Client) { c.RedirectURIs = []string{u.back, issuer + "/callback"} })
	return connector.Connector{ID: u.id, Name: strings.ToUpper(u.id), Redirect: u}
}

// Start is [connector.Redirect].
func (u *upstream) Start(_ context.Context, ask connector.Ask) (connector.Away, error) {
	u.started = append(u.started, ask)
	if u.startErr != nil {
		return connector.Away{}, u.startErr
	}
	params := []string{"redirect_uri", u.back, "scope", "openid email profile", "state", ask.State, "nonce", ask.Nonce,
		"code_challenge", challengeOf(verifier), "code_challenge_method", "S256", "login_hint", ask.LoginHint}
	if ask.Fresh {
		params = append(params, "prompt", "login")
	}
	return connector.Away{URL: u.authorizeURL(params...), Keep: []byte(verifier)}, nil
}

// Finish is [connector.Redirect].
func (u *upstream) Finish(_ context.Context, ask connector.Ask, keep []byte,
	r *http.Request) (connector.Identity, error) {
	if u.doneErr != nil {
		return connector.Identity{}, u.doneErr
	}
	if u.always != nil {
		return *u.always, nil
	}
	if code := r.Form.Get("error"); code != "" {
		return connector.Identity{}, &connector.RefusedError{Cancelled: code == "access_denied", Reason: code}
	}
	if r.Form.Get("iss") != u.issuer {
		return connector.Identity{}, connector.Refuse("iss is %s", r.Form.Get("iss"))
	}
	resp, err := http.PostForm(u.issuer+"/oauth/token", url.Values{"grant_type": {"authorization_code"},
		"code": {r.Form.Get("code")}, "redirect_uri": {u.back}, "code_verifier": {string(keep)},
		"client_id": {u.client.ID}, "client_secret": {u.secret}})
	if err != nil {
		return connector.Identity{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return connector.Identity{}, err
	}
	var tokens struct {
		IDToken string `json:"id_token"`
		Error   string `json:"error"`
	}
	if err := json.Unmarshal(body, &tokens); err != nil || tokens.IDToken == "" {
		return connector.Identity{}, connector.Refuse("the token endpoint: %s", cmp.Or(tokens.Error, "no ID token"))
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(tokens.IDToken, ".")[1])
	if err != nil {
		return connector.Identity{}, err
	}
	var claims struct {
		Subject  string `json:"sub"`
		Nonce    string `json:"nonce"`
		Name     string `json:"name"`
		Email    string `json:"email"`
		Verified bool   `json:"email_verified"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Nonce != ask.Nonce {
		return connector.Identity{}, connector.Refuse("the nonce is another (%v)", err)
	}
	return connector.Identity{UserID: claims.Subject, Name: claims.Name, Email: claims.Email,
		EmailVerified: claims.Verified}, nil
}

// SignOutURL is [connector.SignOuter].
func (u *upstream) SignOutURL(_ context.Context, back string) (string, error) {
	if u.startErr != nil {
		return "", u.startErr
	}
	return u.issuer + "/oauth/logout?" + url.Values{"client_id": {u.client.ID},
		"post_logout_redirect_uri": {back}}.Encode(), nil
}

// directory is a Password connector with its own people.
type directory struct {
	people map[string]string // passwords by name
	err    error
	asked  atomic.Int64
}

// Login is [connector.Password].
func (d *directory) Login(_ context.Context, login, password string) (connector.Identity, bool, error) {
	d.asked.Add(1)
	if d.err != nil {
		return connector.Identity{}, false, d.err
	}
	if p, is := d.people[login]; !is || p != password {
		return connector.Identity{}, false, nil
	}
	return connector.Identity{UserID: "uid=" + login, Username: login, Name: strings.ToUpper(login)}, true, nil
}

// User is [connector.Password].
func (d *directory) User(string) (string, bool) { return "", false }

// Account is [connector.Password].
func (d *directory) Account(login string) string { return strings.ToLower(login) }

// federated is a server with upstreams beside its own users.
func federated(t testing.TB, ups []*upstream, change ...func(*server.Config)) *idp {
	t.Helper()
	return newIDP(t, append([]func(*server.Config){func(c *server.Config) {
		for _, u := range ups {
			c.Connectors = append(c.Connectors, u.of(c.Issuer))
		}
	}}, change...)...)
}

// press follows the link of a page to a connector.
func (b *browser) press(got page, id string) page {
	b.p.t.Helper()
	_, rest, found := strings.Cut(got.body, `href="`+b.p.base()+"/oauth/connect/"+id+"?")
	if !found {
		b.p.t.Fatalf("no way %s on the page: %d %s", id, got.status, shown(got.body))
	}
	query, _, _ := strings.Cut(rest, `"`)
	return b.get(b.p.issuer + "/oauth/connect/" + id + "?" + strings.ReplaceAll(query, "&amp;", "&"))
}

func (p *idp) base() string {
	u, err := url.Parse(p.issuer)
	if err != nil {
		p.t.Fatal(err)
	}
	return u.EscapedPath()
}

// through is what the browser finds at an upstream, where it signs in and allows whatever is asked; it comes back with
// an answer for b's server that it has not followed yet.
func (b *browser) through(u *upstream, got page, login string) page {
	b.p.t.Helper()
	if got.location == nil || !strings.HasPrefix(got.location.String(), u.issuer+"/") {
		b.p.t.Fatalf("not sent to %s, but %v: %d %s", u.id, got.location, got.status, shown(got.body))
	}
	there := &browser{u.idp, b.http}
	got = there.follow(there.get(got.location.String()))
	if got.asks() == "password" {
		got = there.follow(there.signIn(got, login, userPassword))
	}
	if got.asks() == "decision" {
		got = there.follow(there.decide(got, "allow"))
	}
	if got.location == nil || !strings.HasPrefix(got.location.String(), b.p.issuer+"/callback") {
		b.p.t.Fatalf("%s does not send back: %d to %v\n%s", u.id, got.status, got.location, shown(got.body))
	}
	return got
}

// by signs b in at an upstream, and goes on until the app has its code.
func (b *browser) by(u *upstream, login string, changes ...string) string {
	b.p.t.Helper()
	got := b.press(b.follow(b.get(b.p.authorizeURL(changes...))), u.id)
	got = b.follow(b.through(u, got, login))
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	return b.answered(got, "signed in at "+u.id)
}

var errAway = errors.New("dial tcp 192.0.2.1:443: no route to host of ann@app.test")

// A connector sends the browser away and gets it back; the app learns who came, and by nothing that is not known.
func TestSigningInAtAnIdentityProvider(t *testing.T) {
	up := newUpstream(t, "up")
	p := federated(t, []*upstream{up})
	b := p.browser()
	got := b.get(p.authorizeURL("scope", "openid email profile", "login_hint", "bob@app.test"))
	if got.asks() != "password" || !strings.Contains(got.body, "Sign in with UP") {
		t.Fatal(got.status, shown(got.body))
	}
	got = b.follow(b.through(up, b.press(got, "up"), "bob@app.test"))
	if got.asks() == "decision" {
		got = b.follow(b.decide(got, "allow"))
	}
	issued := p.exchange(b.answered(got, "signed in"))
	claims := claimsOf(t, issued.text("id_token"))
	sub := connector.SubjectsHashed.Of("up", "user-bob")
	if claims["sub"] != sub || claims["email"] != "bob@app.test" || claims["amr"] != nil || claims["acr"] != nil {
		t.Errorf("%v", claims)
	}
	u, err := p.store.User(t.Context(), sub)
	if err != nil || u.Connector != "up" || u.UpstreamID != "user-bob" || u.Email != "bob@app.test" {
		t.Errorf("%+v, %v", u, err)
	}
	if ask := up.started[0]; ask.LoginHint != "bob@app.test" || ask.Fresh || len(ask.State) != 43 || len(ask.Nonce) != 43 {
		t.Errorf("%+v", ask)
	}
	for _, c := range b.http.Jar.Cookies(mustURL(t, p.issuer+"/callback")) {
		if strings.Contains(c.Name, "away") {
			t.Errorf("the cookie %s is still there", c.Name)
		}
	}
	// The one of the same address here is another account.
	other := p.exchange(p.browser().code("scope", "openid"))
	if claims := claimsOf(t, other.text("id_token")); claims["sub"] == sub {
		t.Errorf("%v", claims)
	}
	if !p.active(issued.text("access_token")) {
		t.Error("the token is of no use")
	}
}

func mustURL(t testing.TB, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", address, err))
	}
	return u
}

func randomText() string { return rand.Text() }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// posting is an upstream that is asked by a form, as one of SAML is.
type posting struct {
	*upstream
	away *connector.Away
}

// Start is [connector.Redirect].
func (p posting) Start(_ context.Context, ask connector.Ask) (connector.Away, error) {
	p.started = append(p.started, ask)
	return *p.away, nil
}

// ticketed is a directory that knows a browser by its ticket.
type ticketed struct{ *directory }

// Negotiate is [connector.Negotiator].
func (d ticketed) Negotiate(_ context.Context, w http.ResponseWriter,
	r *http.Request) (*connector.Identity, bool, error) {
	switch r.Header.Get("Authorization") {
	case "Negotiate good":
		return &connector.Identity{UserID: "uid=ann", Name: "ANN", AMR: []string{"kerberos"}}, true, nil
	case "Negotiate fault":
		return nil, false, errAway
	case "Negotiate ask":
		w.Header().Set("WWW-Authenticate", "Negotiate")
		w.WriteHeader(http.StatusUnauthorized)
		return nil, true, nil
	}
	return nil, false, nil
}
