package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// What a person does about a device (RFC 8628 section 3.3): a pending request of its own kind, which goes through
// sign-in and consent as an authorization request does, sealed and bound to the browser.
//
// Only a user who has signed in learns anything about a user code: guesses are counted per account. A user who has
// found a device is always asked, whatever they allowed before and however they came here, because the one thing that
// they can tell is whether the device is theirs (section 5.4). What they allow is for this device alone; it is not
// remembered as a consent.

// deviceRequest is what a pending request about a device knows of it, beside client and scopes.
type deviceRequest struct {
	UserCode string `json:"u"`

	// These come with the record, once a user has signed in and the code was found.
	Grant    string    `json:"g,omitempty"`
	Revision int64     `json:"r,omitempty"`
	Created  time.Time `json:"c,omitzero"`
	Expires  time.Time `json:"x,omitzero"`

	// Decision is what was decided.
	Decision storage.DeviceDecision `json:"d,omitempty"`
}

// Guesses of user codes, right ones among them: at most so many for an account in each window of time.
const (
	mostUserCodes  = 20
	userCodeWindow = 15 * time.Minute
)

// fieldUserCode is in the address that a device may show as a whole (RFC 8628 section 3.3.1).
const fieldUserCode = pages.FieldUserCode

// device is the page on which a user code is typed in. A code in the address only fills it in.
func (s *Server) device(w http.ResponseWriter, r *http.Request) {
	s.keepLang(w, r)
	s.showUserCode(w, r, r.URL.Query().Get(fieldUserCode), pages.DeviceFine, 0)
}

// enterUserCode takes the user code and makes a pending request of it.
func (s *Server) enterUserCode(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.refuse(w, r, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleBodyMalformed,
			"the form is not well-formed")))
		return
	}
	held := s.cookie(r, cookieBrowser)
	switch {
	case held == "":
		s.refuse(w, r, onPage(pages.ReasonOtherBrowser, invalidRequest(oauth.RuleOtherBrowser,
			"the browser keeps no cookies, or the form belongs to another browser")))
		return
	case !s.checkFormToken(r.PostForm.Get(fieldForm), hashOf(held), pathDevice):
		s.refuse(w, r, onPage(pages.ReasonForbidden, invalidRequest(oauth.RuleFormForeign,
			"the form is not one that this server made for this browser")))
		return
	}
	typed := r.PostForm.Get(fieldUserCode)
	code, ok := parseUserCode(typed)
	if !ok {
		s.recordSlip(r, oauth.RuleUserCode, "what was typed is not a user code")
		s.showUserCode(w, r, typed, pages.DeviceMalformed, 0)
		return
	}
	s.withRequest(w, r, AuthRequest{
		Prompt: []string{"consent"}, Started: s.now().UnixNano(), Browser: hashOf(held),
		Device: &deviceRequest{UserCode: code}})
}

// withRequest goes on with a pending request that was just made, by GET.
func (s *Server) withRequest(w http.ResponseWriter, r *http.Request, a AuthRequest) {
	sealed, err := s.seal(storage.SealRequest, a)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.backTo(w, r, turn{sealed: sealed})
}

// confirmDevice asks the person who has signed in whether the device is theirs; first it finds out which one they mean.
func (s *Server) confirmDevice(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence) {
	switch d := t.request.Device; {
	case d.Grant == "":
		s.findDevice(w, r, t, p)
	case s.now().After(d.Expires):
		s.recordSlip(r, oauth.RuleUserCode, "the user code has expired")
		s.showUserCode(w, r, "", pages.DeviceExpired, 0)
	default:
		s.showDevice(w, r, t, p)
	}
}

// findDevice looks whose the user code is. Each time counts as a guess, before anything is looked at, so that guesses
// in parallel gain nothing.
func (s *Server) findDevice(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence) {
	a := *t.request
	free, retry, err := s.store.TakeGuess(r.Context(), "user code of "+p.User.ID, mostUserCodes, userCodeWindow)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	typed := shownUserCode(a.Device.UserCode)
	if !free {
		s.recordSlip(r, oauth.RuleRateLimit, "the user has typed too many user codes")
		s.showUserCode(w, r, typed, pages.DeviceTooMany, retry.Sub(s.now()))
		return
	}
	d, err := s.store.Device(r.Context(), a.Device.UserCode)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		s.log.InfoContext(r.Context(), "unknown user code", "user", p.User.ID,
			"address", shownAddress(s.addressOf(r)))
		s.recordSlip(r, oauth.RuleUserCode, "no device waits with this user code")
		s.showUserCode(w, r, typed, pages.DeviceUnknown, 0)
		return
	case err != nil:
		s.refuse(w, r, err)
		return
	case d.Decision != "":
		s.recordSlip(r, oauth.RuleUserCode, "the user code was answered before")
		s.showUserCode(w, r, "", pages.DeviceUsed, 0)
		return
	case s.now().After(d.ExpiresAt):
		s.recordSlip(r, oauth.RuleUserCode, "the user code has expired")
		s.showUserCode(w, r, "", pages.DeviceExpired, 0)
		return
	}
	a.ClientID, a.Scopes, a.Resources = d.ClientID, d.Scopes, d.Resources
	a.Device = &deviceRequest{
		UserCode: a.Device.UserCode, Grant: d.Grant, Revision: d.Revision, Created: d.CreatedAt, Expires: d.ExpiresAt}
	s.withRequest(w, r, a)
}

// stillAsks narrows a request to the scopes that its client may still ask for, and says whether anything is left to ask
// for.
func (s *Server) stillAsks(t *turn) error {
	scopes := s.offered(t.client, t.request.Scopes)
	switch {
	case !t.client.MayUse(oauth.GrantDeviceCode), !s.offers(oauth.GrantDeviceCode):
		return onPage(pages.ReasonInvalidClient, unauthorizedClient(t.client, oauth.GrantDeviceCode))
	case len(scopes) == 0:
		return onPage(pages.ReasonInvalidRequest, oauth.Refuse(oauth.CodeInvalidScope, oauth.RuleScopeWithdrawn,
			"the app may no longer ask for these scopes").
			About(oauth.JoinScopes(t.request.Scopes), "", whereOf(t.client, "scopes", "scope")))
	case len(scopes) == len(t.request.Scopes):
		return nil
	}
	// What is allowed is what was shown, even if the scopes come back meanwhile.
	return s.change(t, func(a *AuthRequest) { a.Scopes = scopes })
}

// decideDevice takes the form of [Server.showDevice]: approve or deny, once.
func (s *Server) decideDevice(w http.ResponseWriter, r *http.Request, t turn, decision string) {
	a, now := t.request, s.now()
	ref, ok := s.session(r)
	if !ok || !shownTo(r, t, ref.User) || a.Device.Grant == "" || a.Device.Decision != "" {
		s.advance(w, r, t)
		return
	}
	p, err := s.store.Presence(r.Context(), ref.ID, ref.User, a.ClientID)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	decides := t
	decides.allowed = true
	if s.next(decides, p).step != stepDone || now.After(a.Device.Expires) {
		s.advance(w, r, t)
		return
	}
	decided := storage.Device{
		Grant: a.Device.Grant, ClientID: a.ClientID, Scopes: a.Scopes, Resources: a.Resources, CreatedAt: a.Device.Created,
		ExpiresAt: a.Device.Expires, Decision: storage.DeviceDenied, UserID: ref.User, Revision: a.Device.Revision,
	}
	if decision == pages.DecisionAllow {
		if err := s.stillAsks(&t); err != nil {
			s.refuse(w, r, err)
			return
		}
		decided.Decision = storage.DeviceApproved
		allowed := s.approvalOf(t, p, a.Device.Grant)
		allowed.Session = "" // of this browser, and not of the device
		if decided.Approval, err = json.Marshal(allowed); err != nil {
			s.refuse(w, r, fmt.Errorf("store what was approved: %w", err))
			return
		}
	}
	err = s.store.DecideDevice(r.Context(), a.Device.UserCode, decided)
	if errors.Is(err, storage.ErrConflict) {
		s.recordSlip(r, oauth.RuleUserCode, "the user code was answered before")
		s.showUserCode(w, r, "", pages.DeviceUsed, 0)
		return
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	action := storage.AuditConsentGiven
	if decided.Decision == storage.DeviceDenied {
		action = storage.AuditConsentDenied
	}
	s.journal.did(r.Context(), s.decided(r, t, ref.User, action))
	done := *a
	done.Device = &deviceRequest{UserCode: a.Device.UserCode, Grant: a.Device.Grant, Decision: decided.Decision}
	s.withRequest(w, r, done)
}

func (s *Server) showUserCode(w http.ResponseWriter, r *http.Request, typed string, problem pages.DeviceProblem,
	retry time.Duration) {
	token, err := s.formToken(s.browser(w, r), pathDevice)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.Device{
		Frame: pages.Frame{Lang: s.lang(r, "")}, Action: s.base + pathDevice,
		Hidden:   []pages.Field{{Name: fieldForm, Value: token}},
		UserCode: oauth.Cut(typed, maxUserCode), Problem: problem, RetryAfter: retry,
	}
	query := url.Values{fieldLang: {"en"}}
	if page.UserCode != "" {
		query.Set(fieldUserCode, page.UserCode)
	}
	page.English = s.base + pathDevice + "?" + query.Encode()
	query.Set(fieldLang, "ja")
	page.Japanese = s.base + pathDevice + "?" + query.Encode()
	s.render(w, r, page.Status(), page)
}

// maxUserCode is what is shown again of what was typed: a code of wide letters with a space after each.
const maxUserCode = 64

func (s *Server) showDevice(w http.ResponseWriter, r *http.Request, t turn, p storage.Presence) {
	if err := s.stillAsks(&t); err != nil {
		s.refuse(w, r, err)
		return
	}
	hidden, err := s.hidden(t, t.shownBy(p.User.ID)...)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	page := pages.ConfirmDevice{
		Frame: s.frame(r, t), App: shownApp(t), Action: s.base + pathConsent, Hidden: hidden,
		UserCode: shownUserCode(t.request.Device.UserCode), Person: shownPerson(p.User),
		Resources: s.shownResources(t.request.Resources), UnusedFor: s.life.RefreshIdle, AtMost: s.life.RefreshAbsolute,
		Late: t.late, Account: s.base + pathApps,
	}
	page.Scopes = s.describe(t.client, t.request.Scopes, p.User, page.Lang)
	s.render(w, r, http.StatusOK, page)
}

func (s *Server) showDeviceDone(w http.ResponseWriter, r *http.Request, t turn) {
	s.render(w, r, http.StatusOK, pages.DeviceDone{
		Frame: s.frame(r, t), App: shownApp(t), Approved: t.request.Device.Decision == storage.DeviceApproved})
}
