package plugins

import (
	"bufio"
	"crypto/tls"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/warifu/warifu/plugins/pluginpb"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestStrangerWhoFindsTheSocketCannotTalk(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	hook.pid(t)
	sockets, err := filepath.Glob(filepath.Join(h.sockets.root, "*", "*", "*"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets: %v, %v", sockets, err)
	}
	for dir := filepath.Dir(sockets[0]); dir != filepath.Dir(h.sockets.root); dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", dir, info.Mode(), err)
		}
	}
	for name, creds := range map[string]credentials.TransportCredentials{
		"without TLS": insecure.NewCredentials(),
		// Even who trusts the plugin is not trusted by it
		"TLS without our key":   credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}),
		"TLS with another host": credentials.NewTLS(&tls.Config{ServerName: "localhost"}),
	} {
		conn, err := grpc.NewClient("unix:"+sockets[0], grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pluginpb.NewDeployHookClient(conn).Describe(t.Context(), &pluginpb.DescribeRequest{}); err == nil {
			t.Errorf("%s: a stranger was answered", name)
		}
		_ = conn.Close()
	}
}

func TestCloseEndsEveryProcessAndRemovesTheSockets(t *testing.T) {
	t.Parallel()
	h, logs := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	pid := hook.pid(t)
	root := h.sockets.root
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pid)
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the sockets are still there: %v", err)
	}
	if _, err := hook.Evaluate(t.Context(), script("")); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
	if _, err := h.Hook(roleSpec("hook")); !errors.Is(err, ErrClosed) {
		t.Errorf("a declaration after Close: %v", err)
	}
	if strings.Contains(logs.String(), "not running") {
		t.Error("closing is told as a failure")
	}
}

func TestCloseDoesNotWaitForAStoppedPlugin(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{Deadlines: shortDeadlines()})
	pid := testHook(t, h, roleSpec("hook")).pid(t)
	stop(t, pid)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pid)
}

func TestCloseDuringAStartEndsIt(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("silent"))
	_, wait, err := hook.s.state()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	<-wait
}

func TestDeadPluginsSocketIsRemoved(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t, HostOptions{Backoff: Backoff{Min: time.Hour}})
	hook := testHook(t, h, roleSpec("hook"))
	p, err := hook.s.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.runner.Load().kill()
	<-p.runner.Load().exited
	if err := h.Close(); err != nil { // waits until the process is cleaned up
		t.Fatal(err)
	}
	if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
}

func TestWhatAKilledHostLeftIsRemovedByTheNext(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	host, _ := startHost(t, dir)
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait() // killed
	left, _ := filepath.Glob(filepath.Join(dir, socketsPrefix+"*"))
	if len(left) != 1 {
		t.Fatalf("the killed host left %v", left)
	}
	living, _ := testHost(t, HostOptions{Dir: dir})
	testHost(t, HostOptions{Dir: dir})
	if _, err := os.Stat(living.sockets.root); err != nil {
		t.Errorf("a living host's was removed: %v", err)
	}
	if _, err := os.Stat(left[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestHostSIGKILLedLeavesNoOrphan(t *testing.T) {
	t.Parallel()
	for _, without := range []string{"", "without-death-signal"} {
		t.Run("host "+without, func(t *testing.T) {
			host, plugin := startHost(t, shortDir(t), without)
			if err := host.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = host.Wait() // killed
			awaitGone(t, plugin)
		})
	}
}

// shortDir has a path that is short enough for sockets below it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// startHost runs a host in a process of its own and gives its plugin's number.
func startHost(t *testing.T, args ...string) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{asPlugin, "host"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return cmd, pid
}

func TestChildOfAPluginDiesWithItAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	h, logs := testHost(t, HostOptions{})
	testHook(t, h, roleSpec("grandchild")).pid(t)
	logs.await(t, "grandchild ")
	found := regexp.MustCompile(`grandchild (\d+)`).FindStringSubmatch(logs.String())
	if found == nil {
		t.Fatalf("no child:\n%s", logs)
	}
	child, _ := strconv.Atoi(found[1])
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, child)
}

func TestConcurrentFirstCallsStartOneProcess(t *testing.T) {
	t.Parallel()
	h, logs := testHost(t, HostOptions{})
	hook := testHook(t, h, roleSpec("hook"))
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			if _, err := hook.Evaluate(t.Context(), script("")); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if n := strings.Count(logs.String(), `"msg":"plugin started","plugin":"under-test","version"`); n != 1 {
		t.Errorf("%d processes were started", n)
	}
}

func TestSocketDirectoryWithALongPathIsElsewhere(t *testing.T) {
	t.Parallel()
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	h, _ := testHost(t, HostOptions{Dir: long})
	if _, err := testHook(t, h, roleSpec("hook")).Describe(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBackoffDoublesFromMinToMaxWithJitter(t *testing.T) {
	t.Parallel()
	b := Backoff{}.orDefault()
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second,
		9: 256 * time.Second, 10: 5 * time.Minute, 1000: 5 * time.Minute} {
		seen := map[time.Duration]bool{}
		for range 50 {
			got := b.delay(failures)
			if got < want || got > want+want/4 {
				t.Errorf("after %d failures: %s, want %s to a quarter more", failures, got, want)
			}
			seen[got] = true
		}
		if len(seen) < 2 {
			t.Errorf("after %d failures: no jitter", failures)
		}
	}
}
