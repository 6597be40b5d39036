package server

import (
	"cmp"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// What this server knows of somebody, and when they have signed in.

const (
	pathProfile  = pathAccount + "/profile"
	pathActivity = pathAccount + "/activity"
)

// maxOwnName is how long a name is that people give themselves, in characters.
const maxOwnName = 200

func (s *Server) profilePage(w http.ResponseWriter, r *http.Request) {
	if v, ok := s.visitorHere(w, r); ok {
		s.showProfile(w, r, v, v.user().Name, "")
	}
}

func (s *Server) showProfile(w http.ResponseWriter, r *http.Request, v *visitor, name string, slip pages.Slip) {
	u := v.user()
	page := pages.Profile{AccountFrame: s.accountFrame(w, r, v, slip), Name: name, Language: languageOf(u.Locale),
		Own: u.Managed, UserName: cmp.Or(u.PreferredUsername, u.Username), Email: u.Email, Groups: u.GroupNames()}
	if u.Connector != storage.ManagedConnector {
		page.By = append(page.By, s.wayName(u.Connector))
	}
	links, err := s.store.Links(r.Context(), u.ID)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	for _, l := range links {
		page.By = append(page.By, s.wayName(l.Connector))
	}
	s.render(w, r, slip.Status(), page)
}

// languageOf is the language of the pages that a locale stands for; "" for none of them.
func languageOf(locale string) string {
	lang, _, _ := strings.Cut(strings.ToLower(locale), "-")
	if lang == "en" || lang == "ja" {
		return lang
	}
	return ""
}

// profile takes a name and a language. The language is that of the pages in this browser, too.
func (s *Server) profile(w http.ResponseWriter, r *http.Request) {
	v, ok := s.recent(w, r)
	if !ok {
		return
	}
	name, lang := strings.TrimSpace(r.PostForm.Get(pages.FieldName)), languageOf(r.PostForm.Get(pages.FieldLanguage))
	if !v.user().Managed {
		redirect(w, s.endpoint(pathProfile))
		return
	}
	if !strings.ContainsFunc(name, isVisible) || !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxOwnName ||
		strings.ContainsFunc(name, unicode.IsControl) {
		s.showProfile(w, r, v, oauth.Cut(strings.ToValidUTF8(name, ""), 4*maxOwnName), pages.SlipName)
		return
	}
	err := s.changeFactors(r.Context(), v, func(*storage.Factors) error {
		next := *v.user()
		if !next.Stands(v.session.Term) {
			return storage.ErrNotFound
		}
		next.Name = name
		if languageOf(next.Locale) != lang { // one that says more, such as ja-JP, stays
			next.Locale = lang
		}
		_, err := s.store.PutAccount(r.Context(), next, v.account, nil, s.ownEntry(r, v, storage.AuditUserApplied,
			"name and language"))
		return err
	})
	if errors.Is(err, storage.ErrNotManaged) { // the configuration has them since
		err = storage.ErrNotFound
	}
	if err != nil {
		s.notChanged(w, r, err)
		return
	}
	if lang != "" {
		s.setCookie(w, cookieLang, lang, 365*24*time.Hour)
	}
	s.changedAt(w, pathProfile, pages.NoticeProfile)
}

// isVisible reports whether there is something to see of a character.
func isVisible(c rune) bool { return unicode.IsGraphic(c) && !unicode.IsSpace(c) }

func (s *Server) activityPage(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	list, err := s.store.SignIns(r.Context(), v.user().ID, 0)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Activity{AccountFrame: s.accountFrame(w, r, v, "")}
	for _, e := range list {
		page.SignIns = append(page.SignIns, pages.PastSignIn{At: v.at(e.At), Agent: e.Agent, Address: e.Address,
			Failed: e.Failed != "", Times: max(1, e.Times)})
	}
	s.render(w, r, http.StatusOK, page)
}
