package oauth

import (
	"slices"
	"strings"
)

// loopbackHosts are the only hosts that count as the user's own machine: plain http may lead there, and only their port may be a
// wildcard in a redirect URI. They are compared byte for byte, as they stand in a URL. 127.9.9.9, LOCALHOST and [0:0:0:0:0:0:0:1]
// are other names for the same place that a browser or a resolver may read differently.
var loopbackHosts = [...]string{"localhost", "127.0.0.1", "[::1]"}

// IsLoopback reports whether host is the user's own machine: localhost, 127.0.0.1 or ::1, without a port, and with or without the
// brackets of an IPv6 address. Nothing else is: this is the one meaning that the word has here (RFC 8252 section 7.3).
func IsLoopback(host string) bool {
	if !strings.HasPrefix(host, "[") && strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return slices.Contains(loopbackHosts[:], host)
}
