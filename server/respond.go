package server

import (
	"net/http"
	"net/url"

	"github.com/warifu/warifu/server/pages"
)

// Response modes: how the browser brings an answer to the client.
const (
	modeQuery    = "query"     // in the query of the redirect URI (OAuth 2.0 Multiple Response Type Encoding Practices section 2.1)
	modeFormPost = "form_post" // in a form that the browser posts there (OAuth 2.0 Form Post Response Mode)
)

// replyTo is where a client gets its answers, and how. Without a redirect URI it gets none.
type replyTo struct{ redirectURI, state, mode string }

// respond sends the browser back to the client with parameters, iss among them (RFC 9207).
func (s *Server) respond(w http.ResponseWriter, r *http.Request, to replyTo, params url.Values) {
	if to.state != "" {
		params.Set("state", to.state)
	}
	params.Set("iss", s.cfg.Issuer)
	if to.mode == modeFormPost {
		s.respondByForm(w, r, to, params)
		return
	}
	u, err := url.Parse(to.redirectURI)
	if err != nil {
		// It was registered, so it parses.
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += params.Encode()
	noStore(w)
	w.Header().Set("Location", u.String())
	// Always 303: the browser may come from a form, and its password must not be sent on.
	w.WriteHeader(http.StatusSeeOther)
}

// respondByForm shows a page whose form posts itself to the client.
func (s *Server) respondByForm(w http.ResponseWriter, r *http.Request, to replyTo, params url.Values) {
	page := pages.FormPost{Frame: pages.Frame{Lang: s.lang(r, r.URL.Query().Get("ui_locales"))}, RedirectURI: to.redirectURI}
	for _, name := range []string{"code", "error", "error_description", "state", "iss"} {
		if params.Has(name) {
			page.Fields = append(page.Fields, pages.Field{Name: name, Value: params.Get(name)})
		}
	}
	noStore(w)
	s.pages.Render(w, http.StatusOK, page)
}
