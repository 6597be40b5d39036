package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/plugins"
)

// checkTargets holds plugins.targets to the runtimes that there are, and its patterns to what they can fit.
func (r *reader) checkTargets(cfg Plugins) {
	var runtimes []string
	for _, p := range cfg.AllRuntimes() {
		runtimes = append(runtimes, p.Name)
	}
	kinds := []string{plugins.TargetWorker, plugins.TargetContainer, plugins.TargetService}
	for i, t := range cfg.Targets {
		at := fmt.Sprintf("plugins.targets[%d]", i)
		for _, f := range []struct{ key, pattern string }{{".kind", t.Kind}, {".app", t.App}, {".name", t.Name}} {
			if _, err := path.Match(f.pattern, ""); err != nil {
				r.fault(at+f.key, "pattern", "", "is not a pattern: %q has an open [ or ends with a backslash", f.pattern)
			} else if f.key == ".kind" && f.pattern != "" && !slices.ContainsFunc(kinds, func(kind string) bool {
				fits, _ := path.Match(f.pattern, kind)
				return fits
			}) {
				r.fault(at+f.key, "value", strictyaml.Nearest(f.pattern, kinds), "fits none of %s", strings.Join(kinds, ", "))
			}
		}
		if r.required(at+".runtime", t.Runtime, "the name of a runtime") && !slices.Contains(runtimes, t.Runtime) {
			r.fault(at+".runtime", "value", strictyaml.Nearest(t.Runtime, runtimes),
				"names no runtime: plugins.runtimes has %s", strings.Join(runtimes, ", "))
		}
	}
}
