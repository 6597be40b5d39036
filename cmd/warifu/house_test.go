package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed are the imports between our packages, by the longest prefix that fits: which package may import which others. The
// direction is cmd, then server and manifests, then storage and plugins; nothing points back.
var allowed = map[string][]string{
	"cmd/warifu":                           {"cmd/warifu/config", "manifests/strictyaml", "server", "server/admin", "server/connector", "server/outbound", "storage", "manifests", "plugins", "plugins/hookoauth", "plugins/runtimefile", "plugins/runtimecontainers", "plugins/runtimeworkers", "plugins/plugintest"},
	"cmd/warifu/config":                    {"server", "server/connector", "server/outbound", "storage", "manifests/strictyaml", "plugins"},
	"cmd/warifu/e2e":                       {},
	"conformance":                          {},
	"conformance/clients":                  {"conformance/local"},
	"conformance/local":                    {},
	"conformance/oidf":                     {"conformance/local"},
	"conformance/broken":                   {},
	"server":                               {"server/clients", "server/connector", "server/outbound", "server/pages", "storage"},
	"server/admin":                         {"storage"},
	"server/clients":                       {"server/outbound", "storage"},
	"server/oauth":                         {},
	"server/outbound":                      {},
	"server/connector":                     {},
	"server/pages":                         {},
	"manifests":                            {"manifests/strictyaml", "storage", "plugins"},
	"manifests/strictyaml":                 {},
	"storage":                              {},
	"storage/storagetest":                  {"storage"},
	"plugins":                              {"plugins/child", "plugins/pluginpb"},
	"plugins/child":                        {},
	"plugins/pluginpb":                     {},
	"plugins/hookoauth":                    {"plugins", "plugins/pluginpb"},
	"plugins/runtimefile":                  {"plugins", "plugins/pluginpb"},
	"plugins/plugintest":                   {"plugins", "plugins/child", "plugins/pluginpb"},
	"plugins/example":                      {"plugins"},
	"plugins/example-python":               {},
	"plugins/runtimecontainers":            {"plugins", "plugins/pluginpb"},
	"plugins/runtimeworkers":               {"plugins", "plugins/child", "plugins/pluginpb"},
	"plugins/runtimecontainers/podmantest": {},
}

// ground is the floor that every room may stand on. It imports nothing of ours.
const ground = "server/oauth"

func TestImportsGoOneWay(t *testing.T) {
	const module = "github.com/warifu/warifu/"
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		may, known := allowed[pkg]
		if !known {
			t.Errorf("%s is a new room: say here what it may import", pkg)
		}
		for _, imported := range fields[1:] {
			ours, is := strings.CutPrefix(imported, module)
			if is && ours != ground && !slices.Contains(may, ours) {
				t.Errorf("%s imports %s", pkg, ours)
			}
			if host, _, _ := strings.Cut(imported, "/"); pkg == ground && strings.Contains(host, ".") && !strings.HasPrefix(imported, "github.com/go-jose/") {
				t.Errorf("%s imports %s: the ground floor has go-jose and the standard library alone", pkg, imported)
			}
		}
	}
}
