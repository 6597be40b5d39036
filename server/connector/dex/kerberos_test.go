package dex

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/connectortest"
)

const httpService = "HTTP/localhost"

func TestKerberos(t *testing.T) {
	s := connectortest.StartSlapd(t, connectortest.Entries())
	k := connectortest.StartKDC(t, "EXAMPLE.ORG")
	k.AddUser(t, "jane", "jane's")
	k.AddUser(t, "stranger", "stranger's")
	keytab := k.AddService(t, httpService)
	with := func(more string) connector.Negotiator {
		c := ldapConfig(s, nil)
		keys := `{"kerberos": {"enabled": true, "keytabPath": "` + keytab + `"` + more + `}}`
		if err := json.Unmarshal([]byte(keys), c); err != nil {
			t.Fatal(err)
		}
		made, _ := newLDAP(t, c)
		negotiator, is := made.Password.(connector.Negotiator)
		if !is {
			t.Fatal("the connector takes no tickets")
		}
		return negotiator
	}
	visit := func(
		n connector.Negotiator, authorization string, cookies ...*http.Cookie,
	) (*connector.Identity, bool, *http.Response, error) {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/oauth/connect/staff?request=x", nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		who, done, err := n.Negotiate(t.Context(), w, r)
		return who, done, w.Result(), err
	}
	ticket := k.Ticket(t, "jane", "jane's", httpService)

	strict, lenient := with(""), with(`, "fallbackToPassword": true`)
	t.Run("without a ticket", func(t *testing.T) {
		who, done, resp, err := visit(strict, "")
		if who != nil || !done || err != nil || resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != "Negotiate" {
			t.Errorf("got %v %v %v %v", who, done, err, resp)
		}
	})
	t.Run("without a ticket, to the form", func(t *testing.T) {
		who, done, resp, err := visit(lenient, "")
		if who != nil || !done || err != nil || resp.StatusCode != 401 || len(resp.Cookies()) != 1 {
			t.Fatalf("first: %v %v %v %v", who, done, err, resp)
		}
		who, done, resp, err = visit(lenient, "", resp.Cookies()...)
		if who != nil || done || err != nil || resp.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("then: %v %v %v %v", who, done, err, resp)
		}
	})
	t.Run("a ticket, once", func(t *testing.T) {
		who, done, _, err := visit(strict, ticket)
		if who == nil || !done || err != nil || who.UserID != "jane" || len(who.Groups) != 2 {
			t.Fatalf("got %+v %v %v", who, done, err)
		}
		who, done, resp, err := visit(strict, ticket)
		if who != nil || !done || err != nil || resp.StatusCode != 401 {
			t.Errorf("again: %+v %v %v %v", who, done, err, resp)
		}
	})
	t.Run("bad tickets", func(t *testing.T) {
		fresh := k.Ticket(t, "jane", "jane's", httpService)
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fresh, "Negotiate "))
		if err != nil {
			t.Fatal(err)
		}
		bad := []string{"", "!", "YII", "oQcwBaADCgEC", strings.Repeat("A", 64<<10)}
		for i := 0; i < len(raw); i += 7 { // cut off, and changed
			changed := append([]byte(nil), raw...)
			changed[i] ^= 0x55
			bad = append(bad, base64.StdEncoding.EncodeToString(raw[:i]), base64.StdEncoding.EncodeToString(changed))
		}
		for _, b := range bad {
			for _, n := range []connector.Negotiator{strict, lenient} {
				// Some bits of a ticket mean nothing: who gets in is jane, or nobody.
				who, _, _, err := visit(n, "Negotiate "+b)
				if err != nil || who != nil && who.UserID != "jane" {
					t.Errorf("%.40s: %v %v", b, who, err)
				}
			}
		}
	})
	t.Run("nobody in the directory", func(t *testing.T) {
		who, _, _, err := visit(strict, k.Ticket(t, "stranger", "stranger's", httpService))
		if refused := new(connector.RefusedError); who != nil || !errors.As(err, &refused) {
			t.Errorf("got %v %v, want a refusal", who, err)
		}
	})
	t.Run("another service's key", func(t *testing.T) {
		foreign := connectortest.StartKDC(t, "EXAMPLE.ORG")
		foreign.AddUser(t, "jane", "jane's")
		foreign.AddService(t, httpService)
		who, done, resp, err := visit(strict, foreign.Ticket(t, "jane", "jane's", httpService))
		if who != nil || !done || err != nil || resp.StatusCode != 401 {
			t.Errorf("got %+v %v %v %v", who, done, err, resp)
		}
	})
	t.Run("jane of another realm", func(t *testing.T) {
		foreign := connectortest.StartKDC(t, "OTHER.ORG")
		foreign.AddUser(t, "jane", "the other's")
		k.Trust(t, foreign)
		visitor := func() string {
			return foreign.Ticket(t, "jane", "the other's", httpService, k)
		}
		who, done, resp, err := visit(strict, visitor())
		if who != nil || !done || err != nil || resp.StatusCode != 401 {
			t.Errorf("got %+v %v %v %v", who, done, err, resp)
		}
		expected := with(`, "expectedRealm": "OTHER.ORG"`)
		if who, done, _, err = visit(expected, visitor()); who == nil || who.UserID != "jane" {
			t.Errorf("where the configuration says so: %+v %v %v", who, done, err)
		}
		if who, _, _, _ = visit(expected, k.Ticket(t, "jane", "jane's", httpService)); who != nil {
			t.Errorf("jane of the realm that is not expected: %+v", who)
		}
	})
}
