package conformance

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestExampleIsTheManual: what is commented out must be right as well, and no key may be missing.
func TestExampleIsTheManual(t *testing.T) {
	text, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ReadConfig("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.complete(); err != nil {
		t.Error(err)
	}
	all := regexp.MustCompile(`(?m)^( *)#([a-zA-Z0-9]+:)`).ReplaceAll(text, []byte("$1$2"))
	decoder := yaml.NewDecoder(bytes.NewReader(all))
	decoder.KnownFields(true)
	var full Config
	if err := decoder.Decode(&full); err != nil {
		t.Fatalf("with everything that is commented out: %v", err)
	}
	for field := range reflect.TypeFor[Config]().Fields() {
		if name := field.Tag.Get("yaml"); !strings.Contains(string(all), "\n"+name+":") {
			t.Errorf("example.yaml has no %s", name)
		}
	}
}

func TestFaultyConfigurationIsRefused(t *testing.T) {
	good := Client{ID: "c", RedirectURI: "https://rp.example.com/cb"}
	complete := func(change func(*Config)) error {
		cfg := Config{Issuer: "https://op.example.com", Pages: []Step{{When: "password"}}}
		cfg.Clients.Client, cfg.Clients.Client2, cfg.Clients.SecretPost = good, good, good
		change(&cfg)
		return cfg.complete()
	}
	if err := complete(func(*Config) {}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"issuer":              func(c *Config) { c.Issuer = "op" },
		"clients.client2":     func(c *Config) { c.Clients.Client2.ID = "" },
		"pages is empty":      func(c *Config) { c.Pages = nil },
		"expected[0]":         func(c *Config) { c.Expected = []Expectation{{Module: "oidcc-server"}} },
		"no plan begins with": func(c *Config) { c.Plans = []string{"oidcc-hybrid"} },
		"is a module of no plan": func(c *Config) {
			c.Expected = []Expectation{{Module: "oidcc-serve", Result: Failed,
				Why: "it is so"}}
		},
	} {
		if err := complete(change); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExpectationsFitPlans: an expectation may be of one plan, of those that begin alike, or of all.
func TestExpectationsFitPlans(t *testing.T) {
	for plan, want := range map[string]bool{"": true, "oidcc-basic-plan": true, "oidcc-*": true, "oidcc-basic": false,
		"fapi*": false} {
		if got := (Expectation{Plan: plan, Module: "m"}).fits("oidcc-basic-plan", "m"); got != want {
			t.Errorf("plan %q fits: %t", plan, got)
		}
	}
	if (Expectation{Module: "m"}).fits("p", "other") {
		t.Error("an expectation fits another module")
	}
}

// TestExpectedResultForAnotherReasonIsASurprise: what is expected to fail may not hide what else fails.
func TestExpectedResultForAnotherReasonIsASurprise(t *testing.T) {
	m := ModuleReport{Module: "m", Result: Failed, Entries: []Entry{
		{Kind: "check", Result: Failed, Text: "there is no implicit grant"}, {Kind: "check", Result: Warning,
			Text: "an odd locale"},
		{Kind: "check", Result: Failed, Text: "the key is private"},
	}}
	for _, c := range []struct {
		e    Expectation
		want string
	}{
		{Expectation{Result: Failed}, ""},
		{Expectation{Result: Failed, Findings: []string{"implicit", "private"}}, ""},
		{Expectation{Result: Failed, Findings: []string{"implicit"}}, "the key is private"},
		{Expectation{Result: Warning, Findings: []string{"locale"}}, ""}, // the result is another one: that says it already
	} {
		if got := c.e.unexplained(m); got != c.want {
			t.Errorf("%v: %q, want %q", c.e, got, c.want)
		}
	}
	m.Expected, m.Unexplained = Failed, "the key is private"
	if !m.Surprise() || (&Suite{}).Verdict(m) == nil || m.Finding() != m.Unexplained {
		t.Error("nobody hears of it")
	}
}
