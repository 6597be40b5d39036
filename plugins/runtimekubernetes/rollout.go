package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/warifu/warifu/plugins"
)

// progress is what a controller says about the pods of a workload.
type progress struct {
	done    bool
	through bool // no pod of another template is left
	pods    int  // available ones of the template
	wanted  int
	failed  *plugins.Diagnostic // why it does not go on; nil while it does
}

// counts is what is read of the workloads' specs and statuses. The numbers of a DaemonSet have other names.
type counts struct {
	Metadata struct {
		Generation int64 `json:"generation"`
	} `json:"metadata"`
	Spec struct {
		Replicas       *int `json:"replicas"`
		Paused         bool `json:"paused"`
		UpdateStrategy struct {
			Type          string `json:"type"`
			RollingUpdate struct {
				Partition int `json:"partition"`
			} `json:"rollingUpdate"`
		} `json:"updateStrategy"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration     int64       `json:"observedGeneration"`
		Replicas               int         `json:"replicas"`
		UpdatedReplicas        int         `json:"updatedReplicas"`
		AvailableReplicas      int         `json:"availableReplicas"`
		CurrentRevision        string      `json:"currentRevision"`
		UpdateRevision         string      `json:"updateRevision"`
		DesiredNumberScheduled int         `json:"desiredNumberScheduled"`
		UpdatedNumberScheduled int         `json:"updatedNumberScheduled"`
		NumberAvailable        int         `json:"numberAvailable"`
		Conditions             []condition `json:"conditions"`
	} `json:"status"`
}

type condition struct {
	Type, Status, Reason, Message string
}

// progress reads a workload's status. Nothing that a controller said before it has seen the change counts.
func (w workload) progress() (progress, error) {
	var c counts
	if err := remarshal(w.object.Object, &c); err != nil {
		return progress{}, fmt.Errorf("%w: read the status of %s: %w", plugins.ErrUnavailable, w, err)
	}
	s := c.Status
	p := progress{wanted: 1}
	if c.Spec.Replicas != nil {
		p.wanted = *c.Spec.Replicas
	}
	existing, updated := s.Replicas, s.UpdatedReplicas
	p.pods = min(updated, s.AvailableReplicas)
	if w.kind == "DaemonSet" {
		p.wanted, existing, updated = s.DesiredNumberScheduled, s.DesiredNumberScheduled, s.UpdatedNumberScheduled
		p.pods = min(updated, s.NumberAvailable)
	}
	seen := s.ObservedGeneration >= c.Metadata.Generation && c.Metadata.Generation > 0
	p.through = seen && existing == updated && p.pods > 0
	p.done = seen && updated == p.wanted && existing == p.wanted && p.pods == p.wanted
	if w.kind == "StatefulSet" && s.UpdateRevision != s.CurrentRevision && c.Spec.UpdateStrategy.Type != "OnDelete" {
		p.done = false
	}
	if !p.done {
		p.failed = w.stuck(c, seen)
	}
	return p, nil
}

// stuck says why a rollout will not go on without somebody; nil if it may.
func (w workload) stuck(c counts, seen bool) *plugins.Diagnostic {
	says := func(problem, remedy string) *plugins.Diagnostic {
		return &plugins.Diagnostic{Message: w.String() + " " + problem, Remedy: remedy, Retryable: true}
	}
	strategy := c.Spec.UpdateStrategy
	switch {
	case c.Spec.Paused:
		return says("is paused, so its pods are not replaced", "kubectl rollout resume "+strings.ToLower(w.String()))
	case strategy.Type == "OnDelete":
		return says("has the update strategy OnDelete, so its old pods stay", "delete its pods, one after the other")
	case w.kind == "StatefulSet" && strategy.RollingUpdate.Partition > 0:
		return says(fmt.Sprintf("has an update partition of %d, so some of its old pods stay",
			strategy.RollingUpdate.Partition),
			"set spec.updateStrategy.rollingUpdate.partition to 0")
	case !seen:
		return nil
	}
	for _, is := range c.Status.Conditions {
		switch {
		case is.Type == "ReplicaFailure" && is.Status == "True":
			return says("cannot make its pods ("+is.Reason+"): "+is.Message, "mend that; the rollout then goes on by itself")
		case is.Type == "Progressing" && is.Status == "False" && is.Reason == "ProgressDeadlineExceeded":
			return says("has new pods that do not become available ("+is.Reason+"); old ones go on serving",
				"see why with kubectl describe and kubectl logs of its pods; the rollout goes on by itself when they do")
		}
	}
	return nil
}

// overdue is the diagnostic of a rollout that takes too long: only Deployments have controllers that say so.
func (w workload) overdue(p progress, limit time.Duration) *plugins.Diagnostic {
	return &plugins.Diagnostic{
		Message:   fmt.Sprintf("%s has %d of %d pods of the new generation available after %s", w, p.pods, p.wanted, limit),
		Remedy:    "see why with kubectl rollout status " + strings.ToLower(w.String()),
		Retryable: true,
	}
}
