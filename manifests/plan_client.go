package manifests

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// compareClient compares the registered client with the wanted registration.
func (d *Deployer) compareClient(ctx context.Context, c *comparison) error {
	was, want := registrationOf(c.view.Client), c.want.client
	switch {
	case was == nil && want == nil:
		return nil
	case was == nil:
		c.want.clientChanged = true
		kind := "client"
		if want.Public {
			kind = "public client"
		}
		how := ""
		if len(want.GrantTypes) > 0 {
			how += ", grant types " + strings.Join(want.GrantTypes, " ")
		}
		if want.TokenEndpointAuthMethod == oauth.AuthPrivateKeyJWT {
			how += ", authenticating with its own key (private_key_jwt)"
		}
		c.change(Change{Kind: RegisterClient, New: want.ClientName}, "register %s %q with scopes %s%s",
			kind, want.ClientName, strings.Join(want.Scopes, " "), how)
		return nil
	case want == nil:
		c.change(Change{Kind: RemoveClient, Old: c.view.Client.ID}, "remove client %s", c.view.Client.ID)
		grants, err := d.liveGrants(ctx, c.view.Client.ID)
		if err != nil {
			return err
		}
		c.consequence("removes the client: %s", grantsEnd(len(grants)))
		c.plan.Ends = append(c.plan.Ends, Ending{App: c.plan.App, ClientID: c.view.Client.ID, Grants: len(grants)})
		return nil
	}
	before := len(c.plan.Changes)
	c.fields(was, want)
	c.metadata(&was.ClientMetadata, &want.ClientMetadata)
	added, removed := c.list("scopes", was.Scopes, want.Scopes)
	_, uris := c.list("redirectUris", was.RedirectURIs, want.RedirectURIs)
	_, logouts := c.list("postLogoutRedirectUris", was.PostLogoutRedirectURIs, want.PostLogoutRedirectURIs)
	// A list in another order is worth storing, though it has no consequences.
	c.want.clientChanged = len(c.plan.Changes) > before ||
		!slices.Equal(was.Scopes, want.Scopes) || !slices.Equal(was.RedirectURIs, want.RedirectURIs) ||
		!slices.Equal(was.PostLogoutRedirectURIs, want.PostLogoutRedirectURIs) ||
		!sameMetadata(&was.ClientMetadata, &want.ClientMetadata)
	for _, uri := range uris {
		c.consequence("removes %s: sign-ins that use it will fail", uri)
	}
	for _, uri := range logouts {
		c.consequence("removes %s: sign-outs that use it will not come back to the app", uri)
	}
	lost := slices.Contains(grantTypesOf(was), oauth.GrantRefreshToken) &&
		!slices.Contains(grantTypesOf(want), oauth.GrantRefreshToken)
	var grants []storage.Grant
	if len(added)+len(removed) > 0 || lost {
		var err error
		if grants, err = d.liveGrants(ctx, c.view.Client.ID); err != nil {
			return err
		}
	}
	c.metadataConsequences(was, want, len(grants))
	c.scopeConsequences(grants, added, removed)
	return nil
}

// fields compares what is not a list.
func (c *comparison) fields(was, want *plugins.Registration) {
	for _, f := range [...]struct{ name, was, want string }{
		{"clientName", was.ClientName, want.ClientName},
		{"metadata.logoUri", was.LogoURI, want.LogoURI},
		{"metadata.tosUri", was.TOSURI, want.TOSURI},
		{"metadata.policyUri", was.PolicyURI, want.PolicyURI},
	} {
		if f.was != f.want {
			c.change(Change{Kind: UpdateField, Field: f.name, Old: f.was, New: f.want}, "%s: %q -> %q", f.name, f.was, f.want)
		}
	}
	if was.Public == want.Public {
		return
	}
	c.change(Change{Kind: UpdateField, Field: "public", Old: fmt.Sprint(was.Public), New: fmt.Sprint(want.Public)},
		"public: %t -> %t", was.Public, want.Public)
	switch {
	case want.Public && was.HasSecret():
		c.consequence("makes the client public: its secret stops working, and PKCE is required of every sign-in")
	case want.Public:
		c.consequence("makes the client public: it no longer has to sign token requests, and PKCE is required of every sign-in")
	case want.HasSecret():
		c.consequence("makes the client confidential: it gets a secret, and token requests without it will fail")
	default:
		c.consequence("makes the client confidential: token requests that are not signed with its key will fail")
	}
}

// list compares two lists as sets.
func (c *comparison) list(field string, was, want []string) (added, removed []string) {
	for _, item := range want {
		if !slices.Contains(was, item) {
			added = append(added, item)
			c.change(Change{Kind: AddTo, Field: field, New: item}, "%s: add %s", field, item)
		}
	}
	for _, item := range was {
		if !slices.Contains(want, item) {
			removed = append(removed, item)
			c.change(Change{Kind: RemoveFrom, Field: field, Old: item}, "%s: remove %s", field, item)
		}
	}
	return added, removed
}

// scopeConsequences counts what happens to grants: a grant that keeps nothing of what it was given ends, one that keeps
// something narrows.
func (c *comparison) scopeConsequences(grants []storage.Grant, added, removed []string) {
	narrowed, ended := make(map[string]int), 0
	for _, g := range grants {
		lost := slices.DeleteFunc(slices.Clone(g.Scopes),
			func(s string) bool { return slices.Contains(c.want.client.Scopes, s) })
		if len(lost) == len(g.Scopes) {
			ended++
			continue
		}
		for _, scope := range lost {
			narrowed[scope]++
		}
	}
	for _, scope := range removed {
		c.consequence("removes `%s`: %s", scope, count(narrowed[scope], "grant narrows", "grants narrow"))
	}
	if ended > 0 {
		c.consequence("removes all that users allowed: %s", count(ended, "grant ends", "grants end"))
	}
	if len(added) > 0 && len(grants) > 0 {
		c.consequence("adds `%s`: users are asked to allow it at their next sign-in", strings.Join(added, "`, `"))
	}
}

func (d *Deployer) liveGrants(ctx context.Context, clientID string) ([]storage.Grant, error) {
	grants, err := d.store.Grants(ctx, clientID)
	if err != nil {
		return nil, err
	}
	now := d.now()
	return slices.DeleteFunc(grants,
		func(g storage.Grant) bool { return !g.ExpiresAt.IsZero() && g.ExpiresAt.Before(now) }), nil
}
