package server

import (
	"net/http"
	"slices"

	"github.com/warifu/warifu/server/oauth"
)

// The metadata of resource servers (RFC 9728). A client that was answered 401 by a resource server, and knows nothing
// of it, learns from this document which authorization server to ask, and for which scopes. It is the resource server's
// own document, so clients look for it there: where the header WWW-Authenticate of the 401 says (resource_metadata,
// section 5.1), or else at a well-known address of the same host (section 3.1). The header may name any address; so
// this server publishes the document for every resource server that is registered with it, and one that knows nothing
// but that address, which is in its env, can be found. It may also answer at its well-known address with the same
// document.

// resourceMetadata publishes the document about a resource server, as far as memory knows it.
func (s *Server) resourceMetadata(w http.ResponseWriter, r *http.Request) error {
	asked := r.URL.Query()["resource"]
	if len(asked) != 1 || asked[0] == "" {
		return invalidRequest(oauth.RuleParameterMissing, "resource must name one resource server")
	}
	identifier := s.registered(asked[0])
	if identifier == "" {
		_, err := s.checkResources(asked)
		return &statusError{http.StatusNotFound, refused(err)}
	}
	m := oauth.ResourceMetadata{
		Resource: identifier, AuthorizationServers: []string{s.name}, BearerMethods: []string{"header"},
	}
	if speakers := s.store.Speakers(identifier); len(speakers) == 1 && !slices.Contains(s.resources.own, identifier) {
		c := speakers[0]
		m.Name, m.PolicyURI, m.TOSURI = c.ClientName, c.PolicyURI, c.TOSURI
		m.Scopes = oauth.Without(s.offered(c, c.Scopes), standardScopeNames())
	}
	document, err := newReadyDocument(m)
	if err != nil {
		return err
	}
	document.serve(w, r)
	return nil
}
