package server

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Passkeys, as people make, name and remove them for themselves.
//
// The page's form has the challenge for a new one, made after a recent sign-in. That the passkey is there, that the
// session has proven it, and that the challenge is used up is one transaction.

// pathPasskeys is where people keep their passkeys.
const pathPasskeys = pathAccount + "/passkeys"

// maxPasskeyName is in characters.
const maxPasskeyName = 64

// Verdicts on a new passkey, beside [factor.PasskeyError].
var (
	errPasskeyLate = errors.New("the question is too old, or the user has got another handle since")
	errPasskeyFull = errors.New("the user has as many passkeys as there may be")
)

// passkeysPage shows the passkeys that somebody has, and offers to make one.
func (s *Server) passkeysPage(w http.ResponseWriter, r *http.Request) {
	if v, ok := s.recent(w, r); ok {
		s.showPasskeys(w, r, v, "")
	}
}

func (s *Server) showPasskeys(w http.ResponseWriter, r *http.Request, v *visitor, slip pages.Slip) {
	u, f := v.user(), v.account.Factors
	page := pages.Passkeys{AccountFrame: s.accountFrame(w, r, v, slip), Full: len(f.Passkeys) >= storage.MaxPasskeys}
	if u.Connector != storage.ManagedConnector {
		way, _ := s.ways.find(u.Connector)
		page.After = cmp.Or(way.Name, u.Connector)
	}
	for _, k := range f.Passkeys {
		page.Passkeys = append(page.Passkeys, pages.ShownPasskey{Key: base64.RawURLEncoding.EncodeToString(k.ID),
			Name: factor.PasskeyName(k), At: v.at(k.At), UsedAt: v.at(k.UsedAt), Synced: k.Synced})
	}
	if !page.Full {
		q := askedPasskey{For: wishEnrol, Browser: s.browser(w, r), User: u.ID, Handle: f.Handle}
		if q.Handle == nil {
			q.Handle = storage.NewHandle()
		}
		var err error
		page.Passkey, err = s.passkeyForm(q, recentFor, v.here, v.hidden, func(challenge []byte) (string, error) {
			return s.passkeys.CreationOptions(challenge, passkeyHolder(u, q.Handle, f))
		})
		if err == nil && f.Handle != nil {
			page.Passkey.Accepted, err = s.passkeys.Accepted(f.Handle, f.Passkeys)
		}
		if err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	s.render(w, r, slip.Status(), page)
}

// passkeyHolder is a user as authenticators are told of them.
func passkeyHolder(u *storage.User, handle []byte, f storage.Factors) factor.Holder {
	const most = 64 // bytes, of which every authenticator can keep so many (Web Authentication section 5.4.1)
	name := cmp.Or(u.Email, u.Username, u.Name, u.ID)
	return factor.Holder{Handle: handle, Name: oauth.Cut(name, most), DisplayName: oauth.Cut(cmp.Or(u.Name, name), most),
		Passkeys: f.Passkeys}
}

// changePasskeys takes the forms of that page.
func (s *Server) changePasskeys(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	decision := r.PostForm.Get(pages.FieldDecision)
	if decision != pages.DecisionRename && decision != pages.DecisionRemove {
		s.addPasskey(w, r, v) // the page has asked for a recent sign-in, and what it has sealed says so
		return
	}
	if v, ok = s.recent(w, r); !ok {
		return
	}
	id, err := base64.RawURLEncoding.DecodeString(r.PostForm.Get(pages.FieldKey))
	if err != nil || !slices.ContainsFunc(v.account.Factors.Passkeys, isPasskey(id)) { // it is gone already
		redirect(w, s.endpoint(v.here))
		return
	}
	if decision == pages.DecisionRename {
		s.renamePasskey(w, r, v, id, tidyName(r.PostForm.Get(pages.FieldName)))
	} else {
		s.removePasskey(w, r, v, id)
	}
}

func isPasskey(id []byte) func(storage.Passkey) bool {
	return func(k storage.Passkey) bool { return bytes.Equal(k.ID, id) }
}

// tidyName is a name on one line, of printed characters and not too many.
func tidyName(name string) string {
	name = strings.Map(func(c rune) rune {
		if c == unicode.ReplacementChar || !unicode.IsPrint(c) && !unicode.IsSpace(c) {
			return -1
		}
		return c
	}, strings.ToValidUTF8(name, ""))
	runes := []rune(strings.Join(strings.Fields(name), " "))
	return strings.TrimSpace(string(runes[:min(len(runes), maxPasskeyName)]))
}

// addPasskey takes the answer of a new passkey.
func (s *Server) addPasskey(w http.ResponseWriter, r *http.Request, v *visitor) {
	q, is, err := s.answeredPasskey(r, s.browser(w, r), wishEnrol)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	err = errPasskeyLate
	if is && q.User == v.user().ID {
		err = s.changeFactors(r.Context(), v, func(f *storage.Factors) error { return s.enrolPasskey(r, v, q, f) })
	}
	var verdict *factor.PasskeyError
	var slip pages.Slip
	switch {
	case err == nil && v.request != "":
		s.changed(w, r, v, pages.NoticePasskey)
		return
	case err == nil:
		s.changedAt(w, pathPasskeys, pages.NoticePasskey)
		return
	case errors.Is(err, errPasskeyLate), errors.Is(err, storage.ErrSpent):
		slip = pages.SlipPasskeyLate
	case errors.Is(err, errPasskeyFull):
		slip = pages.SlipPasskeyFull
	case errors.As(err, &verdict):
		slip = pages.SlipPasskey
	default:
		s.notChanged(w, r, err)
		return
	}
	s.recordSlip(r, oauth.RulePasskeyWrong, err.Error())
	if v, is = s.recent(w, r); is {
		s.showPasskeys(w, r, v, slip)
	}
}

// enrolPasskey checks the answer of a new passkey and stores it, if the factors are still as f says. The session has
// proven it by that: whoever holds it has just shown so.
func (s *Server) enrolPasskey(r *http.Request, v *visitor, q askedPasskey, f *storage.Factors) error {
	if f.Handle != nil && !bytes.Equal(f.Handle, q.Handle) || v.unproven(*f) {
		return errPasskeyLate
	}
	if len(f.Passkeys) >= storage.MaxPasskeys {
		return errPasskeyFull
	}
	made, err := s.passkeys.Create(q.Challenge, passkeyHolder(v.user(), q.Handle, *f), r.PostForm.Get(pages.FieldAnswer),
		s.now())
	if err != nil {
		return err
	}
	f.Handle, f.Passkeys = q.Handle, append(f.Passkeys, made)
	err = s.store.RaiseSession(r.Context(), storage.Raise{ID: v.ref.ID, UserID: v.user().ID,
		AMR:  []string{oauth.AMRPossession, oauth.AMRPresence, oauth.AMRMultiple},
		Uses: q.usesUp(), Leaves: f, Audit: []storage.AuditEntry{s.passkeyEntry(r, v, storage.AuditFactorAdded, made)}})
	if err == nil {
		s.notify(r, v.user(), mail.PasskeyAdded, factor.PasskeyName(made))
	}
	return err
}

// passkeyEntry is the entry of the audit log about a passkey. What its user calls it is not told.
func (s *Server) passkeyEntry(r *http.Request, v *visitor, action string, k storage.Passkey) storage.AuditEntry {
	detail := "passkey"
	if by := factor.PasskeyName(storage.Passkey{AAGUID: k.AAGUID}); by != "" {
		detail += " of " + by
	}
	return s.ownEntry(r, v, action, detail)
}

func (s *Server) renamePasskey(w http.ResponseWriter, r *http.Request, v *visitor, id []byte, name string) {
	err := s.changeFactors(r.Context(), v, func(f *storage.Factors) error {
		i := slices.IndexFunc(f.Passkeys, isPasskey(id))
		if i < 0 || f.Passkeys[i].Name == name {
			return nil
		}
		f.Passkeys[i].Name = name
		return s.store.RaiseSession(r.Context(), storage.Raise{ID: v.ref.ID, UserID: v.user().ID, Leaves: f})
	})
	if err != nil {
		s.notChanged(w, r, err)
		return
	}
	s.changedAt(w, v.here, pages.NoticePasskeyRenamed)
}

func (s *Server) removePasskey(w http.ResponseWriter, r *http.Request, v *visitor, id []byte) {
	err := s.changeFactors(r.Context(), v, func(f *storage.Factors) error {
		i := slices.IndexFunc(f.Passkeys, isPasskey(id))
		if i < 0 {
			return nil
		}
		name, entry := factor.PasskeyName(f.Passkeys[i]), s.passkeyEntry(r, v, storage.AuditFactorRemoved, f.Passkeys[i])
		f.Passkeys = slices.Delete(f.Passkeys, i, i+1)
		dropRecovery(f)
		if !s.mayRemoveFactor(v.user(), *f) {
			return errLastFactor
		}
		err := s.store.RaiseSession(r.Context(), storage.Raise{ID: v.ref.ID, UserID: v.user().ID, Leaves: f,
			Audit: []storage.AuditEntry{entry}})
		if err == nil {
			s.notify(r, v.user(), mail.PasskeyRemoved, name)
		}
		return err
	})
	if errors.Is(err, errLastFactor) {
		s.showPasskeys(w, r, v, pages.SlipLast)
		return
	}
	if err != nil {
		s.notChanged(w, r, err)
		return
	}
	s.changedAt(w, v.here, pages.NoticePasskeyRemoved)
}
