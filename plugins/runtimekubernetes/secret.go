package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/warifu/warifu/plugins"
)

const (
	labelManaged = "app.kubernetes.io/managed-by"
	managed      = "warifu"
)

// Annotations of the Secret.
const (
	ownApp        = "dev.takos.warifu.app"
	ownKind       = "dev.takos.warifu.kind"
	ownName       = "dev.takos.warifu.name"
	ownGeneration = "dev.takos.warifu.generation"
	ownFence      = "dev.takos.warifu.fence"
	ownDigest     = "dev.takos.warifu.digest"
	ownNames      = "dev.takos.warifu.names"
	ownSalt       = "dev.takos.warifu.salt"
	ownSeal       = "dev.takos.warifu.seal"
	ownBefore     = "dev.takos.warifu.before"
	ownPushed     = "dev.takos.warifu.pushed"
)

// record is a target's Secret: its variables, and what is remembered of them.
type record struct {
	at         plugins.AppTarget
	generation int64 // 0: nothing was pushed yet
	fence      int64
	digest     string
	names      []string // of our variables, sorted
	salt       string   // another one for each time that values are written
	seal       string
	before     int64 // the generation that every pod served when this one was pushed
	pushed     time.Time
	data       map[string]string

	object *unstructured.Unstructured // as it was read; nil: to be made
}

// readRecord reads the Secret that has the name of a target's; nil if there is none. Whatever was done to it, it is
// ours as long as it says so in one of two places; a stranger's is an error.
func readRecord(object *unstructured.Unstructured, at plugins.AppTarget) (*record, error) {
	if object == nil {
		return nil, nil
	}
	notes := object.GetAnnotations()
	if object.GetLabels()[labelManaged] != managed && notes[ownSeal] == "" {
		return nil, fmt.Errorf("the Secret %s is not warifu's: it has no label %s=%s", object.GetName(),
			labelManaged, managed)
	}
	if owner := ownerOf(notes); owner.App != "" && owner.Target.Check() == nil && owner != at {
		return nil, fmt.Errorf("the Secret %s is of %s %s", object.GetName(), owner.App, owner.Target)
	}
	r := &record{
		at: at, digest: notes[ownDigest], names: strings.Fields(notes[ownNames]), salt: notes[ownSalt], seal: notes[ownSeal],
		data: map[string]string{}, object: object,
	}
	// What is no number was spoilt by somebody, and is no generation of ours: a zero.
	r.generation, _ = strconv.ParseInt(notes[ownGeneration], 10, 64)
	r.fence, _ = strconv.ParseInt(notes[ownFence], 10, 64)
	r.before, _ = strconv.ParseInt(notes[ownBefore], 10, 64)
	r.pushed, _ = time.Parse(time.RFC3339, notes[ownPushed])
	data, _, _ := unstructured.NestedStringMap(object.Object, "data") // the server holds Secrets to their schema
	for name, encoded := range data {
		value, _ := base64.StdEncoding.DecodeString(encoded)
		r.data[name] = string(value)
	}
	return r, nil
}

// targetOf gives the target of a Secret that is listed, and false for what is not a Secret of ours with variables.
func targetOf(object *unstructured.Unstructured) (plugins.AppTarget, bool) {
	at := ownerOf(object.GetAnnotations())
	if at.Target.Check() != nil || object.GetName() != secretName(at) {
		return at, false
	}
	r, err := readRecord(object, at)
	return at, err == nil && r.generation > 0
}

func ownerOf(notes map[string]string) plugins.AppTarget {
	return plugins.AppTarget{App: notes[ownApp], Target: plugins.Target{Kind: notes[ownKind], Name: notes[ownName]}}
}

// newRecord is what a push makes of what was there.
func newRecord(was *record, req plugins.PushRequest, before int64, now time.Time) *record {
	r := &record{
		at: plugins.AppTarget{App: req.App, Target: req.Target}, generation: req.Generation, fence: req.Fence,
		digest: req.Digest,
		names:  slices.Sorted(maps.Keys(req.Env)), salt: rand.Text(), before: before, pushed: now, data: req.Env,
	}
	r.seal = r.fingerprint()
	if was != nil {
		r.object = was.object
	}
	return r
}

// refenced is the same for another server: nothing that a pod could notice.
func (r *record) refenced(fence int64) *record {
	out := *r
	out.fence = fence
	return &out
}

// fingerprint is of generation and values. The fence is not in it.
func (r *record) fingerprint() string {
	ours := make(map[string]string, len(r.names))
	for _, name := range r.names {
		if value, there := r.data[name]; there {
			ours[name] = value
		}
	}
	mac := hmac.New(sha256.New, []byte(r.salt))
	values := plugins.Digest([]byte(r.salt), ours)
	_, _ = fmt.Fprintf(mac, "%d\n%s\n%d\n%s", r.generation, r.digest, len(ours), values) // a hash takes everything
	return hex.EncodeToString(mac.Sum(nil))[:32]
}

// intact reports whether the values are those that were pushed. More than those may be there: nothing refers to it.
func (r *record) intact() bool {
	return r.generation > 0 && r.salt != "" && hmac.Equal([]byte(r.seal), []byte(r.fingerprint()))
}

// stamp is what the pod template says about the values that its pods were started with.
func (r *record) stamp() string { return fmt.Sprintf("%d.%.16s", r.generation, r.seal) }

// stampKey is the annotation of pod templates that has the stamp, and stampField the way to it.
func (r *record) stampKey() string { return annotationStamp + r.at.Target.Kind }

func (r *record) stampField() string { return ".spec.template.metadata.annotations." + r.stampKey() }

// stamped gives the generation of a stamp, 0 for what is none.
func stamped(stamp string) int64 {
	text, _, _ := strings.Cut(stamp, ".")
	generation, _ := strconv.ParseInt(text, 10, 64)
	return generation
}

func (r *record) held() plugins.Held {
	if r == nil {
		return plugins.Held{}
	}
	return plugins.Held{Generation: r.generation, Fence: r.fence, Digest: r.digest}
}

func (r *record) name() string { return secretName(r.at) }

// metadata names the Secret and says whose it is.
func (r *record) metadata() map[string]any {
	return map[string]any{
		"name":        r.name(),
		"labels":      map[string]any{labelManaged: managed},
		"annotations": map[string]any{ownApp: r.at.App, ownKind: r.at.Target.Kind, ownName: r.at.Target.Name},
	}
}

// apply is the whole Secret. It is refused when the Secret is not the one any more that was read.
func (r *record) apply() map[string]any {
	metadata := r.metadata()
	metadata["resourceVersion"], metadata["uid"] = r.object.GetResourceVersion(), string(r.object.GetUID())
	notes := metadata["annotations"].(map[string]any)
	notes[ownGeneration], notes[ownFence] = strconv.FormatInt(r.generation, 10), strconv.FormatInt(r.fence, 10)
	notes[ownDigest], notes[ownNames] = r.digest, strings.Join(r.names, " ")
	notes[ownSalt], notes[ownSeal] = r.salt, r.seal
	notes[ownBefore], notes[ownPushed] = strconv.FormatInt(r.before, 10), r.pushed.UTC().Format(time.RFC3339)
	data := map[string]any{}
	for _, name := range r.names {
		data[name] = base64.StdEncoding.EncodeToString([]byte(r.data[name]))
	}
	out := secrets.object(metadata)
	out["type"], out["data"] = "Opaque", data
	return out
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

const namePrefix = "warifu-"

// secretName is a name that every object and field manager can have, and that no other target has.
func secretName(at plugins.AppTarget) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %s", at.App, at.Target))
	words := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(at.App+"-"+at.Target.Name), "-"), "-")
	if len(words) > 39 {
		words = strings.Trim(words[:39], "-")
	}
	if words != "" {
		words += "-"
	}
	return namePrefix + words + hex.EncodeToString(sum[:8])
}

// hide takes values out of what a cluster said, in the forms that they have there. Very short ones are no secrets, and
// without them no message would be readable.
func hide(text string, env map[string]string) string {
	var forms []string
	for _, value := range env {
		if len(value) >= 4 {
			quoted := strconv.Quote(value)
			forms = append(forms, value, quoted[1:len(quoted)-1], base64.StdEncoding.EncodeToString([]byte(value)))
		}
	}
	// One that is a part of another must not leave the rest of it.
	slices.SortFunc(forms, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, form := range forms {
		text = strings.ReplaceAll(text, form, "[hidden]")
	}
	return text
}

// hidden is an error without the values.
type hidden struct {
	error
	text string
}

func (h hidden) Error() string { return h.text }

func (h hidden) Unwrap() error { return h.error }
