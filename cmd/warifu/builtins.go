package main

import (
	"maps"
	"slices"

	"github.com/warifu/warifu/plugins/hookoauth"
	"github.com/warifu/warifu/plugins/runtimecontainers"
	"github.com/warifu/warifu/plugins/runtimefile"
	"github.com/warifu/warifu/plugins/runtimeworkers"
)

// Plugins that are used when none are configured.
const (
	builtinHook    = "oauth"
	builtinRuntime = "file"
)

// builtinWorkers is the built-in runtime that `warifu dev` runs Workers with.
const builtinWorkers = "workers"

// Plugins that are built in, by kind: this program runs them by running itself.
var (
	builtinHooks = map[string]func(){
		builtinHook: hookoauth.Serve,
	}
	builtinRuntimes = map[string]func(){
		builtinRuntime: runtimefile.Serve,
		builtinWorkers: runtimeworkers.Serve,
		"containers":   runtimecontainers.Serve,
	}
)

// builtins are the built-in plugins of both kinds.
func builtins() map[string]func() {
	all := maps.Clone(builtinHooks)
	maps.Copy(all, builtinRuntimes)
	return all
}

func namesOf(builtin map[string]func()) []string { return slices.Sorted(maps.Keys(builtin)) }
