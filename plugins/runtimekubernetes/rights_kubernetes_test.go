//go:build kubernetes

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/kubetest"
)

// everything is all that a runtime does, at one target of which a workload of each kind exists.
func everything(ctx context.Context, r *runtime, at plugins.Target, generation int64) error {
	for range 2 {
		generation++
		if _, err := r.PushEnv(ctx, push(at, generation, secretEnv(fmt.Sprint(generation)))); err != nil {
			return err
		}
	}
	if _, err := r.ObserveEnv(ctx, appName, at); err != nil {
		return err
	}
	if _, err := r.ListTargets(ctx, ""); err != nil {
		return err
	}
	return r.RemoveEnv(ctx, plugins.RemoveRequest{App: appName, Target: at, Generation: generation, Fence: 1})
}

// Each verb of role.yaml is needed, and what is lacking is said with the way to get it. That they suffice is shown by
// all other tests.
func TestRoleHasNoRightTooMany(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	kinds := map[string]string{"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}
	for _, kind := range kinds {
		w.Deploy(t, w.workload(kind, "web", at))
	}
	rules := map[string][]string{"secrets": {"get", "list", "create", "patch", "delete"}}
	for plural := range kinds {
		rules[plural] = []string{"get", "list", "patch"}
	}
	role := func(but, verb string) map[string]any {
		var list []any
		for resource, verbs := range rules {
			group := "apps"
			if resource == "secrets" {
				group = ""
			}
			var left []string
			for _, v := range verbs {
				if resource != but || v != verb {
					left = append(left, v)
				}
			}
			list = append(list, map[string]any{"apiGroups": []string{group}, "resources": []string{resource}, "verbs": left})
		}
		return map[string]any{"rules": list}
	}
	path := "/apis/rbac.authorization.k8s.io/v1/namespaces/" + w.namespace + "/roles/warifu"
	assigned := ""
	for plural, kind := range kinds {
		assigned += fmt.Sprintf(`, {"name": %q, "workload": "%s/web"}`, plural, kind)
	}
	r := w.runtime(t, fmt.Sprintf(`, "workloads": [%s]`, strings.TrimPrefix(assigned, ", ")))
	generation := int64(0)
	for resource, verbs := range rules {
		for _, verb := range verbs {
			about := at
			if verb == "get" && resource != "secrets" {
				about = target(resource) // only what the config assigns is got by its name
			}
			w.Do(t, http.MethodPatch, path, role(resource, verb))
			generation += 10
			var err error
			w.until(t, "the right is gone", func() bool {
				err = everything(t.Context(), r, about, generation)
				generation += 10
				return err != nil
			})
			if !errors.Is(err, plugins.ErrUnavailable) || !strings.Contains(err.Error(), "role.yaml") ||
				!strings.Contains(err.Error(), "cannot "+verb) {
				t.Errorf("without the right to %s %s: %v", verb, resource, err)
			}
			w.Do(t, http.MethodPatch, path, role("", ""))
			w.until(t, "the right is back", func() bool {
				generation += 10
				return everything(t.Context(), r, about, generation) == nil
			})
		}
	}
}

// The file is what the test above has, and means one namespace.
func TestRoleIsForOneNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role := w.Do(t, http.MethodGet, "/apis/rbac.authorization.k8s.io/v1/namespaces/"+w.namespace+"/roles/warifu", nil)
	const want = "[map[apiGroups:[] resources:[secrets] verbs:[get list create patch delete]] " +
		"map[apiGroups:[apps] resources:[deployments statefulsets daemonsets] verbs:[get list patch]]]"
	if is := fmt.Sprint(role["rules"]); is != want {
		t.Errorf("the role has %s", is)
	}
	token := w.TokenOf(t, w.namespace, "warifu", "", time.Hour)
	other := w.Namespace(t)
	for _, path := range []string{"/api/v1/namespaces/" + other + "/secrets", "/api/v1/secrets",
		"/apis/apps/v1/namespaces/" + other + "/deployments",
		"/api/v1/namespaces/" + w.namespace + "/pods", "/api/v1/namespaces/" + w.namespace + "/configmaps"} {
		if status, _, err := w.Ask(t.Context(), token, http.MethodGet, path, nil); err != nil ||
			status != http.StatusForbidden {
			t.Errorf("%s: %d %v", path, status, err)
		}
	}
	if _, err := configured(t, w.config(fmt.Sprintf(`, "namespace": %q`, other))).ListTargets(t.Context(),
		""); !errors.Is(err, plugins.ErrUnavailable) {
		t.Errorf("in another namespace: %v", err)
	}
}

// In a pod there is no kubeconfig but the files of a service account.
func TestServiceAccountOfAPod(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	w.Deploy(t, w.workload("Deployment", "web", at))
	dir := t.TempDir()
	ca, err := os.ReadFile(w.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"ca.crt": string(ca), "namespace": w.namespace + "\n",
		"token": w.TokenOf(t, w.namespace, "warifu", "", time.Hour)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := configured(t, fmt.Appendf(nil, `{"server": %q, "credentials": %q}`, w.URL, dir))
	mustPush(t, r, push(at, 1, secretEnv("one")), plugins.StateRolling)
	w.RollOut(t, kubetest.Workload{Namespace: w.namespace, Name: "web"})
	mustObserve(t, r, at, plugins.StateReady)
	// A certificate that is not the cluster's.
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte(strings.Repeat("x", 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := &runtime{}
	if err := bad.Configure(t.Context(), fmt.Appendf(nil, `{"server": %q, "credentials": %q}`, w.URL, dir),
		""); !errors.Is(err, plugins.ErrInvalid) {
		t.Errorf("with no certificate: %v", err)
	}
}
