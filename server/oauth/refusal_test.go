package oauth_test

import (
	"maps"
	"net/url"
	"testing"

	"github.com/warifu/warifu/server/oauth"
)

func TestTellingParamsLeaveOutWhatIsSecretOrUnknown(t *testing.T) {
	got := oauth.TellingParams(url.Values{
		"grant_type": {"authorization_code"}, "redirect_uri": {"https://a.test/cb"}, "scope": {"openid email"},
		"resource": {"https://a.test/", "https://b.test/"},
		"code":     {"canary"}, "code_verifier": {"canary"}, "client_secret": {"canary"}, "refresh_token": {"canary"}, "password": {"canary"},
		"client_assertion": {"canary"}, "subject_token": {"canary"}, "state": {"canary"}, "login_hint": {"canary"}, "unheard_of": {"canary"},
	})
	want := map[string]string{
		"grant_type": "authorization_code", "redirect_uri": "https://a.test/cb", "scope": "openid email", "resource": "https://a.test/ https://b.test/",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := oauth.TellingParams(url.Values{"code": {"canary"}}); got != nil {
		t.Errorf("%v", got)
	}
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"a client":                                    "a client",
		"a wf_ and eyJ":                               "a wf_ and eyJ",
		"is wfs_AbCdEfGhIjKlMnOp-_ there":             "is [redacted] there",
		"eyJhbGciOiJFUzI1NiJ9.e30.c2ln":               "[redacted]",
		"https://a.test/?code=wfc_0123456789abcdef&x": "https://a.test/?code=[redacted]&x",
	} {
		if got := oauth.Redact(text); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
