package manifests

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

func checkGrantType(c *checker, v *strictyaml.Value, path string) {
	on := c.opts.GrantTypes
	if len(on) == 0 {
		on = oauth.GrantTypes()
	}
	switch {
	case slices.Contains(on, v.Text):
	case v.Text == "":
		c.Errorf(v.Position, path, "required", "", "is empty")
	case slices.Contains(oauth.GrantTypes(), v.Text):
		c.Errorf(v.Position, path, "grant-type", "", "is %s, which this server has not switched on (oauth2.grantTypes of its configuration)", v.Text)
	default:
		c.Errorf(v.Position, path, "grant-type", c.nearestGrantType(v.Text, on), "is %s, which is not a grant type of this server", strictyaml.Quote(v.Text))
	}
}

// nearestGrantType also takes the last part of a URN for the whole, as people say it.
func (c *checker) nearestGrantType(word string, on []string) string {
	short := make([]string, len(on))
	for i, name := range on {
		short[i] = strings.TrimPrefix(name, "urn:ietf:params:oauth:grant-type:")
	}
	i := slices.Index(short, word)
	if i < 0 {
		i = slices.Index(short, c.nearest(strings.TrimPrefix(word, "urn:ietf:params:oauth:grant-type:"), short))
	}
	if i < 0 {
		return ""
	}
	return on[i]
}

// checkAppAddress allows what may be a redirect URI, and has a port of its own: this server, or the user's browser, is going to
// ask for exactly this address.
func checkAppAddress(c *checker, v *strictyaml.Value, path string) {
	var refused *oauth.RedirectURIError
	err := oauth.CheckRedirectURI(v.Text)
	switch {
	case errors.As(err, &refused):
		suggestion := mendRedirectURI(v.Text, refused.Rule)
		if strings.Contains(suggestion, "*") {
			suggestion = ""
		}
		c.Errorf(v.Position, path, "url", suggestion, "%s", refused.Reason)
	case strings.Contains(v.Text, "*"):
		c.Errorf(v.Position, path, "url", "", "must name a port: only a redirect URI may leave it open")
	}
}

// checkSectorIdentifier is OpenID Connect Core 1.0 section 8.1, which knows no exception for loopback.
func checkSectorIdentifier(c *checker, v *strictyaml.Value, path string) {
	if rest, plain := strings.CutPrefix(v.Text, "http://"); plain && oauth.CheckRedirectURI(v.Text) == nil {
		c.Errorf(v.Position, path, "url", "https://"+rest, "must be https")
		return
	}
	checkAppAddress(c, v, path)
}

// checkResourceIdentifier is RFC 8707 section 2.
func checkResourceIdentifier(c *checker, v *strictyaml.Value, path string) {
	const wanted = "must be an absolute URI without a fragment, as in https://api.example.com"
	u, err := url.Parse(v.Text)
	switch {
	case v.Text == "":
		c.Errorf(v.Position, path, "required", "", "is empty")
	case err != nil || len(v.Text) > maxWebAddress || !isPlainASCII(v.Text),
		u.Scheme == "", u.Opaque == "" && u.Host == "", (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() == "":
		c.Errorf(v.Position, path, "resource-identifier", "", wanted)
	case strings.Contains(v.Text, "#"):
		before, _, _ := strings.Cut(v.Text, "#")
		c.Errorf(v.Position, path, "resource-identifier", before, wanted)
	case u.User != nil:
		c.Errorf(v.Position, path, "resource-identifier", "", "must not hold a user name or password")
	}
}

// client is spec.oauth while its parts are held against each other. What has the wrong type was reported before and counts
// as not written here.
type client struct {
	*checker
	*strictyaml.Value
	path string
}

func (c *checker) checkOAuth(oauth *strictyaml.Value, path string) {
	if oauth == nil || oauth.Kind != strictyaml.Mapping {
		return
	}
	o := client{c, oauth, path}
	o.checkGrants()
	o.checkAuthentication()
	o.checkKeys()
	o.checkSubjects()
	o.checkLogout()
	o.checkResources()
}

// fault is an error about a key, at its value.
func (o client) fault(key, code, format string, args ...any) {
	at := o.Position
	if v := o.Field(key); v != nil {
		at = v.Position
	}
	o.Errorf(at, strictyaml.Join(o.path, key), code, "", format, args...)
}

// unused is a warning about a key that nothing follows from.
func (o client) unused(key, format string, args ...any) {
	o.Warnf(o.Field(key).Position, strictyaml.Join(o.path, key), "unused", "", format, args...)
}

func (o client) has(key string) bool {
	v := o.Field(key)
	return v != nil && !v.IsNull()
}

func (o client) text(key string) string {
	if v := o.Field(key); v != nil && v.IsText() {
		return v.Text
	}
	return ""
}

func (o client) flag(key string) bool {
	v := o.Field(key)
	return v != nil && v.Data == true
}

func (o client) texts(key string) []string {
	v := o.Field(key)
	if v == nil {
		return nil
	}
	var out []string
	for _, item := range v.Items {
		if item.IsText() {
			out = append(out, item.Text)
		}
	}
	return out
}

// grants are the grant types that are written and that there are.
func (o client) grants() []string {
	return slices.DeleteFunc(o.texts("grantTypes"), func(name string) bool { return !slices.Contains(oauth.GrantTypes(), name) })
}

// signsIn says whether users sign in to the client with a browser.
func (o client) signsIn() bool {
	types := o.grants()
	return len(types) == 0 || slices.Contains(types, oauth.GrantAuthorizationCode)
}

func (o client) checkGrants() {
	types := o.grants()
	switch signsIn := o.signsIn(); {
	case signsIn && o.Field("redirectUris") == nil:
		o.fault("redirectUris", "required", "is required")
	case !signsIn && len(o.texts("redirectUris")) > 0:
		o.unused("redirectUris", "is of no use: grantTypes has no authorization_code")
	}
	if slices.Contains(types, oauth.GrantRefreshToken) && !o.signsIn() && !slices.Contains(types, oauth.GrantDeviceCode) {
		o.unused("grantTypes", "has refresh_token, and none of the grants that give one (authorization_code and the device grant)")
	}
	if !o.flag("public") {
		return
	}
	for _, name := range types {
		if name == oauth.GrantClientCredentials || name == oauth.GrantTokenExchange {
			o.fault("grantTypes", "public-client", "has %s, which is for clients that authenticate: a public one cannot", name)
		}
	}
}

func (o client) checkAuthentication() {
	method, public := o.text("tokenEndpointAuthMethod"), o.flag("public")
	switch {
	case method == oauth.AuthNone && !public:
		o.fault("tokenEndpointAuthMethod", "auth-method", "is none, which is for public clients: add public: true, or leave it out to use the secret")
	case public && method != oauth.AuthNone && slices.Contains(oauth.AuthMethods(), method):
		o.fault("tokenEndpointAuthMethod", "auth-method", "is %s, and a public client has nothing to authenticate with: take out one of the two", method)
	}
	if o.has("tokenEndpointAuthSigningAlg") && method != oauth.AuthPrivateKeyJWT && (method == "" || slices.Contains(oauth.AuthMethods(), method)) {
		o.fault("tokenEndpointAuthSigningAlg", "auth-method", "is for tokenEndpointAuthMethod: private_key_jwt")
	}
}

// checkKeys holds what the client signs against the keys that it names.
func (o client) checkKeys() {
	jwks, uri := o.has("jwks"), o.has("jwksUri")
	if jwks && uri {
		o.fault("jwksUri", "pair", "and jwks exclude each other (RFC 7591 section 2)")
	}
	authenticates := o.text("tokenEndpointAuthMethod") == oauth.AuthPrivateKeyJWT
	request := o.text("requestObjectSigningAlg")
	switch {
	case !jwks && !uri && authenticates:
		o.fault("tokenEndpointAuthMethod", "keys", "is private_key_jwt, which needs jwks or jwksUri: the public keys of the client")
	case !jwks && !uri && slices.Contains(oauth.ClientAlgs(), request):
		o.fault("requestObjectSigningAlg", "keys", "needs jwks or jwksUri: the public keys of the client")
	}
	if !jwks || uri {
		return
	}
	set := o.Field("jwks")
	for _, signed := range [...]struct {
		key  string
		used bool
	}{{"tokenEndpointAuthSigningAlg", authenticates}, {"requestObjectSigningAlg", true}} {
		if alg := o.text(signed.key); signed.used && slices.Contains(oauth.ClientAlgs(), alg) && !canSign(set, alg) {
			o.fault(signed.key, "keys", "is %s, and no key of jwks can sign so", alg)
		}
	}
	if authenticates && !canSign(set, "") {
		o.fault("jwks", "keys", "has no key that signs: they are all for encryption")
	}
}

func (o client) checkSubjects() {
	if o.text("subjectType") != "pairwise" {
		if subject := o.text("subjectType"); o.has("sectorIdentifierUri") && (subject == "" || subject == "public") {
			o.unused("sectorIdentifierUri", "is of no use without subjectType: pairwise")
		}
		return
	}
	registered := oauth.Client{RedirectURIs: o.texts("redirectUris")}
	if _, err := registered.Sector(""); errors.Is(err, oauth.ErrSectors) && !o.has("sectorIdentifierUri") {
		o.fault("subjectType", "sector", "is pairwise, and redirectUris are on several hosts: add sectorIdentifierUri "+
			"(OpenID Connect Core 1.0 section 8.1)")
	}
}

func (o client) checkLogout() {
	for _, channel := range [...]string{"backchannel", "frontchannel"} {
		if o.flag(channel+"LogoutSessionRequired") && !o.has(channel+"LogoutUri") {
			o.fault(channel+"LogoutSessionRequired", "pair", "needs %sLogoutUri", channel)
		}
	}
	uri := o.text("frontchannelLogoutUri")
	if uri == "" || oauth.CheckRedirectURI(uri) != nil {
		return
	}
	if !slices.ContainsFunc(o.texts("redirectUris"), func(redirect string) bool { return sameOrigin(redirect, uri) }) {
		o.fault("frontchannelLogoutUri", "front-channel", "must have scheme, host and port of a redirect URI "+
			"(OpenID Connect Front-Channel Logout 1.0 section 2)")
	}
}

func (o client) checkResources() {
	if o.flag("public") && len(o.texts("resourceIdentifiers")) > 0 {
		o.fault("resourceIdentifiers", "public-client", "is for clients that authenticate: a public one cannot introspect tokens")
	}
}

// sameOrigin compares scheme, host and port; the port of a redirect URI may be left open.
func sameOrigin(redirect, uri string) bool {
	scheme, host, port, ok := origin(redirect)
	otherScheme, otherHost, otherPort, otherOK := origin(uri)
	return ok && otherOK && scheme == otherScheme && host == otherHost && (port == otherPort || port == "*")
}

// origin takes a URI apart that may be a redirect URI: net/url does not read a port that is left open.
func origin(uri string) (scheme, host, port string, ok bool) {
	if oauth.CheckRedirectURI(uri) != nil {
		return "", "", "", false
	}
	scheme, rest, _ := strings.Cut(uri, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		rest = rest[:i]
	}
	host, port = rest, map[string]string{"http": "80", "https": "443"}[scheme]
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		host, port = rest[:i], rest[i+1:]
	}
	return scheme, strings.ToLower(host), port, true
}
