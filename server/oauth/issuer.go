package oauth

import (
	"errors"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"
)

// IssuerError says what is wrong with an issuer.
type IssuerError struct {
	// Reason completes the sentence "the issuer ...".
	Reason string
	// Nearest is a valid issuer that was probably meant; empty if there is none.
	Nearest string
}

// Error tells the reason. It does not repeat the issuer, which may hold a password.
func (e *IssuerError) Error() string { return "issuer " + e.Reason }

// ParseIssuer checks the address under which everybody knows a server (RFC 8414 section 2, OpenID Connect Discovery 1.0
// section 3): an absolute https URL, or http on loopback, without user info, query or fragment. Clients compare it byte
// for byte, so it has one spelling: no slash at its end, and a path of unreserved characters with single slashes. A
// refusal is an [*IssuerError].
func ParseIssuer(raw string) (*url.URL, error) {
	refuse := func(reason, nearest string) (*url.URL, error) {
		if nearest != "" {
			var again *IssuerError
			if _, err := ParseIssuer(nearest); errors.As(err, &again) {
				nearest = again.Nearest // something else is wrong as well
			}
		}
		return nil, &IssuerError{Reason: reason, Nearest: nearest}
	}
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.Opaque != "" || u.Scheme != "https" && u.Scheme != "http" {
		return refuse("must be an absolute URL, as in https://id.example.com", "")
	}
	authority := canonicalAuthority(u.Scheme, u.Host)
	origin := u.Scheme + "://" + authority
	_, afterScheme, _ := strings.Cut(raw, "://")
	written, rest := cutAuthority(afterScheme)
	switch {
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		return refuse("must have neither user name, query nor fragment", "")
	case !ascii(written):
		return refuse("must have its host name in punycode, as browsers send it, as in https://xn--bcher-kva.example", "")
	case !validAuthority(authority):
		return refuse("must have a host name or address, as in id.example.com or 192.0.2.1, and a port from 1 to 65535 "+
			"if it has one", "")
	case !strings.HasPrefix(raw, origin) || written != authority:
		return refuse("must be written as browsers write it, because it is compared byte for byte: scheme and host in lower "+
			"case, no dot after "+
			"the host, and no port that is the default", origin+rest)
	case slices.Contains(strings.Split(u.Path, "/"), ".well-known"):
		return refuse("must have no .well-known in its path, because this server's own documents are there", "")
	case strings.HasSuffix(raw, "/"):
		return refuse("must not end with a slash: clients compare it byte for byte", strings.TrimRight(raw, "/"))
	case strings.ContainsFunc(u.EscapedPath(), notInIssuerPath):
		return refuse("must have a path of letters, digits and -._~ only", "")
	case u.Path != "" && path.Clean(u.Path) != u.Path:
		return refuse("must have a path with single slashes and no . or .. segments",
			u.Scheme+"://"+u.Host+strings.TrimRight(path.Clean(u.Path), "/"))
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		return refuse("must be https: plain http is only for localhost, 127.0.0.1 and [::1]",
			"https"+strings.TrimPrefix(raw, "http"))
	}
	return u, nil
}

// notInIssuerPath is what would be written in more than one way, or mean something to a router.
func notInIssuerPath(r rune) bool { return r != '/' && !unreserved(r) }

// validAuthority is a host, with a port or without.
func validAuthority(authority string) bool {
	host, port, hasPort := cutPort(authority)
	return validHost(host) && (!hasPort || validPort(port))
}

// canonicalAuthority is the spelling of host and port in which browsers send them: in lower case, IPv6 addresses
// in their shortest form, without the default port. What is no authority stays none.
func canonicalAuthority(scheme, authority string) string {
	host, port, hasPort := cutPort(strings.ToLower(authority))
	if address, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && address.Is6() &&
		strings.HasPrefix(host, "[") {
		host = "[" + address.String() + "]"
	}
	host = strings.TrimSuffix(host, ".")
	if !hasPort || port == defaultPorts[scheme] {
		return host
	}
	return host + ":" + port
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}
