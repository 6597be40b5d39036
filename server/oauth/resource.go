package oauth

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Resources are the identifiers (RFC 8707) of the resource servers that the client is.
func (c *Client) Resources() []string {
	if c.Resource == "" {
		return c.ResourceIdentifiers
	}
	return append([]string{c.Resource}, c.ResourceIdentifiers...)
}

// OnlyResource reports whether the client is a resource server and nothing else: it says which, and no way to get
// tokens. It authenticates to introspect the tokens that others show it.
func (c *Client) OnlyResource() bool {
	return c.Resource != "" && len(c.GrantTypes) == 0 && len(c.RedirectURIs) == 0
}

// CheckResource holds the identifier of a resource server to RFC 8707 section 2: an absolute URI without a fragment. It
// is in ASCII, because programs differ in how they encode the rest of it, and without user info, because it is in every
// token. The reason completes the sentence "the identifier ..." and never repeats it; it is empty when nothing is
// wrong.
func CheckResource(identifier string) (reason, mended string) {
	const wanted = "must be an absolute URI without a fragment (RFC 8707 section 2), as in https://api.example.com"
	u, err := url.Parse(identifier)
	switch {
	case err != nil || u.Scheme == "" || u.Opaque == "" && u.Host == "" && u.Path == "",
		(u.Scheme == "https" || u.Scheme == "http") && u.Hostname() == "":
		return wanted, ""
	case u.Scheme+"://" == forwardIdentifier:
		return "must not begin with " + forwardIdentifier + ", which is for hosts behind forward auth", ""
	case u.User != nil:
		return "must not hold a user name or password: it is in every token", ""
	case strings.Contains(identifier, "#"):
		reason = wanted
		mended, _, _ = strings.Cut(identifier, "#")
	case strings.ContainsFunc(identifier, foreignToURIs):
		reason = "must be ASCII without spaces: percent-encode other characters, and write host names in punycode"
		if ascii(u.Host) {
			mended = escapeForeign(identifier)
		}
	case len(identifier) > MaxAddress:
		return "must have at most " + strconv.Itoa(MaxAddress) + " bytes", ""
	default:
		return "", ""
	}
	if still, again := CheckResource(mended); still != "" {
		mended = again
	}
	return reason, mended
}

// foreignToURIs are spaces and what is not ASCII, which escapeForeign percent-encodes.
func foreignToURIs(r rune) bool { return r <= ' ' || r > unicode.MaxASCII }

func escapeForeign(text string) string {
	var out strings.Builder
	for i := range len(text) {
		if foreignToURIs(rune(text[i])) {
			fmt.Fprintf(&out, "%%%02X", text[i])
		} else {
			out.WriteByte(text[i])
		}
	}
	return out.String()
}

// FindResource finds in list the identifier of a resource server, in whichever of its equivalent spellings it comes
// (see [CanonicalURI]), and returns it as the list spells it.
func FindResource(list []string, identifier string) (spelled string, found bool) {
	if slices.Contains(list, identifier) {
		return identifier, true
	}
	canonical := CanonicalURI(identifier)
	for _, spelled := range list {
		if CanonicalURI(spelled) == canonical {
			return spelled, true
		}
	}
	return "", false
}

// ShareResource reports whether two lists have an identifier in common.
func ShareResource(list, other []string) bool {
	return slices.ContainsFunc(list, func(identifier string) bool {
		_, found := FindResource(other, identifier)
		return found
	})
}

// CanonicalURI is the one spelling of all that RFC 3986 section 6.2 takes for the same identifier: scheme and host
// in lower case, no port that is the default, no dot segments, nothing escaped that need not be, and an address without
// a path and the same with the path / are one. That one is written without the slash. What is no URI is its own.
func CanonicalURI(identifier string) string {
	u, err := url.Parse(identifier)
	if err != nil || u.Scheme == "" { // Parse has put it in lower case
		return identifier
	}
	rest := identifier[len(u.Scheme):] // from the colon on, as it came
	if u.Opaque != "" || u.Host == "" {
		return u.Scheme + canonicalEscapes(rest)
	}
	authority, rest := cutAuthority(strings.TrimPrefix(canonicalEscapes(rest), "://"))
	at := strings.LastIndexByte(authority, '@') + 1
	host, port, _ := cutPort(authority[at:])
	if host = strings.ToLower(host); port != "" && port != defaultPorts[u.Scheme] {
		host += ":" + port
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	switch path = withoutDots(path); {
	case hasQuery:
		path = cmp.Or(path, "/") + "?" + query
	case path == "/":
		path = ""
	}
	return u.Scheme + "://" + authority[:at] + host + path
}

// withoutDots removes the dot segments of an absolute path (RFC 3986 section 5.2.4).
func withoutDots(path string) string {
	segments := strings.Split(path, "/")
	out := segments[:0]
	for i, segment := range segments {
		last := i == len(segments)-1
		switch {
		case segment == "." || segment == "..":
			if segment == ".." && len(out) > 1 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, segment)
		}
	}
	return strings.Join(out, "/")
}

// canonicalEscapes decodes what is escaped although it need not be, and writes the other escapes in upper case (RFC
// 3986 sections 6.2.2.1 and 6.2.2.2).
func canonicalEscapes(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' || i+2 >= len(text) {
			out.WriteByte(text[i])
			continue
		}
		plain, err := url.PathUnescape(text[i : i+3])
		switch {
		case err != nil:
			out.WriteByte(text[i])
			continue
		case unreserved(rune(plain[0])):
			out.WriteString(plain)
		default:
			out.WriteString(strings.ToUpper(text[i : i+3]))
		}
		i += 2
	}
	return out.String()
}

// PathResourceMetadata is where a server publishes the metadata of the resource servers that are registered with it,
// below its issuer.
const PathResourceMetadata = "/oauth/resource"

// ResourceMetadataURL is the address at which the server with that issuer publishes the metadata (RFC 9728) of a
// resource server: what that resource server names as resource_metadata in the WWW-Authenticate header of a 401.
func ResourceMetadataURL(issuer, identifier string) string {
	return issuer + PathResourceMetadata + "?" + url.Values{"resource": {identifier}}.Encode()
}

// ResourceMetadata describes a resource server to clients (RFC 9728 section 2).
type ResourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	Scopes               []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	Name                 string   `json:"resource_name,omitempty"`
	PolicyURI            string   `json:"resource_policy_uri,omitempty"`
	TOSURI               string   `json:"resource_tos_uri,omitempty"`
}
