package server

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/warifu/warifu/server/pages"
)

// Response modes: how the browser brings an answer to the client.
const (
	// In the query of the redirect URI (OAuth 2.0 Multiple Response Type Encoding Practices section 2.1).
	modeQuery = "query"
	// In a form that the browser posts there (OAuth 2.0 Form Post Response Mode).
	modeFormPost = "form_post"
)

// replyTo is where a client gets its answers, and how. Without a redirect URI it gets none.
type replyTo struct{ redirectURI, state, mode, uiLocales string }

// respond sends the browser back to the client with parameters, iss among them (RFC 9207).
func (s *Server) respond(w http.ResponseWriter, r *http.Request, to replyTo, params url.Values) {
	s.goToApp(w, r, to.uiLocales, s.back(to, params))
}

// back is the way back to the client with parameters: an address, or what a form posts.
func (s *Server) back(to replyTo, params url.Values) pages.Back {
	if to.state != "" {
		params.Set("state", to.state)
	}
	params.Set("iss", s.cfg.Issuer)
	back := pages.Back{RedirectURI: to.redirectURI}
	if to.mode == modeFormPost {
		for _, name := range []string{"code", "error", "error_description", "state", "iss"} {
			if params.Has(name) {
				back.Fields = append(back.Fields, pages.Field{Name: name, Value: params.Get(name)})
			}
		}
		return back
	}
	back.Link = withQuery(to.redirectURI, params)
	return back
}

// withQuery is an address of a client's with parameters behind those that it has itself. What was registered stays byte
// for byte, and has no fragment.
func withQuery(address string, params url.Values) string {
	before, own, _ := strings.Cut(address, "?")
	if own != "" {
		own += "&"
	}
	return before + "?" + own + params.Encode()
}

// maxLocation is the longest address, in bytes, that a redirect names. A header of this length and the others of a
// reply, cookies among them, fit into the 4 KB in which nginx, as it comes, takes the header of a reply.
const maxLocation = 2 << 10

// goToApp sends the browser to an app: by a redirect when it came by one, with an address that fits into a header, and
// otherwise by a page, see [pages.Onward].
func (s *Server) goToApp(w http.ResponseWriter, r *http.Request, uiLocales string, to pages.Back) {
	if to.Link != "" && len(to.Link) <= maxLocation && !s.afterForm(r) {
		redirect(w, to.Link)
		return
	}
	s.onward(w, r, uiLocales, to)
}

// render answers with a page.
func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, page pages.Page) {
	if err := s.pages.Render(w, status, page); err != nil {
		s.broken(w, r, err)
	}
}

// onward shows the page that brings the browser there by itself.
func (s *Server) onward(w http.ResponseWriter, r *http.Request, uiLocales string, to pages.Back) {
	noStore(w)
	s.render(w, r, http.StatusOK, pages.Onward{Frame: pages.Frame{Lang: s.lang(r, uiLocales)}, Back: to})
}

// afterForm reports whether a form of ours brought the browser here, at once or by redirects.
func (s *Server) afterForm(r *http.Request) bool {
	return r.Method == http.MethodPost || s.pathOf(r) == pathContinue
}

// goOn sends the browser to another page of this server, by GET.
func (s *Server) goOn(w http.ResponseWriter, r *http.Request, path string, query url.Values) {
	address := s.endpoint(path) + "?" + query.Encode()
	if len(address) <= maxLocation {
		redirect(w, address)
		return
	}
	s.onward(w, r, query.Get("ui_locales"), pages.Back{RedirectURI: s.cfg.Issuer, Link: address})
}

// redirect is always a 303: the browser may come from a form, and its password must not be sent on.
func redirect(w http.ResponseWriter, address string) {
	noStore(w)
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusSeeOther)
}
