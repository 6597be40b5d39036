package server

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
)

// limits of a request. Headers are limited by the http.Server that serves us.
const (
	maxBody = 64 << 10
	// An answer of SAML 2.0 tells of all groups of a person, of which the configuration may keep a few; its body counts as
	// several, see [arrivals].
	maxAnswer = 4 * maxBody
	maxQuery  = 20 << 10
	// requestTime is how long a request may wait for storage and connectors in all.
	requestTime = 15 * time.Second
)

// newRequestID is 64 random bits in hexadecimal digits, so that replicas need not agree on ids to have different ones.
// It opens nothing, so it need not come from crypto/rand.
func newRequestID() string {
	const digits = "0123456789abcdef"
	var id [16]byte
	for i, n := 0, rand.Uint64(); i < len(id); i, n = i+1, n>>4 {
		id[i] = digits[n&0xf]
	}
	return string(id[:])
}

// isRequestID reports whether an id has the form of [newRequestID].
func isRequestID(id string) bool {
	return len(id) == 16 && strings.Trim(id, "0123456789abcdef") == ""
}

// LogHandler adds the id of the request, where there is one, to what is logged through next, and that of its trace.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	if v := visitOf(ctx); v.id[0] != "" {
		record = record.Clone()
		record.AddAttrs(slog.String("request_id", v.id[0]))
		if v.span != nil {
			record.AddAttrs(slog.String("trace_id", v.span.ID()))
		}
	}
	return h.Handler.Handle(ctx, record)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }

// Header values of every response, shared by all of them.
var (
	noSniffing  = []string{"nosniff"}
	noReferrer  = []string{"no-referrer"}
	strictHTTPS = []string{"max-age=31536000"} // a year
)

// commonHeaders are those of every response.
func (s *Server) commonHeaders(h http.Header, id []string) {
	h["X-Request-Id"] = id
	h["X-Content-Type-Options"] = noSniffing
	h["Referrer-Policy"] = noReferrer
	if s.address.Scheme == "https" {
		h["Strict-Transport-Security"] = strictHTTPS
	}
}

// middleware is around everything but documents: request id, headers, and an answer for panics. What waits or reads a
// body has [limited] as well.
func (s *Server) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := &visit{Context: r.Context(), from: s.addressOf(r), id: [1]string{newRequestID()}, begun: time.Now(),
			route: s.elsewhere, reply: reply{ResponseWriter: w}}
		if s.cfg.Traces != nil {
			ctx.Context, ctx.span = s.cfg.Traces.Request(r.Context(), r.Header, s.proxies.trust(addressIn(r.RemoteAddr)),
				r.Method)
		}
		w, r = &ctx.reply, r.WithContext(ctx)
		defer s.served(ctx, r)
		s.commonHeaders(w.Header(), ctx.id[:])
		defer func() {
			if fault := recover(); fault != nil {
				if err, is := fault.(error); is && errors.Is(err, http.ErrAbortHandler) {
					panic(fault)
				}
				// Only the place: the value may hold what the request held.
				s.log.ErrorContext(ctx, "handler panicked", "path", r.URL.Path, "stack", string(debug.Stack()))
				s.refuse(w, r, serverFault(ctx))
			}
		}()
		if len(r.URL.RawQuery) > maxQuery {
			s.refuse(w, r, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleRequestTooLong,
				"the query is longer than 20 KiB")))
			return
		}
		// A path has one spelling. ServeMux would redirect the others with 307, and with it the password of a form.
		if clean := path.Clean(r.URL.Path); clean != r.URL.Path && clean+"/" != r.URL.Path {
			s.nowhere(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limited is around what may wait for storage and connectors, or reads a body. The deadline goes under the visit, so
// that the request need not be copied once more. How many there may be at once is limited as well; whoever sends slowly
// is not among them, see [arrivals].
// e is the endpoint, nil where browsers call.
func (s *Server) limited(e *endpoint, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := visitOf(r.Context())
		v.endpoint = e
		if !s.readAhead(v.reply.ResponseWriter, r) || !s.workroom.enter(v.Context) { // which may close the connection
			w.Header().Set("Retry-After", retryCrowded)
			if e != nil {
				s.refuse(w, r, errCrowded)
			} else {
				s.refuse(w, r, onPage(pages.ReasonUnavailable, errCrowded))
			}
			return
		}
		defer s.workroom.leave()
		ctx, cancel := context.WithTimeout(v.Context, requestTime)
		defer cancel()
		v.Context = ctx
		next.ServeHTTP(w, r)
	})
}

// sameOrigin refuses forms that another site sent. It comes on top of the anti-forgery token and the request's own tie
// to the browser.
func (s *Server) sameOrigin(next http.HandlerFunc) http.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	// A proxy may have changed the Host header that the Origin header is compared with.
	if err := protection.AddTrustedOrigin(s.address.Scheme + "://" + s.address.Host); err != nil {
		s.log.Error("the issuer has no origin", "error", err) // it was parsed as one
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if err := protection.Check(r); err != nil {
			s.refuse(w, r, onPage(pages.ReasonForbidden, invalidRequest(oauth.RuleFormForeign,
				"the form was sent by another site")))
			return
		}
		next(w, r)
	}
}
