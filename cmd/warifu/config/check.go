package config

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/net/idna"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// check finds what is wrong with the values of a configuration, without looking at the machine that it is for. Rules
// that belong to another package are asked of it.
func (r *reader) check(cfg *Config) {
	r.checkIssuer(cfg.Issuer)
	r.checkStorage(cfg)
	r.checkWeb(cfg)
	r.checkBranding(cfg.Branding)
	r.checkAdmin(cfg)
	r.checkPasswords(cfg)
	r.checkMail(cfg.Mail)
	r.checkExpiry(cfg)
	r.checkScopes(cfg)
	r.checkClaims(cfg)
	r.checkTrusted(cfg.Trusted)
	r.checkMFA(cfg)
	r.checkPlugins("plugins.deployHooks", cfg.Plugins.DeployHooks, builtinHooks)
	r.checkPlugins("plugins.runtimes", cfg.Plugins.Runtimes, builtinRuntimes)
	r.checkTargets(cfg.Plugins)
	r.checkOAuth2(cfg)
	r.checkTrustedIssuers(cfg)
	r.checkOutbound(cfg.Outbound)
	r.checkConnectors(cfg)
	r.checkManifests(cfg.Manifests)
	r.checkNoEmpty("encryptionKeyFiles", cfg.EncryptionKeyFiles)
	r.checkTelemetry(cfg.Telemetry)
}

func (r *reader) checkTelemetry(t Telemetry) {
	if t.HTTP != "" {
		r.checkListener("telemetry.http", t.HTTP)
	}
	const at = "telemetry.traces"
	if t.Traces.Endpoint == "" {
		if t.Traces.HeadersFile != "" {
			r.fault(at+".endpoint", "required", "", "is required: the address of the collector, as in http://127.0.0.1:4318")
		}
		return
	}
	u, err := url.Parse(t.Traces.Endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		r.fault(at+".endpoint", "value", "", "must be an address such as http://127.0.0.1:4318 or https://traces.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		r.fault(at+".endpoint", "value", "", "must be an address without user, query or fragment: credentials "+
			"belong in headersFile")
	case u.Scheme == "http" && !oauth.IsLoopback(u.Hostname()):
		if t.Traces.HeadersFile != "" {
			r.fault(at+".endpoint", "cleartext", "",
				"must be https: what is in headersFile would be sent unencrypted to %s", u.Hostname())
			return
		}
		r.warn(at+".endpoint", "cleartext",
			"sends traces unencrypted to %s: which apps are in use, and when", u.Hostname())
	}
}

func (r *reader) checkManifests(m Manifests) {
	r.checkNoEmpty("manifests.directories", m.Directories)
	if m.Watch && len(m.Directories) == 0 {
		r.fault("manifests.watch", "required", "", "needs manifests.directories")
	}
	if m.Prune && !m.Watch {
		r.fault("manifests.prune", "required", "",
			"needs manifests.watch: a manifest that comes back has to be noticed before its app ends")
	}
	const after = "manifests.pruneAfter"
	_, written := r.places[after]
	switch delay := time.Duration(m.PruneAfter); {
	case delay == 0 && !written:
	case !m.Prune:
		r.fault(after, "misplaced", "", "is of no use without manifests.prune: true")
	case delay < time.Minute:
		r.fault(after, "value", "", "must be 1m or more, but is %s", delay)
	}
}

func (r *reader) required(path, value, what string) bool {
	if value == "" {
		r.fault(path, "required", "", "is required: %s", what)
	}
	return value != ""
}

func (r *reader) checkNoEmpty(path string, list []string) {
	for i, item := range list {
		if item == "" {
			r.fault(fmt.Sprintf("%s[%d]", path, i), "required", "", "is empty")
		}
	}
}

// checkIssuer holds the issuer to OpenID Connect Discovery section 3: a URL with neither query nor fragment.
func (r *reader) checkIssuer(issuer string) {
	if !r.required("issuer", issuer, "the address of this server, as in https://id.example.com") {
		return
	}
	var wrong *oauth.IssuerError
	if _, err := oauth.ParseIssuer(issuer); errors.As(err, &wrong) {
		nearest := wrong.Nearest
		if name := inPunycode(issuer); name != "" {
			if _, err := oauth.ParseIssuer(name); err == nil {
				nearest = name
			}
		}
		r.fault("issuer", "issuer", nearest, "%s", wrong.Reason)
	}
}

// inPunycode is a URL with an international host name as browsers send it; "" where there is none.
func inPunycode(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User != nil {
		return ""
	}
	name, err := idna.Lookup.ToASCII(u.Hostname())
	if err != nil || name == u.Hostname() {
		return ""
	}
	return strings.Replace(address, u.Hostname(), name, 1)
}

// smallestQuota leaves room for an empty database and some records.
const smallestQuota Size = 16 << 20

// largestQuota fits into the address space of a process.
const largestQuota Size = 16 << 40

// longestDrain is more than any proxy needs.
const longestDrain = 5 * time.Minute

func (r *reader) checkStorage(cfg *Config) {
	const at = "storage.config"
	detail := cfg.Storage.Config
	r.required(at+".dataDir", detail.DataDir, "a directory for what this process keeps")
	ssl := detail.SSL
	if (ssl.CertFile == "") != (ssl.KeyFile == "") {
		r.fault(at+".ssl", "pair", "", "needs both certFile and keyFile, or neither")
	}
	if detail.Quota != 0 && detail.Quota < smallestQuota {
		r.fault(at+".quota", "value", "", "must be 16MiB or more")
	}
	if detail.Quota > largestQuota {
		r.fault(at+".quota", "value", "", "must be 16TiB or less: that much address space is reserved for the database")
	}
	if cfg.Storage.Type == StorageEtcd {
		if detail.Quota != 0 {
			r.fault(at+".quota", "misplaced", "",
				"belongs to storage.type embedded: a cluster has its own (--quota-backend-bytes)")
		}
		if len(detail.Endpoints) == 0 {
			r.fault(at+".endpoints", "required", "", "is required with storage.type etcd, as in [https://etcd-1:2379]")
		}
		r.checkEndpoints(at, detail)
		if (detail.Username == "") != (detail.PasswordFile == "") {
			r.fault(at, "pair", "", "needs both username and passwordFile, or neither")
		}
		if len(cfg.EncryptionKeyFiles) == 0 {
			r.fault("encryptionKeyFiles", "required", "",
				"is required with storage.type etcd, the same on all replicas: make a key with (umask 077; openssl rand "+
					"-base64 32 > FILE)")
		}
		return
	}
	for key, value := range map[string]bool{
		"endpoints": len(detail.Endpoints) > 0, "namespace": detail.Namespace != "", "username": detail.Username != "",
		"passwordFile": detail.PasswordFile != "", "ssl": ssl != SSL{},
	} {
		if value {
			r.fault(at+"."+key, "misplaced", "", "belongs to storage.type etcd, but the type is %s", cfg.Storage.Type)
		}
	}
}

// checkEndpoints holds the addresses of an etcd cluster to what its client understands. One that may hold a password is
// not repeated.
func (r *reader) checkEndpoints(at string, detail StorageDetail) {
	seen := make(map[string]int)
	first := ""
	for i, endpoint := range detail.Endpoints {
		path := fmt.Sprintf("%s.endpoints[%d]", at, i)
		u, err := url.Parse(endpoint)
		if strings.Contains(endpoint, "@") {
			r.fault(path, "userinfo", "", "must be a URL without user name and password, as in https://etcd-1:2379: "+
				"they belong in username and passwordFile")
			continue
		}
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			r.fault(path, "url", "", "must be a URL, as in https://etcd-1:2379, but is %q", endpoint)
			continue
		}
		if first == "" {
			first = u.Scheme
		}
		port, portErr := strconv.ParseUint(u.Port(), 10, 16)
		twin, twice := seen[strings.ToLower(u.Host)]
		switch {
		case u.Port() == "":
			r.fault(path, "url", u.Scheme+"://"+strings.TrimSuffix(u.Host, ":")+":2379",
				"must have a port, as in https://etcd-1:2379")
		case portErr != nil || port == 0 || u.Hostname() == "":
			r.fault(path, "url", "", "must have a host and a port from 1 to 65535, but is %q", endpoint)
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			r.fault(path, "url", u.Scheme+"://"+u.Host, "must have neither path, query nor fragment")
		case u.Scheme == "http" && detail.PasswordFile != "":
			r.fault(path, "cleartext", "https"+strings.TrimPrefix(endpoint, "http"),
				"must be https: over plain http the password in passwordFile would be sent unencrypted")
		case twice:
			r.fault(path, "duplicate", "", "is the same as %s.endpoints[%d]", at, twin)
		case u.Scheme != first:
			r.fault(path, "mixed", "", "is %s, but the first one is %s: all members are reached in the same way",
				u.Scheme, first)
		default:
			seen[strings.ToLower(u.Host)] = i
		}
	}
	if first == "http" && detail.SSL != (SSL{}) {
		r.fault(at+".ssl", "misplaced", "", "is of no use with endpoints that are plain http: make them "+
			"https, or leave it out")
	}
}

func (r *reader) checkListener(path, address string) {
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	_, addressErr := netip.ParseAddr(host)
	if err != nil || portErr != nil || host != "" && addressErr != nil && !oauth.IsHostName(host) {
		r.fault(path, "address", "", "must be host:port, as in 127.0.0.1:5556, but is %q", address)
		return
	}
	at := listener{path, host, n}
	for _, other := range r.listeners {
		if other.meets(at) {
			r.fault(path, "duplicate", "",
				"collides with %s: no two listeners can use the same address and port", other.path)
			return
		}
	}
	r.listeners = append(r.listeners, at)
}

// listener is one that a server is going to open.
type listener struct {
	path, host string
	port       uint64 // 0: any that is free
}

// meets says whether a system refuses to open both: a listener on all addresses takes the port of each.
func (l listener) meets(other listener) bool {
	everywhere := func(host string) bool {
		address, err := netip.ParseAddr(host)
		return host == "" || err == nil && address.IsUnspecified()
	}
	address := func(host string) string {
		if host = strings.ToLower(strings.TrimSuffix(host, ".")); host == "localhost" {
			return "127.0.0.1" // the one of its addresses that is opened
		}
		return host
	}
	return l.port == other.port && l.port != 0 &&
		(address(l.host) == address(other.host) || everywhere(l.host) || everywhere(other.host))
}

func (r *reader) checkWeb(cfg *Config) {
	web := cfg.Web
	if web.HTTP == "" && web.HTTPS == "" {
		r.fault("web", "required", "", "needs a listener: http or https, as in http: 127.0.0.1:5556")
	}
	if web.HTTP != "" {
		r.checkListener("web.http", web.HTTP)
	}
	if web.HTTPS != "" {
		r.checkListener("web.https", web.HTTPS)
		r.required("web.tlsCert", web.TLSCert, "web.https needs a certificate")
		r.required("web.tlsKey", web.TLSKey, "web.https needs the key of the certificate")
	} else if web.TLSCert != "" || web.TLSKey != "" {
		r.fault("web", "pair", "", "has a certificate, but no https listener")
	}
	if time.Duration(web.DrainDelay) > longestDrain {
		r.fault("web.drainDelay", "value", "", "must be at most 5m, but is %s", time.Duration(web.DrainDelay))
	}
	for i, text := range web.TrustedProxies {
		r.checkNetwork(fmt.Sprintf("web.trustedProxies[%d]", i), text, true)
	}
	if web.MaxConnections != 0 && (web.MaxConnections < 16 || web.MaxConnections > 1_000_000) {
		r.fault("web.maxConnections", "value", "",
			"must be from 16 to 1000000, or 0 for as many as the process may have, but is %d",
			web.MaxConnections)
	}
	for i, origin := range web.AllowedOrigins {
		path := fmt.Sprintf("web.allowedOrigins[%d]", i)
		if origin == "*" {
			continue // any origin: none of these endpoints heeds a cookie
		}
		if reason, mended := oauth.CheckOrigin(origin); strings.Contains(origin, "@") && reason != "" {
			r.fault(path, "origin", "", "%s", reason) // it may hold a password
		} else if reason != "" {
			r.fault(path, "origin", cmp.Or(mended, inPunycode(origin)), "%s, but is %q", reason, origin)
		}
	}
}

// brandingKeys are the keys of a branding's fields.
var brandingKeys = map[string]string{"Name": "name", "Support": "supportURL", "Privacy": "privacyURL"}

func (r *reader) checkBranding(b Branding) {
	for _, wrong := range b.pages().Check() {
		r.fault("branding."+brandingKeys[wrong.Field], "value", wrong.Nearest, "%s", wrong.Reason)
	}
}

func (r *reader) checkAdmin(cfg *Config) {
	admin := cfg.Admin
	if (admin.TLSCert == "") != (admin.TLSKey == "") {
		r.fault("admin", "pair", "", "needs both tlsCert and tlsKey, or neither")
	}
	if admin.Listen == "" {
		if admin.TLSCert != "" || admin.TokenFile != "" {
			r.fault("admin", "misplaced", "", "has TLS or a token, but no listen: they are for TCP only")
		}
		return
	}
	r.checkListener("admin.listen", admin.Listen)
	r.required("admin.tokenFile", admin.TokenFile, "admin over TCP needs a bearer token")
	if host, _, err := net.SplitHostPort(admin.Listen); err == nil && !oauth.IsLoopback(host) && admin.TLSCert == "" {
		r.fault("admin.tlsCert", "required", "", "is required: admin over TCP that is not on loopback needs TLS")
	}
}

// userKeys are the keys of a person's fields.
var userKeys = map[string]string{"UserID": "userID", "Email": "email", "Username": "username", "Hash": "hash"}

func (r *reader) checkPasswords(cfg *Config) {
	if len(cfg.StaticPasswords) > 0 && !cfg.EnablePasswordDB {
		r.fault("staticPasswords", "pair", "", "are of no use without enablePasswordDB: true")
	}
	for _, wrong := range connector.CheckUsers(cfg.users()) {
		if wrong.Twin >= 0 { // the others are found below, some of them by what only the configuration knows
			at := fmt.Sprintf("staticPasswords[%d].%s", wrong.User, userKeys[wrong.Field])
			r.fault(at, "duplicate", "", "is the same as staticPasswords[%d].%s", wrong.Twin, userKeys[wrong.TwinField])
		}
	}
	for i, p := range cfg.StaticPasswords {
		at := fmt.Sprintf("staticPasswords[%d]", i)
		if r.required(at+".email", p.Email, "people sign in with it") {
			if a, err := mail.ParseAddress(p.Email); err != nil || a.Address != p.Email {
				r.fault(at+".email", "email", "", "must be an e-mail address, but is %q", p.Email)
			}
		}
		if r.required(at+".userID", p.UserID, "it becomes the subject of tokens and must never change") {
			if err := storage.CheckUserID(cfg.SubjectOf(p.UserID)); err != nil {
				r.fault(at+".userID", "value", "", "is %s", err)
			}
		}
		switch {
		case p.Hash != "" && p.HashFile != "":
			r.fault(at+".hashFile", "pair", "", "and hash exclude each other")
		case p.Hash == "" && p.HashFile == "":
			r.fault(at+".hash", "required", "", "is required (or hashFile): make one with warifu hash")
		case p.Hash != "":
			if err := checkHash(p.Hash); err != nil {
				r.fault(at+".hash", "hash", "", "%s", err)
			}
		}
		r.checkPerson(at, p)
	}
}

// checkHash holds a bcrypt hash to costs that neither give the password away nor keep the server busy for a minute per
// guess.
func checkHash(hash string) error {
	cost, err := bcrypt.Cost([]byte(hash))
	if plain, bad := base64.StdEncoding.DecodeString(hash); bad == nil && len(plain) == 60 &&
		checkHash(string(plain)) == nil {
		return errors.New("must be the bcrypt hash itself, not its base64 form, which Dex also accepts: " +
			"decode it with base64 -d")
	}
	switch {
	case err != nil || len(hash) != 60:
		return fmt.Errorf("must be a bcrypt hash, 60 characters that begin with $2a$, $2b$ or $2y$")
	case cost < 10:
		return fmt.Errorf("has bcrypt cost %d, which makes guessing too fast: use 10 or more", cost)
	case cost > 16:
		return fmt.Errorf("has bcrypt cost %d, which takes many seconds per sign-in: use 16 or less", cost)
	}
	return nil
}

// lifeKeys are the keys of the lifetimes.
var lifeKeys = map[string]string{
	"AccessToken": "accessTokens", "IDToken": "idTokens", "Code": "codes", "AuthRequest": "authRequests",
	"DeviceCode": "deviceRequests", "Session": "sessions", "SigningKeys": "signingKeys", "SealingKeys": "sealingKeys",
	"RefreshIdle":     "refreshTokens.validIfNotUsedFor",
	"RefreshAbsolute": "refreshTokens.absoluteLifetime",
	"RefreshReuse":    "refreshTokens.reuseInterval",
}

// longestAccess is for how long an access token is usually valid at most.
const longestAccess = 24 * time.Hour

func (r *reader) checkExpiry(cfg *Config) {
	for _, wrong := range cfg.Lifetimes().Check() {
		r.fault("expiry."+lifeKeys[wrong.Field], "value", "", "%s", wrong.Reason)
	}
	for _, key := range lifeKeys {
		if at := "expiry." + key; key != lifeKeys["RefreshReuse"] && slices.Contains(r.zeros, at) {
			r.fault(at, "value", "", "must be more than 0s: leave it out for the default")
		}
	}
	if life := cfg.Lifetimes().AccessToken; life > longestAccess {
		r.warn("expiry.accessTokens", "value",
			"is %s: an API that checks access tokens only by their signature accepts one for that long, "+
				"even after it was revoked", life)
	}
	unused, most := cfg.Expiry.RefreshTokens.ValidIfNotUsedFor, cfg.Expiry.RefreshTokens.AbsoluteLifetime
	if lives := cfg.Lifetimes(); most == 0 && time.Duration(unused) > lives.RefreshAbsolute {
		r.warn("expiry.refreshTokens.validIfNotUsedFor", "value", "is %s, but everything ends after absoluteLifetime, %s",
			time.Duration(unused), lives.RefreshAbsolute)
	}
	if most > 0 && unused > most {
		r.fault("expiry.refreshTokens.validIfNotUsedFor", "value", "",
			"must not be longer than absoluteLifetime, %s", time.Duration(most))
	}
	if d := time.Duration(cfg.Expiry.SecretMaxAge); d != 0 && d < time.Hour {
		r.fault("expiry.secretMaxAge", "value", "", "must be 1h or more, or 0s for never, but is %s", d)
	}
}

func (r *reader) checkScopes(cfg *Config) {
	if len(cfg.Scopes) == 0 {
		return
	}
	for _, wrong := range server.CheckScopes(cfg.Catalogue()) {
		at := fmt.Sprintf("scopes[%d].name", wrong.Index)
		switch {
		case wrong.Name == "": // said below
		case wrong.Twin >= 0:
			r.fault(at, "duplicate", "", "is the same as scopes[%d].name", wrong.Twin)
		default:
			r.fault(at, "value", "", "%s", wrong.Reason)
		}
	}
	for i, s := range cfg.Scopes {
		at := fmt.Sprintf("scopes[%d]", i)
		r.required(at+".name", s.Name, "as in files:read")
		r.required(at+".description.en", s.Description.EN, "the consent page says what the scope allows")
		r.required(at+".description.ja", s.Description.JA, "the consent page says what the scope allows")
		r.required(at+".risk", string(s.Risk), "low, write or broad")
	}
}

func (r *reader) checkPlugins(at string, list []Plugin, builtin []string) {
	seen := make(map[string]bool)
	for i, p := range list {
		path := fmt.Sprintf("%s[%d]", at, i)
		if !r.required(path+".name", p.Name, "a name for the plugin") {
			continue
		}
		switch {
		case !plugins.ValidName(p.Name):
			r.fault(path+".name", "value", "", "must be 1 to 63 of a-z, 0-9 and hyphens, but is %q", p.Name)
		case seen[p.Name]:
			r.fault(path+".name", "duplicate", "", "is listed twice")
		case p.Path == "" && !slices.Contains(builtin, p.Name):
			r.fault(path+".path", "required", strictyaml.Nearest(p.Name, builtin),
				"is required: only %s can go without", strings.Join(builtin, ", "))
		}
		seen[p.Name] = true
		r.checkSettings(path, p)
		if sum, err := hex.DecodeString(p.SHA256); p.SHA256 != "" && (err != nil || len(sum) != 32) {
			r.fault(path+".sha256", "value", "", "must be 64 hex digits, as printed by sha256sum")
		}
	}
}
