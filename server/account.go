package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Whoever has signed in sees their own account at /account, and changes it there: plain forms, each of which goes to
// the address of its page and is answered with a redirect to a page that says what has happened. A form is bound to the
// browser and to the session (visitor.hidden, checked by visitor). What changes how somebody signs in needs a sign-in
// of the last minutes, with the second factor if they have one (recent); without it, they are asked for it and led back
// (AuthRequest.Here).

// pathAccount is where people see their account; its pages are below it.
const pathAccount = "/account"

// recentFor is how old a sign-in may be by which somebody changes how they sign in.
const recentFor = 10 * time.Minute

// newChanges bounds how many forms of their account each user sends, and all together: most of them store something,
// and are in the audit log and in a mail, which nobody is to flood.
func newChanges() *budget { return newBudget(0.2, 100, 50, 1000) }

// visitor is somebody at a page of their own account.
type visitor struct {
	ref     sessionRef
	session *storage.Session
	account *storage.Account
	// here is the address of the page below the issuer, with its query.
	here string
	// hidden are the fields of each form on the page.
	hidden []pages.Field
	// request is the pending request that waits for what the visitor does here, as it came with the address; "" for none.
	request string
}

// user is the visitor's record.
func (v *visitor) user() *storage.User { return v.account.User }

// visitorHere is who has signed in in the browser, at a page of their own account. A form was made for this browser and
// this session, and has been parsed. When it reports false the request has been answered: nobody is signed in, and the
// browser goes to sign in and is led back to the page.
func (s *Server) visitorHere(w http.ResponseWriter, r *http.Request) (*visitor, bool) {
	return s.visitor(w, r, AuthRequest{})
}

// recent is [Server.visitorHere] for a page that changes how somebody signs in: they have signed in within the last
// minutes, and with a second factor if they have one.
func (s *Server) recent(w http.ResponseWriter, r *http.Request) (*visitor, bool) {
	age := int64(recentFor / time.Second)
	return s.visitor(w, r, AuthRequest{MaxAge: &age})
}

// visitor is who is there, provided that their sign-in is good enough for a, the request that otherwise begins.
func (s *Server) visitor(w http.ResponseWriter, r *http.Request, a AuthRequest) (*visitor, bool) {
	s.keepLang(w, r)
	a.Here = strings.TrimPrefix(r.URL.Path, s.base)
	query := r.URL.Query()
	query.Del(fieldLang)
	if len(query) > 0 {
		a.Here += "?" + query.Encode()
	}
	a.Started, a.Browser = s.now().UnixNano(), s.browser(w, r)
	v := &visitor{here: a.Here, request: query.Get(fieldRequest)}
	var p storage.Presence
	var err error
	if ref, is := s.session(r); is {
		if p, err = s.store.Presence(r.Context(), ref.ID, ref.User, ""); err == nil && p.Session != nil {
			v.ref, v.session = ref, p.Session
			v.account, err = s.store.Account(r.Context(), ref.User)
		}
	}
	if err != nil {
		s.refuse(w, r, err)
		return nil, false
	}
	if v.account != nil {
		v.asks(&a, s.recentLeast(v.account))
	}
	if v.account == nil || !signedIn(&a, p, s.now()) || !v.proven(&a) {
		s.signInTo(w, r, a)
		return nil, false
	}
	// The token is of the page's kind, so that no form of another kind can be turned into one.
	of := pathAccount + " " + storage.SID(v.ref.ID)
	if r.Method == http.MethodPost {
		err := r.ParseForm()
		if err != nil || !s.checkFormToken(r.PostForm.Get(fieldForm), a.Browser, of) {
			s.refuse(w, r, onPage(pages.ReasonForbidden, invalidRequest(oauth.RuleFormForeign,
				"the form is not one that this server made for this browser")))
			return nil, false
		}
		if !s.changes.spend(v.user().ID, s.now()) {
			s.refuse(w, r, onPage(pages.ReasonTooMany, oauth.Refuse(oauth.CodeTemporarilyUnavailable, oauth.RuleRateLimit,
				"the user has sent very many forms of the account in a short time")))
			return nil, false
		}
	}
	token, err := s.formToken(a.Browser, of)
	if err != nil {
		s.refuse(w, r, err)
		return nil, false
	}
	v.hidden = []pages.Field{{Name: fieldForm, Value: token}}
	return v, true
}

// asks completes the request by which the visitor signs in again: as whom and how, and with a second factor if they
// have one and are about to change how they sign in.
func (v *visitor) asks(a *AuthRequest, needed oauth.Assurance) {
	u := v.user()
	a.Connector = u.Connector
	for _, hint := range []string{u.Username, u.Email} {
		if hint != "" && len(hint) <= maxHint {
			a.LoginHint = hint
		}
	}
	if a.MaxAge != nil {
		for _, least := range []oauth.Assurance{oauth.AssuranceMFA, oauth.AssurancePhishingResistant} {
			if needed > oauth.AssuranceUnknown && least >= needed {
				a.ACRs = append(a.ACRs, least.ACR())
			}
		}
	}
}

// recentLeast is how surely somebody has to prove who they are before they change how they sign in: by a second factor
// if they have one, and as is demanded of them if they can. A user who cannot yet do so sets it up there.
func (s *Server) recentLeast(a *storage.Account) oauth.Assurance {
	can := s.reachable(a.Factors)
	if can < oauth.AssuranceMFA {
		return oauth.AssuranceUnknown
	}
	return min(can, max(oauth.AssuranceMFA, s.cfg.Demands.of(a.User)))
}

// proven reports whether the session has the second factor that a asks for.
func (v *visitor) proven(a *AuthRequest) bool {
	return len(a.ACRs) == 0 || slices.Contains(a.ACRs, oauth.AssuranceOf(v.session.ACR, v.session.AMR).ACR())
}

// signInTo begins a sign-in that no client has asked for, and which leads to the page that a names.
func (s *Server) signInTo(w http.ResponseWriter, r *http.Request, a AuthRequest) {
	sealed, err := s.seal(storage.SealRequest, a)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.goOn(w, r, pathContinue, url.Values{fieldRequest: {sealed}})
}

// accountFrame surrounds a page of the account.
func (s *Server) accountFrame(w http.ResponseWriter, r *http.Request, v *visitor, slip pages.Slip) pages.AccountFrame {
	f := pages.AccountFrame{Frame: pages.Frame{Lang: s.lang(r, "")}, Account: s.base + pathAccount, Slip: slip,
		Action: s.base + v.here, Hidden: slices.Clone(v.hidden)}
	if r.Method != http.MethodPost {
		f.English, f.Japanese, f.Notice = inLang(r, "en"), inLang(r, "ja"), s.notice(w, r)
	}
	return f
}

// at is a time where the visitor is, as far as that is known.
func (v *visitor) at(t time.Time) time.Time {
	zone, err := time.LoadLocation(v.user().Zoneinfo)
	if t.IsZero() || err != nil {
		return t.UTC()
	}
	return t.In(zone)
}

// cookieNotice tells the page after a form what has happened: one of [pages.Notices].
const cookieNotice = "warifu_notice"

// changed leads from a form to the page of the account, which says what has happened, or on with the request that has
// waited for it.
func (s *Server) changed(w http.ResponseWriter, r *http.Request, v *visitor, notice pages.Notice) {
	if v.request != "" {
		s.goOn(w, r, pathContinue, url.Values{fieldRequest: {v.request}})
		return
	}
	s.changedAt(w, pathAccount, notice)
}

// changedAt leads to another page of the account.
func (s *Server) changedAt(w http.ResponseWriter, path string, notice pages.Notice) {
	s.setCookie(w, cookieNotice, string(notice), time.Minute)
	redirect(w, s.endpoint(path))
}

// notice is what the page has to say of the form before it, once.
func (s *Server) notice(w http.ResponseWriter, r *http.Request) pages.Notice {
	n := pages.Notice(s.cookie(r, cookieNotice))
	if n == "" {
		return ""
	}
	s.setCookie(w, cookieNotice, "", -1)
	if !slices.Contains(pages.Notices, n) {
		return ""
	}
	return n
}

// overview is the page of an account.
func (s *Server) overview(w http.ResponseWriter, r *http.Request) {
	v, ok := s.visitorHere(w, r)
	if !ok {
		return
	}
	f := v.account.Factors
	page := pages.Account{
		AccountFrame: s.accountFrame(w, r, v, ""), Person: shownPerson(v.user()), SignOut: s.base + pathLogout,
		Password: v.at(f.Password.At), Profile: s.base + pathProfile, Sessions: s.base + pathSessions, Apps: s.base +
			pathApps,
		Activity: s.base + pathActivity,
		Factors: pages.AccountFactors{TOTP: v.at(f.TOTP.At), Codes: factor.UnusedRecovery(f.Recovery),
			AnyFactors: hasSecond(f),
			TOTPPage:   s.base + pathTOTP, CodesPage: s.base + pathCodes},
	}
	if s.passkeys != nil {
		page.Factors.Passkeys, page.Factors.PasskeysPage = len(f.Passkeys), s.base+pathPasskeys
	}
	if v.user().Managed {
		page.PasswordPage = s.base + pathPassword
	}
	s.render(w, r, http.StatusOK, page)
}
