package mail

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/mail"
	"net/textproto"
	"strings"
	"sync"
	"time"

	smtp "github.com/wneessen/go-mail"

	"github.com/warifu/warifu/server/metrics"
)

const (
	// mostQueued letters wait. What comes beyond is refused: a mail server that is away for long must not fill memory.
	mostQueued = 1000
	// workers send at once.
	workers = 2
	// sendTime is how long one attempt may take.
	sendTime = 30 * time.Second
	// keep is how long it is tried to send a letter that does not say itself when it becomes pointless.
	keep = 6 * time.Hour
	// lastCall is how long a sender goes on that is about to end.
	lastCall = 5 * time.Second
)

// lost is what metrics call a letter that nobody gets.
const lost = "lost"

// usualPauses are [Options.Pauses] unless something else is said.
var usualPauses = []time.Duration{5 * time.Second, 20 * time.Second, time.Minute, 3 * time.Minute, 10 * time.Minute}

// Sender brings letters to the mail server. It is safe for concurrent use.
type Sender struct {
	Options
	from *mail.Address
	wake chan struct{} // says to workers that there may be something to do

	mu      sync.Mutex // guards the rest
	next    *Sender    // that has taken over; nil: none
	waiting []*posted
	away    bool // the last attempt has not reached the mail server, or was not taken
}

// posted is a letter on its way.
type posted struct {
	Letter
	due   time.Time // of the next attempt
	tries int
}

// Send takes a letter, and reports whether it did: there may be no room, or no such address. It waits for nothing.
func (s *Sender) Send(l Letter) bool {
	now := s.Now()
	if l.Until.IsZero() {
		l.Until = now.Add(keep)
	}
	if _, is := addressee(l.To); !is {
		s.Metrics.Letter(lost)
		s.Logger.Warn("an e-mail was not sent: the user's e-mail address is not valid", "mail", l.Kind)
		return false
	}
	if !s.enqueue(&posted{Letter: l, due: now}) {
		s.Metrics.Letter(lost)
		s.Logger.Warn("an e-mail was not sent: too many are waiting for the mail server",
			"mail", l.Kind, "waiting", mostQueued)
		return false
	}
	return true
}

// HandOver gives what waits, and what comes back from an attempt that is under way, to another sender. Letters that are
// sent by this one from now on go there as well. The context of Run may end then.
func (s *Sender) HandOver(next *Sender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
	for _, p := range s.waiting {
		p.due = s.Now() // another mail server may take it at once
		if !next.enqueue(p) {
			s.Metrics.Letter(lost)
			s.Logger.Warn("an e-mail was not sent: too many are waiting for the mail server",
				"mail", p.Kind, "waiting", mostQueued)
		}
	}
	s.waiting = nil
}

// Tell is a [metrics.Source].
func (s *Sender) Tell(tell metrics.Tell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tell(metrics.LettersWaiting, float64(len(s.waiting)))
}

func (s *Sender) enqueue(p *posted) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		p.due = s.Now()
		return s.next.enqueue(p)
	}
	if len(s.waiting) >= mostQueued {
		return false
	}
	s.waiting = append(s.waiting, p)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// Run sends what is in the queue until ctx ends. What waits then has one more attempt, as far as there is time.
func (s *Sender) Run(ctx context.Context) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { s.work(ctx) })
	}
	all.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCall)
	defer cancel()
	unsent := 0
	for p, _ := s.take(true); p != nil; p, _ = s.take(true) {
		if last.Err() != nil || s.post(last, p.Letter) != nil {
			s.Metrics.Letter(lost)
			unsent++
		} else {
			s.Metrics.Letter("sent")
		}
	}
	if unsent > 0 {
		s.Logger.Warn("e-mails were not sent before the server stopped", "mails", unsent)
	}
}

func (s *Sender) work(ctx context.Context) {
	for ctx.Err() == nil {
		p, wait := s.take(false)
		if p != nil {
			s.deliver(ctx, p)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take is the letter whose time has come, out of the queue, or how long there is none. With any, whatever waits.
func (s *Sender) take(any bool) (*posted, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wait, first := s.Now(), time.Minute, -1
	for i, p := range s.waiting {
		if (any || !p.due.After(now)) && (first < 0 || p.due.Before(s.waiting[first].due)) {
			first = i
		}
		wait = min(wait, max(p.due.Sub(now), 0))
	}
	if first < 0 {
		return nil, wait
	}
	p := s.waiting[first]
	s.waiting = append(s.waiting[:first], s.waiting[first+1:]...)
	return p, 0
}

// deliver makes one attempt, and sees to the next.
func (s *Sender) deliver(ctx context.Context, p *posted) {
	if s.Now().After(p.Until) {
		s.Metrics.Letter(lost)
		s.Logger.Warn("an e-mail was not sent: the mail server did not accept it in time",
			"mail", p.Kind, "attempts", p.tries)
		return
	}
	err := s.post(ctx, p.Letter)
	first := s.changed(err != nil)
	if err == nil {
		s.Metrics.Letter("sent")
		if first {
			s.Logger.Info("the mail server accepts mail again")
		}
		return
	}
	if final(err) {
		s.Metrics.Letter(lost)
		s.Logger.Warn("an e-mail was not sent", "mail", p.Kind, "error", describe(err))
		return
	}
	if first {
		s.Logger.Warn("mail cannot be sent; trying again", "mail", p.Kind, "error", describe(err))
	}
	p.due = s.Now().Add(s.Pauses[min(p.tries, len(s.Pauses)-1)])
	p.tries++
	s.Metrics.Letter("again")
	if !s.enqueue(p) {
		s.Metrics.Letter(lost)
		s.Logger.Warn("an e-mail was not sent: too many are waiting for the mail server",
			"mail", p.Kind, "waiting", mostQueued)
	}
}

// changed notes whether mail can be sent, and reports whether that is new.
func (s *Sender) changed(away bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.away
	s.away = away
	return was != away
}

// post brings a letter to the mail server.
func (s *Sender) post(ctx context.Context, l Letter) error {
	message, err := s.message(l)
	if err != nil {
		return &permanentError{err}
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	if err := client.DialAndSendWithContext(ctx, message); err != nil && !message.IsDelivered() {
		return err
	}
	return nil
}

// client makes the connection's settings anew each time: the password may have changed.
func (s *Sender) client() (*smtp.Client, error) {
	options := []smtp.Option{
		smtp.WithPort(s.Port), smtp.WithTimeout(sendTime), smtp.WithHELO(s.Helo),
		smtp.WithTLSConfig(&tls.Config{ServerName: s.Host, RootCAs: s.CAs, MinVersion: tls.VersionTLS12}),
	}
	switch s.TLS {
	case TLSImplicit:
		options = append(options, smtp.WithSSL())
	case TLSNone:
		options = append(options, smtp.WithTLSPolicy(smtp.NoTLS))
	default:
		options = append(options, smtp.WithTLSPolicy(smtp.TLSMandatory))
	}
	if s.Username != "" {
		password, err := s.Password()
		if err != nil {
			return nil, fmt.Errorf("password of the mail server: %w", err)
		}
		options = append(options, smtp.WithUsername(s.Username), smtp.WithPassword(password),
			smtp.WithOpportunisticSMTPAuth(smtp.SMTPAuthPlain, smtp.SMTPAuthLogin, smtp.SMTPAuthSCRAMSHA256,
				smtp.SMTPAuthCramMD5))
	}
	return smtp.NewClient(s.Host, options...)
}

// message is a letter as it is sent. Nobody is to answer it by a program (RFC 3834 section 5).
func (s *Sender) message(l Letter) (*smtp.Msg, error) {
	to, is := addressee(l.To)
	if !is {
		return nil, errors.New("no address")
	}
	subject, body, err := l.write()
	if err != nil {
		return nil, err
	}
	m := smtp.NewMsg(smtp.WithNoDefaultUserAgent())
	m.FromMailAddress(s.from)
	m.ToMailAddress(to)
	m.Subject(subject)
	m.SetDateWithValue(s.Now())
	m.SetMessageIDWithValue(newMessageID(s.from.Address))
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetBodyString(smtp.TypeTextPlain, body)
	return m, nil
}

// newMessageID is unique, and says nothing of this machine (RFC 5322 section 3.6.4).
func newMessageID(from string) string {
	return rand.Text() + from[strings.LastIndexByte(from, '@'):]
}

// permanentError is one that another attempt does not mend.
type permanentError struct{ error }

// final reports whether it is of no use to try again: the mail server does not want this letter, or nobody could write
// it. Everything else, such as a wrong password or a sender that is not allowed, an operator may mend meanwhile.
func final(err error) bool {
	if is := (*permanentError)(nil); errors.As(err, &is) {
		return true
	}
	var refused *smtp.SendError
	if !errors.As(err, &refused) || refused.ErrorCode() < 500 {
		return false
	}
	switch refused.Reason {
	case smtp.ErrSMTPRcptTo, smtp.ErrSMTPData, smtp.ErrSMTPDataClose, smtp.ErrWriteContent:
		return true
	}
	return false
}

// describe says what went wrong, and nothing about whose letter it was: what a mail server says may repeat addresses.
func describe(err error) string {
	var refused *smtp.SendError
	var answered *textproto.Error
	switch {
	case errors.As(err, &refused):
		code := ""
		if n := refused.ErrorCode(); n != 0 {
			code = strings.TrimSpace(fmt.Sprintf(" %d %s", n, refused.EnhancedStatusCode()))
		}
		stage := map[smtp.SendErrReason]string{smtp.ErrSMTPMailFrom: "sender",
			smtp.ErrSMTPRcptTo: "recipient"}[refused.Reason]
		switch {
		case code == "":
			return "the connection to the mail server failed while the mail was sent"
		case stage == "":
			return "the mail server answered " + code
		}
		return "the mail server answered " + code + " to the " + stage
	case errors.As(err, &answered):
		return fmt.Sprintf("the mail server answered %d", answered.Code)
	}
	return err.Error()
}
