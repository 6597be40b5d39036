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

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

// Settings are a configuration with what the files that it names hold: what a server is built of.
type Settings struct {
	*Config
	Dir    string // absolute dataDir
	Socket string // of the admin API, absolute
	// Provider has everything but the store, the connector and the log.
	Provider   server.Config
	Users      []connector.StaticUser
	AdminToken string // of admin.listen
	// Etcd says how to reach the cluster, for [StorageEtcd].
	Etcd storage.Remote
	// KEK seals secrets; nil when the first start on an embedded database is to make one, in KEKFile.
	KEK     *storage.KEK
	KEKFile string
	// Warnings are about what is allowed and probably not meant.
	Warnings strictyaml.Faults
}

// Load reads the files that a configuration names which the program made up itself. Its values are not checked.
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

// load is the only place where the files of a configuration are read for a start: so [Read] refuses exactly what a server
// could not be started with.
func (r *reader) load(cfg *Config) *Settings {
	s := &Settings{Config: cfg}
	r.loadDirectories(s)
	r.loadProvider(s)
	r.loadUsers(s)
	r.loadPair("web.tlsCert", "web.tlsKey", cfg.Web.TLSCert, cfg.Web.TLSKey)
	r.loadPair("admin.tlsCert", "admin.tlsKey", cfg.Admin.TLSCert, cfg.Admin.TLSKey)
	if cfg.Admin.Listen != "" {
		s.AdminToken = named(r, "admin.tokenFile", cfg.Admin.TokenFile, readLongSecret)
	}
	if cfg.Storage.Type == StorageEtcd {
		r.loadRemote(s)
	}
	r.loadKeys(s)
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
		if err := CheckSocket(socket); err != nil {
			r.fault(path, "file", "", "cannot be used: %s", err)
		} else if err := checkMakeable(filepath.Dir(socket)); err != nil {
			r.fault(path, "file", "", "is in %s, %s", filepath.Dir(socket), err)
		}
	}
}

// loadProvider reads what concerns OAuth 2.
func (r *reader) loadProvider(s *Settings) {
	s.Provider = server.Config{
		Issuer: s.Issuer, Scopes: s.Catalogue(), Lifetimes: s.Lifetimes(), AllowedOrigins: s.Web.AllowedOrigins,
		GrantTypes: s.GrantTypes(), ClientIDMetadataDocuments: s.OAuth2.ClientIDMetadataDocuments,
	}
	for i, rs := range s.OAuth2.ResourceServers {
		secret := named(r, fmt.Sprintf("oauth2.resourceServers[%d].secretFile", i), rs.SecretFile, readLongSecret)
		s.Provider.ResourceServers = append(s.Provider.ResourceServers,
			server.ResourceServer{ID: rs.ID, Identifier: rs.Identifier, Secret: secret})
	}
	if s.OAuth2.Registration.Enabled {
		s.Provider.Registration = &server.Registration{}
		for i, file := range s.OAuth2.Registration.InitialAccessTokenFiles {
			token := named(r, fmt.Sprintf("oauth2.registration.initialAccessTokenFiles[%d]", i), file, readLongSecret)
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
}

func (r *reader) loadUsers(s *Settings) {
	s.Users = s.Config.users()
	for i, p := range s.StaticPasswords {
		if p.HashFile != "" {
			s.Users[i].Hash = named(r, fmt.Sprintf("staticPasswords[%d].hashFile", i), p.HashFile, readHash)
		}
	}
}

// loadPair reads a certificate and its key, when both are named.
func (r *reader) loadPair(certPath, keyPath, cert, key string) *tls.Certificate {
	if cert == "" || key == "" {
		return nil
	}
	pair, err := ReadCertificate(cert, key)
	var ofKey *KeyError
	switch {
	case errors.As(err, &ofKey):
		r.fault(keyPath, "file", "", "names %s, %s", key, err)
	case err != nil:
		r.fault(certPath, "file", "", "names %s, %s", cert, err)
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
		named(r, fmt.Sprintf("encryptionKeyFiles[%d]", i), file, readKEK)
	}
	switch {
	case r.faulty("encryptionKeyFiles"):
	case len(s.EncryptionKeyFiles) > 0:
		var err error
		if s.KEK, err = storage.ReadKEK(s.EncryptionKeyFiles...); err != nil {
			r.fault("encryptionKeyFiles", "file", "", "cannot be used: %s", err)
		}
	case s.Storage.Type == StorageEmbedded && s.Dir != "":
		s.KEKFile = filepath.Join(s.Dir, "encryption.key")
		if !exists(s.KEKFile) && exists(filepath.Join(s.Dir, "etcd")) {
			r.fault(at, "file", "", "has a database whose encryption key %s is missing, and without it the secrets cannot be read: "+
				"restore it from a backup, or start with an empty data directory", s.KEKFile)
		} else if exists(s.KEKFile) {
			s.KEK = named(r, at, s.KEKFile, readKEK)
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
