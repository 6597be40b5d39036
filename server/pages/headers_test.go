package pages

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func directives(policy string) map[string]string {
	m := map[string]string{}
	for _, d := range strings.Split(policy, "; ") {
		name, value, _ := strings.Cut(d, " ")
		m[name] = value
	}
	return m
}

func TestEveryPageHasItsHeaders(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	for name, page := range everyPage(Frame{}) {
		w := httptest.NewRecorder()
		s.Render(w, http.StatusTeapot, page)
		if w.Code != http.StatusTeapot {
			t.Errorf("%s: status %d", name, w.Code)
		}
		for key, want := range map[string]string{
			"Content-Type":                 "text/html; charset=utf-8",
			"X-Frame-Options":              "DENY",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
			"Cache-Control":                "no-store",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := w.Header().Get(key); got != want {
				t.Errorf("%s: %s is %q", name, key, got)
			}
		}
		if w.Header().Get("Permissions-Policy") == "" {
			t.Errorf("%s: no Permissions-Policy", name)
		}
		_, form := page.formTarget()
		if got := w.Header().Get("Cross-Origin-Opener-Policy"); (got == "unsafe-none") != form {
			t.Errorf("%s: Cross-Origin-Opener-Policy %q", name, got)
		}
		csp := directives(w.Header().Get("Content-Security-Policy"))
		if want := frameSources[name]; csp["frame-src"] != want {
			t.Errorf("%s: frame-src is %q, want %q", name, csp["frame-src"], want)
		}
		delete(csp, "frame-src")
		for key, want := range map[string]string{
			"default-src": "'none'", "style-src": "'self'", "frame-ancestors": "'none'", "base-uri": "'none'",
		} {
			if csp[key] != want {
				t.Errorf("%s: %s is %q", name, key, csp[key])
			}
		}
		if (csp["form-action"] == "'none'") == form {
			t.Errorf("%s: form-action %q", name, csp["form-action"])
		}
		want := 6
		if page.script() != "" {
			want = 7
			if script := csp["script-src"]; script != "'sha256-ePniVEkSivX/c7XWBGafqh8tSpiRrKiqYeqbG7N1TOE='" {
				t.Errorf("%s: script-src %q", name, script)
			}
		}
		if len(csp) != want {
			t.Errorf("%s: policy %v", name, csp)
		}
	}
}

// frameSources are those of the one page that shows apps in frames.
var frameSources = map[string]string{"signed out, frames": "https://a.example https://b.example"}

func TestFrameSources(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	for want, frames := range map[string][]string{
		"":                         {"javascript:alert(1)", "http://a.example/", "https://u:p@a.example/", "//a.example/", "", "https://a b/", "https://a;script-src%20*/"},
		"https://a.example":        {"https://a.example/1?x=;script-src", "https://A.example/2", "data:text/html,x"},
		"https://a.example:8443":   {"https://a.example:8443/"},
		"http://localhost:3000":    {"http://localhost:3000/out"},
		"https://xn--r8jz45g.jp":   {"https://例え.jp/"},
		"https://b.example https:": {"https://b.example/", "https://[2001:db8::1]/"},
	} {
		page := SignedOut{Frames: frames}
		if got := directives(get(s, page).Header().Get("Content-Security-Policy"))["frame-src"]; got != want {
			t.Errorf("%v: frame-src %q, want %q", frames, got, want)
		}
	}
}

func TestPolicyFollowsTheApp(t *testing.T) {
	for name, c := range map[string]struct{ logo, redirect, img, form string }{
		"logo of one origin":         {"https://cdn.example.net:8443/a/b.png?c", "", "'self' https://cdn.example.net:8443", "'self'"},
		"plain http logo":            {"http://cdn.example.net/l.png", "", "'self'", "'self'"},
		"data logo":                  {"data:image/svg+xml,<svg/>", "", "'self'", "'self'"},
		"logo that breaks out":       {"https://a;script-src%20*/l.png", "", "'self'", "'self'"},
		"logo with a wildcard":       {"https://*.example.com/l.png", "", "'self'", "'self'"},
		"site of the redirect URI":   {"", "https://api.example.co.uk/cb", "'self'", "'self' https://api.example.co.uk https://example.co.uk https://*.example.co.uk"},
		"public suffix of a host":    {"", "https://my-app.github.io/cb", "'self'", "'self' https://my-app.github.io https://*.my-app.github.io"},
		"a suffix is not a site":     {"", "https://github.io/cb", "'self'", "'self' https://github.io"},
		"an address is not a site":   {"", "https://192.0.2.7:8443/cb", "'self'", "'self' https://192.0.2.7:8443"},
		"a single label":             {"", "https://intranet/cb", "'self'", "'self' https://intranet"},
		"any loopback port":          {"", "http://localhost:3000/cb", "'self'", "'self' http://localhost:* http://127.0.0.1:*"},
		"IPv6 loopback":              {"", "http://[::1]:3000/cb", "'self'", "'self' http:"},
		"redirect URI not shown":     {"", "javascript:alert(1)", "'self'", "'self'"},
		"internationalised redirect": {"", "https://例え.jp/cb", "'self'", "'self' https://xn--r8jz45g.jp https://*.xn--r8jz45g.jp"},
	} {
		s := newSet(t, "https://id.example.com")
		csp := directives(s.policy(Consent{App: App{LogoURI: c.logo, RedirectURI: c.redirect}}))
		if csp["img-src"] != c.img {
			t.Errorf("%s: img-src %q", name, csp["img-src"])
		}
		if csp["form-action"] != c.form {
			t.Errorf("%s: form-action %q", name, csp["form-action"])
		}
	}
}

// FuzzPolicy holds that nothing an app says can add to the policy or the headers.
func FuzzPolicy(f *testing.F) {
	s := newSet(f, "https://id.example.com")
	for _, v := range []string{"https://a.example/l.png", "https://a;script-src *", "https://[::1%25x;y]/", "http://127.0.0.1:*/", "https://a,b/", "//x", "https://é.example"} {
		f.Add(v, v)
	}
	f.Fuzz(func(t *testing.T, logo, redirect string) {
		p := s.policy(Consent{App: App{LogoURI: logo, RedirectURI: redirect}})
		csp := directives(p)
		if strings.Count(p, ";") != 5 || strings.ContainsAny(p, ",\r\n\"") || csp["default-src"] != "'none'" {
			t.Errorf("policy %q", p)
		}
		if n := len(strings.Fields(csp["img-src"])); n > 2 {
			t.Errorf("img-src %q", csp["img-src"])
		}
		for _, v := range strings.Fields(csp["img-src"]) {
			if v == "*" || v == "http:" || v == "https:" && !strings.Contains(logo, "[") {
				t.Errorf("img-src %q", csp["img-src"])
			}
		}
	})
}

func TestAssets(t *testing.T) {
	s := newSet(t, "https://example.com/tenant")
	if s.AssetsPath() != "/tenant/assets/" {
		t.Errorf("path %s", s.AssetsPath())
	}
	for _, p := range []string{s.site.Style, s.site.Icon} {
		w := httptest.NewRecorder()
		s.Assets().ServeHTTP(w, httptest.NewRequest(http.MethodGet, p, nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", p, w.Code, w.Header())
		}
		if !strings.HasPrefix(p, s.AssetsPath()) {
			t.Errorf("%s is not below %s", p, s.AssetsPath())
		}
	}
	for path, want := range map[string]int{"/tenant/assets/": 404, "/tenant/assets/style.css": 404, "/assets/style.css": 404} {
		w := httptest.NewRecorder()
		s.Assets().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	w := httptest.NewRecorder()
	s.Assets().ServeHTTP(w, httptest.NewRequest(http.MethodPost, s.site.Style, nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}
