package manifests

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// claims are the resource identifiers of apps, each with the app that speaks for it: one that two apps could claim
// would let the second read the tokens that are meant for the first. So it is with hosts behind forward auth, whose
// sign-ins are those of one app. Client ids that manifests choose are beside them.
type claims struct {
	d      *Deployer
	stored []*storage.Client // nil: not read yet
	fresh  map[string]string // of the plans so far
	ids    map[string]string // client ids of the plans so far
	// workloads of the plans so far, by the name of the identity: one that could be two apps would be which one it says.
	workloads map[string]string
}

func newClaims(d *Deployer) *claims {
	return &claims{d: d, fresh: make(map[string]string), ids: make(map[string]string), workloads: make(map[string]string)}
}

// check denies a plan whose client claims a client id or a resource identifier that has an owner already.
func (c *claims) check(ctx context.Context, p *Plan) ([]Denial, error) {
	client := p.wanted.client
	if client == nil {
		return nil, nil
	}
	denials, err := c.checkID(ctx, p)
	resources, identifiers := client.Resources(), client.Unique()
	if err != nil || len(identifiers)+len(client.Identities) == 0 {
		return denials, err
	}
	if c.stored == nil {
		if c.stored, err = c.d.store.Clients(ctx); err != nil {
			return nil, fmt.Errorf("plan %s: %w", p.App, err)
		}
	}
	denials = append(denials, c.checkIdentities(p.App, client.Identities)...)
	more := len(resources) - len(client.ResourceIdentifiers) // where these begin
	for i, identifier := range identifiers {
		owner := c.owner(p.App, identifier)
		if owner == "" {
			c.fresh[oauth.CanonicalURI(identifier)] = "app " + p.App
			continue
		}
		if i >= len(resources) {
			message := fmt.Sprintf("%s belongs to %s", oauth.ForwardHostOf(identifier), owner)
			if at := i - len(resources); !slices.Contains(client.ForwardAuthHosts, oauth.ForwardHostOf(identifier)) {
				message = fmt.Sprintf("%s: %s; a host belongs to one app, at all its ports", client.ForwardAuthHosts[at], message)
			}
			remedy := "choose another host, or remove it from its present owner first"
			if owner == serverItself {
				remedy = "choose another host"
			}
			denials = append(denials, ownDenial(p.App, plugins.Notice{
				Code: "host_taken", Path: fmt.Sprintf("spec.oauth.forwardAuth.hosts[%d]", i-len(resources)),
				Message: message, Remedy: remedy,
			}))
			continue
		}
		path := "spec.oauth.resource"
		if i >= more {
			path = fmt.Sprintf("spec.oauth.resourceIdentifiers[%d]", i-more)
		}
		denials = append(denials, ownDenial(p.App, plugins.Notice{
			Code: "resource_taken", Path: path,
			Message: fmt.Sprintf("%s belongs to %s, which alone may receive tokens for it", identifier, owner),
			Remedy:  "choose another identifier, or remove it from its present owner first",
		}))
	}
	return denials, nil
}

// checkID denies a client id that is, or was, another's.
func (c *claims) checkID(ctx context.Context, p *Plan) ([]Denial, error) {
	id := p.wanted.clientID
	if id == "" {
		return nil, nil
	}
	owner := c.ids[id]
	c.ids[id] = cmp.Or(owner, "app "+p.App)
	if slices.Contains(c.d.set().reserved, id) {
		owner = "a resource server of the configuration"
	}
	if owner == "" {
		found, err := c.d.store.ClientIDOwner(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("plan %s: %w", p.App, err)
		}
		owner = found.Owner
	}
	if owner == "" || owner == "app "+p.App {
		return nil, nil
	}
	return []Denial{ownDenial(p.App, plugins.Notice{
		Code: "client_id_taken", Path: "spec.oauth.clientId",
		Message: fmt.Sprintf("%s is or was the client id of %s, and is never given to another", id, owner),
		Remedy:  "choose another id, or leave it out to have one made",
	})}, nil
}

// checkIdentities denies workloads that are another app.
func (c *claims) checkIdentities(app string, identities []oauth.WorkloadIdentity) []Denial {
	var denials []Denial
	for i, id := range identities {
		owner := c.workloads[id.Name()]
		for _, other := range c.stored {
			if other.App != app && other.IdentityOf(id.Issuer, id.Subject) != nil {
				owner = other.Owner()
			}
		}
		c.workloads[id.Name()] = cmp.Or(owner, "app "+app)
		if owner == "" || owner == "app "+app {
			continue
		}
		denials = append(denials, ownDenial(app, plugins.Notice{
			Code: "identity_taken", Path: fmt.Sprintf("spec.oauth.identities[%d]", i),
			Message: fmt.Sprintf("%s already acts as %s, and a workload can act as only one app", id.Name(), owner),
			Remedy: "give the app a workload of its own, such as another service account, or take this one out of its " +
				"present app first",
		}))
	}
	return denials
}

// serverItself owns what is the issuer's.
const serverItself = "this server itself"

// owner names the other owner of an identifier; empty means that it has none.
func (c *claims) owner(app, identifier string) string {
	one, fresh := []string{identifier}, c.fresh[oauth.CanonicalURI(identifier)]
	switch {
	case oauth.ShareResource(one, []string{c.d.issuer, forwardIdentifierOf(c.d.issuer)}):
		return serverItself
	case oauth.ShareResource(one, c.d.set().resources):
		return "a resource server of the configuration"
	case fresh != "" && fresh != "app "+app:
		return fresh
	}
	for _, other := range c.stored {
		if other.App != app && oauth.ShareResource(one, other.Unique()) {
			return other.Owner()
		}
	}
	return ""
}

// checkSector denies a client that names a sector which does not name the client: it would know users by the same sub
// as the apps of that sector. What was registered before is not asked about again, so that a deployment does not
// depend on the address while nothing of it changes.
func (d *Deployer) checkSector(ctx context.Context, app string, was, want *plugins.Registration) ([]Denial, error) {
	sector := d.set().sector
	if sector == nil || want == nil || want.SubjectType != oauth.SubjectPairwise || want.SectorIdentifierURI == "" ||
		was != nil && was.SubjectType == want.SubjectType && was.SectorIdentifierURI == want.SectorIdentifierURI &&
			slices.Equal(was.RedirectURIs, want.RedirectURIs) {
		return nil, nil
	}
	err := sector(ctx, want.SectorIdentifierURI, want.RedirectURIs)
	if err == nil || ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return []Denial{ownDenial(app, plugins.Notice{
		Code: "sector_identifier", Path: "spec.oauth.sectorIdentifierUri", Message: err.Error(),
		Remedy: "publish a JSON array with all redirect URIs of the app there",
	})}, nil
}

// forwardIdentifierOf is what a host behind forward auth would be called that is the issuer's: an app there would get
// the cookies of this server.
func forwardIdentifierOf(issuer string) string {
	_, authority, _ := strings.Cut(issuer, "://")
	authority, _, _ = strings.Cut(authority, "/")
	return oauth.ForwardIdentifier(authority)
}
