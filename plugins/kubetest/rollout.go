package kubetest

import (
	"net/http"
	"testing"
)

// Workload is a Deployment, StatefulSet or DaemonSet of one container, as somebody writes it who knows nothing of
// warifu but the labels.
type Workload struct {
	Kind      string // Deployment if empty
	Namespace string
	Name      string
	Labels    map[string]string
	Replicas  int
}

// Path is its address at the server, or that of its kind if it has no name.
func (w Workload) Path() string {
	plural := map[string]string{"": "deployments", "Deployment": "deployments", "StatefulSet": "statefulsets",
		"DaemonSet": "daemonsets"}[w.Kind]
	path := "/apis/apps/v1/namespaces/" + w.Namespace + "/" + plural
	if w.Name != "" {
		path += "/" + w.Name
	}
	return path
}

// Object is what its owner applies.
func (w Workload) Object() map[string]any {
	if w.Kind == "" {
		w.Kind = "Deployment"
	}
	own := map[string]any{"app": w.Name}
	spec := map[string]any{
		"selector": map[string]any{"matchLabels": own},
		"template": map[string]any{
			"metadata": map[string]any{"labels": own},
			"spec":     map[string]any{"containers": []any{map[string]any{"name": "main", "image": "registry.example/app:1"}}},
		},
	}
	if w.Kind != "DaemonSet" {
		spec["replicas"] = w.Replicas
	}
	if w.Kind == "StatefulSet" {
		spec["serviceName"] = w.Name
	}
	out := object("apps/v1", w.Kind, w.Name, map[string]any{"spec": spec})
	out["metadata"].(map[string]any)["labels"] = w.Labels
	return out
}

// Deploy makes a workload, by server-side apply of a manager named owner.
func (c *Cluster) Deploy(tb testing.TB, w Workload) {
	tb.Helper()
	c.Do(tb, http.MethodPatch, w.Path()+"?fieldManager=owner", w.Object())
}

// RollOut says of a workload, in place of its controller, that all its pods are of the template that it has now.
func (c *Cluster) RollOut(tb testing.TB, w Workload) {
	tb.Helper()
	now := c.Do(tb, http.MethodGet, w.Path(), nil)
	c.Do(tb, http.MethodPatch, w.Path()+"/status", map[string]any{"status": Done(now)})
}

// Status sets fields of a workload's status.
func (c *Cluster) Status(tb testing.TB, w Workload, fields map[string]any) {
	tb.Helper()
	c.Do(tb, http.MethodPatch, w.Path()+"/status", map[string]any{"status": fields})
}

// Done is the status of a workload whose pods are all of its template and available.
func Done(workload map[string]any) map[string]any {
	generation := Field(workload, "metadata", "generation")
	if workload["kind"] == "DaemonSet" {
		return map[string]any{"observedGeneration": generation, "desiredNumberScheduled": 1, "currentNumberScheduled": 1,
			"updatedNumberScheduled": 1, "numberReady": 1, "numberAvailable": 1, "numberMisscheduled": 0}
	}
	n := Field(workload, "spec", "replicas")
	out := map[string]any{"observedGeneration": generation, "replicas": n, "updatedReplicas": n, "readyReplicas": n,
		"availableReplicas": n}
	if workload["kind"] == "StatefulSet" {
		out["currentReplicas"], out["currentRevision"], out["updateRevision"] = n, "revision", "revision"
	}
	return out
}
