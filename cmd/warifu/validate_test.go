package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// A configuration either validates and serves, or is refused by both with the same words. What a start also needs of
// the moment, a port that is free or an etcd that answers, is not the configuration's to promise.

// startable are configurations that serve. The keys of base stand before them; DIR is a directory with the files of
// machine.
var startable = []struct{ rule, text string }{
	{"nothing but what is required", ""},
	{"an issuer on loopback", "issuer: http://127.0.0.1:5599"},
	{"an issuer on loopback, IPv6", `issuer: "http://[::1]:5599"`},
	{"an issuer at an address", "issuer: https://192.0.2.1:8443"},
	{"an issuer whose name is odd", "issuer: https://id_1.example.2"},
	{"an issuer with port and path", "issuer: https://id.example.com:8443/tenants/a-1"},
	{"listeners with TLS", `web: {https: "localhost:0", tlsCert: DIR/cert.pem, tlsKey: DIR/key.pem}
admin: {listen: ":0", tlsCert: DIR/cert.pem, tlsKey: DIR/key.pem, tokenFile: DIR/secret}`},
	{"people with hashes in files", `enablePasswordDB: true
staticPasswords: [{email: ann@example.com, userID: ann, hashFile: DIR/hash}]`},
	{"resource servers and registration", `oauth2:
  resourceServers: [{id: api, identifier: "https://api.example.com", secretFile: DIR/secret}]
  registration: {enabled: true, initialAccessTokenFiles: [DIR/secret]}`},
	{"resource servers with odd identifiers", `oauth2:
  resourceServers: [{identifier: "https://api.example.com/{tenant}"}, {identifier: "urn:example:api"}, {identifier: "com.example:/api"}, {identifier: "http://10.0.0.1/a%20b"}]`},
	{"registration for anyone", "oauth2: {registration: {enabled: true}}"},
	{"a logo", "branding: {name: Example Inc., logoFile: DIR/logo.svg, supportURL: 'mailto:help@example.com'}"},
	{"authorities of its own", "outbound: {allow: [10.0.0.0/8], caFile: DIR/cert.pem}"},
	{"an encryption key of its own", "encryptionKeyFiles: [DIR/kek]"},
	{"an encryption key for a group", "encryptionKeyFiles: [DIR/group.kek]"},
	{"proxies and a bound of connections",
		`web: {http: "127.0.0.1:0", trustedProxies: [127.0.0.1, "::1", 10.0.0.0/8], maxConnections: 100}`},
	{"manifests, faulty ones among them", "manifests: {directories: [DIR/apps, DIR/empty], watch: true}"},
	{"the longest codes", "expiry: {codes: 10m, deviceRequests: 30m, refreshTokens: {absoluteLifetime: 30m, " +
		"reuseInterval: 1m}}"},
	{"a catalogue", "scopes: [{name: 'files:read', risk: low, description: {en: See files, ja: 閲覧}}]"},
	{"a file runtime with settings", "plugins: {runtimes: [{name: file, config: {dir: DATA/env, reload: [/bin/true]}}]}"},
	{"directories that are still to be made", "storage: {config: {dataDir: DATA/a/b}}\nadmin: {socket: DATA/c/d/a.sock}"},
	{"etcd by plain http without a password", `storage: {type: etcd, config: {dataDir: DATA, endpoints: ["http://127.0.0.1:ETCD"]}}
encryptionKeyFiles: [DIR/kek]`},
}

// unstartable are configurations that do not serve. The fault is at the text in at, and its words tell what to do.
var unstartable = []struct{ rule, text, at, words string }{
	{"no issuer", "issuer: ''", "''", "issuer is required: the address of this server, as in https://id.example.com"},
	{"plain http on another loopback address", "issuer: http://127.0.0.2:5599", "http://",
		`(did you mean "https://127.0.0.2:5599"?)`},
	{"an issuer with a double slash", "issuer: https://id.example.com/a//b", "https:",
		`(did you mean "https://id.example.com/a/b"?)`},
	{"an issuer with an umlaut", "issuer: https://id.example.com/ü", "https:", "must have a path of letters, " +
		"digits and -._~ only"},
	{"an issuer with a dot segment", "issuer: https://id.example.com/a/../b", "https:",
		`(did you mean "https://id.example.com/b"?)`},
	{"an issuer with a slash at the end", "issuer: https://id.example.com/", "https:",
		`(did you mean "https://id.example.com"?)`},
	{"an issuer at the discovery document", "issuer: http://127.0.0.1:5599/.well-known/openid-configuration", "http://",
		"must have no .well-known in its path"},
	{"an issuer at the server's metadata", "issuer: http://127.0.0.1:5599/.well-known/oauth-authorization-server",
		"http://", "must have no .well-known in its path"},
	{"an issuer that is shouted", "issuer: HTTPS://ID.Example.com:443", "HTTPS:",
		`(did you mean "https://id.example.com"?)`},
	{"an issuer with a dot after localhost", "issuer: http://localhost.:5599", "http://",
		`(did you mean "http://localhost:5599"?)`},
	{"an issuer with an international name", "issuer: https://bücher.example", "https:",
		`(did you mean "https://xn--bcher-kva.example"?)`},
	{"an origin that no browser sends", "web: {http: '127.0.0.1:0', allowedOrigins: ['https://A.example:443']}", "'https:",
		`(did you mean "https://a.example"?)`},
	{"an origin with a wildcard", "web: {http: '127.0.0.1:0', allowedOrigins: ['https://*.example']}", "'https:",
		"only the port of one on loopback"},
	{"an issuer with numbers that are no address", "issuer: https://1.2.3.4.5", "https:", "must have a host name or " +
		"address, as in id.example.com or 192.0.2.1"},
	{"an issuer with a number that no address has", "issuer: https://192.0.2.256", "https:", "must have a host name or " +
		"address, as in id.example.com or 192.0.2.1"},
	{"an issuer with a query", "issuer: https://id.example.com?x", "https:", "must have neither user name, " +
		"query nor fragment"},

	{"no listener", "web: {allowedOrigins: []}", "{allowedOrigins", "needs a listener: http or https, as in"},
	{"a listener without a port", "web: {http: 127.0.0.1}", "127.0", "must be host:port, as in 127.0.0.1:5556"},
	{"a port that there is not", `web: {http: "127.0.0.1:70000"}`, `"127.0`, "must be host:port"},
	{"a host that is neither name nor address", `web: {http: "300.1.2.3:5556"}`, `"300`, "must be host:port"},
	{"two listeners on one port",
		`web: {http: "127.0.0.1:5599", https: ":5599", tlsCert: DIR/cert.pem, tlsKey: DIR/key.pem}`, `":5599"`,
		"collides with web.http: no two listeners can use the same address and port"},
	{"a certificate that is missing", secured("DIR/none.pem", "DIR/key.pem"), "DIR/none.pem",
		"none.pem, which does not exist"},
	{"a certificate that is a directory", secured("DIR/apps", "DIR/key.pem"), "DIR/apps", "which is a directory"},
	{"a certificate that is none", secured("DIR/secret", "DIR/key.pem"), "DIR/secret", "which holds no PEM certificate"},
	{"a certificate that is damaged", secured("DIR/damaged.pem", "DIR/key.pem"), "DIR/damaged.pem",
		"which holds a certificate that cannot be read"},
	{"a key that is missing", secured("DIR/cert.pem", "DIR/none.key"), "DIR/none.key", "none.key, which does not exist"},
	{"a key that is none", secured("DIR/cert.pem", "DIR/secret"), "DIR/secret", "which holds no PEM key"},
	{"a key of another certificate", secured("DIR/cert.pem", "DIR/other.key"), "DIR/other.key",
		"which is not the key of the certificate in"},
	{"a key of another certificate, admin API",
		`admin: {listen: "127.0.0.1:0", tlsCert: DIR/cert.pem, tlsKey: DIR/other.key, tokenFile: DIR/secret}`,
		"DIR/other.key", "which is not the key of the certificate in"},
	{"a token that is missing", `admin: {listen: "127.0.0.1:0", tokenFile: DIR/none}`, "DIR/none",
		"none, which does not exist"},
	{"a token that is short", `admin: {listen: "127.0.0.1:0", tokenFile: DIR/short}`, "DIR/short",
		"at least 32 characters (make a secret with: openssl rand -hex 32)"},
	{"a socket's path that holds something else", "admin: {socket: DIR/secret}", "DIR/secret",
		"exists and is not a socket"},
	{"a socket's path that is too long", "admin: {socket: /" + strings.Repeat("x", 120) + "/a.sock}", "/xx",
		"choose a shorter one"},

	{"a hash file that is missing", somebody("hashFile: DIR/none"), "DIR/none", "which does not exist"},
	{"a hash file that is empty", somebody("hashFile: DIR/blank"), "DIR/blank", "which is empty"},
	{"a hash file without a hash", somebody("hashFile: DIR/secret"), "DIR/secret", "must be a bcrypt hash"},
	{"a hash that is quickly guessed", somebody("hash: $2a$04$abcdefghijklmnopqrstuu5s3kFLqRfQvLxIhgfBdxF6Ap7bBkQmW"),
		"$2a", "use 10 or more"},
	{"a login that two people have", somebody("hashFile: DIR/hash, username: bob@example.com") +
		"\n  - {email: Bob@example.com, userID: b, hashFile: DIR/hash}",
		"Bob@", "is the same as staticPasswords[0].username"},
	{"a resource server's secret that is missing", api("DIR/none"), "DIR/none", "which does not exist"},
	{"a resource server's secret that is short", api("DIR/short"), "DIR/short", "at least 32 characters"},
	{"a resource server's secret that never ends", api("/dev/zero"), "/dev/zero", "which is larger than 4 MiB"},
	{"a resource server whose identifier is no URI", identified("billing"), "billing", "must be an absolute URI " +
		"without a fragment"},
	{"a resource server with a fragment", identified("'https://api.example.com/#v1'"), "'https:",
		`(did you mean "https://api.example.com/"?)`},
	{"a resource server with a password", identified("https://u:hunter2@api.example.com"), "https://u",
		"must not hold a user name or password: it is in every token"},
	{"a resource server with a space", identified("'https://api.example.com/a b'"), "'https:",
		`(did you mean "https://api.example.com/a%20b"?)`},
	{"a resource server with an umlaut", identified("https://bücher.example"), "https://b",
		`(did you mean "https://xn--bcher-kva.example"?)`},
	{"a resource server that would be a host", identified("forward-auth://wiki.example.com"), "forward-auth",
		"which is for hosts behind forward auth"},
	{"a registration token that is missing", "oauth2: {registration: {enabled: true, initialAccessTokenFiles: " +
		"[DIR/none]}}", "DIR/none", "which does not exist"},
	{"a logo that is missing", "branding: {logoFile: DIR/none}", "DIR/none", "which does not exist"},
	{"a logo that is no image", "branding: {logoFile: DIR/secret}", "DIR/secret", "which is not an SVG, PNG, " +
		"JPEG or WebP image"},
	{"authorities that are missing", "outbound: {caFile: DIR/none}", "DIR/none", "which does not exist"},
	{"authorities without a certificate", "outbound: {caFile: DIR/secret}", "DIR/secret",
		"which holds no PEM certificate"},
	{"a network that is an address", "outbound: {allow: [10.0.0.1]}", "10.0", `(did you mean "10.0.0.1/32"?)`},
	{"a grant type that there is not", "oauth2: {grantTypes: [authorization_code, refresh_token, device_code]}",
		"device_code", "grant-type:device_code"},

	{"an encryption key that is missing", "encryptionKeyFiles: [DIR/none]", "DIR/none", "which does not exist"},
	{"an encryption key that everybody can read", "encryptionKeyFiles: [DIR/open.kek]", "DIR/open.kek",
		"which every user of this machine can get at (mode 0644): chmod 0600"},
	{"a proxy that is no network", "web: {http: \"127.0.0.1:0\", trustedProxies: [proxy.example.com]}", "proxy",
		"must be a network, as in 10.0.0.0/8, or an address"},
	{"a bound of connections that is too small", "web: {http: \"127.0.0.1:0\", maxConnections: 1}", "1}",
		"must be from 16 to 1000000"},
	{"an encryption key that never ends", "encryptionKeyFiles: [/dev/zero]", "/dev/zero", "which is larger than 4 MiB"},
	{"an encryption key that is none", "encryptionKeyFiles: [DIR/kek, DIR/secret]", "DIR/secret",
		"(make a key with: openssl rand -base64 32)"},
	{"a data directory without its key", "storage: {config: {dataDir: DIR/keyless}}", "DIR/keyless",
		"restore it from a backup, or start with an empty data directory"},
	{"a data directory that is a file", "storage: {config: {dataDir: DIR/secret}}", "DIR/secret",
		"which is not a directory"},
	{"a data directory below a file", "storage: {config: {dataDir: DIR/secret/data}}", "DIR/secret",
		"secret is not a directory"},
	{"a password over plain http", cluster("http://etcd-1:2379", "username: a, passwordFile: DIR/secret"), `"http:`,
		`(did you mean "https://etcd-1:2379"?)`},
	{"a password in an address", cluster("https://u:hunter2@etcd-1:2379", "namespace: a/"), `"https:`,
		"belong in username and passwordFile"},
	{"a port that etcd cannot have", cluster("https://etcd-1:99999", "namespace: a/"), `"https:`, "must"},
	{"port 0 of etcd", cluster("https://etcd-1:0", "namespace: a/"), `"https:`, "a port from 1 to 65535"},
	{"etcd without a port", cluster("https://etcd-1", "namespace: a/"), `"https:`,
		`(did you mean "https://etcd-1:2379"?)`},
	{"etcd with a path", cluster("https://etcd-1:2379/foo", "namespace: a/"), `"https:`,
		`(did you mean "https://etcd-1:2379"?)`},
	{"the same etcd twice", cluster(`https://etcd-1:2379", "https://ETCD-1:2379`, "namespace: a/"), `"https://ETCD-1`,
		"is the same as storage.config.endpoints[0]"},
	{"etcd with and without TLS", cluster(`https://etcd-1:2379", "http://etcd-2:2379`, "namespace: a/"), `"http://`,
		"all members are reached in the same way"},
	{"etcd's authorities over plain http", cluster("http://etcd-1:2379", "ssl: {caFile: DIR/cert.pem}"), "{caFile",
		"is of no use with endpoints that are plain http"},
	{"a quota beyond the address space", "storage: {config: {dataDir: DATA, quota: 100TiB}}", "100TiB",
		"must be 16TiB or less"},
	{"a password that is missing", cluster("https://etcd-1:2379", "username: a, passwordFile: DIR/none"), "DIR/none",
		"which does not exist"},
	{"a password that is empty", cluster("https://etcd-1:2379", "username: a, passwordFile: DIR/blank"), "DIR/blank",
		"which is empty"},
	{"etcd's authorities that are missing", cluster("https://etcd-1:2379", "ssl: {caFile: DIR/none}"), "DIR/none",
		"which does not exist"},
	{"etcd's client key of another certificate", cluster("https://etcd-1:2379", "ssl: {certFile: DIR/cert.pem, keyFile: "+
		"DIR/other.key}"), "DIR/other.key",
		"which is not the key of the certificate in"},

	{"manifests that are missing", "manifests: {directories: [DIR/none]}", "DIR/none", "which does not exist"},
	{"manifests that are a file", "manifests: {directories: [DIR/apps/faulty.yml]}", "DIR/apps/faulty.yml",
		"which is not a directory"},
	{"codes that last too long", "expiry: {codes: 11m}", "11m", "must be 10m or less"},
	{"device codes that last too long", "expiry: {deviceRequests: 31m}", "31m", "must be 30m or less"},
	{"codes that outlive their grant", "expiry: {codes: 5m, deviceRequests: 2m, refreshTokens: {absoluteLifetime: 2m}}",
		"5m", "must not outlive the grant"},
	{"device codes that outlive their grant", "expiry: {deviceRequests: 5m, refreshTokens: {absoluteLifetime: 2m}}", "5m",
		"must not outlive the grant"},
	{"a stolen token that is noticed too late", "expiry: {refreshTokens: {reuseInterval: 61s}}", "61s",
		"must be 1m or less"},
	{"tokens that are over before they arrive", "expiry: {accessTokens: 10ms}", "10ms", "must be 1s or more"},
	{"a scope with a space", "scopes: [{name: files read, risk: low, description: {en: a, ja: b}}]", "files read",
		"RFC 6749 section 3.3"},
	{"a scope that is there twice", "scopes:\n  - &a {name: a, risk: low, description: {en: a, ja: b}}\n" +
		"  - {<<: *a, name: 'a'}", "'a'", "is the same as scopes[0].name"},
	{"a plugin whose name is a path", "plugins: {runtimes: [{name: ../mine, path: DIR/mine}]}", "../mine",
		"must be 1 to 63 of a-z"},
	{"a plugin that is there twice", "plugins: {runtimes: [{name: a, path: /a}, {name: 'a', path: /b}]}", "'a'",
		"is listed twice"},
	{"a plugin that is missing", "plugins: {runtimes: [{name: mine, path: DIR/nothing-yet}]}", "DIR/nothing-yet",
		"which does not exist"},
	{"a plugin that cannot be run", "plugins: {runtimes: [{name: mine, path: DIR/secret}]}", "DIR/secret",
		"which is not executable: chmod +x"},
	{"a plugin with another checksum", "plugins: {runtimes: [{name: mine, path: /bin/sh, sha256: " +
		strings.Repeat("ab", 32) + "}]}", "abab", "whose checksum differs"},
	{"a setting that the runtime file does not have", "plugins: {runtimes: [{name: file, config: {dri: DATA/env}}]}",
		"{dri", `(did you mean "dir"?)`},
	{"a setting that the runtime workers does not have", "plugins: {runtimes: [{name: workers, config: {drvier: " +
		"workerd}}]}", "{drvier", `(did you mean "driver"?)`},
	{"a setting that the runtime containers does not have", "plugins: {runtimes: [{name: containers, config: " +
		"{prob: steady}}]}", "{prob", `(did you mean "probe"?)`},
	{"a setting of the hook oauth", "plugins: {deployHooks: [{name: oauth, config: {a: b}}]}", "{a:", "has no settings"},
	{"env files in a file", "plugins: {runtimes: [{name: file, config: {dir: DIR/secret}}]}", "{dir",
		"which is not a directory"},
	{"localhost beside its address", "web: {http: '127.0.0.1:15610'}\nadmin: {listen: 'localhost:15610', tokenFile: " +
		"DIR/secret}", "'localhost", "collides with web.http"},
	{"a socket in the database", "admin: {socket: DATA/etcd/a.sock}", "DATA/etcd", "where the database is"},
	{"access tokens without a life", "expiry: {accessTokens: 0s}", "0s", "must be more than 0s: leave it out " +
		"for the default"},
	{"sessions without a life", "expiry: {sessions: 0s}", "0s", "must be more than 0s: leave it out for the default"},
	{"codes without a life", "expiry: {codes: 0s}", "0s", "must be more than 0s: leave it out for the default"},
	{"device codes without a life", "expiry: {deviceRequests: 0s}", "0s", "must be more than 0s: leave it out " +
		"for the default"},
	{"a key that is encrypted", secured("DIR/cert.pem", "DIR/encrypted.key"), "DIR/encrypted.key", "openssl pkey -in"},
	{"a plugin without a path", "plugins: {deployHooks: [{name: oauht}]}", "{name: oauht", `(did you mean "oauth"?)`},
	{"a checksum that is none", "plugins: {runtimes: [{name: a, path: /a, sha256: abc}]}", "abc",
		"must be 64 hex digits, as printed by sha256sum"},
	{"targets of a runtime that there is not", "plugins: {targets: [{runtime: fil}]}", "fil}", `(did you mean "file"?)`},
	{"a key that there is not", "loger: {level: debug}", "loger", `(did you mean "logger"?)`},
	{"a line that a tab indents", "logger:\n\tlevel: debug", "\tlevel", "YAML cannot be indented with tabs: use spaces"},
}

const base = "issuer: https://id.example.com\nstorage: {config: {dataDir: DATA}}\nweb: {http: '127.0.0.1:0'}\n"

func secured(cert, key string) string {
	return `web: {https: "127.0.0.1:0", tlsCert: ` + cert + ", tlsKey: " + key + "}"
}

func somebody(one string) string {
	return "enablePasswordDB: true\nstaticPasswords:\n  - {email: ann@example.com, userID: ann, " + one + "}"
}

func api(secret string) string {
	return "oauth2: {resourceServers: [{id: api, identifier: 'https://api.example.com', secretFile: " + secret + "}]}"
}

func identified(resource string) string {
	return "oauth2: {resourceServers: [{identifier: " + resource + "}]}"
}

func cluster(endpoint, more string) string {
	return "encryptionKeyFiles: [DIR/kek]\nstorage: {type: etcd, config: {dataDir: DATA, endpoints: [\"" + endpoint +
		"\"], " + more + "}}"
}

// configured is a whole configuration: what a case says of a key stands in place of what base says.
func configured(text string) string {
	for line := range strings.Lines(base) {
		key, _, _ := strings.Cut(line, ":")
		if !regexp.MustCompile(`(?m)^` + key + `:`).MatchString(text) {
			text = line + text
		}
	}
	return text + "\n"
}

// machine makes the files that the cases name.
func machine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := certified(t)
	_, other := certified(t)
	for name, text := range map[string]string{
		"cert.pem": cert, "key.pem": key, "other.key": other,
		"encrypted.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
		"damaged.pem":   "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"logo.svg":      `<svg xmlns="http://www.w3.org/2000/svg"/>`,
		"secret":        "0123456789abcdef0123456789abcdef\n", "short": "swordfish\n", "blank": "\n",
		"hash":            "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W\n",
		"kek":             base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n",
		"apps/faulty.yml": "apiVersion: none\n", "empty/.keep": "", "keyless/etcd/member/snap/db": "records of a server\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"open.kek": 0o644, "group.kek": 0o440} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The key that a server made itself is for nobody else: its mode is mended, and the operator told.
func TestAnEncryptionKeyThatEverybodyCanReadIsMended(t *testing.T) {
	data := t.TempDir()
	file, key := filepath.Join(data, "c.yaml"), filepath.Join(data, "d", "encryption.key")
	text := configured("storage: {config: {dataDir: " + filepath.Join(data, "d") + "}}")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := told(t, "serve", file); code != exitDone {
		t.Fatalf("%d: %s", code, said)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, said := told(t, "config", "validate", file); code != exitDone ||
		!strings.Contains(said, "every user of this machine can get at") {
		t.Errorf("validate ends with %d: %s", code, said)
	}
	code, said := told(t, "serve", file)
	info, err := os.Stat(key)
	if err != nil {
		t.Fatal(err)
	}
	if code != exitDone || info.Mode().Perm() != 0o600 || !strings.Contains(said, "could get at the encryption key; its "+
		"mode is 0600 now") {
		t.Errorf("serve ends with %d, mode %v: %s", code, info.Mode(), said)
	}
}

// Other secrets that everybody can read are served, with a warning.
func TestSecretsThatEverybodyCanReadAreToldOf(t *testing.T) {
	dir := machine(t)
	for _, name := range []string{"secret", "key.pem", "hash"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "c.yaml")
	text := strings.ReplaceAll(configured(`web: {https: "localhost:0", tlsCert: DIR/cert.pem, tlsKey: DIR/key.pem}
admin: {listen: "127.0.0.1:0", tokenFile: DIR/secret}
enablePasswordDB: true
staticPasswords: [{email: ann@example.com, userID: ann, hashFile: DIR/hash}]
oauth2:
  resourceServers: [{id: api, identifier: "https://api.example.com", secretFile: DIR/secret}]
  registration: {enabled: true, initialAccessTokenFiles: [DIR/secret]}`), "DIR", dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, said := told(t, "config", "validate", file)
	if code != exitDone {
		t.Fatalf("%d: %s", code, said)
	}
	for _, path := range []string{"web.tlsKey", "admin.tokenFile", "staticPasswords[0].hashFile",
		"oauth2.resourceServers[0].secretFile",
		"oauth2.registration.initialAccessTokenFiles[0]"} {
		if !strings.Contains(said, path+" names ") {
			t.Errorf("nothing is said of %s:\n%s", path, said)
		}
	}
}

// A certificate whose time is not now is served, with a warning: it may be renewed at any moment.
func TestACertificateThatIsNotValidIsToldOf(t *testing.T) {
	for _, tt := range []struct {
		from, until time.Duration
		words       string
	}{{-2 * time.Hour, -time.Hour, "which expired at "}, {time.Hour, 2 * time.Hour, "which is not valid before "}} {
		dir := machine(t)
		cert, key := certifiedFor(t, time.Now().Add(tt.from), time.Now().Add(tt.until))
		file := filepath.Join(dir, "c.yaml")
		text := strings.NewReplacer("DIR", dir, "DATA", filepath.Join(dir, "d")).Replace(
			configured(secured("DIR/cert.pem", "DIR/key.pem")))
		for name, content := range map[string]string{"c.yaml": text, "cert.pem": cert, "key.pem": key} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, command := range [][]string{{"config", "validate", file}, {"serve", file}} {
			if code, said := told(t, command...); code != exitDone || !strings.Contains(said, tt.words) ||
				!strings.Contains(said, "web.tlsCert") {
				t.Errorf("%v ends with %d: %s", command, code, said)
			}
		}
	}
}

// What a start finds at the moment names its key, and what to do.
func TestAPortThatIsTakenIsToldOf(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	text := strings.ReplaceAll(configured("web: {http: '"+listener.Addr().String()+"'}"), "DATA", filepath.Join(dir, "d"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := told(t, "serve", file); code == exitDone ||
		!strings.Contains(said, "choose another one in web.http") {
		t.Errorf("%d: %s", code, said)
	}
}

// certified is a certificate for this machine, and its key.
func certified(t *testing.T) (cert, key string) {
	t.Helper()
	return certifiedFor(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

func certifiedFor(t *testing.T, from, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: from,
		NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// plainEtcd is an etcd that listens on loopback without TLS.
func plainEtcd(t *testing.T) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close() // etcd opens it again
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.ListenPeerUrls = t.TempDir(), "fatal", nil
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: address}}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = 10, 100
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()
	_, port, _ = net.SplitHostPort(address)
	return port
}

// stopping ends a server as soon as it says that it serves.
type stopping struct {
	mu   sync.Mutex
	said bytes.Buffer
	stop context.CancelFunc
}

func (s *stopping) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes.Contains(p, []byte("warifu serves")) {
		s.stop()
	}
	return s.said.Write(p)
}

// told runs the program until it ends or serves.
func told(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := &stopping{stop: stop}
	c := &cli{stdin: strings.NewReader(""), stdout: out, stderr: out, environ: []string{"TERM=dumb"}}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		c.report(err)
	}
	return exitCode(err), out.said.String()
}

func TestWhatValidatesServes(t *testing.T) {
	dir, port := machine(t), plainEtcd(t)
	root := t.TempDir()
	for i, tt := range startable {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(root, strconv.Itoa(i))
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer("DIR", dir, "DATA", filepath.Join(data, "d"), "ETCD", port).Replace(configured(tt.text))
			file := filepath.Join(data, "c.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if code, said := told(t, "config", "validate", file); code != exitDone || !strings.Contains(said, "is valid") {
				t.Fatalf("validate ends with %d: %s\n%s", code, said, text)
			}
			if code, said := told(t, "serve", file); code != exitDone || !strings.Contains(said, "warifu serves") {
				t.Errorf("serve ends with %d: %s\n%s", code, said, text)
			}
		})
	}
}

func TestWhatDoesNotValidateDoesNotServe(t *testing.T) {
	dir := machine(t)
	root := t.TempDir()
	for i, tt := range unstartable {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(root, strconv.Itoa(i))
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			fill := strings.NewReplacer("DIR", dir, "DATA", filepath.Join(data, "d"))
			text, at := fill.Replace(configured(tt.text)), fill.Replace(tt.at)
			file := filepath.Join(data, "c.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			code, said := told(t, "config", "validate", file)
			before, _, found := strings.Cut(text, at)
			if !found {
				t.Fatalf("%q is not in\n%s", at, text)
			}
			lineStart := strings.LastIndexByte(before, '\n') + 1
			place := fmt.Sprintf("%s:%d:%d: ", file, strings.Count(before, "\n")+1, len([]rune(before[lineStart:]))+1)
			fault := ""
			for line := range strings.Lines(said) {
				if strings.Contains(line, tt.words) {
					fault = line
				}
			}
			if code != exitInvalid || !strings.HasPrefix(fault, place) {
				t.Errorf("validate ends with %d, want a fault at %s with %q:\n%s\n%s", code, place, tt.words, said, text)
			}
			if strings.Contains(said, "hunter2") {
				t.Errorf("validate tells a password:\n%s", said)
			}
			if code, again := told(t, "serve", file); code != exitInvalid || again != said {
				t.Errorf("serve ends with %d and other words than validate:\n%s", code, again)
			}
			if _, err := os.Stat(filepath.Join(data, "d")); err == nil {
				t.Error("a server that was refused has made its data directory")
			}
		})
	}
}

func TestThereAreEnoughConfigurations(t *testing.T) {
	if n := len(startable) + len(unstartable); n < 40 {
		t.Errorf("%d", n)
	}
}
