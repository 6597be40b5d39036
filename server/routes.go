package server

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/warifu/warifu/server/oauth"
)

// routes are the addresses below the issuer, and who answers there.
func (s *Server) routes() (http.Handler, error) {
	mux := http.NewServeMux()
	methods := map[string][]string{} // that a path takes
	handle := func(allowed, path string, h http.HandlerFunc) {
		served := s.routed(path, s.limited(nil, h))
		for method := range strings.SplitSeq(allowed, " ") {
			mux.Handle(method+" "+s.base+path, served)
			if methods[path] = append(methods[path], method); method == "GET" {
				methods[path] = append(methods[path], "HEAD") // ServeMux takes it there
			}
		}
	}
	// For browsers.
	handle("GET POST", pathAuthorize, s.authorize)
	handle("GET", pathStart, s.start)
	handle("GET", pathContinue, s.resume)
	handle("POST", pathSignIn, s.sameOrigin(s.signIn))
	if s.passkeys != nil {
		handle("POST", pathPasskey, s.sameOrigin(s.usePasskey))
		handle("GET", pathPasskeys, s.passkeysPage)
		handle("POST", pathPasskeys, s.sameOrigin(s.changePasskeys))
		mux.Handle("GET "+pathPasskeyEndpoints, s.routed(pathPasskeyEndpoints, http.HandlerFunc(s.passkeyEndpoints)))
	}
	handle("GET", pathConnect, s.connect)
	handle("POST", pathSignIn+"/{id}", s.sameOrigin(s.signIn))
	handle("POST", pathFactor, s.sameOrigin(s.proveFactor))
	handle("GET POST", pathCallback, s.callback)
	handle("GET POST", pathCallback+"/{id}", s.callback)
	handle("GET", pathCallback+"/{id}/metadata", s.describeHere)
	handle("POST", pathConsent, s.sameOrigin(s.consent))
	mux.Handle("GET "+s.pages.AssetsPath(), s.routed("assets", s.pages.Assets(s.nowhere)))
	handle("GET", pathWelcome, s.welcome)
	handle("POST", pathWelcome, s.sameOrigin(s.takeOver))
	handle("GET", pathForgot, s.forgot)
	handle("POST", pathForgot, s.sameOrigin(s.askReset))
	handle("GET", "/{$}", s.landing)
	handle("GET", pathHere, s.signInHere)
	handle("GET", pathAccount, s.overview)
	handle("GET", pathTOTP, s.totpPage)
	handle("POST", pathTOTP, s.sameOrigin(s.totp))
	handle("GET", pathPassword, s.passwordPage)
	handle("POST", pathPassword, s.sameOrigin(s.password))
	mux.Handle("GET "+pathChangePassword, s.routed(pathChangePassword, s.limited(nil, http.HandlerFunc(s.changePassword))))
	handle("GET", pathProfile, s.profilePage)
	handle("POST", pathProfile, s.sameOrigin(s.profile))
	handle("GET", pathApps, s.appsPage)
	handle("POST", pathApps, s.sameOrigin(s.apps))
	handle("GET", pathActivity, s.activityPage)
	handle("GET", pathSessions, s.sessionsPage)
	handle("POST", pathSessions, s.sameOrigin(s.sessions))
	handle("GET", pathCodes, s.codesPage)
	handle("POST", pathCodes, s.sameOrigin(s.codes))
	handle("GET POST", pathLogout, s.logout)
	handle("POST", pathSignOut, s.sameOrigin(s.signOut))

	for _, path := range []string{pathVerify, pathVerifyStatus} {
		mux.Handle(s.base+path, s.routed(path, s.limited(nil, http.HandlerFunc(s.verify))))
	}
	handle("GET", pathStopped, s.stoppedPage)

	// For programs, also in pages of other origins.
	endpoints, err := s.endpoints()
	if err != nil {
		return nil, err
	}
	s.programs = endpoints
	programs := make(map[string]http.Handler) // found by their path alone, which costs less than a ServeMux
	for _, e := range endpoints {
		h := s.routed(e.path, s.serveEndpoint(e))
		for _, path := range s.addresses(e) {
			if strings.Contains(path, "{") {
				mux.Handle(path, h)
			} else {
				programs[path] = h
			}
		}
	}
	if s.offers(oauth.GrantDeviceCode) {
		handle("GET", pathDevice, s.device)
		handle("POST", pathDevice, s.sameOrigin(s.enterUserCode))
	}
	for path, takes := range methods {
		mux.Handle(s.base+path, s.routed(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.refuseAddress(w, r, strings.Join(takes, ", "))
		})))
	}
	mux.Handle("GET /healthz", s.routed("/healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})))
	mux.Handle("GET /readyz", s.routed("/readyz", http.HandlerFunc(s.ready)))
	mux.HandleFunc("/", s.nowhere)
	return s.documentsFirst(endpoints, s.middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if program := programs[r.URL.Path]; program != nil {
			program.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))), nil
}

// addresses are the paths of an endpoint. RFC 8414 section 3.1 puts the well-known part before the issuer's path,
// OpenID Connect Discovery 1.0 section 4 after it.
func (s *Server) addresses(e *endpoint) []string {
	if s.base != "" && (e.path == pathDiscovery || e.path == pathMetadata) {
		return []string{s.base + e.path, e.path + s.base}
	}
	return []string{s.base + e.path}
}

// ready is whether this server can do its work: it is not leaving, and storage answers with a quorum and has room. The
// lines after the first are what an operator should know.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.leaving.Load() {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := s.store.Ping(ctx); err != nil {
		s.log.WarnContext(r.Context(), "not ready", "error", err)
		http.Error(w, "storage does not answer", http.StatusServiceUnavailable)
		return
	}
	condition, first := s.store.Condition(), "ready"
	if condition.Full {
		w.WriteHeader(http.StatusServiceUnavailable)
		first = "storage is full"
	}
	lines := append([]string{first}, condition.Notes...)
	for _, d := range s.store.ClockDifferences() {
		lines = append(lines, d.String())
	}
	if note := s.note.Load(); note != nil && *note != "" {
		lines = append(lines, *note)
	}
	_, _ = io.WriteString(w, strings.Join(lines, "\n")+"\n")
}
