package oauth

import (
	"net/url"
	"slices"
	"strings"
)

// Origins are those of the pages that are the client's own: of its redirect URIs on the web, and those that it names
// beside them. The port is a wildcard where a redirect URI leaves it open.
func (c *Client) Origins() []string {
	origins := slices.Clone(c.AllowedOrigins)
	for _, uri := range c.RedirectURIs {
		if origin := originOf(uri); origin != "" {
			origins = append(origins, origin)
		}
	}
	return origins
}

// originOf is the origin of the page at a registered redirect URI, as browsers send it; "" when it is no page.
func originOf(uri string) string {
	scheme, host, port, ok := origin(uri)
	switch {
	case !ok:
		return ""
	case IsLoopbackRedirect(uri) && !strings.Contains(uri, host+":"): // any port will do
		port = "*"
	case port == defaultPorts[scheme]:
		return scheme + "://" + host
	}
	return scheme + "://" + host + ":" + port
}

// MatchOrigin reports whether a browser's origin is one of those allowed: by the same bytes, on any port of loopback
// where the allowed one has a wildcard for it, and any at all where "*" is allowed.
func MatchOrigin(allowed []string, got string) bool {
	return slices.ContainsFunc(allowed, func(entry string) bool {
		if entry == "*" || entry == got {
			return true
		}
		host, open := strings.CutSuffix(entry, ":*")
		port, same := strings.CutPrefix(got, host)
		return open && opensPort(entry) && same && (port == "" || port[0] == ':' && validPort(port[1:]))
	})
}

// opensPort reports whether an allowed origin is a loopback host with a wildcard for its port.
func opensPort(entry string) bool {
	scheme, rest, _ := strings.Cut(entry, "://")
	host, open := strings.CutSuffix(rest, ":*")
	return open && slices.Contains(loopbackHosts[:], host) && (scheme == "http" || scheme == "https")
}

// CheckOrigin holds the origin of a page (RFC 6454) to the spelling in which browsers send it. The reason completes the
// sentence "the origin ..."; it is empty when nothing is wrong. The port on loopback may be a wildcard.
func CheckOrigin(origin string) (reason, mended string) {
	const wanted = "must be an origin, as in https://app.example.com"
	if opensPort(origin) {
		return "", ""
	}
	u, err := url.Parse(origin)
	switch {
	case strings.Contains(origin, "*"):
		return "must be one origin, as in https://app.example.com: only the port of one on loopback may be a wildcard " +
			"(http://localhost:*)", ""
	case err != nil || u.Host == "" || u.User != nil:
		return wanted, ""
	case !ascii(u.Host):
		return "must have its host name in punycode, as browsers send it, as in https://xn--bcher-kva.example", ""
	}
	mended = u.Scheme + "://" + canonicalAuthority(u.Scheme, u.Host)
	switch {
	case origin == mended:
		return "", ""
	case u.Scheme+"://"+u.Host != origin && !strings.EqualFold(u.Scheme+"://"+u.Host, origin):
		return wanted, mended // with a path, say
	}
	return "must be written as browsers send it (host in lower case, no dot after it, no default port)", mended
}

// SameOrigin compares scheme, host and port (RFC 6454 section 5) of a redirect URI and an address; the port of the
// redirect URI may be left open.
func SameOrigin(redirect, address string) bool {
	scheme, host, port, ok := origin(redirect)
	otherScheme, otherHost, otherPort, otherOK := origin(address)
	return ok && otherOK && scheme == otherScheme && host == otherHost && (port == otherPort || port == "*")
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// origin takes a URI apart that may be a redirect URI: net/url does not read a port that is left open.
func origin(uri string) (scheme, host, port string, ok bool) {
	if CheckRedirectURI(uri) != nil {
		return "", "", "", false
	}
	scheme, rest, _ := strings.Cut(uri, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		rest = rest[:i]
	}
	host, port = rest, defaultPorts[scheme]
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		host, port = rest[:i], rest[i+1:]
	}
	return scheme, strings.ToLower(host), port, true
}
