package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/mail/mailtest"
)

// What an operator does with an account goes to its user by mail: a link that only they see, and that another password
// was set.
func TestOperatorsReachPeopleByMail(t *testing.T) {
	post := mailtest.Start(t, mailtest.Options{Plain: true})
	s := serveReloadable(t, func(s *serving) string {
		return fmt.Sprintf("enablePasswordDB: true\nmail: {server: \"%s:%d\", tls: none, from: no-reply@example.com}\n"+
			"connectors:\n", post.Host, post.Port) + s.connector("one", "One", "ann")
	})
	code, said := s.warifu(t, "invite", "user", "eve@example.com", "--name", "Eve", "--valid", "72h")
	if code != 0 || !strings.Contains(said, "a link is on its way to user") || strings.Contains(said, "/welcome") {
		t.Fatalf("%d: %s", code, said)
	}
	invitation := post.Next()
	link := invitation.Link(s.issuer + "/welcome?link=")
	if invitation.To != "eve@example.com" || link == "" || !strings.Contains(invitation.Body, "Eve") {
		t.Fatalf("%+v", invitation)
	}
	for range 2 { // looking at it does not use it up
		resp, err := person().Get(link)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%d", resp.StatusCode)
		}
	}
	cmd := exec.CommandContext(t.Context(), "warifu", "set-password", "eve@example.com")
	cmd.Env = append(os.Environ(), "WARIFU_ADMIN="+filepath.Join(s.dir, "data", "admin.sock"))
	cmd.Stdin = strings.NewReader("quartz tangerine lighthouse\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if told := post.Next(); told.To != "eve@example.com" || !strings.Contains(told.Body, "another password") ||
		strings.Contains(told.Raw, "tangerine") {
		t.Errorf("%+v", told)
	}
	resp, err := person().Get(link)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Error("the link works after another password was set")
	}
	for _, secret := range []string{"tangerine", "eve@example.com", "/welcome?link="} {
		if strings.Contains(s.said.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}
