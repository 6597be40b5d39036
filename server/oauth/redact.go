package oauth

import (
	"regexp"
	"strings"
)

// Redacted takes the place of what is not shown.
const Redacted = "[redacted]"

// credentialShape is what this server gives out as secrets (client secrets, codes, tokens, cookies), also where they
// are cut off, and JWTs of anybody, also where they are cut off before the first dot.
var credentialShape = regexp.MustCompile(
	`wf[a-z]_[A-Za-z0-9_.-]{8,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)*|eyJ[A-Za-z0-9_-]{40,}`)

// uriShape is a URI with a hierarchy in the midst of other text.
var uriShape = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*:[/\\][^\s"'<>]+`)

// Redact blanks what looks like a credential in text that came from outside and is to be shown, logged or kept: also
// what [ShownURI] leaves out of the URIs in it. Parameters that hold secrets are never logged at all; this is for
// secrets that people put where an id, a scope or an address belongs. Text must come whole: what was cut off may be
// what a credential is known by.
func Redact(text string) string {
	if strings.Contains(text, ":/") || strings.Contains(text, `:\`) {
		text = uriShape.ReplaceAllStringFunc(text, ShownURI)
	}
	return RedactCredentials(text)
}

// RedactCredentials blanks what has the shape of a credential, and nothing else: in what plugins and runtimes say, the
// addresses tell what failed.
func RedactCredentials(text string) string {
	if !strings.Contains(text, "wf") && !strings.Contains(text, "eyJ") {
		return text
	}
	return credentialShape.ReplaceAllLiteralString(text, Redacted)
}

var (
	uriScheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*:)?[/\\]*`)
	// encodedURI is a URI that was percent-encoded once too often, up to what may be user info or a query.
	encodedURI = regexp.MustCompile(`(?i)^[a-z][a-z0-9+.-]*%3a(%2f)*`)
	// plainName is a query parameter's name that can be shown.
	plainName = regexp.MustCompile(`^[A-Za-z0-9_.\[\]-]{1,64}$`)
)

// ShownURI is an address that came from outside, as it may be shown, logged or kept: without user info, and without
// the values of query and fragment, because people write passwords, codes and tokens there. It takes anything, since
// what is refused is often no URI at all.
func ShownURI(uri string) string {
	decoded := strings.NewReplacer("%40", "@", "%3f", "?", "%3F", "?", "%23", "#")
	if start := encodedURI.FindString(uri); start != "" && strings.ContainsAny(decoded.Replace(uri), "@?#") {
		return start + Redacted
	}
	scheme := uriScheme.FindString(uri)
	rest := uri[len(scheme):]
	if at := userInfo(rest); at >= 0 {
		rest = Redacted + rest[at:]
	}
	end := strings.IndexAny(rest, "?#")
	if end < 0 {
		return RedactCredentials(scheme + rest)
	}
	out := strings.Builder{}
	out.WriteString(scheme + rest[:end])
	for rest = rest[end:]; rest != ""; {
		out.WriteByte(rest[0])
		next := strings.IndexAny(rest[1:], "?#&;") + 1
		if next == 0 {
			next = len(rest)
		}
		name, value, has := strings.Cut(rest[1:next], "=")
		switch {
		case name == "" && value == "":
		case !has || !plainName.MatchString(name):
			out.WriteString(Redacted)
		case value == "":
			out.WriteString(name + "=")
		default:
			out.WriteString(name + "=" + Redacted)
		}
		rest = rest[next:]
	}
	return RedactCredentials(out.String())
}

// userInfo is where the user info of an address without its scheme ends; -1 if there is none. A password with a slash
// in it, which should have been encoded, is found by what cannot be a port.
func userInfo(rest string) int {
	authority := rest
	if end := strings.IndexAny(rest, `/\?#`); end >= 0 {
		authority = rest[:end]
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		return at
	}
	_, port, has := strings.Cut(authority, ":")
	if has && !strings.HasPrefix(authority, "[") && strings.Trim(port, "0123456789*") != "" {
		return strings.LastIndexByte(rest, '@')
	}
	return -1
}
