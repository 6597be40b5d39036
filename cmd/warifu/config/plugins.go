package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
)

// Plugins that are built in: this program runs them by running itself, so they need no path.
const (
	HookOAuth         = "oauth"
	RuntimeFile       = "file"
	RuntimeWorkers    = "workers"
	RuntimeContainers = "containers"
)

var (
	builtinHooks    = []string{HookOAuth}
	builtinRuntimes = []string{RuntimeContainers, RuntimeFile, RuntimeWorkers}
)

// builtinSettings are the settings of those that are built in; the plugins say themselves what is wrong with their
// values.
var builtinSettings = map[string][]string{
	HookOAuth:         {},
	RuntimeFile:       {"dir", "reload"},
	RuntimeContainers: {"host", "tls", "probe", "probeTimeout", "steady"},
	RuntimeWorkers: {
		// Of workerd
		"driver", "workerd", "root", "script", "compatibilityDate", "compatibilityFlags", "network", "drainSeconds",
		"workers",
		"accountId", "tokenFile", "api", // of cloudflare
	},
}

// loadPlugins looks at the executables of plugins, and at where the runtime file is to write.
func (r *reader) loadPlugins(at string, list []Plugin) {
	for i, p := range list {
		path := fmt.Sprintf("%s[%d]", at, i)
		if p.Path != "" {
			r.checkNamed(path+".path", p.Path, checkExecutable)
			if p.SHA256 != "" && !r.faulty(path) {
				r.checkNamed(path+".sha256", p.Path, func(file string) error { return checkSum(file, p.SHA256) })
			}
			continue
		}
		if dir, _ := p.Config["dir"].(string); p.Name == RuntimeFile && dir != "" && !r.faulty(path) {
			r.checkNamed(path+".config", dir, checkMakeable)
		}
	}
}

// checkSettings holds the settings of a plugin that is built in to those that it has.
func (r *reader) checkSettings(path string, p Plugin) {
	known, builtin := builtinSettings[p.Name]
	if p.Path != "" || !builtin {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(p.Config)) {
		if slices.Contains(known, key) {
			continue
		}
		has := "has no settings"
		if len(known) > 0 {
			has = "has " + strings.Join(known, ", ")
		}
		r.fault(path+".config", "unknown-key", strictyaml.Nearest(key, known),
			"has the key %s, but the built-in plugin %s %s", key, p.Name, has)
	}
}

// checkExecutable is for programs that are going to be run.
func checkExecutable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return unusable(file, err)
	case info.IsDir():
		return errors.New("which is a directory")
	case info.Mode()&0o111 == 0:
		return errors.New("which is not executable: chmod +x")
	}
	return nil
}

// checkSum compares the checksum of a file with what was written of it.
func checkSum(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return unusable(file, err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return unusable(file, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(got, want) {
		return fmt.Errorf("whose checksum differs: if you have replaced the plugin, write %s; "+
			"otherwise find out who did", got)
	}
	return nil
}

// Hooks are the deploy hooks in the order in which they are asked.
func (p Plugins) Hooks() []Plugin { return orBuiltin(p.DeployHooks, HookOAuth) }

// AllRuntimes are the runtimes, the one that is preferred first.
func (p Plugins) AllRuntimes() []Plugin { return orBuiltin(p.Runtimes, RuntimeFile) }

func orBuiltin(configured []Plugin, builtin string) []Plugin {
	if len(configured) > 0 {
		return configured
	}
	return []Plugin{{Name: builtin}}
}
