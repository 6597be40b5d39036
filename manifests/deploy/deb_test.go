//go:build packages

package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins/runtimecontainers/podmantest"
)

// machine is a copy of this machine with a systemd of its own, made as it is written to: nothing of it reaches this
// one, and it has no network.
type machine struct {
	*podmantest.Engine
	t testing.TB
}

// boot starts systemd. What else is installed here is not started.
func boot(t testing.TB, share string) *machine {
	t.Helper()
	m := &machine{Engine: podmantest.Start(t), t: t}
	args := []string{"run", "--detach", "--name", "machine", "--privileged", "--network", "none", "--cgroupns", "host",
		"--systemd=false", "--env", "container=podman", "--tmpfs", "/tmp:notmpcopyup", "--tmpfs", "/run:notmpcopyup,mode=755",
		"--volume", "/sys/fs/cgroup/systemd:/sys/fs/cgroup/systemd", "--volume", share + ":/srv:ro"}
	for _, dir := range []string{"/usr/lib/systemd/system", "/etc/systemd/system"} {
		wants, err := filepath.Glob(dir + "/*.target.wants")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			args = append(args, "--tmpfs", want+":notmpcopyup")
		}
	}
	// Credentials are mounts, made outside of the service that sees them.
	m.Run(t, append(args, "--rootfs", "/:O", "sh", "-c",
		"mount --make-rshared / && exec /lib/systemd/systemd --unit=basic.target")...)
	m.eventually("running", "systemctl", "is-system-running")
	m.does("systemctl", "start", "systemd-journald.service")
	m.does("rm", "--force", "/usr/sbin/policy-rc.d") // it is not a machine on which packages may start nothing
	return m
}

// tries runs a command there, and gives all that it prints on stdout.
func (m *machine) tries(command ...string) (string, error) {
	return m.Try(m.t.Context(), append([]string{"exec", "machine"}, command...)...)
}

func (m *machine) does(command ...string) string {
	m.t.Helper()
	out, err := m.tries(command...)
	if err != nil {
		m.t.Fatalf("%v\n%s\n%s", err, out, m.journal())
	}
	return out
}

func (m *machine) says(want string, command ...string) {
	m.t.Helper()
	if out := m.does(command...); !strings.Contains(out, want) {
		m.t.Errorf("%s says\n%s\nwant %q", strings.Join(command, " "), out, want)
	}
}

func (m *machine) fails(command ...string) {
	m.t.Helper()
	if out, err := m.tries(command...); err == nil {
		m.t.Errorf("%s succeeds\n%s", strings.Join(command, " "), out)
	}
}

func (m *machine) eventually(want string, command ...string) {
	m.t.Helper()
	podmantest.Eventually(m.t, func() error {
		out, err := m.tries(command...)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("%s says\n%s\nwant %q", strings.Join(command, " "), out, want)
		}
		return err
	})
}

// writes makes a file there; root's, unless a program says otherwise.
func (m *machine) writes(file, mode, text string) {
	m.t.Helper()
	m.does("sh", "-c", `mkdir -p "$(dirname "$1")" && printf %s "$3" > "$1" && chmod "$2" "$1"`, "sh", file, mode, text)
}

func (m *machine) journal() string {
	// There may be none yet.
	out, _ := m.tries("journalctl", "--unit", "warifu", "--no-pager", "--output", "cat", "--lines", "40")
	return out
}

func (m *machine) property(name string) string {
	m.t.Helper()
	return m.does("systemctl", "show", "--property", name, "--value", "warifu")
}

const packagedApp = `apiVersion: takos.dev/v1alpha1
kind: App
metadata: {name: board}
spec:
  version: 1.0.0
  workers: {web: {}}
  oauth: {clientName: Board, redirectUris: ["https://board.example.com/callback"], scopes: [openid], autoEnv: true}
`

// TestDebianPackage installs the package on a machine with systemd, which runs the unit with all its restrictions; then
// the server is reconfigured, killed, upgraded, and removed.
func TestDebianPackage(t *testing.T) {
	debs, err := filepath.Glob(filepath.Join(packages(t), "warifu_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("packages: %v (%v)", debs, err)
	}
	share := t.TempDir()
	newer := repackaged(t, debs[0], share)
	if err := os.CopyFS(share, os.DirFS(packages(t))); err != nil {
		t.Fatal(err)
	}
	m := boot(t, share)
	deb := "/srv/" + filepath.Base(debs[0])

	// It is installed, belongs to whom it should, and is not started before somebody has chosen the issuer.
	m.says("Choose the issuer", "dpkg", "--install", deb)
	for file, want := range map[string]string{"/etc/warifu": "root:warifu 750",
		"/etc/warifu/config.yaml": "root:warifu 640", "/etc/warifu/apps": "root:warifu 750",
		"/usr/bin/warifu": "root:root 755"} {
		m.says(want, "stat", "--format", "%U:%G %a", file)
	}
	if out := m.does("dpkg", "--verify", "warifu"); out != "" {
		t.Errorf("dpkg --verify says %s", out)
	}
	m.says("inactive", "sh", "-c", "systemctl is-active warifu || true")
	m.says("warifu.1.gz", "dpkg", "--listfiles", "warifu")

	// systemctl waits until it answers.
	m.does("systemctl", "enable", "--now", "warifu")
	m.says("Serves http://localhost:5556", "systemctl", "show", "--property", "StatusText", "warifu")
	m.says("warifu is enabled", "sh", "-c", "systemctl is-enabled --quiet warifu && echo warifu is enabled")
	health := m.does("sh", "-c", "warifu healthcheck 2>&1")
	if !strings.Contains(health, "http://localhost:5556 is served by warifu") {
		t.Errorf("warifu healthcheck says %s", health)
	}
	status := m.does("sh", "-c", `cat /proc/"$(systemctl show --property MainPID --value warifu)"/status`)
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000400"} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("the process is not %q", want)
		}
	}
	m.says("warifu:warifu 700", "stat", "--format", "%U:%G %a", "/var/lib/warifu")

	// A reload brings an app and the plugin that it needs, which runs under the same restrictions.
	m.does("sh", "-c", "echo 'plugins: {runtimes: [{name: file}]}' >> /etc/warifu/config.yaml")
	m.writes("/etc/warifu/apps/board.yml", "0644", packagedApp)
	m.does("systemctl", "reload", "warifu")
	m.eventually("ready", "warifu", "get", "deliveries", "--app", "board")
	pid := m.property("MainPID")

	// A faulty one changes nothing, and the journal says what is wrong.
	m.does("sh", "-c", "cp -p /etc/warifu/config.yaml /etc/warifu/good && echo 'brandig: {}' >> /etc/warifu/config.yaml")
	m.does("systemctl", "reload", "warifu")
	podmantest.Eventually(t, func() error {
		if said := m.journal(); !strings.Contains(said, "brandig") {
			return fmt.Errorf("the journal does not say what is wrong:\n%s", said)
		}
		return nil
	})
	m.does("mv", "/etc/warifu/good", "/etc/warifu/config.yaml")
	m.does("systemctl", "reload", "warifu")
	if now := m.property("MainPID"); now != pid {
		t.Errorf("reloads have started it anew: process %s, was %s", now, pid)
	}

	// A secret that only root can read reaches it as a credential.
	m.writes("/etc/warifu/secrets/smtp", "0600", "correct horse")
	m.writes("/etc/systemd/system/warifu.service.d/smtp.conf", "0644",
		"[Service]\nLoadCredential=smtp:/etc/warifu/secrets/smtp\n")
	m.does("sh", "-c", "echo 'mail: {server: \"127.0.0.1:25\", tls: none, from: id@example.com, username: id, "+
		"passwordFile: /run/credentials/warifu.service/smtp}' >> /etc/warifu/config.yaml")
	m.does("systemctl", "daemon-reload")
	m.does("systemctl", "restart", "warifu")
	m.says("ready", "warifu", "get", "deliveries", "--app", "board")

	// What kills it has it started again.
	m.does("systemctl", "kill", "--signal", "KILL", "--kill-whom", "main", "warifu")
	m.eventually("1", "systemctl", "show", "--property", "NRestarts", "--value", "warifu")
	m.eventually("active", "systemctl", "is-active", "warifu")

	// An upgrade keeps what somebody has changed, replaces what nobody has, and the new program serves.
	pid = m.property("MainPID")
	m.does("dpkg", "--force-confold", "--install", "/srv/"+filepath.Base(newer))
	m.says("file", "grep", "runtimes", "/etc/warifu/config.yaml")
	m.says("# newer", "cat", "/etc/warifu/config.yaml.dpkg-dist")
	m.says("# newer", "cat", "/etc/default/warifu")
	m.says("root:warifu 640", "stat", "--format", "%U:%G %a", "/etc/warifu/config.yaml")
	m.eventually("active", "systemctl", "is-active", "warifu")
	if now := m.property("MainPID"); now == pid {
		t.Error("the old program still runs after an upgrade")
	}
	m.says("ready", "warifu", "get", "deliveries", "--app", "board")

	// Who removes it keeps configuration and data; who purges it, the data, unless that is said too.
	m.does("dpkg", "--remove", "warifu")
	m.fails("test", "-e", "/usr/bin/warifu")
	m.fails("systemctl", "is-active", "--quiet", "warifu")
	m.does("test", "-s", "/etc/warifu/config.yaml")
	m.says("still in /var/lib/warifu", "dpkg", "--purge", "warifu")
	m.fails("test", "-e", "/etc/warifu/config.yaml")
	m.does("test", "-s", "/var/lib/warifu/encryption.key")
	m.does("dpkg", "--install", deb)
	m.does("env", "WARIFU_PURGE=data", "dpkg", "--purge", "warifu")
	m.fails("sh", "-c", "ls -d /var/lib/warifu /etc/warifu")
}

// repackaged is a package as the next version has it: with other configuration.
func repackaged(t *testing.T, deb, dir string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	run(t, ".", nil, "dpkg-deb", "--raw-extract", deb, tree)
	for name, change := range map[string]func(string) string{
		"DEBIAN/control": func(text string) string {
			lines := strings.Split(text, "\n")
			i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "Version: ") })
			lines[i] += "+newer"
			return strings.Join(lines, "\n")
		},
		"etc/warifu/config.yaml": func(text string) string { return text + "# newer\n" },
		"etc/default/warifu":     func(text string) string { return text + "# newer\n" },
	} {
		file := filepath.Join(tree, name)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(change(string(text))), 0o644); err != nil { // it keeps its mode
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "newer.deb")
	run(t, ".", nil, "dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, out)
	return out
}
