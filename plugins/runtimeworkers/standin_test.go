package runtimeworkers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/warifu/warifu/plugins"
)

// The test binary stands in for workerd as well, where the program around it is
// what is tested: it takes the same arguments, descriptors and configuration, and
// answers with its text bindings. The tests under the tag e2e have the real one.

var bindingLine = regexp.MustCompile(`\(name = ("(?:[^"\\]|\\.)*"), text = ("(?:[^"\\]|\\.)*")\)`)

func standIn(config string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	env := map[string]string{}
	for _, m := range bindingLine.FindAllStringSubmatch(string(text), -1) {
		name, nameErr := strconv.Unquote(m[1])
		value, valueErr := strconv.Unquote(m[2])
		if err := errors.Join(nameErr, valueErr); err != nil {
			return err
		}
		env[name] = value
	}
	if strings.Contains(string(text), "syntax error") {
		return fmt.Errorf("service main: Uncaught SyntaxError near %s", env["OAUTH_CLIENT_SECRET"])
	}
	l, err := net.FileListener(os.NewFile(socketFD, "socket"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/crash" {
			os.Exit(3)
		}
		_ = json.NewEncoder(w).Encode(env) // the client is gone
	})}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		_ = server.Close() // as rude as workerd
	}()
	control := os.NewFile(controlFD, "control")
	defer func() { _ = control.Close() }() // workerd, too, keeps it until it ends
	if _, err := io.WriteString(control, `{"event":"listen","socket":"http","port":0}`+"\n"); err != nil {
		return err
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// standInSite is a driver in this process, with scripts that only matter by being there.
type standInSite struct {
	*workerd
	t           *testing.T
	root, state string
}

func newStandInSite(t *testing.T) *standInSite {
	t.Helper()
	s := &standInSite{t: t, root: t.TempDir(), state: t.TempDir()}
	sockets, err := os.MkdirTemp("", "ww") // its path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := filepath.Glob(filepath.Join(sockets, "*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		_ = os.RemoveAll(sockets)
	})
	t.Setenv("PLUGIN_UNIX_SOCKET_DIR", sockets)
	s.script("export default {}")
	s.start()
	t.Cleanup(func() { s.close() })
	return s
}

func (s *standInSite) script(text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Join(s.root, "app"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.root, "app", "web.js"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *standInSite) start() {
	s.t.Helper()
	binary, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	records, err := openStore(s.state)
	if err != nil {
		s.t.Fatal(err)
	}
	s.workerd, err = newWorkerd(workerdSettings{Workerd: binary, Root: s.root}, records)
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *standInSite) env(url string) map[string]string {
	s.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var env map[string]string
	if err := json.NewDecoder(resp.Body).Decode(&env); err != nil {
		s.t.Fatal(err)
	}
	return env
}

func TestChangesHandOverRequestByRequest(t *testing.T) {
	s := newStandInSite(t)
	st := ready(t, s, want(1, map[string]string{"GENERATION": "1"}))
	var lost, asked atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				resp, err := http.Post(st.Location, "text/plain", strings.NewReader("some text"))
				if err != nil || resp.StatusCode != http.StatusOK {
					lost.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body) // counted by its status
				_ = resp.Body.Close()
			}
		})
	}
	for generation := int64(2); generation <= 20; generation++ {
		value := strconv.FormatInt(generation, 10)
		ready(t, s, want(generation, map[string]string{"GENERATION": value}))
		if got := s.env(st.Location)["GENERATION"]; got != value {
			t.Errorf("READY with %s, but %s answers", value, got)
		}
	}
	close(stop)
	load.Wait()
	if lost.Load() > 0 {
		t.Errorf("%d of %d requests were lost", lost.Load(), asked.Load())
	}
}

func TestFailedStartKeepsWhatServes(t *testing.T) {
	s := newStandInSite(t)
	st := ready(t, s, want(1, map[string]string{"A": "old"}))
	s.script("syntax error")
	failed, err := s.PushEnv(t.Context(), want(2, credentials))
	if err != nil || failed.State != plugins.StateFailed || failed.ServingGeneration != 1 ||
		!strings.Contains(failed.Diagnostic.Message, "SyntaxError near [redacted]") {
		t.Errorf("%+v %+v, %v", failed, failed.Diagnostic, err)
	}
	if now := observe(t, s); now != st || s.env(st.Location)["A"] != "old" {
		t.Errorf("observed %+v", now)
	}
}

func TestCrashedAndRestartedWorkersComeBackWithTheirEnvironment(t *testing.T) {
	s := newStandInSite(t)
	st := ready(t, s, want(1, credentials))
	resp, err := http.Get(st.Location + "/crash") // also ends the process that is given the request again
	if err != nil || resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%+v, %v", resp, err)
	}
	_ = resp.Body.Close()
	eventually(t, "READY again", func() bool { return observe(t, s) == st })
	if got := s.env(st.Location); !maps.Equal(got, credentials) {
		t.Errorf("after the crash: %v", got)
	}
	s.close()
	if _, err := http.Get(st.Location); err == nil {
		t.Error("it answers after the end of the driver")
	}
	s.start()
	eventually(t, "READY again", func() bool { return observe(t, s) == st })
	if got := s.env(st.Location); !maps.Equal(got, credentials) {
		t.Errorf("after the restart: %v", got)
	}
}

func TestRemovedWorkerIsGoneAndTheOthersStay(t *testing.T) {
	s := newStandInSite(t)
	st := ready(t, s, want(3, credentials))
	remove := plugins.RemoveRequest{App: "app", Target: web, Generation: 2, Fence: 1}
	if err := s.RemoveEnv(t.Context(), remove); !errors.Is(err, plugins.ErrStale) {
		t.Errorf("a stale removal: %v", err)
	}
	remove.Generation = 3
	for range 2 {
		if err := s.RemoveEnv(t.Context(), remove); err != nil {
			t.Error(err)
		}
	}
	if now := observe(t, s); now.Present || now.Location != "" {
		t.Errorf("observed %+v", now)
	}
	if next := ready(t, s, want(1, credentials)); !maps.Equal(s.env(next.Location), credentials) {
		t.Errorf("%s and then %s", st.Location, next.Location)
	}
}
