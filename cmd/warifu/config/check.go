package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

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
	r.checkAdmin(cfg)
	r.checkPasswords(cfg)
	r.checkExpiry(cfg)
	r.checkScopes(cfg)
	r.checkPlugins("plugins.deployHooks", cfg.Plugins.DeployHooks, builtinHooks)
	r.checkPlugins("plugins.runtimes", cfg.Plugins.Runtimes, builtinRuntimes)
	r.checkTargets(cfg.Plugins)
	r.checkOAuth2(cfg)
	r.checkOutbound(cfg.Outbound)
	if len(cfg.Connectors) > 0 {
		r.fault("connectors", "unsupported", "",
			"must stay empty: this version has no connectors yet, people sign in with staticPasswords")
	}
	if cfg.Manifests.Watch && len(cfg.Manifests.Directories) == 0 {
		r.fault("manifests.watch", "required", "", "needs manifests.directories")
	}
	r.checkNoEmpty("manifests.directories", cfg.Manifests.Directories)
	r.checkNoEmpty("encryptionKeyFiles", cfg.EncryptionKeyFiles)
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
		r.fault("issuer", "issuer", wrong.Nearest, "%s", wrong.Reason)
	}
}

func (r *reader) checkStorage(cfg *Config) {
	const at = "storage.config"
	detail := cfg.Storage.Config
	r.required(at+".dataDir", detail.DataDir, "a directory for what this process keeps")
	ssl := detail.SSL
	if (ssl.CertFile == "") != (ssl.KeyFile == "") {
		r.fault(at+".ssl", "pair", "", "needs both certFile and keyFile, or neither")
	}
	if cfg.Storage.Type == StorageEtcd {
		if len(detail.Endpoints) == 0 {
			r.fault(at+".endpoints", "required", "", "is required with storage.type etcd, as in [https://etcd-1:2379]")
		}
		for i, endpoint := range detail.Endpoints {
			path := fmt.Sprintf("%s.endpoints[%d]", at, i)
			u, err := url.Parse(endpoint)
			switch {
			case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
				r.fault(path, "url", "", "must be a URL, as in https://etcd-1:2379, but is %q", endpoint)
			case u.Scheme == "http" && detail.PasswordFile != "":
				r.fault(path, "cleartext", "https"+strings.TrimPrefix(endpoint, "http"),
					"must be https: over plain http the password of passwordFile would go in clear")
			}
		}
		if (detail.Username == "") != (detail.PasswordFile == "") {
			r.fault(at, "pair", "", "needs both username and passwordFile, or neither")
		}
		if len(cfg.EncryptionKeyFiles) == 0 {
			r.fault("encryptionKeyFiles", "required", "",
				"is required with storage.type etcd, the same on all replicas: make a key with openssl rand -base64 32")
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

// hostName is what a resolver could know: labels of letters, digits and hyphens, the last of which is not a number.
var hostName = regexp.MustCompile(
	`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?$`,
)

func (r *reader) checkListener(path, address string) {
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	_, addressErr := netip.ParseAddr(host)
	if err != nil || portErr != nil || host != "" && addressErr != nil && !hostName.MatchString(host) {
		r.fault(path, "address", "", "must be host:port, as in 127.0.0.1:5556, but is %q", address)
		return
	}
	at := listener{path, host, n}
	for _, other := range r.listeners {
		if other.meets(at) {
			r.fault(path, "duplicate", "", "meets %s: no two listeners can have the same port of an address", other.path)
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
	return l.port == other.port && l.port != 0 &&
		(strings.EqualFold(l.host, other.host) || everywhere(l.host) || everywhere(other.host))
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
	for i, origin := range web.AllowedOrigins {
		path := fmt.Sprintf("web.allowedOrigins[%d]", i)
		u, err := url.Parse(origin)
		if origin == "*" {
			continue // any origin: none of these endpoints heeds a cookie
		}
		if err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host {
			r.fault(path, "origin", "", "must be an origin, as in https://app.example.com, but is %q", origin)
		}
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
			if len(p.UserID) > storage.MaxUserID ||
				strings.ContainsFunc(p.UserID, func(c rune) bool { return c <= ' ' || c > '~' }) {
				r.fault(at+".userID", "value", "",
					"must be 1 to %d ASCII characters without spaces (OpenID Connect Core section 2)", storage.MaxUserID)
			}
		}
		switch {
		case p.Hash != "" && p.HashFile != "":
			r.fault(at+".hashFile", "pair", "", "and hash exclude each other")
		case p.Hash == "" && p.HashFile == "":
			r.fault(at+".hash", "required", "", "is required (or hashFile): make one with htpasswd -nBC 10 user | cut -d: -f2")
		case p.Hash != "":
			if err := checkHash(p.Hash); err != nil {
				r.fault(at+".hash", "hash", "", "%s", err)
			}
		}
		r.checkPerson(at, p)
	}
}

// checkHash holds a bcrypt hash to costs that neither give the password away nor keep the server busy for a minute per guess.
func checkHash(hash string) error {
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil || len(hash) != 60:
		return fmt.Errorf("must be a bcrypt hash, 60 characters that begin with $2a$, $2b$ or $2y$")
	case cost < 10:
		return fmt.Errorf("has bcrypt cost %d, which is too fast to guess: use 10 or more", cost)
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

func (r *reader) checkExpiry(cfg *Config) {
	for _, wrong := range cfg.Lifetimes().Check() {
		r.fault("expiry."+lifeKeys[wrong.Field], "value", "", "%s", wrong.Reason)
	}
	unused, most := cfg.Expiry.RefreshTokens.ValidIfNotUsedFor, cfg.Expiry.RefreshTokens.AbsoluteLifetime
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
			r.fault(path+".name", "duplicate", "", "is there twice")
		case p.Path == "" && !slices.Contains(builtin, p.Name):
			r.fault(path+".path", "required", strictyaml.Nearest(p.Name, builtin),
				"is required: only %s can go without", strings.Join(builtin, ", "))
		}
		seen[p.Name] = true
		if sum, err := hex.DecodeString(p.SHA256); p.SHA256 != "" && (err != nil || len(sum) != 32) {
			r.fault(path+".sha256", "value", "", "must be 64 hex digits, as printed by sha256sum")
		}
	}
}
