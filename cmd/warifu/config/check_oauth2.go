package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/oauth"
)

func (r *reader) checkOAuth2(cfg *Config) {
	r.checkOffer("oauth2.grantTypes", cfg.OAuth2.GrantTypes, oauth.GrantTypes(), oauth.UsualGrantTypes())
	r.checkOffer("oauth2.responseTypes", cfg.OAuth2.ResponseTypes, []string{"code"}, []string{"code"})
	r.checkResourceServers(cfg)
	const at = "oauth2.registration"
	registration := cfg.OAuth2.Registration
	if len(registration.InitialAccessTokenFiles) > 0 && !registration.Enabled {
		r.fault(at, "pair", "", "has initial access tokens, but enabled is not true")
	}
	r.checkNoEmpty(at+".initialAccessTokenFiles", registration.InitialAccessTokenFiles)
	catalogue := server.ScopeNames(cfg.Catalogue())
	if _, written := r.places[at+".scopes"]; written && len(registration.Scopes) == 0 {
		r.fault(at+".scopes", "required", "", "is empty: list what such clients may ask for, or leave it out for all "+
			"of the catalogue")
	}
	for i, scope := range registration.Scopes {
		path := fmt.Sprintf("%s.scopes[%d]", at, i)
		switch {
		case slices.Contains(registration.Scopes[:i], scope):
			r.fault(path, "duplicate", "", "is listed twice")
		case !slices.Contains(catalogue, scope) && catalogue != nil: // a catalogue that has faults is told of elsewhere
			r.fault(path, "value", strictyaml.Nearest(scope, catalogue), "is %q, which is not a scope of the catalogue (scopes)",
				scope)
		}
	}
	r.checkHosts("oauth2.clientIDMetadataDocuments.allow", cfg.OAuth2.ClientIDMetadataDocuments.Allow)
	r.checkHosts("oauth2.clientIDMetadataDocuments.deny", cfg.OAuth2.ClientIDMetadataDocuments.Deny)
}

// checkHosts holds a list against what can be a pattern of hosts.
func (r *reader) checkHosts(path string, patterns []string) {
	for i, pattern := range patterns {
		if mended, ok := oauth.CheckHostPattern(pattern); !ok {
			r.fault(fmt.Sprintf("%s[%d]", path, i), "value", mended,
				"must be a host in lower case, without port and path, or *. and a domain, as in *.example.com, but is %q", pattern)
		}
	}
}

// checkOffer holds a list against what is offered, and against what cannot be left out. An empty list is the default.
func (r *reader) checkOffer(path string, got, offered, required []string) {
	if len(got) == 0 {
		return
	}
	for i, value := range got {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !slices.Contains(offered, value) {
			r.fault(at, "unsupported", oauth.NearestName(value, offered, strictyaml.Nearest), "is not offered by this "+
				"version%s, which has %s",
				withdrawn[value], strings.Join(offered, ", "))
		} else if slices.Contains(got[:i], value) {
			r.fault(at, "duplicate", "", "is listed twice")
		}
	}
	for _, value := range required {
		if !slices.Contains(got, value) {
			r.fault(path, "unsupported", "", "must hold %s: it cannot be switched off", value)
		}
	}
}

// withdrawn is why something is not offered that was once usual.
var withdrawn = map[string]string{
	"token":    " (it puts tokens into addresses: RFC 9700 section 2.1.2)",
	"id_token": " (for a browser there is code with PKCE: RFC 9700 section 2.1.2)",
	"password": " (it takes the password of a person out of their hands: RFC 9700 section 2.4)",
	"implicit": " (it puts tokens into addresses: RFC 9700 section 2.1.2)",
}

// resourceServerID is what a resource server may be called: nothing that HTTP Basic or a URL would write in another
// way.
var resourceServerID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,100}$`)

func (r *reader) checkResourceServers(cfg *Config) {
	ids, identifiers := make(map[string]int), make(map[string]int)
	for i, s := range cfg.OAuth2.ResourceServers {
		at := fmt.Sprintf("oauth2.resourceServers[%d]", i)
		introspects := s.ID != "" || s.SecretFile != "" // others verify tokens by the published keys
		if introspects && r.required(at+".id", s.ID, "it authenticates with it") {
			if !resourceServerID.MatchString(s.ID) {
				r.fault(at+".id", "value", "", "must be 1 to 100 letters, digits and -._~, but is %q", s.ID)
			}
			if first, ok := ids[s.ID]; ok {
				r.fault(at+".id", "duplicate", "", "is the same as oauth2.resourceServers[%d].id", first)
			}
			ids[s.ID] = i
		}
		if r.required(at+".identifier", s.Identifier, "the audience of its tokens, as in https://api.example.com") {
			if reason, mended := oauth.CheckResource(s.Identifier); reason != "" {
				if name := inPunycode(s.Identifier); name != "" {
					if wrong, _ := oauth.CheckResource(name); wrong == "" {
						mended = name
					}
				}
				r.fault(at+".identifier", "url", mended, "%s", reason) // it may hold a password
			}
			canonical := oauth.CanonicalURI(s.Identifier)
			if first, ok := identifiers[canonical]; ok {
				r.fault(at+".identifier", "duplicate", "", "is the same as oauth2.resourceServers[%d].identifier", first)
			}
			identifiers[canonical] = i
		}
		if introspects {
			r.required(at+".secretFile", s.SecretFile,
				"a file that holds the secret of the resource server (openssl rand -hex 32)")
		}
		if s.AccessTokenType == oauth.AccessTokenOpaque && s.AccessTokenAlg != "" {
			r.warn(at+".accessTokenAlg", "unused", "is of no use: opaque access tokens are not signed")
		}
	}
}

func (r *reader) checkOutbound(cfg Outbound) {
	for i, text := range cfg.Allow {
		r.checkNetwork(fmt.Sprintf("outbound.allow[%d]", i), text, false)
	}
}

// checkNetwork is for a network, as in 10.0.0.0/8, or where addresses are taken, a single address.
func (r *reader) checkNetwork(at, text string, addresses bool) {
	prefix, err := netip.ParsePrefix(text)
	if err == nil && prefix == prefix.Masked() {
		return
	}
	if err == nil {
		r.fault(at, "value", prefix.Masked().String(), "must be a network, but %s is an address in it", text)
		return
	}
	address, err := netip.ParseAddr(text)
	single := err == nil && address.Zone() == ""
	if single && addresses {
		return
	}
	suggestion, or := "", ""
	if single {
		suggestion = netip.PrefixFrom(address, address.BitLen()).String()
	}
	if addresses {
		or = ", or an address"
	}
	r.fault(at, "value", suggestion, "must be a network, as in 10.0.0.0/8%s, but is %q", or, text)
}
