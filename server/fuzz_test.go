package server_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
)

// faults takes what the server logged as its own faults. That a look-up of an unknown client was put off (503) is none:
// there is a limit, and a fuzzer meets it.
func (l *logBuffer) faults() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

// newFuzzed is a server whose log holds nothing but faults.
func newFuzzed(f *testing.F, change ...func(*server.Config)) *idp {
	var log logBuffer
	p := newIDP(f, append(change, func(c *server.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	})...)
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
		"", "grant_type=authorization_code&code=wfc_AAAAAQ&" + credentials,
		"grant_type=refresh_token&refresh_token=wfr_AAAAAQ&scope=a+b&" + credentials,
		"grant_type=authorization_code&code=x&code.x=y&scopes.99999999=z&" + credentials,
		"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c",
		"grant_type=refresh_token&refresh_token=%ff&" + credentials, "a=b;c=d", "%", "grant_type=client_credentials&" +
			credentials, "client_assertion=a.b.c&client_assertion_type=x&grant_type=refresh_token",
	} {
		f.Add(false, body, "")
	}
	for _, body := range []string{
		`{}`, `{"grant_type":"refresh_token","refresh_token":"wfr_AAAAAQ","client_id":"` + p.client.ID +
			`","client_secret":"` + p.secret + `"}`,
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
			if found := anyToken.FindString(got.Body.String()); found != "" || strings.Contains(got.Body.String(),
				`"active":true`) {
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

// registeredRedirect is where the client of a test may be answered.
var registeredRedirect = regexp.MustCompile(`^(https://app\.test/callback[?]|http://localhost(:[0-9]{1,5})?([/?]|$))`)

// FuzzAuthorize sends queries to the authorization endpoint: no fault of ours, no code, and no redirect but to a
// registered URI or, from a POST, to the endpoint itself.
func FuzzAuthorize(f *testing.F) {
	p := newFuzzed(f)
	_, own, _ := strings.Cut(p.authorizeURL(), "?")
	for _, query := range []string{
		"", own, own + "&response_mode=form_post&prompt=none", own +
			"&claims=%7B%22id_token%22%3A%7B%22sub%22%3A%7B%22value%22%3A%22x%22%7D%7D%7D&prompt=none", own + "&request=" +
			unsigned(f, p.asked(nil)), own + "&id_token_hint=a.b.c&dpop_jkt=x",
		"client_id=" + p.client.ID + "&request_uri=" + url.QueryEscape(p.push().text("request_uri")), own +
			"&request_uri=urn:ietf:params:oauth:request_uri:wfp_AAAAAQ&resource=a&resource=b",
		own + "&prompt=none", own + "&state=%00", own + "&request=a.b.c", own + "&redirect_uri=x", own +
			"&max_age=-1&prompt=none+login",
		own + "&ui_locales=ja-JP-x-y+%F0%9F&login_hint=%3Cscript%3E", own + "&code_challenge=x&code_challenge_method=plain",
		"client_id=%ff", "%zz", own + ";x=y",
		strings.Replace(own, "https%3A%2F%2Fapp.test", "http%3A%2F%2Flocalhost%3A%40evil.test", 1),
		strings.Replace(own, "https%3A%2F%2Fapp.test", "http%3A%2F%2Flocalhost%3A8080", 1),
	} {
		f.Add(query, false)
		f.Add(query, true)
	}
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
		if err != nil || got.Code != http.StatusSeeOther || !registeredRedirect.MatchString(to) || u.User != nil {
			t.Fatalf("%d to %q, %v", got.Code, to, err)
		}
		if params := u.Query(); params.Has("code") && params.Get("error") == "" || params.Get("iss") != p.issuer {
			t.Errorf("to %s", to)
		}
	})
}

// FuzzPush sends bodies of a client that has authenticated to the endpoint for pushed requests: no fault of ours, and
// what is taken leads a browser to a page of ours or to a registered redirect URI.
func FuzzPush(f *testing.F) {
	p := newFuzzed(f)
	_, own, _ := strings.Cut(p.authorizeURL(), "?")
	for _, body := range []string{
		"", own, own + "&response_mode=form_post", own + "&request=" + unsigned(f, p.asked(nil)), own + "&request=" +
			unsigned(f, map[string]any{"claims": map[string]any{"userinfo": nil}, "redirect_uri": callback, "scope": "openid",
				"response_type": "code"}),
		own + "&request_uri=x", own + "&claims=%7B%7D", own + "&resource=a&resource=b&dpop_jkt=x", own + "&nonce=%ff", "%zz",
		own + "&request=e30.e30.", own + "&request=eyJhbGciOiJub25lIn0.bnVsbA.", own + "&request=eyJhbGciOiJub25lIn0.e30.",
	} {
		f.Add(body, "")
	}
	f.Add(own, "a.b.c")
	f.Fuzz(func(t *testing.T, body, proof string) {
		req := httptest.NewRequest(http.MethodPost, "/oauth/par", strings.NewReader(body))
		req.Header.Set("Content-Type", formType)
		req.SetBasicAuth(p.client.ID, p.secret)
		if proof != "" {
			req.Header.Set("DPoP", proof)
		}
		got := p.serveOnce(req)
		if faults := p.log.faults(); faults != "" || got.Code >= 500 {
			t.Errorf("%d %s\n%s", got.Code, got.Body, faults)
		}
		if got.Header().Get("Cache-Control") != "no-store" {
			t.Error("may be cached")
		}
		if got.Code != http.StatusCreated {
			return
		}
		var reply struct {
			RequestURI string `json:"request_uri"`
		}
		if err := json.Unmarshal(got.Body.Bytes(), &reply); err != nil {
			t.Fatal(err)
		}
		page := p.serveOnce(httptest.NewRequest(http.MethodGet, "/oauth/authorize?"+
			url.Values{"client_id": {p.client.ID}, "request_uri": {reply.RequestURI}}.Encode(), nil))
		to := page.Header().Get("Location")
		if page.Code != http.StatusOK && (page.Code != http.StatusSeeOther || !registeredRedirect.MatchString(to)) {
			t.Errorf("%d to %q\n%s", page.Code, to, page.Body)
		}
	})
}
