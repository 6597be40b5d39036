package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
)

// The configuration lets exactly those plugins go without a path that this program can run.
func TestConfigurationKnowsTheBuiltInPlugins(t *testing.T) {
	for key, builtin := range map[string]map[string]func(){"deployHooks": builtinHooks, "runtimes": builtinRuntimes} {
		read := func(name string) error {
			file := filepath.Join(t.TempDir(), "c.yaml")
			text := "issuer: https://id.example.com\nweb: {http: '127.0.0.1:0'}\nplugins: {" + key +
				": [{name: " + name + "}]}\n"
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := config.Read(file, nil)
			return err
		}
		for _, name := range namesOf(builtin) {
			if err := read(name); err != nil {
				t.Errorf("%s %s: %v", key, name, err)
			}
		}
		want := "only " + strings.Join(namesOf(builtin), ", ") + " can go without"
		if err := read("elsewhere"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", key, err, want)
		}
	}
}
