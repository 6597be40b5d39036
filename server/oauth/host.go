package oauth

import (
	"net/netip"
	"slices"
	"strings"
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
// without the brackets of an IPv6 address. Nothing else is (RFC 8252 section 7.3). It is for addresses that browsers and
// apps are told, and for what this server listens on and is reached at.
func IsLoopback(host string) bool {
	if !strings.HasPrefix(host, "[") && strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return slices.Contains(loopbackHosts[:], host)
}

// IsThisMachine reports whether a connection of this process to host, without port and brackets, stays on its machine:
// localhost, or any loopback address. Nobody compares such an address with another, so all of 127.0.0.0/8 will do, where
// operators put proxies and daemons.
func IsThisMachine(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}
