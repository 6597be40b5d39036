package server

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rs/cors"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
)

// limits of a request. Headers are limited by the http.Server that serves us.
const (
	maxBody  = 64 << 10
	maxQuery = 16 << 10
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

// LogHandler adds the id of the request, where there is one, to what is logged through next.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	if id := visitOf(ctx).id[0]; id != "" {
		record = record.Clone()
		record.AddAttrs(slog.String("request_id", id))
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
		ctx := &visit{Context: r.Context(), id: [1]string{newRequestID()}}
		r = r.WithContext(ctx)
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
			s.refuse(w, r, onPage(pages.ReasonInvalidRequest, invalidRequest(oauth.RuleRequestTooLong, "the query is longer than 16 KiB")))
			return
		}
		// A path has one spelling. ServeMux would redirect the others with 307, and with it the password of a form.
		if clean := path.Clean(r.URL.Path); clean != r.URL.Path && clean+"/" != r.URL.Path {
			s.refuse(w, r, onPage(pages.ReasonNotFound, &oauth.Error{Rule: oauth.RulePathUnknown}))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limited is around what may wait for storage and connectors, or reads a body. The deadline goes under the visit, so
// that the request need not be copied once more.
func limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := visitOf(r.Context())
		ctx, cancel := context.WithTimeout(v.Context, requestTime)
		defer cancel()
		v.Context = ctx
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// fault renders an error page. One that was reached by GET has the language links of the other pages: they lead to the
// same request, which need not be sent twice for that.
func (s *Server) fault(w http.ResponseWriter, r *http.Request, page pages.Error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	page.Lang = s.lang(r, query.Get("ui_locales"))
	if r.Method == http.MethodGet && err == nil && len(r.URL.RawQuery) <= maxQuery {
		query.Set(fieldLang, "en")
		page.English = "?" + query.Encode()
		query.Set(fieldLang, "ja")
		page.Japanese = "?" + query.Encode()
	}
	page.RequestID = visitOf(r.Context()).id[0]
	s.pages.Render(w, page.Reason.Status(), page)
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	if allowed := s.methods(r.URL.Path); allowed != "" {
		w.Header().Set("Allow", allowed) // RFC 9110 section 15.5.6
		s.refuse(w, r, onPage(pages.ReasonMethodNotAllowed, &oauth.Error{Rule: oauth.RuleMethodNotAllowed}))
		return
	}
	s.refuse(w, r, onPage(pages.ReasonNotFound, &oauth.Error{Rule: oauth.RulePathUnknown}))
}

// methods are those with which a path for browsers is served.
func (s *Server) methods(path string) string {
	rest, below := strings.CutPrefix(path, s.base)
	if !below {
		return ""
	}
	switch rest {
	case pathAuthorize, pathLogout:
		return "GET, HEAD, POST"
	case pathContinue, pathStart, "/":
		return "GET, HEAD"
	case pathSignIn, pathConsent, pathSignOut:
		return "POST"
	case pathDevice:
		if s.offers(oauth.GrantDeviceCode) {
			return "GET, HEAD, POST"
		}
	}
	return ""
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
			s.refuse(w, r, onPage(pages.ReasonForbidden, &oauth.Error{Rule: oauth.RuleFormForeign, Description: "the form was sent by another site"}))
			return
		}
		next(w, r)
	}
}

// cors lets browser apps of the configured origins call the endpoints that machines call. Never with cookies: these
// endpoints take none.
func (s *Server) cors(next http.Handler) http.Handler {
	if len(s.cfg.AllowedOrigins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: s.cfg.AllowedOrigins,
		AllowedMethods: []string{http.MethodGet, http.MethodPost},
		AllowedHeaders: []string{"Authorization", "Content-Type", headerDPoP},
		ExposedHeaders: []string{"WWW-Authenticate", "X-Request-Id", headerDPoPNonce},
		MaxAge:         600,
	}).Handler(next)
}
