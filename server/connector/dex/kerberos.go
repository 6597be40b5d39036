package dex

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	dex "github.com/dexidp/dex/connector"
	dexldap "github.com/dexidp/dex/connector/ldap"
	"github.com/go-ldap/ldap/v3"
	"github.com/jcmturner/goidentity/v6"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/service"
	"github.com/jcmturner/gokrb5/v8/spnego"

	"github.com/warifu/warifu/server/connector"
)

var _ dex.SPNEGOAware = (*directory)(nil)

// kerberos takes tickets of browsers (SPNEGO, RFC 4559), with Dex's keys below kerberos.
type kerberos struct {
	// authenticate calls its handler with who has a valid ticket, or answers itself.
	authenticate func(http.Handler) http.Handler
	// realms whose tickets are taken. If the configuration names none they are those of the keytab: a realm that these
	// trust could otherwise name its own jane, and be told ours.
	realms    []string
	withRealm bool // the directory is asked for jane@EXAMPLE.ORG, not for jane
	fallback  bool // to the form, if there is no ticket or a bad one
}

func openKerberos(config *dexldap.Config) (*kerberos, error) {
	c := config.Kerberos
	if c == nil || !c.Enabled {
		return nil, nil
	}
	keys, err := keytab.Load(c.KeytabPath)
	if err != nil {
		return nil, fmt.Errorf("kerberos.keytabPath: %w", err)
	}
	settings := []func(*service.Settings){service.DecodePAC(false)}
	if c.SPN != "" {
		settings = append(settings, service.SName(c.SPN))
	}
	if c.KeytabPrincipal != "" {
		settings = append(settings, service.KeytabPrincipal(c.KeytabPrincipal))
	}
	if c.MaxClockSkew > 0 {
		settings = append(settings, service.MaxClockSkew(time.Duration(c.MaxClockSkew)*time.Second))
	}
	return &kerberos{
		authenticate: func(inner http.Handler) http.Handler {
			return spnego.SPNEGOKRB5Authenticate(inner, keys, settings...)
		},
		realms: realmsOf(keys, c.ExpectedRealm), withRealm: strings.EqualFold(c.UsernameFromPrincipal, "userPrincipalName"),
		fallback: c.FallbackToPassword,
	}, nil
}

func realmsOf(keys *keytab.Keytab, expected string) []string {
	if expected != "" {
		return []string{expected}
	}
	var realms []string
	for _, entry := range keys.Entries {
		realms = append(realms, entry.Principal.Realm)
	}
	return realms
}

// triedCookie is what a browser has that has been asked for a ticket: if it comes without one, it has none to give.
const triedCookie, triedFor = "warifu_spnego", 60 // seconds

// TrySPNEGO asks a browser for a ticket. Not handled: the form is to be shown.
func (d *directory) TrySPNEGO(
	ctx context.Context, s dex.Scopes, w http.ResponseWriter, r *http.Request,
) (*dex.Identity, dex.Handled, error) {
	if d.krb == nil {
		return nil, false, nil
	}
	offered := strings.HasPrefix(r.Header.Get("Authorization"), "Negotiate ")
	if _, err := r.Cookie(triedCookie); d.krb.fallback && !offered && err == nil {
		return nil, false, nil
	}
	ticket, answer := d.krb.ticket(r)
	if ticket != nil && !slices.ContainsFunc(d.krb.realms, func(realm string) bool {
		return strings.EqualFold(realm, ticket.Domain())
	}) {
		ticket, answer = nil, askForTicket()
	}
	switch {
	case ticket == nil && d.krb.fallback && offered:
		return nil, false, nil
	case ticket == nil && d.krb.fallback:
		http.SetCookie(w, &http.Cookie{Name: triedCookie, Value: "1", Path: "/", MaxAge: triedFor, HttpOnly: true,
			Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
		answer = askForTicket()
		answer.header.Set("Content-Type", "text/html; charset=utf-8")
		answer.body.WriteString(comeAgain)
		fallthrough
	case ticket == nil:
		maps.Copy(w.Header(), answer.header)
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes())
		return nil, true, nil
	}
	login, _, _ := strings.Cut(ticket.UserName(), "@")
	if d.krb.withRealm {
		login += "@" + ticket.Domain()
	}
	var who dex.Identity
	err := d.with(ctx, func(conn *ldap.Conn) error {
		user, err := d.user(conn, login)
		switch {
		case err != nil:
			return err
		case user == nil:
			return connector.Refuse("the directory has no user for the ticket")
		}
		who, err = d.identity(conn, s, login, user)
		return err
	})
	if err != nil {
		return nil, true, err
	}
	return &who, true, nil
}

// comeAgain is what a browser shows that has no ticket to give: it asks once more, and gets the form.
const comeAgain = `<!doctype html><title>…</title><meta http-equiv="refresh" content="0"><a href="">…</a>`

// ticket is who has a valid ticket, or what is to be answered. A ticket that is malformed may make its reader panic; it
// is a bad one then.
func (k *kerberos) ticket(r *http.Request) (who *credentials.Credentials, answer *reply) {
	answer = askForTicket()
	defer func() {
		if recover() != nil {
			who, answer = nil, askForTicket()
		}
	}()
	k.authenticate(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		who, _ = goidentity.FromHTTPRequestContext(r).(*credentials.Credentials)
	})).ServeHTTP(answer, r)
	return who, answer
}

// askForTicket asks a browser for a ticket (RFC 4559 section 4).
func askForTicket() *reply {
	return &reply{header: http.Header{"Www-Authenticate": {"Negotiate"}}, status: http.StatusUnauthorized}
}
