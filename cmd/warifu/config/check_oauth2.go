package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
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
}

// checkOffer holds a list against what is offered, and against what cannot be left out. An empty list is the default.
func (r *reader) checkOffer(path string, got, offered, required []string) {
	if len(got) == 0 {
		return
	}
	for i, value := range got {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !slices.Contains(offered, value) {
			r.fault(at, "unsupported", nearestURN(value, offered),
				"is not offered by this version, which has %s", strings.Join(offered, ", "))
		} else if slices.Contains(got[:i], value) {
			r.fault(at, "duplicate", "", "is there twice")
		}
	}
	for _, value := range required {
		if !slices.Contains(got, value) {
			r.fault(path, "unsupported", "", "must hold %s: it cannot be switched off", value)
		}
	}
}

// nearestURN is nearest, which also finds a URN by its last part: device_code for
// urn:ietf:params:oauth:grant-type:device_code.
func nearestURN(word string, candidates []string) string {
	ends := make(map[string]string, len(candidates))
	var words []string
	for _, candidate := range candidates {
		end := candidate[strings.LastIndexByte(candidate, ':')+1:]
		ends[end], words = candidate, append(words, end)
	}
	word = strings.ReplaceAll(word[strings.LastIndexByte(word, ':')+1:], "-", "_")
	if whole, exact := ends[word]; exact {
		return whole
	}
	return ends[strictyaml.Nearest(word, words)]
}

// resourceServerID is what a resource server may be called: nothing that HTTP Basic or a URL would write in another
// way.
var resourceServerID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,100}$`)

func (r *reader) checkResourceServers(cfg *Config) {
	ids, identifiers := make(map[string]int), make(map[string]int)
	for i, s := range cfg.OAuth2.ResourceServers {
		at := fmt.Sprintf("oauth2.resourceServers[%d]", i)
		if r.required(at+".id", s.ID, "it authenticates with it") {
			if !resourceServerID.MatchString(s.ID) {
				r.fault(at+".id", "value", "", "must be 1 to 100 letters, digits and -._~, but is %q", s.ID)
			}
			if first, ok := ids[s.ID]; ok {
				r.fault(at+".id", "duplicate", "", "is the same as oauth2.resourceServers[%d].id", first)
			}
			ids[s.ID] = i
		}
		if r.required(at+".identifier", s.Identifier, "the audience of its tokens, as in https://api.example.com") {
			u, err := url.Parse(s.Identifier)
			if err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" && u.Path == "" ||
				strings.Contains(s.Identifier, "#") {
				r.fault(at+".identifier", "url", "",
					"must be an absolute URI without a fragment (RFC 8707 section 2), as in https://api.example.com, but is %q",
					s.Identifier)
			}
			if first, ok := identifiers[s.Identifier]; ok {
				r.fault(at+".identifier", "duplicate", "", "is the same as oauth2.resourceServers[%d].identifier", first)
			}
			identifiers[s.Identifier] = i
		}
		r.required(at+".secretFile", s.SecretFile,
			"a file that holds the secret of the resource server (openssl rand -hex 32)")
	}
}

func (r *reader) checkOutbound(cfg Outbound) {
	for i, text := range cfg.Allow {
		at := fmt.Sprintf("outbound.allow[%d]", i)
		prefix, err := netip.ParsePrefix(text)
		if err == nil && prefix == prefix.Masked() {
			continue
		}
		if err == nil {
			r.fault(at, "value", prefix.Masked().String(), "must be a network, but %s is an address in it", text)
			continue
		}
		suggestion := ""
		if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
			suggestion = netip.PrefixFrom(address, address.BitLen()).String()
		}
		r.fault(at, "value", suggestion, "must be a network, as in 10.0.0.0/8, but is %q", text)
	}
}
