package migrate

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/pages"
)

func (m *migration) takeWeb(root *section) {
	s, t := root.section("web"), m.config
	http, https := s.text("http"), s.text("https")
	cert, key := s.text("tlsCert"), s.text("tlsKey")
	switch {
	case http == nil && https == nil && m.source.argo != nil:
		t.put("web.http", text("0.0.0.0:5556"), nil) // as Argo CD says it to its Dex
	case http == nil && https == nil:
		m.fault(root.itself(), "required", "", "has no web.http or web.https: write the address to listen on")
	case https != nil && (cert == nil || key == nil):
		m.fault(https, "required", "", "needs web.tlsCert and web.tlsKey")
	}
	t.putText("web.http", http)
	t.putText("web.https", https)
	if https != nil {
		t.putText("web.tlsCert", cert)
		t.putText("web.tlsKey", key)
	} else {
		s.left("tlsCert", "there is no web.https")
		s.left("tlsKey", "there is no web.https")
	}
	if origins := s.texts("allowedOrigins"); len(origins) > 0 {
		t.put("web.allowedOrigins", t.list(origins), nil)
	}
	s.left("allowedHeaders", "each endpoint allows the headers that it understands")
	s.left("headers", "this server sets its own on every page: a strict "+
		"Content-Security-Policy, no frames, no sniffing; Strict-Transport-Security is for the proxy to add")
	s.left("tlsMinVersion", "TLS 1.2 is the least, and 1.3 is used wherever the other side has it")
	s.left("tlsMaxVersion", "TLS 1.2 is the least, and 1.3 is used wherever the other side has it")
	if remote := s.section("clientRemoteIP"); remote != nil {
		header, proxies := remote.text("header"), remote.texts("trustedProxies")
		if header != nil && !strings.EqualFold(header.String(), "X-Forwarded-For") {
			m.left(header, "only X-Forwarded-For is taken, from web.trustedProxies: have the proxy set it")
		}
		if len(proxies) > 0 {
			t.put("web.trustedProxies", t.list(proxies), nil)
		}
		remote.done()
	}
	s.done()
}

func (m *migration) takeFrontend(s *section) {
	m.config.putText("branding.name", s.text("issuer"))
	theme, dir := s.text("theme"), s.text("dir")
	if logo := s.text("logoURL"); logo != nil {
		m.takeLogo(logo, dir.String(), theme.String())
	}
	s.left("dir", "the pages are this server's own; branding has a name, a logo and links")
	s.left("theme", "the pages follow the light or dark mode of the browser")
	s.left("extra", "the pages are this server's own")
	s.done()
}

// takeLogo looks for the file that Dex serves at the address of the logo.
func (m *migration) takeLogo(logo *item, dir, theme string) {
	address := logo.String()
	if theme == "" {
		theme = "light"
	}
	candidates := []string{address, filepath.Join(dir, address)}
	if rest, is := strings.CutPrefix(address, "theme/"); is {
		candidates = append(candidates, filepath.Join(dir, "themes", theme, rest))
	}
	for _, file := range candidates {
		data, err := os.ReadFile(file) // what the operator names is read
		if err != nil {
			continue
		}
		if _, err := pages.ReadLogo(data); err != nil {
			m.left(logo, "%s: %s", file, err)
			return
		}
		if absolute, err := filepath.Abs(file); err == nil {
			m.config.put("branding.logoFile", text(absolute), logo)
			return
		}
	}
	m.left(logo, "this server serves the logo by itself, from a file: name it as branding.logoFile")
}

// takeOAuth2 takes what concerns OAuth 2 as a whole. What of it is said of clients here is kept for them.
func (m *migration) takeOAuth2(s *section) {
	t := m.config
	for _, kind := range s.texts("responseTypes") {
		if kind.String() != "code" {
			m.left(kind, "the implicit and hybrid flows are not offered (RFC 9700 section 2.1.2): the app uses code, with PKCE "+
				"if it has no secret")
		}
	}
	if grants := s.texts("grantTypes"); len(grants) > 0 {
		m.takeGrantTypes(grants)
	} else {
		m.clientGrants = []string{oauth.GrantDeviceCode}
	}
	if skipped, from := s.flag("skipApprovalScreen", false); skipped {
		m.consentSkipped = from
	}
	if always, from := s.flag("alwaysShowLoginScreen", false); always {
		t.put("oauth2.alwaysShowLoginScreen", truth(true), from)
	}
	s.left("passwordConnector", "apps do not get the passwords of users here (RFC 9700 section 2.4): they use "+
		"code, or the "+
		"device grant")
	if pkce := s.section("pkce"); pkce != nil {
		if enforced, from := pkce.flag("enforce", false); enforced {
			m.left(from, "public clients have to use PKCE in any case, the others may")
		}
		for _, method := range pkce.texts("codeChallengeMethodsSupported") {
			if method.String() != oauth.ChallengeS256 {
				m.left(method, "S256 is the only method (RFC 9700 section 2.1.1)")
			}
		}
		pkce.done()
	}
	s.done()
}

// takeGrantTypes takes the grant types that Dex was told to offer to every client.
func (m *migration) takeGrantTypes(grants []*item) {
	offered := oauth.UsualGrantTypes()
	for _, g := range grants {
		switch g.String() {
		case oauth.GrantAuthorizationCode, oauth.GrantRefreshToken:
		case oauth.GrantClientCredentials, oauth.GrantDeviceCode:
			m.clientGrants = append(m.clientGrants, g.String())
			offered = append(offered, g.String())
		case oauth.GrantTokenExchange:
			m.left(g, "Dex exchanges tokens of the provider behind a connector; here one app exchanges the tokens of its "+
				"users for another (spec.oauth.tokenExchangeAudiences)")
		case "implicit":
			m.left(g, "the implicit flow is not offered (RFC 9700 section 2.1.2)")
		case "password":
			m.left(g, "apps do not get the passwords of users here (RFC 9700 section 2.4)")
		default:
			m.left(g, "there is no such grant type here")
		}
	}
	m.config.put("oauth2.grantTypes", words(offered...), nil)
}

func (m *migration) takeExpiry(root *section) {
	s, t := root.section("expiry"), m.config
	if i := s.duration("idTokens"); i != nil {
		t.putText("expiry.accessTokens", i)
		t.putText("expiry.idTokens", i)
	} else {
		t.put("expiry.accessTokens", text("24h"), nil)
		t.put("expiry.idTokens", text("24h"), nil)
	}
	t.comment("expiry", "As at Dex, whose default is 24h for ID tokens and access tokens.")
	t.putText("expiry.authRequests", s.duration("authRequests"))
	t.putText("expiry.deviceRequests", s.duration("deviceRequests"))
	keys := s.duration("signingKeys")
	if signer := root.section("signer"); signer != nil {
		keys = m.takeSigner(signer, keys)
	}
	t.putText("expiry.signingKeys", keys)
	if sessions := root.section("sessions"); sessions != nil {
		m.takeSessions(sessions)
	}
	if refresh := s.section("refreshTokens"); refresh != nil {
		if off, from := refresh.flag("disableRotation", false); off {
			m.left(from, "each refresh token works once here (RFC 9700 section 4.14.2); for an app that sends one twice "+
				"at once, "+
				"its manifest has refreshTokens.reuseInterval")
		}
		for _, key := range []string{"reuseInterval", "validIfNotUsedFor", "absoluteLifetime"} {
			t.putText("expiry.refreshTokens."+key, refresh.duration(key))
		}
		refresh.done()
	} else {
		m.note("Dex's refresh tokens had no end. Here one that is not used for 90 days ends, " +
			"and all those of a sign-in end after 165 days (expiry.refreshTokens).")
	}
	s.done()
}

// takeSigner takes how tokens are signed, and returns for how long a key signs.
func (m *migration) takeSigner(s *section, keys *item) *item {
	kind := s.text("type")
	detail := s.section("config")
	if kind.String() != "local" {
		s.left("type", "keys are made and kept here, sealed in storage")
		s.left("config", "keys are made and kept here, sealed in storage")
		s.done()
		return keys
	}
	if period := detail.duration("keysRotationPeriod"); period != nil {
		if keys != nil {
			m.left(keys, "signer.config.keysRotationPeriod is set as well, and takes precedence")
		}
		keys = period
	}
	switch alg := detail.text("algorithm"); alg.String() {
	case "", oauth.AlgRS256:
	case oauth.AlgES256:
		m.idTokenAlg = oauth.AlgES256
	default:
		m.fault(alg, "value", "", "must be RS256 or ES256")
	}
	detail.done()
	s.done()
	return keys
}

func (m *migration) takeSessions(s *section) {
	m.config.putText("expiry.sessions", s.duration("absoluteLifetime"))
	s.left("validIfNotUsedFor", "a browser stays signed in for expiry.sessions, used or not")
	s.left("cookieName", "this server names its cookies by itself")
	s.left("cookieEncryptionKey", "cookies are sealed with keys that this server makes and changes by itself")
	s.left("rememberMeCheckedByDefault", "there is no such box: a browser stays signed in for expiry.sessions")
	if shared := s.text("ssoSharedWithDefault"); shared != nil && shared.String() != "all" {
		m.left(shared, "whoever is signed in is signed in for all apps; an app can ask anew with prompt=login, or by "+
			"spec.oauth.defaultMaxAge")
	}
	s.done()
}

func (m *migration) takeLogger(s *section) {
	for _, key := range []string{"level", "format"} {
		if i := s.text(key); i != nil {
			m.config.put("logger."+key, text(strings.ToLower(i.String())), i)
		}
	}
	s.left("excludeFields", "the log has no names, addresses or groups of people")
	s.done()
}

// takeRest lists what there is nothing like here.
func (m *migration) takeRest(root *section) {
	if s := root.section("telemetry"); s != nil {
		m.config.putText("telemetry.http", s.text("http"))
		s.left("enableProfiling", "there are no profiling endpoints")
		s.done()
	}
	root.left("grpc", "the admin API is another one, on a socket or at admin.listen, and describes itself at "+
		"/openapi.json; "+
		"clients are manifests")
}
