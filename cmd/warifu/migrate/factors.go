package migrate

import (
	"cmp"
	"strings"

	"github.com/warifu/warifu/server/oauth"
)

// factors are the second factors of Dex, and by default which of them everybody is asked for, in that order.
type factors struct {
	kinds map[string]string // by the id of an authenticator: what it amounts to; "" where it is not for everybody
	chain []*item
}

// takeFactors reads them. What people have set up is in Dex's storage, sealed for Dex.
func (m *migration) takeFactors(s *section) {
	m.factors.kinds = map[string]string{}
	for _, a := range s.sections("authenticators") {
		id, kind := a.text("id"), a.text("type")
		demand := oauth.MFARequired
		if kind != nil && strings.EqualFold(kind.String(), "WebAuthn") {
			demand = oauth.MFAPhishingResistant
		}
		if some := a.item("connectorTypes"); some != nil && len(some.value.Items) > 0 {
			demand = ""
			m.left(some, "an app asks the people of all its connectors for a second factor, or none of them: see "+
				"spec.oauth.access.mfa, and mfa.groups of the configuration")
		}
		if id != nil {
			m.factors.kinds[id.String()] = demand
		}
		a.left("config", "authenticator apps and passkeys show the name of this server")
		a.done()
	}
	if len(m.factors.kinds) > 0 {
		m.note("Second factors that people have at Dex are not migrated: whoever is asked for one sets it up again.")
	}
	m.factors.chain = s.texts("defaultMFAChain")
	s.done()
}

// demand is how surely people have to prove who they are to a client. Dex asks for everything in the chain, so the
// strictest counts. A client with an empty chain is one that asks for nothing.
func (m *migration) demand(s *section) (demand string, from *item) {
	chain, own := m.factors.chain, s.item("mfaChain")
	if own != nil {
		chain = s.texts("mfaChain")
	}
	for _, i := range chain {
		kind, known := m.factors.kinds[i.String()]
		if !known && own != nil {
			m.left(i, "there is no authenticator %q", i.String())
		}
		if kind == oauth.MFAPhishingResistant || demand == "" {
			demand, from = kind, cmp.Or(own, i)
		}
	}
	return demand, from
}
