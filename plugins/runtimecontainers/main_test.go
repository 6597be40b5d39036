package runtimecontainers

import (
	"os"
	"testing"
)

// TestMain makes the test binary the plugin as well.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		Serve()
		return
	}
	os.Exit(m.Run())
}
