//go:build kubernetes

package deploy

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/plugins/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

const chart = "helm/warifu"

// valueSets are what the chart is tried with: nothing, and all that it has.
var valueSets = map[string][]string{
	"default": nil,
	"etcd":    {"--values", "testdata/values/etcd.yaml"},
	"own":     {"--values", "testdata/values/own.yaml"},
}

// kinds are the kinds of objects of each value set.
var kinds = map[string][]string{
	"default": {"ConfigMap", "NetworkPolicy", "Secret", "Service", "Service", "ServiceAccount", "StatefulSet"},
	"etcd": {"ConfigMap", "Deployment", "Ingress", "NetworkPolicy", "PodDisruptionBudget", "Role", "Role", "RoleBinding",
		"RoleBinding", "Secret", "Service", "Service", "ServiceAccount", "ServiceMonitor"},
	"own": {"ConfigMap", "Ingress", "Service", "Service", "StatefulSet"},
}

// collections are where objects of a kind are, below an API's address.
var collections = map[string]string{"ConfigMap": "configmaps", "NetworkPolicy": "networkpolicies", "Secret": "secrets",
	"Service": "services", "ServiceAccount": "serviceaccounts", "StatefulSet": "statefulsets", "Deployment": "deployments",
	"Ingress": "ingresses", "Role": "roles", "RoleBinding": "rolebindings", "PodDisruptionBudget": "poddisruptionbudgets",
	"ServiceMonitor": "servicemonitors"}

func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program := os.Getenv("WARIFU_HELM")
	if program == "" {
		program = "../../bin/helm"
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("helm is missing (%v); run make bin/helm", err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	home := t.TempDir() // nothing of whoever runs this
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home,
		"HELM_DATA_HOME="+home, "KUBECONFIG=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

type object = map[string]any

// rendered are the objects that helm makes of the chart, for a release named id.
func rendered(t *testing.T, namespace string, args ...string) []object {
	t.Helper()
	return release(t, "id", namespace, args...)
}

func release(t *testing.T, name, namespace string, args ...string) []object {
	t.Helper()
	how := []string{"template", name, chart, "--namespace", namespace, "--kube-version", "1.37"}
	out, err := helm(t, append(how, args...)...)
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, out)
	}
	var all []object
	for decoder := yaml.NewDecoder(strings.NewReader(out)); ; {
		var one object
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if one != nil {
			all = append(all, one)
		}
	}
}

func ofKind(objects []object, kind string) object {
	for _, o := range objects {
		if o["kind"] == kind {
			return o
		}
	}
	return nil
}

func collection(namespace string, o object) string {
	api := "/apis/"
	if o["apiVersion"] == "v1" {
		api = "/api/"
	}
	return api + o["apiVersion"].(string) + "/namespaces/" + namespace + "/" + collections[o["kind"].(string)]
}

// TestChartIsAccepted: each object of each value set is one that a real server takes, with no field that it does not
// know; and pods of them may run where the restricted standard for pods is enforced.
func TestChartIsAccepted(t *testing.T) {
	cluster := kubetest.Start(t)
	addServiceMonitors(t, cluster)
	for _, ns := range []string{"apps", "more-apps"} {
		cluster.Do(t, http.MethodPost, "/api/v1/namespaces", object{"apiVersion": "v1", "kind": "Namespace",
			"metadata": object{"name": ns}})
	}
	for name, args := range valueSets {
		t.Run(name, func(t *testing.T) {
			if out, err := helm(t, append([]string{"lint", "--strict", chart}, args...)...); err != nil {
				t.Fatalf("helm lint: %v\n%s", err, out)
			}
			ns := cluster.Namespace(t)
			cluster.Do(t, http.MethodPatch, "/api/v1/namespaces/"+ns, object{"metadata": object{
				"labels": object{"pod-security.kubernetes.io/enforce": "restricted"}}})
			cluster.ServiceAccount(t, ns, "mine")
			objects := rendered(t, ns, args...)
			var made []string
			for _, o := range objects {
				meta := o["metadata"].(object)
				in, _ := meta["namespace"].(string)
				if in != ns && !strings.HasPrefix(o["kind"].(string), "Role") {
					t.Errorf("%s %s is in the namespace %q", o["kind"], meta["name"], in)
				}
				made = append(made, o["kind"].(string))
				cluster.Do(t, http.MethodPatch, collection(in, o)+"/"+meta["name"].(string)+
					"?fieldManager=helm&fieldValidation=Strict", o)
			}
			if slices.Sort(made); !slices.Equal(made, kinds[name]) {
				t.Errorf("it makes %q, want %q", made, kinds[name])
			}
			workload := ofKind(objects, "StatefulSet")
			if workload == nil {
				workload = ofKind(objects, "Deployment")
			}
			pod := maps.Clone(kubetest.Field(workload, "spec", "template").(object))
			pod["apiVersion"], pod["kind"] = "v1", "Pod"
			pod["metadata"].(object)["name"] = "pod"
			spec := pod["spec"].(object)
			delete(spec, "priorityClassName")
			spec["volumes"] = withClaims(workload, spec["volumes"].([]any))
			cluster.Do(t, http.MethodPost, "/api/v1/namespaces/"+ns+"/pods?dryRun=All&fieldValidation=Strict", pod)
		})
	}
}

// withClaims adds the volumes that a StatefulSet gives its pods.
func withClaims(workload object, volumes []any) []any {
	claims, _ := kubetest.Field(workload, "spec", "volumeClaimTemplates").([]any)
	for _, c := range claims {
		name := kubetest.Field(c.(object), "metadata", "name")
		volumes = append(volumes, object{"name": name, "persistentVolumeClaim": object{"claimName": name}})
	}
	return volumes
}

// TestChartKeepsTheConfigurationVerbatim: not a byte of it changes on the way into the Secret, and a change of it
// changes nothing of the pods, which take it over by themselves.
func TestChartKeepsTheConfigurationVerbatim(t *testing.T) {
	text, err := os.ReadFile("testdata/values/etcd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Configuration string
		Files         map[string]string
	}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(values.Files)
	want["config.yaml"] = values.Configuration
	before := rendered(t, "ns", valueSets["etcd"]...)
	data, _ := ofKind(before, "Secret")["data"].(object)
	if len(data) != len(want) {
		t.Errorf("the Secret has %d keys, want %d", len(data), len(want))
	}
	for name, value := range data {
		got, err := base64.StdEncoding.DecodeString(value.(string))
		if err != nil || string(got) != want[name] {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want[name])
		}
	}

	changed := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(changed, []byte(values.Configuration+"subject: dex\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	after := rendered(t, "ns", append(valueSets["etcd"], "--set-file", "configuration="+changed)...)
	for i := range before {
		one, two := encoded(t, before[i]), encoded(t, after[i])
		if same := bytes.Equal(one, two); same == (before[i]["kind"] == "Secret") {
			t.Errorf("with another configuration %s is\n%s\nwas\n%s", before[i]["kind"], two, one)
		}
	}
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	out, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestChartGivesTheRuntimeItsRights: those that the runtime says it needs, to the account of the pods, whose token they
// have then and only then.
func TestChartGivesTheRuntimeItsRights(t *testing.T) {
	text, err := os.ReadFile("../../plugins/runtimekubernetes/role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var role object
	if err := yaml.Unmarshal(text, &role); err != nil {
		t.Fatal(err)
	}
	objects := rendered(t, "ns", valueSets["etcd"]...)
	if got, want := encoded(t, ofKind(objects, "Role")["rules"]), encoded(t, role["rules"]); !bytes.Equal(got, want) {
		t.Errorf("the rules are\n%s\nwant\n%s", got, want)
	}
	subject := ofKind(objects, "RoleBinding")["subjects"].([]any)[0].(object)
	spec := kubetest.Field(ofKind(objects, "Deployment"), "spec", "template", "spec").(object)
	if subject["name"] != spec["serviceAccountName"] || subject["namespace"] != "ns" {
		t.Errorf("they are given to %v, the pods are %v", subject, spec["serviceAccountName"])
	}
	without := kubetest.Field(ofKind(rendered(t, "ns"), "StatefulSet"), "spec", "template", "spec").(object)
	if spec["automountServiceAccountToken"] != true || without["automountServiceAccountToken"] != false {
		t.Error("the token is not in the pods that need it alone")
	}
}

// TestChartRefuses: what no pod could be run with is refused before anything is changed, with what to do.
func TestChartRefuses(t *testing.T) {
	const issuer = "issuer: https://id.example.com\n"
	for want, args := range map[string][]string{
		"set both to the same value":             {"--set", "storage=etcd"},
		"has no issuer":                          {"--set", "configuration=web: {}"},
		"it must be a URL":                       {"--set", "configuration=issuer: id.example.com"},
		"is not YAML":                            {"--set", "configuration=a: b: c"},
		"configuration must be a mapping":        {"--set", "configuration=hello"},
		"storage of the configuration must be a": {"--set-string", "configuration=" + issuer + "storage: embedded"},
		"needs encryptionKeyFiles": {"--set", "storage=etcd", "--set-string",
			"configuration=" + issuer + "storage: {type: etcd}"},
		"/etc/warifu/encryption.key, which pods": {"--set", "storage=etcd", "--set-string", "configuration=" + issuer +
			"storage: {type: etcd}\nencryptionKeyFiles: [/etc/warifu/encryption.key]"},
		"/etc/warifu/apps, which pods": {"--set-string", "configuration=" + issuer +
			"manifests: {directories: [/etc/warifu/apps]}"},
		"add that to manifests.directories": {"--set-string", "configuration=" + issuer, "--set", `apps.board\.yml=x`},
		"leave replicas out":                {"--set", "replicas=3"},
		"enable ports.http or ports.https":  {"--set", "ports.http=0"},
		"ports.http and ports.metrics":      {"--set", "ports.http=5558"},
		"use `configuration` for":           {"--set", `files.config\.yaml=x`},
		"set ingress.host":                  {"--set", "existingSecret=x", "--set", "ingress.enabled=true"},
		`apps has the file "board"`:         {"--set-json", `apps={"board":"x"}`},
		`apps has the file "board.txt"`:     {"--set", `apps.board\.txt=x`},
		`files has the name "a/b"`:          {"--set", "files.a/b=x"},
		"additional properties":             {"--set", "podDisruptionBugdet.enabled=true"},
		"value must be one of":              {"--set", "storage=postgres"},
		"'latest' does not match pattern":   {"--set", "image.digest=latest"},
		"at '/networkPolicy/egress/0'":      {"--set", "networkPolicy.egress={a}"},
		"at '/persistence/size'":            {"--set", "persistence.size=8GB"},
		"at '/podDisruptionBudget/maxUna":   {"--set", "podDisruptionBudget.maxUnavailable=half"},
		"at '/existingSecret'":              {"--set", "existingSecret=My Secret"},
		"at '/resources'":                   {"--set", "resources.limit.memory=1Gi"},
		"'ram' does not match pattern":      {"--set", "resources.limits.ram=1Gi"},
		"at '/resources/limits/memory'":     {"--set", "resources.limits.memory=1GB"},
	} {
		out, err := helm(t, append([]string{"template", "id", chart}, args...)...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("helm template %q: %v\n%s\nwant %q", args, err, out, want)
		}
	}
}

// TestChartAccepts what warifu accepts: sections with nothing in them, and keys and apps from volumes of one's own.
func TestChartAccepts(t *testing.T) {
	const issuer = "configuration=issuer: https://id.example.com\n"
	for name, args := range map[string][]string{
		"empty sections": {"--set-string", issuer + "web:\nstorage:\nmanifests:\n"},
		"keys mounted": {"--set", "storage=etcd", "--set-string", issuer +
			"storage: {type: etcd}\nencryptionKeyFiles: [/etc/warifu/keys/one]", "--set-json",
			`extraVolumeMounts=[{"name":"keys","mountPath":"/etc/warifu/keys"}]`},
		"one replica":       {"--set", "replicas=1"},
		"quantities":        {"--set", "resources.limits.cpu=2,resources.limits.memory=1.5Gi,persistence.size=500M"},
		"a share of pods":   {"--set-string", "podDisruptionBudget.maxUnavailable=50%"},
		"files by a volume": {"--set", "existingSecret=x"},
	} {
		out, err := helm(t, append([]string{"install", "id", chart, "--dry-run=client"}, args...)...) // with the notes
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestChartLabelsAreLabels whatever an image is tagged with.
func TestChartLabelsAreLabels(t *testing.T) {
	objects := rendered(t, "ns", "--set", "image.tag=_"+strings.Repeat("a", 61)+"--z")
	const version = "app.kubernetes.io/version"
	got := ofKind(objects, "StatefulSet")["metadata"].(object)["labels"].(object)[version]
	if want := strings.Repeat("a", 61); got != want {
		t.Errorf("%s is %q, want %q", version, got, want)
	}
}

// TestAlertsKnowTheJobOfTheChart: the operator calls a job as its Service is called, unless jobLabel says otherwise,
// and the alert that tells of a server that is down is about that name.
func TestAlertsKnowTheJobOfTheChart(t *testing.T) {
	var expr string
	for _, a := range alerts(t) {
		if a.Alert == "WarifuDown" {
			expr = a.Expr
		}
	}
	match := regexp.MustCompile(`^up\{job=~"([^"]+)"\} == 0$`).FindStringSubmatch(expr)
	if match == nil {
		t.Fatalf("WarifuDown is %q", expr)
	}
	jobs := regexp.MustCompile("^(?:" + match[1] + ")$") // as Prometheus reads it
	for _, name := range []string{"id", "warifu", "our-warifu", strings.Repeat("a", 53), "a",
		strings.Repeat("a", 47) + "warifu"} {
		objects := release(t, name, "ns", "--set", "serviceMonitor.enabled=true")
		monitor := ofKind(objects, "ServiceMonitor")["spec"].(object)
		wanted := kubetest.Field(monitor, "selector", "matchLabels").(object)
		found := 0
		for _, o := range objects {
			labels, _ := kubetest.Field(o, "metadata", "labels").(object)
			if o["kind"] != "Service" || !includes(labels, wanted) {
				continue
			}
			found++
			job, _ := kubetest.Field(o, "metadata", "name").(string)
			if label, is := monitor["jobLabel"].(string); is {
				job, _ = labels[label].(string)
			}
			if !jobs.MatchString(job) {
				t.Errorf("release %s: the job is %q, which WarifuDown (%s) does not know", name, job, expr)
			}
		}
		if found != 1 {
			t.Errorf("release %s: the ServiceMonitor selects %d Services", name, found)
		}
	}
}

func includes(all, some object) bool {
	for k, v := range some {
		if all[k] != v {
			return false
		}
	}
	return true
}

// TestChartIsInstalledAndUpgraded by helm itself, from a chart in an archive.
func TestChartIsInstalledAndUpgraded(t *testing.T) {
	cluster := kubetest.Start(t)
	addServiceMonitors(t, cluster)
	ns, dir := cluster.Namespace(t), t.TempDir()
	must := func(args ...string) string {
		t.Helper()
		out, err := helm(t, args...)
		if err != nil {
			t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	must("package", chart, "--destination", dir)
	archives, err := filepath.Glob(filepath.Join(dir, "warifu-*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatal(archives, err)
	}
	to := []string{"--kubeconfig", cluster.Kubeconfig, "--namespace", ns}
	notes := must(append([]string{"install", "id", archives[0]}, to...)...)
	for _, want := range []string{"warifu serves https://id.example.com", "no web.trustedProxies",
		"kubectl -n " + ns + " exec statefulset/id-warifu -- warifu get apps"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes do not have %q:\n%s", want, notes)
		}
	}
	set := "/apis/apps/v1/namespaces/" + ns + "/statefulsets/id-warifu"
	before := kubetest.Field(cluster.Do(t, http.MethodGet, set, nil), "metadata", "generation")
	must(append([]string{"upgrade", "id", archives[0], "--reuse-values", "--set", "serviceMonitor.enabled=true",
		"--set-string", "configuration=issuer: https://id.example.com\nenablePasswordDB: true\n"}, to...)...)
	if after := kubetest.Field(cluster.Do(t, http.MethodGet, set, nil), "metadata", "generation"); after != before {
		t.Errorf("another configuration makes the StatefulSet one of generation %v, was %v", after, before)
	}
	if cluster.Get(t, "/apis/monitoring.coreos.com/v1/namespaces/"+ns+"/servicemonitors/id-warifu") == nil {
		t.Error("there is no ServiceMonitor after the upgrade")
	}
	must(append([]string{"upgrade", "id", archives[0], "--reuse-values", "--set",
		"resources.limits.memory=1Gi"}, to...)...)
	must(append([]string{"uninstall", "id"}, to...)...)
	if cluster.Get(t, set) != nil {
		t.Error("after helm uninstall the StatefulSet is there")
	}
}

func addServiceMonitors(t *testing.T, cluster *kubetest.Cluster) {
	t.Helper()
	text, err := os.ReadFile("testdata/servicemonitor.crd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd object
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	const name = "servicemonitors.monitoring.coreos.com"
	cluster.Do(t, http.MethodPatch, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+name+
		"?fieldManager=test", crd)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for served := false; !served; { // nobody tells when it has made the address
		status, _, err := cluster.Ask(ctx, cluster.Token, http.MethodGet,
			"/apis/monitoring.coreos.com/v1/servicemonitors", nil)
		if err != nil {
			t.Fatal(err)
		}
		served = status == http.StatusOK
	}
}
