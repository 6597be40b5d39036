package server

import (
	"slices"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// ways are the connectors of the configuration. Whoever is away at the identity provider of one that has gone, or signs
// in by it, gets the sign-in page again.
type ways []way

// way is a connector, with the path of its logo.
type way struct {
	connector.Connector
	logo string
}

// find is the connector of an id.
func (w ways) find(id string) (connector.Connector, bool) {
	for _, way := range w {
		if way.ID == id {
			return way.Connector, true
		}
	}
	return connector.Connector{}, false
}

// lead reports whether one of them leads to an identity provider.
func (w ways) lead() bool {
	return slices.ContainsFunc(w, func(way way) bool { return way.Redirect != nil })
}

func newWays(all []connector.Connector, set *pages.Set) ways {
	made := make(ways, len(all))
	for i, c := range all {
		made[i] = way{Connector: c, logo: set.ServeLogo(c.Logo)}
	}
	return made
}

// Connectors are the ids of those whose users have their accounts since they signed in: all but that of the
// configuration's users.
func (s *Server) Connectors() []string {
	var ids []string
	for _, way := range s.ways {
		if way.ID != connector.StaticName {
			ids = append(ids, way.ID)
		}
	}
	return ids
}

// AccountOf is the id of the account that an identity of one of these has by itself.
func (s *Server) AccountOf(connectorID, upstreamID string) string {
	return s.cfg.Subjects.Of(connectorID, upstreamID)
}

// checkTakes is how long it takes to check a password of the configuration's users, 0 if that is not known.
func (s *Server) checkTakes() time.Duration {
	local, _ := s.ways.find(connector.StaticName)
	if known, is := local.Password.(interface{ Takes() time.Duration }); is {
		return known.Takes()
	}
	return 0
}

// waysTo are the ways to sign in to a client: where its manifest names connectors (spec.oauth.access), those.
func (s *Server) waysTo(c *storage.Client) []way {
	all := s.ways
	if len(c.AccessConnectors) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(w way) bool { return !slices.Contains(c.AccessConnectors, w.ID) })
}

// straight is the way that needs no choice: the one that the request names, or the only one. None is, where the user
// has been on the sign-in page and is back.
func (s *Server) straight(t turn, ways []way) (connector.Connector, bool) {
	if t.request.Choose || t.problem != pages.ProblemNone {
		return connector.Connector{}, false
	}
	for _, w := range ways {
		if w.ID == t.request.Connector || len(ways) == 1 && !s.cfg.AlwaysShowLoginScreen {
			return w.Connector, w.ID != connector.StaticName
		}
	}
	return connector.Connector{}, false
}

// formOf is the connector whose form stands on the sign-in page: the one that is asked for, that of the configuration's
// users, or the only one.
func formOf(t turn, ways []way) (form connector.Connector) {
	for _, w := range ways {
		switch {
		case w.Password == nil:
		case w.ID == t.way.ID:
			return w.Connector
		case w.ID == connector.StaticName, len(ways) == 1:
			form = w.Connector
		}
	}
	return form
}
