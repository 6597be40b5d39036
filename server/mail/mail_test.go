package mail_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/text/language"

	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/mail/mailtest"
)

// start runs a sender to a mail server until the test ends.
func start(t *testing.T, to *mailtest.Server, change func(*mail.Options)) *mail.Sender {
	t.Helper()
	o := mail.Options{Host: to.Host, Port: to.Port, CAs: to.CAs, From: "Éxample <no-reply@example.com>",
		Helo: "id.example.com", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Pauses: []time.Duration{time.Millisecond}}
	if change != nil {
		change(&o)
	}
	s, err := mail.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return s
}

func reset(to string) mail.Letter {
	return mail.Letter{Kind: mail.Reset, To: to, Name: "Ann", Site: "Example", Valid: 15 * time.Minute,
		Link: "https://id.example.com/welcome?link=wfe_" + strings.Repeat("x", 300)}
}

func TestWaysToTheMailServer(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]struct {
		server mailtest.Options
		sender func(*mail.Options)
		tls    bool
	}{
		"STARTTLS": {tls: true},
		"TLS": {server: mailtest.Options{Implicit: true}, sender: func(o *mail.Options) { o.TLS = mail.TLSImplicit },
			tls: true},
		"none": {server: mailtest.Options{Plain: true}, sender: func(o *mail.Options) { o.TLS = mail.TLSNone }},
		"with a password": {server: mailtest.Options{Username: "warifu", Password: "correct"}, sender: func(o *mail.Options) {
			o.Username, o.Password = "warifu", func() (string, error) { return "correct", nil }
		}, tls: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.Start(t, way.server)
			if !start(t, server, way.sender).Send(reset("ann@example.com")) {
				t.Fatal("the letter was not taken")
			}
			m := server.Next()
			if m.TLS != way.tls || m.Username != way.server.Username || m.To != "ann@example.com" ||
				m.From != "no-reply@example.com" {
				t.Errorf("came with TLS %v, user %q, to %q from %q", m.TLS, m.Username, m.To, m.From)
			}
			if want := reset("").Link; m.Link("https://") != want {
				t.Errorf("the link is %q, want %q", m.Link("https://"), want)
			}
			if m.Header.Get("Auto-Submitted") != "auto-generated" || !strings.HasSuffix(m.Header.Get("Message-ID"),
				"@example.com>") ||
				m.Header.Get("User-Agent")+m.Header.Get("X-Mailer") != "" {
				t.Errorf("headers: %v", m.Header)
			}
		})
	}
}

// A mail server that cannot protect the connection, or is another one, gets no letter.
func TestNoLetterInClear(t *testing.T) {
	t.Parallel()
	plain, stranger := mailtest.Start(t, mailtest.Options{Plain: true}), mailtest.Start(t, mailtest.Options{})
	for name, to := range map[string]struct {
		server *mailtest.Server
		change func(*mail.Options)
	}{
		"no STARTTLS":         {plain, nil},
		"unknown certificate": {stranger, func(o *mail.Options) { o.CAs = x509.NewCertPool() }},
		"password, no STARTTLS": {plain, func(o *mail.Options) {
			o.Username, o.Password = "u", func() (string, error) {
				return "p", nil
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			log := newLog()
			s := start(t, to.server, func(o *mail.Options) {
				o.Logger = log.logger
				if to.change != nil {
					to.change(o)
				}
			})
			s.Send(reset("ann@example.com"))
			log.wait(t, "mail cannot be sent; trying again")
			to.server.None()
		})
	}
}

// A mail server that is away or says that it cannot now is asked again; one that refuses the letter is not.
func TestAttempts(t *testing.T) {
	t.Parallel()
	var later, never atomic.Int32
	server := mailtest.Start(t, mailtest.Options{Answer: func(to string) error {
		switch {
		case strings.HasPrefix(to, "later@") && later.Add(1) < 4:
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "greylisted " + to}
		case strings.HasPrefix(to, "never@"):
			never.Add(1)
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody is called " + to}
		}
		return nil
	}})
	log := newLog()
	s := start(t, server, func(o *mail.Options) { o.Logger = log.logger })
	s.Send(reset("never@example.com"))
	log.wait(t, "the mail server answered 550 5.1.1 to the recipient")
	s.Send(reset("later@example.com"))
	if m := server.Next(); m.To != "later@example.com" || later.Load() != 4 {
		t.Errorf("to %s after %d attempts", m.To, later.Load())
	}
	s.Send(reset("ann@example.com"))
	server.Next()
	if never.Load() != 1 {
		t.Errorf("a letter that is not wanted was offered %d times", never.Load())
	}
	late := reset("late@example.com")
	late.Until = time.Now().Add(-time.Second)
	s.Send(late)
	log.wait(t, "did not accept it in time")
	server.None()
}

// What waits for one mail server goes to the one that is configured in its place, and so does what comes later.
func TestLettersGoToAnotherMailServer(t *testing.T) {
	t.Parallel()
	var tried atomic.Int32
	first := mailtest.Start(t, mailtest.Options{Answer: func(string) error {
		tried.Add(1)
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "later"}
	}})
	second := mailtest.Start(t, mailtest.Options{})
	log := newLog()
	before := start(t, first, func(o *mail.Options) { o.Logger, o.Pauses = log.logger, []time.Duration{time.Hour} })
	before.Send(reset("waits@example.com"))
	log.wait(t, "mail cannot be sent; trying again")
	next := start(t, second, nil)
	before.HandOver(next)
	if m := second.Next(); m.To != "waits@example.com" {
		t.Errorf("to %s", m.To)
	}
	before.Send(reset("later@example.com"))
	if m := second.Next(); m.To != "later@example.com" || tried.Load() != 1 {
		t.Errorf("to %s, and the first server was tried %d times", m.To, tried.Load())
	}
}

// A changed password counts without a restart.
func TestPasswordIsReadAgain(t *testing.T) {
	t.Parallel()
	var right atomic.Bool
	server := mailtest.Start(t, mailtest.Options{Username: "warifu", Password: "correct"})
	log := newLog()
	s := start(t, server, func(o *mail.Options) {
		o.Logger = log.logger
		o.Username, o.Password = "warifu", func() (string, error) {
			if right.Load() {
				return "correct", nil
			}
			return "wrong", nil
		}
	})
	s.Send(reset("ann@example.com"))
	log.wait(t, "the mail server answered 535")
	right.Store(true)
	server.Next()
}

// Nothing that a letter holds is in the log, whatever a mail server says.
func TestLogsNameNobody(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Options{Answer: func(to string) error {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "no " + to +
			" https://id.example.com/welcome"}
	}})
	log := newLog()
	s := start(t, server, func(o *mail.Options) { o.Logger = log.logger })
	for _, to := range []string{"ann@example.com", "no address\r\nBcc: bob@example.com",
		"ann@example.com, bob@example.com", ""} {
		s.Send(reset(to))
	}
	log.wait(t, "550")
	for _, word := range []string{"ann", "bob", "Ann", "welcome", "wfe_"} {
		if strings.Contains(log.text(), word) {
			t.Errorf("the log says %s:\n%s", word, log.text())
		}
	}
}

// Nobody waits for a mail server: what it does not take in time is refused.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	address := silent.Addr().(*net.TCPAddr)
	s, err := mail.New(mail.Options{Host: "127.0.0.1", Port: address.Port, From: "a@example.com", Helo: "id.example.com",
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for range 3000 {
		if s.Send(reset("ann@example.com")) {
			taken++
		}
	}
	if taken != 1000 {
		t.Errorf("%d letters wait, want 1000", taken)
	}
}

// A server that ends sends what waits, as far as it can.
func TestLettersOfTheLastMoment(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Options{})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	s, err := mail.New(mail.Options{Host: server.Host, Port: server.Port, CAs: server.CAs, From: "a@example.com",
		Helo: "id.example.com", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Send(reset("ann@example.com"))
	s.Run(ctx)
	if m := server.Next(); m.To != "ann@example.com" {
		t.Errorf("to %s", m.To)
	}
}

// Each kind of letter is there in both languages, says what it knows, and shows what people have called themselves as
// text in a line.
func TestLetters(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Options{})
	s := start(t, server, nil)
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	kana := regexp.MustCompile(`\p{Hiragana}`)
	for _, lang := range []language.Tag{language.English, language.MustParse("ja-JP"), language.German} {
		for _, kind := range mail.Kinds {
			s.Send(mail.Letter{Kind: kind, To: "ann@example.com", Lang: lang, Site: "Exa\u202emple\r\nBcc: eve@example.com",
				Name: "Ann\n\nhttps://evil.example\u2028x" + strings.Repeat("y", 10_000), Login: "ann\x00<b>",
				Link: "https://id.example.com/welcome?link=x", Valid: 7 * 24 * time.Hour, Passkey: "my <key>\nEvil: x",
				At: time.Date(2026, 11, 28, 15, 30, 0, 0, time.UTC).In(tokyo), Address: "192.0.2.1", Device: "Firefox\r\n" +
					".\r\nQUIT"})
			m := server.Next()
			name := fmt.Sprintf("%s in %s: %q\n%s", kind, lang, m.Subject, m.Body)
			japanese := lang != language.English && lang != language.German
			if !strings.Contains(m.Subject, "Example Bcc: eve@example.com") || kana.MatchString(m.Subject+m.Body) != japanese {
				t.Errorf("%s", name)
			}
			for line := range strings.Lines(m.Body) {
				if len([]rune(line)) > 330 || strings.HasPrefix(line, "https://evil") || strings.HasPrefix(line, "Evil") ||
					strings.TrimSpace(line) == "." {
					t.Errorf("line %q of %s", line, name)
				}
			}
			wants := []string{"https://id.example.com/welcome?link=x"}
			switch kind {
			case mail.Invitation, mail.Reset:
				wants = append(wants, map[bool]string{false: "7 days", true: "7日間"}[japanese])
			case mail.FactorsRemoved, mail.OperatorPassword:
				wants = []string{"00:30 (JST)"} // there is nothing to do at this server
			default:
				wants = append(wants, "00:30 (JST)", "192.0.2.1", "Firefox . QUIT")
			}
			for _, want := range wants {
				if !strings.Contains(m.Body, want) {
					t.Errorf("no %q in %s", want, name)
				}
			}
			if strings.Contains(m.Body, "<no value>") || m.Header.Get("Bcc") != "" ||
				strings.ContainsAny(m.Body, "\x00\u202e\u2028") {
				t.Errorf("%s", name)
			}
		}
	}
}

func TestMailOptions(t *testing.T) {
	for _, o := range []mail.Options{
		{Host: "h", Port: 25, From: "nobody"}, {Port: 25, From: "a@example.com"}, {Host: "h", From: "a@example.com"},
	} {
		if _, err := mail.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// watched is a log of which a test waits for lines.
type watched struct {
	logger *slog.Logger
	mu     sync.Mutex
	said   bytes.Buffer
	more   chan struct{}
}

func newLog() *watched {
	w := &watched{more: make(chan struct{}, 1)}
	w.logger = slog.New(slog.NewTextHandler(w, nil))
	return w
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said.Write(p)
	select {
	case w.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (w *watched) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

func (w *watched) wait(t *testing.T, text string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !strings.Contains(w.text(), text) {
		select {
		case <-w.more:
		case <-limit:
			t.Fatalf("the log does not say %q:\n%s", text, w.text())
		}
	}
}
