// Package mail sends letters to people: invitations, links for those who cannot sign in, and what they should know of
// their account. It knows texts and mail servers, and nothing of accounts.
//
// # Flow
//
// A handler calls [Sender.Send], which takes the letter into a bounded queue and returns at once: no request waits for
// a mail server, so none of them says by its time whether a letter was written. [Sender.Run] brings the letters to the
// one mail server of the configuration (sender.go), and tries again while that makes sense. A letter that has become
// pointless meanwhile, because its link has expired, is not sent.
//
// # Invariants
//
//   - Logs have kinds of letters and what the mail server answered, as numbers: never an address, a name or a link, and
//     not the server's words, which may repeat them.
//   - Letters are plain text (letter.go, texts). What comes from people stands on a line of its own, without whatever
//     would begin another line or reorder it.
package mail

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"net/netip"
	"net/url"
	"time"

	"github.com/warifu/warifu/server/metrics"
)

// TLS says how the connection to the mail server is protected.
type TLS string

// Ways of protecting it.
const (
	TLSStart    TLS = "starttls" // asked for on the connection (RFC 3207), and nothing is sent without it
	TLSImplicit TLS = "tls"      // from the first byte on (RFC 8314 section 3)
	TLSNone     TLS = "none"     // not at all: for a mail server on the same machine
)

// Options are what a [Sender] is made of.
type Options struct {
	Host string
	Port int
	TLS  TLS
	// CAs vouch for the mail server; nil means those of the system.
	CAs *x509.CertPool
	// Username and Password authenticate; "" if nothing does. The password is read for each connection, so that a changed
	// one counts at once.
	Username string
	Password func() (string, error)
	// From is the sender, as in "Example <no-reply@example.com>".
	From string
	// Helo is how the mail server is greeted: this server's host name (RFC 5321 section 4.1.1.1).
	Helo string
	// Pauses are between the attempts to send a letter, the last one for all further ones; nil means the usual ones.
	Pauses []time.Duration
	// Metrics count letters; nil counts nothing.
	Metrics *metrics.Metrics
	Logger  *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// CheckFrom says what is wrong with [Options.From].
func CheckFrom(from string) error {
	_, err := mail.ParseAddress(from)
	return err
}

// HeloOf is how a server with an issuer greets a mail server: by its host name, or its address in brackets (RFC 5321
// section 4.1.3).
func HeloOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Hostname() == "" {
		return "localhost"
	}
	switch a, err := netip.ParseAddr(u.Hostname()); {
	case err != nil:
		return u.Hostname()
	case a.Is6():
		return "[IPv6:" + a.String() + "]"
	default:
		return "[" + a.String() + "]"
	}
}

// New makes a sender; [Sender.Run] does its work.
func New(o Options) (*Sender, error) {
	from, err := mail.ParseAddress(o.From)
	if err != nil {
		return nil, fmt.Errorf("sender of mails: %w", err)
	}
	if o.Host == "" || o.Port <= 0 {
		return nil, errors.New("mail server: host and port are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Pauses) == 0 {
		o.Pauses = usualPauses
	}
	return &Sender{Options: o, from: from, wake: make(chan struct{}, workers)}, nil
}
