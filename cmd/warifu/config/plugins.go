package config

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
