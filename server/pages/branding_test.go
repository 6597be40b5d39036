package pages

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const brandSVG = `<?xml version="1.0"?><!-- a logo --><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><script>alert(1)</script></svg>`

func branded(t *testing.T) *Set {
	t.Helper()
	logo, err := ReadLogo([]byte(brandSVG))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Issuer: "https://id.example.com/tenant", Branding: Branding{
		Name: "Example <b>Inc.", Logo: logo, Support: "mailto:help@example.com", Privacy: "https://example.com/privacy"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each page says who runs the server, and still which host it is.
func TestBrandingIsOnEveryPage(t *testing.T) {
	s := branded(t)
	for name, page := range everyPage(Frame{}) {
		doc := parse(t, get(s, page).Body.Bytes())
		checkDocument(t, doc, Languages[0])
		brand := elements(elements(doc, "header")[0], "a")[0]
		if text := words(brand); text != "Example <b>Inc. id.example.com" && text != "Example <b>Inc.id.example.com" {
			t.Errorf("%s: the page is of %q", name, text)
		}
		if !has(elements(brand, "img")[0], "src", s.site.Logo) {
			t.Errorf("%s: no logo", name)
		}
		footer := elements(elements(doc, "footer")[0], "a")
		if len(footer) != 2 || !has(footer[0], "href", "mailto:help@example.com") ||
			!has(footer[1], "href", "https://example.com/privacy") {
			t.Errorf("%s: the footer has %d links", name, len(footer))
		}
		if csp := get(s, page).Header().Get("Content-Security-Policy"); !strings.Contains(csp, "img-src 'self'") {
			t.Errorf("%s: %s", name, csp)
		}
	}
	// The logo is served from here, and can do nothing when somebody opens it.
	w := httptest.NewRecorder()
	s.Assets(http.NotFound).ServeHTTP(w, httptest.NewRequest(http.MethodGet, s.site.Logo, nil))
	if w.Code != http.StatusOK || w.Body.String() != brandSVG || w.Header().Get("Content-Type") != "image/svg+xml" ||
		!strings.HasPrefix(s.site.Logo, "/tenant/assets/logo-") || !strings.HasSuffix(s.site.Logo, ".svg") {
		t.Errorf("%s: %d %v", s.site.Logo, w.Code, w.Header())
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") ||
		!strings.Contains(csp, "sandbox") {
		t.Errorf("the logo may do things: %s", csp)
	}
}

func TestBrandingIsChecked(t *testing.T) {
	for rule, c := range map[string]struct {
		branding Branding
		field    string
	}{
		"a long name":             {Branding{Name: strings.Repeat("x", 41)}, "Name"},
		"two lines":               {Branding{Name: "a\nb"}, "Name"},
		"an override":             {Branding{Name: "a\u202eb"}, "Name"},
		"blanks":                  {Branding{Name: " a"}, "Name"},
		"a script":                {Branding{Support: "javascript:alert(1)"}, "Support"},
		"plain http":              {Branding{Support: "http://help.example.com"}, "Support"},
		"no address":              {Branding{Support: "help.example.com"}, "Support"},
		"mail to two":             {Branding{Support: "mailto:a@example.com,b@example.com"}, "Support"},
		"mail with a subject":     {Branding{Support: "mailto:a@example.com?subject=x"}, "Support"},
		"privacy by mail":         {Branding{Privacy: "mailto:a@example.com"}, "Privacy"},
		"an address with a login": {Branding{Privacy: "https://a:b@example.com/"}, "Privacy"},
	} {
		wrong := c.branding.Check()
		if len(wrong) != 1 || wrong[0].Field != c.field || wrong[0].Reason == "" {
			t.Errorf("%s: %v", rule, wrong)
		}
		if _, err := New(Config{Issuer: "https://id.example.com", Branding: c.branding}); err == nil {
			t.Errorf("%s: a set was made", rule)
		}
	}
	fine := Branding{Name: "例示 株式会社", Support: "mailto:help@example.com", Privacy: "http://localhost:8080/privacy"}
	if wrong := fine.Check(); len(wrong) > 0 {
		t.Error(wrong)
	}
	for rule, data := range map[string]string{
		"nothing": "", "text": "hello", "HTML": "<!doctype html><title>x</title>", "HTML with an SVG": "<html><svg/></html>",
		"a GIF":     "GIF89a",
		"too large": "\x89PNG\r\n\x1a\n" + strings.Repeat("x", maxLogo),
	} {
		if _, err := ReadLogo([]byte(data)); err == nil {
			t.Errorf("%s: taken as a logo", rule)
		}
	}
	for data, kind := range map[string]string{
		"\x89PNG\r\n\x1a\n": "image/png", "\xff\xd8\xff": "image/jpeg", "RIFF\x00\x00\x00\x00WEBPVP": "image/webp",
		`<svg:svg xmlns:svg="http://www.w3.org/2000/svg"/>`: "image/svg+xml",
	} {
		if logo, err := ReadLogo([]byte(data)); err != nil || logo.image.contentType != kind {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
