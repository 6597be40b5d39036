//go:build kubernetes

package main

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/kubetest"
)

func TestEachKindOfWorkloadIsReadyWhenItsStatusSaysSo(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w, at := newWorld(t), target("web")
			of := w.workload(kind, "web", at)
			w.Deploy(t, of)
			w.RollOut(t, of)
			owned := fields(w.Do(t, http.MethodGet, of.Path(), nil))
			r := w.runtime(t, "")
			env := secretEnv("first")
			if st := mustPush(t, r, push(at, 1, env), plugins.StateRolling); st.AcceptedGeneration != 1 ||
				st.ServingGeneration != 0 {
				t.Errorf("%+v", st) // the status is of the template before
			}
			if has := w.serving(t, of, "main"); !maps.Equal(has, env) {
				t.Errorf("new pods have %v", slices.Sorted(maps.Keys(has)))
			}
			w.RollOut(t, of)
			st := mustObserve(t, r, at, plugins.StateReady)
			if st.ServingGeneration != 1 || st.Location != kind+"/web in "+w.namespace || kind != "DaemonSet" &&
				st.Instances != 2 {
				t.Errorf("%+v", st)
			}
			mustPush(t, r, push(at, 2, secretEnv("second")), plugins.StateRolling)
			// What the controller says in the middle of it: one pod is new, and an old one is left.
			now := w.Do(t, http.MethodGet, of.Path(), nil)
			half := map[string]any{"observedGeneration": kubetest.Field(now, "metadata", "generation"), "updatedReplicas": 1,
				"availableReplicas": 2}
			if kind == "DaemonSet" {
				half = map[string]any{"observedGeneration": half["observedGeneration"], "desiredNumberScheduled": 2,
					"updatedNumberScheduled": 1,
					"numberAvailable":        2}
			}
			w.Status(t, of, half)
			if st := mustObserve(t, r, at, plugins.StateRolling); st.ServingGeneration != 1 {
				t.Errorf("%+v", st)
			}
			w.RollOut(t, of)
			mustObserve(t, r, at, plugins.StateReady)

			listed, err := r.ListTargets(t.Context(), appName)
			if want := []plugins.AppTarget{{App: appName, Target: at}}; err != nil || !slices.Equal(listed, want) {
				t.Errorf("listed %v, %v", listed, err)
			}
			if listed, err := r.ListTargets(t.Context(), "other"); err != nil || len(listed) > 0 {
				t.Errorf("listed of another app %v, %v", listed, err)
			}
			if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: appName, Target: at, Generation: 2,
				Fence: 1}); err != nil {
				t.Fatal(err)
			}
			if w.Get(t, w.secretPath(at)) != nil {
				t.Error("the Secret is still there")
			}
			if is := fields(w.Do(t, http.MethodGet, of.Path(), nil)); !slices.Equal(is, owned) {
				t.Errorf("it was\n%s\nand is\n%s", strings.Join(owned, "\n"), strings.Join(is, "\n"))
			}
			if listed, err := r.ListTargets(t.Context(), ""); err != nil || len(listed) > 0 {
				t.Errorf("listed after the removal %v, %v", listed, err)
			}
		})
	}
}

// withContainers is a workload of two containers and an init container, one of which has an environment of its own.
func withContainers(of kubetest.Workload, annotations map[string]any, containers ...map[string]any) map[string]any {
	object := of.Object()
	object["metadata"].(map[string]any)["annotations"] = annotations
	pod := kubetest.Field(object, "spec", "template", "spec").(map[string]any)
	list := []any{}
	for _, c := range containers {
		c["image"] = "registry.example/app:1"
		list = append(list, c)
	}
	pod["containers"] = list
	pod["initContainers"] = []any{map[string]any{"name": "init", "image": "registry.example/app:1"}}
	return object
}

func TestContainersThatAreNotChosenGetNothing(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	own := map[string]any{"name": "main", "env": []any{map[string]any{"name": "OWN", "value": "own"}},
		"envFrom": []any{map[string]any{"configMapRef": map[string]any{"name": "settings"}}}}
	apply := func(annotations map[string]any) {
		w.Do(t, http.MethodPatch, of.Path()+"?fieldManager=owner", withContainers(of, annotations, own,
			map[string]any{"name": "proxy"}))
	}
	apply(nil)
	r := w.runtime(t, "")
	req := push(at, 1, secretEnv("all"))
	mustPush(t, r, req, plugins.StateRolling)
	for container, want := range map[string]int{"main": 4, "proxy": 3, "init": 0} {
		if has := w.serving(t, of, container); len(has) != want {
			t.Errorf("%s has %v", container, slices.Sorted(maps.Keys(has)))
		}
	}
	apply(map[string]any{annotationContainers: "main, worker"})
	st := mustPush(t, r, req, plugins.StateFailed)
	if !st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Message, "Deployment/web: its annotation "+
		"dev.takos.containers names worker") {
		t.Errorf("%+v", st.Diagnostic)
	}
	apply(map[string]any{annotationContainers: "main"})
	w.RollOut(t, of)
	if st := mustObserve(t, r, at, plugins.StateFailed); !strings.Contains(st.Diagnostic.Message,
		"container proxy has variables that it should not have") {
		t.Errorf("%+v", st.Diagnostic)
	}
	mustPush(t, r, req, plugins.StateRolling)
	if has := w.serving(t, of, "proxy"); len(has) != 0 {
		t.Errorf("proxy has %v", slices.Sorted(maps.Keys(has)))
	}
	if has := w.serving(t, of, "main"); has["OWN"] != "own" || len(has) != 4 {
		t.Errorf("main has %v", slices.Sorted(maps.Keys(has)))
	}
}

func TestFieldOfSomebodyElseIsNotTaken(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	w.Deploy(t, of)
	r := w.runtime(t, "")
	env := secretEnv("ours")
	env[variableAssertion] = "/var/run/secrets/warifu/token"
	for _, c := range []struct {
		what  string
		field map[string]any // of the pod
		words []string
	}{
		{"a variable", map[string]any{"containers": []any{map[string]any{"name": "main", "image": "registry.example/app:1",
			"env": []any{map[string]any{"name": "OAUTH_CLIENT_SECRET", "value": "theirs"}}}}},
			[]string{"container main of Deployment/web", "OAUTH_CLIENT_SECRET", "gitops"}},
		{"a variable from another Secret", map[string]any{"containers": []any{map[string]any{"name": "main",
			"image": "registry.example/app:1",
			"env": []any{map[string]any{"name": "OAUTH_CLIENT_ID", "valueFrom": map[string]any{"secretKeyRef": map[string]any{
				"name": "theirs", "key": "OAUTH_CLIENT_ID"}}}}}}},
			[]string{"container main of Deployment/web", "OAUTH_CLIENT_ID", "gitops"}},
		{"a volume", map[string]any{"containers": []any{map[string]any{"name": "main", "image": "registry.example/app:1"}},
			"volumes": []any{map[string]any{"name": volumeToken, "projected": map[string]any{"sources": []any{}}}}},
			[]string{"Deployment/web", "warifu-token", "gitops"}},
	} {
		object := of.Object()
		kubetest.Field(object, "spec", "template").(map[string]any)["spec"] = c.field
		w.Do(t, http.MethodPatch, of.Path()+"?fieldManager=gitops&force=true", object)
		before := fields(w.Do(t, http.MethodGet, of.Path(), nil))
		st := mustPush(t, r, push(at, 1, env), plugins.StateFailed)
		for _, word := range append(c.words, "somebody else", "take it out") {
			if said := st.Diagnostic.Message + " somebody else; " + st.Diagnostic.Remedy; !strings.Contains(said, word) {
				t.Errorf("%s: nothing of %q in %q", c.what, word, said)
			}
		}
		if !st.Diagnostic.Retryable || st.Present {
			t.Errorf("%s: %+v %+v", c.what, st, st.Diagnostic)
		}
		// Nothing is half-written.
		if w.Get(t, w.secretPath(at)) != nil {
			t.Errorf("%s: a Secret was made", c.what)
		}
		if after := fields(w.Do(t, http.MethodGet, of.Path(), nil)); !slices.Equal(before, after) {
			t.Errorf("%s: the workload was changed", c.what)
		}
	}
	w.Do(t, http.MethodPatch, of.Path()+"?fieldManager=gitops&force=true", of.Object())
	mustPush(t, r, push(at, 1, env), plugins.StateRolling)
}

// kubectl rollout undo writes the template of before, with our variables and stamp as they were then.
func TestTemplateThatWasUndoneIsPutRight(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	w.Deploy(t, of)
	r := w.runtime(t, "")
	mustPush(t, r, push(at, 1, secretEnv("one")), plugins.StateRolling)
	old := kubetest.Field(w.Do(t, http.MethodGet, of.Path(), nil), "spec", "template")
	env := secretEnv("two")
	delete(env, "OAUTH_ISSUER")
	mustPush(t, r, push(at, 2, env), plugins.StateRolling)
	w.RollOut(t, of)
	mustObserve(t, r, at, plugins.StateReady)

	undone := w.Do(t, http.MethodGet, of.Path(), nil)
	undone["spec"].(map[string]any)["template"] = old
	w.Do(t, http.MethodPut, of.Path()+"?fieldManager=kubectl-rollout", undone)
	w.RollOut(t, of)
	if st := mustObserve(t, r, at, plugins.StateFailed); !st.Diagnostic.Retryable || st.AcceptedGeneration != 2 {
		t.Errorf("%+v %+v", st, st.Diagnostic)
	}
	// A variable that is not wanted any more has come back with it, and is of who did that. No pod could start with it.
	st := mustPush(t, r, push(at, 2, env), plugins.StateFailed)
	for _, word := range []string{"has the variable OAUTH_ISSUER, which Secret/", "from kubectl-rollout",
		"kubectl set env Deployment/web -c main OAUTH_ISSUER-"} {
		if !strings.Contains(st.Diagnostic.Message, word) {
			t.Errorf("nothing of %q in %q", word, st.Diagnostic.Message)
		}
	}
	undone = w.Do(t, http.MethodGet, of.Path(), nil)
	for _, c := range kubetest.Field(undone, "spec", "template", "spec", "containers").([]any) {
		c := c.(map[string]any)
		c["env"] = slices.DeleteFunc(c["env"].([]any), func(e any) bool {
			return e.(map[string]any)["name"] == "OAUTH_ISSUER"
		})
	}
	w.Do(t, http.MethodPut, of.Path()+"?fieldManager=kubectl-set", undone)
	mustPush(t, r, push(at, 2, env), plugins.StateRolling) // only our own stamp is taken by force
	w.RollOut(t, of)
	mustObserve(t, r, at, plugins.StateReady)
}

func TestWorkloadThatLosesItsLabelsLosesItsVariables(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	w.Deploy(t, of)
	clean := fields(w.Do(t, http.MethodGet, of.Path(), nil))
	r := w.runtime(t, "")
	mustPush(t, r, push(at, 1, secretEnv("one")), plugins.StateRolling)
	other := w.workload("StatefulSet", "web", at)
	w.Deploy(t, other)
	of.Labels = map[string]string{labelApp: appName}
	w.Deploy(t, of)
	mustPush(t, r, push(at, 2, secretEnv("two")), plugins.StateRolling)
	if has := w.serving(t, of, "main"); len(has) > 0 {
		t.Errorf("it has %v", slices.Sorted(maps.Keys(has)))
	}
	if has := w.serving(t, other, "main"); len(has) != 3 {
		t.Errorf("the other one has %v", slices.Sorted(maps.Keys(has)))
	}
	// And those that have none any more when the target is removed.
	other.Labels = nil
	w.Deploy(t, other)
	if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: appName, Target: at, Generation: 2,
		Fence: 1}); err != nil {
		t.Fatal(err)
	}
	if has := w.serving(t, other, "main"); len(has) > 0 {
		t.Errorf("the other one has %v", slices.Sorted(maps.Keys(has)))
	}
	of.Labels = w.workload("", "", at).Labels
	w.Deploy(t, of)
	if is := fields(w.Do(t, http.MethodGet, of.Path(), nil)); !slices.Equal(is, clean) {
		t.Errorf("it was\n%s\nand is\n%s", strings.Join(clean, "\n"), strings.Join(is, "\n"))
	}
}

func TestAssignedWorkloadNeedsNoLabels(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("Not_a label!")
	of := kubetest.Workload{Namespace: w.namespace, Name: "legacy", Replicas: 1}
	r := w.runtime(t, `, "workloads": [{"app": "sh*", "kind": "container", "workload": "Deployment/legacy"}]`)
	st := mustPush(t, r, push(at, 1, secretEnv("one")), plugins.StateFailed)
	if !st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Message, "has no Deployment/legacy") {
		t.Errorf("%+v", st.Diagnostic)
	}
	w.Deploy(t, of)
	mustPush(t, r, push(at, 1, secretEnv("one")), plugins.StateRolling)
	w.RollOut(t, of)
	mustObserve(t, r, at, plugins.StateReady)
	if _, err := w.runtime(t, "").PushEnv(t.Context(), push(at, 2, nil)); !errors.Is(err, plugins.ErrInvalid) {
		t.Errorf("without an assignment: %v", err)
	}
	st = mustPush(t, w.runtime(t, ""), push(target("web"), 1, secretEnv("one")), plugins.StateFailed)
	if !st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Message, "dev.takos.app=shop and "+
		"dev.takos.container=web") {
		t.Errorf("%+v", st.Diagnostic)
	}
}

// Two targets of one workload would replace its pods in turns for ever.
func TestWorkloadOfTwoTargetsIsNotTakenFromEither(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Deploy(t, kubetest.Workload{Namespace: w.namespace, Name: "both", Replicas: 1})
	r := w.runtime(t, `, "workloads": [{"workload": "Deployment/both"}]`)
	mustPush(t, r, push(target("one"), 1, map[string]string{"ONE": "1"}), plugins.StateRolling)
	st := mustPush(t, r, push(target("two"), 1, map[string]string{"TWO": "2"}), plugins.StateFailed)
	if !strings.Contains(st.Diagnostic.Message, "belong to somebody else") || !strings.Contains(st.Diagnostic.Message,
		"warifu-shop-one-") {
		t.Errorf("%+v", st.Diagnostic)
	}
}

// Who takes a container out of what they apply owns it with us. The server then refuses it, because nobody says its
// image any more, until it is named as one that is to have nothing of ours.
func TestContainerIsTakenOutInTwoSteps(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	apply := func(annotations map[string]any, containers ...string) (int, string) {
		var list []map[string]any
		for _, name := range containers {
			list = append(list, map[string]any{"name": name})
		}
		status, answer, err := w.Ask(t.Context(), w.Token, http.MethodPatch, of.Path()+"?fieldManager=owner",
			withContainers(of, annotations, list...))
		if err != nil {
			t.Fatal(err)
		}
		return status, string(answer)
	}
	if status, answer := apply(nil, "main", "proxy"); status != http.StatusCreated {
		t.Fatal(answer)
	}
	r := w.runtime(t, "")
	req := push(at, 1, secretEnv("one"))
	mustPush(t, r, req, plugins.StateRolling)
	if status, answer := apply(nil, "main"); status != http.StatusUnprocessableEntity ||
		!strings.Contains(answer, "image: Required value") {
		t.Errorf("%d %s", status, answer) // so says README.md
	}
	only := map[string]any{annotationContainers: "main"}
	if status, answer := apply(only, "main", "proxy"); status != http.StatusOK {
		t.Fatal(answer)
	}
	mustPush(t, r, req, plugins.StateRolling)
	if status, answer := apply(only, "main"); status != http.StatusOK {
		t.Errorf("%d %s", status, answer)
	}
	w.RollOut(t, of)
	mustObserve(t, r, at, plugins.StateReady)
}

// An app that needs no secret gets a token of its pods' service account. The server takes the volume as it is: what a
// kubelet would ask for with it is what kubetest's TokenOf gives.
func TestAppWithoutASecretGetsAToken(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	w.Deploy(t, of)
	r := w.runtime(t, "")
	env := map[string]string{"OAUTH_CLIENT_ID": "shop", variableIssuer: "https://id.example.com",
		variableAssertion: "/var/run/secrets/warifu/token"}
	mustPush(t, r, push(at, 1, env), plugins.StateRolling)
	now := w.Do(t, http.MethodGet, of.Path(), nil)
	got, err := json.Marshal(kubetest.Field(now, "spec", "template", "spec", "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"name":"warifu-token","projected":{"defaultMode":420,"sources":[{"serviceAccountToken":` +
		`{"audience":"https://id.example.com","expirationSeconds":3600,"path":"token"}}]}}]`
	if string(got) != want {
		t.Errorf("%s", got)
	}
	w.RollOut(t, of)
	mustObserve(t, r, at, plugins.StateReady)
	// Somebody asks for another audience.
	volumes := kubetest.Field(now, "spec", "template", "spec", "volumes").([]any)
	source := kubetest.Field(volumes[0].(map[string]any), "projected", "sources").([]any)[0].(map[string]any)
	source["serviceAccountToken"].(map[string]any)["audience"] = "x"
	delete(now["metadata"].(map[string]any), "resourceVersion")
	w.Do(t, http.MethodPut, of.Path()+"?fieldManager=kubectl-edit", now)
	if st := mustObserve(t, r, at, plugins.StateFailed); !strings.Contains(st.Diagnostic.Message, "lacks the token for "+
		variableAssertion) {
		t.Errorf("%+v", st.Diagnostic)
	}
	w.Do(t, http.MethodPut, of.Path()+"?fieldManager=kubectl-edit", of.Object())
	mustPush(t, r, push(at, 1, env), plugins.StateRolling)
	// With a secret again, the token goes.
	mustPush(t, r, push(at, 2, secretEnv("one")), plugins.StateRolling)
	if v := kubetest.Field(w.Do(t, http.MethodGet, of.Path(), nil), "spec", "template", "spec", "volumes"); v != nil {
		t.Errorf("%v", v)
	}
	for file, remedy := range map[string]string{"token": "absolute", "/token": "absolute", "/a/../b/token": "absolute"} {
		env[variableAssertion] = file
		st := mustPush(t, r, push(at, 3, env), plugins.StateFailed)
		if st.Diagnostic.Retryable || !strings.Contains(st.Diagnostic.Remedy, remedy) {
			t.Errorf("%s: %+v", file, st.Diagnostic)
		}
	}
}

func TestStrangersSecretIsLeftAlone(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	w.Deploy(t, w.workload("Deployment", "web", at))
	w.Do(t, http.MethodPatch, w.secretPath(at)+"?fieldManager=owner", map[string]any{"apiVersion": "v1", "kind": "Secret",
		"metadata":   map[string]any{"name": secretName(plugins.AppTarget{App: appName, Target: at})},
		"stringData": map[string]any{"theirs": "yes"}})
	r := w.runtime(t, "")
	if st := mustPush(t, r, push(at, 1, secretEnv("ours")), plugins.StateFailed); !strings.Contains(st.Diagnostic.Message,
		"is not warifu's") {
		t.Errorf("%+v", st.Diagnostic)
	}
	if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: appName, Target: at, Generation: 1,
		Fence: 1}); err != nil {
		t.Fatal(err)
	}
	if data := kubetest.Field(w.Do(t, http.MethodGet, w.secretPath(at), nil), "data").(map[string]any); len(data) != 1 ||
		data["theirs"] == nil {
		t.Error("the Secret was changed")
	}
}

func TestNewestOfRacingServersIsWhatIsLeft(t *testing.T) {
	t.Parallel()
	w, at := newWorld(t), target("web")
	var all []kubetest.Workload
	for _, name := range []string{"a", "b"} {
		of := w.workload("Deployment", name, at)
		w.Deploy(t, of)
		all = append(all, of)
	}
	w.control(t) // whose words in the status change the versions as well
	const newest = 12
	var racers sync.WaitGroup
	for _, i := range rand.Perm(newest) {
		r := w.runtime(t, "") // each is another server: nothing in memory is shared
		racers.Go(func() {
			env := secretEnv("value")
			if i%2 == 0 {
				env["MORE"] = "more"
			}
			_, err := r.PushEnv(t.Context(), push(at, int64(i+1), env))
			for i+1 == newest && errors.Is(err, plugins.ErrUnavailable) { // as the server would
				_, err = r.PushEnv(t.Context(), push(at, int64(i+1), env))
			}
			if err != nil && !errors.Is(err, plugins.ErrStale) && !errors.Is(err, plugins.ErrUnavailable) {
				t.Errorf("generation %d: %v", i+1, err)
			}
		})
	}
	racers.Wait()
	r := w.runtime(t, "")
	w.until(t, "the newest serves", func() bool {
		st, err := r.ObserveEnv(t.Context(), appName, at)
		if err != nil || st.State == plugins.StateFailed || st.AcceptedGeneration != newest {
			t.Fatalf("%+v %+v %v", st, st.Diagnostic, err)
		}
		return st.State == plugins.StateReady && st.ServingGeneration == newest
	})
	for _, of := range all {
		if has := w.serving(t, of, "main"); len(has) != 3 {
			t.Errorf("%s has %v", of.Name, slices.Sorted(maps.Keys(has)))
		}
	}
}

// Nobody who may not read the Secret finds a value, or what one could be guessed from.
func TestValuesAreInTheSecretAlone(t *testing.T) {
	t.Parallel()
	const mark = "markmarkmark"
	w, at := newWorld(t), target("web")
	of := w.workload("Deployment", "web", at)
	w.Deploy(t, of)
	r := w.runtime(t, "")
	mustPush(t, r, push(at, 1, secretEnv(mark)), plugins.StateRolling)
	env := secretEnv(strings.Repeat(mark, 40<<10))
	for _, name := range []string{"A", "B", "C"} {
		env[name] = env["OAUTH_CLIENT_SECRET"]
	}
	env["OAUTH_CLIENT_SECRET"] = mark
	for name := range env {
		env[name] = env[name][:min(len(env[name]), 120<<10)]
	}
	for i := range 8 {
		env["MANY"+string(rune('A'+i))] = env["A"]
	}
	st := mustPush(t, r, push(at, 2, env), plugins.StateFailed) // more than a Secret can hold
	if st.Diagnostic.Retryable || strings.Contains(st.Diagnostic.Message, mark) {
		t.Errorf("retryable %t, %d bytes", st.Diagnostic.Retryable, len(st.Diagnostic.Message))
	}
	for _, path := range []string{of.Path(), "/api/v1/namespaces/" + w.namespace +
		"/events", "/apis/events.k8s.io/v1/namespaces/" + w.namespace + "/events",
		"/apis/apps/v1/namespaces/" + w.namespace + "/controllerrevisions"} {
		text, err := json.Marshal(w.Do(t, http.MethodGet, path, nil))
		if err != nil || strings.Contains(string(text), mark) {
			t.Errorf("%s holds a value (%v)", path, err)
		}
	}
	secret := w.Do(t, http.MethodGet, w.secretPath(at), nil)
	text, err := json.Marshal(secret["metadata"])
	if err != nil || strings.Contains(string(text), mark) {
		t.Errorf("the Secret's metadata hold a value (%v)", err)
	}
	seal, _ := kubetest.Field(secret, "metadata", "annotations", ownSeal).(string)
	salt, _ := kubetest.Field(secret, "metadata", "annotations", ownSalt).(string)
	workload, err := json.Marshal(w.Do(t, http.MethodGet, of.Path(), nil))
	if err != nil || salt == "" || strings.Contains(string(workload), salt) || strings.Contains(string(workload), seal) {
		t.Errorf("the workload holds what the Secret alone should (%v)", err)
	}
}
