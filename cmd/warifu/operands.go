package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// operands checks that a command is given the arguments that its Use names, and at least the first so many of them.
func operands(least int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		names := operandNames(cmd)
		path := cmd.CommandPath()
		switch {
		case len(args) < least:
			return fmt.Errorf("%s is missing: write %s %s", strings.Join(names[len(args):least], " and "), path,
				strings.Join(names, " "))
		case len(args) <= len(names) ||
			slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "...") }):
			return nil
		}
		surplus := harmless(args[len(names)])
		switch {
		case cmd.Flags().ShorthandLookup("f") != nil:
			return fmt.Errorf("%s takes no argument %q: name files with -f", path, surplus)
		case len(names) == 0:
			return fmt.Errorf("%s takes no argument, but was given %q", path, surplus)
		}
		return fmt.Errorf("%s takes no argument after %s, but was given %q", path, strings.Join(names, " "), surplus)
	}
}

// operandNames are the arguments that the Use of a command names, up to its flags and alternatives.
func operandNames(cmd *cobra.Command) []string {
	names := strings.Fields(cmd.Use)[1:]
	if end := slices.IndexFunc(names, func(name string) bool { return name[0] == '-' || name == "|" }); end >= 0 {
		names = names[:end]
	}
	return names
}

// subcommands refuses a word that is not a subcommand, and says which one was meant: whoever leaves it out often means
// an app.
func subcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil // needsSubcommand says what is missing
	}
	var names []string
	for _, sub := range cmd.Commands() {
		names = append(names, sub.Name())
	}
	unknown := fmt.Sprintf("unknown command %q for %q", harmless(args[0]), cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	switch near := cmd.SuggestionsFor(args[0]); {
	case len(args) == 1 && slices.Contains(names, "app"):
		return fmt.Errorf("%s: write %s app %s", unknown, cmd.CommandPath(), harmless(args[0]))
	case len(near) > 0:
		return fmt.Errorf("%s: write %s %s", unknown, cmd.CommandPath(), near[0])
	}
	return fmt.Errorf("%s: it has %s", unknown, strings.Join(names, ", "))
}
