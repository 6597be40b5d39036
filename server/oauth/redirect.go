package oauth

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// MaxRedirectURI is the longest redirect URI, in bytes, that is registered or matched.
const MaxRedirectURI = 2048

// RedirectURIError says which rule of [CheckRedirectURI] a redirect URI breaks.
type RedirectURIError struct {
	// Rule is stable: "empty", "length", "syntax", "scheme", "fragment", "userinfo", "host", "port", "wildcard",
	// "loopback" (plain http to another host), "path" or "query".
	Rule string
	// Reason completes the sentence "the redirect URI ...". It never repeats the URI, which may hold a password.
	Reason string
}

// Error tells the reason.
func (e *RedirectURIError) Error() string { return "redirect URI " + e.Reason }

// MatchRedirectURI reports whether got, the redirect_uri of a request, is one of those registered.
//
// An ordinary entry matches the same bytes and nothing else (RFC 9700 section 4.1.3): no case folding, no decoding, no
// normal form. The port of a loopback URI may be left open, as native apps take the one that is free (RFC 8252 section
// 7.3). An entry that names none (http://127.0.0.1/cb, also on localhost and [::1]) matches a URI that parses as http
// on the same host with any port or none, and otherwise has the same bytes. So does an entry whose port is the wildcard
// (http://localhost:*), but without a path it matches any path, and no query. Nothing is ever globbed, and an entry
// with a wildcard never matches itself.
func MatchRedirectURI(registered []string, got string) bool {
	if got == "" || len(got) > MaxRedirectURI {
		return false
	}
	asked, isLoopback := parseLoopback(got)
	isLoopback = isLoopback && asked.port != "*"
	for _, entry := range registered {
		if entry == got && !strings.Contains(entry, "*") {
			return true
		}
		if !isLoopback {
			continue
		}
		if open, ok := parseLoopback(entry); ok && open.anyPort() && open.host == asked.host && open.leadsTo(asked.rest) {
			return true
		}
	}
	return false
}

// CheckRedirectURI reports whether a redirect URI on the web may be registered: https anywhere, or http on a loopback
// host, absolute, with no userinfo, no fragment (RFC 6749 section 3.1.2) and no wildcard but the port of a loopback
// URI. A refusal is a [*RedirectURIError]. It also refuses what browsers and clients would rewrite on the way, because
// such an entry could never match byte for byte: dot segments, characters outside RFC 3986, odd spellings of the port.
// Of the schemes of installed apps, [CheckPrivateURI] knows.
func CheckRedirectURI(s string) error {
	switch {
	case s == "":
		return refuseURI("empty", "is empty")
	case len(s) > MaxRedirectURI:
		return tooLong()
	case !validURIBytes(s):
		return badBytes()
	}
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok && (strings.HasPrefix(s, "https:") || strings.HasPrefix(s, "http:")):
		return refuseURI("syntax", "must be absolute, as in https://app.example.com/callback")
	case !ok || scheme != "https" && scheme != "http":
		return refuseURI("scheme", "must be https, or http on localhost, 127.0.0.1 or [::1]")
	case strings.Contains(rest, "#"):
		return refuseURI("fragment", "must not have a fragment (#...)")
	}
	authority, rest := cutAuthority(rest)
	if strings.Contains(authority, "@") {
		return refuseURI("userinfo", "must not hold a user name or password (...@)")
	}
	if err := checkAuthority(scheme, authority); err != nil {
		return err
	}
	if strings.Contains(rest, "*") {
		return refuseURI("wildcard", "may have a wildcard only as the port of a loopback URI (http://localhost:*)")
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if hasQuery && strings.HasSuffix(authority, ":*") {
		return refuseURI("query", "with a wildcard port must not have a query")
	}
	if hasDotSegment(path) {
		return refuseURI("path", "must not have . or .. segments in its path")
	}
	if strings.ContainsAny(path+query, "[]") {
		return refuseURI("syntax", "has a bracket outside the host (percent-encode it)")
	}
	return nil
}

// LoopbackRedirect is a registered redirect URI that a listener on the user's own machine can serve (RFC 8252 section
// 7.3).
type LoopbackRedirect struct {
	Host string // localhost, 127.0.0.1 or [::1], as registered
	Port int    // 0 when any port will do
	Path string // the path the redirect comes to, "/" when the registration leaves it open

	registered string
	rest       string // what follows the port where any will do
}

// LoopbackRedirects returns those registered redirect URIs that a loopback listener can serve, the ones that allow any
// port first, otherwise in the order of registration.
func LoopbackRedirects(registered []string) []LoopbackRedirect {
	var anyPort, fixed []LoopbackRedirect
	for _, entry := range registered {
		if CheckRedirectURI(entry) != nil {
			continue
		}
		u, ok := parseLoopback(entry)
		if !ok {
			continue
		}
		found := LoopbackRedirect{Host: u.host, registered: entry, rest: u.rest}
		if found.Path, _, _ = strings.Cut(u.rest, "?"); found.Path == "" {
			found.Path = "/"
		}
		if u.anyPort() {
			if u.port == "*" && u.rest == "" {
				found.rest = found.Path
			}
			anyPort = append(anyPort, found)
			continue
		}
		found.Port, _ = strconv.Atoi(u.port) // parseLoopback has seen that it is a number
		fixed = append(fixed, found)
	}
	return append(anyPort, fixed...)
}

// Address is what to listen on, for net.Listen; its port is 0 when any will do.
func (l LoopbackRedirect) Address() string {
	return net.JoinHostPort(strings.Trim(l.Host, "[]"), strconv.Itoa(l.Port))
}

// URI is the redirect_uri to send once a listener has the given port. With a fixed port it is the registered URI
// itself.
func (l LoopbackRedirect) URI(port int) string {
	if l.Port != 0 {
		return l.registered
	}
	return "http://" + l.Host + ":" + strconv.Itoa(port) + l.rest
}

// IsNativeRedirect reports whether a registered redirect URI leads to a program on the user's own device (RFC 8252
// section 7), by loopback or by a scheme of its own. Any program there may be the one that answers.
func IsNativeRedirect(s string) bool {
	_, private := PrivateScheme(s)
	return private || IsLoopbackRedirect(s)
}

// IsLoopbackRedirect reports whether a registered redirect URI leads to the user's own machine by http.
func IsLoopbackRedirect(s string) bool {
	_, ok := parseLoopback(s)
	return ok
}

// RedirectHost is where a redirect URI leads, as users tell one app from another: the host and its port. The user's own
// machine is localhost, by whatever name and at whatever port. An installed app is its scheme, with the colon, which no
// host has.
func RedirectHost(s string) string {
	if IsLoopbackRedirect(s) {
		return "localhost"
	}
	if scheme, ok := PrivateScheme(s); ok {
		return scheme + ":"
	}
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// loopbackURI is http://host[:port][rest] taken apart; rest is path and query.
type loopbackURI struct{ host, port, rest string }

// anyPort reports whether a registered URI leaves its port open.
func (u loopbackURI) anyPort() bool {
	return u.port == "*" && !strings.ContainsAny(u.rest, "?*") || u.port == "" && !strings.Contains(u.rest, "*")
}

// leadsTo reports whether a registered URI allows what follows the port in another.
func (u loopbackURI) leadsTo(rest string) bool {
	return u.rest == rest || u.port == "*" && u.rest == "" && !strings.Contains(rest, "?")
}

// parseLoopback takes s apart when it is plain http on a loopback host with a numeric port, the port "*" or none, and
// has neither userinfo nor fragment.
func parseLoopback(s string) (loopbackURI, bool) {
	after, ok := strings.CutPrefix(s, "http://")
	if !ok || strings.Contains(s, "#") || !validURIBytes(s) {
		return loopbackURI{}, false
	}
	authority, rest := cutAuthority(after)
	for _, host := range loopbackHosts {
		port, found := strings.CutPrefix(authority, host)
		if !found {
			continue
		}
		if port == "" {
			return loopbackURI{host: host, rest: rest}, true
		}
		port, found = strings.CutPrefix(port, ":")
		if found && (port == "*" || validPort(port)) {
			return loopbackURI{host: host, port: port, rest: rest}, true
		}
	}
	return loopbackURI{}, false
}

// cutAuthority splits what follows "scheme://" where path or query begin.
func cutAuthority(s string) (authority, rest string) {
	if i := strings.IndexAny(s, "/?"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// checkAuthority checks host and port of an absolute URI without userinfo.
func checkAuthority(scheme, authority string) error {
	host, port, hasPort := cutPort(authority)
	loopback := scheme == "http" && IsLoopback(host)
	switch {
	case !validHost(host):
		if strings.Contains(host, "*") {
			return refuseURI("wildcard", "may have a wildcard only as the port of a loopback URI (http://localhost:*)")
		}
		return refuseURI("host", "needs a host name or address")
	case scheme == "http" && !loopback:
		return refuseURI("loopback", "must be https: plain http is only for localhost, 127.0.0.1 and [::1]")
	case hasPort && port == "*" && !loopback:
		return refuseURI("wildcard", "may have a wildcard port only as http on localhost, 127.0.0.1 or [::1]")
	case hasPort && port != "*" && !validPort(port):
		return refuseURI("port", "has a port that is not a number from 1 to 65535")
	}
	return nil
}

// cutPort splits an authority without user info; an IPv6 address keeps its brackets.
func cutPort(authority string) (host, port string, hasPort bool) {
	if end := strings.IndexByte(authority, ']') + 1; strings.HasPrefix(authority, "[") && end > 0 {
		if len(authority) > end && authority[end] == ':' {
			return authority[:end], authority[end+1:], true
		}
		return authority, "", false
	}
	return strings.Cut(authority, ":")
}

// validPort accepts 1 to 65535 in its one usual spelling: digits without sign or leading zero.
func validPort(port string) bool {
	if port == "" || len(port) > 5 || port[0] == '0' {
		return false
	}
	n := 0
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' {
			return false
		}
		n = n*10 + int(port[i]-'0')
	}
	return n <= 65535
}

// validURIBytes holds s to the characters of RFC 3986 section 2, with whole percent-encodings.
func validURIBytes(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isAlphanumeric(c), strings.IndexByte("-._~:/?#[]@!$&'()*+,;=", c) >= 0:
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			i += 2
		default:
			return false
		}
	}
	return true
}

// hasDotSegment finds . and .. segments, also percent-encoded (%2e) and with parameters behind them (..;x).
func hasDotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		segment = strings.ReplaceAll(strings.ToLower(segment), "%2e", ".")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func tooLong() error {
	return refuseURI("length", "is longer than "+strconv.Itoa(MaxRedirectURI)+" bytes")
}

func badBytes() error {
	return refuseURI("syntax", "has a character that a URI cannot hold (percent-encode it; write host names in punycode)")
}

func refuseURI(rule, reason string) error { return &RedirectURIError{Rule: rule, Reason: reason} }
