package pages

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/warifu/warifu/server/oauth"
)

// setHeaders sets everything that a browser is told about a page beside its body.
func (s *Set) setHeaders(h http.Header, page Page) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", s.policy(page))
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", openerPolicy(page))
	h.Set("Permissions-Policy", "browsing-topics=(), camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("X-Robots-Tag", "noindex")
}

// openerPolicy cuts pages off from whoever opened their window. Sign-in and
// consent are the exception: many client libraries run them in a popup and wait
// for it to come back to the app, and a page in between that asks for
// isolation cuts that tie for good. They have no script and no state that an
// opener could read.
func openerPolicy(page Page) string {
	if _, form := page.formTarget(); form {
		return "unsafe-none"
	}
	return "same-origin"
}

// policy is the Content-Security-Policy of a page: the stylesheet and icon from
// here, the logo's one origin, no frame but those of apps that sign out in one,
// forms that end where this request is known to go, and no script but the one
// that a page is made for.
func (s *Set) policy(page Page) string {
	img := "'self'"
	if u, ok := webURL(page.app().Logo); ok {
		img += " " + originSource(u)
	}
	form := "'none'"
	if redirectURI, ok := page.formTarget(); ok {
		form = strings.Join(append([]string{"'self'"}, s.formSources(redirectURI)...), " ")
	}
	frames := ""
	for _, address := range page.frames() {
		if u, ok := webURL(address); ok && !strings.Contains(frames+" ", " "+originSource(u)+" ") {
			frames += " " + originSource(u)
		}
	}
	if frames != "" {
		frames = "; frame-src" + frames
	}
	policy := "default-src 'none'; style-src 'self'; img-src " + img + frames +
		"; form-action " + form + "; frame-ancestors 'none'; base-uri 'none'"
	if script := page.script(); script != "" {
		policy += "; script-src " + scriptSource(script)
	}
	return policy
}

// formSources are the places beside ourselves that a form's answer may redirect
// to. Chromium and Safari apply form-action to each redirect after a form
// (https://github.com/w3c/webappsec-csp/issues/8), hence also to those that the
// app's callback makes: from api.example.com to www.example.com, or from one
// loopback port to another. So the redirect URI stands for its site.
func (s *Set) formSources(redirectURI string) []string {
	u, ok := webURL(redirectURI)
	if !ok {
		return nil
	}
	var out []string
	if oauth.IsLoopback(u.Hostname()) {
		out = []string{"http://localhost:*", "http://127.0.0.1:*"}
		if u.Hostname() == "::1" {
			out = []string{"http:"} // a CSP host source cannot be an IPv6 address
		}
	} else {
		out = []string{originSource(u)}
		if site := siteOf(u); site != "" {
			if site != u.Host {
				out = append(out, "https://"+site)
			}
			out = append(out, "https://*."+site)
		}
	}
	return out
}

// originSource is u's origin as a CSP source, and its scheme where the host
// cannot be one.
func originSource(u *url.URL) string {
	if strings.HasPrefix(u.Host, "[") {
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host
}

// siteOf is the registrable domain of u, or "" when its host is an address, a
// single label, or itself a public suffix.
func siteOf(u *url.URL) string {
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return ""
	}
	site, err := publicsuffix.EffectiveTLDPlusOne(u.Hostname())
	if err != nil {
		return ""
	}
	return site
}
