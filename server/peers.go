package server

import (
	"slices"
	"strings"

	"github.com/warifu/warifu/server/clients"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Cross-client trust, as Dex has it: an app may get ID tokens that another app, its peer, takes as well, where the
// manifest of the peer lists it in trustedPeers. It asks for the scope audience:server:client_id:ID, with the peer's
// client id. The audience of the ID token is the peer and the app, and azp is the app (OpenID Connect Core 1.0 section
// 2).
//
// Such a scope is one of the grant's. Whether it still means something is looked up in memory each time it is used, so
// trust that was taken back is gone from the next token on. The peer's own rule about who may use it counts as well: at
// the authorization request it refuses, and later the ID token is not for a peer that its user may not use.

// peer is the client that a scope names, if that one trusts c; otherwise nil. Nobody has to trust themselves. Where the
// two know one user by different subjects there is no trust: the peer would take the sub for somebody else, or learn
// what was to be kept apart.
func (k *catalogue) peer(c *storage.Client, scope string) *storage.Client {
	id, is := strings.CutPrefix(scope, oauth.PeerScope)
	if !is || c.App == "" {
		return nil
	}
	if id == c.ID {
		return c
	}
	if p := k.recall(id); p != nil && slices.Contains(p.TrustedPeers, c.App) && clients.SameSubjects(c, p) {
		return p
	}
	return nil
}

// trustedScopes are those of scopes that name a client which trusts c.
func (k *catalogue) trustedScopes(c *storage.Client, scopes []string) []string {
	var out []string
	for _, scope := range scopes {
		if k.peer(c, scope) != nil {
			out = append(out, scope)
		}
	}
	return out
}

// peersOf are the other clients that an ID token with these scopes is for.
func (k *catalogue) peersOf(c *storage.Client, scopes []string) []*storage.Client {
	var out []*storage.Client
	for _, scope := range scopes {
		if p := k.peer(c, scope); p != nil && p.ID != c.ID {
			out = append(out, p)
		}
	}
	return out
}

// checkPeers finds those of scopes that name clients, all of which must trust c. A client that is not trusted does not
// learn whether there is such a client.
func (k *catalogue) checkPeers(c *storage.Client, scopes []string) ([]string, error) {
	var peers []string
	for _, scope := range scopes {
		if !strings.HasPrefix(scope, oauth.PeerScope) {
			continue
		}
		if k.peer(c, scope) == nil {
			return nil, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopePeer,
				"no client with this id lists the app in spec.oauth.trustedPeers: %s", oauth.Printable(scope)).
				About(oauth.Printable(scope), "", "")
		}
		peers = append(peers, scope)
	}
	if len(peers) > 0 && !slices.Contains(scopes, oauth.ScopeOpenID) {
		return nil, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopePeer,
			"%s is about ID tokens: ask for openid as well", oauth.Printable(peers[0])).
			About(oauth.Printable(peers[0]), oauth.ScopeOpenID, "")
	}
	return peers, nil
}

// firstClosedTo is the first of the clients that a user may not use; nil if there is none.
func firstClosedTo(among []*storage.Client, u *storage.User) *storage.Client {
	for _, c := range among {
		if !admits(c, u) {
			return c
		}
	}
	return nil
}

// openTo are the ids of those peers that a user may use who has signed in so; nil is a user who is not known here.
func openTo(peers []*storage.Client, u *storage.User, acr string, amr []string) audience {
	var ids audience
	for _, p := range peers {
		if oauth.AssuranceOf(acr, amr) < demandOf(p) {
			continue
		}
		if !p.Restricted() || u != nil && admits(p, u) {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// peerNotAdmitted refuses a request of whose peers the user may not use one.
func peerNotAdmitted(p *storage.Client) *oauth.Error {
	return oauth.Refuse(oauth.CodeAccessDenied, oauth.RulePeerNotAdmitted,
		"the user may not use %s, for which the ID token is to be as well", oauth.Printable(p.ID)).
		About(oauth.PeerScope+oauth.Printable(p.ID), "", "")
}
