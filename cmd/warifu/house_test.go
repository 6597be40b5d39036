package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed are the imports between our packages: which package, by its very path, may import which others. The direction
// is cmd, then server and manifests, then storage and plugins; nothing points back.
var allowed = map[string][]string{
	"cmd/warifu": {"cmd/warifu/config", "cmd/warifu/migrate", "manifests/strictyaml", "server",
		"server/admin", "server/connector", "server/doctor", "server/factor", "server/mail", "server/outbound",
		"server/traces/otlp", "storage", "manifests", "plugins", "plugins/hookoauth", "plugins/runtimefile",
		"plugins/runtimecontainers", "plugins/runtimeworkers", "plugins/plugintest"},
	"cmd/warifu/config": {"server", "server/connector", "server/connector/dex", "server/factor",
		"server/mail", "server/outbound", "server/pages", "server/workload", "storage", "manifests/strictyaml", "plugins"},
	"cmd/warifu/migrate": {"cmd/warifu/config", "manifests", "manifests/strictyaml", "server",
		"server/connector", "server/connector/dex", "server/pages"},
	"cmd/warifu/e2e":      {},
	"cmd/warifu/faults":   {},
	"conformance":         {},
	"conformance/clients": {"conformance/local"},
	"conformance/local":   {},
	"conformance/oidf":    {"conformance/local"},
	"conformance/broken":  {},
	"server": {"server/clients", "server/connector", "server/doctor", "server/factor",
		"server/mail", "server/outbound", "server/pages", "server/workload", "storage"},
	"server/admin":                         {"server/doctor", "server/factor", "storage"},
	"server/doctor":                        {"storage"},
	"server/clients":                       {"server/outbound", "storage"},
	"server/workload":                      {"server/outbound"},
	"server/oauth":                         {},
	"server/metrics":                       {},
	"server/traces":                        {},
	"server/outbound":                      {},
	"server/connector":                     {"server/factor", "storage"},
	"server/connector/dex":                 {"server/connector"},
	"server/connector/connectortest":       {"plugins/child"},
	"server/factor":                        {"storage"},
	"server/factor/factortest":             {},
	"server/mail":                          {},
	"server/mail/mailtest":                 {},
	"server/traces/tracestest":             {},
	"server/traces/otlp":                   {},
	"server/pages":                         {},
	"manifests":                            {"manifests/strictyaml", "storage", "plugins"},
	"manifests/strictyaml":                 {},
	"manifests/deploy":                     {},
	"manifests/deploy/notices":             {},
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
	"plugins/kubetest":                     {"plugins/child"},
}

// ground are the rooms on the floor that every other may stand on, each with the modules that it imports beside the
// standard library. They import nothing of ours.
var ground = map[string]string{
	"server/oauth":   "github.com/go-jose/",
	"server/metrics": "github.com/prometheus/client_golang/",
	"server/traces":  "go.opentelemetry.io/otel",
}

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
			if is && ground[ours] == "" && !slices.Contains(may, ours) {
				t.Errorf("%s imports %s", pkg, ours)
			}
			host, _, _ := strings.Cut(imported, "/")
			if alone := ground[pkg]; alone != "" && strings.Contains(host, ".") && !strings.HasPrefix(imported, alone) {
				t.Errorf("%s imports %s: this room has %s and the standard library alone", pkg, imported, alone)
			}
		}
	}
}

// Who has no cluster does not carry the client of one: it has an executable, and a module, of its own. And a plugin,
// which anybody writes, does not carry what only the server needs.
func TestHouseDoesNotCarryWhatItDoesNotNeed(t *testing.T) {
	for pkg, rooms := range map[string][]string{
		"cmd/warifu": {"k8s.io/client-go", "k8s.io/api", "plugins/runtimekubernetes"},
		"plugins":    {"go.opentelemetry.io/otel/sdk", "otlptrace", "go.etcd.io/"},
	} {
		out, err := exec.Command("go", "list", "-deps", "-tags", "e2e,kubernetes", "github.com/warifu/warifu/"+pkg).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for _, room := range rooms {
			if strings.Contains(string(out), room) {
				t.Errorf("%s imports %s", pkg, room)
			}
		}
	}
}

// The module of the runtime for Kubernetes stands on this one, so that it needs the versions that this one needs.
func TestHouseAndItsRuntimeForKubernetesHaveTheSameVersions(t *testing.T) {
	list := exec.Command("go", "list", "-mod=readonly", "-test", "-deps", "-tags", "kubernetes", ".")
	list.Dir = filepath.Join("..", "..", "plugins", "runtimekubernetes")
	if out, err := list.CombinedOutput(); err != nil {
		t.Errorf("run go mod tidy in plugins/runtimekubernetes: %v\n%s", err, out)
	}
}
