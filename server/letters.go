package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/text/language"

	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Mails reports whether this server sends mail.
func (s *Server) Mails() bool { return s.cfg.Mail != nil }

// mailable is the address to which a user gets mail, "" for none: one that an operator has written down, or that a
// connector says is theirs.
func mailable(u *storage.User) string {
	if u.Connector == storage.ManagedConnector || u.EmailVerified {
		return u.Email
	}
	return ""
}

// siteName is what people know this server by.
func (s *Server) siteName() string { return cmp.Or(s.cfg.Branding.Name, s.address.Host) }

// letter begins a letter to a user. lang is the language in which they read this server's pages, for those of whom no
// other is known.
func (s *Server) letter(u *storage.User, kind mail.Kind, lang language.Tag) mail.Letter {
	if own, err := language.Parse(u.Locale); err == nil && u.Locale != "" {
		lang = own
	}
	zone, err := time.LoadLocation(cmp.Or(u.Zoneinfo, "UTC"))
	if err != nil {
		zone = time.UTC
	}
	return mail.Letter{Kind: kind, To: mailable(u), Name: cmp.Or(u.Name, u.GivenName), Lang: lang,
		Site: s.siteName(), Login: cmp.Or(u.Username, u.Email), At: s.now().In(zone)}
}

// notify writes to a user what has happened to their account, if this server sends mail and the user has an address.
// what is the name of the passkey that it is about, "" otherwise. r is the request by which it happened, nil for what
// an operator did. It waits for nothing.
func (s *Server) notify(r *http.Request, u *storage.User, kind mail.Kind, what string) {
	if s.cfg.Mail != nil && mailable(u) != "" {
		s.from(r)(u, kind, what)
	}
}

// from gives what sends a letter about what is done by a request, also after that has been answered.
func (s *Server) from(r *http.Request) func(u *storage.User, kind mail.Kind, what string) {
	lang, address, device := language.English, "", ""
	if r != nil {
		lang, address, device = s.lang(r, ""), shownAddress(s.addressOf(r)), pages.Agent(agentOf(r))
	}
	at := s.now()
	return func(u *storage.User, kind mail.Kind, what string) {
		l := s.letter(u, kind, lang)
		l.Passkey, l.Link, l.Address, l.Device, l.At = what, s.endpoint(pathAccount), address, device, at.In(l.At.Location())
		s.cfg.Mail.Send(l)
	}
}

// notifyLater is notify for where nobody has read the user: that is done behind the request.
func (s *Server) notifyLater(r *http.Request, userID string, kind mail.Kind) {
	if s.cfg.Mail == nil {
		return
	}
	send := s.from(r)
	s.postroom.post(func(ctx context.Context) error {
		u, err := s.store.User(ctx, userID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && (!u.Active() || mailable(u) == "") {
			return nil
		}
		if err != nil {
			return err
		}
		if kind == mail.NewDevice {
			if first, err := s.firstTime(ctx, userID); err != nil || first || !s.postroom.devices.allow(userID, s.now()) {
				return err
			}
		}
		send(u, kind, "")
		return nil
	})
}

// firstTime reports whether a user has signed in but once: every browser is a new one then.
func (s *Server) firstTime(ctx context.Context, userID string) (bool, error) {
	signIns, err := s.store.SignIns(ctx, userID, 0)
	times := 0
	for _, signIn := range signIns {
		if signIn.Failed == "" {
			times++
		}
	}
	return times <= 1, err
}

// Notify writes to a user what an operator has done to their account, see [mail.FactorsRemoved].
func (s *Server) Notify(u *storage.User, kind mail.Kind) { s.notify(nil, u, kind, "") }

// SendLink mails a link of [Server.MakeLink] to its user, and reports whether it is on its way: that takes a mail
// server and an address.
func (s *Server) SendLink(u *storage.User, kind, address string, valid time.Duration) bool {
	return s.sendLink(u, kind, address, valid, language.English)
}

func (s *Server) sendLink(u *storage.User, kind, address string, valid time.Duration, lang language.Tag) bool {
	if s.cfg.Mail == nil || mailable(u) == "" {
		return false
	}
	l := s.letter(u, mail.Invitation, lang)
	if kind == LinkReset {
		l.Kind = mail.Reset
	}
	l.Link, l.Valid, l.Until = address, valid, s.now().Add(valid)
	return s.cfg.Mail.Send(l)
}
