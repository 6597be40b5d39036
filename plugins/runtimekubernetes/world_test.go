//go:build kubernetes

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/kubetest"
)

// The world of a test: a namespace of a real kube-apiserver, an account that has what role.yaml gives it, and, if the
// test wants one, a controller.

const appName = "shop"

type world struct {
	*kubetest.Cluster
	namespace  string
	kubeconfig string // of an account with the Role
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Cluster: kubetest.Start(t)}
	w.namespace = w.Namespace(t)
	w.ServiceAccount(t, w.namespace, "warifu")
	w.grant(t, roleFile(t, w.namespace))
	token := w.TokenOf(t, w.namespace, "warifu", "", time.Hour)
	w.kubeconfig = w.KubeconfigOf(t, w.namespace, token)
	w.until(t, "the rights count", func() bool {
		status, _, err := w.Ask(t.Context(), token, http.MethodGet, "/api/v1/namespaces/"+w.namespace+"/secrets", nil)
		return err == nil && status == http.StatusOK
	})
	return w
}

// roleFile gives the objects of role.yaml for a namespace, in which the account is as well.
func roleFile(t *testing.T, namespace string) []string {
	t.Helper()
	content, err := os.ReadFile("role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(content), "namespace: apps", "namespace: "+namespace)
	return strings.Split(strings.ReplaceAll(text, "namespace: warifu", "namespace: "+namespace), "\n---\n")
}

func (w *world) grant(t *testing.T, objects []string) {
	t.Helper()
	for i, kind := range []string{"roles", "rolebindings"} {
		w.Do(t, http.MethodPatch, "/apis/rbac.authorization.k8s.io/v1/namespaces/"+w.namespace+"/"+kind+
			"/warifu?fieldManager=admin",
			[]byte(objects[i]))
	}
}

func (*world) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func (w *world) config(more string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"kubeconfig": %q%s}`, w.kubeconfig, more))
}

func (w *world) runtime(t *testing.T, more string) *runtime {
	t.Helper()
	return configured(t, w.config(more))
}

func configured(t *testing.T, config json.RawMessage) *runtime {
	t.Helper()
	r := &runtime{}
	if err := r.Configure(t.Context(), config, ""); err != nil {
		t.Fatal(err)
	}
	return r
}

// container is the target that most tests use, and its workload.
func target(name string) plugins.Target {
	return plugins.Target{Kind: plugins.TargetContainer, Name: name}
}

func (w *world) workload(kind, name string, at plugins.Target) kubetest.Workload {
	return kubetest.Workload{Kind: kind, Namespace: w.namespace, Name: name, Replicas: 2,
		Labels: map[string]string{labelApp: appName, labelTarget + at.Kind: at.Name}}
}

func push(at plugins.Target, generation int64, env map[string]string) plugins.PushRequest {
	return pushed{App: appName, Target: at, Generation: generation, Fence: 1, Env: env}.request()
}

func secretEnv(value string) map[string]string {
	return map[string]string{"OAUTH_CLIENT_ID": "shop", "OAUTH_CLIENT_SECRET": value,
		"OAUTH_ISSUER": "https://id.example.com"}
}

func mustPush(t *testing.T, r *runtime, req plugins.PushRequest, want plugins.State) plugins.Status {
	t.Helper()
	st, err := r.PushEnv(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return expect(t, st, want)
}

func mustObserve(t *testing.T, r *runtime, at plugins.Target, want plugins.State) plugins.Status {
	t.Helper()
	st, err := r.ObserveEnv(t.Context(), appName, at)
	if err != nil {
		t.Fatal(err)
	}
	return expect(t, st, want)
}

func expect(t *testing.T, st plugins.Status, want plugins.State) plugins.Status {
	t.Helper()
	if st.State != want {
		t.Fatalf("%+v, diagnostic %+v; expected %s", st, st.Diagnostic, want)
	}
	return st
}

func (w *world) secretPath(at plugins.Target) string {
	return "/api/v1/namespaces/" + w.namespace + "/secrets/" + secretName(plugins.AppTarget{App: appName, Target: at})
}

// environment is what a pod that starts now would have: the variables of one container, and an error if the pod could
// not be started.
func environment(ctx context.Context, c *kubetest.Cluster, object map[string]any,
	name string) (map[string]string, error) {
	var w struct {
		Metadata struct{ Namespace string }
		Spec     struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Name string
						Env  []struct {
							Name, Value string
							ValueFrom   *struct {
								SecretKeyRef struct{ Name, Key string }
							}
						}
					}
				}
			}
		}
	}
	if err := remarshal(object, &w); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, container := range w.Spec.Template.Spec.Containers {
		if container.Name != name {
			continue
		}
		for _, e := range container.Env {
			out[e.Name] = e.Value
			if e.ValueFrom == nil {
				continue
			}
			ref := e.ValueFrom.SecretKeyRef
			status, answer, err := c.Ask(ctx, c.Token, http.MethodGet, "/api/v1/namespaces/"+w.Metadata.Namespace+
				"/secrets/"+ref.Name, nil)
			if err != nil {
				return nil, err
			}
			var secret struct{ Data map[string][]byte }
			if err := json.Unmarshal(answer, &secret); status != http.StatusOK || err != nil {
				return nil, fmt.Errorf("no Secret %s: %d %w", ref.Name, status, err)
			}
			value, there := secret.Data[ref.Key]
			if !there {
				return nil, fmt.Errorf("Secret %s has no %s", ref.Name, ref.Key)
			}
			out[e.Name] = string(value)
		}
	}
	return out, nil
}

// serving gives the environment with which a workload's pods would be started now.
func (w *world) serving(t *testing.T, of kubetest.Workload, container string) map[string]string {
	t.Helper()
	env, err := environment(t.Context(), w.Cluster, w.Do(t, http.MethodGet, of.Path(), nil), container)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// controller does for the Deployments of a namespace what their controller and kubelets would, with one pod each: it
// starts a pod of each new template with the environment that there is at that moment, and says so in the status. A pod
// that cannot be started, or is to fail, leaves the old one and is said to have failed.
type controller struct {
	cluster   *kubetest.Cluster
	namespace string

	mu   sync.Mutex // owns what follows
	pods map[string]*pod
	fail map[string]bool
}

// pod is what runs of a Deployment.
type pod struct {
	env      map[string]string
	template string
	started  int
}

// control runs a controller until the end of the test.
func (w *world) control(t *testing.T) *controller {
	t.Helper()
	c := &controller{cluster: w.Cluster, namespace: w.namespace, pods: map[string]*pod{}, fail: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if err := c.watch(ctx); err != nil && ctx.Err() == nil {
				t.Logf("the controller: %v", err)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return c
}

func (c *controller) watch(ctx context.Context) error {
	path := kubetest.Workload{Namespace: c.namespace}.Path()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cluster.URL+path+"?watch=true", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.cluster.Token)
	resp, err := c.cluster.Client().Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it is a stream
	for events := json.NewDecoder(resp.Body); ; {
		var event struct {
			Type   string
			Object map[string]any
		}
		if err := events.Decode(&event); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := c.see(ctx, event.Type, event.Object); err != nil {
			return err
		}
	}
}

func (c *controller) see(ctx context.Context, event string, object map[string]any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	name, _ := kubetest.Field(object, "metadata", "name").(string)
	if event == "DELETED" {
		delete(c.pods, name)
		return nil
	}
	generation := kubetest.Field(object, "metadata", "generation")
	if event == "ERROR" || generation == nil || kubetest.Field(object, "status", "observedGeneration") == generation {
		return nil
	}
	text, err := json.Marshal(kubetest.Field(object, "spec", "template"))
	if err != nil {
		return err
	}
	status := kubetest.Done(object)
	status["conditions"] = []any{}
	if was := c.pods[name]; was == nil || was.template != string(text) {
		env, err := environment(ctx, c.cluster, object, "main")
		if err == nil && c.fail[name] {
			err = errors.New("it is to fail")
		}
		if err == nil {
			next := &pod{env: env, template: string(text), started: 1}
			if was != nil {
				next.started += was.started
			}
			c.pods[name] = next
		} else {
			n, _ := kubetest.Field(object, "spec", "replicas").(float64)
			status["replicas"], status["updatedReplicas"] = n+1, 1
			status["conditions"] = []any{map[string]any{"type": "Progressing", "status": "False",
				"reason":  "ProgressDeadlineExceeded",
				"message": "has timed out progressing"}}
		}
	}
	code, answer, err := c.cluster.Ask(ctx, c.cluster.Token, http.MethodPatch, kubetest.Workload{Namespace: c.namespace,
		Name: name}.Path()+"/status",
		map[string]any{"status": status})
	if err == nil && code != http.StatusOK && code != http.StatusNotFound {
		err = fmt.Errorf("%d %s", code, answer)
	}
	return err
}

// running gives what runs of a Deployment now.
func (c *controller) running(name string) *pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods[name]
}

func (c *controller) failing(name string, is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail[name] = is
}

// settled waits until the controller has seen the newest template, and gives what runs.
func (c *controller) settled(ctx context.Context, name string) (*pod, error) {
	for {
		status, answer, err := c.cluster.Ask(ctx, c.cluster.Token, http.MethodGet, kubetest.Workload{Namespace: c.namespace,
			Name: name}.Path(), nil)
		if err != nil {
			return nil, err
		}
		var object map[string]any
		if err := json.Unmarshal(answer, &object); err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("%d %s", status, answer)
		}
		if kubetest.Field(object, "status", "observedGeneration") == kubetest.Field(object, "metadata", "generation") {
			return c.running(name), nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// fields are all paths below an object, for comparing; what the server writes by itself is left out.
func fields(object map[string]any) []string {
	var out []string
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch x := v.(type) {
		case map[string]any:
			for key, inner := range x {
				walk(at+"."+key, inner)
			}
		case []any:
			for i, inner := range x {
				walk(fmt.Sprintf("%s[%d]", at, i), inner)
			}
		default:
			out = append(out, fmt.Sprintf("%s=%v", at, x))
		}
	}
	walk("spec", object["spec"])
	walk("labels", kubetest.Field(object, "metadata", "labels"))
	slices.Sort(out)
	return out
}
