//go:build man

package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manual writes the manual pages of all commands. It is a command for who makes packages (make packages), and no part
// of the program that people run: what it links would be.
func (c *cli) manual() []*cobra.Command {
	return []*cobra.Command{{
		Use: "man DIR", Short: "Write the manual pages", Hidden: true, Args: operands(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "warifu " + programVersion(), Manual: "warifu"},
				args[0])
		},
	}}
}
