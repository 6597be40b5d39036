package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWhatIsExpected(t *testing.T) {
	const page, logo = "REVIEW ExpectLoginPage", "REVIEW ExpectLogo"
	for rule, c := range map[string]struct {
		got  outcome
		want expectation
		fits bool
	}{
		"passed":     {outcome{Result: "PASSED"}, expectation{}, true},
		"not passed": {outcome{Result: "WARNING", Conditions: []string{"WARNING A"}}, expectation{}, false},
		"as expected": {outcome{Result: "REVIEW", Conditions: []string{page, logo}},
			expectation{"REVIEW", []string{logo, page}, "why"}, true},
		"another condition": {outcome{Result: "REVIEW", Conditions: []string{page}},
			expectation{"REVIEW", []string{logo}, "why"}, false},
		"one more condition": {outcome{Result: "REVIEW", Conditions: []string{page, logo}},
			expectation{"REVIEW", []string{page}, "why"}, false},
		"one condition less": {outcome{Result: "REVIEW", Conditions: []string{page}},
			expectation{"REVIEW", []string{page, logo}, "why"}, false},
		"passes by now": {outcome{Result: "PASSED"}, expectation{"REVIEW", []string{page}, "why"}, false},
	} {
		if told := c.got.told(c.want); (told == "") != c.fits {
			t.Errorf("%s: %q", rule, told)
		}
	}
}

// Each expectation is of a plan that is run, names the conditions, and gives a reason.
func TestExpectationsHaveReasons(t *testing.T) {
	all, err := readExpected("expected.json")
	if err != nil {
		t.Fatal(err)
	}
	for plan, modules := range all {
		if _, err := os.Stat(filepath.Join("plans", plan+".json")); err != nil {
			t.Error(err)
		}
		for module, e := range modules {
			if e.Result == "" || e.Result == "PASSED" || len(e.Conditions) == 0 || e.Why == "" {
				t.Errorf("%s %s: %+v", plan, module, e)
			}
		}
	}
}
