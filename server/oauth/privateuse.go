package oauth

import (
	"slices"
	"strings"
)

// Private-use URI schemes (RFC 8252 section 7.1): by one, a browser hands an answer to an app that is installed beside
// it. Whoever owns a domain may use it, turned around, as a scheme (com.example.app:/callback), and so no two apps mean
// the same. Nothing keeps another app from taking it: such clients are public, must use PKCE, and are asked for each
// time.

// PrivateScheme returns the scheme of a redirect URI by which an app on the user's device is reached, as it may be
// registered: in lower case, and followed by a slash. Schemes of the web and those that browsers and systems act on
// themselves are not allowed, whatever follows them.
func PrivateScheme(uri string) (scheme string, ok bool) {
	scheme, rest, found := strings.Cut(uri, ":")
	if !found || !strings.HasPrefix(rest, "/") || scheme == "" || scheme[0] < 'a' || scheme[0] > 'z' ||
		takenScheme(scheme) {
		return "", false
	}
	for i := range len(scheme) {
		if c := scheme[i]; !(isAlphanumeric(c) && (c < 'A' || c > 'Z')) && c != '.' && c != '-' && c != '+' {
			return "", false
		}
	}
	return scheme, true
}

// takenScheme reports whether a scheme, in lower case, means something already to browsers, systems or people, so that
// it can be no app's own: with some of them a redirect would run a script or a program.
func takenScheme(scheme string) bool {
	return slices.Contains(takenSchemes, scheme) ||
		slices.ContainsFunc(takenFamilies, func(family string) bool { return strings.HasPrefix(scheme, family) })
}

var takenSchemes = strings.Fields(`
	http https ws wss ftp ftps sftp chrome edge microsoft-edge opera brave vivaldi
	javascript vbscript livescript mocha data blob file filesystem about view-source jar feed cid mid content resource res
	wyciwyg mhtml mk its opaquelocktoken urn tag oid uuid
	intent android-app market itms itms-apps itms-services shortcuts app-settings prefs
	shell search search-ms ldap ldaps dns gopher telnet ssh rlogin tn3270 nfs smb cifs afp vnc rdp irc ircs git svn
	mailto news nntp snews tel sms smsto mms mmsto callto facetime facetime-audio sip sips xmpp geo maps webcal
	magnet bitcoin ethereum openpgp4fpr pkcs11 info java jdbc redis rediss mongodb postgres postgresql mysql`)

// takenFamilies are beginnings of schemes that belong to systems and browsers.
var takenFamilies = []string{"ms-", "x-apple", "chrome-", "edge-", "moz-", "web+", "view-"}

// CheckPrivateURI holds a redirect URI that has a [PrivateScheme] to the rules of those on the web, as far as they are
// about such a URI: the characters of RFC 3986, no fragment, no wildcard, no dot segments, and no user name where it
// has an authority. A refusal is a [*RedirectURIError].
func CheckPrivateURI(uri string) error {
	_, rest, _ := strings.Cut(uri, ":")
	authority := ""
	if after, has := strings.CutPrefix(rest, "//"); has {
		authority, rest = cutAuthority(after)
	}
	path, query, _ := strings.Cut(rest, "?")
	switch {
	case len(uri) > MaxRedirectURI:
		return tooLong()
	case !validURIBytes(uri):
		return badBytes()
	case strings.Contains(uri, "#"):
		return refuseURI("fragment", "must not have a fragment (#...)")
	case strings.Contains(authority, "@"):
		return refuseURI("userinfo", "must not hold a user name or password (...@)")
	case strings.Contains(uri, "*"):
		return refuseURI("wildcard", "may have a wildcard only as the port of a loopback URI (http://localhost:*)")
	case hasDotSegment(path):
		return refuseURI("path", "must not have . or .. segments in its path")
	case strings.ContainsAny(authority+path+query, "[]"):
		return refuseURI("syntax", "has a bracket (percent-encode it)")
	}
	return nil
}
