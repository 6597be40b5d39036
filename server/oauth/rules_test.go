package oauth_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/oauth"
)

// ruleConstants are the values of the constants RuleXxx, by name.
func ruleConstants(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "rules.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.ValueSpec)
		if !is || !strings.HasPrefix(spec.Names[0].Name, "Rule") {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		out[spec.Names[0].Name] = value
		return true
	})
	return out
}

func TestEveryRuleIsInTheTableOnceWithItsWords(t *testing.T) {
	kebab := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := make(map[string]bool)
	for _, rule := range oauth.Rules() {
		switch {
		case !kebab.MatchString(rule.Name):
			t.Errorf("%s is not in kebab case", rule.Name)
		case seen[rule.Name]:
			t.Errorf("%s is in the table twice", rule.Name)
		case !strings.HasSuffix(rule.Meaning, ".") || !strings.HasSuffix(rule.Remedy, "."):
			t.Errorf("%s lacks words, or a full stop", rule.Name)
		}
		seen[rule.Name] = true
		if found, ok := oauth.FindRule(rule.Name); !ok || found != rule {
			t.Errorf("%s is not found by its name", rule.Name)
		}
	}
	constants := ruleConstants(t)
	if len(constants) < 50 {
		t.Fatalf("%d constants were found", len(constants))
	}
	for name, value := range constants {
		if !seen[value] {
			t.Errorf("%s = %q is not in the table", name, value)
		}
	}
	if _, ok := oauth.FindRule("no-such-rule"); ok {
		t.Error("a rule that does not exist was found")
	}
}

// A client that belongs to no app has no manifest, and is not sent to one. Nor is anybody who knows no more of a client
// than that it is unknown.
func TestRemediesForClientsWithoutAManifest(t *testing.T) {
	manifest := regexp.MustCompile(`app\.yml|spec\.oauth|manifest|app's environment|apply again`)
	for _, rule := range oauth.RequestRules() {
		if told := rule.RemedyFor(false); manifest.MatchString(told) || manifest.MatchString(rule.Meaning) &&
			told == rule.Remedy {
			t.Errorf("%s: %s %s", rule.Name, rule.Meaning, told)
		}
		if rule.RemedyFor(true) != rule.Remedy {
			t.Errorf("%s: an app is told something else", rule.Name)
		}
	}
	for name := range oauth.OwnRemedies() {
		if rule, known := oauth.FindRule(name); !known || rule.RemedyFor(false) == rule.Remedy {
			t.Errorf("%s: no rule, or no difference", name)
		}
	}
}
