package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/warifu/warifu/server/connector"
)

// warifu runs a command against the server, and returns its exit code and all that it says.
func (s *serving) warifu(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "warifu", args...)
	cmd.Env = append(os.Environ(), "WARIFU_ADMIN="+filepath.Join(s.dir, "data", "admin.sock"))
	said, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(said)
}

// Two accounts have one e-mail address, which joins nobody; an operator does, and undoes it.
func TestOperatorsSeePeopleAndJoinThem(t *testing.T) {
	const local = `enablePasswordDB: true
staticPasswords:
  - email: ann@example.com
    userID: here
    groups: [a, b, c, d, e]
    hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W
connectors:
`
	s := serveReloadable(t, func(s *serving) string { return local + s.connector("one", "One", "ann") })
	own := connector.SubjectsHashed.Of("one", "ann")
	says := func(code int, pattern string, args ...string) {
		t.Helper()
		got, said := s.warifu(t, args...)
		if got != code || !regexp.MustCompile(`(?ms)`+pattern).MatchString(said) {
			t.Errorf("warifu %q: exit code %d, want %d and %q:\n%s", args, got, code, pattern, said)
		}
	}
	signIn := func() {
		t.Helper()
		if got := s.authorize(person(), "board", "one"); got != "code" {
			t.Fatal(got)
		}
	}
	signIn()
	says(0, `^ID +CONNECTOR +USER NAME +NAME +E-MAIL +GROUPS +FACTORS +STATE +SIGNED IN$`, "get", "users")
	says(0, `^`+own+` +one .* +ann@example.com .* active +\d{4}-`, "get", "users")
	says(0, `^here +local .* a, b, c, and 2 more +password +active +-\s*$`, "get", "users")
	says(0, `^user/here\n`, "get", "users", "-o", "name")
	says(1, `Several users have the e-mail address or name ann@example.com.*by id`, "describe", "user", "ann@example.com")
	says(0, `^User +`+own+`$.*^State +active$.*^  Identity +ann$.*^Signed in +\d{4}-`, "describe", "user", own)
	says(1, `There is no user nobody`, "describe", "user", "nobody")

	says(3, `name the connector with --connector`, "link", "user", "here", "--as", "ann")
	says(3, `say with --as what the connector calls the person`, "link", "user", "here", "--connector", "one")
	says(1, `Did you mean one\?`, "link", "user", "here", "--connector", "onee", "--as", "ann")
	says(1, `users are those of the configuration`, "link", "user", own, "--connector", "local", "--as", "here")
	says(1, `is the account that this identity has by itself`, "link", "user", own, "--connector", "one", "--as", "ann")
	says(0, `^ann of connector one signs in as user here from now on$.*groups and connector \(local\).*`+
		own+`, which the identity had by itself, is disabled: 1 session, 0 grants, 0 consents ended`,
		"link", "user", "here", "--connector", "one", "--as", "ann")
	says(0, `There are no sessions`, "get", "sessions")
	signIn()
	says(0, `ann@example.com`, "get", "sessions", "--user", "here")
	says(0, `^Also signs in +ann of connector one, since `, "describe", "user", "here")
	says(0, `^State +joined: signs in as user here$`, "describe", "user", own)
	says(0, `"joinedTo": "here"`, "describe", "user", own, "-o", "json")

	says(1, `No ben of connector one is joined to user here`, "unlink", "user", "here", "--connector",
		"one", "--as", "ben")
	says(0, `^ann of connector one no longer signs in as user here: 1 session, `, "unlink", "user", "here", "--connector",
		"one", "--as", "ann")
	signIn()
	says(0, own, "get", "sessions", "-o", "json")
	says(0, `1 session, 0 grants`, "revoke", "user", own)
	says(0, ` uid:\d+ +user-linked .* ann of connector one, user here.* uid:\d+ +user-unlinked `, "audit")

	// Whose connector is gone is shown so.
	s.write(t, "connectors:\n"+s.connector("two", "Two", "ben"))
	says(0, `changed: .*connectors`, "reload") // it ends more than a change that nobody asked for may
	s.says(t, `msg="users of connectors that are no longer in the configuration were signed out; .*users=1`)
	says(0, `^`+own+` .* left +\d{4}-`, "get", "users")
	says(0, `^State +disabled: the connector is no longer configured$`, "describe", "user", own)
	says(0, `^State +disabled$`, "describe", "user", "here")
}
