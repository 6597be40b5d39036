package runtimecontainers

import (
	"maps"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/warifu/warifu/plugins"
)

// An engine tells the labels of an image as if they were the container's.
func inheriting(e *fakeEngine, name string, labels map[string]string) *container.InspectResponse {
	e.labels = labels
	return e.add(name, container.StateRunning, func(c *container.InspectResponse) {
		c.Config.Labels = map[string]string{}
		maps.Copy(c.Config.Labels, labels)
	})
}

// Whoever builds an image must not choose the app whose secret its containers get.
func TestAnImageWithOurLabelsGetsNoSecret(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]map[string]string{
		"all from the image":                     {},
		"the app from the container":             {labelApp: "app"},
		"the part of the app from the container": {labelContainer: "web"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t)
			r := configured(t, e)
			image := map[string]string{labelApp: "app", labelContainer: "web", labelGeneration: "7", labelFence: "1",
				labelSwarmTask: "x"}
			for key := range own {
				delete(image, key)
			}
			c := inheriting(e, "web", image)
			maps.Copy(c.Config.Labels, own)
			st := failed(t, r, push(1, credentials))
			if st.Diagnostic == nil || !strings.Contains(st.Diagnostic.Message, "container web has the labels "+
				"dev.takos.app=app and dev.takos.container=web from its image") {
				t.Errorf("%+v", st.Diagnostic)
			}
			if did := e.changed(); len(did) != 0 {
				t.Errorf("the engine was asked to %v", did)
			}
			if list, err := r.ListTargets(t.Context(), ""); err != nil || len(list) != 0 {
				t.Errorf("%v %v", list, err)
			}
		})
	}
}

// What the container was given counts, also where its image says something else.
func TestLabelsOfTheContainerCountBesideThoseOfTheImage(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.labels = map[string]string{labelApp: "other", labelService: "evil", labelProbe: "http://127.0.0.1:1/",
		labelReplace: replaceStopFirst}
	r := configured(t, e)
	e.add("web", container.StateRunning, func(c *container.InspectResponse) {
		c.Config.Labels[labelService], c.Config.Labels[labelProbe], c.Config.Labels[labelReplace] = "evil",
			"http://127.0.0.1:1/", replaceStopFirst
	})
	ready(t, r, push(1, credentials)) // it would never pass the probe of the image
	evil := push(1, credentials)
	evil.App, evil.Target = "app", plugins.Target{Kind: plugins.TargetService, Name: "evil"}
	if st := failed(t, r, evil); !strings.Contains(st.Diagnostic.Message, "from its image") {
		t.Errorf("%+v", st.Diagnostic)
	}
}

// An image that is gone cannot be asked which labels it had.
func TestTheLabelsOfAContainerWhoseImageIsGoneDoNotCount(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	r := configured(t, e)
	e.add("web", container.StateRunning, func(c *container.InspectResponse) { c.Image = goneImage })
	if st := failed(t, r, push(1, credentials)); !strings.Contains(st.Diagnostic.Message, "or its image is gone") {
		t.Errorf("%+v", st.Diagnostic)
	}
}
