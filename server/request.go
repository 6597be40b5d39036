package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/warifu/warifu/server/oauth"
)

// Paths below the issuer.
const (
	pathAuthorize  = "/oauth/authorize"
	pathPushed     = "/oauth/par"
	pathStart      = "/oauth/start"
	pathContinue   = "/oauth/continue"
	pathSignIn     = "/oauth/signin"
	pathConsent    = "/oauth/consent"
	pathLogout     = "/oauth/logout"
	pathSignOut    = "/oauth/signout"
	pathToken      = "/oauth/token"
	pathUserinfo   = "/oauth/userinfo"
	pathIntrospect = "/oauth/introspect"
	pathRevoke     = "/oauth/revoke"
	pathDeviceAuth = "/oauth/device_authorization"
	pathDevice     = "/device"
	pathJWKS       = "/oauth/jwks"
	pathDiscovery  = "/.well-known/openid-configuration"
	pathMetadata   = "/.well-known/oauth-authorization-server"
)

var machinePaths = []string{pathToken, pathPushed, pathUserinfo, pathIntrospect, pathRevoke}

// machines is zitadel/oidc behind our filter. The library reads parameters from the query as well as from the body, takes
// any method, and knows nothing of JSON: what it is given has been made a plain form, with each parameter once.
func (s *Server) machines() http.Handler {
	p := &provider{Server: s}
	engine := op.RegisterServer(p, op.Endpoints{
		Token:               op.NewEndpoint(pathToken),
		Revocation:          op.NewEndpoint(pathRevoke),
		DeviceAuthorization: op.NewEndpoint(pathDeviceAuth),
	}, op.WithServerCORSOptions(nil))
	return s.cors(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, s.base)
		switch path {
		case pathIntrospect:
			p.introspection(w, r)
		case pathToken, pathRevoke, pathDeviceAuth:
			s.filterClientRequest(w, r, path, engine)
		case pathPushed:
			p.push(w, r)
		case pathUserinfo:
			p.userinfo(w, r)
		case pathRegister:
			p.register(w, r)
		default: // below pathRegister
			p.manage(w, r)
		}
	}))
}

// to hands a request to the library, under the path that it knows.
func to(engine http.Handler, w http.ResponseWriter, r *http.Request, path string, form url.Values) {
	inner := *r
	inner.URL = &url.URL{Path: path}
	inner.Form, inner.PostForm = form, form
	engine.ServeHTTP(w, &inner)
}

// filterClientRequest is for requests in which a client authenticates (RFC 6749 section 3.2.1).
func (s *Server) filterClientRequest(w http.ResponseWriter, r *http.Request, path string, engine http.Handler) {
	noStore(w)
	if path == pathToken {
		s.offerNonce(w)
	}
	if !method(w, r, http.MethodPost) {
		return
	}
	cw := &challenged{ResponseWriter: w, challenge: challengeBasic}
	form, err := bodyForm(r)
	if err != nil {
		op.WriteError(cw, r, err, nil)
		return
	}
	if err := s.checkCredentials(r, form, path); err != nil {
		op.WriteError(cw, r, err, nil)
		return
	}
	if path == pathToken && form.Get("grant_type") == string(oidc.GrantTypeCode) && !form.Has("redirect_uri") {
		// The library insists on it; the promised flow does without (so does OAuth 2.1). See omitted.
		withRedirect := url.Values{"redirect_uri": {omitted}}
		for name, values := range form {
			withRedirect[name] = values
		}
		form = withRedirect
	}
	to(engine, cw, r, path, form)
}

// challengeBasic is where clients authenticate (RFC 7617 section 2).
const challengeBasic = `Basic realm="warifu", charset="UTF-8"`

// clientRequest is what filterClientRequest does, for endpoints that the library does not have: it reads the parameters, each
// of them once, and authenticates the client. Its error is for op.WriteError.
func (p *provider) clientRequest(r *http.Request, path string) (*client, url.Values, error) {
	form, err := p.clientForm(r, path)
	if err != nil {
		return nil, nil, err
	}
	c, err := p.requestClient(r, form, path)
	return c, form, err
}

// clientForm reads the parameters of a request in which a client authenticates, and finds its credentials well-formed.
func (p *provider) clientForm(r *http.Request, path string) (url.Values, error) {
	form, err := bodyForm(r)
	if err != nil {
		return nil, err
	}
	return form, p.checkCredentials(r, form, path)
}

// requestClient authenticates the client of a request whose form clientForm has read.
func (p *provider) requestClient(r *http.Request, form url.Values, path string) (*client, error) {
	credentials := op.ClientCredentials{
		ClientID: form.Get("client_id"), ClientSecret: form.Get("client_secret"),
		ClientAssertion: form.Get("client_assertion"), ClientAssertionType: form.Get("client_assertion_type"),
	}
	if id, secret, basic := basicCredentials(r); basic {
		credentials.ClientID, credentials.ClientSecret = id, secret
	}
	c, err := p.VerifyClient(r.Context(), &op.Request[op.ClientCredentials]{
		Method: r.Method, URL: &url.URL{Path: path}, Header: r.Header, Form: form, PostForm: form, Data: &credentials})
	if err != nil {
		return nil, err
	}
	return c.(*client), nil
}

// basicCredentials are those of the header, which checkCredentials has found to be well-formed (RFC 6749 section 2.3.1).
func basicCredentials(r *http.Request) (id, secret string, basic bool) {
	id, secret, basic = r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	return id, secret, basic
}

// omitted stands for a redirect_uri that a code exchange did not send. It can never have been registered.
const omitted = "urn:warifu:omitted"

// checkCredentials answers what the library would answer with the wrong error.
func (s *Server) checkCredentials(r *http.Request, form url.Values, path string) error {
	headers := r.Header.Values("Authorization")
	id, secret, basic := r.BasicAuth()
	if basic {
		var errs [2]error
		id, errs[0] = url.QueryUnescape(id) // RFC 6749 section 2.3.1
		_, errs[1] = url.QueryUnescape(secret)
		if errors.Join(errs[:]...) != nil {
			return invalidClient()
		}
	}
	secretSent, asserted := form.Has("client_secret"), form.Has("client_assertion")
	switch {
	case len(headers) > 1:
		return invalidRequest("send one Authorization header, not two")
	case len(headers) == 1 && !basic:
		return invalidClient()
	case basic && (secretSent || asserted), secretSent && asserted:
		return invalidRequest("use one way of client authentication, not two")
	case basic && form.Has("client_id") && form.Get("client_id") != id:
		return invalidRequest("client_id is not that of the client that authenticates")
	case asserted != form.Has("client_assertion_type"):
		return invalidRequest("client_assertion and client_assertion_type go together")
	case asserted && form.Get("client_assertion_type") != assertionType:
		return invalidClient()
	case !basic && !asserted && !form.Has("client_id"):
		return invalidClient()
	case path == pathIntrospect && !basic && !asserted && !secretSent:
		return invalidClient()
	case (path == pathIntrospect || path == pathRevoke) && !form.Has("token"):
		return invalidRequest("token is missing")
	case path == pathToken && form.Has("grant_type") && !s.offers(form.Get("grant_type")):
		// Of some of those the library would say that this client may not use them.
		return s.unsupportedGrantType()
	}
	return nil
}

// challenged adds the WWW-Authenticate header that a 401 must have (RFC 9110 section 11.6.1).
type challenged struct {
	http.ResponseWriter
	challenge string // of an endpoint where clients authenticate

	// resource is an endpoint that takes access tokens: by Bearer or, when this request did so, by DPoP. The scheme that was used
	// names the error (RFC 6750 section 3, RFC 9449 section 7.1); the other is offered beside it.
	resource bool
	proven   bool
	code     string
}

func (c *challenged) WriteHeader(status int) {
	switch {
	case status == http.StatusUnauthorized && c.resource:
		mine, other := c.schemes("")
		c.Header().Set("WWW-Authenticate", mine)
		c.Header().Add("WWW-Authenticate", other)
	case status == http.StatusForbidden && c.resource:
		mine, _ := c.schemes(`, scope="` + oauth.ScopeOpenID + `"`)
		c.Header().Set("WWW-Authenticate", mine)
	case status == http.StatusUnauthorized:
		c.Header().Set("WWW-Authenticate", c.challenge)
	case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests:
		c.Header().Set("Retry-After", "2")
	}
	c.ResponseWriter.WriteHeader(status)
}

// schemes are the challenges of a resource: the one of the scheme that was used, with the error, and the other.
func (c *challenged) schemes(more string) (mine, other string) {
	mine, other = `Bearer realm="warifu"`, `DPoP algs="`+strings.Join(dpopAlgNames(), " ")+`"`
	if c.proven {
		mine, other = other, mine
	}
	if c.code != "" {
		mine += `, error="` + c.code + `"` + more
	}
	return mine, other
}

// noStore is for everything that holds or judges a token (RFC 6749 section 5.1).
func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
}

// method answers 405 to all methods but those.
func method(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	op.WriteError(w, r, op.NewStatusError(
		oidc.ErrInvalidRequest().WithDescription("use %s", strings.Join(methods, " or ")), http.StatusMethodNotAllowed), nil)
	return false
}

// bodyForm reads the parameters of a request from its body: a form, or a JSON object of strings. Parameters without a value
// count as omitted; one that comes twice, or in the query, makes the request invalid (RFC 6749 section 3.2).
func bodyForm(r *http.Request) (url.Values, error) {
	if r.URL.RawQuery != "" {
		return nil, invalidRequest("send parameters in the body, not in the query")
	}
	contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		contentType = ""
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, fail(http.StatusRequestEntityTooLarge, string(oidc.InvalidRequest), "the body is larger than 64 KiB")
		}
		return nil, invalidRequest("the body could not be read")
	}
	var form url.Values
	switch contentType {
	case "application/x-www-form-urlencoded":
		if form, err = url.ParseQuery(string(body)); err != nil {
			return nil, invalidRequest("the body is not a well-formed form")
		}
	case "application/json":
		if form, err = jsonForm(body); err != nil {
			return nil, err
		}
	default:
		return nil, invalidRequest("Content-Type must be application/x-www-form-urlencoded or application/json")
	}
	return onceEach(form)
}

// severalTimes are the parameters that may come more than once (RFC 8707 section 2, RFC 8693 section 2.1).
var severalTimes = []string{"resource", "audience"}

// onceEach drops parameters without a value and refuses those that come more than once.
func onceEach(form url.Values) (url.Values, error) {
	for name, values := range form {
		if len(values) > 1 && !slices.Contains(severalTimes, name) {
			return nil, invalidRequest("a parameter comes more than once")
		}
		for _, value := range values {
			if !utf8.ValidString(name) || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
				return nil, invalidRequest("a parameter is not text")
			}
		}
		if values = slices.DeleteFunc(values, func(value string) bool { return value == "" }); len(values) == 0 {
			delete(form, name)
		} else {
			form[name] = values
		}
	}
	return form, nil
}

// jsonForm reads one flat JSON object of strings, each name once: who needs several resources sends a form.
func jsonForm(body []byte) (url.Values, error) {
	bad := invalidRequest("the body must be one JSON object whose values are strings")
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, bad
	}
	form := url.Values{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, bad
		}
		value, err := dec.Token()
		if err != nil {
			return nil, bad
		}
		text, ok := value.(string)
		if !ok {
			return nil, bad
		}
		if form.Has(name.(string)) {
			return nil, invalidRequest("a parameter comes more than once")
		}
		form.Set(name.(string), text)
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return nil, bad
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad
	}
	return form, nil
}
