package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
)

// The part of a client's metadata that `warifu describe app` shows: what differs from the default, in words.

func authentication(c admin.Client) string {
	if c.TokenEndpointAuthMethod == "" || c.TokenEndpointAuthSigningAlg == "" {
		return c.TokenEndpointAuthMethod
	}
	return c.TokenEndpointAuthMethod + ", " + c.TokenEndpointAuthSigningAlg
}

// workloads are those that are the client.
func workloads(c admin.Client) []string {
	var out []string
	for _, id := range c.Identities {
		out = append(out, id.String())
	}
	return out
}

func signatures(c admin.Client) []string {
	var out []string
	for _, s := range [...]struct{ what, alg string }{
		{"ID tokens", c.IDTokenSignedResponseAlg}, {"userinfo", c.UserinfoSignedResponseAlg},
		{"introspection", c.IntrospectionSignedResponseAlg}, {"request objects", c.RequestObjectSigningAlg},
	} {
		if s.alg != "" {
			out = append(out, s.what+" "+s.alg)
		}
	}
	return single(strings.Join(out, ", "))
}

func requirements(c admin.Client) []string {
	var out []string
	for _, r := range [...]struct {
		what string
		on   bool
	}{
		{"signed requests", c.RequireSignedRequestObject}, {"pushed requests", c.RequirePushedAuthorizationRequests},
		{"DPoP", c.DPoPBoundAccessTokens},
		{"auth_time", c.RequireAuthTime},
	} {
		if r.on {
			out = append(out, r.what)
		}
	}
	if c.DefaultMaxAge != nil {
		out = append(out, fmt.Sprintf("a sign-in of the last %d s", *c.DefaultMaxAge))
	}
	return single(strings.Join(out, ", "))
}

func subjects(c admin.Client) string {
	if c.SubjectType == "" || c.SectorIdentifierURI == "" {
		return c.SubjectType
	}
	return c.SubjectType + ", " + c.SectorIdentifierURI
}

func logoutAddresses(c admin.Client) []string {
	var out []string
	for _, l := range [...]struct {
		channel, uri string
		session      bool
	}{
		{"back channel", c.BackchannelLogoutURI, c.BackchannelLogoutSessionRequired},
		{"front channel", c.FrontchannelLogoutURI, c.FrontchannelLogoutSessionRequired},
	} {
		if l.uri == "" {
			continue
		}
		text := l.channel + ": " + l.uri
		if l.session {
			text += " (with sid)"
		}
		out = append(out, text)
	}
	return out
}

// speaksFor are the resource servers that a client is.
func speaksFor(c admin.Client) []string {
	registered := oauth.Client{ClientMetadata: c.ClientMetadata}
	return registered.Resources()
}

// admitted is who may use the app; nothing when everybody may.
func admitted(c admin.Client) []string {
	var out []string
	for _, list := range [...]struct {
		what  string
		names []string
	}{{"groups", c.AccessGroups}, {"e-mail", c.AccessEmails}} {
		if len(list.names) > 0 {
			out = append(out, list.what+": "+strings.Join(list.names, ", "))
		}
	}
	if len(c.AccessConnectors) > 0 {
		out = append(out, "only by connector: "+strings.Join(c.AccessConnectors, ", "))
	}
	switch c.AccessMFA {
	case oauth.MFARequired:
		out = append(out, "only with a second factor")
	case oauth.MFAPhishingResistant:
		out = append(out, "only with a passkey")
	}
	return out
}

// onlyForwardAuth reports whether the client is an app behind forward auth that knows no OAuth.
func onlyForwardAuth(c admin.Client) bool {
	registered := oauth.Client{ClientMetadata: c.ClientMetadata, RedirectURIs: c.RedirectURIs}
	registered.GrantTypes = c.GrantTypes
	return registered.OnlyForwardAuth()
}

// behindForwardAuth is where the app is, and what it calls its users.
func behindForwardAuth(c admin.Client) []string {
	if len(c.ForwardAuthHosts) == 0 {
		return nil
	}
	return append(slices.Clone(c.ForwardAuthHosts), "Remote-User: "+cmp.Or(c.ForwardAuthUser, oauth.ForwardUserSub))
}

// consent is whether users are asked, where the manifest says that they are not.
func consent(a admin.AppDetail) string {
	switch manifests.Trust(a.Trust) {
	case manifests.TrustConfigured:
		return "not asked for: the configuration trusts the app"
	case manifests.TrustGiven:
		return "not asked for: an operator has approved that (apply --trust)"
	case manifests.TrustNeeded:
		return "asked for: no operator has approved consent: skip (trusted, or apply --trust)"
	}
	return ""
}

// worded are the keys of metadata that have words of their own above, or are told in another way.
var worded = []string{
	"grantTypes", "identities", "tokenEndpointAuthMethod", "tokenEndpointAuthSigningAlg", "jwks", "jwksUri",
	"idTokenSignedResponseAlg", "userinfoSignedResponseAlg",
	"introspectionSignedResponseAlg", "requestObjectSigningAlg", "requireSignedRequestObject",
	"requirePushedAuthorizationRequests", "dpopBoundAccessTokens", "subjectType",
	"sectorIdentifierUri", "defaultMaxAge", "requireAuthTime", "initiateLoginUri", "backchannelLogoutUri",
	"backchannelLogoutSessionRequired",
	"frontchannelLogoutUri", "frontchannelLogoutSessionRequired", "resource", "resourceIdentifiers",
	"tokenExchangeAudiences", "access.groups", "access.connectors", "access.emails", "access.mfa", "forwardAuth.hosts",
	"forwardAuth.user", "consent",
}

// unworded shows the rest of the table of client fields by the keys of the manifest, so that a new one is not kept
// back.
func unworded(c admin.Client) []string {
	registered := oauth.Client{ClientMetadata: c.ClientMetadata}
	var out []string
	for _, f := range oauth.Fields() {
		if !f.IsSet(&registered) || slices.Contains(worded, f.Key) {
			continue
		}
		switch v := f.Of(&registered).(type) {
		case *string:
			out = append(out, f.Key+": "+*v)
		case *bool:
			out = append(out, f.Key)
		case *[]string:
			out = append(out, f.Key+": "+strings.Join(*v, ", "))
		case **int64:
			out = append(out, fmt.Sprintf("%s: %d", f.Key, **v))
		}
	}
	return out
}
