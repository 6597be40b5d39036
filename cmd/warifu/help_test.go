package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	c := &cli{stdin: strings.NewReader(""), stdout: newLines(), stderr: newLines()}
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		if command.Hidden {
			return
		}
		path := command.CommandPath()
		if command.Short == "" {
			t.Errorf("%s: no short text", path)
		}
		for line := range strings.Lines(command.Long + "\n" + command.Example) {
			if len(line) > 112 {
				t.Errorf("%s: a line of %d characters: %s", path, len(line), line)
			}
		}
		if len(command.Commands()) == 0 && !strings.Contains(command.Example, path) {
			t.Errorf("%s: no example", path)
		}
		if command.Args != nil { // cobra's own say how many, and not which
			for _, given := range [][]string{nil, strings.Fields("a b c d e f")} {
				if err := command.Args(command, given); err != nil && strings.Contains(err.Error(), "arg(s)") {
					t.Errorf("%s: which argument? %v", path, err)
				}
			}
		}
		for _, sub := range command.Commands() {
			walk(sub)
		}
	}
	walk(c.root())
}

func TestProgramNeedsNoTerminalForItsHelp(t *testing.T) {
	out, said := newLines(), newLines()
	if code := run(t.Context(), nil, strings.NewReader(""), out, said); code != exitDone {
		t.Errorf("exit code %d: %s", code, said)
	}
	for _, want := range []string{"An app.yml goes in", "dev ", "token ", "completion"} {
		if !strings.Contains(out.String(), want) && !strings.Contains(out.String(), "warifu is an OpenID Connect") {
			t.Errorf("the help lacks %q:\n%s", want, out)
		}
	}
}
