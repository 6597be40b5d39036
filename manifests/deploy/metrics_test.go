package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/server/metrics"
)

// promtool is the checker of Prometheus; stdin may be empty.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Fatal("promtool is missing: apt-get install --no-install-recommends prometheus")
	}
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// rule is an alert of warifu.rules.yml.
type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (all []rule) {
	t.Helper()
	content, err := os.ReadFile("prometheus/warifu.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 20 {
		t.Fatalf("%d alerts", len(all))
	}
	return all
}

// TestAlerts: each is raised when it should be and only then, says what to do, and how much of a hurry it is.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "", "check", "rules", "prometheus/warifu.rules.yml")
	promtool(t, "", "test", "rules", "prometheus/warifu.rules.test.yml")
	tests, err := os.ReadFile("prometheus/warifu.rules.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts(t) {
		if !slices.Contains([]string{"page", "ticket", "info"}, a.Labels["severity"]) {
			t.Errorf("%s is of severity %q", a.Alert, a.Labels["severity"])
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
			t.Errorf("%s does not say what it means and what to do", a.Alert)
		}
		for _, is := range []string{" is raised\n", " is not raised\n"} {
			if !strings.Contains(string(tests), "- name: "+a.Alert+is) {
				t.Errorf("nothing shows when %s%s", a.Alert, is)
			}
		}
	}
}

// dashboard is what of grafana/warifu.json matters here.
type dashboard struct {
	Panels []struct {
		ID          int
		Type, Title string
		GridPos     struct{ H, W, X, Y int }
		Targets     []struct{ Expr, LegendFormat string }
	}
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Annotations struct{ List []struct{ Expr string } }
}

// TestDashboardAndAlertsNameWhatThereIs: each metric and label that they name is in the table of package metrics, and
// each row of the table is to be seen in one of them.
func TestDashboardAndAlertsNameWhatThereIs(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("grafana/warifu.json")
	if err != nil {
		t.Fatal(err)
	}
	var board dashboard
	if err := json.Unmarshal(content, &board); err != nil {
		t.Fatal(err)
	}
	asked := make(map[string]string) // by where: the expression
	for _, a := range alerts(t) {
		asked["alert "+a.Alert] = a.Expr
	}
	taken, ids := make(map[[2]int]string), make(map[int]bool)
	var expressions strings.Builder
	expressions.WriteString("groups: [{name: dashboard, rules: [\n")
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d, %q, has an id of another, or no title", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" || at[0] >= 24 {
					t.Errorf("%q is where %q is", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%q shows nothing", p.Title)
		}
		for i, target := range p.Targets {
			asked[fmt.Sprintf("panel %s %d", p.Title, i)] = target.Expr + " by (" +
				strings.Join(legend(target.LegendFormat), ", ") + ")"
			expr := strings.NewReplacer("$__rate_interval", "5m").Replace(target.Expr)
			fmt.Fprintf(&expressions, "  {record: 'panel:%d:%d', expr: %q},\n", p.ID, i, expr)
		}
	}
	expressions.WriteString("]}]\n")
	for _, v := range board.Templating.List {
		asked["variable "+v.Name] = regexp.MustCompile(`, \w+\)$`).ReplaceAllString(v.Definition, "")
	}
	for _, a := range board.Annotations.List {
		asked["annotation"] = a.Expr
	}
	file := filepath.Join(t.TempDir(), "expressions.yml")
	if err := os.WriteFile(file, []byte(expressions.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", file)

	known, seen := make(map[string]metrics.Family), make(map[string]bool)
	for _, f := range metrics.Families() {
		if !f.Histogram {
			known[f.Name] = f
			continue
		}
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			known[f.Name+end] = f
		}
	}
	for _, where := range slices.Sorted(maps.Keys(asked)) {
		labels := map[string]bool{"job": true, "instance": true, "le": true}
		for _, name := range regexp.MustCompile(`\bwarifu_\w+`).FindAllString(asked[where], -1) {
			f, is := known[name]
			if !is {
				t.Errorf("%s asks for %s, which the table does not have", where, name)
			}
			seen[f.Name] = true
			for _, l := range f.Labels {
				labels[l] = true
			}
		}
		for _, name := range labelsOf(asked[where]) {
			if !labels[name] {
				t.Errorf("%s asks for the label %s, which those metrics do not have", where, name)
			}
		}
		for _, choice := range regexp.MustCompile(`(\w+)(?:=|!=|=~)"([^"$]*)"`).FindAllStringSubmatch(asked[where], -1) {
			for value := range strings.SplitSeq(choice[2], "|") {
				if !mayBe(known, asked[where], choice[1], value) {
					t.Errorf("%s asks for %s %q, which is never so", where, choice[1], value)
				}
			}
		}
	}
	for _, f := range metrics.Families() {
		if !seen[f.Name] {
			t.Errorf("%s is to be seen nowhere", f.Name)
		}
	}
}

func legend(format string) (labels []string) {
	for _, l := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(format, -1) {
		labels = append(labels, l[1])
	}
	return labels
}

// labelsOf are the labels that an expression names.
func labelsOf(expr string) (labels []string) {
	for _, by := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(by[1], ",") {
			if l = strings.TrimSpace(l); l != "" {
				labels = append(labels, l)
			}
		}
	}
	for _, l := range regexp.MustCompile(`(\w+)(?:=|!=|=~|!~)"`).FindAllStringSubmatch(expr, -1) {
		labels = append(labels, l[1])
	}
	return labels
}

// mayBe reports whether a label of a metric in expr can have a value, as far as the table knows.
func mayBe(known map[string]metrics.Family, expr, label, value string) bool {
	for _, name := range regexp.MustCompile(`\bwarifu_\w+`).FindAllString(expr, -1) {
		f := known[name]
		if i := slices.Index(f.Labels, label); i >= 0 && (f.Values[i] == nil || slices.Contains(f.Values[i], value)) {
			return true
		}
	}
	return label == "job"
}

// TestMetricsAreNamedAsPrometheusNamesThem: its own checker finds nothing in the page.
func TestMetricsAreNamedAsPrometheusNamesThem(t *testing.T) {
	t.Parallel()
	m := metrics.New(metrics.Options{Version: "test", Apps: true})
	m.Started(time.Now())
	m.Route("/oauth/token").Served(metrics.OK, time.Millisecond)
	m.Grant("board", "refresh_token", metrics.OK)
	m.Refused("client-unknown")
	m.PluginStarted("hook", "oauth")
	m.PluginCall("oauth", "Evaluate", time.Millisecond)
	m.Etcd("read").Answered(time.Now(), nil)
	m.KeyUse("seal")
	m.Differ(0)
	m.Source("all", func(tell metrics.Tell) {
		for _, f := range metrics.Families() {
			if !f.Histogram && !strings.HasSuffix(f.Name, "_total") {
				tell(f.Name, 1, f.Labels...)
			}
		}
	})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, f := range metrics.Families() {
		if !strings.Contains(w.Body.String(), "# TYPE "+f.Name+" ") {
			t.Errorf("the page does not have %s", f.Name)
		}
	}
	promtool(t, w.Body.String(), "check", "metrics")
}
