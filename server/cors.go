package server

import (
	"net/http"
	"strings"

	"github.com/warifu/warifu/server/oauth"
)

// Browser apps call what programs call, from pages of other origins (the CORS protocol of the Fetch standard). No
// cookie counts there, so what a page learns it could have asked for by itself; what is kept from it are answers to
// clients that are not its own.
//
//   - Documents are for everybody.
//   - An answer to a client is for pages of that client: of the origins of its redirect URIs, those that its manifest
//     adds, and those of the configuration. Whose request it is, only its body or its token says: so the answer has it,
//     and libraries that decide before they pass a request on do not fit.
//   - As long as it is not known whose request it is, the answer is about the request, and for everybody: an app that
//     mistypes its client_id is told so.
//   - A preflight has neither body nor token. It is answered for everybody, and with whatever headers it asks for.

// Header values that answers to other origins share.
var (
	anyOrigin      = []string{"*"}
	varyByOrigin   = []string{"Origin"}
	varyPreflight  = []string{"Access-Control-Request-Headers"}
	exposedHeaders = []string{"Dpop-Nonce, Retry-After, Www-Authenticate, X-Request-Id"}
	preflightLife  = []string{"7200"} // seconds; Chromium takes no more
)

// cors serves an endpoint to pages of other origins.
func (s *Server) cors(e *endpoint, next http.Handler) http.Handler {
	methods := []string{strings.Join(e.methods, ", ")}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch asks := r.Header["Access-Control-Request-Method"]; {
		case r.Method == http.MethodOptions && len(asks) > 0 && r.Header["Origin"] != nil:
			h["Access-Control-Allow-Origin"], h["Access-Control-Allow-Methods"] = anyOrigin, methods
			if wanted := r.Header["Access-Control-Request-Headers"]; len(wanted) > 0 {
				h["Access-Control-Allow-Headers"] = wanted
			}
			h["Access-Control-Max-Age"], h["Vary"] = preflightLife, varyPreflight
			w.WriteHeader(http.StatusNoContent)
		case e.document:
			h["Access-Control-Allow-Origin"] = anyOrigin // and nothing in its header that a page would look for
			next.ServeHTTP(w, r)
		case r.Header["Origin"] != nil:
			next.ServeHTTP(&crossing{ResponseWriter: w, server: s, r: r}, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// crossing is a reply to a page of another origin. Whether that may read it is decided when the reply begins, as by
// then it is known to which client it is.
type crossing struct {
	http.ResponseWriter
	server *Server
	r      *http.Request
	begun  bool
}

func (c *crossing) WriteHeader(status int) {
	if !c.begun {
		c.begun = true
		c.allow()
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *crossing) Write(body []byte) (int, error) {
	if !c.begun {
		c.WriteHeader(http.StatusOK)
	}
	return c.ResponseWriter.Write(body)
}

// Unwrap is for [http.ResponseController].
func (c *crossing) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *crossing) allow() {
	h, got, known := c.Header(), c.r.Header.Get("Origin"), visitOf(c.r.Context()).known
	h["Vary"] = varyByOrigin
	if known != nil && !oauth.MatchOrigin(c.server.cfg.AllowedOrigins, got) && !oauth.MatchOrigin(known.Origins(), got) {
		return
	}
	h["Access-Control-Allow-Origin"], h["Access-Control-Expose-Headers"] = []string{got}, exposedHeaders
}
