package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/warifu/warifu/server/oauth"
)

// Paths below the issuer.
const (
	pathAuthorize  = "/oauth/authorize"
	pathPushed     = "/oauth/par"
	pathStart      = "/oauth/start"
	pathContinue   = "/oauth/continue"
	pathSignIn     = "/oauth/signin"
	pathConnect    = "/oauth/connect/{id}" // of a connector
	pathCallback   = "/callback"           // Dex's; below it is each connector's own
	pathConsent    = "/oauth/consent"
	pathLogout     = "/oauth/logout"
	pathSignOut    = "/oauth/signout"
	pathToken      = "/oauth/token"
	pathUserinfo   = "/oauth/userinfo"
	pathIntrospect = "/oauth/introspect"
	pathRevoke     = "/oauth/revoke"
	pathDeviceAuth = "/oauth/device_authorization"
	pathRegister   = "/oauth/register" // below it is each client's own address (RFC 7592 section 2)
	pathDevice     = "/device"
	pathHere       = "/signin"
	pathFactor     = "/signin/factor"
	pathPasskey    = "/signin/passkey"
	pathWelcome    = "/welcome"
	pathForgot     = "/forgot"
	pathJWKS       = "/oauth/jwks"
	pathDiscovery  = "/.well-known/openid-configuration"
	pathMetadata   = "/.well-known/oauth-authorization-server"
)

// endpoint is one that programs call.
type endpoint struct {
	path      string // below the issuer
	methods   []string
	challenge challenge
	nonces    bool // replies offer a nonce for DPoP proofs (RFC 9449 section 8)
	document  bool // it is public: it may be cached, does not wait and reads no body
	// serve answers the request, or gives the error with which it is refused.
	serve func(w http.ResponseWriter, r *http.Request) error
}

// endpoints are those that programs call.
func (s *Server) endpoints() ([]*endpoint, error) {
	all, err := s.publicDocuments()
	if err != nil {
		return nil, err
	}
	post := []string{http.MethodPost}
	all = append(all, []*endpoint{
		{path: pathToken, methods: post, nonces: true, serve: s.token},
		{path: pathPushed, methods: post, nonces: true, serve: s.push},
		{path: pathIntrospect, methods: post, serve: s.introspection},
		{path: pathRevoke, methods: post, serve: s.revocation},
		{path: pathUserinfo, methods: []string{http.MethodGet, http.MethodPost}, challenge: challengeToken, nonces: true,
			serve: s.userinfo},
	}...)
	if s.offers(oauth.GrantDeviceCode) {
		all = append(all, &endpoint{path: pathDeviceAuth, methods: post, serve: s.deviceAuthorization})
	}
	if s.cfg.Registration != nil {
		all = append(all,
			&endpoint{path: pathRegister, methods: post, challenge: challengeRegistration, serve: s.register},
			&endpoint{path: pathRegister + "/{client}", methods: []string{http.MethodGet, http.MethodPut, http.MethodDelete},
				challenge: challengeRegistration, serve: s.manage})
	}
	return all, nil
}

// serveEndpoint serves an endpoint. But for documents, nothing of what it answers may be kept (RFC 6749 section 5.1).
func (s *Server) serveEndpoint(e *endpoint) http.Handler {
	allowed := strings.Join(e.methods, ", ")
	wrong := &statusError{http.StatusMethodNotAllowed, invalidRequest(oauth.RuleMethodNotAllowed,
		"use "+strings.Join(e.methods, " or "))}
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visitOf(r.Context()).endpoint = e
		if !e.document {
			noStore(w)
		}
		if e.nonces {
			s.offerNonce(w)
		}
		if !slices.Contains(e.methods, r.Method) {
			w.Header().Set("Allow", allowed)
			s.refuse(w, r, wrong)
			return
		}
		if err := e.serve(w, r); err != nil {
			s.refuse(w, r, err)
		}
	})
	if !e.document {
		h = s.limited(e, h)
	}
	return s.cors(e, h)
}

// offerNonce sends the present nonce along with a reply.
func (s *Server) offerNonce(w http.ResponseWriter) {
	nonce, err := s.proofNonce()
	if err != nil {
		if s.journal.faults.spend("", s.now()) {
			s.log.Error("cannot make a DPoP nonce", "error", err)
		}
		return
	}
	w.Header()[headerDPoPNonce] = nonce
}

// noStore is for everything that holds or judges a token (RFC 6749 section 5.1).
func noStore(w http.ResponseWriter) {
	h := w.Header()
	h["Cache-Control"] = headerNoStore
	h["Pragma"] = headerNoCache
}

// Values of headers that all replies share.
var (
	headerNoStore = []string{"no-store"}
	headerNoCache = []string{"no-cache"}
)

// clientRequest is a request in which a client authenticates (RFC 6749 section 3.2.1), once it has.
type clientRequest struct {
	client *client
	form   url.Values // its parameters, each with a value
	header http.Header
}

// clientRequest reads the parameters of a request and authenticates its client. What was shown as a credential that
// works once is not used up yet: that is for settle, or for spend.
func (s *Server) clientRequest(r *http.Request, path string) (*clientRequest, error) {
	form, err := clientForm(r)
	if err != nil {
		return nil, err
	}
	shown, err := credentialsOf(r, form, path)
	if err != nil {
		return nil, err
	}
	visitOf(r.Context()).client = shown.id
	c, err := s.identify(r.Context(), shown)
	if err != nil {
		return nil, err
	}
	return &clientRequest{client: c, form: form, header: r.Header}, nil
}

// clientForm reads the parameters of a request of a client.
func clientForm(r *http.Request) (url.Values, error) {
	form, err := bodyForm(r)
	visitOf(r.Context()).params = form
	return form, err
}

// spentFirst is clientRequest where the request does not use up the client's assertion in a transaction of its own: it
// is used up before anything is done.
func (s *Server) spentFirst(r *http.Request, path string) (*clientRequest, error) {
	q, err := s.clientRequest(r, path)
	if err != nil {
		return nil, err
	}
	return q, s.spend(r.Context(), q.client)
}
