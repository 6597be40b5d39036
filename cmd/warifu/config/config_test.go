package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/connector/dex"

	"encoding/json"
)

const exampleFile = "../../../config.example.yaml"

// keysOf are all keys of a configuration type, with [] where a list is.
func keysOf(t reflect.Type, at string) []string {
	switch t.Kind() {
	case reflect.Slice:
		return keysOf(t.Elem(), at+"[]")
	case reflect.Struct:
		var keys []string
		for _, f := range fieldsOf(t) {
			path := strictyaml.Join(at, f.key)
			keys = append(keys, path)
			keys = append(keys, keysOf(t.Field(f.index).Type, path)...)
		}
		return keys
	}
	return nil
}

func keysIn(node *yaml.Node, at string, found map[string]bool) {
	switch node.Kind {
	case yaml.DocumentNode:
		keysIn(node.Content[0], at, found)
	case yaml.SequenceNode:
		for _, item := range node.Content {
			keysIn(item, at+"[]", found)
		}
	case yaml.MappingNode:
		for i := 0; i < len(node.Content); i += 2 {
			path := strictyaml.Join(at, node.Content[i].Value)
			found[path] = true
			keysIn(node.Content[i+1], path, found)
		}
	}
}

func TestExampleLoadsAndShowsEveryKey(t *testing.T) {
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parse("config.example.yaml", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.Lifetimes(), Default().Lifetimes(); got != want {
		t.Errorf("expiry in the example is not the default: %+v, want %+v", got, want)
	}
	// "#key: value" is a key that is off; "# words" are words.
	off := regexp.MustCompile(`(?m)^(\s*)#([A-Za-z-])`)
	all := strings.Replace(off.ReplaceAllString(string(text), "$1$2"), "connectors: []", "connectors:", 1)
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(all), &doc); err != nil {
		t.Fatalf("with every key switched on: %v", err)
	}
	found := make(map[string]bool)
	keysIn(&doc, "", found)
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		if !found[key] {
			t.Errorf("the example does not show %s", key)
		}
	}
	for _, kind := range dex.Types() {
		if !regexp.MustCompile(`\b`+kind+`[,.]`).Match(text) && kind != "samlExperimental" {
			t.Errorf("the example does not name the connector %s", kind)
		}
	}
	uncommented := regexp.MustCompile(`(?m)^#?[a-z]\S*:`).FindAllStringIndex(string(text), -1)
	for _, at := range uncommented {
		before := strings.TrimRight(string(text[:at[0]]), "\n")
		if last := before[strings.LastIndexByte(before, '\n')+1:]; !strings.HasPrefix(last, "#") &&
			!strings.HasPrefix(string(text[at[0]:]), "staticPasswords") {
			t.Errorf("%s has no comment", text[at[0]:at[1]])
		}
	}
}

func TestEveryFaultHasItsPlace(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no inputs", err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			_, err = parse(filepath.Base(input), text, nil)
			var faults strictyaml.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("not faults: %v", err)
			}
			var got strings.Builder
			for _, f := range faults {
				fmt.Fprintf(&got, "%s [%s]\n", f, f.Code)
			}
			golden := strings.TrimSuffix(input, ".yaml") + ".txt"
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
			}
		})
	}
}

// parse reads a configuration without a look at the files that it names.
func parse(file string, data []byte, environ []string) (*Config, error) {
	r := newReader(file)
	cfg := r.parse(data, environ)
	if err := r.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

const smallest = "issuer: https://id.example.com\nweb: {http: 127.0.0.1:0}\n"

func TestEnvironmentOverridesTheFile(t *testing.T) {
	cfg, err := parse("c.yaml", []byte(smallest), []string{
		"WARIFU_ISSUER=https://other.example.com", "WARIFU_WEB_HTTP=", "WARIFU_WEB_ALLOWED_ORIGINS=https://a.test, " +
			"https://b.test",
		"WARIFU_EXPIRY_REFRESH_TOKENS_REUSE_INTERVAL=10s", "WARIFU_STORAGE_CONFIG_DATA_DIR=/data",
		"WARIFU_LOGGER_LEVEL=debug",
		"WARIFU_ADMIN=unix:///elsewhere", "WARIFU_SERVICE_HOST=10.0.0.1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Issuer != "https://other.example.com" || cfg.Web.HTTP != "127.0.0.1:0" ||
		cfg.Storage.Config.DataDir != "/data" ||
		!slices.Equal(cfg.Web.AllowedOrigins, []string{"https://a.test", "https://b.test"}) ||
		time.Duration(cfg.Expiry.RefreshTokens.ReuseInterval) != 10*time.Second || cfg.Logger.Level != "debug" {
		t.Errorf("%+v", cfg)
	}
	_, err = parse("c.yaml", []byte(smallest), []string{"WARIFU_ENABLE_PASSWORD_DB=yes", "WARIFU_EXPIRY_CODES=1h",
		"WARIFU_LOGGER_FORMAT=jsn"})
	want := []string{
		`$WARIFU_ENABLE_PASSWORD_DB: enablePasswordDB must be true or false, but is "yes"`,
		`$WARIFU_EXPIRY_CODES: expiry.codes must be 10m or less (RFC 6749 section 4.1.2), but is 1h0m0s`,
		`$WARIFU_LOGGER_FORMAT: logger.format must be one of text, json, but is "jsn" (did you mean "json"?)`,
	}
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("got:\n%v", err)
	}
}

func TestEveryOverrideHasItsOwnName(t *testing.T) {
	seen := make(map[string]string)
	for _, o := range overrides(Default()) {
		if other := seen[o.name]; other != "" {
			t.Errorf("%s and %s are both %s", other, o.path, o.name)
		}
		if o.name == "WARIFU_ADMIN" {
			t.Errorf("%s is taken: it says where the admin API is", o.name)
		}
		seen[o.name] = o.path
	}
	if seen["WARIFU_OAUTH2_GRANT_TYPES"] != "oauth2.grantTypes" || seen["WARIFU_WEB_TLS_CERT"] != "web.tlsCert" {
		t.Error("names differ from what config.example.yaml says", seen)
	}
}

func TestMisspelledVariableIsNoticed(t *testing.T) {
	got := Misspelled([]string{"WARIFU_ISUER=x", "WARIFU_ISSUER=x", "WARIFU_ADMIN=x", "WARIFU_ADMIN_TOKEN_FILE=x",
		"WARIFU_PORT_5556_TCP=x", "HOME=/",
		"WARIFU_SERVICE_HOST=x", "WARIFU_SERVICE_PORT_HTTP=1", "WARIFU_PORT=x", "WARIFU_PORT_5556_TCP_ADDR=x",
		"WARIFU_WEB_SERVICE_PORT=1",
		"WARIFU_STATIC_PASSWORDS=x", "WARIFU_STORAGE=x", "WARIFU_FOO=x",
		"WARIFU_REUSE_INTERVAL=x", "WARIFU_LOG_LEVEL=x", "WARIFU_STORAGE_DATA_DIR=x", "WARIFU_CA_FILE=x"}, "WARIFU_ADMIN")
	want := map[string]string{"WARIFU_ISUER": "WARIFU_ISSUER", "WARIFU_STATIC_PASSWORDS": "", "WARIFU_STORAGE": "",
		"WARIFU_FOO":            "",
		"WARIFU_REUSE_INTERVAL": "WARIFU_EXPIRY_REFRESH_TOKENS_REUSE_INTERVAL", "WARIFU_LOG_LEVEL": "WARIFU_LOGGER_LEVEL",
		"WARIFU_STORAGE_DATA_DIR": "WARIFU_STORAGE_CONFIG_DATA_DIR", "WARIFU_CA_FILE": "WARIFU_MAIL_CA_FILE"}
	if !maps.Equal(got, want) {
		t.Error(got)
	}
}

func TestAliasBombCostsNothing(t *testing.T) {
	var b strings.Builder
	b.WriteString("issuer: https://id.example.com\nweb: {http: 127.0.0.1:0}\nplugins:\n  runtimes:\n    - name: file\n" +
		"      config:\n        a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "        a%d: &a%d [%s]\n", i+1, i+
			1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), ", "))
	}
	_, err := parse("c.yaml", []byte(b.String()), nil)
	if err == nil || !strings.Contains(err.Error(), "more than 50000 values") {
		t.Error(err)
	}
}

func TestSchemaIsCurrentAndTakesTheExample(t *testing.T) {
	committed, err := os.ReadFile("config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != string(Schema()) {
		t.Error("config.schema.json is not current: go generate ./cmd/warifu/config")
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(committed, &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		valid      bool
	}{
		{"example", string(text), true}, {"smallest", smallest, true}, {"empty", "{}", true},
		{"unknown key", smallest + "issuers: x\n", false},
		{"unknown level", smallest + "logger: {level: loud}\n", false},
		{"no duration", smallest + "expiry: {codes: soon}\n", false},
	} {
		var data any
		if err := yaml.Unmarshal([]byte(c.text), &data); err != nil {
			t.Fatal(err)
		}
		if err := resolved.Validate(data); (err == nil) != c.valid {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(smallest)
	f.Add("a: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := parse("c.yaml", []byte(text), nil)
		var faults strictyaml.Faults
		if (cfg == nil) != (err != nil) || err != nil && !errors.As(err, &faults) {
			t.Fatalf("%v, %v", cfg, err)
		}
		lines := strings.Count(text, "\n") + 1
		for _, fault := range faults {
			if fault.Line < 1 || fault.Line > lines+1 {
				t.Errorf("%s: line %d of %d", fault, fault.Line, lines)
			}
		}
	})
}

// What the system says of a directory is not hidden behind what it is.
func TestADirectoryThatMayNotBeRead(t *testing.T) {
	dir := t.TempDir()
	if err := unusable(dir, &fs.PathError{Op: "open", Path: dir, Err: fs.ErrPermission}); !strings.Contains(err.Error(),
		"permission denied") {
		t.Error(err)
	}
	if err := unusable(dir, &fs.PathError{Op: "read", Path: dir,
		Err: fs.ErrInvalid}); err.Error() != "which is a directory" {
		t.Error(err)
	}
}

// A file in place of the data directory is one fault.
func TestOneCauseIsOneFault(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(file, []byte(smallest+"storage: {config: {dataDir: "+file+"}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Read(file, nil)
	var faults strictyaml.Faults
	if !errors.As(err, &faults) || len(faults) != 1 {
		t.Error(err)
	}
}

// Lives that are allowed and probably not meant are warned of.
func TestLongLivesAreToldOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	text := smallest + "storage: {config: {dataDir: " + filepath.Join(t.TempDir(), "d") + "}}\n" +
		"expiry: {accessTokens: 48h, refreshTokens: {validIfNotUsedFor: 9000h}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Read(file, nil)
	if err != nil || len(s.Warnings) != 2 {
		t.Fatal(err, s)
	}
}

// A setting that a built-in runtime reads can be written.
func TestEverySettingOfABuiltinPluginIsKnown(t *testing.T) {
	const plugins = "../../../plugins/"
	for _, tt := range []struct{ plugin, file, of string }{
		{RuntimeContainers, "runtimecontainers/config.go", "settings"},
		{RuntimeWorkers, "runtimeworkers/settings.go", "workerdSettings"},
		{RuntimeWorkers, "runtimeworkers/cloudflare.go", "cloudflareSettings"},
	} {
		source, err := os.ReadFile(plugins + tt.file)
		if err != nil {
			t.Fatal(err)
		}
		_, body, found := strings.Cut(string(source), "type "+tt.of+" struct {\n")
		body, _, _ = strings.Cut(body, "\n}")
		keys := regexp.MustCompile("`json:\"([A-Za-z]+)").FindAllStringSubmatch(body, -1)
		if !found || len(keys) == 0 {
			t.Fatalf("%s has no %s", tt.file, tt.of)
		}
		for _, key := range keys {
			if !slices.Contains(builtinSettings[tt.plugin], key[1]) {
				t.Errorf("%s has the setting %s", tt.plugin, key[1])
			}
		}
	}
}
