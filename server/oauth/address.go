package oauth

import (
	"errors"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxClientName is in characters: longer names do not fit a consent page on a phone.
	MaxClientName = 100
	// MaxAddress bounds a page's address and a resource identifier, in bytes.
	MaxAddress = 2048
)

// checkName checks what users call a client.
func (k *checker) checkName(f *Field, name string) {
	switch {
	case strings.TrimSpace(name) == "":
		k.violates(f, "", "required", "is empty")
	case utf8.RuneCountInString(name) > MaxClientName:
		k.violates(f, "", "client-name", "is longer than %d characters", MaxClientName)
	case strings.ContainsFunc(name, Deceptive):
		k.violates(f, "", "client-name", "has control characters or marks that change the direction of the text around it")
	}
}

// Deceptive finds characters that could make a page say something else than it holds.
func Deceptive(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// checkAddress allows what may be a redirect URI, and has a port of its own: this server, or the user's browser, is
// going to ask for exactly this address.
func (k *checker) checkAddress(f *Field, address string) {
	if rest, plain := strings.CutPrefix(address, "http://"); plain && CheckRedirectURI(address) == nil &&
		(!k.Loopback || f.Kind == KindSector) { // OpenID Connect Core 1.0 section 8.1 knows no exception for loopback
		k.violates(f, "", "url", "must be https").mended("https://" + rest)
		return
	}
	var refused *RedirectURIError
	switch {
	case errors.As(CheckRedirectURI(address), &refused):
		mended := MendRedirectURI(address, refused.Rule)
		if strings.Contains(mended, "*") {
			mended = ""
		}
		k.violates(f, "", "url", "%s", refused.Reason).mended(mended)
	case strings.Contains(address, "*"):
		k.violates(f, "", "url", "must name a port: only a redirect URI may leave it open")
	}
}

// checkPage allows what a page may link to or show: https, in development also http on loopback hosts.
func (k *checker) checkPage(f *Field, address string) {
	wanted := "must be an https URL"
	if k.Development {
		wanted = "must be an https URL (or http on localhost, while developing)"
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || len(address) > MaxAddress || !plainASCII(address) || u.Hostname() == "":
		k.violates(f, "", "url", "%s", wanted)
	case u.User != nil:
		k.violates(f, "", "url", "must not hold a user name or password")
	case u.Scheme == "https", k.Development && u.Scheme == "http" && IsLoopback(u.Hostname()):
	case u.Scheme == "http":
		k.violates(f, "", "url", "%s", wanted).mended("https" + strings.TrimPrefix(address, u.Scheme))
	default:
		k.violates(f, "", "url", "%s", wanted)
	}
}

// checkOrigin allows origins as browsers send them.
func (k *checker) checkOrigin(f *Field, at, origin string) {
	if origin == "" {
		k.violates(f, at, "required", "is empty")
	} else if reason, mended := CheckOrigin(origin); reason != "" {
		k.violates(f, at, "origin", "%s", reason).mended(mended)
	}
}

// checkResource holds an identifier to [CheckResource], and to the characters of a URI. The configuration does not:
// what an operator writes may be odder, as {tenant} is, because nobody else shows it to anybody.
func (k *checker) checkResource(f *Field, at, identifier string) {
	reason, mended := CheckResource(identifier)
	switch {
	case identifier == "":
		k.violates(f, at, "required", "is empty")
	case reason != "":
		k.violates(f, at, "resource-identifier", "%s", reason).mended(mended)
	case !plainASCII(identifier):
		k.violates(f, at, "resource-identifier", "must have the characters of a URI only: percent-encode others")
	}
}

// plainASCII leaves out what browsers strip or turn into something else.
func plainASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= 0x20 || r >= 0x7F || strings.ContainsRune("\\\"<>^`{|}", r)
	})
}

// MendRedirectURI guesses what was meant by a redirect URI that breaks a rule of [RedirectURIError]. It only returns
// what may be registered, and nothing of a URI that held a password.
func MendRedirectURI(uri, rule string) string {
	var mended string
	switch rule {
	case "scheme":
		scheme, rest, _ := strings.Cut(uri, "://")
		mended = strings.ToLower(scheme) + "://" + rest
		if !strings.Contains(uri, "://") && strings.Contains(uri, ".") && !strings.Contains(uri, ":") {
			mended = "https://" + strings.TrimPrefix(uri, "//")
		}
	case "loopback":
		host := strings.TrimPrefix(uri, "http://")
		if !strings.ContainsAny(host[:1], "0123456789[") { // an address is likely meant to stay on this machine
			mended = "https://" + host
		}
		if lower := strings.ToLower(uri); strings.HasPrefix(lower, "http://localhost") && CheckRedirectURI(lower) == nil {
			mended = lower
		}
	case "fragment":
		mended, _, _ = strings.Cut(uri, "#")
	case "wildcard":
		_, host, _ := strings.Cut(uri, "://")
		for _, loopback := range loopbackHosts {
			if strings.HasPrefix(host, loopback+":") || strings.HasPrefix(host, loopback+"/") {
				mended = "http://" + loopback + ":*"
			}
		}
	}
	if strings.Contains(mended, "@") || CheckRedirectURI(mended) != nil {
		return ""
	}
	return mended
}
