package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mostExposure is ten times the exposure level of systemd-analyze security, from 0 to 100: what is left is the network,
// ports below 1024, and that it is no container.
const mostExposure = "15"

// TestUnitIsSoundAndConfined: systemd knows each line of the unit, and holds it to be as confined as we say.
func TestUnitIsSoundAndConfined(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is missing: apt-get install --no-install-recommends systemd")
	}
	unit, err := os.ReadFile("systemd/warifu.service")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable() // the program is not installed
	if err != nil {
		t.Fatal(err)
	}
	const program = "ExecStart=/usr/bin/warifu "
	if !strings.Contains(string(unit), program) {
		t.Fatalf("the unit has no line that begins with %s", program)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "warifu.service")
	text := strings.Replace(string(unit), program, "ExecStart="+self+" ", 1)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	analyze := func(wrong string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
		if err != nil || wrong != "" && strings.Contains(string(out), wrong) {
			t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	analyze("warifu.service", "verify", "--man=no", file)
	analyze("", "security", "--offline=true", "--no-pager", "--threshold="+mostExposure, file)

	// The examples of what else a runtime needs are of lines that systemd knows.
	for _, name := range []string{"workerd.conf", "containers.conf"} {
		dropIn := filepath.Join(dir, "warifu.service.d", name)
		content, err := os.ReadFile(filepath.Join("systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(dropIn), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dropIn, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	analyze("warifu.service", "verify", "--man=no", file)
}
