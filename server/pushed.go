package server

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// Pushed authorization requests (RFC 9126): a client sends its request here itself, authenticated, and gives the
// browser only a request_uri.
//
// What is pushed is checked as at the authorization endpoint, and sealed: the request_uri is a name and the whole
// request at once. So pushing writes nothing, but for an assertion that is used up, and nothing is read when the
// browser comes. From there on it is a pending request like any other, whose life is its own. It is answered with a
// code once: that is one write, when a user has signed in and allowed it. Until then a browser may reload it, and an
// error answers it any number of times.

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
func (s *Server) push(w http.ResponseWriter, r *http.Request) error {
	q, err := s.clientRequest(r, pathPushed)
	if err != nil {
		return err
	}
	reply, err := s.pushRequest(r, q.client.Client, q.form)
	if err := s.settle(r.Context(), q.client, err); err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, reply)
	return nil
}

// pushRequest checks a request of a client that has authenticated, and seals it.
func (s *Server) pushRequest(r *http.Request, c *storage.Client, sent url.Values) (*pushedReply, error) {
	if sent.Has("request_uri") {
		return nil, invalidRequest(oauth.RuleRequestURIForeign, "request_uri cannot be pushed") // RFC 9126 section 2.1
	}
	form := maps.Clone(sent)
	for _, name := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		form.Del(name)
	}
	a, to, err := s.checkRequest(r.Context(), c, form, true)
	if err == nil {
		err = s.proofOf(r, a)
	}
	if e := refused(err); e != nil && e.Code == oauth.CodeUnauthorizedClient && to.redirectURI == "" {
		renamed := *e
		renamed.Code = oauth.CodeInvalidRequest // so RFC 9126 section 2.3 calls a redirect URI that is not registered
		return nil, &renamed
	}
	if err != nil {
		return nil, err
	}
	a.Pushed = &pushed{ID: randomHex(16), Expires: s.now().Add(pushedLife).UnixMilli()}
	sealed, err := s.seal(storage.SealPushed, a)
	if err != nil {
		return nil, err
	}
	return &pushedReply{RequestURI: pushedURI + sealed, ExpiresIn: int64(pushedLife / time.Second)}, nil
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
		return badProof(oauth.RuleProofKey, "dpop_jkt names a key other than that of the DPoP proof")
	}
	a.DPoPKey = key
	return nil
}

// pushedRequest is the request behind a request_uri that a browser brought. Its errors are for the user: where the
// client would be told is in the request, which is not known to be good.
func (s *Server) pushedRequest(c *storage.Client, requestURI string) (*AuthRequest, error) {
	var a AuthRequest
	err := s.open(storage.SealPushed, strings.TrimPrefix(requestURI, pushedURI), &a)
	switch {
	case errors.Is(err, storage.ErrNotFound), err == nil && a.Pushed == nil:
		return nil, onPage(pages.ReasonInvalidRequest, oauth.Refuse(oauth.CodeInvalidRequestURI, oauth.RulePushedUnknown,
			"request_uri was not given by this server, or it is too old"))
	case err != nil:
		return nil, err
	case a.ClientID != c.ID:
		return nil, onPage(pages.ReasonInvalidRequest, oauth.Refuse(oauth.CodeInvalidRequestURI, oauth.RulePushedOtherClient,
			"request_uri was given to another client"))
	}
	t := turn{client: c, request: &a}
	if s.now().After(time.UnixMilli(a.Pushed.Expires)) {
		return nil, t.onPage(pages.ReasonExpired, oauth.Refuse(oauth.CodeInvalidRequestURI, oauth.RulePushedExpired,
			"request_uri has expired"))
	}
	if !c.Issued(time.UnixMilli(a.Pushed.Expires).Add(-pushedLife)) {
		return nil, t.onPage(pages.ReasonExpired, oauth.Refuse(oauth.CodeInvalidRequestURI, oauth.RuleClientReturned,
			"request_uri is older than the client"))
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
		return t.onPage(pages.ReasonUsed, oauth.Refuse(oauth.CodeInvalidRequestURI, oauth.RulePushedUsed,
			"the pushed request was answered before; push it again"))
	}
	return err
}
