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
