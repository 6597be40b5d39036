package oauth

import (
	"errors"
	"net/url"
	"strings"
)

// Subject types (OpenID Connect Core 1.0 section 8).
const (
	SubjectPublic   = "public"
	SubjectPairwise = "pairwise"
)

// SubjectTypes returns both.
func SubjectTypes() []string { return []string{SubjectPublic, SubjectPairwise} }

// ErrSectors: the redirect URIs lie on several hosts, and nothing says to which sector the client belongs.
var ErrSectors = errors.New("redirect URIs on several hosts need a sector identifier")

// OwnSector is the sector of a client that shares its pairwise subjects with no other. No host has a space in it.
func OwnSector(clientID string) string { return "client " + clientID }

// Sector is where the pairwise subjects of the client with this id are the same: the host of its sector identifier, or
// else of its redirect URIs and of its hosts behind forward auth (OpenID Connect Core 1.0 section 8.1). Redirect URIs
// on loopback do not count, because they come and go during development; a client that has no other, or only those of
// native apps, is a sector of its own.
// [ErrSectors]: there is more than one host.
func (c *Client) Sector(clientID string) (string, error) {
	if c.SectorIdentifierURI != "" {
		host := HostOf(c.SectorIdentifierURI)
		if host == "" {
			return "", errors.New("the sector identifier is not a URL with a host")
		}
		return host, nil
	}
	sector := ""
	for _, uri := range c.Returns() {
		host := redirectHost(uri)
		switch {
		case host == "" || host == sector:
		case sector != "":
			return "", ErrSectors
		default:
			sector = host
		}
	}
	if sector == "" {
		return OwnSector(clientID), nil
	}
	return sector, nil
}

// redirectHost is the host of a redirect URI on the web, "" of any other.
func redirectHost(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return "" // with a wildcard for the port it does not parse: that is loopback
	}
	if host := strings.ToLower(u.Hostname()); !IsLoopback(host) {
		return host
	}
	return ""
}

// HostOf is the host of an address as sectors are compared: in lower case, without port and brackets; "" if it has
// none.
func HostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}
