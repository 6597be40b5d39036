package server

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// The apps that somebody has allowed something, or that hold something of theirs: each with what that is and when it
// was used last. What is taken back ends at once; the app asks again.

const pathApps = pathAccount + "/apps"

// fieldClient is which app a form is about.
const fieldClient = "client"

// allowed is what a user has allowed a client, and what it holds.
type allowed struct {
	client     string
	scopes     []string
	resources  []string
	since, use time.Time
}

func (s *Server) appsPage(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	all, err := s.allowedBy(r, v)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Apps{AccountFrame: s.accountFrame(w, r, v, "")}
	for _, a := range all {
		shown := pages.AllowedApp{ID: a.client, Since: v.at(a.since), UsedAt: v.at(a.use),
			Resources: s.shownResources(a.resources)}
		c, err := s.clients.Client(r.Context(), a.client)
		switch {
		case err == nil:
			shown.App = appOf(c)
		case errors.Is(err, storage.ErrNotFound): // it is gone, or its document cannot be had now
			c = &storage.Client{ID: a.client}
		default:
			s.refuse(w, r, err)
			return
		}
		shown.ClientName = cmp.Or(c.ClientName, shownClient(a.client, maxShownClient))
		shown.Scopes = s.describe(c, a.scopes, v.user(), page.Lang)
		page.Apps = append(page.Apps, shown)
	}
	s.render(w, r, http.StatusOK, page)
}

// allowedBy is what a visitor has allowed, what was used last first.
func (s *Server) allowedBy(r *http.Request, v *visitor) ([]*allowed, error) {
	consents, err := s.store.ConsentsOf(r.Context(), v.user().ID)
	if err != nil {
		return nil, err
	}
	grants, err := s.store.GrantsOf(r.Context(), v.user().ID)
	if err != nil {
		return nil, err
	}
	by := make(map[string]*allowed)
	var all []*allowed
	of := func(client string) *allowed {
		if by[client] == nil {
			by[client] = &allowed{client: client}
			all = append(all, by[client])
		}
		return by[client]
	}
	for _, c := range consents {
		if !v.user().Stands(c.Term) {
			continue
		}
		a := of(c.ClientID)
		a.scopes, a.since = c.Scopes, c.UpdatedAt
		for _, at := range c.Allowances {
			if at.Resource != "" && !slices.Contains(a.resources, at.Resource) {
				a.resources = append(a.resources, at.Resource)
			}
		}
	}
	for _, g := range grants {
		a := of(g.ClientID)
		a.scopes = append(slices.Clone(a.scopes), oauth.Without(g.Scopes, a.scopes)...)
		if a.since.IsZero() || g.CreatedAt.Before(a.since) {
			a.since = g.CreatedAt
		}
		for _, used := range []time.Time{g.CreatedAt, g.RotatedAt} {
			if used.After(a.use) {
				a.use = used
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *allowed) int { return cmp.Or(b.use.Compare(a.use), b.since.Compare(a.since)) })
	return all, nil
}

// apps takes back what a visitor has allowed an app.
func (s *Server) apps(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	client := r.PostForm.Get(fieldClient)
	why := s.ownEntry(r, v, "", "")
	why.Reason, why.Client = "the user took it back in their account", client
	_, err := s.store.RevokeConsent(r.Context(), client, v.user().ID, why)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		s.refuse(w, r, err)
		return
	}
	s.changedAt(w, pathApps, pages.NoticeApp)
}
