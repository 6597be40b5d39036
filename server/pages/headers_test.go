package pages

import (
	"net/http"
	"net/http/httptest"
	"slices"
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
		if err := s.Render(w, http.StatusTeapot, page); err != nil {
			t.Error(err)
		}
		if w.Code != http.StatusTeapot {
			t.Errorf("%s: status %d", name, w.Code)
		}
		for key, want := range map[string]string{
			"Content-Type":                 "text/html; charset=utf-8",
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
		if frame := w.Header().Get("X-Frame-Options"); (frame == "DENY") == page.framed() {
			t.Errorf("%s: X-Frame-Options %q", name, frame)
		}
		leads := page.forms() != noForms || page.app().Return != ""
		if got := w.Header().Get("Cross-Origin-Opener-Policy"); (got == "unsafe-none") != leads {
			t.Errorf("%s: Cross-Origin-Opener-Policy %q", name, got)
		}
		csp := directives(w.Header().Get("Content-Security-Policy"))
		if want := frameSources[name]; csp["frame-src"] != want {
			t.Errorf("%s: frame-src is %q, want %q", name, csp["frame-src"], want)
		}
		delete(csp, "frame-src")
		for key, want := range map[string]string{
			"default-src": "'none'", "style-src": "'self'", "base-uri": "'none'",
			"frame-ancestors": map[bool]string{false: "'none'"}[page.framed()],
			"form-action":     map[formPolicy]string{noForms: "'none'", formsToHere: "'self'"}[page.forms()],
		} {
			if csp[key] != want {
				t.Errorf("%s: %s is %q", name, key, csp[key])
			}
		}
		for key := range csp {
			if !slices.Contains([]string{"default-src", "style-src", "img-src", "base-uri", "frame-ancestors", "form-action",
				"script-src"}, key) {
				t.Errorf("%s: policy %v", name, csp)
			}
		}
		script := ""
		if page.script() != "" {
			script = scriptSource(page.script())
		}
		if csp["script-src"] != script {
			t.Errorf("%s: script-src %q", name, csp["script-src"])
		}
	}
}

// frameSources are those of the one page that shows apps in frames.
var frameSources = map[string]string{"signed out, frames": "https://a.example https://b.example"}

func TestFrameSources(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	for want, frames := range map[string][]string{
		"": {"javascript:alert(1)", "http://a.example/", "https://u:p@a.example/", "//a.example/", "",
			"https://a b/", "https://a;script-src%20*/"},
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
	for name, c := range map[string]struct{ logo, redirect, img string }{
		"logo of one origin":   {"https://cdn.example.net:8443/a/b.png?c", "", "'self' https://cdn.example.net:8443"},
		"plain http logo":      {"http://cdn.example.net/l.png", "", "'self'"},
		"data logo":            {"data:image/svg+xml,<svg/>", "", "'self'"},
		"logo that breaks out": {"https://a;script-src%20*/l.png", "", "'self'"},
		"logo with a wildcard": {"https://*.example.com/l.png", "", "'self'"},
		"a redirect URI":       {"", "https://api.example.co.uk/cb", "'self'"},
		"one of a scheme":      {"", "com.example.app:/cb", "'self'"},
	} {
		s := newSet(t, "https://id.example.com")
		csp := directives(s.policy(Consent{App: App{LogoURI: c.logo, RedirectURI: c.redirect}}))
		if csp["img-src"] != c.img {
			t.Errorf("%s: img-src %q", name, csp["img-src"])
		}
		if csp["form-action"] != "'self'" { // where the answer leads is not for the policy of this page to say
			t.Errorf("%s: form-action %q", name, csp["form-action"])
		}
	}
}

// FuzzPolicy holds that nothing an app says can add to the policy or the headers.
func FuzzPolicy(f *testing.F) {
	s := newSet(f, "https://id.example.com")
	for _, v := range []string{"https://a.example/l.png", "https://a;script-src *", "https://[::1%25x;y]/",
		"http://127.0.0.1:*/", "https://a,b/", "//x", "https://é.example"} {
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
		s.Assets(http.NotFound).ServeHTTP(w, httptest.NewRequest(http.MethodGet, p, nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", p, w.Code, w.Header())
		}
		if !strings.HasPrefix(p, s.AssetsPath()) {
			t.Errorf("%s is not below %s", p, s.AssetsPath())
		}
	}
	for path, want := range map[string]int{"/tenant/assets/": 404, "/tenant/assets/style.css": 404,
		"/assets/style.css": 404} {
		w := httptest.NewRecorder()
		s.Assets(http.NotFound).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
