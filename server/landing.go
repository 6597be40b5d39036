package server

import (
	"net/http"
	"net/url"

	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// landing is the front page of the issuer, where people see who they are here, and go on to their apps.
func (s *Server) landing(w http.ResponseWriter, r *http.Request) {
	s.keepLang(w, r)
	home := s.base + "/"
	page := pages.Landing{Frame: pages.Frame{
		Lang: s.lang(r, ""), English: home + "?" + fieldLang + "=en", Japanese: home + "?" + fieldLang + "=ja"}}
	_, user, err := s.whoIsHere(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if user != nil {
		page.Person, page.SignOut, page.Account = shownPerson(user), s.base+pathLogout, s.base+pathAccount
		page.Apps = s.starts(user)
	} else if len(s.ways) > 0 {
		page.SignIn = s.base + pathHere
	}
	s.render(w, r, http.StatusOK, page)
}

// starts are the apps that a user may use and that have said where a sign-in begins with them.
func (s *Server) starts(u *storage.User) []pages.Start {
	var out []pages.Start
	for _, c := range s.store.StartingClients(func(c *storage.Client) bool { return admits(c, u) }) {
		out = append(out, pages.Start{ClientName: c.ClientName,
			Address: s.base + pathStart + "?" + url.Values{"client_id": {c.ID}}.Encode()})
	}
	return out
}

// signInHere is a sign-in that no client has asked for: it begins at the front page and leads back there.
func (s *Server) signInHere(w http.ResponseWriter, r *http.Request) {
	a := AuthRequest{Started: s.now().UnixNano(), Browser: s.browser(w, r)}
	sealed, err := s.seal(storage.SealRequest, a)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.keepLang(w, r)
	s.advance(w, r, turn{client: &storage.Client{}, request: &a, sealed: sealed})
}
