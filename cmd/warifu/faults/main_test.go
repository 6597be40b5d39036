//go:build faults

package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// suite is what all cells share.
var suite suiteState

type suiteState struct {
	binary string // the program under test
	ahead  string // the same with a wrong clock, once it is built
	dir    string // that goes at the end

	mu     sync.Mutex // guards what follows
	headed bool       // the head of the table is printed
}

func TestMain(m *testing.M) {
	if told := os.Getenv(memberEnv); told != "" {
		_, _ = fmt.Fprintln(os.Stderr, "etcd:", runMember(told))
		os.Exit(1)
	}
	code, err := runSuite(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "faults:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (_ int, err error) {
	dir, err := os.MkdirTemp("", "warifu-faults-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	suite.dir = dir
	defer spawner.Close()
	if suite.binary = os.Getenv("WARIFU_FAULTS_BINARY"); suite.binary == "" {
		suite.binary = filepath.Join(dir, "warifu")
		build := exec.Command("go", "build", "-o", suite.binary, "github.com/warifu/warifu/cmd/warifu")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build the binary: %w\n%s", err, out)
		}
	}
	return m.Run(), nil
}
