package conformance

import (
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/conformance/broken"
)

// caught says which module finds which fault, with what result, and by what finding.
var caught = []struct {
	fault, plan, module string
	result              Result
	finding             string
}{
	// ID tokens.
	{"signature-other", "oidcc-basic", "oidcc-server", Failed, "the signature of the ID token is good"},
	{"alg-none", "oidcc-basic", "oidcc-server", Failed, `the ID token is signed with "none"`},
	{"alg-hs256", "oidcc-basic", "oidcc-server", Failed, `the ID token is signed with "HS256"`},
	{"kid-unknown", "oidcc-basic", "oidcc-server", Failed, "the JWK Set has a key for the ID token"},
	{"nonce-other", "oidcc-basic", "oidcc-server", Failed, "nonce in the ID token is that of the request"},
	{"nonce-missing", "oidcc-basic", "oidcc-server", Failed, "nonce in the ID token is that of the request"},
	{"nonce-unasked", "oidcc-basic", "oidcc-ensure-request-without-nonce-succeeds-for-code-flow", Failed,
		"the ID token has no nonce"},
	{"aud-other", "oidcc-basic", "oidcc-server", Failed, "aud in the ID token"},
	{"aud-more-without-azp", "oidcc-basic", "oidcc-server", Failed, "one audience, or azp"},
	{"iss-other", "oidcc-basic", "oidcc-server", Failed, "iss in the ID token"},
	{"sub-missing", "oidcc-basic", "oidcc-server", Failed, "sub in the ID token"},
	{"exp-past", "oidcc-basic", "oidcc-server", Failed, "exp in the ID token"},
	{"exp-missing", "oidcc-basic", "oidcc-server", Failed, "exp in the ID token"},
	{"exp-milliseconds", "oidcc-basic", "oidcc-server", Failed, "exp in the ID token"},
	{"iat-missing", "oidcc-basic", "oidcc-server", Failed, "iat in the ID token"},
	{"iat-past", "oidcc-basic", "oidcc-server", Failed, "iat in the ID token"},
	{"at-hash-other", "oidcc-basic", "oidcc-server", Failed, "at_hash in the ID token"},
	{"email-verified-text", "oidcc-basic", "oidcc-server", Failed, "email_verified in the ID token is a boolean"},
	{"name-unasked", "oidcc-basic", "oidcc-server", Warning, "the ID token has no name claim"},
	{"auth-time-missing", "oidcc-basic", "oidcc-max-age-10000", Failed, "ID token has auth_time"},
	{"auth-time-random", "oidcc-basic", "oidcc-prompt-none-logged-in", Failed, "auth_time is the same both times"},

	// The token endpoint.
	{"id-token-missing", "oidcc-basic", "oidcc-server", Failed, "the token response has an id_token"},
	{"access-token-missing", "oidcc-basic", "oidcc-server", Failed, "the token response has an access_token"},
	{"token-type-other", "oidcc-basic", "oidcc-server", Failed, "token_type"},
	{"expires-in-text", "oidcc-basic", "oidcc-server", Failed, "expires_in, 3600, is a number"},
	{"expires-in-missing", "oidcc-basic", "oidcc-server", Warning, "the token response has expires_in"},
	{"code-guessable", "oidcc-basic", "oidcc-server", Failed, "the code is too long and random to be guessed"},
	{"code-twice", "oidcc-basic", "oidcc-codereuse", Warning, "the code was good twice"},
	{"code-twice", "oidcc-basic", "oidcc-codereuse-30seconds", Failed, "the token endpoint answers with " +
		"status 400, not 200"},
	{"code-twice-other-error", "oidcc-basic", "oidcc-codereuse", Failed, "is invalid_grant"},
	{"code-twice-server-error", "oidcc-basic", "oidcc-codereuse", Failed, "status 400, not 500"},
	{"token-outlives-code", "oidcc-basic", "oidcc-codereuse-30seconds", Warning, "the access token of a code that was " +
		"used again has ended"},
	{"token-stored", "oidcc-basic", "oidcc-refresh-token", Failed, "must not be stored"},
	{"refresh-by-anybody", "oidcc-basic", "oidcc-refresh-token", Failed, "the token endpoint answers with " +
		"status 400, not 200"},
	{"refresh-same-id-token", "oidcc-basic", "oidcc-refresh-token", Failed, "iat in the refreshed ID token"},
	{"refresh-other-sub", "oidcc-basic", "oidcc-refresh-token", Failed, "sub in the refreshed ID token"},
	{"secret-post-refused", "oidcc-basic", "oidcc-server-client-secret-post", Failed, "invalid_client"},
	{"pkce-refused", "oidcc-basic", "oidcc-ensure-request-with-valid-pkce-succeeds", Failed, "invalid_request"},

	// Authorization requests.
	{"redirect-anywhere", "oidcc-basic", "oidcc-ensure-registered-redirect-uri", Failed, "although the redirect URI of " +
		"the request is not registered"},
	{"redirect-error-before-check", "oidcc-basic", "oidcc-ensure-registered-redirect-uri", Failed,
		"although the redirect URI of the request is not registered"},
	{"response-type-assumed", "oidcc-basic", "oidcc-response-type-missing", Failed,
		"is one of unsupported_response_type, invalid_request"},
	{"prompt-login-ignored", "oidcc-basic", "oidcc-prompt-login", Failed, "asks for a new sign-in"},
	{"prompt-none-ignored", "oidcc-basic", "oidcc-prompt-none-not-logged-in", Failed, "is one of login_required"},
	{"sessions-forgotten", "oidcc-basic", "oidcc-prompt-none-logged-in", Failed, "login_required"},
	{"max-age-ignored", "oidcc-basic", "oidcc-max-age-1", Failed, "asks for a new sign-in"},
	{"max-age-forgets", "oidcc-basic", "oidcc-max-age-10000", Failed, "does not ask for a new sign-in"},
	{"hint-refused", "oidcc-basic", "oidcc-id-token-hint", Failed, "login_required"},
	{"nonce-required", "oidcc-basic", "oidcc-ensure-request-without-nonce-succeeds-for-code-flow", Failed,
		"invalid_request"},
	{"unknown-parameter-refused", "oidcc-basic", "oidcc-ensure-request-with-unknown-parameter-succeeds", Failed,
		"invalid_request"},
	{"display-refused", "oidcc-basic", "oidcc-display-page", Failed, "invalid_request"},
	{"display-refused", "oidcc-basic", "oidcc-display-popup", Failed, "invalid_request"},
	{"login-hint-refused", "oidcc-basic", "oidcc-login-hint", Failed, "invalid_request"},
	{"ui-locales-refused", "oidcc-basic", "oidcc-ui-locales", Failed, "server_error"},
	{"claims-locales-refused", "oidcc-basic", "oidcc-claims-locales", Failed, "invalid_request"},
	{"acr-values-refused", "oidcc-basic", "oidcc-ensure-request-with-acr-values-succeeds", Failed, "invalid_request"},
	{"scope-order-matters", "oidcc-basic", "oidcc-alternate-happy-flow", Failed, "invalid_scope"},
	{"request-object-ignored", "oidcc-basic",
		"oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported", Failed, "the state in the response"},
	{"redirect-outside-object", "oidcc-basic", "oidcc-ensure-request-object-with-redirect-uri", Failed,
		"the response comes to the redirect URI"},
	{"authorize-by-get-only", "oidcc-basic", "oidcc-ensure-post-request-succeeds", Failed,
		"the provider sends the browser back"},
	{"form-post-ignored", "oidcc-formpost-basic", "oidcc-server", Failed, "the response is posted"},

	// Authorization responses.
	{"state-dropped", "oidcc-basic", "oidcc-server", Failed, "the state in the response"},
	{"state-cut", "oidcc-basic", "oidcc-prompt-none-not-logged-in", Failed, "the state in the error response"},
	{"iss-missing", "oidcc-basic", "oidcc-server", Failed, "iss in the authorization response"},
	{"iss-mixed-up", "oidcc-basic", "oidcc-server", Failed, "iss in the authorization response"},
	{"error-unknown", "oidcc-basic", "oidcc-prompt-none-not-logged-in", Failed, `the error "server_error" is one of`},
	{"error-described-badly", "oidcc-basic", "oidcc-prompt-none-not-logged-in", Failed,
		"error_description has no characters"},

	// Userinfo.
	{"userinfo-sub-other", "oidcc-basic", "oidcc-userinfo-get", Failed, "sub in userinfo is that of the ID token"},
	{"userinfo-sub-missing", "oidcc-basic", "oidcc-userinfo-post-header", Failed, "the userinfo response has sub"},
	{"userinfo-untyped", "oidcc-basic", "oidcc-userinfo-get", Failed, "the userinfo response is application/json"},
	{"userinfo-by-get-only", "oidcc-basic", "oidcc-userinfo-post-header", Failed, "status 200, not 405"},
	{"userinfo-by-get-only", "oidcc-basic", "oidcc-userinfo-post-body", Warning, "takes no token in the body"},
	{"userinfo-email-missing", "oidcc-basic", "oidcc-scope-email", Warning, "missing: email"},
	{"userinfo-email-verified-text", "oidcc-basic", "oidcc-scope-email", Failed,
		"email_verified in userinfo is a boolean"},
	{"userinfo-updated-at-text", "oidcc-basic", "oidcc-scope-profile", Failed, "updated_at in userinfo"},
	{"userinfo-updated-at-milliseconds", "oidcc-basic", "oidcc-scope-profile", Failed, "updated_at in userinfo"},
	{"userinfo-phone-empty", "oidcc-basic", "oidcc-scope-phone", Failed, "phone_number in userinfo"},
	{"userinfo-address-text", "oidcc-basic", "oidcc-scope-address", Failed, "address in userinfo"},
	{"claims-ignored", "oidcc-basic", "oidcc-claims-essential", Warning, "userinfo has name"},
	{"userinfo-name-missing", "oidcc-basic", "oidcc-claims-essential", Warning, "userinfo has name"},

	// Metadata and keys.
	{"metadata-issuer-other", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed,
		"is the one that was asked"},
	{"metadata-issuer-other", "oidcc-basic", "oidcc-server", Failed, "is the one that was asked"},
	{"metadata-endpoint-plain", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed, "is an https URL"},
	{"metadata-without-rs256", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed, "has RS256"},
	{"metadata-without-jwks", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed, "metadata has jwks_uri"},
	{"metadata-without-response-types", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed,
		"response_types_supported is a list"},
	{"metadata-without-subject-types", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed,
		"subject_types_supported is a list"},
	{"metadata-without-openid", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed,
		"scopes_supported has openid"},
	{"metadata-list-is-text", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed,
		"grant_types_supported is of its type"},
	{"metadata-locale-unknown", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed, "is a language tag"},
	{"metadata-member-unknown", "oidcc-config", "oidcc-discovery-endpoint-verification", Warning,
		"x_vendor_feature is a member"},
	{"metadata-is-html", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed, "discovery answers with JSON"},
	{"keys-private", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed, "that is private"},
	{"keys-nameless", "oidcc-config", "oidcc-discovery-endpoint-verification", Failed, "has a kid"},

	// Clients that register themselves.
	{"alg-es256", "oidcc-basic", "oidcc-idtoken-signature", Failed, "the ID token is signed with RS256"},
	{"alg-es256", "oidcc-dynamic", "oidcc-idtoken-rs256", Failed, "the ID token is signed with RS256"},
	{"kid-missing", "oidcc-basic", "oidcc-idtoken-signature", Failed, "the ID token has a kid"},
	{"kid-missing", "oidcc-dynamic", "oidcc-idtoken-rs256", Failed, "the ID token has a kid"},
	{"registered-with-200", "oidcc-dynamic", "oidcc-server", Failed, "status 201, not 200"},
	{"registered-untyped", "oidcc-dynamic", "oidcc-server", Failed, "the registration response is application/json"},
	{"registered-without-id", "oidcc-dynamic", "oidcc-server", Failed, "has client_id"},
	{"registered-without-secret", "oidcc-3rd", "oidcc-3rd_party-init-login", Failed, "the client_secret that " +
		"client_secret_basic needs"},
	{"registered-secret-without-end", "oidcc-3rd", "oidcc-3rd_party-init-login", Failed, "has client_secret_expires_at"},
	{"registered-without-management-token", "oidcc-dynamic", "oidcc-server", Failed, "come together"},
	{"registered-without-login", "oidcc-3rd", "oidcc-3rd_party-init-login", Failed, "has the initiate_login_uri"},
	{"registered-without-logo", "oidcc-dynamic", "oidcc-registration-logo-uri", Failed, "has the logo_uri"},
	{"registers-plain-login", "oidcc-3rd", "oidcc-3rd_party-init-login-nohttps", Failed, "status 400, not 201"},
	{"registers-fragments", "oidcc-dynamic", "oidcc-redirect-uri-regfrag", Failed, "status 400, not 201"},
	{"registers-any-sector", "oidcc-dynamic", "oidcc-registration-sector-bad", Failed, "status 400, not 201"},
	{"redirect-query-ignored", "oidcc-dynamic", "oidcc-redirect-uri-query-mismatch", Failed, "although the redirect URI " +
		"of the request is not registered"},
	{"redirect-query-ignored", "oidcc-dynamic", "oidcc-redirect-uri-query-added", Failed, "although the redirect URI of " +
		"the request is not registered"},
	{"redirect-guessed", "oidcc-dynamic", "oidcc-ensure-redirect-uri-in-authorization-request", Failed,
		"although the request has no redirect_uri"},
	{"client-keys-kept", "oidcc-dynamic", "oidcc-refresh-token-rp-key-rotation", Failed, "invalid_client"},
	{"client-keys-unfetched", "oidcc-dynamic", "oidcc-registration-jwks-uri", Failed, "invalid_client"},
	{"assertion-for-issuer-refused", "oidcc-dynamic", "oidcc-ensure-client-assertion-with-iss-aud-succeeds", Warning,
		"whose audience is the issuer is refused"},
	{"userinfo-signed-badly", "oidcc-dynamic", "oidcc-userinfo-rs256", Failed, "the signature of userinfo is good"},
	{"userinfo-signed-with-es256", "oidcc-dynamic", "oidcc-userinfo-rs256", Failed, "userinfo is signed with RS256"},
	{"userinfo-signed-for-others", "oidcc-dynamic", "oidcc-userinfo-rs256", Warning, "aud in userinfo has the client"},
	{"userinfo-signed-with-nonce", "oidcc-dynamic", "oidcc-userinfo-rs256", Failed, "userinfo has no nonce"},

	// Logout.
	{"metadata-without-logout", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout-discovery-endpoint-verification",
		Failed, "end_session_endpoint"},
	{"logout-forgotten", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout", Failed, "is one of login_required"},
	{"logout-state-dropped", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout", Failed,
		"the state is that of the logout request"},
	{"logout-to-anywhere", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout-bad-post-logout-redirect-uri", Failed,
		"which it must not"},
	{"logout-to-anywhere", "oidcc-rp-initiated-logout",
		"oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri", Failed, "which it must not"},
	{"logout-hint-unneeded", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout-no-id-token-hint", Failed,
		"which it must not"},
	{"logout-hint-unsigned", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout-modified-id-token-hint", Failed,
		"which it must not"},
	{"logout-hint-of-anybody", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout-bad-id-token-hint", Failed,
		"which it must not"},
	{"logout-ignored", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout-no-params", Failed,
		"is one of login_required"},
	{"logout-ignored", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout-only-state", Failed,
		"is one of login_required"},
	{"logout-ignored", "oidcc-rp-initiated-logout", "oidcc-rp-initiated-logout-no-post-logout-redirect-uri", Failed,
		"is one of login_required"},
	{"frame-missing", "oidcc-frontchannel", "oidcc-frontchannel-rp-initiated-logout", Failed,
		"embeds frontchannel_logout_uri"},
	{"frame-sid-other", "oidcc-frontchannel", "oidcc-frontchannel-rp-initiated-logout", Failed,
		"sid at frontchannel_logout_uri"},
	{"frame-iss-other", "oidcc-frontchannel", "oidcc-frontchannel-rp-initiated-logout", Failed,
		"iss at frontchannel_logout_uri"},
	{"logout-token-missing", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed, "a logout token comes"},
	{"logout-token-key-unknown", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"has a key for the logout token"},
	{"logout-token-got", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"the logout token is posted"},
	{"logout-token-aud-other", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"aud in the logout token"},
	{"logout-token-iss-other", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"iss in the logout token"},
	{"logout-token-sid-other", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"sid in the logout token"},
	{"logout-token-sub-other", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"sub in the logout token"},
	{"logout-token-of-nobody", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"the logout token has sub or sid"},
	{"logout-token-jti-missing", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"the logout token has jti"},
	{"logout-token-iat-missing", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"iat in the logout token"},
	{"logout-token-exp-past", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"exp in the logout token"},
	{"logout-token-nonce", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"the logout token has no nonce"},
	{"logout-token-events-missing", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"events in the logout token"},
	{"logout-token-event-text", "oidcc-backchannel", "oidcc-backchannel-rp-initiated-logout", Failed,
		"events in the logout token"},
}

// behind is a suite for our own server with a fault.
func behind(t *testing.T, fault broken.Fault) *Suite {
	t.Helper()
	var address string
	s := ownSuite(t, func(cfg *Config) {
		good, err := New(*cfg, own.party)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(good.Close)
		provider, err := broken.New(cfg.Issuer, good.transport, fault)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(fault.Name, "logout-token") { // the proxy sends them: our own server must not know where to
			client := cfg.Clients.Client
			client.BackchannelLogoutURI = own.party.base + "/backchannel_logout/" + rand.Text()
			cfg.Clients.Backchannel, provider.Backchannel = &client, client.BackchannelLogoutURI
		}
		address = serveTLS(t, provider)
		issuer, err := url.Parse(cfg.Issuer)
		if err != nil {
			t.Fatal(err)
		}
		cfg.ConnectTo = map[string]string{issuer.Host: address}
		cfg.CodeReuse = time.Millisecond
		if harmless[fault.Name] == nil { // what does not come need not be waited for
			cfg.JWKSRefresh, cfg.Backchannel = time.Millisecond, 2*time.Second
		}
	})
	return s
}

func serveTLS(t *testing.T, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { // ends with Close
		defer close(done)
		_ = server.Serve(tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS12,
			Certificates: []tls.Certificate{own.server.Certificate}}))
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return listener.Addr().String()
}

// TestFaultIsCaught shows that the suite can fail: each fault is found by the module that should find it, for the right
// reason.
func TestFaultIsCaught(t *testing.T) {
	if *issuer != "" || *config != "" {
		return // the faults are of our own server
	}
	faults := broken.Faults()
	tried := map[string]bool{}
	for _, c := range caught {
		tried[c.fault] = true
		t.Run(c.fault+"/"+c.module, func(t *testing.T) {
			t.Parallel()
			fault, known := faults[c.fault]
			plan, module, found := Find(c.plan, c.module)
			if !known || !found {
				t.Fatalf("fault known: %t, module known: %t", known, found)
			}
			got := behind(t, fault).Run(t.Context(), plan, module)
			if got.Result != c.result || !finds(got, c.finding) {
				t.Errorf("%s, want %s because of %q", got.Result, c.result, c.finding)
				for _, e := range got.Entries {
					if e.Kind == "check" && e.Result != Passed {
						t.Logf("%s %s %s", e.Result, e.Ref, e.Text)
					}
				}
			}
		})
	}
	for name := range faults {
		if !tried[name] && harmless[name] == nil {
			t.Errorf("no module is known to find %s", name)
		}
	}
}

func finds(m ModuleReport, part string) bool {
	return slices.ContainsFunc(m.findings(), func(found string) bool { return strings.Contains(found, part) })
}

// harmless faults are none: the plans that pass without the proxy pass behind it.
var harmless = map[string][]string{
	"none": {"oidcc-basic", "oidcc-config", "oidcc-formpost-basic", "oidcc-rp-initiated-logout",
		"oidcc-backchannel", "oidcc-frontchannel", "oidcc-3rd", "oidcc-dynamic"},
	"signed-anew":       {"oidcc-basic"},
	"logout-token-sent": {"oidcc-backchannel"},
}

// TestProxyWithoutFaultPasses shows that it is the fault that a module finds, not the proxy.
func TestProxyWithoutFaultPasses(t *testing.T) {
	if *issuer != "" || *config != "" {
		return
	}
	faults := broken.Faults()
	for name, plans := range harmless {
		seen := map[string]bool{}
		for _, c := range caught {
			if seen[c.plan+c.module] || !slices.Contains(plans, c.plan) {
				continue
			}
			if name == "signed-anew" && c.module == "oidcc-id-token-hint" {
				continue // the good provider takes ID tokens as it issued them
			}
			seen[c.plan+c.module] = true
			t.Run(name+"/"+c.module, func(t *testing.T) {
				t.Parallel()
				plan, module, found := Find(c.plan, c.module)
				if !found {
					t.Fatal("no such module")
				}
				s := behind(t, faults[name])
				if err := s.Verdict(s.Run(t.Context(), plan, module)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
