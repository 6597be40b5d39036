package manifests

import (
	"context"
	"fmt"
	"slices"

	"github.com/warifu/warifu/plugins"
)

// warnOfPeers warns in a plan of trusted peers that are no apps, neither here nor among those that are applied
// along. It is no reason to refuse: of two apps that need each other, one comes first.
func (d *Deployer) warnOfPeers(ctx context.Context, p *Plan, docs []*Document) error {
	client := p.wanted.client
	if client == nil {
		return nil
	}
	for i, name := range client.TrustedPeers {
		if slices.ContainsFunc(docs, func(doc *Document) bool { return doc.App.Metadata.Name == name }) {
			continue
		}
		view, err := d.store.App(ctx, name)
		if err != nil {
			return fmt.Errorf("plan %s: %w", p.App, err)
		}
		if view.App == nil {
			p.Warnings = append(p.Warnings, plugins.Notice{
				Code: "unknown_app", Path: fmt.Sprintf("spec.oauth.trustedPeers[%d]", i),
				Message: name + " is not an app here yet: if somebody applies one of that name, it is trusted",
				Remedy:  "correct the name, or apply that app",
			})
		}
	}
	return nil
}
