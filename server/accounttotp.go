package server

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Authenticator apps and recovery codes, as people set them up for themselves.
//
// The secret of an app travels sealed in the form until a code confirms that the app has it: nothing is stored before.
// With the first second factor come recovery codes, in the same transaction, and are shown in the answer to the form:
// nowhere is kept what they are.

const (
	pathTOTP  = pathAccount + "/totp"
	pathCodes = pathAccount + "/codes"
)

// Fields of the forms of the account beside those of package pages.
const (
	fieldSecret = "secret"
	fieldAnew   = "anew" // in the address of a page: there is one already, and it is to be replaced
)

// pendingFor is how long somebody may take to set up what a page has shown.
const pendingFor = time.Hour

// mostLabel is how much of a name, in bytes, an authenticator app is told.
const mostLabel = 64

// pendingSecret is what an authenticator app is about to share with this server, or recovery codes that are to be
// downloaded, sealed.
type pendingSecret struct {
	Secret []byte   `json:"s,omitempty"`
	Codes  []string `json:"c,omitempty"`
	User   string   `json:"u"`
	SID    string   `json:"i"`
	Ends   int64    `json:"e"` // Unix milliseconds
}

func (s *Server) sealSecret(v *visitor, p pendingSecret) (string, error) {
	p.User, p.SID, p.Ends = v.user().ID, v.session.SID, s.now().Add(pendingFor).UnixMilli()
	return s.seal(storage.SealSecret, p)
}

// openSecret is what a form brings back; false when it is too old, or another session's.
func (s *Server) openSecret(v *visitor, sealed string) (p pendingSecret, is bool, err error) {
	err = s.open(storage.SealSecret, sealed, &p)
	if errors.Is(err, storage.ErrNotFound) {
		return p, false, nil
	}
	return p, err == nil && p.User == v.user().ID && p.SID == v.session.SID && s.now().UnixMilli() < p.Ends, err
}

// totpPage shows the authenticator app that somebody has, or the secret for a new one.
func (s *Server) totpPage(w http.ResponseWriter, r *http.Request) {
	v, ok := s.recent(w, r)
	if !ok {
		return
	}
	if len(v.account.Factors.TOTP.Secret) > 0 && !r.URL.Query().Has(fieldAnew) {
		s.showTOTP(w, r, v, "")
		return
	}
	s.offerTOTP(w, r, v, factor.NewTOTP(), "")
}

// showTOTP shows the authenticator app that somebody has.
func (s *Server) showTOTP(w http.ResponseWriter, r *http.Request, v *visitor, slip pages.Slip) {
	t := v.account.Factors.TOTP
	page := pages.TOTP{AccountFrame: s.accountFrame(w, r, v, slip), Since: v.at(t.At), UsedAt: v.at(t.UsedAt),
		Anew: s.base + pathTOTP + "?" + fieldAnew + "=1"}
	s.render(w, r, slip.Status(), page)
}

// offerTOTP shows a secret, and asks for a code that is made of it.
func (s *Server) offerTOTP(w http.ResponseWriter, r *http.Request, v *visitor, secret []byte, slip pages.Slip) {
	sealed, err := s.sealSecret(v, pendingSecret{Secret: secret})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.TOTP{AccountFrame: s.accountFrame(w, r, v, slip), Replaces: len(v.account.Factors.TOTP.Secret) > 0,
		Secret: factor.TOTPText(secret), URI: factor.TOTPURI(secret, oauth.Cut(s.pages.Name(), mostLabel),
			oauth.Cut(shownPerson(v.user()).Who(), mostLabel))}
	page.Hidden = append(page.Hidden, pages.Field{Name: fieldSecret, Value: sealed})
	s.render(w, r, slip.Status(), page)
}

// totp takes the forms of that page.
func (s *Server) totp(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	switch r.PostForm.Get(pages.FieldDecision) {
	case pages.DecisionRemove:
		if v, ok = s.recent(w, r); ok {
			s.removeTOTP(w, r, v)
		}
	default: // the page has asked for a recent sign-in, and what it has sealed says so
		s.confirmTOTP(w, r, v)
	}
}

func (s *Server) confirmTOTP(w http.ResponseWriter, r *http.Request, v *visitor) {
	p, is, err := s.openSecret(v, r.PostForm.Get(fieldSecret))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if !is || len(p.Secret) == 0 {
		s.recordSlip(r, oauth.RuleRequestExpired, "the page was open for too long")
		if v, is = s.recent(w, r); is {
			s.offerTOTP(w, r, v, factor.NewTOTP(), pages.SlipLate)
		}
		return
	}
	now := s.now()
	confirmed, right := factor.CheckTOTP(storage.TOTP{Secret: p.Secret}, r.PostForm.Get(pages.FieldCode), now)
	if !right {
		s.recordSlip(r, oauth.RuleFactorWrong, "the code is not one of the secret that was shown")
		s.offerTOTP(w, r, v, p.Secret, pages.SlipCode)
		return
	}
	confirmed.At = now.UTC()
	var codes []string
	again := false
	err = s.changeFactors(r.Context(), v, func(f *storage.Factors) error {
		if again = bytes.Equal(f.TOTP.Secret, p.Secret); again { // the steps that it has taken since stay taken
			return nil
		}
		if v.unproven(*f) {
			return errUnproven
		}
		f.TOTP = confirmed
		codes = codes[:0]
		if factor.UnusedRecovery(f.Recovery) == 0 {
			codes, f.Recovery = factor.NewRecoveryCodes()
		}
		entries := []storage.AuditEntry{s.ownEntry(r, v, storage.AuditFactorAdded, "authenticator app")}
		if len(codes) > 0 {
			entries = append(entries, s.ownEntry(r, v, storage.AuditFactorAdded, "recovery codes"))
		}
		// The code is a second factor: the session has proven it by this.
		return s.store.RaiseSession(r.Context(), storage.Raise{ID: v.ref.ID, UserID: v.user().ID,
			AMR: []string{oauth.AMROTP, oauth.AMRMultiple}, Leaves: f, Audit: entries})
	})
	if err == nil {
		s.keepProved(w, r, v.user().ID)
	}
	switch {
	case errors.Is(err, errUnproven):
		if v, is = s.recent(w, r); is {
			s.offerTOTP(w, r, v, factor.NewTOTP(), pages.SlipLate)
		}
	case err != nil:
		s.notChanged(w, r, err)
	case len(codes) > 0:
		s.notify(r, v.user(), mail.TOTPAdded, "")
		s.showCodes(w, r, v, codes, true)
	default:
		if !again {
			s.notify(r, v.user(), mail.TOTPAdded, "")
		}
		s.changed(w, r, v, pages.NoticeTOTP)
	}
}

func (s *Server) removeTOTP(w http.ResponseWriter, r *http.Request, v *visitor) {
	err := s.changeFactors(r.Context(), v, func(f *storage.Factors) error {
		f.TOTP = storage.TOTP{}
		dropRecovery(f)
		if !s.mayRemoveFactor(v.user(), *f) {
			return errLastFactor
		}
		return s.store.RaiseSession(r.Context(), storage.Raise{ID: v.ref.ID, UserID: v.user().ID, Leaves: f,
			Audit: []storage.AuditEntry{s.ownEntry(r, v, storage.AuditFactorRemoved, "authenticator app")}})
	})
	if errors.Is(err, errLastFactor) {
		s.showTOTP(w, r, v, pages.SlipLast)
		return
	}
	if err != nil {
		s.notChanged(w, r, err)
		return
	}
	s.notify(r, v.user(), mail.TOTPRemoved, "")
	s.changedAt(w, pathAccount, pages.NoticeTOTPRemoved)
}

// errLastFactor: somebody would be left without a factor that suffices for what is demanded of them.
var errLastFactor = errors.New("the last factor of those that are demanded")

// dropRecovery takes the recovery codes away with the last factor that they stand for.
func dropRecovery(f *storage.Factors) {
	if len(f.TOTP.Secret) == 0 && len(f.Passkeys) == 0 {
		f.Recovery = nil
	}
}

// hasSecond reports whether somebody has a second factor.
func hasSecond(f storage.Factors) bool { return len(f.TOTP.Secret) > 0 || len(f.Passkeys) > 0 }

// codesPage says how many recovery codes are left.
func (s *Server) codesPage(w http.ResponseWriter, r *http.Request) {
	v, ok := s.recent(w, r)
	if !ok {
		return
	}
	f := v.account.Factors
	s.render(w, r, http.StatusOK, pages.Codes{AccountFrame: s.accountFrame(w, r, v, ""),
		Left: factor.UnusedRecovery(f.Recovery), Useless: !hasSecond(f)})
}

// codes makes new recovery codes, or gives those that were just made as a file.
func (s *Server) codes(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	if r.PostForm.Get(pages.FieldDecision) == pages.DecisionDownload {
		p, is, err := s.openSecret(v, r.PostForm.Get(fieldSecret))
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		if is && len(p.Codes) > 0 {
			if err := s.pages.Download(w, s.lang(r, ""), shownPerson(v.user()).Who(), p.Codes); err != nil {
				s.broken(w, r, err)
			}
			return
		}
	}
	if v, ok = s.recent(w, r); !ok {
		return
	}
	if r.PostForm.Get(pages.FieldDecision) != pages.DecisionMake || !hasSecond(v.account.Factors) {
		redirect(w, s.endpoint(pathCodes))
		return
	}
	var codes []string
	err := s.changeFactors(r.Context(), v, func(f *storage.Factors) error {
		codes, f.Recovery = factor.NewRecoveryCodes()
		return s.store.RaiseSession(r.Context(), storage.Raise{ID: v.ref.ID, UserID: v.user().ID, Leaves: f,
			Audit: []storage.AuditEntry{s.ownEntry(r, v, storage.AuditFactorAdded, "recovery codes")}})
	})
	if err != nil {
		s.notChanged(w, r, err)
		return
	}
	s.notify(r, v.user(), mail.RecoveryMade, "")
	s.showCodes(w, r, v, codes, false)
}

// showCodes shows recovery codes, which nobody can see again. first says that they come with the authenticator app that
// was just set up.
func (s *Server) showCodes(w http.ResponseWriter, r *http.Request, v *visitor, codes []string, first bool) {
	sealed, err := s.sealSecret(v, pendingSecret{Codes: codes})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Codes{AccountFrame: s.accountFrame(w, r, v, ""), Codes: codes, Left: len(codes),
		Continue: s.base + pathAccount}
	page.Action = s.base + pathCodes
	if first {
		page.Notice = pages.NoticeTOTP
	}
	if v.request != "" {
		page.Continue, page.Pending = s.base+pathContinue+"?"+url.Values{fieldRequest: {v.request}}.Encode(), true
	}
	page.Hidden = append(page.Hidden, pages.Field{Name: fieldSecret, Value: sealed})
	s.render(w, r, http.StatusOK, page)
}

// changeFactors has change decide on the visitor's factors, and store what it has decided; again when somebody else was
// faster.
func (s *Server) changeFactors(ctx context.Context, v *visitor, change func(f *storage.Factors) error) error {
	return storage.Again(8, func() (again bool, err error) {
		next := v.account.Factors.Clone()
		if err = change(&next); !errors.Is(err, storage.ErrConflict) {
			return false, err
		}
		v.account, err = s.store.Account(ctx, v.user().ID)
		return err == nil, err
	})
}

// notChanged answers a form that has changed nothing: the session has ended meanwhile, or there was a fault.
func (s *Server) notChanged(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, storage.ErrNotFound) {
		redirect(w, s.endpoint(pathAccount)) // where they sign in again
		return
	}
	s.refuse(w, r, err)
}

// ownEntry is the entry of the audit log for what a visitor does with their own account.
func (s *Server) ownEntry(r *http.Request, v *visitor, action, detail string) storage.AuditEntry {
	return storage.AuditEntry{Actor: storage.UserActor(v.user().ID), Action: action, Detail: detail,
		Address: shownAddress(s.addressOf(r))}
}
