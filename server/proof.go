package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// From a proof to a session.
//
//	password, connector ─ arrive ─┬────────────────────────────────────────────────┬─ begin ─ session
//	                              └─ half ─ factor page ─ code, passkey ─┐         │
//	session that does not do ──────────────── factor page ─ code, passkey ─ finishProof ─ raise
//	passkey alone ───────────────────────────────────────────────────────┘
//
// Where a first proof does not do, because the user has an authenticator app, nothing is written: what was proven waits
// as a half in a sealed cookie, for this browser and this request. It opens nothing but the factor page. The second
// proof begins the session, in one transaction that compares what the user has to prove who they are, and moves on what
// was used of it: so nothing counts twice, and nothing that was removed a moment ago counts at all.

// proof is what somebody has proven of who they are. As a half it waits in the browser.
type proof struct {
	User string `json:"u"`
	// Term is the user's when they proved it: whatever ends it ends this as well.
	Term int64 `json:"t"`
	// Way is the connector by which they came; "" if nothing is proven yet, or a session says it.
	Way string `json:"w,omitempty"`
	// Known is the hash of that by which the browser knows them again, "" for nothing.
	Known    string   `json:"k,omitempty"`
	AMR      []string `json:"m,omitempty"`
	ACR      string   `json:"a,omitempty"` // as an identity provider told it
	AuthTime int64    `json:"d,omitempty"` // Unix nanoseconds

	Request string `json:"r"` // of which request it is a half, see requestMark
	Ends    int64  `json:"e"` // Unix milliseconds

	session string // the id of the session that goes on with more; "" when one begins
	with    string // what was proven last, for the audit log, where the methods do not say it
}

const (
	cookieHalf = "warifu_half"
	// halfFor is how long somebody may take for the second factor.
	halfFor = 10 * time.Minute
	// maxHalf is the longest value of its cookie.
	maxHalf = 3500
)

// proofBy is what somebody has proven who has come by a connector: when and how, as far as the connector knows it.
func (s *Server) proofBy(way connector.Connector, u *storage.User, who connector.Identity, knownBy string) proof {
	now := s.now()
	p := proof{User: u.ID, Term: u.Term, Way: way.ID, AMR: who.AMR, ACR: who.ACR, AuthTime: who.AuthTime.UnixNano()}
	if who.AuthTime.IsZero() || who.AuthTime.After(now) {
		p.AuthTime = now.UnixNano()
	}
	if knownBy != "" {
		p.Known = hashOf(knownBy)
	}
	return p
}

func (p proof) authTime() time.Time { return time.Unix(0, p.AuthTime).UTC() }

// first reports whether something was proven before: by a password, a connector, or what a session says.
func (p proof) first() bool { return p.Way != "" || p.session != "" }

// requestMark tells a pending request from others, for as long as it is not renewed.
func requestMark(a *AuthRequest) string {
	return hashOf(strings.Join([]string{a.Browser, strconv.FormatInt(a.Started, 10), a.ClientID, a.RedirectURI, a.State},
		"\n"))
}

// keepHalf has the browser keep what was proven, until the rest is.
func (k *cookies) keepHalf(w http.ResponseWriter, a *AuthRequest, p proof) error {
	p.Request, p.Ends = requestMark(a), k.now().Add(halfFor).UnixMilli()
	sealed, err := k.seal(storage.SealHalf, p)
	if err != nil {
		return err
	}
	k.setCookie(w, cookieHalf, sealed, halfFor)
	return nil
}

// keptHalf is what was proven in this browser for a request, if it is still good for it.
func (k *cookies) keptHalf(r *http.Request, a *AuthRequest) (p proof, is bool) {
	sealed := k.longCookie(r, cookieHalf, maxHalf)
	if sealed == "" || k.open(storage.SealHalf, sealed, &p) != nil ||
		p.Request != requestMark(a) || k.now().UnixMilli() >= p.Ends {
		return proof{}, false
	}
	fresh := storage.Presence{Session: &storage.Session{AuthTime: p.authTime()}, User: &storage.User{}}
	return p, signedIn(a, fresh, k.now())
}

// dropHalf has the browser forget it.
func (k *cookies) dropHalf(w http.ResponseWriter, r *http.Request) {
	if len(r.CookiesNamed(k.cookieName(cookieHalf))) > 0 {
		k.setCookie(w, cookieHalf, "", -1)
	}
}

// proven is what is proven of who is at the browser, for a request: a half, or what the session there says.
func (s *Server) proven(r *http.Request, t turn) (p proof, is bool, err error) {
	if p, is = s.keptHalf(r, t.request); is {
		return p, true, nil
	}
	ref, is := s.session(r)
	if !is {
		return proof{}, false, nil
	}
	there, err := s.store.Presence(r.Context(), ref.ID, ref.User, t.client.ID)
	if err != nil || there.Session == nil {
		return proof{}, false, err
	}
	return proofOf(there.Session, ref.ID), true, nil
}

// proofOf is what a session says, which an id opens.
func proofOf(session *storage.Session, id string) proof {
	return proof{User: session.UserID, Term: session.Term, AMR: session.AMR, ACR: session.ACR,
		AuthTime: session.AuthTime.UnixNano(), session: id}
}

// accountOf reads the account of somebody who has proven something. [storage.ErrNotFound]: it no longer counts.
func (s *Server) accountOf(ctx context.Context, p proof) (*storage.Account, error) {
	a, err := s.store.Account(ctx, p.User)
	if err == nil && !a.User.Stands(p.Term) {
		return nil, storage.ErrNotFound
	}
	return a, err
}

// asksSecond reports whether somebody who has proven something has to prove more before there is a session, whatever
// they want to do: who has an authenticator app is always asked for its code.
func asksSecond(f storage.Factors) bool { return len(f.TOTP.Secret) > 0 }

// asksMore is asksSecond for a request: others are asked for what that takes, if they have it.
func (s *Server) asksMore(t turn, a *storage.Account, p proof) bool {
	least := s.lacks(t, a.User, p)
	return asksSecond(a.Factors) || least > 0 && s.reachable(a.Factors) >= least
}

// finishProof begins the session of somebody who has proven who they are by these methods (RFC 8176), or raises the one
// that they have, and goes on with the request. leaves are their factors as that leaves them, at the revision at which
// they were read, and uses is what it uses up, such as a challenge. All of it is one transaction.
//
// Without an error the reply is written; with one, nothing has happened, and nothing is written. It is
// [storage.ErrConflict] if the factors have changed since they were read: read again, and decide anew.
// [storage.ErrSpent]: what it uses was used before. [storage.ErrNotFound]: the session to be raised has ended.
func (s *Server) finishProof(w http.ResponseWriter, r *http.Request, t turn, p proof, amr []string,
	leaves *storage.Factors, uses storage.Once) error {
	methods := slices.Clone(amr)
	if p.first() && !slices.Contains(methods, oauth.AMRMultiple) {
		methods = append(methods, oauth.AMRMultiple)
	}
	var err error
	if p.session != "" {
		if err = s.raise(r, t, p, methods, leaves, uses); err == nil {
			s.keepProved(w, r, p.User)
		}
	} else {
		if p.AuthTime == 0 {
			p.AuthTime = s.now().UnixNano()
		}
		for _, method := range methods {
			if !slices.Contains(p.AMR, method) {
				p.AMR = append(slices.Clone(p.AMR), method)
			}
		}
		err = s.begin(w, r, t, p, true, leaves, uses)
	}
	if err != nil {
		return err
	}
	if p.first() && slices.Contains(amr, oauth.AMRPossession) {
		s.cfg.Metrics.SecondFactor(factorPasskey, countedOK)
	}
	s.dropHalf(w, r)
	s.goOnSignedIn(w, r, t)
	return nil
}

// begin starts a session under a new id, in the place of the one that the browser had: that of the same user goes on,
// that of another ends. proved says that they have given a factor of this server beside a password, or a passkey.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, t turn, p proof, proved bool, leaves *storage.Factors,
	uses storage.Once) error {
	now, from := s.now().UTC(), shownAddress(s.addressOf(r))
	session := storage.Session{UserID: p.User, AuthTime: p.authTime(), AMR: p.AMR, ACR: p.ACR,
		ExpiresAt: now.Add(s.life.Session), Term: p.Term, Since: now, Address: from, Agent: agentOf(r),
		Uses: uses, Leaves: leaves}
	entry := s.proofEntry(r, t, p, p.AMR, storage.AuditSignIn)
	var told []storage.AuditEntry
	if s.journal.people.spend(entry.Actor, s.now()) {
		told = append(told, entry)
	}
	old, _ := s.session(r)
	id, err := s.store.CreateSession(r.Context(), session, old.ID, told...)
	if err != nil {
		return err
	}
	s.countSession(p)
	for _, e := range told {
		s.journal.line(r.Context(), e)
	}
	if old.ID != "" {
		s.wakeSender() // another user's session may have ended
	}
	if p.Known != "" && !s.known(r).knowsHash(p.Known) {
		s.notifyLater(r, p.User, mail.NewDevice)
	}
	if err := s.keepKnown(w, r, p.Known, proved); err != nil {
		return err
	}
	return s.setSession(w, sessionRef{ID: id, User: p.User})
}

// keepProved keeps in a browser that knows a user that they have given a second factor there.
func (s *Server) keepProved(w http.ResponseWriter, r *http.Request, userID string) {
	if !s.known(r).knows(userID) {
		return
	}
	if err := s.keepKnown(w, r, hashOf(userID), true); err != nil {
		s.log.WarnContext(r.Context(), "the cookie by which this browser is recognized cannot be set", "error", err)
	}
}

// raise adds to a session what its user has proven. A passkey proves anew who they are; a code does not.
func (s *Server) raise(r *http.Request, t turn, p proof, methods []string, leaves *storage.Factors,
	uses storage.Once) error {
	raised := storage.Raise{ID: p.session, UserID: p.User, AMR: methods, Leaves: leaves, Uses: uses}
	if slices.Contains(methods, oauth.AMRPossession) {
		raised.AuthTime = s.now().UTC()
	}
	entry := s.proofEntry(r, t, p, methods, storage.AuditSessionRaised)
	if s.journal.people.spend(entry.Actor, s.now()) {
		raised.Audit = append(raised.Audit, entry)
	}
	if err := s.store.RaiseSession(r.Context(), raised); err != nil {
		return err
	}
	for _, e := range raised.Audit {
		s.journal.line(r.Context(), e)
	}
	return nil
}

// proofEntry is the entry of the audit log for what somebody has proven.
func (s *Server) proofEntry(r *http.Request, t turn, p proof, methods []string, action string) storage.AuditEntry {
	var by []string
	if p.Way != "" {
		by = append(by, "connector "+p.Way)
	}
	switch {
	case p.with != "":
		by = append(by, p.with)
	case slices.Contains(methods, oauth.AMRPossession):
		by = append(by, "passkey")
	case slices.Contains(methods, oauth.AMROTP) && slices.Contains(methods, oauth.AMRMultiple):
		by = append(by, "authenticator app")
	}
	return storage.AuditEntry{Actor: storage.UserActor(p.User), Action: action, App: t.client.App, Client: t.client.ID,
		Address: shownAddress(s.addressOf(r)), Detail: strings.Join(by, ", ")}
}

// maxAgent is how much is kept of what a browser calls itself, in bytes.
const maxAgent = 300

// agentOf is what a browser calls itself, by which its user may tell one sign-in from another.
func agentOf(r *http.Request) string {
	agent := strings.Join(strings.Fields(r.UserAgent()), " ")
	if !utf8.ValidString(agent) {
		return ""
	}
	return oauth.Cut(agent, maxAgent)
}

// notProven tells why a second proof led to nothing: what it is a part of no longer counts, so the request goes on
// without it; or a fault.
func (s *Server) notProven(w http.ResponseWriter, r *http.Request, t turn, err error) {
	if !errors.Is(err, storage.ErrNotFound) {
		s.refuse(w, r, err)
		return
	}
	s.dropHalf(w, r)
	s.goOnSignedIn(w, r, t)
}
