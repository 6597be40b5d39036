package server

import (
	"slices"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Resource indicators (RFC 8707): whom access tokens are for.
//
// A resource server is known by an identifier: this server itself by its issuer, those of the configuration
// ([ResourceServer.Identifier]), and those that registered clients speak for (ResourceIdentifiers). Everything else is
// invalid_target. Any client may ask for any of them: what it may do there is a matter of scopes.
//
// The resource parameters of an authorization request say for whom tokens may be issued; those of a token request which
// of these its token is for. Without them it is for all that were granted. Without any at all the audience is the
// issuer, as it is for every API that knows nothing of resources.
//
// The scope openid is a wish to call userinfo. So a grant of it with resources that leave the issuer out also has the
// userinfo endpoint as a resource, and a library that asks for openid and a resource, and sends no resource to the
// token endpoint, can call userinfo as it does anywhere. It is the endpoint's address and not the issuer, because the
// resource servers of a token could use it at each other (RFC 9068 section 5): at userinfo they learn no more than the
// token's scopes, whereas the issuer is the audience of all the APIs that ask for no resource. A client that wants a
// token for one resource alone says so in the token request.

// Most resources of a request, and how long they may be in all, so that a sealed request still fits into a URL.
const (
	maxResources     = 8
	maxResourceBytes = 1024
)

// resources are the resource servers for which tokens can be.
type resources struct {
	*issuer
	servers []ResourceServer // of the configuration
}

// knowsResource reports whether tokens can be for that identifier. It reads memory alone.
func (x *resources) knowsResource(identifier string) bool {
	return identifier == x.name || identifier == x.name+pathUserinfo ||
		slices.ContainsFunc(x.servers, func(r ResourceServer) bool { return r.Identifier == identifier }) ||
		x.store.KnowsResource(identifier)
}

// checkResources checks the resource parameters of a request of c; its error is always a refusal.
func (x *resources) checkResources(c *storage.Client, values []string) error {
	length := 0
	for _, value := range values {
		if !x.knowsResource(value) {
			return invalidTarget(oauth.RuleResourceUnknown, "no resource server is registered as "+printable(value)).About(printable(value), "", "")
		}
		length += len(value)
	}
	if len(values) > maxResources || length > maxResourceBytes {
		return invalidTarget(oauth.RuleResourceTooMany, "too many resources at once")
	}
	return nil
}

// audienceOf is for whom a token of these scopes is: those of the resources that were granted which the token request
// asks for, or all of them.
func (x *resources) audienceOf(granted, scopes, asked []string) (audience, error) {
	if len(granted) == 0 {
		granted = []string{x.name}
	}
	if slices.Contains(scopes, oauth.ScopeOpenID) && !slices.Contains(granted, x.name) {
		granted = append(slices.Clone(granted), x.name+pathUserinfo)
	}
	if len(asked) == 0 {
		return distinct(granted), nil
	}
	if beyond := oauth.Without(asked, granted); len(beyond) > 0 {
		return nil, invalidTarget(oauth.RuleResourceNotGranted, "resource was not granted: "+printable(beyond[0])).About(printable(beyond[0]), oauth.Nearest(beyond[0], granted), "")
	}
	return distinct(asked), nil
}

// clientAudience is for whom a token is that a client gets for itself: whom it asks for (RFC 8707 section 2.2).
func (x *resources) clientAudience(c *storage.Client, asked []string) (audience, error) {
	if err := x.checkResources(c, asked); err != nil {
		return nil, err
	}
	if len(asked) == 0 {
		return audience{x.name}, nil
	}
	return distinct(asked), nil
}

// distinct is each of values once.
func distinct(values []string) audience {
	var out audience
	for _, value := range values {
		if !slices.Contains(out, value) {
			out = append(out, value)
		}
	}
	return out
}

func invalidTarget(rule, description string) *oauth.Error {
	return oauth.Refuse(oauth.CodeInvalidTarget, rule, "%s", description)
}

// forUserinfo reports whether a token of that audience is for the userinfo endpoint: one for the issuer is, or for the
// endpoint.
func (x *resources) forUserinfo(a audience) bool {
	return slices.Contains(a, x.name) || slices.Contains(a, x.name+pathUserinfo)
}

// speaksFor are the resource servers that a client speaks for. An app cannot make itself one of this server's own
// endpoints, nor one of the configuration's.
func (x *resources) speaksFor(c *storage.Client) []string {
	taken := []string{x.name, x.name + pathUserinfo}
	for _, r := range x.servers {
		taken = append(taken, r.Identifier)
	}
	return oauth.Without(c.ResourceIdentifiers, taken)
}
