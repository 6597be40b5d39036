package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Resource indicators (RFC 8707): whom access tokens are for.
//
// A resource server is known by an identifier: this server itself by its issuer, those of the configuration
// ([ResourceServer.Identifier]), and those that registered clients are ([oauth.Client.Resources]). Everything else is
// invalid_target. Any client may ask for any of them: what it may do there is a matter of scopes. It may use any of the
// spellings that RFC 3986 takes for the same; from there on the identifier is the one that was registered, so that this
// is what the audience of a token says, and what its resource server compares.
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
	own []string // this server itself, its userinfo endpoint, and the resource servers of the configuration
	// forms are what the configuration says of the access tokens of these, see formOf.
	forms map[string]tokenForm
}

func newResources(iss *issuer, servers []ResourceServer) *resources {
	x := &resources{issuer: iss, own: []string{iss.name, iss.name + pathUserinfo}, forms: make(map[string]tokenForm)}
	for _, server := range servers {
		x.own = append(x.own, server.Identifier)
		known, _ := oauth.FindResource(x.own, server.Identifier) // the issuer may be spelled in another way
		x.forms[known] = tokenForm{server.AccessTokenType, server.AccessTokenAlg}
	}
	return x
}

// registered is an identifier for which tokens can be, as it is registered; empty when there is none. It reads memory
// alone.
func (x *resources) registered(identifier string) string {
	if own, found := oauth.FindResource(x.own, identifier); found {
		return own
	}
	return x.store.KnownResource(identifier)
}

// stillKnown are those of resources that were known once for which tokens can still be. What memory does not know, etcd
// is asked about: another replica may have registered it a moment ago.
func (x *resources) stillKnown(ctx context.Context, granted []string) ([]string, error) {
	var left []string
	for _, identifier := range granted {
		known := x.registered(identifier)
		if known == "" {
			var err error
			if known, err = x.store.FindResource(ctx, identifier); err != nil {
				return nil, fmt.Errorf("look for a resource server: %w", err)
			}
		}
		if known != "" {
			left = append(left, known)
		}
	}
	return left, nil
}

// nearestResource is the one of this server's own resources that was probably meant. Those of clients are looked
// through when somebody asks (warifu explain).
func (x *resources) nearestResource(identifier string) string {
	return oauth.Nearest(identifier, oauth.Without(x.own, []string{x.name + pathUserinfo}))
}

// checkResources gives the resource parameters of a request as they are registered; its error is always a refusal.
func (x *resources) checkResources(values []string) ([]string, error) {
	var known []string
	length := 0
	for _, value := range values {
		spelled := x.registered(value)
		if spelled == "" {
			return nil, invalidTarget(oauth.RuleResourceUnknown,
				"no resource server is registered as "+oauth.Printable(oauth.ShownURI(value))).
				About(shownURI(value), x.nearestResource(value), "")
		}
		known, length = append(known, spelled), length+len(spelled)
	}
	if len(values) > maxResources || length > maxResourceBytes {
		return nil, invalidTarget(oauth.RuleResourceTooMany, "too many resources at once")
	}
	return known, nil
}

// audienceOf is for whom a token of these scopes is: those of the resources that were granted which the token request
// asks for, or all of them. A resource server that has gone since gets no more tokens.
func (x *resources) audienceOf(ctx context.Context, granted, scopes, asked []string) (audience, error) {
	if len(granted) == 0 {
		granted = []string{x.name}
	} else if left, err := x.stillKnown(ctx, granted); err != nil {
		return nil, err
	} else if granted = left; len(granted) == 0 {
		return nil, invalidTarget(oauth.RuleResourceWithdrawn, "none of the resources that were granted is left")
	}
	if slices.Contains(scopes, oauth.ScopeOpenID) && !slices.Contains(granted, x.name) {
		granted = append(slices.Clone(granted), x.name+pathUserinfo)
	}
	if len(asked) == 0 {
		return distinct(granted), nil
	}
	var out []string
	for _, identifier := range asked {
		spelled, found := oauth.FindResource(granted, identifier)
		if !found {
			shown := oauth.Printable(oauth.ShownURI(identifier))
			return nil, invalidTarget(oauth.RuleResourceNotGranted, "resource was not granted: "+shown).
				About(shown, oauth.Nearest(identifier, granted), "")
		}
		out = append(out, spelled)
	}
	return distinct(out), nil
}

// clientAudience is for whom a token is that a client gets for itself: whom it asks for (RFC 8707 section 2.2).
func (x *resources) clientAudience(asked []string) (audience, error) {
	known, err := x.checkResources(asked)
	switch {
	case err != nil:
		return nil, err
	case len(known) == 0:
		return audience{x.name}, nil
	}
	return distinct(known), nil
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

// shownResources are resources as a page names them: by the name of the app that runs one, if it is one app alone, and
// by the identifier.
func (x *resources) shownResources(identifiers []string) []pages.Resource {
	var out []pages.Resource
	for _, identifier := range distinct(identifiers) {
		shown := pages.Resource{Identifier: identifier, Here: identifier == x.name || identifier == x.name+pathUserinfo}
		if speakers := x.store.Speakers(identifier); len(speakers) == 1 {
			shown.Name = speakers[0].ClientName
		}
		out = append(out, shown)
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
	return slices.DeleteFunc(slices.Clone(c.Resources()), func(identifier string) bool {
		_, taken := oauth.FindResource(x.own, identifier)
		return taken
	})
}
