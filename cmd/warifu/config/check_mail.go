package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/oauth"
)

// MailTLS says how the connection to the mail server is protected, see [mail.TLS].
type MailTLS string

// address is the host and the port of the mail server; false where it has none.
func (m Mail) address() (host string, port int, ok bool) {
	host, text, err := net.SplitHostPort(m.Server)
	n, portErr := strconv.ParseUint(text, 10, 16)
	_, addressErr := netip.ParseAddr(host)
	if err != nil || portErr != nil || n == 0 || addressErr != nil && !oauth.IsHostName(host) {
		return "", 0, false
	}
	return host, int(n), true
}

func (r *reader) checkMail(m Mail) {
	if m.Server == "" {
		if m != (Mail{}) {
			r.fault("mail.server", "required", "", "is required: the mail server, as in smtp.example.com:587")
		}
		return
	}
	host, port, ok := m.address()
	if !ok {
		suggestion := ""
		if !strings.Contains(m.Server, ":") && oauth.IsHostName(m.Server) {
			suggestion = m.Server + ":587"
		}
		r.fault("mail.server", "address", suggestion, "must be host:port, as in smtp.example.com:587, but is %q", m.Server)
	}
	if r.required("mail.from", m.From, "the sender of mails, as in Example <no-reply@example.com>") {
		if err := mail.CheckFrom(m.From); err != nil {
			r.fault("mail.from", "value", "", "must be an e-mail address, with or without a name, as in "+
				"Example <no-reply@example.com>, but is %q", m.From)
		}
	}
	if (m.Username == "") != (m.PasswordFile == "") {
		r.fault("mail", "pair", "", "needs both username and passwordFile, or neither")
	}
	switch loopback := oauth.IsLoopback(host); {
	case m.TLS == MailTLS(mail.TLSNone) && ok && !loopback:
		r.fault("mail.tls", "cleartext", string(mail.TLSStart),
			"may be none only for a mail server on this machine: links that let people in would "+
				"be sent unencrypted to %s", host)
	case m.TLS == MailTLS(mail.TLSNone) && m.CAFile != "":
		r.fault("mail.caFile", "misplaced", "", "is of no use with mail.tls none")
	case port == 465 && (m.TLS == "" || m.TLS == MailTLS(mail.TLSStart)):
		r.warn("mail.tls", "unusual",
			"is starttls, but mail servers speak TLS from the first byte on port 465: use tls")
	}
}
