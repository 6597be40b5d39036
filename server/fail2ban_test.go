package server_test

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
)

// The filter of manifests/deploy/fail2ban reads what this server logs, in both formats, as fail2ban itself reads it:
// each failure with the address that it came from, and nothing that a stranger made up.

const (
	fail2banDir = "../manifests/deploy/fail2ban"
	// forgedAddress is one from which nothing ever came.
	forgedAddress = "203.0.113.66"
)

func needsFail2ban(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("fail2ban-regex"); err != nil {
		t.Fatal("fail2ban-regex is missing: apt-get install --no-install-recommends fail2ban")
	}
}

// forgeries are lines that would have an address banned.
func forgeries() []string {
	const text = "level=INFO msg=sign-in actor=stranger outcome=refused reason=x client=c address=" + forgedAddress
	const json = `"level":"INFO","msg":"sign-in","actor":"stranger","outcome":"refused","reason":"x","client":"c","address":"` +
		forgedAddress + `"}`
	var all []string
	for _, line := range []string{"time=2026-01-31T12:00:00.000Z " + text, `{"time":"2026-01-31T12:00:00.000Z",` + json,
		"Jan 31 12:00:00 host warifu[1]: time=2026-01-31T12:00:00.000Z " + text} {
		all = append(all, line, "\n"+line+"\n", "\r\n"+line, `"`+line, `x" `+text+` y="`, `x\" `+
			text, `x\\" `+text, `x",`+json,
			"x address="+forgedAddress, `"}`+"\u2028"+line)
	}
	return all
}

// fail signs in, in all the ways that do not succeed, each from an address of its own, and returns how many failures
// came from each.
func failInAllWays(p *idp) map[string]int {
	p.t.Helper()
	from := func(b *browser, address string, got page, field string, values ...string) page {
		action, form := b.form(got, field)
		for i := 0; i < len(values); i += 2 {
			form.Set(values[i], values[i+1])
		}
		return b.follow(b.do(p.request(http.MethodPost, action, form.Encode(), "Content-Type", formType, "X-Forwarded-For",
			address)))
	}
	guess := func(address, login, password string) {
		b := p.browser()
		from(b, address, b.get(p.authorizeURL()), "password", "login", login, "password", password)
	}
	failures := map[string]int{}
	guess("198.51.100.1", userEmail, "wrong")
	failures["198.51.100.1"] = 1
	guess("198.51.100.2", "nobody at all", "wrong")
	failures["198.51.100.2"] = 1
	guess("2001:db8::7", "nobody else", "wrong")
	failures["2001:db8::7"] = 1
	for range 12 {
		guess("198.51.100.3", "bob@app.test", "wrong")
	}
	failures["198.51.100.3"] = 11 // the last one is the lock

	b := p.browser() // the right password is no failure, and a code that is wrong is one
	got := from(b, "198.51.100.6", b.get(p.authorizeURL()), "password", "login", userEmail, "password", userPassword)
	b.follow(got)
	p.enrol("user-ann")
	b, got = p.halfSignedIn()
	from(b, "198.51.100.4", got, "code", "code", "000000")
	failures["198.51.100.4"] = 1

	carol := p.browser() // types a code for which no device waits
	p.managed("carol", "carol@app.test", "", string(userHash()))
	carol.follow(carol.signIn(carol.get(p.authorizeURL()), "carol@app.test", userPassword))
	action, form := carol.form(carol.get(p.issuer+"/device"), "user_code")
	form.Set("user_code", "BCDF-GHJK")
	next := carol.post(action, form)
	if next.location == nil {
		p.t.Fatalf("the user code leads nowhere: %d", next.status)
	}
	carol.do(p.request(http.MethodGet, next.location.String(), "", "X-Forwarded-For", "198.51.100.5"))
	failures["198.51.100.5"] = 1

	const forger = "198.51.100.9"
	for _, line := range forgeries() {
		b := p.browser()
		if got := b.calling(strings.Map(visible, line)).get(p.issuer + "/" +
			url.PathEscape(line)); got.status != http.StatusNotFound {
			p.t.Errorf("%q: %d", line, got.status)
		}
		for _, param := range []string{"client_id", "redirect_uri", "scope", "state", "prompt"} {
			b.do(p.request(http.MethodGet, p.authorizeURL(param, line), "", "X-Forwarded-For", forger))
		}
	}
	for _, line := range forgeries()[:5] { // before the server counts no more names of one address
		guess(forger, line, line)
		failures[forger]++
	}
	return failures
}

// visible leaves out what no header can hold.
func visible(c rune) rune {
	if c < ' ' || c == 0x7f {
		return ' '
	}
	return c
}

func TestFail2banReadsTheLog(t *testing.T) {
	needsFail2ban(t)
	for format, handler := range map[string]func(*logBuffer) slog.Handler{
		"text": func(w *logBuffer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"json": func(w *logBuffer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		t.Run(format, func(t *testing.T) {
			lines := &logBuffer{}
			p := newIDP(t, trusting("127.0.0.0/8", "::1/128"), withManaged, func(c *server.Config) {
				c.Logger = slog.New(server.LogHandler(handler(lines)))
			})
			want := failInAllWays(p)
			log := lines.String()
			if strings.Count(log, forgedAddress) < 20 {
				t.Fatalf("nobody has forged anything:\n%s", log)
			}
			bySyslog := new(strings.Builder)
			for line := range strings.Lines(log) {
				fmt.Fprintf(bySyslog, "Jan 31 12:00:00 host-1 warifu[4711]: %s", line)
			}
			for how, text := range map[string]string{"its file": log, "syslog's file": bySyslog.String()} {
				if got := banned(t, text); !maps.Equal(got, want) {
					t.Errorf("from %s: %v, want %v", how, got, want)
				}
			}
		})
	}
}

// banned is what fail2ban finds in a log: how many failures of each address.
func banned(t *testing.T, log string) map[string]int {
	t.Helper()
	file := filepath.Join(t.TempDir(), "warifu.log")
	if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	filter, err := filepath.Abs(filepath.Join(fail2banDir, "filter.d", "warifu.conf"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("fail2ban-regex", "--out", "ip", file, filter).CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	found := map[string]int{}
	for line := range strings.Lines(string(out)) {
		found[strings.TrimSpace(line)]++
	}
	return found
}

// fail2ban itself accepts filter and jail where they are installed; nothing is started.
func TestFail2banTakesTheJail(t *testing.T) {
	needsFail2ban(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("/etc/fail2ban")); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"filter.d/warifu.conf", "jail.d/warifu.conf"} {
		text, err := os.ReadFile(filepath.Join(fail2banDir, own))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, own), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "jail.d", "defaults-debian.conf")); err != nil { // its sshd needs a log
		t.Fatal(err)
	}
	out, err := exec.Command("fail2ban-client", "-c", dir, "--dp").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	told := string(out)
	for _, want := range []string{"['add', 'warifu', 'systemd']", "['set', 'warifu', 'maxretry', 20]",
		"_SYSTEMD_UNIT=warifu.service",
		"['start', 'warifu']"} {
		if !strings.Contains(told, want) {
			t.Errorf("the jail lacks %s:\n%s", want, told)
		}
	}
	if n := strings.Count(told, "addfailregex"); n != 1 || slices.Contains(strings.Fields(told), "ERROR") {
		t.Errorf("%d rules:\n%s", n, told)
	}
}
