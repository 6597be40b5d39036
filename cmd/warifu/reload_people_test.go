package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// passes tries the password "password".
func (s *serving) passes(t *testing.T, login string) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "warifu", "--admin", filepath.Join(s.dir, "data", "admin.sock"), "token",
		"board",
		"--login", login, "--password-stdin")
	cmd.Stdin = strings.NewReader("password")
	return cmd.Run() == nil
}

// A file that the configuration names is noticed as it is: also where a link above it is swapped, as Kubernetes does
// with what it mounts of a Secret.
func TestAFileThatIsNamedIsReadAgain(t *testing.T) {
	mount := t.TempDir()
	version := func(name, password string) {
		t.Helper()
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost+6)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(mount, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mount, name, "hash"), hash, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(name, filepath.Join(mount, "..new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(mount, "..new"), filepath.Join(mount, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..one", "another")
	if err := os.Symlink("..data/hash", filepath.Join(mount, "hash")); err != nil {
		t.Fatal(err)
	}
	s := serveReloadable(t, func(*serving) string {
		return "enablePasswordDB: true\nstaticPasswords:\n  - {email: ann@example.com, userID: ann, hashFile: " +
			filepath.Join(mount, "hash") + "}\n"
	})
	if s.passes(t, "ann@example.com") {
		t.Error("with another password")
	}
	version("..two", "password")
	s.says(t, `msg="the configuration was read again" files_changed=\[staticPasswords\[0\].hashFile\]\n`)
	if !s.passes(t, "ann@example.com") {
		t.Error("the password of the new file is none")
	}
}

// Two people of a file may change their names of login with each other, and both sign in.
func TestTwoPeopleSwapLogins(t *testing.T) {
	const hash = ", hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W}\n"
	people := func(ann, bob string) string {
		return "enablePasswordDB: true\nstaticPasswords:\n  - {email: " + ann + "@example.com, userID: ann" + hash +
			"  - {email: " + bob + "@example.com, userID: bob" + hash
	}
	s := serveReloadable(t, func(*serving) string { return people("ann", "bob") })
	s.write(t, people("bob", "ann"))
	s.says(t, `msg="the configuration was read again" changed=\[staticPasswords\]\n`)
	for _, login := range []string{"ann@example.com", "bob@example.com"} {
		if !s.passes(t, login) {
			t.Errorf("%s does not sign in", login)
		}
	}
	for user, email := range map[string]string{"ann": "bob@example.com", "bob": "ann@example.com"} {
		if code, said := s.warifu(t, "describe", "user", user); code != 0 || !strings.Contains(said, email) {
			t.Errorf("%s: %d %s", user, code, said)
		}
	}
	if strings.Contains(s.said.String(), "cannot be stored") {
		t.Error("something could not be stored")
	}
}
