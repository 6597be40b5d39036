//go:build !man

package main

import "github.com/spf13/cobra"

func (c *cli) manual() []*cobra.Command { return nil }
