package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Whoever asks for a new password learns nothing by it: the request looks nobody up. It puts what was typed into a
// queue in memory, and is answered with the same bytes, in the same time, whoever that was. The name is looked up, and
// the mail written, behind it. What an address may ask for is limited in the request, what comes to one account behind
// it. None of that writes to storage, but an entry of the audit log for each mail.

const (
	// From one address, and from all together: a burst, then one in each period.
	forgotBurst, allForgotBurst   = 10, 300
	forgotPeriod, allForgotPeriod = time.Minute, 200 * time.Millisecond
	// To one account, of each kind.
	lettersBurst, lettersPeriod = 3, 20 * time.Minute
	// mostPostings wait to be worked off.
	mostPostings = 500
	// postingTime is how long one may take, and postingTries how often it is tried when storage does not answer.
	postingTime, postingTries = 10 * time.Second, 3
	// postingWait is for all who ask meanwhile to have their answers.
	postingWait = time.Second
)

// postroom does behind requests what they must not show by the time that they take. It waits a while before each: the
// work would also show in how long the next request takes, which the same stranger may have sent.
type postroom struct {
	postings chan posting
	// wait is how long to wait, and as much again at most.
	wait time.Duration
	// asking limits how often an address asks, resets and devices how often an account is written to.
	asking          *budget
	resets, devices letterLimit
}

// posting is to be done then, and not before.
type posting struct {
	do  func(context.Context) error
	due time.Time
}

// letterLimit limits how often each account is sent letters that strangers can bring about.
type letterLimit struct{ *recent[*rate.Limiter] }

func (l letterLimit) allow(userID string, now time.Time) (free bool) {
	l.use(userID, func(limit **rate.Limiter) {
		if *limit == nil {
			*limit = rate.NewLimiter(rate.Every(lettersPeriod), lettersBurst)
		}
		free = (*limit).AllowN(now, 1)
	})
	return free
}

func newPostroom() *postroom {
	return &postroom{postings: make(chan posting, mostPostings), wait: postingWait,
		asking: newBudget(rate.Every(forgotPeriod), forgotBurst, rate.Every(allForgotPeriod), allForgotBurst),
		resets: letterLimit{newRecent[*rate.Limiter](10_000)}, devices: letterLimit{newRecent[*rate.Limiter](10_000)}}
}

// post takes something to be done, and reports whether there was room.
func (p *postroom) post(do func(context.Context) error) bool {
	select {
	case p.postings <- posting{do, time.Now().Add(p.wait + rand.N(p.wait+1))}:
		return true
	default:
		return false
	}
}

// runPostroom does what was posted, one after the other, until ctx ends. What waits then is lost: whoever asked for a
// mail asks again.
func (s *Server) runPostroom(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			if n := len(s.postroom.postings); n > 0 {
				s.log.WarnContext(ctx, "e-mails were not written before the server stopped", "mails", n)
			}
			return
		case p := <-s.postroom.postings:
			storage.Pause(ctx, time.Until(p.due))
			var err error
			for range postingTries {
				trying, cancel := context.WithTimeout(ctx, postingTime)
				err = p.do(trying)
				if cancel(); err == nil || ctx.Err() != nil {
					break
				}
				storage.Pause(ctx, time.Second)
			}
			if err != nil && ctx.Err() == nil {
				s.log.ErrorContext(ctx, "a mail could not be written", "error", err)
			}
		}
	}
}

// resets reports whether people get new passwords by mail.
func (s *Server) resets() bool {
	_, is := s.ways.find(connector.StaticName)
	return is && s.cfg.Mail != nil
}

// fieldSent is in the address of the page that says that a mail is under way.
const fieldSent = "sent"

// forgot is the page for those who have forgotten their password.
func (s *Server) forgot(w http.ResponseWriter, r *http.Request) {
	if !s.resets() {
		s.nowhere(w, r)
		return
	}
	s.keepLang(w, r)
	s.showForgot(w, r, pages.Forgot{Sent: r.URL.Query().Get(fieldSent) != ""}, r.URL.Query().Get(fieldRequest))
}

// showForgot completes the page. request is the pending request that waits meanwhile, as the address had it: it is only
// led back to.
func (s *Server) showForgot(w http.ResponseWriter, r *http.Request, page pages.Forgot, request string) {
	token, err := s.formToken(s.browser(w, r), pathForgot)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	query := url.Values{}
	page.Back, page.Action = s.base+pathHere, s.base+pathForgot
	page.Hidden = []pages.Field{{Name: fieldForm, Value: token}}
	if request != "" {
		query.Set(fieldRequest, request)
		page.Back = s.base + pathContinue + "?" + query.Encode()
		page.Hidden = append(page.Hidden, pages.Field{Name: fieldRequest, Value: request})
	}
	if page.Sent {
		query.Set(fieldSent, "yes")
	}
	address := func(lang string) string {
		query.Set(fieldLang, lang)
		return page.Action + "?" + query.Encode()
	}
	page.Frame = pages.Frame{Lang: s.lang(r, ""), English: address("en"), Japanese: address("ja")}
	noStore(w)
	s.render(w, r, page.Status(), page)
}

// askReset takes the form of that page.
func (s *Server) askReset(w http.ResponseWriter, r *http.Request) {
	if !s.resets() {
		s.nowhere(w, r)
		return
	}
	if err := r.ParseForm(); err != nil {
		s.refuse(w, r, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleBodyMalformed,
			"the form is not well-formed")))
		return
	}
	held := s.cookie(r, cookieBrowser)
	if held == "" || !s.checkFormToken(r.PostForm.Get(fieldForm), hashOf(held), pathForgot) {
		s.refuse(w, r, onPage(pages.ReasonForbidden, invalidRequest(oauth.RuleFormForeign,
			"the form is not one that this server made for this browser")))
		return
	}
	login := strings.Clone(oauth.Cut(r.PostForm.Get(pages.FieldLogin), maxHint+1)) // the body does not wait in the queue
	request, lang := r.PostForm.Get(fieldRequest), s.lang(r, "")
	from := s.addressOf(r)
	if !s.postroom.asking.spend(networkOf(from).String(), s.now()) {
		s.recordSlip(r, oauth.RuleRateLimit, "too many mails were asked for from this address, or by all")
		s.showForgot(w, r, pages.Forgot{Problem: pages.ForgotTooMany, RetryAfter: forgotPeriod}, request)
		return
	}
	room := s.postroom.post(func(ctx context.Context) error {
		return s.sendReset(ctx, login, shownAddress(from), lang)
	})
	if !room {
		s.recordSlip(r, oauth.RuleRateLimit, "more mails are asked for at this moment than the server writes")
		s.showForgot(w, r, pages.Forgot{Problem: pages.ForgotBusy, RetryAfter: forgotPeriod}, request)
		return
	}
	query := url.Values{fieldSent: {"yes"}}
	if request != "" {
		query.Set(fieldRequest, request)
	}
	s.goOn(w, r, pathForgot, query)
}

// sendReset mails a link to the user who signs in with a name, if there is one who can set a password.
func (s *Server) sendReset(ctx context.Context, login, from string, lang language.Tag) error {
	if len(login) > maxHint {
		return nil
	}
	a, err := s.store.AccountByLogin(ctx, login)
	if errors.Is(err, storage.ErrNotFound) || err == nil && (!a.User.Active() || mailable(a.User) == "") {
		return nil
	}
	if err != nil {
		return err
	}
	entry := linkMade(a.User, LinkReset, LinkLife)
	entry.Actor, entry.Address = storage.ActorStranger, from
	if !s.postroom.resets.allow(a.User.ID, s.now()) {
		entry.Outcome, entry.Reason = storage.OutcomeRefused, "too many mails to this user"
		s.journal.did(ctx, entry)
		return nil
	}
	address, err := s.link(a, LinkReset, LinkLife)
	if err != nil {
		return err
	}
	s.journal.did(ctx, entry)
	s.sendLink(a.User, LinkReset, address, LinkLife, lang)
	return nil
}
