// Package mailtest is a mail server for tests, which keeps what it is sent.
package mailtest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Options say how the mail server behaves.
type Options struct {
	Implicit bool // TLS from the first byte on, in place of STARTTLS
	Plain    bool // no TLS at all
	// Username and Password are asked for when set.
	Username, Password string
	// Answer is what it says to a recipient: nil is yes. It may be nil.
	Answer func(to string) error
}

// Server is a mail server on loopback.
type Server struct {
	Host string
	Port int
	CAs  *x509.CertPool // that vouch for it
	PEM  []byte         // its certificate

	tb    testing.TB
	mails chan Mail
}

// Mail is one that was taken.
type Mail struct {
	From, To      string // of the envelope
	Header        mail.Header
	Subject, Body string // decoded
	Raw           string
	TLS           bool   // it came by TLS
	Username      string // that authenticated
	Helo          string // how the sender greeted
}

// Start starts a mail server, which ends with the test.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	web := httptest.NewTLSServer(nil) // for its certificate
	config := &tls.Config{Certificates: web.TLS.Certificates}
	s := &Server{tb: tb, mails: make(chan Mail, 1000), CAs: x509.NewCertPool()}
	s.CAs.AddCert(web.Certificate())
	s.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	web.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	address := l.Addr().(*net.TCPAddr)
	s.Host, s.Port = address.IP.String(), address.Port
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{server: s, options: o, conn: c}, nil
	}))
	server.Domain, server.AllowInsecureAuth, server.ErrorLog = "mail.test", true, log.New(io.Discard, "", 0)
	switch {
	case o.Implicit:
		l = tls.NewListener(l, config)
	case !o.Plain:
		server.TLSConfig = config
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Close
	}()
	tb.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return s
}

// Next waits for the next mail.
func (s *Server) Next() Mail {
	s.tb.Helper()
	select {
	case m := <-s.mails:
		return m
	case <-time.After(20 * time.Second):
		s.tb.Fatal("no mail came")
		return Mail{}
	}
}

// None checks that no mail has come that nobody has taken.
func (s *Server) None() {
	s.tb.Helper()
	select {
	case m := <-s.mails:
		s.tb.Errorf("a mail came that should not: to %s, %q", m.To, m.Subject)
	default:
	}
}

// session is one connection.
type session struct {
	server         *Server
	options        Options
	conn           *smtp.Conn
	user, from, to string
}

func (c *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if username != c.options.Username || password != c.options.Password {
			return smtp.ErrAuthFailed
		}
		c.user = username
		return nil
	}), nil
}

func (c *session) Mail(from string, _ *smtp.MailOptions) error {
	if c.options.Username != "" && c.user == "" {
		return smtp.ErrAuthRequired
	}
	c.from = from
	return nil
}

func (c *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if c.options.Answer != nil {
		if err := c.options.Answer(to); err != nil {
			return err
		}
	}
	c.to = to
	return nil
}

func (c *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m, err := read(raw)
	if err != nil {
		return err
	}
	_, m.TLS = c.conn.TLSConnectionState()
	m.From, m.To, m.Username, m.Helo = c.from, c.to, c.user, c.conn.Hostname()
	c.server.mails <- m
	return nil
}

func (*session) Reset()        {}
func (*session) Logout() error { return nil }

func read(raw []byte) (m Mail, err error) {
	m.Raw = string(raw)
	parsed, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return m, err
	}
	m.Header = parsed.Header
	if m.Subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		return m, err
	}
	body := parsed.Body
	if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	m.Body = strings.ReplaceAll(string(text), "\r\n", "\n")
	return m, err
}

// Link is the address in the mail that begins so.
func (m Mail) Link(begins string) string {
	for line := range strings.Lines(m.Body) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, begins) {
			return line
		}
	}
	return ""
}
