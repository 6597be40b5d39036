package config

import (
	"cmp"
	"encoding/json"
	"net"
	"net/url"
	"strings"
)

// upstreamAddress is where a kind of connector leads: the keys of its configuration that say so, the first one that is
// given counts, and where it leads without. Kinds that ask nobody themselves are not among them.
var upstreamAddress = map[string]struct {
	keys    []string
	without string
}{
	"atlassian-crowd": {keys: []string{"baseURL"}}, "bitbucket-cloud": {without: "https://bitbucket.org"},
	"gitea": {[]string{"baseURL"}, "https://gitea.com"}, "github": {[]string{"hostName"}, "https://github.com"},
	"gitlab": {[]string{"baseURL"}, "https://gitlab.com"}, "google": {without: "https://accounts.google.com"},
	"keystone": {keys: []string{"keystoneHost"}}, "ldap": {keys: []string{"host"}},
	"linkedin": {without: "https://www.linkedin.com"}, "microsoft": {without: "https://login.microsoftonline.com"},
	"oauth": {keys: []string{"tokenURL"}}, "oidc": {keys: []string{"issuer"}}, "openshift": {keys: []string{"issuer"}},
}

// UpstreamAddresses are where connectors lead, as host:port, by their ids.
func (s *Settings) UpstreamAddresses() map[string]string {
	addresses := make(map[string]string)
	for _, u := range s.upstreams {
		where, asks := upstreamAddress[u.Spec.Type]
		var given map[string]any
		if !asks || json.Unmarshal(u.Spec.Config, &given) != nil {
			continue
		}
		address := ""
		for _, key := range where.keys {
			if value, is := given[key].(string); is {
				address = cmp.Or(address, value)
			}
		}
		port := "443"
		if plain, is := given["insecureNoSSL"].(bool); u.Spec.Type == "ldap" {
			if port = "636"; is && plain {
				port = "389"
			}
		}
		if address = hostPort(cmp.Or(address, where.without), port); address != "" {
			addresses[u.Spec.ID] = address
		}
	}
	return addresses
}

// hostPort is host:port of an address, with a scheme or without, and with a port or the usual one.
func hostPort(address, port string) string {
	if !strings.Contains(address, "://") {
		address = "//" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	if u.Scheme == "http" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
}
