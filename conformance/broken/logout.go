package broken

import (
	"crypto/rand"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// logoutFaults answer logout requests without logging anybody out, unless they say otherwise.
func logoutFaults() []Fault {
	leave := func(name string, which func(url.Values) bool, change func(to *url.URL, q url.Values)) Fault {
		return Fault{Name: name, alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			to, err := url.Parse(q.Get("post_logout_redirect_uri"))
			if !p.at(r, "end_session_endpoint") || err != nil || to.Host == "" || !which(q) {
				return false
			}
			query := to.Query()
			if q.Has("state") {
				query.Set("state", q.Get("state"))
			}
			to.RawQuery = query.Encode()
			if change != nil {
				change(to, q)
			}
			w.Header().Set("Location", to.String())
			w.WriteHeader(http.StatusSeeOther)
			return true
		}}
	}
	always := func(url.Values) bool { return true }
	return slices.Concat(logoutTokenFaults(), []Fault{
		leave("logout-forgotten", always, nil),
		leave("logout-state-dropped", always, func(to *url.URL, _ url.Values) { to.RawQuery = "" }),
		leave("logout-to-anywhere", func(q url.Values) bool {
			return !strings.HasSuffix(q.Get("post_logout_redirect_uri"), "/post_logout_redirect")
		}, nil),
		leave("logout-hint-unneeded", func(q url.Values) bool { return !q.Has("id_token_hint") }, nil),
		leave("logout-hint-unsigned", func(q url.Values) bool { return strings.HasSuffix(q.Get("id_token_hint"), ".") }, nil),
		leave("logout-hint-of-anybody", func(q url.Values) bool {
			return claimsOf(q.Get("id_token_hint"))["sub"] == "SubjectID"
		}, nil),
		{Name: "logout-ignored", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			if !p.at(r, "end_session_endpoint") || r.URL.Query().Has("post_logout_redirect_uri") {
				return false
			}
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte("<!doctype html><title>Bye</title><p>You are signed out."))
			return true
		}},
		{Name: "frame-missing", tell: frames(func(string) string { return "" })},
		{Name: "frame-sid-other", tell: frames(func(src string) string { return change(src, "sid", "another") })},
		{Name: "frame-iss-other", tell: frames(func(src string) string {
			return change(src, "iss", "https://another.example.com")
		})},
	})
}

// event makes a JWT a logout token.
const event = "http://schemas.openid.net/event/backchannel-logout"

// logoutTokenFaults send a logout token themselves, and let the good provider do the rest.
func logoutTokenFaults() []Fault {
	send := func(name, method string, change func(map[string]any)) Fault {
		return Fault{
			Name: name,
			ask: func(p *Provider, r *http.Request) {
				hint := claimsOf(r.URL.Query().Get("id_token_hint"))
				if !p.at(r, "end_session_endpoint") || hint == nil {
					return
				}
				claims := map[string]any{
					"iss": p.issuer, "sub": hint["sub"], "sid": hint["sid"], "aud": hint["aud"], "jti": rand.Text(),
					"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
					"events": map[string]any{event: map[string]any{}},
				}
				change(claims)
				p.call(method, url.Values{"logout_token": {p.signed(p.own(), claims)}})
			},
			tell: func(p *Provider, r *http.Request, _ *http.Response, body []byte) []byte {
				if p.at(r, "jwks_uri") {
					return p.publish(body, p.key.Public())
				}
				return body
			},
		}
	}
	nothing := func(map[string]any) {}
	unpublished := send("logout-token-key-unknown", http.MethodPost, nothing)
	unpublished.tell = nil
	return []Fault{
		send("logout-token-sent", http.MethodPost, nothing), // nothing is wrong with that
		{Name: "logout-token-missing"},
		unpublished,
		send("logout-token-got", http.MethodGet, nothing),
		send("logout-token-aud-other", http.MethodPost, put("aud", "another-client")),
		send("logout-token-iss-other", http.MethodPost, put("iss", "https://another.example.com")),
		send("logout-token-sid-other", http.MethodPost, put("sid", "another")),
		send("logout-token-sub-other", http.MethodPost, put("sub", "somebody-else")),
		send("logout-token-of-nobody", http.MethodPost, func(c map[string]any) { delete(c, "sub"); delete(c, "sid") }),
		send("logout-token-jti-missing", http.MethodPost, drop("jti")),
		send("logout-token-iat-missing", http.MethodPost, drop("iat")),
		send("logout-token-exp-past", http.MethodPost, put("exp", time.Now().Add(-time.Hour).Unix())),
		send("logout-token-nonce", http.MethodPost, put("nonce", "unasked")),
		send("logout-token-events-missing", http.MethodPost, drop("events")),
		send("logout-token-event-text", http.MethodPost, put("events", map[string]any{event: "logout"})),
	}
}

// call sends a form to where logout tokens go.
func (p *Provider) call(method string, values url.Values) {
	address, body := p.Backchannel, values.Encode()
	if method == http.MethodGet {
		address, body = address+"?"+body, ""
	}
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if resp, err := p.upstream.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
	}
}

// source is where a frame loads from.
var source = regexp.MustCompile(`(<iframe[^>]* src=")([^"]*)(")`)

// frames changes what pages of the logout embed.
func frames(change func(src string) string) func(*Provider, *http.Request, *http.Response, []byte) []byte {
	return func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			return body
		}
		return source.ReplaceAllFunc(body, func(found []byte) []byte {
			parts := source.FindSubmatch(found)
			return []byte(string(parts[1]) + html.EscapeString(change(html.UnescapeString(string(parts[2])))) + string(parts[3]))
		})
	}
}

func change(src, name, value string) string {
	u, err := url.Parse(src)
	if err != nil {
		return src
	}
	query := u.Query()
	query.Set(name, value)
	u.RawQuery = query.Encode()
	return u.String()
}
