package config

import (
	"time"

	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
)

// Lifetimes are the defaults with what the configuration says over them.
func (cfg *Config) Lifetimes() server.Lifetimes {
	l, e := server.DefaultLifetimes(), cfg.Expiry
	for _, f := range []struct {
		into *time.Duration
		from Duration
	}{
		{&l.AccessToken, e.AccessTokens}, {&l.IDToken, e.IDTokens}, {&l.Code, e.Codes},
		{&l.AuthRequest, e.AuthRequests}, {&l.DeviceCode, e.DeviceRequests}, {&l.Session, e.Sessions}, {&l.SigningKeys, e.SigningKeys}, {&l.SealingKeys, e.SealingKeys},
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

// users are the people who sign in with a password, with the hashes that are in the file itself.
func (cfg *Config) users() []connector.StaticUser {
	users := make([]connector.StaticUser, len(cfg.StaticPasswords))
	for i, p := range cfg.StaticPasswords {
		users[i] = connector.StaticUser{Identity: p.Identity(), Hash: []byte(p.Hash)}
	}
	return users
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
