package manifests

import (
	"errors"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

// checkRedirectURI checks a redirect URI against the rules by which requests are matched later. Each rule has a code of its own,
// redirect-uri-<rule>, with the rules of [oauth.RedirectURIError].
func checkRedirectURI(c *checker, v *strictyaml.Value, path string) {
	var refused *oauth.RedirectURIError
	if errors.As(oauth.CheckRedirectURI(v.Text), &refused) {
		c.Errorf(v.Position, path, "redirect-uri-"+refused.Rule, mendRedirectURI(v.Text, refused.Rule), "%s", refused.Reason)
	}
}

// mendRedirectURI guesses what was meant. It only returns what may be registered, and nothing for a URI that holds a password.
func mendRedirectURI(uri, rule string) string {
	var mended string
	switch rule {
	case "scheme":
		scheme, rest, _ := strings.Cut(uri, "://")
		mended = strings.ToLower(scheme) + "://" + rest
		if !strings.Contains(uri, "://") && strings.Contains(uri, ".") && !strings.Contains(uri, ":") {
			mended = "https://" + strings.TrimPrefix(uri, "//")
		}
	case "loopback":
		host := strings.TrimPrefix(uri, "http://")
		if !strings.ContainsAny(host[:1], "0123456789[") { // an address is likely meant to stay on this machine
			mended = "https://" + host
		}
		if lower := strings.ToLower(uri); strings.HasPrefix(lower, "http://localhost") && oauth.CheckRedirectURI(lower) == nil {
			mended = lower
		}
	case "fragment":
		mended, _, _ = strings.Cut(uri, "#")
	case "wildcard":
		_, host, _ := strings.Cut(uri, "://")
		for _, loopback := range [...]string{"localhost", "127.0.0.1", "[::1]"} {
			if strings.HasPrefix(host, loopback+":") || strings.HasPrefix(host, loopback+"/") {
				mended = "http://" + loopback + ":*"
			}
		}
	}
	if strings.Contains(mended, "@") || oauth.CheckRedirectURI(mended) != nil {
		return ""
	}
	return mended
}
