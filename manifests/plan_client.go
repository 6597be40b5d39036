package manifests

import (
	"context"
	"slices"
	"strconv"
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
		if former := c.view.Former; former != nil {
			c.consequence("brings back the client id %s, with a new secret; nobody's consent comes back with it", former.ID)
		}
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
	lists := c.fields(was, want)
	added, removed := lists["scopes"].added, lists["scopes"].removed
	// A list in another order is worth storing, though it has no consequences.
	c.want.clientChanged = len(c.plan.Changes) > before || !sameClient(was, want)
	for _, uri := range lists["redirectUris"].removed {
		c.consequence("removes %s: sign-ins that use it will fail", uri)
	}
	for _, uri := range lists["postLogoutRedirectUris"].removed {
		c.consequence("removes %s: sign-outs that use it will not come back to the app", uri)
	}
	lost := slices.Contains(was.RegisteredGrants(), oauth.GrantRefreshToken) &&
		!slices.Contains(want.RegisteredGrants(), oauth.GrantRefreshToken)
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

// difference is what a list gains and loses.
type difference struct{ added, removed []string }

// fields compares two registrations key by key, in the order of the table, and returns how their lists differ.
func (c *comparison) fields(was, want *plugins.Registration) map[string]difference {
	lists := make(map[string]difference)
	for _, f := range oauth.Fields() {
		switch old := f.Of(was).(type) {
		case *[]string:
			added, removed := c.list(f.Key, listOfField(f, was), listOfField(f, want))
			lists[f.Key] = difference{added, removed}
		case *string:
			if f.Kind == oauth.KindKeys {
				c.keys(keyNames(was.JWKS), keyNames(want.JWKS))
			} else if now := *f.Of(want).(*string); *old != now {
				c.change(Change{Kind: UpdateField, Field: f.Key, Old: *old, New: now}, "%s: %q -> %q", f.Key, *old, now)
			}
		default:
			if old, now := plain(f, was), plain(f, want); old != now {
				c.change(Change{Kind: UpdateField, Field: f.Key, Old: old, New: now}, "%s: %s -> %s", f.Key, old, now)
			}
		}
	}
	c.publicConsequences(was, want)
	return lists
}

// listOfField is a list of a registration; grant types that are left out are the usual ones.
func listOfField(f *oauth.Field, r *plugins.Registration) []string {
	if f.Kind == oauth.KindGrants {
		return r.RegisteredGrants()
	}
	return *f.Of(r).(*[]string)
}

// plain is a flag or a number of a registration as a plan writes it.
func plain(f *oauth.Field, r *plugins.Registration) string {
	switch v := f.Of(r).(type) {
	case *bool:
		return strconv.FormatBool(*v)
	case **int64:
		if *v != nil {
			return strconv.FormatInt(**v, 10)
		}
	}
	return "none"
}

// publicConsequences says what follows when a client that keeps a secret becomes one that cannot, or the other way round.
func (c *comparison) publicConsequences(was, want *plugins.Registration) {
	if was.Public == want.Public {
		return
	}
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
