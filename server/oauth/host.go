package oauth

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// loopbackHosts are the only hosts that count as the user's own machine: plain http may lead there, and only their port
// may be a wildcard in a redirect URI. They are compared byte for byte, as they stand in a URL. 127.9.9.9, LOCALHOST
// and [0:0:0:0:0:0:0:1] are other names for the same place that a browser or a resolver may read differently.
var loopbackHosts = [...]string{"localhost", "127.0.0.1", "[::1]"}

// HostRules say which hosts are admitted: none that Deny matches, and when Allow has any pattern, only those that it
// matches. A pattern is a host, or *. and a domain, which matches every host below that domain and not the domain
// itself.
type HostRules struct{ Allow, Deny []string }

// Admits reports whether a host, without port and brackets, is admitted.
func (h HostRules) Admits(host string) bool {
	return !h.Denies(host) && (len(h.Allow) == 0 || matchesHost(h.Allow, host))
}

// Denies reports whether a host is one that Deny matches.
func (h HostRules) Denies(host string) bool { return matchesHost(h.Deny, host) }

func matchesHost(patterns []string, host string) bool {
	host = strings.ToLower(host)
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if below, wild := strings.CutPrefix(pattern, "*"); wild {
			return len(host) > len(below) && strings.HasSuffix(host, below)
		}
		return host == pattern
	})
}

// CheckHostPattern reports whether a pattern of [HostRules] can match anything, and if not, what was probably meant.
func CheckHostPattern(pattern string) (mended string, ok bool) {
	name := strings.TrimPrefix(pattern, "*.")
	address, err := netip.ParseAddr(name)
	switch {
	case err == nil && name == pattern && address.String() == pattern && address.Zone() == "":
		return "", true
	case err != nil && validHost(name) && name == strings.ToLower(name) && !strings.HasPrefix(name, "["):
		return "", true
	}
	mended = strings.ToLower(pattern)
	if _, rest, found := strings.Cut(mended, "://"); found {
		mended = rest
	}
	if authority, _ := cutAuthority(mended); authority != "" {
		mended, _, _ = cutPort(authority)
	}
	mended = strings.Trim(strings.TrimPrefix(mended, "*."), "[].")
	if strings.HasPrefix(pattern, "*.") {
		mended = "*." + mended
	} else if strings.HasPrefix(pattern, ".") {
		mended = "*." + mended
	}
	if mended == pattern {
		return "", false
	}
	if _, ok := CheckHostPattern(mended); !ok {
		mended = ""
	}
	return mended, false
}

// LoopbackHosts returns the hosts that count as the user's own machine, as they stand in a URL.
func LoopbackHosts() []string { return slices.Clone(loopbackHosts[:]) }

// IsLoopback reports whether host is the user's own machine: localhost, 127.0.0.1 or ::1, without a port, and with or
// without the brackets of an IPv6 address. Nothing else is (RFC 8252 section 7.3). It is for addresses that browsers
// and apps are told, and for those of this server's own configuration.
func IsLoopback(host string) bool {
	if !strings.HasPrefix(host, "[") && strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return slices.Contains(loopbackHosts[:], host)
}

// IsThisMachine reports whether a connection to host, without port and brackets, stays on the machine of the process
// that makes it: localhost, or any loopback address. It is for what runtimes connect to, proxies and daemons: operators
// put them anywhere in 127.0.0.0/8, and nobody compares such an address with another.
func IsThisMachine(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// validHost accepts what can be the host of a URL: an IPv6 address in brackets, or labels. Where all of them are
// numbers, browsers read an IPv4 address, and there must be one: no name has such a form (1.2.3.4.5).
func validHost(host string) bool {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		address, err := netip.ParseAddr(inner)
		return closed && err == nil && address.Is6() && address.Zone() == ""
	}
	labels, ok := hostLabels(host)
	return ok && (slices.ContainsFunc(labels, isWord) || isIPv4(labels))
}

// IsHostName reports whether a host is a name that a resolver could know: labels that begin and end with letters,
// digits or underscores, the last of which cannot be taken for a number, as 0x7f000001 is. There may be a dot at its
// end.
func IsHostName(host string) bool {
	labels, ok := hostLabels(strings.TrimSuffix(host, "."))
	return ok && !isNumber(labels[len(labels)-1]) && !slices.ContainsFunc(labels, func(label string) bool {
		return label[0] == '-' || label[len(label)-1] == '-'
	})
}

// hostLabels are the labels of a host: each of letters, digits, hyphens and underscores, and as long as DNS has them
// (RFC 1035 section 2.3.4).
func hostLabels(host string) (labels []string, ok bool) {
	labels = strings.Split(host, ".")
	return labels, len(host) <= 253 && !slices.ContainsFunc(labels, func(label string) bool {
		return label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return r > unicode.MaxASCII || !isAlphanumeric(byte(r)) && r != '-' && r != '_'
		})
	})
}

// isNumber reports whether browsers take a label for a number (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func isNumber(label string) bool {
	if digits, hexadecimal := strings.CutPrefix(strings.ToLower(label), "0x"); hexadecimal {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func isWord(label string) bool { return !isNumber(label) }

// isIPv4 reports whether browsers read an IPv4 address in numbers (https://url.spec.whatwg.org/#concept-ipv4-parser):
// up to four, of which the last fills what the others leave.
func isIPv4(numbers []string) bool {
	if len(numbers) > 4 {
		return false
	}
	for i, number := range numbers {
		bits := 8
		if i == len(numbers)-1 {
			bits = 8 * (4 - i)
		}
		if _, err := strconv.ParseUint(number, 0, bits); err != nil {
			return false
		}
	}
	return true
}
