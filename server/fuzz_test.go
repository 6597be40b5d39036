package server_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
)

// faults takes what the server logged as its own faults. That a look-up of an unknown client was put off (503) is none: there
// is a limit, and a fuzzer meets it.
func (l *logBuffer) faults() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

// newFuzzed is a server whose log holds nothing but faults.
func newFuzzed(f *testing.F) *idp {
	var log logBuffer
	p := newIDP(f, func(c *server.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	})
	p.log = &log
	return p
}

func (p *idp) serveOnce(req *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	p.handler.ServeHTTP(rec, req)
	return rec
}

var anyToken = regexp.MustCompile(`"access_token":|"refresh_token":|eyJ|wfr_|wfc_`)

// FuzzToken sends bodies to the token endpoint: no fault of ours, no token, whatever they are. A look-up of an unknown
// client may be put off (503), as there is a limit.
func FuzzToken(f *testing.F) {
	p := newFuzzed(f)
	credentials := "client_id=" + p.client.ID + "&client_secret=" + p.secret
	for _, body := range []string{
		"", "grant_type=authorization_code&code=wfc_AAAAAQ&" + credentials, "grant_type=refresh_token&refresh_token=wfr_AAAAAQ&scope=a+b&" + credentials,
		"grant_type=authorization_code&code=x&code.x=y&scopes.99999999=z&" + credentials, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c",
		"grant_type=refresh_token&refresh_token=%ff&" + credentials, "a=b;c=d", "%", "grant_type=client_credentials&" + credentials, "client_assertion=a.b.c&client_assertion_type=x&grant_type=refresh_token",
	} {
		f.Add(false, body, "")
	}
	for _, body := range []string{
		`{}`, `{"grant_type":"refresh_token","refresh_token":"wfr_AAAAAQ","client_id":"` + p.client.ID + `","client_secret":"` + p.secret + `"}`,
		`{"grant_type":["x"]}`, `{"a":{"b":{}}}`, `{"a":"b","a":"c"}`, `[]`, `{"a":1e999}`, `{"\ud800":"\udfff"}`,
	} {
		f.Add(true, body, "Basic Og==")
		f.Add(true, body, basic(p.client.ID, p.secret))
	}
	f.Fuzz(func(t *testing.T, isJSON bool, body, authorization string) {
		contentType := formType
		if isJSON {
			contentType = "application/json"
		}
		for _, path := range []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/userinfo"} {
			req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			req.Header.Set("Content-Type", contentType)
			if authorization != "" {
				req.Header.Set("Authorization", authorization)
			}
			got := p.serveOnce(req)
			if faults := p.log.faults(); faults != "" || got.Code >= 500 && got.Code != http.StatusServiceUnavailable {
				t.Errorf("%s: %d %s\n%s", path, got.Code, got.Body, faults)
			}
			if found := anyToken.FindString(got.Body.String()); found != "" || strings.Contains(got.Body.String(), `"active":true`) {
				t.Errorf("%s: %d %s", path, got.Code, got.Body)
			}
			if got.Code == http.StatusOK && path == "/oauth/token" {
				t.Errorf("%d %s", got.Code, got.Body)
			}
			if got.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s: may be cached", path)
			}
		}
	})
}

// FuzzAuthorize sends queries to the authorization endpoint: no fault of ours, no code, and no redirect but to a registered
// URI or, from a POST, to the endpoint itself.
func FuzzAuthorize(f *testing.F) {
	p := newFuzzed(f)
	_, own, _ := strings.Cut(p.authorizeURL(), "?")
	for _, query := range []string{
		"", own, own + "&prompt=none", own + "&state=%00", own + "&request=a.b.c", own + "&redirect_uri=x", own + "&max_age=-1&prompt=none+login",
		own + "&ui_locales=ja-JP-x-y+%F0%9F&login_hint=%3Cscript%3E", own + "&code_challenge=x&code_challenge_method=plain", "client_id=%ff", "%zz", own + ";x=y",
		strings.Replace(own, "https%3A%2F%2Fapp.test", "http%3A%2F%2Flocalhost%3A%40evil.test", 1), strings.Replace(own, "https%3A%2F%2Fapp.test", "http%3A%2F%2Flocalhost%3A8080", 1),
	} {
		f.Add(query, false)
		f.Add(query, true)
	}
	registered := regexp.MustCompile(`^(https://app\.test/callback[?]|http://localhost(:[0-9]{1,5})?([/?]|$))`)
	f.Fuzz(func(t *testing.T, query string, post bool) {
		req := httptest.NewRequest(http.MethodGet, "/oauth/authorize", nil)
		if post {
			req = httptest.NewRequest(http.MethodPost, "/oauth/authorize", strings.NewReader(query))
			req.Header.Set("Content-Type", formType)
		} else {
			req.URL.RawQuery = query
		}
		got := p.serveOnce(req)
		if faults := p.log.faults(); faults != "" || got.Code >= 500 && got.Code != http.StatusServiceUnavailable {
			t.Errorf("%d %s\n%s", got.Code, got.Body, faults)
		}
		to := got.Header().Get("Location")
		if to == "" {
			if got.Code != http.StatusOK && got.Code != http.StatusBadRequest && got.Code != http.StatusServiceUnavailable {
				t.Errorf("%d", got.Code)
			}
			return
		}
		if post && strings.HasPrefix(to, p.issuer+"/oauth/authorize?") {
			return
		}
		u, err := url.Parse(to)
		if err != nil || got.Code != http.StatusSeeOther || !registered.MatchString(to) || u.User != nil {
			t.Fatalf("%d to %q, %v", got.Code, to, err)
		}
		if params := u.Query(); params.Has("code") && params.Get("error") == "" || params.Get("iss") != p.issuer {
			t.Errorf("to %s", to)
		}
	})
}
