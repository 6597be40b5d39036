package manifests

import (
	"context"
	"fmt"
	"slices"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// claims are the resource identifiers of apps, each with the app that speaks for it: one that two apps could claim
// would let the second read the tokens that are meant for the first.
type claims struct {
	d      *Deployer
	stored []*storage.Client // nil: not read yet
	fresh  map[string]string // of the plans so far
}

func newClaims(d *Deployer) *claims { return &claims{d: d, fresh: make(map[string]string)} }

// check denies a plan whose client claims a resource identifier that has an owner already.
func (c *claims) check(ctx context.Context, p *Plan) ([]Denial, error) {
	client := p.wanted.client
	if client == nil || len(client.ResourceIdentifiers) == 0 {
		return nil, nil
	}
	if c.stored == nil {
		var err error
		if c.stored, err = c.d.store.Clients(ctx); err != nil {
			return nil, fmt.Errorf("plan %s: %w", p.App, err)
		}
	}
	var denials []Denial
	for i, identifier := range client.ResourceIdentifiers {
		owner := c.owner(p.App, identifier)
		if owner == "" {
			c.fresh[identifier] = "app " + p.App
			continue
		}
		denials = append(denials, ownDenial(p.App, plugins.Notice{
			Code: "resource_taken", Path: fmt.Sprintf("spec.oauth.resourceIdentifiers[%d]", i),
			Message: fmt.Sprintf("%s belongs to %s, which alone may receive tokens for it", identifier, owner),
			Remedy:  "choose another identifier, or remove it from its present owner first",
		}))
	}
	return denials, nil
}

// owner names the other owner of an identifier; empty means that it has none.
func (c *claims) owner(app, identifier string) string {
	switch {
	case identifier == c.d.issuer:
		return "this server itself"
	case slices.Contains(c.d.resources, identifier):
		return "a resource server of the configuration"
	case c.fresh[identifier] != "" && c.fresh[identifier] != "app "+app:
		return c.fresh[identifier]
	}
	for _, other := range c.stored {
		if other.App != app && slices.Contains(other.ResourceIdentifiers, identifier) {
			return other.Owner()
		}
	}
	return ""
}

// checkSector denies a client that names a sector which does not name the client: it would know users by the same sub
// as the apps of that sector. What was registered before is not asked about again, so that a deployment does not
// depend on the address while nothing of it changes.
func (d *Deployer) checkSector(ctx context.Context, app string, was, want *plugins.Registration) ([]Denial, error) {
	if d.sector == nil || want == nil || want.SubjectType != oauth.SubjectPairwise || want.SectorIdentifierURI == "" ||
		was != nil && was.SubjectType == want.SubjectType && was.SectorIdentifierURI == want.SectorIdentifierURI &&
			slices.Equal(was.RedirectURIs, want.RedirectURIs) {
		return nil, nil
	}
	err := d.sector(ctx, want.SectorIdentifierURI, want.RedirectURIs)
	if err == nil || ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return []Denial{ownDenial(app, plugins.Notice{
		Code: "sector_identifier", Path: "spec.oauth.sectorIdentifierUri", Message: err.Error(),
		Remedy: "publish a JSON array with all redirect URIs of the app there",
	})}, nil
}
