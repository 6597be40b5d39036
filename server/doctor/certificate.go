package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A certificate ought to have been renewed two weeks before its end, or when a third of its life is left, if that is
// less: those of six days are renewed every other day.
const renewBefore = 14 * 24 * time.Hour

// renewFrom is from when on a certificate that is still in use is late.
func renewFrom(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-min(renewBefore, c.NotAfter.Sub(c.NotBefore)/3))
}

// span judges from when to when a certificate is valid; nil: it is, and for a while yet. consequence completes "has
// ended: ...".
func span(what string, c *x509.Certificate, now time.Time, consequence string) []Finding {
	switch {
	case now.After(c.NotAfter):
		return []Finding{wrong("renew it, and have whatever renews it automatically report failures",
			"%s ended %s (%s): %s", what, ago(now, c.NotAfter), date(c.NotAfter), consequence)}
	case now.Before(c.NotBefore):
		return []Finding{wrong(
			"check that the clock of this machine is right; if it is, put the previous certificate back until then",
			"%s is not valid before %s: %s", what, date(c.NotBefore), consequence)}
	case now.After(renewFrom(c)):
		return []Finding{warning(
			"renew it now: automatic renewal (certbot, acme.sh, cert-manager) seems to be failing, so read its log",
			"%s ends %s (%s)", what, in(now, c.NotAfter), date(c.NotAfter))}
	}
	return nil
}

// chain judges whether a certificate that was presented for a host is believed: by its names, and by who vouches for
// it.
func chain(what, host string, presented []*x509.Certificate, roots *x509.CertPool, now time.Time) []Finding {
	leaf, others := presented[0], x509.NewCertPool()
	for _, c := range presented[1:] {
		others.AddCert(c)
	}
	var out []Finding
	if leaf.VerifyHostname(host) != nil {
		out = append(out, wrong("get one that names "+host+", and have it used for that name",
			"%s is for %s, and not for %s", what, namesOf(leaf), host))
	}
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		// span has said that; who vouches for it is another matter.
		now = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, CurrentTime: now})
	var nobody x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
	case errors.As(err, &nobody) && len(presented) == 1 && len(leaf.IssuingCertificateURL) > 0:
		out = append(out, wrong(
			"have it sent with the intermediate certificates (certbot: fullchain.pem, and not cert.pem)",
			"%s is sent without the certificate of its issuer, %s: browsers may find that one, but apps do not",
			what, nameOf(leaf.Issuer.CommonName,
				leaf.Issuer.String())))
	case errors.As(err, &nobody):
		out = append(out, wrong("get one from an authority that apps and browsers know; where all of them know this "+
			"one, name its certificates with --ca",
			"this machine does not know who vouches for %s (%s)",
			what, nameOf(leaf.Issuer.CommonName, leaf.Issuer.String())))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != leaf:
		out = append(out, wrong("have it sent with the current certificates of its authority",
			"%s is sent with an authority's certificate that has expired: %s",
			what, nameOf(invalid.Cert.Subject.CommonName, invalid.Cert.Subject.String())))
	default:
		out = append(out, wrong("get another one", "%s is not trusted: %s",
			what, strings.TrimPrefix(err.Error(), "x509: ")))
	}
	return out
}

// namesOf are the names that a certificate is for, a few of them.
func namesOf(c *x509.Certificate) string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	const few = 5
	switch {
	case len(names) == 0:
		return "no name at all"
	case len(names) > few:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

func nameOf(name, otherwise string) string {
	if name != "" {
		return name
	}
	return otherwise
}

// date is a day and a time for people.
func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// in is how long from now something is, in words.
func in(now, then time.Time) string { return "in " + roughly(then.Sub(now)) }

// ago is how long ago something was, in words.
func ago(now, then time.Time) string { return roughly(now.Sub(then)) + " ago" }

// roughly is a time for people, in its greatest unit.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		switch n := d / unit.of; {
		case n == 1:
			return "1 " + unit.name
		case n > 1:
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return "less than a second"
}
