package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/warifu/warifu/plugins"
)

// What people write on workloads.
const (
	labelApp             = "dev.takos.app"
	labelTarget          = "dev.takos." // and the kind of the target
	annotationContainers = "dev.takos.containers"
)

// annotationStamp, and the kind of the target, is the annotation of ours in pod templates.
const annotationStamp = "dev.takos.warifu."

// The token of a pod's service account, for an app that needs no secret.
const (
	variableAssertion = "OAUTH_CLIENT_ASSERTION_FILE"
	variableIssuer    = "OAUTH_ISSUER"
	volumeToken       = "warifu-token"
	tokenSeconds      = 3600
)

// workload is a Deployment, StatefulSet or DaemonSet.
type workload struct {
	*resource
	object unstructured.Unstructured
}

func (w workload) String() string { return w.kind + "/" + w.object.GetName() }

// findable reports a target whose workloads nobody could name.
func (r *runtime) findable(at plugins.AppTarget) error {
	if _, is := r.settings.assigned(at.App, at.Target); is {
		return nil
	}
	_, err := selector(at)
	return err
}

// selector gives the labels of a target's workloads.
func selector(at plugins.AppTarget) (string, error) {
	for what, text := range map[string]string{"app": at.App, "target": at.Target.Name} {
		if faults := validation.IsValidLabelValue(text); len(faults) > 0 {
			return "", fmt.Errorf("%w: the name of the %s, %.70q, cannot be a label of Kubernetes: rename it, or assign its "+
				"workload in the config", plugins.ErrInvalid, what, text)
		}
	}
	return fmt.Sprintf("%s=%s,%s%s=%s", labelApp, at.App, labelTarget, at.Target.Kind, at.Target.Name), nil
}

// workloads finds those of a target.
func (r *runtime) workloads(ctx context.Context, at plugins.AppTarget) ([]workload, error) {
	if assigned, is := r.settings.assigned(at.App, at.Target); is {
		kind, name, _ := strings.Cut(assigned, "/")
		object, err := r.cluster.get(ctx, kindOf(kind), name)
		if err != nil || object == nil {
			return nil, err
		}
		return []workload{{kindOf(kind), *object}}, nil
	}
	labels, err := selector(at)
	if err != nil {
		return nil, err
	}
	return r.list(ctx, labels)
}

// serves reports whether a workload is one of those.
func (r *runtime) serves(w workload, at plugins.AppTarget) bool {
	if assigned, is := r.settings.assigned(at.App, at.Target); is {
		return w.String() == assigned
	}
	labels := w.object.GetLabels()
	return labels[labelApp] == at.App && labels[labelTarget+at.Target.Kind] == at.Target.Name
}

func (r *runtime) list(ctx context.Context, labels string) ([]workload, error) {
	var out []workload
	for _, kind := range workloadKinds {
		objects, err := r.cluster.list(ctx, kind, labels)
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			if object.GetDeletionTimestamp() == nil {
				out = append(out, workload{kind, object})
			}
		}
	}
	return out, nil
}

// container is one of a pod template.
type container struct {
	Name string `json:"name"`
	Env  []struct {
		Name      string `json:"name"`
		ValueFrom struct {
			SecretKeyRef struct{ Name, Key string } `json:"secretKeyRef"`
		} `json:"valueFrom"`
	} `json:"env"`
	VolumeMounts []struct{ Name, MountPath string } `json:"volumeMounts"`
}

// template is what is looked at of a pod template.
type template struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Containers []container `json:"containers"`
		Volumes    []struct {
			Name      string `json:"name"`
			Projected struct {
				Sources []struct {
					ServiceAccountToken struct{ Audience, Path string } `json:"serviceAccountToken"`
				} `json:"sources"`
			} `json:"projected"`
		} `json:"volumes"`
	} `json:"spec"`
}

func (w workload) template() (template, error) {
	var out template
	at, _, err := unstructured.NestedMap(w.object.Object, "spec", "template")
	if err == nil {
		err = remarshal(at, &out)
	}
	if err != nil {
		return out, fmt.Errorf("%w: read the pod template of %s: %w", plugins.ErrUnavailable, w, err)
	}
	return out, nil
}

func remarshal(from, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

// chosen are the names of the containers that get the variables, and of those that the annotation names in vain.
func (w workload) chosen(t template) (names, missing []string) {
	for _, c := range t.Spec.Containers {
		names = append(names, c.Name)
	}
	wanted := w.object.GetAnnotations()[annotationContainers]
	if wanted == "" {
		return names, nil
	}
	var some []string
	for name := range strings.SplitSeq(wanted, ",") {
		if name = strings.TrimSpace(name); slices.Contains(names, name) {
			some = append(some, name)
		} else {
			missing = append(missing, name)
		}
	}
	return some, missing
}

// wish is what a workload is to have of a record.
func (w workload) wish(r *record) (map[string]any, error) {
	t, err := w.template()
	if err != nil {
		return nil, err
	}
	names, _ := w.chosen(t)
	assertion := r.data[variableAssertion]
	containers := []any{}
	for _, name := range names {
		c := map[string]any{"name": name}
		env := []any{}
		for _, variable := range r.names {
			env = append(env, map[string]any{"name": variable, "valueFrom": map[string]any{
				"secretKeyRef": map[string]any{"name": r.name(), "key": variable}}})
		}
		if len(env) > 0 {
			c["env"] = env
		}
		if assertion != "" {
			c["volumeMounts"] = []any{map[string]any{"name": volumeToken, "mountPath": path.Dir(assertion), "readOnly": true}}
		}
		containers = append(containers, c)
	}
	pod := map[string]any{}
	if len(containers) > 0 {
		pod["containers"] = containers
	}
	if assertion != "" {
		pod["volumes"] = []any{map[string]any{"name": volumeToken, "projected": map[string]any{"sources": []any{
			map[string]any{"serviceAccountToken": map[string]any{"audience": r.data[variableIssuer],
				"expirationSeconds": int64(tokenSeconds), "path": path.Base(assertion)}}}}}}
	}
	out := w.bare()
	out["spec"] = map[string]any{"template": map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{r.stampKey(): r.stamp()}},
		"spec":     pod,
	}}
	return out, nil
}

// bare is the wish for nothing: applied, it takes away what is ours. It is for the version that was read, and makes no
// workload anew that has gone meanwhile.
func (w workload) bare() map[string]any {
	return w.resource.object(map[string]any{"name": w.object.GetName(), "uid": string(w.object.GetUID()),
		"resourceVersion": w.object.GetResourceVersion()})
}

// lacks says in words what a workload has not got of a record; empty if it has everything. The pod template's stamp
// says which values its pods are started with.
func (w workload) lacks(r *record) (problem string, stamp string, err error) {
	t, err := w.template()
	if err != nil {
		return "", "", err
	}
	stamp = t.Metadata.Annotations[r.stampKey()]
	names, missing := w.chosen(t)
	if len(missing) > 0 {
		return fmt.Sprintf("its annotation %s names %s, which it does not have", annotationContainers,
			strings.Join(missing, ", ")), stamp, nil
	}
	for _, c := range t.Spec.Containers {
		refers := map[string]bool{}
		for _, e := range c.Env {
			if ref := e.ValueFrom.SecretKeyRef; ref.Name == r.name() && ref.Key == e.Name {
				refers[e.Name] = true
			}
		}
		if !slices.Contains(names, c.Name) {
			if len(refers) > 0 {
				return "its container " + c.Name + " has variables that it should not have", stamp, nil
			}
			continue
		}
		for _, variable := range r.names {
			if !refers[variable] {
				return "its container " + c.Name + " lacks " + variable, stamp, nil
			}
		}
		if assertion := r.data[variableAssertion]; assertion != "" && !t.mounts(c, assertion, r.data[variableIssuer]) {
			return "its container " + c.Name + " lacks the token for " + variableAssertion, stamp, nil
		}
	}
	if stamp != r.stamp() {
		return "its pod template is not of this generation", stamp, nil
	}
	return "", stamp, nil
}

// mounts reports whether a container has the token for an audience in a file.
func (t template) mounts(c container, file, audience string) bool {
	for _, m := range c.VolumeMounts {
		if m.Name != volumeToken || m.MountPath != path.Dir(file) {
			continue
		}
		for _, v := range t.Spec.Volumes {
			if v.Name == volumeToken {
				sources := v.Projected.Sources
				if len(sources) != 1 {
					return false
				}
				token := sources[0].ServiceAccountToken
				return token.Audience == audience && token.Path == path.Base(file)
			}
		}
	}
	return false
}

// has reports whether a workload has anything of a field manager's.
func (w workload) has(manager string) bool {
	return slices.ContainsFunc(w.object.GetManagedFields(), func(entry metav1.ManagedFieldsEntry) bool {
		return entry.Manager == manager
	})
}

// contested says which variable of ours a container has from somebody else, and who that is; empty if none.
//
// The server would merge both into a variable with a value and a reference, and then refuse that without naming
// anybody. And a variable that somebody has brought back from an older template, for which the Secret has no value any
// more, is not ours to take away, while no pod could start with it.
func (w workload) contested(r *record) (string, error) {
	t, err := w.template()
	if err != nil {
		return "", err
	}
	names, _ := w.chosen(t)
	for _, c := range t.Spec.Containers {
		if !slices.Contains(names, c.Name) {
			continue
		}
		for _, e := range c.Env {
			ref, wanted := e.ValueFrom.SecretKeyRef, slices.Contains(r.names, e.Name)
			owner := w.owner(r.name(), "f:containers", key("name", c.Name), "f:env", key("name", e.Name))
			switch {
			case wanted && ref.Name != r.name():
				return fmt.Sprintf("container %s of %s has the variable %s already, from %s", c.Name, w, e.Name,
					orElse(owner, "somebody who is not known")), nil
			case !wanted && ref.Name == r.name() && ref.Key == e.Name && owner != "":
				return fmt.Sprintf("container %s of %s has the variable %s, which Secret/%s does not have, from %s "+
					"(kubectl set env %s -c %s %s- takes it away)", c.Name, w, e.Name, r.name(), owner, w, c.Name, e.Name), nil
			}
		}
	}
	return "", nil
}

func key(field, value string) string {
	text, _ := json.Marshal(map[string]string{field: value}) // strings always can
	return "k:" + string(text)
}

// owner names the managers of a field below the pod's spec, other than ourselves; empty if there are none.
func (w workload) owner(but string, fields ...string) string {
	var owners []string
	for _, entry := range w.object.GetManagedFields() {
		var tree any
		if entry.Manager == but || entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &tree) != nil {
			continue
		}
		for _, field := range append([]string{"f:spec", "f:template", "f:spec"}, fields...) {
			inner, _ := tree.(map[string]any)
			tree = inner[field]
		}
		if tree != nil && !slices.Contains(owners, entry.Manager) {
			owners = append(owners, entry.Manager)
		}
	}
	return strings.Join(owners, ", ")
}
