package oauth

import (
	"net/netip"
	"slices"
	"strings"
)

// An app that knows no OAuth can stand behind a proxy that asks this server about each request (forward auth, or
// auth_request). The app's manifest lists the hosts at which it is; there this server is the client that signs people
// in, and comes back to an address below [PathForward] that the app itself never sees.

// PathForward is what belongs to this server at the hosts of apps behind forward auth.
const PathForward = "/.warifu/"

// pathForwardCallback is where sign-ins come back to.
const pathForwardCallback = PathForward + "callback"

// What the app is told a user is called: [Client.ForwardAuthUser].
const (
	ForwardUserSub      = "sub" // also when empty
	ForwardUserUsername = "username"
	ForwardUserEmail    = "email"
)

// ForwardUsers returns all of them.
func ForwardUsers() []string { return []string{ForwardUserSub, ForwardUserUsername, ForwardUserEmail} }

// CheckForwardHost holds a host behind forward auth to the one spelling in which it is compared: as browsers send it,
// with a port if that is not the usual one. The reason completes the sentence "the host ..."; it is empty when nothing
// is wrong.
func CheckForwardHost(host string) (reason, mended string) {
	origin := ForwardOrigin(host)
	reason, mended = CheckOrigin(origin)
	_, mended, _ = strings.Cut(mended, "://")
	switch {
	case host == "":
		return "is empty", ""
	case strings.Contains(host, "://"), strings.Contains(host, "/"):
		_, rest, _ := strings.Cut(host, "://")
		if rest == "" {
			rest = host
		}
		rest, _, _ = strings.Cut(rest, "/")
		return "must be a host without scheme and path, as in wiki.example.com", rest
	case strings.Contains(host, "*"):
		return "must be one host: list each of them", ""
	case !ascii(host):
		return "must be written as browsers send it, in punycode, as in xn--bcher-kva.example", ""
	case reason == "" && CheckRedirectURI(origin+pathForwardCallback) == nil && browsersSend(host):
		return "", ""
	}
	return "must be a host as browsers send it, with its port if that is not the usual one, as in wiki.example.com", mended
}

// browsersSend reports whether a browser would send a host like that: an address in its one spelling, or a name. No
// underscores: the names of hosts on the web have none, and some proxies refuse them.
func browsersSend(host string) bool {
	name, _, _ := cutPort(host)
	inner := strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if address, err := netip.ParseAddr(inner); err == nil {
		return address.String() == inner
	}
	return IsHostName(name) && !strings.Contains(name, "_") && !strings.HasSuffix(name, ".")
}

// ForwardOrigin is the origin of a host behind forward auth: https, or http on the user's own machine.
func ForwardOrigin(host string) string {
	name, _, _ := cutPort(host)
	if IsLoopback(name) {
		return "http://" + host
	}
	return "https://" + host
}

// ForwardCallback is where a sign-in for a host behind forward auth comes back to.
func ForwardCallback(host string) string { return ForwardOrigin(host) + pathForwardCallback }

// ForwardHost is the host of a callback; empty if it is none.
func ForwardHost(uri string) string {
	origin, is := strings.CutSuffix(uri, pathForwardCallback)
	_, host, _ := strings.Cut(origin, "://")
	if !is || host == "" || ForwardCallback(host) != uri {
		return ""
	}
	return host
}

// IsBehindForwardAuth reports whether a client is an app at that host.
func (c *Client) IsBehindForwardAuth(host string) bool {
	return host != "" && slices.Contains(c.ForwardAuthHosts, host)
}

// OnlyForwardAuth reports whether the client is an app behind forward auth and nothing else: it asks for no tokens
// itself, and so has nothing to authenticate with.
func (c *Client) OnlyForwardAuth() bool {
	return len(c.ForwardAuthHosts) > 0 && len(c.RedirectURIs) == 0 && len(c.GrantTypes) == 0 && len(c.Resources()) == 0
}

// MayReturnTo reports whether the answer to an authorization request may go to uri: one of the redirect URIs (see
// [MatchRedirectURI]), or the callback of a host behind forward auth.
func (c *Client) MayReturnTo(uri string) bool {
	return MatchRedirectURI(c.RedirectURIs, uri) || c.IsBehindForwardAuth(ForwardHost(uri))
}

// Returns are all addresses to which users come back from a sign-in: the redirect URIs, and the callbacks of hosts
// behind forward auth.
func (c *Client) Returns() []string {
	all := c.RedirectURIs
	for _, host := range c.ForwardAuthHosts {
		all = append(all[:len(all):len(all)], ForwardCallback(host))
	}
	return all
}

const forwardIdentifier = "forward-auth://"

// Unique are what belongs to one client alone: the identifiers of the resource servers that it is, and its hosts behind
// forward auth, as identifiers that are none of a resource server.
func (c *Client) Unique() []string {
	if len(c.ForwardAuthHosts) == 0 {
		return c.Resources()
	}
	all := slices.Clone(c.Resources())
	for _, host := range c.ForwardAuthHosts {
		all = append(all, ForwardIdentifier(host))
	}
	return all
}

// ForwardIdentifier is what a host behind forward auth is called in [Client.Unique]. Browsers send the cookies of a
// host to each of its ports, so all of them belong to one app: an app at another port could use the sign-ins of this
// one. On the user's own machine, where everything is one host, the port counts.
func ForwardIdentifier(host string) string {
	if name, _, _ := cutPort(host); !IsLoopback(name) {
		host = name
	}
	return forwardIdentifier + host
}

// ForwardHostOf is the host that an identifier of [Client.Unique] calls; empty if it is that of a resource server.
func ForwardHostOf(identifier string) string {
	host, is := strings.CutPrefix(identifier, forwardIdentifier)
	if !is {
		return ""
	}
	return host
}
