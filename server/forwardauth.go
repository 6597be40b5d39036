package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Forward auth: an app that knows no OAuth stands behind a proxy, which asks here about each request before the app
// gets it (auth_request of nginx, forward_auth of Caddy, forwardAuth of Traefik). The answer lets it through, with
// headers that say who the user is, or sends the browser to sign in.
//
//	browser ─ wiki.example.com ─ proxy ─┬─ /auth/verify: 200 and Remote-User, ... ─ app
//	                                    └─ 303 ─ /oauth/authorize ─ wiki.example.com/.warifu/callback ─ 303 ─ back
//
// The sign-in is an authorization request like any other, in which this server is the client in the app's place: who
// may use the app, second factors, consent and the page that says no are decided in one place (next.go). What comes
// back is a code, redeemed here into a grant, which people and operators see and take back like every grant, and which
// ends with the sign-in. A browser has one for each host: another sign-in ends the grant that its session had there. It
// keeps a cookie of the app's own host: the sealed name of that grant. Each request costs one read, of the grant, its
// user and the client, and every rule is asked again.
//
// # Whom it believes
//
// What is asked about is in headers (X-Forwarded-Host, -Proto, -Uri, -Method), so it is taken from the proxies of
// web.trustedProxies alone: a page of another site can make a browser send a request here, but not from there. The
// host has to be one that a manifest lists (spec.oauth.forwardAuth.hosts), and belongs to one app at all its ports, but
// on loopback, where each port is a host of its own, for development; its sign-ins come back there and nowhere else. A
// cookie is good for the host for which it was made. Nothing that other sites make a browser do here changes anything:
// what signs out asks first, at the server's own page. Where no proxy is trusted, nobody may ask: the log says so, and
// so do warifu doctor and the plan of such a manifest.
//
// A request that brings one of the headers which tell the app who the user is, in any spelling that a web server would
// take for it (Remote_User), is refused, whatever the proxy would have made of it. All of them are in each answer that
// lets a request through, also with nothing in them, so that a proxy that copies them leaves none of another origin.
// What the app compares is told as it is or not at all: a name that would be cut or smoothed might be somebody else's.
//
// # When it ends
//
// With the next request: nothing is kept here between two of them. A user who is blocked or leaves a group, a session
// that ended here or at the identity provider, a grant that was taken back, a demand for a second factor, a client
// that is gone or has another access rule: the request after it is asked to sign in, and there it is said what is
// wrong. What a proxy caches, and a WebSocket that is open, is out of reach.
//
// # What proxies can do
//
// Caddy and Traefik hand the answer to the browser if it is no 2xx. The auth_request of nginx can but say no: there the
// question is /auth/verify/status, to which the answer is 401, and a named location asks once more at /auth/verify.
// Requests of scripts, and all that are no navigation, get the 401 in any case: a redirect to a page would tell them
// nothing, and a form that was posted would be lost by it.

// Paths of forward auth. Proxies call the first two; browsers see the third when a sign-in has come to nothing.
const (
	pathVerify       = "/auth/verify"
	pathVerifyStatus = pathVerify + "/status" // for proxies that hand no answer on
	pathStopped      = "/auth/stopped"
)

// Headers that tell an app who its user is.
const (
	headerUser   = "Remote-User"
	headerName   = "Remote-Name"
	headerEmail  = "Remote-Email"
	headerGroups = "Remote-Groups"
)

// maxForwardedURI is how much of an address is kept while somebody signs in; whoever was at a longer one comes back to
// the front page of the app.
const maxForwardedURI = 1024

// forwarded is a request to an app, about which its proxy asks.
type forwarded struct {
	client *storage.Client
	host   string
	uri    *url.URL // path and query
	// navigation: a redirect leads somewhere, because the browser is going to show what comes, in a window of its own: the
	// pages to sign in are shown in no frame.
	navigation bool
	// yesNo: the proxy hands no answer on.
	yesNo bool
}

// origin is that of the app.
func (f *forwarded) origin() string { return oauth.ForwardOrigin(f.host) }

// here is where the request goes, to come back to.
func (f *forwarded) here() string {
	if here := f.uri.RequestURI(); len(here) <= maxForwardedURI {
		return here
	}
	return "/"
}

// forwardSession is what the cookie of an app's host holds, sealed.
type forwardSession struct {
	Host    string   `json:"h"`
	Client  string   `json:"c"`
	Grant   string   `json:"g"`
	User    string   `json:"u"`
	AMR     []string `json:"m,omitempty"`
	Class   string   `json:"a,omitempty"`
	Expires int64    `json:"x"` // Unix milliseconds
}

// unasked are the apps of which an operator was told that no proxy may ask about them.
type unasked struct {
	mu   sync.Mutex
	apps []string
}

// Applied looks at what can be wrong with the configuration once another app is there, which only the log tells.
func (s *Server) Applied(ctx context.Context) { s.InForce().warnOfUnasked(ctx) }

// warnOfUnasked tells the operator of apps behind forward auth about which nobody may ask, because there are no trusted
// proxies: of each app once, as long as that is so.
func (s *Server) warnOfUnasked(ctx context.Context) {
	var apps []string
	if len(s.proxies) == 0 {
		apps = s.store.BehindForwardAuth()
	}
	u := &s.unasked
	u.mu.Lock()
	fresh := oauth.Without(apps, u.apps)
	u.apps = apps
	u.mu.Unlock()
	if len(fresh) > 0 {
		s.log.WarnContext(ctx, "no proxy is allowed to ask about apps behind forward auth, so every request to them "+
			"is refused: list the proxy in front of them in web.trustedProxies, then run warifu reload",
			"apps", strings.Join(fresh, ", "))
	}
}

// verify answers a proxy that asks about a request.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	w.Header().Del("Strict-Transport-Security") // the proxy hands it to a browser that is at the app
	f, err := s.forwarded(r)
	if err == nil {
		visitOf(r.Context()).noteClient(f.client)
		switch below, is := strings.CutPrefix(f.uri.Path, oauth.PathForward); {
		case is && f.yesNo: // it takes this for a path of the app's, and what is no 2xx, 401 or 403 for a fault
			err = nothingHere()
		case is:
			err = s.forwardPage(w, r, f, below)
		default:
			err = s.admitForwarded(w, r, f)
		}
	}
	if err != nil {
		visitOf(r.Context()).endpoint = verifyEndpoint
		s.refuse(w, r, err)
	}
}

// verifyEndpoint is where proxies are refused.
var verifyEndpoint = &endpoint{}

// refuseForward is a refusal of a request to an app.
func refuseForward(rule, format string, args ...any) *oauth.Error {
	return oauth.Refuse(oauth.CodeAccessDenied, rule, format, args...)
}

// forwarded reads what a proxy asks about.
func (s *Server) forwarded(r *http.Request) (*forwarded, error) {
	if peer := addressIn(r.RemoteAddr); !s.trust(peer) {
		return nil, refuseForward(oauth.RuleForwardProxy,
			"only proxies among web.trustedProxies of the configuration may ask; this is %s", shownAddress(peer)).
			About(shownAddress(peer), "", "web.trustedProxies")
	}
	for name := range r.Header {
		if tellsUser(name) {
			return nil, refuseForward(oauth.RuleForwardHeaders,
				"the request carries %s, which only warifu may set", oauth.Printable(name))
		}
	}
	host, err := oneHeader(r, "X-Forwarded-Host")
	if err != nil {
		return nil, err
	}
	scheme, err := oneHeader(r, "X-Forwarded-Proto")
	if err != nil {
		return nil, err
	}
	scheme = strings.Replace(scheme, "ws", "http", 1) // as Traefik calls that of WebSockets
	asked, err := oneHeader(r, "X-Forwarded-Uri")
	if err != nil {
		return nil, err
	}
	f := &forwarded{host: strings.TrimSuffix(strings.ToLower(host), ":"+defaultPort(scheme))}
	if f.client = s.store.AtHost(f.host); f.client == nil {
		return nil, refuseForward(oauth.RuleForwardHost, "no app.yml lists the host %s in spec.oauth.forwardAuth.hosts",
			oauth.Printable(f.host)).About(oauth.Cut(f.host, maxShownURI), "", "spec.oauth.forwardAuth.hosts")
	}
	if origin := f.origin(); !strings.HasPrefix(origin, scheme+"://") {
		return nil, refuseForward(oauth.RuleForwardRequest,
			"X-Forwarded-Proto says %s, but the app is at %s", oauth.Printable(scheme), origin)
	}
	if f.uri, err = url.ParseRequestURI(asked); err != nil || !strings.HasPrefix(asked, "/") {
		return nil, refuseForward(oauth.RuleForwardRequest, "X-Forwarded-Uri is not the path of a request")
	}
	// No query says so: Caddy sends along the one of the browser.
	f.yesNo = strings.HasSuffix(r.URL.Path, pathVerifyStatus)
	f.navigation = isNavigation(r) && !f.yesNo
	return f, nil
}

func defaultPort(scheme string) string {
	if scheme == "http" {
		return "80"
	}
	return "443"
}

// oneHeader is the one value of a header that the proxy sets.
func oneHeader(r *http.Request, name string) (string, error) {
	switch values := r.Header[http.CanonicalHeaderKey(name)]; {
	case len(values) == 0 || values[0] == "":
		return "", refuseForward(oauth.RuleForwardRequest, "the proxy did not send %s", name)
	case len(values) > 1 || strings.Contains(values[0], ",") && name != "X-Forwarded-Uri":
		return "", refuseForward(oauth.RuleForwardRequest,
			"%s has more than one value: the proxy must replace what it was sent", name)
	default:
		return values[0], nil
	}
}

// tellsUser reports whether a server would take a header for one that says who the user is: to gateways like CGI and
// WSGI each character that is neither letter nor digit is the same.
func tellsUser(name string) bool {
	alike := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, name)
	switch http.CanonicalHeaderKey(alike) {
	case headerUser, headerName, headerEmail, headerGroups:
		return true
	}
	return false
}

// isNavigation reports whether a redirect leads somewhere: the browser is going to show what comes.
func isNavigation(r *http.Request) bool {
	switch r.Header.Get("X-Forwarded-Method") {
	case "", http.MethodGet, http.MethodHead:
	default:
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	}
	return accepts(r.Header, "text/html")
}

// admitForwarded lets a request through to the app, if somebody has signed in who may use it.
func (s *Server) admitForwarded(w http.ResponseWriter, r *http.Request, f *forwarded) error {
	c, view, err := s.forwardedUser(r, f)
	switch {
	case verdict(err):
		if !f.navigation {
			return &statusError{http.StatusUnauthorized, f.signInNeeded(err)}
		}
		return s.signInForwarded(w, r, f)
	case err != nil:
		return fmt.Errorf("read the sign-in of a forwarded request: %w", err)
	}
	return s.tellForwarded(w, c, view)
}

// signInNeeded refuses what is not led to the sign-in. The answer to a question that is asked once more is a step; the
// one that somebody is shown is to be explained later.
func (f *forwarded) signInNeeded(why error) *oauth.Error {
	code, said := oauth.CodeAccessDenied, "nobody has signed in to this app in this browser, or the sign-in has ended"
	if f.yesNo {
		code = oauth.CodeLoginRequired
	}
	switch {
	case errors.Is(why, errNotAssured):
		said = "this app demands a second factor now: open it in a browser, to prove one"
	case errors.Is(why, errNotAdmitted):
		said = "the user who has signed in may not use this app"
	}
	return oauth.Refuse(code, oauth.RuleForwardSignIn, "%s", said)
}

// forwardedUser is the grant of who has signed in, and the client as etcd has it: the error is a verdict, or a fault.
// It takes one read, unless the client has changed a moment ago.
func (s *Server) forwardedUser(r *http.Request, f *forwarded) (*storage.Client, grantView, error) {
	sealed := f.cookie(r, cookieApp)
	if sealed == "" {
		return nil, grantView{}, storage.ErrNotFound
	}
	var session forwardSession
	if err := s.open(storage.SealApp, sealed, &session); err != nil {
		return nil, grantView{}, err
	}
	if session.Host != f.host || session.Client != f.client.ID || !s.now().Before(time.UnixMilli(session.Expires)) {
		return nil, grantView{}, storage.ErrNotFound
	}
	view, err := s.liveGrant(r.Context(), session.Client, session.Grant, session.User)
	if err != nil {
		return nil, grantView{}, err
	}
	c, err := s.clientAt(r.Context(), f.client, session.Client, view.ClientRevision)
	if err != nil {
		return nil, grantView{}, err
	}
	u := view.User.User
	switch {
	case !c.IsBehindForwardAuth(f.host), !slices.Contains(s.offered(c, view.Grant.Scopes), oauth.ScopeOpenID):
		return nil, grantView{}, storage.ErrNotFound
	case !admits(c, u):
		return nil, grantView{}, errNotAdmitted
	case !s.assuredOf(u, c, session.Class, session.AMR):
		return nil, grantView{}, errNotAssured
	}
	return c, view, nil
}

// tellForwarded lets a request through, and tells the app who the user is, as far as scopes go.
func (s *Server) tellForwarded(w http.ResponseWriter, c *storage.Client, view grantView) error {
	u, scopes, verified := view.User, s.offered(c, view.Grant.Scopes), ""
	if u.EmailVerified && slices.Contains(scopes, oauth.ScopeEmail) {
		verified = exactly(u.Email)
	}
	told := map[string]string{headerUser: "", headerName: "", headerEmail: verified, headerGroups: ""}
	if slices.Contains(scopes, oauth.ScopeProfile) {
		told[headerName] = oauth.Plain(u.Name, maxHint)
	}
	if slices.Contains(scopes, oauth.ScopeGroups) {
		told[headerGroups] = groupList(c.ToldGroups(u.GroupNames()))
	}
	switch c.ForwardAuthUser {
	case oauth.ForwardUserUsername:
		if slices.Contains(scopes, oauth.ScopeProfile) {
			told[headerUser] = exactly(u.Username)
		}
	case oauth.ForwardUserEmail:
		told[headerUser] = verified
	default:
		sub, err := s.subject(c, u.ID)
		if err != nil {
			return err
		}
		told[headerUser] = sub
	}
	if told[headerUser] == "" {
		return refuseForward(oauth.RuleForwardUser,
			"the user has no %s that can be sent in a header, and the app identifies its users by it",
			c.ForwardAuthUser).
			About("", "", "spec.oauth.forwardAuth.user")
	}
	for name, value := range told {
		w.Header()[name] = []string{value}
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// exactly is a name by which an app knows somebody, if a header can say it as it is; empty if not.
func exactly(name string) string {
	if oauth.Plain(name, maxHint) != name {
		return ""
	}
	return name
}

// groupList writes groups with commas between them. What would be taken for a comma is escaped, so that no name of a
// group says two; one that a header cannot say is left out.
func groupList(groups []string) string {
	escaped := strings.NewReplacer("%", "%25", ",", "%2C")
	var names []string
	for _, group := range groups {
		if name := exactly(group); name != "" {
			names = append(names, escaped.Replace(name))
		}
	}
	return strings.Join(names, ",")
}
