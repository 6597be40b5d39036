package runtimecontainers

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/warifu/warifu/plugins"
)

// Labels that people set.
const (
	labelApp       = "dev.takos.app"
	labelContainer = "dev.takos.container"
	labelService   = "dev.takos.service"
	labelProbe     = "dev.takos.probe"
	labelReplace   = "dev.takos.replace"
)

// Labels of ours. They hold no value of a variable: labels show up in listings
// and metrics.
const (
	labelGeneration = "dev.takos.warifu.generation"
	labelFence      = "dev.takos.warifu.fence"
	labelDigest     = "dev.takos.warifu.digest"
	labelNames      = "dev.takos.warifu.names"
	labelSeal       = "dev.takos.warifu.seal"
	labelName       = "dev.takos.warifu.name"     // of the container before we touched it
	labelReplaces   = "dev.takos.warifu.replaces" // the id of the container before this one
)

const (
	replaceOverlap   = "overlap"
	replaceStopFirst = "stop-first"
)

// ownPrefix begins all labels that are read here, but for that of Swarm.
const ownPrefix = "dev.takos."

// mayMatter reports whether any label is read here.
func mayMatter(labels map[string]string) bool {
	for key := range labels {
		if read(key) {
			return true
		}
	}
	return false
}

func read(key string) bool { return strings.HasPrefix(key, ownPrefix) || key == labelSwarmTask }

// ownLabels are the labels of a container without those that are read here and that its image has with the same value.
// Engines mix the two, but whoever builds an image must not say which app's secrets its containers get, or where they
// are probed: that is for whoever runs them.
func ownLabels(has, inherited map[string]string) map[string]string {
	own := maps.Clone(has)
	maps.DeleteFunc(own, func(key, value string) bool {
		of, there := inherited[key]
		return there && of == value && read(key)
	})
	return own
}

// targetLabel gives the label that says which target a container belongs to.
// Workers are not containers.
func targetLabel(kind string) (string, bool) {
	switch kind {
	case plugins.TargetContainer:
		return labelContainer, true
	case plugins.TargetService:
		return labelService, true
	}
	return "", false
}

// targetsOf gives the targets that a container's labels name.
func targetsOf(labels map[string]string) []plugins.Target {
	var out []plugins.Target
	for _, kind := range []string{plugins.TargetContainer, plugins.TargetService} {
		label, _ := targetLabel(kind)
		if name := labels[label]; name != "" {
			out = append(out, plugins.Target{Kind: kind, Name: name})
		}
	}
	return out
}

// mark is what our labels say about a container.
type mark struct {
	generation int64
	fence      int64
	digest     string
	names      []string // sorted
	seal       string
}

// readMark gives nil for a container that has no variables of ours, as far as its
// labels tell.
func readMark(labels map[string]string) *mark {
	m := mark{digest: labels[labelDigest], names: strings.Fields(labels[labelNames]), seal: labels[labelSeal]}
	var err error
	if m.generation, err = strconv.ParseInt(labels[labelGeneration], 10, 64); err != nil || m.generation < 1 {
		return nil
	}
	if m.fence, err = strconv.ParseInt(labels[labelFence], 10, 64); err != nil || m.fence < 0 {
		return nil
	}
	return &m
}

// intact reports whether the variables are the ones that the mark came with.
func (m *mark) intact(key []byte, env []string) bool {
	if m == nil {
		return false
	}
	values := make(map[string]string, len(m.names))
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := values[name]; twice && slices.Contains(m.names, name) {
			return false
		}
		values[name] = value
	}
	ours := make(map[string]string, len(m.names))
	for _, name := range m.names {
		value, there := values[name]
		if !there {
			return false
		}
		ours[name] = value
	}
	return hmac.Equal([]byte(m.seal), []byte(sealEnv(key, *m, ours)))
}

// sealEnv is the keyed fingerprint of a mark and its variables.
func sealEnv(key []byte, m mark, env map[string]string) string {
	mac := hmac.New(sha256.New, key)
	// A hash takes everything
	_, _ = fmt.Fprintf(mac, "%d\n%d\n%s\n%s", m.generation, m.fence, m.digest, plugins.Digest(key, env))
	return hex.EncodeToString(mac.Sum(nil))
}

// wish is what a push asks for; nil stands for none of our variables.
type wish struct {
	generation int64
	fence      int64
	digest     string
	env        map[string]string
}

// label gives the next container's labels. replaced is the id of the one before,
// and base its name without our addition.
func (w *wish) label(key []byte, has map[string]string, replaced, base string) map[string]string {
	out := maps.Clone(has)
	if out == nil {
		out = map[string]string{}
	}
	for _, label := range []string{labelGeneration, labelFence, labelDigest, labelNames, labelSeal} {
		delete(out, label)
	}
	out[labelReplaces], out[labelName] = replaced, base
	if w == nil {
		return out
	}
	m := mark{generation: w.generation, fence: w.fence, digest: w.digest}
	out[labelGeneration] = strconv.FormatInt(m.generation, 10)
	out[labelFence] = strconv.FormatInt(m.fence, 10)
	out[labelDigest] = m.digest
	out[labelNames] = strings.Join(slices.Sorted(maps.Keys(w.env)), " ")
	out[labelSeal] = sealEnv(key, m, w.env)
	return out
}

// environ gives the next container's environment: what others put there, without
// the names that the mark says were ours, and then ours.
func (w *wish) environ(has []string, was *mark) []string {
	var ours map[string]string
	if w != nil {
		ours = w.env
	}
	out := make([]string, 0, len(has)+len(ours))
	for _, entry := range has {
		name, _, _ := strings.Cut(entry, "=")
		_, wanted := ours[name]
		if !wanted && (was == nil || !slices.Contains(was.names, name)) {
			out = append(out, entry)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		out = append(out, name+"="+ours[name])
	}
	return out
}

// hide takes the wish's values out of what an engine said. Very short ones are no
// secrets, and without them no message would be readable.
func (w *wish) hide(text string) string {
	if w == nil {
		return text
	}
	for _, value := range w.env {
		if len(value) >= 4 {
			text = strings.ReplaceAll(text, value, "[hidden]")
		}
	}
	return text
}
