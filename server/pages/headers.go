package pages

import (
	"net/http"
	"net/url"
	"strings"
)

// setHeaders sets everything that a browser is told about a page beside its body.
func (s *Set) setHeaders(h http.Header, page Page) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", s.policy(page))
	if !page.framed() {
		h.Set("X-Frame-Options", "DENY")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", openerPolicy(page))
	h.Set("Permissions-Policy", "browsing-topics=(), camera=(), display-capture=(), geolocation=(), microphone=(), "+
		"payment=(), usb=()")
	h.Set("X-Robots-Tag", "noindex")
}

// openerPolicy cuts pages off from whoever opened their window. Those on the
// way to an app are the exception: many client libraries run sign-in, consent
// and sign-out in a popup and wait for it to come back to the app, and a page
// in between that asks for isolation cuts that tie for good. They have no
// state that an opener could read.
func openerPolicy(page Page) string {
	if page.forms() != noForms || page.app().Return != "" {
		return "unsafe-none"
	}
	return "same-origin"
}

// policy is the Content-Security-Policy of a page: the stylesheet and icon from
// here, the logo's one origin, no frame but those of apps that sign out in one,
// forms that stay here unless the page is made to post one to an app, and no
// script but the one that a page is made for.
func (s *Set) policy(page Page) string {
	img := "'self'"
	if u, ok := webURL(page.app().Logo); ok {
		img += " " + originSource(u)
	}
	frames := ""
	for _, address := range page.frames() {
		if u, ok := webURL(address); ok && !strings.Contains(frames+" ", " "+originSource(u)+" ") {
			frames += " " + originSource(u)
		}
	}
	policy := "default-src 'none'; style-src 'self'; img-src " + img
	if frames != "" {
		policy += "; frame-src" + frames
	}
	switch page.forms() {
	case noForms:
		policy += "; form-action 'none'"
	case formsToHere:
		policy += "; form-action 'self'"
	case formsAway: // any, as without the directive
	}
	if !page.framed() {
		policy += "; frame-ancestors 'none'"
	}
	policy += "; base-uri 'none'"
	if script := page.script(); script != "" {
		policy += "; script-src " + scriptSource(script)
	}
	return policy
}

// originSource is u's origin as a CSP source, and its scheme where the host
// cannot be one.
func originSource(u *url.URL) string {
	if strings.HasPrefix(u.Host, "[") {
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host
}
