package main

import (
	"maps"
	"slices"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/plugins/hookoauth"
	"github.com/warifu/warifu/plugins/runtimecontainers"
	"github.com/warifu/warifu/plugins/runtimefile"
	"github.com/warifu/warifu/plugins/runtimeworkers"
)

// Plugins that are built in, by kind: this program runs them by running itself.
var (
	builtinHooks = map[string]func(){
		config.HookOAuth: hookoauth.Serve,
	}
	builtinRuntimes = map[string]func(){
		config.RuntimeFile:       runtimefile.Serve,
		config.RuntimeWorkers:    runtimeworkers.Serve,
		config.RuntimeContainers: runtimecontainers.Serve,
	}
)

// builtins are the built-in plugins of both kinds.
func builtins() map[string]func() {
	all := maps.Clone(builtinHooks)
	maps.Copy(all, builtinRuntimes)
	return all
}

func namesOf(builtin map[string]func()) []string { return slices.Sorted(maps.Keys(builtin)) }
