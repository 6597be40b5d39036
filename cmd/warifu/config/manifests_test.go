package config

import (
	"strings"
	"testing"
	"time"
)

func TestPruning(t *testing.T) {
	dir := t.TempDir()
	const watching = "directories: [DIR], watch: true"
	for text, want := range map[string]struct {
		delay time.Duration
		fault string
	}{
		watching:                   {0, ""},
		watching + ", prune: true": {24 * time.Hour, ""},
		watching + ", prune: true, pruneAfter: 90m":   {90 * time.Minute, ""},
		watching + ", prune: true, pruneAfter: 1m":    {time.Minute, ""},
		watching + ", prune: true, pruneAfter: 59s":   {0, "manifests.pruneAfter must be 1m or more, but is 59s"},
		watching + ", prune: true, pruneAfter: 0s":    {0, "manifests.pruneAfter must be 1m or more, but is 0s"},
		watching + ", prune: true, pruneAfter: soon":  {0, "must be a time such as 90s"},
		watching + ", pruneAfter: 24h":                {0, "manifests.pruneAfter is of no use without manifests.prune: true"},
		watching + ", prune: false, pruneAfter: 24h":  {0, "manifests.pruneAfter is of no use without manifests.prune: true"},
		"directories: [DIR], prune: true":             {0, "manifests.prune needs manifests.watch"},
		"directories: [DIR], watch: true, prun: true": {0, `did you mean "prune"?`},
	} {
		settings, err := wired(t, "manifests: {"+strings.ReplaceAll(text, "DIR", dir)+"}\n")
		switch {
		case want.fault != "":
			if err == nil || !strings.Contains(err.Error(), want.fault) {
				t.Errorf("%s: %v", text, err)
			}
		case err != nil:
			t.Errorf("%s: %v", text, err)
		case settings.Manifests.PruneDelay() != want.delay:
			t.Errorf("%s: %s", text, settings.Manifests.PruneDelay())
		}
	}
}
