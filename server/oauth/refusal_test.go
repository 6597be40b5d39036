package oauth_test

import (
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/oauth"
)

func TestTellingParamsLeaveOutWhatIsSecretOrUnknown(t *testing.T) {
	got := oauth.TellingParams(url.Values{
		"grant_type": {"authorization_code"}, "redirect_uri": {"https://a.test/cb"}, "scope": {"openid email"},
		"resource": {"https://a.test/", "https://b.test/"},
		"code":     {"canary"}, "code_verifier": {"canary"}, "client_secret": {"canary"}, "refresh_token": {"canary"},
		"password":         {"canary"},
		"client_assertion": {"canary"}, "subject_token": {"canary"}, "state": {"canary"}, "login_hint": {"canary"},
		"unheard_of": {"canary"},
	})
	want := map[string]string{
		"grant_type": "authorization_code", "redirect_uri": "https://a.test/cb", "scope": "openid email",
		"resource": "https://a.test/ https://b.test/",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	for name := range want {
		got := oauth.TellingParams(url.Values{name: {"https://u:canary@a.test/cb?code=canary"}})
		if strings.Contains(got[name], "canary") {
			t.Errorf("%s: %q", name, got[name])
		}
	}
	if got := oauth.TellingParams(url.Values{"code": {"canary"}}); got != nil {
		t.Errorf("%v", got)
	}
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"a client":                        "a client",
		"a wf_ and eyJ":                   "a wf_ and eyJ",
		"is wfs_AbCdEfGhIjKlMnOp-_ there": "is [redacted] there",
		"eyJhbGciOiJFUzI1NiJ9.e30.c2ln":   "[redacted]",
		"wfs_01234567, and wfa_0.2.4.6.8": "[redacted], and [redacted]",
		"eyJhbGciOiJFUzI1NiIsImtpZCI6Im1CTEZRZ3RPZHRhRTdhNmRSVlpr": "[redacted]",
		"https://a.test/?code=wfc_0123456789abcdef&x":              "https://a.test/?code=[redacted]&[redacted]",
	} {
		if got := oauth.Redact(text); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Whatever is wrong with an address, no password, code or token in it is shown.
func TestShownURI(t *testing.T) {
	for uri, want := range map[string]string{
		"":                                       "",
		"https://a.test/cb":                      "https://a.test/cb",
		"http://localhost:*/cb":                  "http://localhost:*/cb",
		"http://[::1]:80/@me":                    "http://[::1]:80/@me",
		"urn:ietf:params:oauth:token":            "urn:ietf:params:oauth:token",
		"com.app:/cb?code=x":                     "com.app:/cb?code=[redacted]",
		"https://u:pw@a.test/cb?code=x&state=&y": "https://[redacted]@a.test/cb?code=[redacted]&state=&[redacted]",
		"https://u:p@w@a.test/":                  "https://[redacted]@a.test/",
		"https://u:p/w?x#y@a.test/cb":            "https://[redacted]@a.test/cb",
		"https:/u:pw@a.test":                     "https:/[redacted]@a.test",
		`https:\\u:pw@a.test`:                    `https:\\[redacted]@a.test`,
		"//u:pw@a.test":                          "//[redacted]@a.test",
		"u:pw@a.test/cb":                         "u:[redacted]@a.test/cb",
		"https://a.test/#access_token=x":         "https://a.test/#access_token=[redacted]",
		"https://a.test/?a=b?c=d;e=f#g":          "https://a.test/?a=[redacted]?c=[redacted];e=[redacted]#[redacted]",
		"https%3A%2F%2Fu%3Apw%40a.test":          "https%3A%2F%2F[redacted]",
		"https%3A%2F%2Fa.test%2Fcb":              "https%3A%2F%2Fa.test%2Fcb",
		"https://a.test/wfc_0123456789abcdef":    "https://a.test/[redacted]",
	} {
		got := oauth.ShownURI(uri)
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if again := oauth.ShownURI(got); again != got {
			t.Errorf("%q, the second time %q", got, again)
		}
	}
	if got := oauth.Redact(
		"at 'https://u:pw@a.test/cb?code=x', and on"); got != "at 'https://[redacted]@a.test/cb?code=[redacted]', and on" {
		t.Error(got)
	}
	if got := oauth.Refuse("c", "r", `"https://u:pw@a.test/" \ é`).Description; got != "'https://[redacted]@a.test/' ? ?" {
		t.Error(got)
	}
}
