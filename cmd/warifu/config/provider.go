package config

import (
	"net/netip"
	"slices"
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
)

// Lifetimes are the defaults with what the configuration says over them.
func (cfg *Config) Lifetimes() server.Lifetimes {
	l, e := server.DefaultLifetimes(), cfg.Expiry
	for _, f := range []struct {
		into *time.Duration
		from Duration
	}{
		{&l.AccessToken, e.AccessTokens}, {&l.IDToken, e.IDTokens}, {&l.Code, e.Codes},
		{&l.AuthRequest, e.AuthRequests}, {&l.DeviceCode, e.DeviceRequests}, {&l.Session, e.Sessions},
		{&l.SigningKeys, e.SigningKeys}, {&l.SealingKeys, e.SealingKeys},
		{&l.RefreshIdle, e.RefreshTokens.ValidIfNotUsedFor}, {&l.RefreshAbsolute, e.RefreshTokens.AbsoluteLifetime},
		{&l.RefreshReuse, e.RefreshTokens.ReuseInterval},
	} {
		if f.from != 0 {
			*f.into = time.Duration(f.from)
		}
	}
	return l
}

// Catalogue are the scopes that apps may ask for.
func (cfg *Config) Catalogue() []server.Scope {
	if len(cfg.Scopes) == 0 {
		return server.DefaultScopes()
	}
	scopes := make([]server.Scope, len(cfg.Scopes))
	for i, s := range cfg.Scopes {
		text := map[string]string{"en": s.Description.EN, "ja": s.Description.JA}
		scopes[i] = server.Scope{Name: s.Name, Risk: string(s.Risk), Description: text}
	}
	return scopes
}

// pages is what the configuration itself says about the operator; the logo is in a file.
func (b Branding) pages() pages.Branding {
	return pages.Branding{Name: b.Name, Support: b.SupportURL, Privacy: b.PrivacyURL}
}

// claims are those that are made of attributes.
func (cfg *Config) claims() []server.Claim {
	claims := make([]server.Claim, len(cfg.Claims))
	for i, c := range cfg.Claims {
		claims[i] = server.Claim(c)
	}
	return claims
}

// Groups are those in which somebody of the configuration is; nil if only connectors know.
func (cfg *Config) Groups() []string {
	if len(cfg.Connectors) > 0 {
		return nil
	}
	groups := []string{} // none, and not unknown
	for _, p := range cfg.StaticPasswords {
		groups = append(groups, p.Groups...)
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// Demands are what is demanded of people.
func (m MFA) Demands() server.Demands {
	d := server.Demands{Everybody: oauth.AssuranceOfDemand(string(m.Demand))}
	for group, demand := range m.Groups {
		if d.Groups == nil {
			d.Groups = make(map[string]oauth.Assurance)
		}
		d.Groups[group] = oauth.AssuranceOfDemand(string(demand))
	}
	return d
}

// proxies are the networks of trustedProxies; what is none was reported before.
func (w Web) proxies() []netip.Prefix {
	var out []netip.Prefix
	for _, text := range w.TrustedProxies {
		if address, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()))
		} else if network, err := netip.ParsePrefix(text); err == nil {
			out = append(out, network)
		}
	}
	return out
}

// users are the people who sign in with a password, with the hashes that are in the file itself.
func (cfg *Config) users() []connector.StaticUser {
	users := make([]connector.StaticUser, len(cfg.StaticPasswords))
	for i, p := range cfg.StaticPasswords {
		users[i] = connector.StaticUser{Identity: p.Identity(), Hash: []byte(p.Hash)}
		users[i].UserID = cfg.SubjectOf(p.UserID)
	}
	return users
}

// SubjectOf is the subject of somebody in staticPasswords.
func (cfg *Config) SubjectOf(userID string) string {
	if cfg.Subject == SubjectDex && userID != "" {
		return connector.DexSubject(connector.StaticName, userID)
	}
	return userID
}

// GrantTypes are those that are on.
func (cfg *Config) GrantTypes() []string {
	if len(cfg.OAuth2.GrantTypes) == 0 {
		return server.DefaultGrantTypes()
	}
	return cfg.OAuth2.GrantTypes
}

// Identifiers are those of the resource servers of the configuration.
func (c OAuth2) Identifiers() []string {
	var out []string
	for _, s := range c.ResourceServers {
		out = append(out, s.Identifier)
	}
	return out
}

// IDs are the names with which those resource servers authenticate.
func (c OAuth2) IDs() []string {
	var out []string
	for _, s := range c.ResourceServers {
		out = append(out, s.ID)
	}
	return out
}
