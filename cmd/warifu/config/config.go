package config

import (
	"slices"
	"time"

	"github.com/warifu/warifu/server/connector"
)

// Config is the configuration file of `warifu serve`. Keys are named as in Dex's where they mean the same. The
// comments of config.example.yaml are the manual for people; the texts here are shown by editors through
// config.schema.json.
//
// A key is the field's json name. Every scalar and every list of strings can be overridden from the environment: the
// path in capitals after WARIFU_, such as WARIFU_WEB_HTTP for web.http and WARIFU_WEB_TLS_CERT for web.tlsCert (see
// env.go).
type Config struct {
	Issuer             string           `json:"issuer,omitempty" jsonschema:"Address of this server as apps and browsers see it. It is in every token, so it stays for ever. https, or http on loopback; a path is allowed."`
	Storage            Storage          `json:"storage,omitzero" jsonschema:"Where records are kept."`
	Web                Web              `json:"web,omitzero" jsonschema:"Listeners for browsers and apps."`
	Admin              Admin            `json:"admin,omitzero" jsonschema:"Listeners for the admin API, which the other commands of warifu use."`
	EncryptionKeyFiles []string         `json:"encryptionKeyFiles,omitempty" jsonschema:"Files with the keys that seal secrets in storage, newest first; each holds 32 bytes in base64 (openssl rand -base64 32). Required with etcd. With embedded storage one is made in dataDir by default."`
	EnablePasswordDB   bool             `json:"enablePasswordDB,omitempty" jsonschema:"Whether people sign in with the passwords of staticPasswords."`
	StaticPasswords    []StaticPassword `json:"staticPasswords,omitempty" jsonschema:"People who can sign in with a password."`
	Connectors         []Connector      `json:"connectors,omitempty" jsonschema:"Other identity providers. This version has none yet, so the list stays empty."`
	Expiry             Expiry           `json:"expiry,omitzero" jsonschema:"How long things last, as in 90s, 15m, 24h."`
	OAuth2             OAuth2           `json:"oauth2,omitzero" jsonschema:"What of OAuth 2 is offered."`
	Outbound           Outbound         `json:"outbound,omitzero" jsonschema:"Requests that this server makes because a registration names an address: keys of clients, logout tokens, sector identifiers."`
	Scopes             []Scope          `json:"scopes,omitempty" jsonschema:"The catalogue of scopes that apps may ask for. When given, it replaces the built-in one."`
	Manifests          Manifests        `json:"manifests,omitzero" jsonschema:"Manifests (app.yml) that the server applies by itself."`
	Plugins            Plugins          `json:"plugins,omitzero" jsonschema:"Deploy hooks and runtimes, each an executable of its own."`
	Logger             Logger           `json:"logger,omitzero" jsonschema:"What is logged on stderr, and how."`
}

// StorageType names a kind of storage.
type StorageType string

// Kinds of storage.
const (
	StorageEmbedded StorageType = "embedded"
	StorageEtcd     StorageType = "etcd"
)

// Storage says where records are kept.
type Storage struct {
	Type   StorageType   `json:"type,omitempty" jsonschema:"embedded (etcd inside this process, no socket) or etcd (a cluster that any number of replicas share)."`
	Config StorageDetail `json:"config,omitzero" jsonschema:"Settings of that kind of storage."`
}

// StorageDetail holds the settings of both kinds of storage; check says which of them belong to the type.
type StorageDetail struct {
	DataDir      string   `json:"dataDir,omitempty" jsonschema:"Directory for what this process keeps: the embedded database and its encryption key, the admin socket, env files and plugin state. Made with mode 0700."`
	Endpoints    []string `json:"endpoints,omitempty" jsonschema:"etcd: addresses of the cluster's members, as in https://etcd-1:2379; https where there is a password."`
	Namespace    string   `json:"namespace,omitempty" jsonschema:"etcd: prefix of all keys, as in warifu/."`
	Username     string   `json:"username,omitempty" jsonschema:"etcd: user name."`
	PasswordFile string   `json:"passwordFile,omitempty" jsonschema:"etcd: file that holds the password."`
	SSL          SSL      `json:"ssl,omitzero" jsonschema:"etcd: TLS to the cluster."`
}

// SSL is TLS to an etcd cluster.
type SSL struct {
	CAFile     string `json:"caFile,omitempty" jsonschema:"Certificates of the authorities that vouch for the cluster (PEM). Empty: those of the system."`
	CertFile   string `json:"certFile,omitempty" jsonschema:"Client certificate (PEM)."`
	KeyFile    string `json:"keyFile,omitempty" jsonschema:"Key of the client certificate (PEM)."`
	ServerName string `json:"serverName,omitempty" jsonschema:"Name in the members' certificates, where it is not their host name."`
}

// Web are the listeners for browsers and apps.
type Web struct {
	HTTP           string   `json:"http,omitempty" jsonschema:"host:port for http: behind a proxy that terminates TLS, or on loopback."`
	HTTPS          string   `json:"https,omitempty" jsonschema:"host:port for https; needs tlsCert and tlsKey."`
	TLSCert        string   `json:"tlsCert,omitempty" jsonschema:"Certificate chain (PEM). It is read again when the file changes."`
	TLSKey         string   `json:"tlsKey,omitempty" jsonschema:"Key of the certificate (PEM)."`
	AllowedOrigins []string `json:"allowedOrigins,omitempty" jsonschema:"Origins whose scripts may call the token, userinfo, revocation and discovery endpoints (CORS). None by default."`
}

// Admin are the listeners of the admin API.
type Admin struct {
	Socket    string `json:"socket,omitempty" jsonschema:"Path of the Unix socket (mode 0600). By default admin.sock in dataDir."`
	Listen    string `json:"listen,omitempty" jsonschema:"host:port, to offer the admin API over TCP as well; needs tokenFile, and TLS unless it is on loopback."`
	TLSCert   string `json:"tlsCert,omitempty" jsonschema:"Certificate chain for listen (PEM)."`
	TLSKey    string `json:"tlsKey,omitempty" jsonschema:"Key of that certificate (PEM)."`
	TokenFile string `json:"tokenFile,omitempty" jsonschema:"File that holds the bearer token for listen: at least 32 characters."`
}

// StaticPassword is a person who signs in with a password, and what apps may learn of them: the standard claims of
// OpenID Connect Core section 5.1, by scope and with the person's consent.
type StaticPassword struct {
	Email         string `json:"email,omitempty" jsonschema:"E-mail address, with which the person signs in."`
	Hash          string `json:"hash,omitempty" jsonschema:"bcrypt hash of the password, as printed by: htpasswd -nBC 10 user."`
	HashFile      string `json:"hashFile,omitempty" jsonschema:"File that holds the bcrypt hash, in place of hash."`
	Username      string `json:"username,omitempty" jsonschema:"User name, with which the person can sign in as well."`
	Name          string `json:"name,omitempty" jsonschema:"Full name."`
	UserID        string `json:"userID,omitempty" jsonschema:"The subject of tokens: never change it, never give it to somebody else."`
	EmailVerified bool   `json:"emailVerified,omitempty" jsonschema:"Whether the address is known to be the person's."`

	GivenName           string  `json:"givenName,omitempty" jsonschema:"Given name or names."`
	FamilyName          string  `json:"familyName,omitempty" jsonschema:"Family name or names."`
	MiddleName          string  `json:"middleName,omitempty" jsonschema:"Middle name or names."`
	Nickname            string  `json:"nickname,omitempty" jsonschema:"Casual name."`
	Profile             string  `json:"profile,omitempty" jsonschema:"Web address of a page about the person."`
	Picture             string  `json:"picture,omitempty" jsonschema:"Web address of a picture of the person."`
	Website             string  `json:"website,omitempty" jsonschema:"Web address of the person's own page or blog."`
	Gender              string  `json:"gender,omitempty" jsonschema:"Gender: female, male, or another word."`
	Birthdate           string  `json:"birthdate,omitempty" jsonschema:"Date of birth, as in 1990-04-01. 0000-04-01 tells no year, 1990 tells only that."`
	Zoneinfo            string  `json:"zoneinfo,omitempty" jsonschema:"Time zone by its IANA name, as in Asia/Tokyo."`
	Locale              string  `json:"locale,omitempty" jsonschema:"Language as a BCP 47 tag, as in ja-JP."`
	PhoneNumber         string  `json:"phoneNumber,omitempty" jsonschema:"Phone number with its country (E.164), as in +81 3 1234 5678."`
	PhoneNumberVerified bool    `json:"phoneNumberVerified,omitempty" jsonschema:"Whether the number is known to be the person's."`
	Address             Address `json:"address,omitzero" jsonschema:"Postal address."`
}

// Address is a postal address (OpenID Connect Core section 5.1.1).
type Address struct {
	Formatted     string `json:"formatted,omitempty" jsonschema:"The whole address as on a label, with line breaks."`
	StreetAddress string `json:"streetAddress,omitempty" jsonschema:"House number, street, apartment."`
	Locality      string `json:"locality,omitempty" jsonschema:"City."`
	Region        string `json:"region,omitempty" jsonschema:"State, province, prefecture."`
	PostalCode    string `json:"postalCode,omitempty" jsonschema:"Postal code; in quotes when it is a number."`
	Country       string `json:"country,omitempty" jsonschema:"Country."`
}

// identity is the person as the server knows them.
func (p StaticPassword) Identity() connector.Identity {
	return connector.Identity{
		UserID: p.UserID, Username: p.Username, Name: p.Name, Email: p.Email, EmailVerified: p.EmailVerified,
		Profile: connector.Profile{
			GivenName: p.GivenName, FamilyName: p.FamilyName, MiddleName: p.MiddleName, Nickname: p.Nickname,
			ProfileURL: p.Profile, PictureURL: p.Picture, WebsiteURL: p.Website, Gender: p.Gender, Birthdate: p.Birthdate,
			Zoneinfo: p.Zoneinfo, Locale: p.Locale, PhoneNumber: p.PhoneNumber, PhoneNumberVerified: p.PhoneNumberVerified,
		},
		Address: connector.Address(p.Address),
	}
}

// Connector is another identity provider; there are none yet.
type Connector struct {
	Type string `json:"type,omitempty" jsonschema:"Kind of connector."`
	ID   string `json:"id,omitempty" jsonschema:"Its id."`
	Name string `json:"name,omitempty" jsonschema:"Its name on the sign-in page."`
}

// Duration is a time.Duration that is written as in 90s, 15m, 24h.
type Duration time.Duration

// MarshalText writes it the way it is read.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Expiry says how long things last. Zero leaves the default.
type Expiry struct {
	AccessTokens   Duration      `json:"accessTokens,omitzero" jsonschema:"Access tokens. Default 1h."`
	IDTokens       Duration      `json:"idTokens,omitzero" jsonschema:"ID tokens. Default 1h."`
	Codes          Duration      `json:"codes,omitzero" jsonschema:"Authorization codes. Default 60s, at most 10m and absoluteLifetime."`
	AuthRequests   Duration      `json:"authRequests,omitzero" jsonschema:"How long somebody may take to sign in and consent. Default 1h."`
	DeviceRequests Duration      `json:"deviceRequests,omitzero" jsonschema:"How long a device waits for somebody to type in its code and decide. Default 10m, at most 30m and absoluteLifetime."`
	Sessions       Duration      `json:"sessions,omitzero" jsonschema:"How long a browser stays signed in. Default 24h."`
	SigningKeys    Duration      `json:"signingKeys,omitzero" jsonschema:"How long a key signs before the next one does."`
	SealingKeys    Duration      `json:"sealingKeys,omitzero" jsonschema:"How long a key seals codes and refresh tokens before the next one does."`
	SecretMaxAge   Duration      `json:"secretMaxAge,omitzero" jsonschema:"A client secret that is older is replaced by itself, as warifu rotate does. 0s, the default: never. At least 1h."`
	RefreshTokens  RefreshTokens `json:"refreshTokens,omitzero" jsonschema:"Refresh tokens; each can be used once."`
}

// RefreshTokens says how long refresh tokens last.
type RefreshTokens struct {
	ReuseInterval     Duration `json:"reuseInterval,omitzero" jsonschema:"How long a used refresh token gets the same successor again, for clients that lose replies. Default 0s: never."`
	ValidIfNotUsedFor Duration `json:"validIfNotUsedFor,omitzero" jsonschema:"A refresh token that is not used for so long ends. Default 2160h (90 days)."`
	AbsoluteLifetime  Duration `json:"absoluteLifetime,omitzero" jsonschema:"So long after the sign-in, everything issued from it ends. Default 3960h (165 days)."`
}

// OAuth2 says what of OAuth 2 is offered.
type OAuth2 struct {
	GrantTypes                []string         `json:"grantTypes,omitempty" jsonschema:"Grant types that apps may ask for. authorization_code and refresh_token are always among them. By default these, client_credentials and the device grant (urn:ietf:params:oauth:grant-type:device_code); token exchange (urn:ietf:params:oauth:grant-type:token-exchange) has to be named."`
	ResponseTypes             []string         `json:"responseTypes,omitempty" jsonschema:"code; this version offers exactly this."`
	ResourceServers           []ResourceServer `json:"resourceServers,omitempty" jsonschema:"APIs that take this server's access tokens and are no apps of their own."`
	Registration              Registration     `json:"registration,omitzero" jsonschema:"Dynamic client registration (RFC 7591), off by default."`
	ClientIDMetadataDocuments bool             `json:"clientIDMetadataDocuments,omitempty" jsonschema:"Whether a client may be the https URL of a document that describes it, without being registered. Off by default."`
}

// ResourceServer is an API that introspects this server's access tokens.
type ResourceServer struct {
	ID         string `json:"id,omitempty" jsonschema:"Name with which it authenticates to introspect tokens."`
	Identifier string `json:"identifier,omitempty" jsonschema:"Its resource indicator (RFC 8707): an absolute URI without a fragment, the audience of its tokens."`
	SecretFile string `json:"secretFile,omitempty" jsonschema:"File that holds its secret: at least 32 characters."`
}

// Registration says who may register clients by themselves.
type Registration struct {
	Enabled                 bool     `json:"enabled,omitempty" jsonschema:"Whether clients can register themselves."`
	InitialAccessTokenFiles []string `json:"initialAccessTokenFiles,omitempty" jsonschema:"Files that hold a token of at least 32 characters each; a registration must show one of them. Without any, anybody may register."`
}

// Outbound is about requests that this server makes because a registration names an address.
type Outbound struct {
	Allow  []string `json:"allow,omitempty" jsonschema:"Networks, as in 10.0.0.0/8, that may be reached although they are not public, also by plain http. None by default."`
	CAFile string   `json:"caFile,omitempty" jsonschema:"Certificates of the authorities that vouch for https servers (PEM). Empty: those of the system."`
}

// Scope is an entry of the scope catalogue.
type Scope struct {
	Name        string           `json:"name,omitempty" jsonschema:"Name, as apps ask for it."`
	Description DescriptionTexts `json:"description,omitzero" jsonschema:"What it allows, as the consent page says it."`
	Risk        ScopeRisk        `json:"risk,omitempty" jsonschema:"low (reads), write, or broad: the consent page marks the latter two."`
}

// DescriptionTexts is a text in the languages of the pages.
type DescriptionTexts struct {
	EN string `json:"en,omitempty" jsonschema:"English."`
	JA string `json:"ja,omitempty" jsonschema:"Japanese."`
}

// ScopeRisk says how much harm a scope can do.
type ScopeRisk string

// LocalhostRedirects says what happens to loopback redirect URIs in manifests.
type LocalhostRedirects string

// What happens to loopback redirect URIs.
const (
	LocalhostWarn  LocalhostRedirects = "warn"
	LocalhostAllow LocalhostRedirects = "allow"
	LocalhostDeny  LocalhostRedirects = "deny"
)

// Manifests names the manifests that the server applies by itself.
type Manifests struct {
	Directories        []string           `json:"directories,omitempty" jsonschema:"Directories whose *.yml and *.yaml files are applied when the server starts; they must be there."`
	Watch              bool               `json:"watch,omitempty" jsonschema:"Whether they are applied again when a file changes."`
	LocalhostRedirects LocalhostRedirects `json:"localhostRedirects,omitempty" jsonschema:"Redirect URIs on localhost are for development: warn (the default), allow, or deny them."`
	Repair             bool               `json:"repair,omitempty" jsonschema:"Whether env that was lost or changed at a target is delivered again by itself (the default). With false it is only shown."`
}

// Plugins lists the plugins.
type Plugins struct {
	DeployHooks []Plugin `json:"deployHooks,omitempty" jsonschema:"Deploy hooks, in the order in which they are asked. By default the built-in one, oauth."`
	Runtimes    []Plugin `json:"runtimes,omitempty" jsonschema:"Runtimes that get the env of apps; the first one that serves a kind of target gets what targets does not say. By default the built-in one, file, which writes env files."`
	Targets     []Target `json:"targets,omitempty" jsonschema:"Which runtime gets which targets; the first entry that fits a target counts. Kind, app and name are patterns (* and ? and [a-z]); those left out fit everything."`
}

// Target gives targets to a runtime.
type Target struct {
	Kind    string `json:"kind,omitempty" jsonschema:"worker, container or service."`
	App     string `json:"app,omitempty" jsonschema:"Name of the app, as in shop-*."`
	Name    string `json:"name,omitempty" jsonschema:"Name of the worker, container or service."`
	Runtime string `json:"runtime,omitempty" jsonschema:"Name of the runtime that gets them, as in runtimes."`
}

// Plugin is one plugin.
type Plugin struct {
	Name   string         `json:"name,omitempty" jsonschema:"Its name: a-z, 0-9 and hyphens. oauth (deploy hook) and file, workers and containers (runtimes) are built in."`
	Path   string         `json:"path,omitempty" jsonschema:"Its executable. Left out for what is built in."`
	SHA256 string         `json:"sha256,omitempty" jsonschema:"Checksum that the executable must have, in hex."`
	Config map[string]any `json:"config,omitempty" jsonschema:"Settings that are handed to the plugin."`
}

// LogLevel and LogFormat say what is logged, and how.
type (
	LogLevel  string
	LogFormat string
)

// Valid says whether it is one of the levels that there are.
func (l LogLevel) Valid() bool { return slices.Contains(choices["LogLevel"], string(l)) }

// Logger says what is logged.
type Logger struct {
	Level  LogLevel  `json:"level,omitempty" jsonschema:"debug, info, warn or error."`
	Format LogFormat `json:"format,omitempty" jsonschema:"text or json."`
}

// choices are the values of the string types that have a fixed set; the first is the default. Reader and schema use it.
var choices = map[string][]string{
	"StorageType":        {string(StorageEmbedded), string(StorageEtcd)},
	"ScopeRisk":          {"low", "write", "broad"},
	"LocalhostRedirects": {string(LocalhostWarn), string(LocalhostAllow), string(LocalhostDeny)},
	"LogLevel":           {"info", "debug", "warn", "error"},
	"LogFormat":          {"text", "json"},
}

// Default is what a configuration holds before the file is read.
func Default() *Config {
	return &Config{
		Storage:   Storage{Type: StorageEmbedded, Config: StorageDetail{DataDir: ".warifu"}},
		Manifests: Manifests{LocalhostRedirects: LocalhostWarn, Repair: true},
		Logger:    Logger{Level: "info", Format: "text"},
	}
}
