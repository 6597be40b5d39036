package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/warifu/warifu/plugins"
)

func TestFaultyConfigIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kubeconfig := func(cluster string) string {
		file := filepath.Join(dir, strings.NewReplacer("/", "", ":", "", `"`, "", ",", "", " ", "").Replace(cluster))
		if err := os.WriteFile(file,
			[]byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": {`+
				cluster+`}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%q", file)
	}
	good := kubeconfig(`"server": "https://10.0.0.1"`)
	for config, words := range map[string]string{
		`{"namespce": "x"}`:       "namespce",
		`{}`:                      "set kubeconfig, or run in a pod",
		`{"kubeconfig": "x"}`:     "not an absolute path",
		`{"kubeconfig": "/none"}`: "/none",
		`{"kubeconfig": ` + good + `, "context": "other"}`:    "other",
		`{"kubeconfig": ` + good + `, "server": "https://x"}`: "a kubeconfig has its own",
		`{"context": "x"}`: "context is one of a kubeconfig",
		`{"kubeconfig": ` + good +
			`, "rolloutTimeout": 5}`: `written as "10m"`,
		`{"kubeconfig": ` + good +
			`, "rolloutTimeout": "0s"}`: "not positive",
		`{"kubeconfig": ` + good +
			`, "workloads": [{"workload": "Pod/x"}]}`: "workloads[0]",
		`{"kubeconfig": ` + good + `, "workloads": [{"workload": "Deployment/x", "kind": "lambda"}]}`: "lambda",
		`{"kubeconfig": ` + good +
			`, "workloads": [{"workload": "Deployment/x", "app": "["}]}`: "not a pattern",
		`{"kubeconfig": ` + kubeconfig(`"server": "http://10.0.0.1"`) +
			`}`: "neither https nor on this machine",
		`{"kubeconfig": ` + kubeconfig(`"server": "https://10.0.0.1", "insecure-skip-tls-verify": true`) +
			`}`: "certificate-authority",
	} {
		err := (&runtime{}).Configure(t.Context(), json.RawMessage(config), "")
		if !errors.Is(err, plugins.ErrInvalid) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", config, err)
		}
	}
	r := &runtime{}
	if err := r.Configure(t.Context(), json.RawMessage(`{"kubeconfig": `+good+`}`), ""); err != nil ||
		r.cluster.namespace != "default" {
		t.Errorf("%v", err)
	}
}

func TestSecretsOfTargetsHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, app := range []string{"a", "a-b", "A", "日本", strings.Repeat("long", 60)} {
		for _, kind := range []string{plugins.TargetWorker, plugins.TargetContainer} {
			for _, name := range []string{"c", "b-c", "C", "../x"} {
				secret := secretName(plugins.AppTarget{App: app, Target: plugins.Target{Kind: kind, Name: name}})
				if seen[secret] || len(validation.IsDNS1123Label(secret)) > 0 {
					t.Errorf("%q", secret)
				}
				seen[secret] = true
			}
		}
	}
}

func TestValuesAreTakenOutOfWhatAClusterSays(t *testing.T) {
	t.Parallel()
	env := map[string]string{"A": "secret", "B": "secret-and-more", "C": "two\nlines", "D": "x"}
	const said = `Invalid value: "secret-and-more", secret, two\nlines, two` + "\nlines, c2VjcmV0, x"
	if got := hide(said, env); got != `Invalid value: "[hidden]", [hidden], [hidden], [hidden], [hidden], x` {
		t.Error(got)
	}
}

func TestSecretOfAnotherTargetIsNotTaken(t *testing.T) {
	t.Parallel()
	at := plugins.AppTarget{App: "shop", Target: plugins.Target{Kind: plugins.TargetContainer, Name: "web"}}
	r := newRecord(nil, plugins.PushRequest{App: "other", Target: at.Target, Generation: 1, Digest: "d"}, 0, testTime)
	r.object = &unstructured.Unstructured{Object: map[string]any{}}
	object := &unstructured.Unstructured{Object: r.apply()}
	if _, err := readRecord(object, at); err == nil || !strings.Contains(err.Error(), "is of other container/web") {
		t.Error(err)
	}
	if has, err := readRecord(object, plugins.AppTarget{App: "other", Target: at.Target}); err != nil || !has.intact() {
		t.Error(err)
	}
}
