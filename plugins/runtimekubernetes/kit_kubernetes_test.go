//go:build kubernetes

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/kubetest"
	"github.com/warifu/warifu/plugins/plugintest"
)

// The kit runs with the rights of role.yaml alone.
func TestRuntimeKeepsTheContractAndNothingIsUnchecked(t *testing.T) {
	w := newWorld(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k := &kitWorld{world: w, controller: w.control(t), app: appName}
	results := plugintest.Verify(t.Context(), binary, plugintest.Harness{
		Args: []string{asPlugin}, Config: w.config(""), App: appName, Kind: plugins.TargetContainer, Settle: time.Minute,
		Prepare: k.prepare, Discard: k.discard, Serving: k.env, Rollout: k.rollout, Foreign: k.foreign, Break: k.spoil,
		Fail: k.failNext,
	}, nil)
	for _, r := range results {
		t.Logf("%-60s %s", r.Check, r.Took.Round(time.Millisecond))
		if r.Outcome != plugintest.Passed {
			t.Errorf("%s\n%s", r, r.Said)
		}
	}
	if len(results) != len(plugintest.Checks(plugins.RuntimeKind)) {
		t.Errorf("%d checks were made of %d", len(results), len(plugintest.Checks(plugins.RuntimeKind)))
	}
}

// The same by the command, with the executable as it is shipped.
func TestPluginVerifyPasses(t *testing.T) {
	w := newWorld(t)
	k := &kitWorld{world: w, controller: w.control(t), app: "plugintest"}
	address := k.listen(t)
	dir := t.TempDir()
	config, program := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "harness")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Appendf(nil, "#!/bin/sh\nexec '%s' %s '%s' \"$@\"\n", self, asHarness, address)
	if err := errors.Join(os.WriteFile(config, []byte("kubeconfig: "+w.kubeconfig+"\n"), 0o600),
		os.WriteFile(program, script, 0o700)); err != nil {
		t.Fatal(err)
	}
	binaries := built(t)
	out, err := exec.Command(binaries.warifu, "plugin", "verify", binaries.plugin, "--config", config, "--harness",
		program).CombinedOutput()
	if err != nil || strings.Contains(string(out), string(plugintest.NotChecked)) {
		t.Errorf("%v\n%s", err, out)
	}
}

// listen answers what a harness asks, one verb of warifu plugin verify for each request.
func (k *kitWorld) listen(t *testing.T) string {
	t.Helper()
	act := func(do func(context.Context, string, plugins.Target) error) func(context.Context, plugins.Target,
		[]string) (any, error) {
		return func(ctx context.Context, target plugins.Target, _ []string) (any, error) {
			return nil, do(ctx, k.app, target)
		}
	}
	verbs := map[string]func(context.Context, plugins.Target, []string) (any, error){
		"prepare": act(k.prepare), "discard": act(k.discard), "break": act(k.spoil),
		"serving": func(ctx context.Context, target plugins.Target, _ []string) (any, error) {
			return k.env(ctx, "", target)
		},
		"rollout": func(ctx context.Context, target plugins.Target, _ []string) (any, error) {
			return k.rollout(ctx, "", target)
		},
		"foreign": func(ctx context.Context, target plugins.Target, more []string) (any, error) {
			return nil, k.foreign(ctx, "", target, more[0], more[1])
		},
		"fail": act(func(_ context.Context, _ string, target plugins.Target) error {
			k.failing(target.Name, true)
			return nil
		}),
		"mend": act(func(_ context.Context, _ string, target plugins.Target) error {
			k.failing(target.Name, false)
			return nil
		}),
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		args := []string{}
		if r.ParseForm() == nil {
			args = r.PostForm["arg"]
		}
		if len(args) == 1 && args[0] == "verbs" {
			_, _ = fmt.Fprintln(rw, strings.Join(slices.Collect(maps.Keys(verbs)), "\n")) // who asked may be gone
			return
		}
		answer, err := verbs[args[0]](r.Context(), plugins.Target{Kind: args[2], Name: args[3]}, args[4:])
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(rw).Encode(answer) // as above
	}))
	t.Cleanup(server.Close)
	return server.URL
}

type kitWorld struct {
	*world
	*controller
	app    string
	spoilt atomic.Int64
}

func (k *kitWorld) secretPath(target plugins.Target) string {
	return "/api/v1/namespaces/" + k.world.namespace + "/secrets/" +
		secretName(plugins.AppTarget{App: k.app, Target: target})
}

// ask is Do without a test.
func (k *kitWorld) ask(ctx context.Context, method, path string, body any) (map[string]any, error) {
	status, answer, err := k.Cluster.Ask(ctx, k.Token, method, path, body)
	if err != nil {
		return nil, err
	}
	if status >= 300 {
		return nil, fmt.Errorf("%s %s: %d %s", method, path, status, answer)
	}
	var out map[string]any
	return out, json.Unmarshal(answer, &out)
}

func (k *kitWorld) of(target plugins.Target) kubetest.Workload {
	w := k.workload("Deployment", target.Name, target)
	w.Labels[labelApp] = k.app
	return w
}

func (k *kitWorld) prepare(ctx context.Context, _ string, target plugins.Target) error {
	w := k.of(target)
	if _, err := k.ask(ctx, http.MethodPatch, w.Path()+"?fieldManager=owner", w.Object()); err != nil {
		return err
	}
	_, err := k.settled(ctx, w.Name)
	return err
}

func (k *kitWorld) discard(ctx context.Context, _ string, target plugins.Target) error {
	_, err := k.ask(ctx, http.MethodDelete, k.of(target).Path(), nil)
	return err
}

// env is of the running pod. A removal does not wait for the controller, so that is done here.
func (k *kitWorld) env(ctx context.Context, _ string, target plugins.Target) (map[string]string, error) {
	pod := k.running(target.Name)
	if status, _, err := k.Cluster.Ask(ctx, k.Token, http.MethodGet, k.secretPath(target), nil); err != nil {
		return nil, err
	} else if status == http.StatusNotFound {
		if pod, err = k.settled(ctx, target.Name); err != nil {
			return nil, err
		}
	}
	if pod == nil {
		return nil, errors.New("no pod runs")
	}
	return pod.env, nil
}

func (k *kitWorld) rollout(_ context.Context, _ string, target plugins.Target) (string, error) {
	pod := k.running(target.Name)
	if pod == nil {
		return "", errors.New("no pod runs")
	}
	return fmt.Sprint("pod ", pod.started), nil
}

func (k *kitWorld) foreign(ctx context.Context, _ string, target plugins.Target, name, value string) error {
	w := k.of(target)
	object := w.Object()
	containers := kubetest.Field(object, "spec", "template", "spec", "containers").([]any)
	containers[0].(map[string]any)["env"] = []any{map[string]any{"name": name, "value": value}}
	if _, err := k.ask(ctx, http.MethodPatch, w.Path()+"?fieldManager=owner", object); err != nil {
		return err
	}
	_, err := k.settled(ctx, w.Name)
	return err
}

// spoil changes the Secret, or writes the workload anew without our variables, as kubectl replace does.
func (k *kitWorld) spoil(ctx context.Context, _ string, target plugins.Target) error {
	if k.spoilt.Add(1)%2 == 0 {
		_, err := k.ask(ctx, http.MethodPatch, k.secretPath(target),
			map[string]any{"stringData": map[string]any{"OAUTH_CLIENT_SECRET": "oops"}})
		return err
	}
	w := k.of(target)
	_, err := k.ask(ctx, http.MethodPut, w.Path(), w.Object())
	return err
}

func (k *kitWorld) failNext(_ context.Context, _ string, target plugins.Target,
	_ map[string]string) (func(context.Context) error, error) {
	k.failing(target.Name, true)
	return func(context.Context) error {
		k.failing(target.Name, false)
		return nil
	}, nil
}
