package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// What Dex's configuration has and this one has not. Most keys mean the same in both, so whoever runs Dex may try its
// file: it is told what does that, and each of its keys where it went.

// dexStorages are the kinds of storage that only Dex has; both have etcd.
var dexStorages = []string{"kubernetes", "memory", "mysql", "postgres", "sqlite3"}

// dexSections are keys at the top that only Dex has, and that hardly a file of Dex goes without.
var dexSections = []string{"staticClients", "frontend", "grpc"}

// refuseDex says of a whole file that it is Dex's, if it plainly is.
func (r *reader) refuseDex(root *strictyaml.Value) {
	kind := root.Field("storage").Field("type")
	is := kind != nil && slices.Contains(dexStorages, kind.Text)
	for _, m := range root.Fields {
		is = is || slices.Contains(dexSections, m.Key) && (kind == nil || kind.Text != string(StorageEmbedded))
	}
	if is {
		r.add(strictyaml.SeverityError, "", "dex", "", fmt.Sprintf("this is a configuration of Dex: warifu migrate dex %s "+
			"writes one of warifu, and a manifest for each client", r.File))
	}
}

// ofDexValue says of a value of one of the types with fixed values why Dex has it and this program has not.
func ofDexValue(kind, text string) string {
	switch {
	case kind == "StorageType" && slices.Contains(dexStorages, text):
		return "a storage of Dex: it must be embedded (a database in this process) or etcd (a cluster)"
	case kind == "ConnectorType" && strings.HasPrefix(text, "mock"):
		return "which Dex has for tests alone: leave it out, and let people of staticPasswords sign in"
	}
	return ""
}

var indexes = regexp.MustCompile(`\[[0-9]+\]`)

// ofDex says where a key of Dex went that this configuration does not have; "" if Dex has no such key either.
func ofDex(path string) string { return dexKeys[indexes.ReplaceAllString(path, "[]")] }

// dexKeys are these keys. The texts say what does that here.
var dexKeys = map[string]string{
	"staticClients": "each client is in the app.yml of its app (spec.oauth: clientId, redirectUris, public, " +
		"trustedPeers), and a secret that exists already is kept by warifu credentials set",
	"frontend":                  "branding has name (for issuer) and logoFile (for logoURL); there are no themes and templates",
	"telemetry.enableProfiling": "there are no profiling endpoints",
	"grpc": "admin is for that, with HTTP in place of gRPC: on a socket by default, over TCP with admin.listen and " +
		"admin.tokenFile",
	"signer": "keys are in storage, and a key signs for as long as expiry.signingKeys says; with which algorithm, each " +
		"app.yml says (spec.oauth.idTokenSignedResponseAlg)",
	"sessions": "expiry.sessions says how long a browser stays signed in (absoluteLifetime); cookies are " +
		"always sealed, and all apps share the sign-in",
	"mfa.authenticators": "everybody sets up an authenticator app or passkeys at /account; there is nothing to configure",
	"mfa.defaultMFAChain": "mfa.demand says whether people need a second factor, and each app.yml may do so for its app " +
		"(spec.oauth.access.mfa)",

	"storage.config.file":            "the embedded database is a directory, dataDir",
	"storage.config.host":            onlyEtcd,
	"storage.config.port":            onlyEtcd,
	"storage.config.database":        onlyEtcd,
	"storage.config.user":            onlyEtcd,
	"storage.config.password":        "passwordFile names a file that holds it",
	"storage.config.ssl.mode":        onlyEtcd,
	"storage.config.kubeConfigFile":  onlyEtcd,
	"storage.config.inCluster":       onlyEtcd,
	"storage.config.maxOpenConns":    onlyEtcd,
	"storage.config.maxIdleConns":    onlyEtcd,
	"storage.config.connMaxLifetime": onlyEtcd,

	"web.headers":        "security headers are always sent; Strict-Transport-Security is for the proxy to add",
	"web.tlsMinVersion":  "it is 1.2",
	"web.tlsMaxVersion":  "it is 1.3",
	"web.allowedHeaders": "those that the protocols need are allowed",
	"web.clientRemoteIP": "web.trustedProxies lists the proxies, whose header is X-Forwarded-For",

	"oauth2.skipApprovalScreen": "each app.yml says it for its app (spec.oauth.consent: skip), and trusted lists the app",
	"oauth2.passwordConnector": "there is no password grant (RFC 9700 section 2.4): programs send people to " +
		"the sign-in page, or use the device grant",
	"oauth2.pkce": "a client without a secret must use PKCE, others may, and the method is S256",

	"expiry.refreshTokens.disableRotation": "each refresh token can be used once; for clients that send one " +
		"twice there is reuseInterval",

	"logger.excludeFields": "names and addresses of people are never logged",

	"staticPasswords[].hashFromEnv": "hashFile names a file that holds the hash",
	"connectors[].grantTypes":       "each app.yml says who may sign in to its app (spec.oauth.access.connectors)",
}

const onlyEtcd = "the database is etcd, in this process (embedded) or a cluster"
