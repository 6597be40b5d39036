package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var testTime = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// What the controllers of Kubernetes say, and what is made of it.
func TestProgressOfARollout(t *testing.T) {
	t.Parallel()
	const all = `"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2`
	for what, c := range map[string]struct {
		kind, spec, status string
		done, through      bool
		failed             string
	}{
		"all are new": {kind: "Deployment", spec: `"replicas": 2`, status: all, done: true, through: true},
		"scaled to none": {kind: "Deployment", spec: `"replicas": 0`, status: `"observedGeneration": 3`,
			done: true},
		"one pod by default": {kind: "Deployment",
			status: `"observedGeneration": 3, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1`,
			done:   true, through: true},
		"not seen yet":  {kind: "Deployment", spec: `"replicas": 2`, status: strings.Replace(all, "3", "2", 1)},
		"no status yet": {kind: "Deployment", spec: `"replicas": 0`},
		"an old pod is left": {kind: "Deployment", spec: `"replicas": 2`,
			status: `"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3`},
		"a new pod is not up": {kind: "Deployment", spec: `"replicas": 2`,
			status: `"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1`, through: true},
		"no new pod is up": {kind: "Deployment", spec: `"replicas": 2`,
			status: `"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2`},
		"scaled up": {kind: "Deployment", spec: `"replicas": 5`, status: all, through: true},
		"paused": {kind: "Deployment", spec: `"replicas": 2, "paused": true`,
			status: `"observedGeneration": 3, "replicas": 2, "availableReplicas": 2`, failed: "is paused"},
		"paused when all is done": {kind: "Deployment", spec: `"replicas": 2, "paused": true`, status: all,
			done: true, through: true},
		"deadline": {kind: "Deployment", spec: `"replicas": 2`,
			status: `"observedGeneration": 3, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]`, failed: "do not become available"},
		"deadline of the one before": {kind: "Deployment", spec: `"replicas": 2`,
			status: `"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]`},
		"quota": {kind: "Deployment", spec: `"replicas": 2`,
			status: `"observedGeneration": 3, "replicas": 2, "availableReplicas": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]`, failed: "exceeded quota"},
		"a set is through": {kind: "StatefulSet", spec: `"replicas": 2`, status: all +
			`, "currentRevision": "b", "updateRevision": "b"`, done: true, through: true},
		"a set still has revision": {kind: "StatefulSet", spec: `"replicas": 2`, status: all +
			`, "currentRevision": "a", "updateRevision": "b"`, through: true},
		"a set in parts": {kind: "StatefulSet",
			spec:   `"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}`,
			status: `"observedGeneration": 3, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2, "currentRevision": "a", "updateRevision": "b"`, failed: "partition of 1"},
		"a set that waits": {kind: "StatefulSet", spec: `"replicas": 2, "updateStrategy": {"type": "OnDelete"}`,
			status: `"observedGeneration": 3, "replicas": 2, "availableReplicas": 2, "currentRevision": "a", "updateRevision": "b"`, failed: "OnDelete"},
		"a set that has waited": {kind: "StatefulSet", spec: `"replicas": 2, "updateStrategy": {"type": "OnDelete"}`,
			status: all + `, "currentRevision": "a", "updateRevision": "b"`, done: true, through: true},
		"on all nodes": {kind: "DaemonSet",
			status: `"observedGeneration": 3, "desiredNumberScheduled": 4, "updatedNumberScheduled": 4, "numberAvailable": 4`,
			done:   true, through: true},
		"on some nodes": {kind: "DaemonSet",
			status: `"observedGeneration": 3, "desiredNumberScheduled": 4, "updatedNumberScheduled": 2, "numberAvailable": 4`},
		"on no nodes": {kind: "DaemonSet", status: `"observedGeneration": 3`, done: true},
	} {
		var object map[string]any
		if err := json.Unmarshal([]byte(`{"metadata": {"name": "web", "generation": 3}, "spec": {`+c.spec+`}, "status": {`+
			c.status+`}}`), &object); err != nil {
			t.Fatal(what, err)
		}
		p, err := workload{kindOf(c.kind), unstructured.Unstructured{Object: object}}.progress()
		if err != nil || p.done != c.done || p.through != c.through || (p.failed != nil) != (c.failed != "") {
			t.Errorf("%s: %+v %v", what, p, err)
		} else if p.failed != nil && !strings.Contains(p.failed.Message, c.failed) {
			t.Errorf("%s: %s", what, p.failed.Message)
		}
	}
}
