package server

import (
	"net/http"

	"github.com/warifu/warifu/server/pages"
)

// landing is the front page of the issuer, where people see who they are here.
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
		page.UserName, page.UserEmail, page.SignOut = shownName(user), user.Email, s.base+pathLogout
	}
	s.pages.Render(w, http.StatusOK, page)
}
