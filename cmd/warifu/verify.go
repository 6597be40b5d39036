package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/plugintest"
)

// verifyOptions are the flags of `warifu plugin verify`.
type verifyOptions struct {
	config, harness, denied string
	manifests               []string
}

func (c *cli) verify() *cobra.Command {
	var o verifyOptions
	command := &cobra.Command{
		Use: "verify FILE [ARGUMENT...]", Short: "Check that a plugin keeps the contract",
		Long: `verify starts the plugin FILE as a server does and checks that it keeps its contract. Each check is a line,
followed by what to do if it failed. The exit code is 1 if a check failed.

Some checks need help that only the plugin's author can give. --harness names a program for that. It is
run as PROGRAM VERB APP KIND NAME; run as PROGRAM verbs, it prints the verbs that it knows, one per line:

  prepare   create what the target runs in, before the first push
  discard   undo prepare
  serving   print the environment that the target sees, as a JSON object
  rollout   print something that identifies what serves the target now and changes with each rollout
  foreign   add a variable that is not warifu's to the target; its name and value follow
  break     damage what serves the target behind the plugin's back
  fail      make the next rollouts fail
  mend      undo fail

verify changes the targets that it is given: run it on a test machine. Arguments of the plugin that begin
with a dash come after --.`,
		Example: `  warifu plugin verify ./my-runtime --config my-config.yaml
  warifu plugin verify ./my-runtime --config my-config.yaml --harness ./my-harness.sh
  warifu plugin verify ./my-hook --denied refused.yml`,
		Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.runVerify(cmd.Context(), args[0], args[1:], o) },
	}
	flags := command.Flags()
	flags.SetInterspersed(true)
	flags.StringVar(&o.config, "config", "",
		"file with the plugin's own settings, as under plugins.*.config in a server's configuration")
	flags.StringVar(&o.harness, "harness", "", "program that helps with checks as described above")
	flags.StringVar(&o.denied, "denied", "", "an app.yml that the hook must refuse")
	flags.StringArrayVar(&o.manifests, "manifest", nil, "another app.yml to ask the hook about; can be repeated")
	return command
}

func (c *cli) runVerify(ctx context.Context, binary string, args []string, o verifyOptions) error {
	h := plugintest.Harness{Args: args}
	var err error
	if h.Config, err = yamlFile(o.config); err != nil {
		return err
	}
	if h.Denied, err = yamlFile(o.denied); err != nil {
		return err
	}
	for _, file := range o.manifests {
		manifest, err := yamlFile(file)
		if err != nil {
			return err
		}
		h.Manifests = append(h.Manifests, manifest)
	}
	if o.harness != "" {
		if err := (harnessProgram(o.harness)).fill(ctx, &h); err != nil {
			return err
		}
	}
	failed := 0
	results := plugintest.Verify(ctx, binary, h, func(r plugintest.Result) {
		if r.Outcome == plugintest.Failed {
			failed++
		}
		c.printResult(r)
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case failed > 0:
		return fmt.Errorf("%d of %d checks failed", failed, len(results))
	default:
		return nil
	}
}

// printResult writes a check's line, and for a failure a second one with what to do.
func (c *cli) printResult(r plugintest.Result) {
	ink := map[plugintest.Outcome]color{
		plugintest.Passed: green, plugintest.Failed: red, plugintest.NotChecked: yellow,
	}[r.Outcome]
	line := c.paint(c.stdout, ink, fmt.Sprintf("%-11s", r.Outcome)) + "  " + r.Check
	if r.Problem != "" {
		line += ": " + harmless(r.Problem)
	}
	fmt.Fprintln(c.stdout, line)
	if r.Outcome == plugintest.Failed {
		fmt.Fprintf(c.stdout, "%-11s  -> %s\n", "", r.Remedy)
		for line := range strings.Lines(r.Said) {
			c.say("%s", harmless(strings.TrimRight(line, "\n")))
		}
	}
}

// yamlFile reads a YAML or JSON document as JSON. Without a name it returns nil.
func yamlFile(name string) (json.RawMessage, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, strictyaml.Faults{strictyaml.Unreadable(name, err)}
	}
	defer func() { _ = f.Close() }() // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, strictyaml.Faults{strictyaml.Unreadable(name, err)}
	}
	report := &strictyaml.Report{File: name}
	var document any
	switch documents := strictyaml.Split(report, text); len(documents) {
	case 0:
	case 1:
		if root := documents[0].Tree(report); root != nil {
			document = root.JSON()
		}
	default:
		report.Errorf(documents[1].Start(), "", "syntax", "",
			"there is a second document, but the settings of a plugin are a single document")
	}
	if err := report.Faults.Err(); err != nil {
		return nil, err
	}
	out, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// harnessProgram is the program that --harness names. Only the verbs that it knows become functions, so that the
// checks can say which are missing.
type harnessProgram string

func (p harnessProgram) fill(ctx context.Context, h *plugintest.Harness) error {
	said, err := p.run(ctx, "verbs")
	if err != nil {
		return err
	}
	verbs := strings.Fields(string(said))
	knows := func(verb string) bool { return slices.Contains(verbs, verb) }
	// A verb on a target that prints nothing.
	act := func(verb string) func(context.Context, string, plugins.Target) error {
		if !knows(verb) {
			return nil
		}
		return func(ctx context.Context, app string, t plugins.Target) error {
			_, err := p.run(ctx, verb, app, t.Kind, t.Name)
			return err
		}
	}
	h.Prepare, h.Discard, h.Break = act("prepare"), act("discard"), act("break")
	if knows("serving") {
		h.Serving = func(ctx context.Context, app string, t plugins.Target) (map[string]string, error) {
			out, err := p.run(ctx, "serving", app, t.Kind, t.Name)
			if err != nil {
				return nil, err
			}
			var env map[string]string
			if json.Unmarshal(out, &env) != nil { // its error would quote a value
				return nil, fmt.Errorf("%s serving did not print a JSON object of strings", p)
			}
			return env, nil
		}
	}
	if knows("rollout") {
		h.Rollout = func(ctx context.Context, app string, t plugins.Target) (string, error) {
			out, err := p.run(ctx, "rollout", app, t.Kind, t.Name)
			return strings.TrimSpace(string(out)), err
		}
	}
	if knows("foreign") {
		h.Foreign = func(ctx context.Context, app string, t plugins.Target, name, value string) error {
			_, err := p.run(ctx, "foreign", app, t.Kind, t.Name, name, value)
			return err
		}
	}
	if knows("fail") && knows("mend") {
		fail, mend := act("fail"), act("mend")
		h.Fail = func(ctx context.Context, app string, t plugins.Target, _ map[string]string) (
			func(context.Context) error, error) {
			return func(ctx context.Context) error { return mend(ctx, app, t) }, fail(ctx, app, t)
		}
	}
	return nil
}

func (p harnessProgram) run(ctx context.Context, args ...string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, string(p), args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.WaitDelay = 3 * time.Second // a child of its own may hold the pipes
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", p, args[0], err, harmless(strings.TrimSpace(said.String())))
	}
	return out.Bytes(), nil
}
