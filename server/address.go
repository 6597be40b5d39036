package server

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// proxies are the networks of the proxies that may say whom they serve ([Config.TrustedProxies]).
type proxies []netip.Prefix

func (p proxies) trust(a netip.Addr) bool {
	return slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(a) })
}

// addressOf is the true address of a request, and the one place that says it: that of the peer, unless the peer is a
// proxy that is trusted. Each proxy adds the address of its own peer at the end of X-Forwarded-For, so that header is
// read from there, as far as each address is that of a trusted proxy. What stands before may be anybody's invention. An
// address that cannot be read is the zero value.
func (p proxies) addressOf(r *http.Request) netip.Addr {
	at := addressIn(r.RemoteAddr)
	if len(p) == 0 || !p.trust(at) {
		return at
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		before := addressIn(strings.TrimSpace(hop))
		if !before.IsValid() {
			return at
		}
		if at = before; !p.trust(at) {
			return at
		}
	}
	return at
}

// addressIn reads an address, with a port or without.
func addressIn(text string) netip.Addr {
	withPort, err := netip.ParseAddrPort(text) // what peers have
	a := withPort.Addr()
	if err != nil {
		if a, err = netip.ParseAddr(text); err != nil {
			return netip.Addr{}
		}
	}
	return a.Unmap().WithZone("")
}

// networkOf is what limits count as one address: whoever has an IPv6 address usually has the 64 bits behind its network
// as well.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	network, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of the zero value
	}
	return network
}
