package server

import (
	"net/http"
	"path"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
)

// nowhere answers what comes to an address where there is nothing.
func (s *Server) nowhere(w http.ResponseWriter, r *http.Request) { s.refuseAddress(w, r, "") }

// refuseAddress answers what comes to an address where there is nothing, or, if there are methods that are allowed, by
// another one: a person with a page, and a program as an endpoint would, with the address that was probably meant.
func (s *Server) refuseAddress(w http.ResponseWriter, r *http.Request, allowed string) {
	reason := pages.ReasonNotFound
	refused := invalidRequest(oauth.RulePathUnknown, "there is nothing at this address; "+s.meant(r.URL.Path))
	if allowed != "" {
		w.Header().Set("Allow", allowed) // RFC 9110 section 15.5.6
		reason, refused = pages.ReasonMethodNotAllowed, invalidRequest(oauth.RuleMethodNotAllowed, "use "+allowed)
	}
	if takesPages(r) {
		s.refuse(w, r, onPage(reason, refused))
		return
	}
	visitOf(r.Context()).endpoint = noEndpoint
	noStore(w)
	w.Header()["Access-Control-Allow-Origin"] = anyOrigin
	s.refuse(w, r, &statusError{reason.Status(), refused})
}

// noEndpoint answers programs where there is no endpoint.
var noEndpoint = &endpoint{}

// takesPages reports whether a person is there: every browser says that it takes HTML when it opens a page.
func takesPages(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	return strings.Contains(accept, "text/html") || strings.Contains(accept, "application/xhtml+xml")
}

// oddPath reports whether a path has a slash too many.
func oddPath(path string) bool { return strings.Contains(path, "//") || strings.HasSuffix(path, "/") }

// meant says which address was probably meant: that of an endpoint, spelled otherwise or without the issuer's path.
func (s *Server) meant(asked string) string {
	clean := strings.TrimPrefix(path.Clean(asked), s.base)
	for _, e := range s.programs {
		if e.path == clean {
			return "the address is " + s.endpoint(e.path)
		}
	}
	return "the endpoints of this issuer are listed at " + s.endpoint(pathDiscovery)
}
