package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

// Settings are a configuration with what the files that it names hold: what a server is built of.
type Settings struct {
	*Config
	Dir    string // absolute dataDir
	Socket string // of the admin API, absolute
	// Provider has everything but the store, the connectors and the log.
	Provider server.Config
	// Mail has everything but the log; nil without a mail server.
	Mail       *mail.Options
	Users      []connector.StaticUser
	upstreams  []upstream
	AdminToken string // of admin.listen
	// TraceHeaders go to the collector of telemetry.traces.
	TraceHeaders map[string]string
	// Etcd says how to reach the cluster, for [StorageEtcd].
	Etcd storage.Remote
	// KEK seals secrets; nil when the first start on an embedded database is to make one, in KEKFile.
	KEK     *storage.KEK
	KEKFile string
	files   map[string]fileState // that are named, by key
	// Warnings are about what is allowed and probably not meant.
	Warnings strictyaml.Faults
}

// Load is for a configuration that no file holds, as tests make one: it reads the files that this names, and checks no
// values.
func Load(cfg *Config) (*Settings, error) {
	r := newReader("configuration")
	r.places = nil
	s := r.load(cfg)
	if err := r.Faults.Err(); err != nil {
		return nil, err
	}
	s.Warnings = r.Faults
	return s, nil
}

// load is the only place where the files of a configuration are read for a start: so [Read] refuses exactly what a
// server could not be started with.
func (r *reader) load(cfg *Config) *Settings {
	s := &Settings{Config: cfg, files: r.files}
	r.loadDirectories(s)
	r.loadProvider(s)
	r.loadMail(s)
	r.loadUsers(s)
	r.loadConnectors(s)
	r.loadPair("web.tlsCert", "web.tlsKey", cfg.Web.TLSCert, cfg.Web.TLSKey)
	r.loadPair("admin.tlsCert", "admin.tlsKey", cfg.Admin.TLSCert, cfg.Admin.TLSKey)
	for _, secret := range []struct{ path, file string }{
		{"web.tlsKey", cfg.Web.TLSKey}, {"admin.tlsKey", cfg.Admin.TLSKey}, {"admin.tokenFile", cfg.Admin.TokenFile},
		{"mail.passwordFile", cfg.Mail.PasswordFile},
		{"telemetry.traces.headersFile", cfg.Telemetry.Traces.HeadersFile}, {"storage.config.passwordFile",
			cfg.Storage.Config.PasswordFile},
		{"storage.config.ssl.keyFile", cfg.Storage.Config.SSL.KeyFile},
	} {
		r.warnOpen(secret.path, secret.file)
	}
	if cfg.Admin.Listen != "" {
		s.AdminToken = named(r, "admin.tokenFile", cfg.Admin.TokenFile, readLongSecret)
	}
	s.TraceHeaders = named(r, "telemetry.traces.headersFile", cfg.Telemetry.Traces.HeadersFile, readHeaders)
	if cfg.Storage.Type == StorageEtcd {
		r.loadRemote(s)
	}
	r.loadKeys(s)
	r.loadPlugins("plugins.deployHooks", cfg.Plugins.DeployHooks)
	r.loadPlugins("plugins.runtimes", cfg.Plugins.Runtimes)
	for i, dir := range cfg.Manifests.Directories {
		r.checkNamed(fmt.Sprintf("manifests.directories[%d]", i), dir, checkDirectory)
	}
	return s
}

// named reads a file whose name is at a path, and reports what is wrong with it. No name, nothing: whether it is
// required was checked before.
func named[T any](r *reader, path, file string, read func(string) (T, error)) T {
	var none T
	if file == "" {
		return none
	}
	r.remember(path, file)
	value, err := read(file)
	if err != nil {
		r.fault(path, "file", "", "names %s, %s", file, err)
		return none
	}
	return value
}

// checkNamed is named for what is not read.
func (r *reader) checkNamed(path, file string, check func(string) error) {
	named(r, path, file, func(file string) (struct{}, error) { return struct{}{}, check(file) })
}

func (r *reader) loadDirectories(s *Settings) {
	const at = "storage.config.dataDir"
	dir := s.Storage.Config.DataDir
	if dir == "" {
		return
	}
	r.checkNamed(at, dir, checkMakeable)
	var err error
	if s.Dir, err = filepath.Abs(dir); err != nil {
		r.fault(at, "file", "", "cannot be found: %s", err)
		return
	}
	socket, path := s.Admin.Socket, "admin.socket"
	if socket == "" {
		socket, path = filepath.Join(s.Dir, "admin.sock"), at
	}
	if s.Socket = socket; !r.faulty(at) {
		absolute, _ := filepath.Abs(socket) // dataDir could be made absolute
		if below, err := filepath.Rel(filepath.Join(s.Dir, "etcd"), absolute); err == nil && filepath.IsLocal(below) {
			r.fault(path, "file", "", "is in %s, where the database is and nothing else may be: choose another directory",
				filepath.Join(s.Dir, "etcd"))
		} else if err := CheckSocket(socket); err != nil {
			r.fault(path, "file", "", "cannot be used: %s", err)
		} else if err := checkMakeable(filepath.Dir(socket)); err != nil {
			r.fault(path, "file", "", "is in %s, %s", filepath.Dir(socket), err)
		}
	}
}

// loadProvider reads what concerns OAuth 2.
func (r *reader) loadProvider(s *Settings) {
	s.Provider = server.Config{
		Issuer: s.Issuer, Scopes: s.Catalogue(), Lifetimes: s.Lifetimes(), Demands: s.MFA.Demands(),
		AllowedOrigins: s.Web.AllowedOrigins,
		GrantTypes:     s.GrantTypes(), ClientIDMetadataDocuments: s.OAuth2.ClientIDMetadataDocuments.Enabled,
		ClientDocumentHosts: oauth.HostRules{Allow: s.OAuth2.ClientIDMetadataDocuments.Allow,
			Deny: s.OAuth2.ClientIDMetadataDocuments.Deny},
		TrustedProxies: s.Web.proxies(), Branding: s.Branding.pages(), IDTokenClaims: string(s.OAuth2.IDTokenClaims),
		Claims: s.claims(), Trusted: s.Config.Trusted, Subjects: s.subjects(),
		AlwaysShowLoginScreen: s.OAuth2.AlwaysShowLoginScreen,
	}
	if most := s.OAuth2.Registration.Scopes; len(most) > 0 {
		s.Provider.RegistrationScopes = most
	}
	s.Provider.Branding.Logo = named(r, "branding.logoFile", s.Branding.LogoFile, readLogo)
	for i, rs := range s.OAuth2.ResourceServers {
		at := fmt.Sprintf("oauth2.resourceServers[%d].secretFile", i)
		secret := ""
		if rs.SecretFile != "" {
			r.warnOpen(at, rs.SecretFile)
			secret = named(r, at, rs.SecretFile, readLongSecret)
		}
		s.Provider.ResourceServers = append(s.Provider.ResourceServers,
			server.ResourceServer{ID: rs.ID, Identifier: rs.Identifier, Secret: secret,
				AccessTokenType: string(rs.AccessTokenType), AccessTokenAlg: string(rs.AccessTokenAlg)})
	}
	if s.OAuth2.Registration.Enabled {
		s.Provider.Registration = &server.Registration{}
		for i, file := range s.OAuth2.Registration.InitialAccessTokenFiles {
			at := fmt.Sprintf("oauth2.registration.initialAccessTokenFiles[%d]", i)
			r.warnOpen(at, file)
			token := named(r, at, file, readLongSecret)
			s.Provider.Registration.InitialAccessTokens = append(s.Provider.Registration.InitialAccessTokens, token)
		}
	}
	if reg := s.Provider.Registration; reg != nil && len(reg.InitialAccessTokens) == 0 {
		r.warn("oauth2.registration", "open", "names no initial access tokens: anyone can register clients")
	}
	opts := outbound.Options{RootCAs: named(r, "outbound.caFile", s.Outbound.CAFile, readAuthorities)}
	for _, text := range s.Outbound.Allow {
		if prefix, err := netip.ParsePrefix(text); err == nil { // what is not a network was reported before
			opts.Allow = append(opts.Allow, prefix)
		}
	}
	s.Provider.Outbound = outbound.New(opts)
	r.loadTrustedIssuers(s)
}

// loadMail says how to reach the mail server. Its password is read now, to see that it can be, and again for each mail.
func (r *reader) loadMail(s *Settings) {
	m := s.Config.Mail
	host, port, ok := m.address()
	if !ok {
		return
	}
	s.Mail = &mail.Options{Host: host, Port: port, TLS: mail.TLS(m.TLS), Username: m.Username, From: m.From,
		CAs:  named(r, "mail.caFile", m.CAFile, readAuthorities),
		Helo: mail.HeloOf(s.Issuer), Password: func() (string, error) { return readSecret(m.PasswordFile) }}
	named(r, "mail.passwordFile", m.PasswordFile, readSecret)
}

func (r *reader) loadUsers(s *Settings) {
	s.Users = s.Config.users()
	for i, p := range s.StaticPasswords {
		if p.HashFile != "" {
			at := fmt.Sprintf("staticPasswords[%d].hashFile", i)
			r.warnOpen(at, p.HashFile)
			s.Users[i].Hash = named(r, at, p.HashFile, readHash)
		}
	}
}

// loadPair reads a certificate and its key, when both are named.
func (r *reader) loadPair(certPath, keyPath, cert, key string) *tls.Certificate {
	if cert == "" || key == "" {
		return nil
	}
	r.remember(certPath, cert)
	r.remember(keyPath, key)
	pair, err := ReadCertificate(cert, key)
	var ofKey *KeyError
	switch {
	case errors.As(err, &ofKey):
		r.fault(keyPath, "file", "", "names %s, %s", key, err)
	case err != nil:
		r.fault(certPath, "file", "", "names %s, %s", cert, err)
	case pair.Leaf != nil:
		const date = "2006-01-02 15:04 MST"
		if now := time.Now(); now.After(pair.Leaf.NotAfter) {
			r.warn(certPath, "expired", "names %s, which expired at %s: nobody who checks it will connect until it is renewed",
				cert, pair.Leaf.NotAfter.Format(date))
		} else if now.Before(pair.Leaf.NotBefore) {
			r.warn(certPath, "expired", "names %s, which is not valid before %s: nobody who checks it will connect until then "+
				"(or is the clock of this machine wrong?)", cert, pair.Leaf.NotBefore.Format(date))
		}
	}
	return pair
}

// loadRemote says how to reach the etcd cluster.
func (r *reader) loadRemote(s *Settings) {
	const at = "storage.config"
	detail := s.Storage.Config
	s.Etcd = storage.Remote{Endpoints: detail.Endpoints, Username: detail.Username}
	s.Etcd.Password = named(r, at+".passwordFile", detail.PasswordFile, readSecret)
	secure := slices.ContainsFunc(detail.Endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") })
	if !secure && detail.SSL == (SSL{}) {
		return
	}
	s.Etcd.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: detail.SSL.ServerName,
		RootCAs: named(r, at+".ssl.caFile", detail.SSL.CAFile, readAuthorities),
	}
	if pair := r.loadPair(at+".ssl.certFile", at+".ssl.keyFile", detail.SSL.CertFile, detail.SSL.KeyFile); pair != nil {
		s.Etcd.TLS.Certificates = []tls.Certificate{*pair}
	}
}

// loadKeys reads the keys that seal secrets in storage. An embedded database has one of its own in the data directory.
func (r *reader) loadKeys(s *Settings) {
	const at = "storage.config.dataDir"
	for i, file := range s.EncryptionKeyFiles {
		at := fmt.Sprintf("encryptionKeyFiles[%d]", i)
		if named(r, at, file, readKEK) != nil {
			r.checkNamed(at, file, checkPrivate)
		}
	}
	switch {
	case r.faulty("encryptionKeyFiles"):
	case len(s.EncryptionKeyFiles) > 0:
		var err error
		if s.KEK, err = storage.ReadKEK(s.EncryptionKeyFiles...); err != nil {
			r.fault("encryptionKeyFiles", "file", "", "cannot be used: %s", err)
		}
	case s.Storage.Type == StorageEmbedded && s.Dir != "" && !r.faulty(at):
		s.KEKFile = filepath.Join(s.Dir, "encryption.key")
		if !exists(s.KEKFile) && storage.MayHaveRecords(s.Dir) {
			r.fault(at, "file", "", "has a database whose encryption key %s is missing, and without it the secrets "+
				"cannot be read: "+
				"restore it from a backup, or start with an empty data directory", s.KEKFile)
		} else if exists(s.KEKFile) {
			s.KEK = named(r, at, s.KEKFile, readKEK)
			if mode, open := openToOthers(s.KEKFile); open {
				r.warn(at, "mode", "has an encryption key that every user of this machine can get at (%s, mode %04o): its mode is "+
					"changed to 0600 when "+
					"the server starts", s.KEKFile, mode)
			}
		}
	}
}

func readKEK(file string) (*storage.KEK, error) {
	if _, err := readFile(file); err != nil {
		return nil, err
	}
	kek, err := storage.ReadKEK(file)
	if err != nil {
		err = errors.New("which must hold 32 bytes in base64 (make a key with: openssl rand -base64 32)")
	}
	return kek, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// faulty says whether there is a fault at a path or below it.
func (r *reader) faulty(path string) bool {
	for _, f := range r.Faults {
		if rest, is := strings.CutPrefix(f.Path, path); is && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// faultyItself reports whether a fault is about what stands at a path as a whole.
func (r *reader) faultyItself(path string) bool {
	return slices.ContainsFunc(r.Faults, func(f strictyaml.Fault) bool { return f.Path == path })
}
