package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// readOf reads a configuration whose issuer and data directory are beside the rest.
func readOf(t *testing.T, text string) *Settings {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Read(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Replicas serve alike wherever they listen, keep and log, and however their files are written; nothing else is alike.
func TestDigestOfAConfiguration(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(strings.Repeat("a", 40))
	const server = "issuer: http://localhost:5556\nweb: {http: 127.0.0.1:5556}\nstorage: {config: {dataDir: /tmp/one}}\n"
	api := "oauth2: {alwaysShowLoginScreen: true, resourceServers: [{id: api, identifier: 'https://api.example.com', " +
		"secretFile: " +
		secret + "}]}\n"
	key := []byte("key")
	first := readOf(t, server+api+"expiry: {codes: 30s}\n").Digest(key)
	if first == "" || first == readOf(t, server+api+"expiry: {codes: 30s}\n").Digest([]byte("other")) {
		t.Error("it tells something without the key")
	}
	for name, text := range map[string]string{
		"order and comments": "expiry:\n  codes: 30s # short\n" + api + server,
		"places": "issuer: http://localhost:5556\nweb: {http: 127.0.0.1:7777, maxConnections: 70}\n" +
			"storage: {config: {dataDir: /tmp/two}}\n" +
			"logger: {level: debug, format: json}\nadmin: {socket: /tmp/two/a.sock}\n" + api + "expiry: {codes: 30s}\n",
	} {
		if got := readOf(t, text).Digest(key); got != first {
			t.Errorf("%s: another digest", name)
		}
	}
	for name, text := range map[string]string{
		"a time": server + api + "expiry: {codes: 31s}\n",
		"a list": server + api + "expiry: {codes: 30s}\ntrusted: [a]\n",
		"proxies": strings.Replace(server, "5556}", "5556, trustedProxies: [10.0.0.0/8]}", 1) + api +
			"expiry: {codes: 30s}\n",
	} {
		if got := readOf(t, text).Digest(key); got == first {
			t.Errorf("%s: the same digest", name)
		}
	}
	before := readOf(t, server+api+"expiry: {codes: 30s}\n")
	put(strings.Repeat("b", 40))
	after := readOf(t, server+api+"expiry: {codes: 30s}\n")
	if after.Digest(key) == first {
		t.Error("another secret: the same digest")
	}
	if got := after.Since(before, before); !slices.Equal(got.Files, []string{"oauth2.resourceServers[0].secretFile"}) ||
		!got.Touch("oauth2") {
		t.Errorf("another secret: %+v", got)
	}
	if got := after.Files(); !slices.Equal(got, []string{secret}) {
		t.Errorf("files: %v", got)
	}
}

// What a slip can end is told: more than half of a list, and not less.
func TestWhatAConfigurationDrops(t *testing.T) {
	dir := t.TempDir()
	const person = "  - {email: %@example.com, userID: %, hash: " +
		"$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n"
	of := func(people, more string) *Settings {
		text := "issuer: http://localhost:5556\nweb: {http: 127.0.0.1:5556}\n" + more
		if people != "" {
			text += "enablePasswordDB: true\nstaticPasswords:\n"
		}
		for _, who := range strings.Fields(people) {
			text += strings.ReplaceAll(person, "%", who)
		}
		return readOf(t, text)
	}
	directories := "manifests: {directories: [" + dir + "]}\n"
	before := of("a b c d", directories)
	for name, c := range map[string]struct {
		now  *Settings
		want []string
	}{
		"nothing": {of("a b c d e", directories), nil},
		"half":    {of("a b", directories), nil},
		"others":  {of("e f g a", directories), []string{"3 of 4 people of staticPasswords"}},
		"all": {of("", directories), []string{"sign-in by password (enablePasswordDB)",
			"4 of 4 people of staticPasswords"}},
		"manifests": {of("a b c", ""), []string{"1 of 1 manifests.directories (" + dir + ")"}},
	} {
		if got := c.now.Drops(before); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := before.Drops(of("", "")); len(got) > 0 {
		t.Errorf("what comes: %q", got)
	}
}
