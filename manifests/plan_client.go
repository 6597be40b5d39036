package manifests

import (
	"cmp"
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
		how += asWorkload(want)
		if len(want.ForwardAuthHosts) > 0 {
			how += ", sign-ins for " + strings.Join(want.ForwardAuthHosts, ", ")
		}
		as := ""
		if c.want.clientID != "" {
			as = ", as " + c.want.clientID
		}
		if want.OnlyResource() {
			c.change(Change{Kind: RegisterClient, New: want.ClientName}, "register resource server %s%s", want.Resource, as)
		} else {
			c.change(Change{Kind: RegisterClient, New: want.ClientName}, "register %s %q with scopes %s%s%s",
				kind, want.ClientName, strings.Join(want.Scopes, " "), how, as)
		}
		if former := c.view.Former; former != nil && (c.want.clientID == "" || c.want.clientID == former.ID) {
			c.consequence("brings back the client id %s%s; users have to consent again", former.ID, newSecret(want))
		}
		return nil
	case want == nil:
		c.change(Change{Kind: RemoveClient, Old: c.view.Client.ID}, "remove client %s", c.view.Client.ID)
		return d.endsClient(ctx, c, "removes the client")
	case c.want.replaces(c.view.Client):
		c.want.clientChanged = true
		c.change(Change{Kind: UpdateField, Field: "clientId", Old: c.view.Client.ID, New: c.want.clientID},
			"clientId: %q -> %q", c.view.Client.ID, c.want.clientID)
		c.fields(was, want)
		c.consequence("the app is another client then%s; the id %s is not given to any other app", newSecret(want),
			c.view.Client.ID)
		return d.endsClient(ctx, c, "ends the client "+c.view.Client.ID)
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
	grants := 0
	if len(added) > 0 || lost {
		var err error
		if grants, err = d.store.CountGrants(ctx, c.view.Client.ID); err != nil {
			return err
		}
	}
	c.metadataConsequences(was, want, grants)
	if len(removed) > 0 {
		if err := d.narrowed(ctx, c, removed); err != nil {
			return err
		}
	}
	if len(added) > 0 && grants > 0 {
		c.consequence("adds `%s`: users are asked to allow it at their next sign-in", strings.Join(added, "`, `"))
	}
	return nil
}

// endsClient says what ends with the client that an app has.
func (d *Deployer) endsClient(ctx context.Context, c *comparison, how string) error {
	grants, err := d.store.CountGrants(ctx, c.view.Client.ID)
	if err != nil {
		return err
	}
	c.consequence("%s: %s", how, grantsEnd(grants))
	c.plan.Ends = append(c.plan.Ends, Ending{App: c.plan.App, ClientID: c.view.Client.ID, Grants: grants})
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
		case *[]oauth.WorkloadIdentity:
			c.list(f.Key, workloads(was), workloads(want))
		case *string:
			if f.Kind == oauth.KindKeys {
				c.keys(keyNames(was.JWKS), keyNames(want.JWKS))
			} else if now := *f.Of(want).(*string); *old != now {
				text := strconv.Quote(*old) + " -> " + strconv.Quote(now)
				if f.Key == "forwardAuth.user" {
					text = forwardUser(*old) + " -> " + forwardUser(now)
				}
				c.change(Change{Kind: UpdateField, Field: f.Key, Old: *old, New: now}, "%s: %s", f.Key, text)
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

// forwardUser is how a plan names what Remote-User says.
func forwardUser(name string) string { return cmp.Or(name, oauth.ForwardUserSub+" (default)") }

// asWorkload says which workloads are to be a client; nothing if it authenticates otherwise.
func asWorkload(r *plugins.Registration) string {
	if r.TokenEndpointAuthMethod != oauth.AuthWorkload {
		return ""
	}
	return ", without a secret: it authenticates with a token of " + strings.Join(workloads(r), ", or of ")
}

// workloads are those that may be a client, as a plan names them.
func workloads(r *plugins.Registration) []string {
	names := make([]string, len(r.Identities))
	for i, id := range r.Identities {
		names[i] = id.String()
	}
	return names
}

// newSecret says that a client which begins anew has another secret, if it has one.
func newSecret(r *plugins.Registration) string {
	if !r.HasSecret() {
		return ""
	}
	return ", with a new secret"
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

// publicConsequences says what follows when a client that keeps a secret becomes one that cannot, or the other way
// round.
func (c *comparison) publicConsequences(was, want *plugins.Registration) {
	if was.Public == want.Public {
		return
	}
	switch {
	case want.Public && was.HasSecret():
		c.consequence("makes the client public: its secret stops working, and PKCE is required of every sign-in")
	case want.Public && was.TokenEndpointAuthMethod == oauth.AuthWorkload:
		c.consequence("makes the client public: anybody can pose as it, and not its workloads alone; PKCE is required " +
			"of every sign-in")
	case want.Public:
		c.consequence("makes the client public: it no longer has to sign token requests, and PKCE is required " +
			"of every sign-in")
	case want.HasSecret():
		c.consequence("makes the client confidential: it gets a secret, and token requests without it will fail")
	case want.TokenEndpointAuthMethod == oauth.AuthWorkload:
		c.consequence("makes the client confidential: token requests without the token of one of its workloads will fail")
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

// narrowed counts what becomes of grants without the removed scopes: a grant that keeps nothing of what it was given
// ends, one that keeps something narrows. It goes through all grants of the client, page by page.
func (d *Deployer) narrowed(ctx context.Context, c *comparison, removed []string) error {
	narrows, ended, now := make(map[string]int), 0, d.now()
	err := d.store.EachGrant(ctx, c.view.Client.ID, func(g *storage.Grant) error {
		lost := oauth.Without(g.Scopes, c.want.client.Scopes)
		switch {
		case !g.ExpiresAt.IsZero() && g.ExpiresAt.Before(now):
		case len(lost) == len(g.Scopes):
			ended++
		default:
			for _, scope := range lost {
				narrows[scope]++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, scope := range removed {
		c.consequence("removes `%s`: %s", scope, count(narrows[scope], "grant loses it", "grants lose it"))
	}
	if ended > 0 {
		c.consequence("removes all that users allowed: %s", count(ended, "grant ends", "grants end"))
	}
	return nil
}
