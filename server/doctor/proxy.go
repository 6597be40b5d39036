package doctor

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// forged is an address that nobody has (RFC 5737), as a stranger would make up one to be taken for somebody else.
const forged = "192.0.2.77"

// probe is a visit that carries the probe, and an address that is made up.
func (s *outside) probe(ctx context.Context) visit {
	if s.Probe == nil {
		return visit{}
	}
	sealed := s.Probe(ctx)
	if sealed == "" {
		return visit{}
	}
	return s.follow(ctx, s.Issuer+pathDiscovery, http.Header{ProbeHeader: {sealed}, "X-Forwarded-For": {forged}})
}

// arrived is what the server saw of it; nil if there is no word of that.
func (s *outside) arrived() *Arrived {
	v := s.asked()
	if v.reply == nil {
		return nil
	}
	header := v.reply.Header.Get(ArrivedHeader)
	if header == "" {
		return nil
	}
	a, err := readArrived(header)
	if err != nil {
		return nil
	}
	return &a
}

// proxy looks what a proxy makes of requests, for which it takes the word of the server behind it.
func (s *outside) proxy(context.Context) ([]Finding, error) {
	if s.Probe == nil {
		return nil, nil
	}
	v, a := s.asked(), s.arrived()
	switch {
	case v.reply == nil && v.err == nil:
		return []Finding{unknown("run it where the admin API of the server answers",
			"what a proxy makes of requests is not known: only a running server can tell")}, nil
	case v.reply == nil, len(v.hops) > 0:
		return nil, nil // discovery says why
	case a == nil && v.reply.StatusCode == http.StatusOK:
		return []Finding{unknown("see that the proxy leads to this server, passes on the header "+ProbeHeader+", and "+
			"keeps no reply to a request with Cache-Control: no-cache",
			"the server was asked through %s, and nothing came back: another one answers, or a proxy keeps headers "+
				"or replies to itself", s.issuer.Host)}, nil
	case a == nil:
		return nil, nil
	}
	return judgeProxy(*a, v.local), nil
}

// judgeProxy says of a request that had the forged address what becomes of the addresses of users.
func judgeProxy(a Arrived, local string) []Finding {
	peer := a.Peer
	if at, err := netip.ParseAddrPort(a.Peer); err == nil {
		peer = at.Addr().Unmap().String()
	}
	told := forwarded(a.ForwardedFor)
	const add = "have the proxy add the address of its peer (nginx: proxy_set_header X-Forwarded-For " +
		"$proxy_add_x_forwarded_for; " +
		"Caddy and Traefik do so by themselves)"
	scheme := "X-Forwarded-Proto says " + strings.Join(a.ForwardedProto, ", ")
	if len(a.ForwardedProto) == 0 {
		scheme = "there is no X-Forwarded-Proto, which this server does not need"
	}
	trust := "web: {trustedProxies: [" + peer + "]} in the configuration, if that is the proxy"
	switch {
	case a.Peer == local:
		return []Finding{fine("no proxy is between this machine and the server, and the server sees its address")}
	case len(told) == 0 && a.Trusted:
		return []Finding{wrong(add, "the proxy %s does not pass X-Forwarded-For on: all users have its address, and "+
			"share the limits of sign-ins", peer)}
	case len(told) == 0:
		return []Finding{wrong(add+", and write "+trust,
			"requests come from %s, which passes no X-Forwarded-For on: if it is a proxy, all users "+
				"have its address, and share the limits of sign-ins", peer)}
	case a.Trusted && a.Address.String() == forged && told[len(told)-1] != forged:
		return []Finding{fine("the proxy %s is trusted, and passes on the address of users (this machine is %s, "+
			"which is among web.trustedProxies itself); %s",
			peer, told[len(told)-1], scheme)}
	case a.Trusted && a.Address.String() == forged:
		return []Finding{wrong(add+", and not pass on what clients say",
			"the proxy %s passes X-Forwarded-For on as clients write it: "+
				"whoever guesses passwords chooses another address each time", peer)}
	case !a.Trusted && a.TLS && slices.Equal(told, []string{forged}):
		return []Finding{fine("requests from here reach the server from %s, over TLS of its own, and what strangers "+
			"write into X-Forwarded-For is ignored", peer)}
	case !a.Trusted && slices.Equal(told, []string{forged}):
		return []Finding{wrong(add+", and write "+trust,
			"the proxy %s adds nothing to X-Forwarded-For: all users have its address, and share "+
				"the limits of sign-ins", peer)}
	case !a.Trusted:
		return []Finding{wrong("write "+trust, "the proxy %s passes X-Forwarded-For on, and is not among "+
			"web.trustedProxies: all users have its "+
			"address, and share the limits of sign-ins", peer)}
	}
	return []Finding{fine("the proxy %s is trusted, and passes on the address of users (this one is %s); %s",
		peer, a.Address, scheme)}
}

// forwarded are the addresses of X-Forwarded-For, in their order.
func forwarded(values []string) (addresses []string) {
	for part := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if part = strings.TrimSpace(part); part != "" {
			addresses = append(addresses, part)
		}
	}
	return addresses
}
