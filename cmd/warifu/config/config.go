package config

import (
	"cmp"
	"slices"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/dex"
	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/oauth"
)

// Config is the configuration file of `warifu serve`. Keys are named as in Dex's where they mean the same. The
// comments of config.example.yaml are the manual for people; the texts here are shown by editors through
// config.schema.json.
//
// A key is the field's json name. Every scalar and every list of strings can be overridden from the environment: the
// path in capitals after WARIFU_, such as WARIFU_WEB_HTTP for web.http and WARIFU_WEB_TLS_CERT for web.tlsCert (see
// env.go).
type Config struct {
	Issuer             string           `json:"issuer,omitempty" jsonschema:"Address of this server as apps and browsers see it. It is in every token, so it stays for ever. https, or http on loopback; a path is allowed. Passkeys belong to its host: under another host nobody's passkeys work, and an IP address cannot have any."`
	Storage            Storage          `json:"storage,omitzero" jsonschema:"Where records are kept."`
	Web                Web              `json:"web,omitzero" jsonschema:"Listeners for browsers and apps."`
	Branding           Branding         `json:"branding,omitzero" jsonschema:"What the pages say about whoever runs this server."`
	Admin              Admin            `json:"admin,omitzero" jsonschema:"Listeners for the admin API, which the other commands of warifu use."`
	EncryptionKeyFiles []string         `json:"encryptionKeyFiles,omitempty" jsonschema:"Files with the keys that seal secrets in storage, newest first; each holds 32 bytes in base64 (openssl rand -base64 32). Required with etcd. With embedded storage one is made in dataDir by default."`
	EnablePasswordDB   bool             `json:"enablePasswordDB,omitempty" jsonschema:"Whether people sign in with passwords: those of staticPasswords, and those of managed accounts (warifu apply user)."`
	StaticPasswords    []StaticPassword `json:"staticPasswords,omitempty" jsonschema:"People who can sign in with a password."`
	MFA                MFA              `json:"mfa,omitzero" jsonschema:"How strongly people have to prove who they are, whatever app they use. An app may demand more for itself (spec.oauth.access.mfa)."`
	Claims             []Claim          `json:"claims,omitempty" jsonschema:"Claims about people that are made of their attributes, beside the standard ones."`
	Trusted            []string         `json:"trusted,omitempty" jsonschema:"Apps of the operator's own, by name: their users are not asked for consent where the manifest says consent: skip."`
	Connectors         []Connector      `json:"connectors,omitempty" jsonschema:"Other ways to sign in: directories and identity providers, as Dex has them."`
	Mail               Mail             `json:"mail,omitzero" jsonschema:"The mail server through which people get invitations, links to set a new password, and word of what happens to their account. Without one, operators pass links on themselves."`
	Subject            Subject          `json:"subject,omitempty" jsonschema:"How tokens identify people (sub): hashed (the default; those of staticPasswords by their userID), or dex for the subjects that Dex makes, so that apps see the same people. Never change it: with another choice apps take everybody for a new user."`
	Expiry             Expiry           `json:"expiry,omitzero" jsonschema:"How long things last, as in 90s, 15m, 24h."`
	OAuth2             OAuth2           `json:"oauth2,omitzero" jsonschema:"Which parts of OAuth 2 are offered."`
	TrustedIssuers     []TrustedIssuer  `json:"trustedIssuers,omitempty" jsonschema:"Who issues tokens to workloads that may be clients without a secret (spec.oauth.identities): clusters of Kubernetes, SPIFFE, GitHub Actions, GitLab CI. None by default."`
	Outbound           Outbound         `json:"outbound,omitzero" jsonschema:"Requests that this server makes because a registration names an address: keys of clients, logout tokens, sector identifiers."`
	Scopes             []Scope          `json:"scopes,omitempty" jsonschema:"The catalogue of scopes that apps may ask for. When given, it replaces the built-in one."`
	Manifests          Manifests        `json:"manifests,omitzero" jsonschema:"Manifests (app.yml) that the server applies by itself."`
	Plugins            Plugins          `json:"plugins,omitzero" jsonschema:"Deploy hooks and runtimes, each an executable of its own."`
	Logger             Logger           `json:"logger,omitzero" jsonschema:"What is logged on stderr, and how."`
	Telemetry          Telemetry        `json:"telemetry,omitzero" jsonschema:"Metrics, health checks and traces of the running server."`
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
	Quota        Size     `json:"quota,omitzero" jsonschema:"embedded: size up to which the database grows, as in 8GiB (the default). When it is reached, nothing can be written until there is room."`
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
	DrainDelay     Duration `json:"drainDelay,omitzero" jsonschema:"How long the server goes on serving after SIGTERM, while /readyz says that it is shutting down, so that proxies send requests elsewhere. Default 5s; at most 5m; 0s: not at all."`
	TrustedProxies []string `json:"trustedProxies,omitempty" jsonschema:"Networks or addresses of the proxies in front of this server, as in 10.0.0.0/8: only from them is X-Forwarded-For taken as the address of the user, by which sign-ins are limited and logged, and they alone may ask about apps with spec.oauth.forwardAuth. None by default."`
	MaxConnections int      `json:"maxConnections,omitempty" jsonschema:"The most connections that are open at once on http and https together. 0, the default: as many as the process may have, less what storage and plugins need."`
	AllowedOrigins []string `json:"allowedOrigins,omitempty" jsonschema:"Origins of pages whose scripts may call this server's API endpoints, whatever the app (CORS); \"*\" is any, and on loopback the port may be * (http://localhost:*). None by default: each app may do so from the origins of its own redirect URIs and of its allowedOrigins."`
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
	Email             string `json:"email,omitempty" jsonschema:"E-mail address, with which the person signs in."`
	Hash              string `json:"hash,omitempty" jsonschema:"bcrypt hash of the password, as printed by: warifu hash."`
	HashFile          string `json:"hashFile,omitempty" jsonschema:"File that holds the bcrypt hash, in place of hash."`
	Username          string `json:"username,omitempty" jsonschema:"User name, with which the person can sign in as well."`
	PreferredUsername string `json:"preferredUsername,omitempty" jsonschema:"What apps call the person (preferred_username), where that is not username."`
	Name              string `json:"name,omitempty" jsonschema:"Full name."`
	UserID            string `json:"userID,omitempty" jsonschema:"The subject of tokens: never change it, never give it to somebody else."`
	EmailVerified     bool   `json:"emailVerified,omitempty" jsonschema:"Whether the address is known to be the person's."`

	GivenName           string  `json:"givenName,omitempty" jsonschema:"Given name or names."`
	FamilyName          string  `json:"familyName,omitempty" jsonschema:"Family name or names."`
	MiddleName          string  `json:"middleName,omitempty" jsonschema:"Middle name or names."`
	Nickname            string  `json:"nickname,omitempty" jsonschema:"Casual name."`
	Profile             string  `json:"profile,omitempty" jsonschema:"Web address of a page about the person."`
	Picture             string  `json:"picture,omitempty" jsonschema:"Web address of a picture of the person."`
	Website             string  `json:"website,omitempty" jsonschema:"Web address of the person's own page or blog."`
	Gender              string  `json:"gender,omitempty" jsonschema:"Gender: female, male, or another word."`
	Birthdate           string  `json:"birthdate,omitempty" jsonschema:"Date of birth, as in 1990-04-01. 0000-04-01 leaves out the year, 1990 gives only the year."`
	Zoneinfo            string  `json:"zoneinfo,omitempty" jsonschema:"Time zone by its IANA name, as in Asia/Tokyo."`
	Locale              string  `json:"locale,omitempty" jsonschema:"Language as a BCP 47 tag, as in ja-JP."`
	PhoneNumber         string  `json:"phoneNumber,omitempty" jsonschema:"Phone number with its country (E.164), as in +81 3 1234 5678."`
	PhoneNumberVerified bool    `json:"phoneNumberVerified,omitempty" jsonschema:"Whether the number is known to be the person's."`
	Address             Address `json:"address,omitzero" jsonschema:"Postal address."`

	Groups     []string       `json:"groups,omitempty" jsonschema:"Groups that the person is in. Manifests use them to say who may use an app, and apps get them with the scope groups."`
	Attributes map[string]any `json:"attributes,omitempty" jsonschema:"What else is known, by name: a text, a number, true or false, or a list of texts each. Apps learn of it by claims."`
}

// Mail is the mail server.
type Mail struct {
	Server       string  `json:"server,omitempty" jsonschema:"host:port of the mail server (SMTP), as in smtp.example.com:587."`
	TLS          MailTLS `json:"tls,omitempty" jsonschema:"starttls (the default: the connection is protected before anything is sent, usually on port 587), tls (from the first byte on, usually on port 465), or none for a mail server on this machine."`
	CAFile       string  `json:"caFile,omitempty" jsonschema:"Certificates of the authorities that vouch for the mail server (PEM). Empty: those of the system."`
	Username     string  `json:"username,omitempty" jsonschema:"User name at the mail server, where it asks for one."`
	PasswordFile string  `json:"passwordFile,omitempty" jsonschema:"File that holds the password. It is read again for each mail."`
	From         string  `json:"from,omitempty" jsonschema:"Sender of the mails, as in Example <no-reply@example.com>."`
}

// MFA says how surely people have to prove who they are.
type MFA struct {
	Demand MFADemand            `json:"demand,omitempty" jsonschema:"What is demanded of everybody: required (a second factor beside password or connector, or a passkey) or phishing-resistant (a passkey). Whoever has none is led to set one up. By default nobody is asked for more than a password, unless they have an authenticator app."`
	Groups map[string]MFADemand `json:"groups,omitempty" jsonschema:"What is demanded of members of a group, by its name, where that is more."`
}

// MFADemand is how surely somebody has to prove who they are.
type MFADemand string

// Claim is a claim about people that is made of an attribute.
type Claim struct {
	Name      string `json:"name,omitempty" jsonschema:"The claim, as apps get it."`
	Attribute string `json:"attribute,omitempty" jsonschema:"The attribute that it holds. By default the one of the same name."`
	Scope     string `json:"scope,omitempty" jsonschema:"The scope with which each app gets it. By default profile, and only apps get it whose manifests list it in spec.oauth.claims."`
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
		Address: connector.Address(p.Address), PreferredUsername: p.PreferredUsername,
		Groups: p.Groups, Attributes: p.Attributes,
	}
}

// Connector is another way to sign in: a directory or an identity provider.
type Connector struct {
	Type            ConnectorType  `json:"type,omitempty" jsonschema:"Kind of connector."`
	ID              string         `json:"id,omitempty" jsonschema:"Its id, in addresses, in the records of users and in manifests (spec.oauth.access.connectors): 1 to 64 letters, digits and -._~, and never changed."`
	Name            string         `json:"name,omitempty" jsonschema:"What the sign-in page calls it."`
	Config          map[string]any `json:"config,omitempty" jsonschema:"Settings of that kind, with Dex's keys. $NAME and ${NAME} are variables of the environment; clientSecretFile, bindPWFile and keystonePasswordFile name files with these secrets."`
	LogoFile        string         `json:"logoFile,omitempty" jsonschema:"Image for its button: SVG, PNG, JPEG or WebP, 256 KiB at most."`
	Groups          []string       `json:"groups,omitempty" jsonschema:"Which of the groups that it reports are kept: patterns in which each * stands for any text. By default all."`
	RefreshUpstream Duration       `json:"refreshUpstream,omitzero" jsonschema:"How often the upstream is asked again about people who signed in, in the background: from 1m to 24h. Whoever may not sign in there any longer is signed out here. Default 0s: never."`
	SkipGroups      bool           `json:"skipGroups,omitempty" jsonschema:"Set it so that groups are not requested, nor the permission to read them, which an administrator there may have to grant: directory.read.all with microsoft, openid with gitlab, read:org with github. By default they are requested."`
	TrustUpstream   bool           `json:"trustUpstream,omitempty" jsonschema:"Whether apps are told how and when the upstream says that somebody proved who they are (amr, acr, auth_time). By default they are told of the sign-in here alone."`
}

// ConnectorType names a kind of connector.
type ConnectorType string

// Subject says how tokens call people.
type Subject string

// How tokens call people.
const (
	SubjectHashed Subject = "hashed"
	SubjectDex    Subject = "dex"
)

// Branding is what the pages say about whoever runs this server.
type Branding struct {
	Name       string `json:"name,omitempty" jsonschema:"Name at the top of each page, over the host: 40 characters at most."`
	LogoFile   string `json:"logoFile,omitempty" jsonschema:"Logo beside the name, which this server serves by itself: SVG, PNG, JPEG or WebP, 256 KiB at most."`
	SupportURL string `json:"supportURL,omitempty" jsonschema:"Where people find help: https, or mailto: and an e-mail address."`
	PrivacyURL string `json:"privacyURL,omitempty" jsonschema:"Privacy policy: https."`
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
	AuthRequests   Duration      `json:"authRequests,omitzero" jsonschema:"How long somebody may take to sign in and consent; whoever takes longer is asked anew. Default 1h."`
	DeviceRequests Duration      `json:"deviceRequests,omitzero" jsonschema:"How long a device waits for somebody to type in its code and decide. Default 10m, at most 30m and absoluteLifetime."`
	Sessions       Duration      `json:"sessions,omitzero" jsonschema:"How long a browser stays signed in. Default 24h."`
	SigningKeys    Duration      `json:"signingKeys,omitzero" jsonschema:"How long a key signs before the next one does. A change counts at once. Default 720h."`
	SealingKeys    Duration      `json:"sealingKeys,omitzero" jsonschema:"How long a key seals codes and refresh tokens before the next one does. A change counts at once. Default 720h."`
	SecretMaxAge   Duration      `json:"secretMaxAge,omitzero" jsonschema:"A client secret that is older is replaced automatically, as warifu rotate does. 0s, the default: never. At least 1h."`
	RefreshTokens  RefreshTokens `json:"refreshTokens,omitzero" jsonschema:"Refresh tokens; each can be used once."`
}

// RefreshTokens says how long refresh tokens last.
type RefreshTokens struct {
	ReuseInterval     Duration `json:"reuseInterval,omitzero" jsonschema:"How long a refresh token that was used gets the newest one of its chain again, for clients that send one twice at once or lose replies; a manifest may say it for one app. For that long a stolen one is not noticed. Default 0s: never. At most 1m."`
	ValidIfNotUsedFor Duration `json:"validIfNotUsedFor,omitzero" jsonschema:"A refresh token that has not been used for this long ends. Default 2160h (90 days)."`
	AbsoluteLifetime  Duration `json:"absoluteLifetime,omitzero" jsonschema:"How long after a sign-in everything issued from it ends. Default 3960h (165 days)."`
}

// OAuth2 says what of OAuth 2 is offered.
type OAuth2 struct {
	GrantTypes                []string         `json:"grantTypes,omitempty" jsonschema:"Grant types that apps may ask for. authorization_code and refresh_token are always among them. By default these, client_credentials and the device grant (urn:ietf:params:oauth:grant-type:device_code); token exchange (urn:ietf:params:oauth:grant-type:token-exchange) has to be named."`
	ResponseTypes             []string         `json:"responseTypes,omitempty" jsonschema:"code; this version offers exactly this."`
	AlwaysShowLoginScreen     bool             `json:"alwaysShowLoginScreen,omitempty" jsonschema:"Whether people see the sign-in page even if there is only one connector. By default they go straight there."`
	IDTokenClaims             IDTokenClaims    `json:"idTokenClaims,omitempty" jsonschema:"What ID tokens say about users, for apps that do not say it themselves (spec.oauth.idTokenClaims). scopes (the default): the claims of the scopes that were granted; standard: those are at userinfo alone (OpenID Connect Core section 5.4)."`
	ResourceServers           []ResourceServer `json:"resourceServers,omitempty" jsonschema:"APIs that accept this server's access tokens and are not apps themselves."`
	Registration              Registration     `json:"registration,omitzero" jsonschema:"Dynamic client registration (RFC 7591), off by default."`
	ClientIDMetadataDocuments ClientDocuments  `json:"clientIDMetadataDocuments,omitzero" jsonschema:"Whether a client may be the https URL of a document that describes it, without being registered: true or false (the default), or from which hosts."`
}

// IDTokenClaims says what ID tokens say about users.
type IDTokenClaims string

// ClientDocuments says from which hosts client ID metadata documents are taken. True and false are short for a section
// with enabled alone.
type ClientDocuments struct {
	Enabled bool     `json:"enabled,omitempty" jsonschema:"Whether such documents are taken; true where the section is written."`
	Allow   []string `json:"allow,omitempty" jsonschema:"The only hosts from which they are taken: names, or *.example.com for all below a domain. If empty, all hosts that deny does not name."`
	Deny    []string `json:"deny,omitempty" jsonschema:"Hosts from which they are not taken, whatever allow says. What clients from there hold ends."`
}

func (d *ClientDocuments) flag() *bool { return &d.Enabled }

// ResourceServer is an API that takes this server's access tokens and is no app of its own.
type ResourceServer struct {
	ID         string `json:"id,omitempty" jsonschema:"Name with which it authenticates to introspect tokens. One that only verifies them by the published keys needs neither id nor secretFile."`
	Identifier string `json:"identifier,omitempty" jsonschema:"Its resource indicator (RFC 8707): an absolute URI without a fragment, the audience of its tokens."`
	SecretFile string `json:"secretFile,omitempty" jsonschema:"File that holds its secret: at least 32 characters."`

	AccessTokenType AccessTokenType `json:"accessTokenType,omitempty" jsonschema:"The type of its access tokens: at+jwt (RFC 9068, the default), JWT for verifiers that refuse that type, or opaque, which it has to introspect."`
	AccessTokenAlg  AccessTokenAlg  `json:"accessTokenAlg,omitempty" jsonschema:"How its access tokens are signed: ES256 (the default), or RS256 for verifiers that know nothing else, which costs more."`
}

// AccessTokenType and AccessTokenAlg are the form of access tokens.
type (
	AccessTokenType string
	AccessTokenAlg  string
)

// Registration says who may register clients by themselves.
type Registration struct {
	Enabled                 bool     `json:"enabled,omitempty" jsonschema:"Whether clients can register themselves."`
	Scopes                  []string `json:"scopes,omitempty" jsonschema:"The most that clients without a manifest, those that registered themselves and those that a document describes, may ask users for. Without it: all of the catalogue."`
	InitialAccessTokenFiles []string `json:"initialAccessTokenFiles,omitempty" jsonschema:"Files that hold a token of at least 32 characters each; a registration must show one of them. Without any, anybody may register."`
}

// TrustedIssuer issues tokens to workloads. Its keys are where one of jwksURI, jwksFile and kubernetes says, or else
// where its own metadata says (OpenID Connect Discovery).
type TrustedIssuer struct {
	Issuer     string      `json:"issuer,omitempty" jsonschema:"The iss of its tokens, to the letter, as in https://token.actions.githubusercontent.com; or a SPIFFE trust domain, as in spiffe://example.org, whose tokens have none."`
	JWKSURI    string      `json:"jwksURI,omitempty" jsonschema:"Where its public keys are. Left out: where its metadata says (OpenID Connect Discovery)."`
	JWKSFile   string      `json:"jwksFile,omitempty" jsonschema:"File with its public keys (JWK Set, or SPIFFE bundle), which is read again as they change."`
	Kubernetes Cluster     `json:"kubernetes,omitzero" jsonschema:"The cluster whose service accounts these are: true, for the one in which this server runs, or where its API is."`
	Algorithms []IssuerAlg `json:"algorithms,omitempty" jsonschema:"The algorithms that it signs with. By default RS256, PS256, ES256, EdDSA, ES384 and ES512, as its keys are."`
	Audience   string      `json:"audience,omitempty" jsonschema:"The audience of its tokens, where a manifest does not say (spec.oauth.identities). Default: this server, by its issuer."`
}

// Cluster is the API of a cluster of Kubernetes.
type Cluster struct {
	Enabled   bool   `json:"enabled,omitempty" jsonschema:"Whether its service accounts are trusted; true if the section is present."`
	Server    string `json:"server,omitempty" jsonschema:"Address of its API, which need not be public. Default: https://kubernetes.default.svc, that of the cluster in which this server runs."`
	CAFile    string `json:"caFile,omitempty" jsonschema:"Certificates of the authorities that vouch for it (PEM). Default without server: those that the cluster gives its pods; with server, those of the system."`
	TokenFile string `json:"tokenFile,omitempty" jsonschema:"File with the bearer token to ask it with, which is read each time. Default without server: the one that the cluster gives its pods; with server, none."`
}

func (c *Cluster) flag() *bool { return &c.Enabled }

// IssuerAlg is an algorithm of signatures.
type IssuerAlg string

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
	Directories        []string           `json:"directories,omitempty" jsonschema:"Directories whose *.yml and *.yaml files are applied; they must be there."`
	Watch              bool               `json:"watch,omitempty" jsonschema:"Whether they are applied again when a file changes."`
	Prune              bool               `json:"prune,omitempty" jsonschema:"Whether an app ends, as warifu delete app would end it, once its manifest has been gone from a watched directory for pruneAfter. By default it is only shown as gone."`
	PruneAfter         Duration           `json:"pruneAfter,omitzero" jsonschema:"How long a manifest must have been gone before its app ends. Default 24h, at least 1m; only with prune."`
	LocalhostRedirects LocalhostRedirects `json:"localhostRedirects,omitempty" jsonschema:"Redirect URIs on localhost are for development: warn (the default), allow, or deny them."`
	Repair             bool               `json:"repair,omitempty" jsonschema:"Whether env that was lost or changed at a target is delivered again automatically (the default). With false it is only shown."`
}

// PruneDelay is how long a manifest must have been gone before its app ends; 0 means that it never does.
func (m Manifests) PruneDelay() time.Duration {
	if !m.Prune {
		return 0
	}
	return cmp.Or(time.Duration(m.PruneAfter), 24*time.Hour)
}

// Plugins lists the plugins.
type Plugins struct {
	DeployHooks []Plugin `json:"deployHooks,omitempty" jsonschema:"Deploy hooks, in the order in which they are asked. By default the built-in one, oauth."`
	Runtimes    []Plugin `json:"runtimes,omitempty" jsonschema:"Runtimes that get the env of apps; a target that targets does not assign goes to the first one that serves its kind. By default the built-in one, file, which writes env files."`
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
	Access bool      `json:"access,omitempty" jsonschema:"Whether there is a line for each request of browsers and apps, whatever level says. Off by default."`
}

// Telemetry is what operators see from elsewhere.
type Telemetry struct {
	HTTP   string `json:"http,omitempty" jsonschema:"host:port at which /metrics is, for Prometheus, and /healthz and /readyz as well: an address that only your own machines reach. None by default; the admin API has /metrics as well."`
	Apps   bool   `json:"apps,omitempty" jsonschema:"Whether metrics of grants are split by app, for apps with a manifest. Off by default: it adds several series per app."`
	Traces Traces `json:"traces,omitzero" jsonschema:"Traces of single requests, by OTLP over HTTP. Off by default."`
}

// Traces are of single requests.
type Traces struct {
	Endpoint    string `json:"endpoint,omitempty" jsonschema:"Address of the collector, as in http://127.0.0.1:4318; its path is /v1/traces unless it has one. https unless it is on this machine. None by default: there are no traces."`
	Sample      Share  `json:"sample,omitempty" jsonschema:"Share of the requests that are traced, as in 5%. Default: 1%. Proxies of web.trustedProxies decide it for what they send with a traceparent."`
	HeadersFile string `json:"headersFile,omitempty" jsonschema:"File with headers for the collector, such as its token: a line NAME: VALUE for each."`
}

// choices are the values of the string types that have a fixed set; the first is the default. Reader and schema use it.
var choices = map[string][]string{
	"StorageType":        {string(StorageEmbedded), string(StorageEtcd)},
	"ConnectorType":      dex.Types(),
	"Subject":            {string(SubjectHashed), string(SubjectDex)},
	"MFADemand":          oauth.MFADemands(),
	"ScopeRisk":          {"low", "write", "broad"},
	"LocalhostRedirects": {string(LocalhostWarn), string(LocalhostAllow), string(LocalhostDeny)},
	"IDTokenClaims":      oauth.IDTokenContents(),
	"AccessTokenType":    oauth.AccessTokenTypes(),
	"AccessTokenAlg":     oauth.AccessTokenAlgs(),
	"IssuerAlg":          oauth.IssuerAlgs(),
	"MailTLS":            {string(mail.TLSStart), string(mail.TLSImplicit), string(mail.TLSNone)},
	"LogLevel":           {"info", "debug", "warn", "error"},
	"LogFormat":          {"text", "json"},
}

// Default is what a configuration holds before the file is read.
func Default() *Config {
	return &Config{
		Storage:   Storage{Type: StorageEmbedded, Config: StorageDetail{DataDir: ".warifu"}},
		Web:       Web{DrainDelay: Duration(5 * time.Second)},
		Manifests: Manifests{LocalhostRedirects: LocalhostWarn, Repair: true},
		Logger:    Logger{Level: "info", Format: "text"},
	}
}
