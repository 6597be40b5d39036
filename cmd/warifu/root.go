package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// cli is one run of the program.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	started        bool   // a command of ours has begun
	path           string // of the command that was called, as in warifu keys rotate

	admin     string // --admin
	tokenFile string // --admin-token-file
}

const (
	groupServer = "server"
	groupApps   = "apps"
	groupPeople = "people"
)

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "warifu",
		Short: "An app.yml goes in, tokens come out",
		Long: `warifu is an OpenID Connect and OAuth 2 authorization server. It registers apps from their
app.yml, puts the credentials into the environment of their Workers and Containers, and serves
the sign-in and consent pages.

Data goes to stdout, messages to stderr. Exit codes: 0 done, 1 failed, 2 plan, drift or doctor found
something, 3 invalid input, also a configuration or manifest that cannot be read, 4 no server answers.`,
		Example: `  warifu dev -f app.yml              try it: no account and no other service needed
  warifu token my-oauth-app          get a first token
  warifu serve config.yaml           run it for real`,
		Version:       programVersion(),
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRun: func(*cobra.Command, []string) { c.started = true },
	}
	root.SetVersionTemplate("warifu {{.Version}}\n")
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.AddGroup(&cobra.Group{ID: groupServer, Title: "Run a server:"},
		&cobra.Group{ID: groupApps, Title: "Work with the apps of a server:"},
		&cobra.Group{ID: groupPeople, Title: "Work with its people:"})
	root.PersistentFlags().StringVar(&c.admin, "admin", "",
		"admin API of the server: path of a socket, unix://PATH or http(s)://HOST:PORT (default $"+adminVariable+", then "+
			defaultSocket+", then "+systemSocket+")")
	root.PersistentFlags().StringVar(&c.tokenFile, "admin-token-file", "",
		"file with the bearer token for an admin API over TCP (default $"+tokenVariable+")")
	add := func(group string, commands ...*cobra.Command) {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	add(groupServer, c.dev(), c.serve(), c.reload(), c.status(), c.doctor(), c.config(), c.hash(), c.migrate(), c.backup(),
		c.restore(), c.verifyRecords(), c.export(), c.importing())
	add(groupApps, c.plan(), c.apply(), c.get(), c.describe(), c.delete(), c.rotate(), c.retry(), c.revoke(),
		c.drift(), c.explain(), c.audit(), c.keys(), c.credentials(), c.token())
	add(groupPeople, c.invite(), c.setPassword(), c.disable(), c.enable(), c.link(), c.unlink())
	add("", append(c.manual(), c.version(), c.healthcheck(), c.plugin())...)
	return root
}

// say writes a line to stderr. A failure to write there cannot be reported anywhere.
func (c *cli) say(format string, args ...any) { _, _ = fmt.Fprintf(c.stderr, format+"\n", args...) }

// env is a variable of the environment.
func (c *cli) env(name string) string {
	for _, entry := range slices.Backward(c.environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type color string

const (
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	bold   color = "1"
	faint  color = "2"
)

// paint colors text if w is a terminal and NO_COLOR is not set (https://no-color.org).
func (c *cli) paint(w io.Writer, ink color, text string) string {
	if !isTerminal(w) || c.env("NO_COLOR") != "" || c.env("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + string(ink) + "m" + text + "\x1b[0m"
}
