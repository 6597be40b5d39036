package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Pushed authorization requests (RFC 9126): a client sends its request here itself, authenticated, and gives the browser only a
// request_uri.
//
// What is pushed is checked as at the authorization endpoint, and sealed: the request_uri is a name and the whole request at once.
// So pushing writes nothing, but for an assertion that is used up, and nothing is read when the browser comes. From there on it is
// a pending request like any other, whose life is its own. It is answered with a code once: that is one write, when somebody has
// signed in and allowed it. Until then a browser may reload it, and an error answers it any number of times.

const (
	// pushedURI begins every request_uri that this server gives (RFC 9126 section 2.2).
	pushedURI = "urn:ietf:params:oauth:request_uri:"
	// pushedLife is how long a browser may take to come with it: it was on its way when the client pushed.
	pushedLife = 90 * time.Second
)

// pushed is what makes a pushed request answerable once.
type pushed struct {
	ID      string `json:"i"`
	Expires int64  `json:"x"` // Unix milliseconds, for the browser to come
}

// pushedReply is the answer to a push (RFC 9126 section 2.2).
type pushedReply struct {
	RequestURI string `json:"request_uri"`
	ExpiresIn  int64  `json:"expires_in"` // seconds
}

// push is the pushed authorization request endpoint.
func (p *provider) push(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	p.offerNonce(w)
	if !method(w, r, http.MethodPost) {
		return
	}
	cw := &challenged{ResponseWriter: w, challenge: challengeBasic}
	c, form, err := p.clientRequest(r, pathPushed)
	if err != nil {
		op.WriteError(cw, r, err, nil)
		return
	}
	reply, err := p.pushRequest(r, c.Client, form)
	// As at the token endpoint, see settled.
	if code := codeOf(err); code != codeTemporarilyUnavailable && code != codeUseNonce {
		if fault := p.spend(r.Context(), c); fault != nil {
			err = fault
		}
	}
	if err != nil {
		op.WriteError(cw, r, err, nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(reply) // a client that has gone away is not a fault of ours
}

// pushRequest checks a request of a client that has authenticated, and seals it.
func (p *provider) pushRequest(r *http.Request, c *storage.Client, form url.Values) (pushedReply, error) {
	ctx := r.Context()
	if form.Has("request_uri") {
		return pushedReply{}, invalidRequest("request_uri cannot be pushed") // RFC 9126 section 2.1
	}
	for _, name := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		form.Del(name)
	}
	a, to, err := p.checkRequest(ctx, c, form, true)
	if err == nil {
		err = p.proofOf(r, a)
	}
	var fault *oauthFault
	if errors.As(err, &fault) {
		return pushedReply{}, pushFault(fault, to)
	}
	if err != nil {
		return pushedReply{}, p.unavailable(ctx, "checking a pushed request", err)
	}
	a.Pushed = &pushed{ID: randomHex(16), Expires: p.now().Add(pushedLife).UnixMilli()}
	sealed, err := p.seal(storage.SealPushed, a)
	if err != nil {
		return pushedReply{}, p.unavailable(ctx, "sealing a pushed request", err)
	}
	return pushedReply{RequestURI: pushedURI + sealed, ExpiresIn: int64(pushedLife / time.Second)}, nil
}

// pushFault is the error reply for what is wrong with a request.
func pushFault(fault *oauthFault, to replyTo) error {
	code := fault.code
	if code == "unauthorized_client" && to.redirectURI == "" {
		code = "invalid_request" // so RFC 9126 section 2.3 calls a redirect URI that is not registered
	}
	return fail(http.StatusBadRequest, code, fault.description)
}

// proofOf binds a pushed request to the key of the DPoP proof that came with it, if one did (RFC 9449 section 10.1).
func (s *Server) proofOf(r *http.Request, a *AuthRequest) error {
	if len(r.Header.Values(headerDPoP)) == 0 {
		return nil
	}
	key, err := s.proof(r.Header, http.MethodPost, pathPushed, "")
	if err != nil {
		return err
	}
	if a.DPoPKey != "" && a.DPoPKey != key {
		return badProof("dpop_jkt names another key than that of the DPoP proof")
	}
	a.DPoPKey = key
	return nil
}

// pushedRequest is the request behind a request_uri that a browser brought. Its errors are for the user: where the client would be
// told is in the request, which is not known to be good.
func (s *Server) pushedRequest(c *storage.Client, requestURI string) (*AuthRequest, error) {
	var a AuthRequest
	err := s.open(storage.SealPushed, strings.TrimPrefix(requestURI, pushedURI), &a)
	switch {
	case errors.Is(err, storage.ErrNotFound), err == nil && a.Pushed == nil:
		return nil, onPage(pages.ReasonInvalidRequest, codeInvalidRequestURI, "request_uri is none that this server gave, or it is too old")
	case err != nil:
		return nil, err
	case a.ClientID != c.ID:
		return nil, onPage(pages.ReasonInvalidRequest, codeInvalidRequestURI, "request_uri was given to another client")
	case s.now().After(time.UnixMilli(a.Pushed.Expires)):
		return nil, onPage(pages.ReasonExpired, codeInvalidRequestURI, "request_uri has expired")
	}
	return &a, s.stillGood(c, &a)
}

// answerOnce takes note that a pushed request is answered with a code. One that was before is not answered again.
// Only the same visit is, whose form was sent twice, or whose answer was lost.
func (s *Server) answerOnce(ctx context.Context, t turn) error {
	a := t.request
	if a.Pushed == nil {
		return nil
	}
	// Whoever came with it in time has the life of a pending request.
	until := time.UnixMilli(a.Pushed.Expires).Add(s.life.AuthRequest)
	err := s.store.SpendBy(ctx, storage.Once{ID: "pushed request\n" + a.Pushed.ID, Until: until}, t.sealed)
	if errors.Is(err, storage.ErrSpent) {
		return onPage(pages.ReasonExpired, codeInvalidRequestURI, "the pushed request was answered before; push it again")
	}
	return err
}
