package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warifu/warifu/server/admin"
)

// version and commit are set by the Makefile, so that the same sources give the same program wherever they lie; without
// it, they are what the Go tool recorded.
var version, commit string

func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return strings.Trim(info.Main.Version, "()")
}

// programCommit is the commit that the program was built from, as far as that is known.
func programCommit() string {
	var recorded string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				recorded = s.Value
			}
		}
	}
	return cmp.Or(commit, recorded, "unknown")
}

func (c *cli) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  warifu version", Args: operands(0),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(c.stdout, "warifu %s\ncommit %s\n%s %s/%s\n", programVersion(), programCommit(),
				runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// healthTime is how long a server may take to say that it is there.
const healthTime = 5 * time.Second

// healthcheck is for images that have no other program to ask with. It does not read the configuration: that may have
// become faulty, which is no reason to end a server that goes on with the one before.
func (c *cli) healthcheck() *cobra.Command {
	return &cobra.Command{
		Use: "healthcheck", Short: "Succeed if the server answers",
		Long: `healthcheck asks the server on this machine who it is. It is for supervisors that end a server which does not
answer; whether it can do its work, which also takes storage, is what /readyz says.`,
		Example: "  warifu healthcheck --admin /run/warifu/admin.sock", Args: operands(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			api.http.Timeout = healthTime
			var info admin.Info
			if err := api.do(cmd.Context(), "GET", "/v1/info", nil, &info); err != nil {
				return err
			}
			c.say("%s is served by warifu %s", info.Issuer, info.Version)
			return nil
		},
	}
}
