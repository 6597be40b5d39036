package runtimefile

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warifu/warifu/plugins"
)

// served runs the runtime as a real plugin process.
func served(t *testing.T, dir, state string) *plugins.Runtime {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host, err := plugins.NewHost(plugins.HostOptions{Logger: slog.New(slog.DiscardHandler), Dir: t.TempDir(),
		Backoff: plugins.Backoff{Min: time.Millisecond, Max: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	r, err := host.Runtime(plugins.Spec{Name: "file", Path: path, Args: []string{"serve"}, Config: config(t, dir),
		StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServedAsAPluginItKeepsTheRules(t *testing.T) {
	t.Parallel()
	dir, state := t.TempDir(), t.TempDir()
	r := served(t, dir, state)
	if st, err := r.PushEnv(t.Context(), want(2, credentials)); err != nil || st.State != plugins.StateReady {
		t.Fatalf("%+v, %v", st, err)
	}
	r = served(t, dir, state) // another process finds everything at the target
	if _, err := r.PushEnv(t.Context(), want(1, credentials)); !errors.Is(err, plugins.ErrStale) {
		t.Errorf("older generation: %v", err)
	}
	if _, err := r.PushEnv(t.Context(), want(2, map[string]string{"A": "b"})); !errors.Is(err, plugins.ErrDigestConflict) {
		t.Errorf("other digest: %v", err)
	}
	if st, err := r.ObserveEnv(t.Context(), "app", web); err != nil || st.State != plugins.StateReady ||
		st.ServingGeneration != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := r.RemoveEnv(t.Context(), plugins.RemoveRequest{App: "app", Target: web, Generation: 2,
		Fence: 1}); err != nil {
		t.Error(err)
	}
	if st, err := r.ObserveEnv(t.Context(), "app", web); err != nil || st.Present {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestRacersOnOneTargetLeaveTheNewestGenerationWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := served(t, dir, t.TempDir())
	const newest = 64
	var racers sync.WaitGroup
	for generation := range int64(newest) {
		racers.Go(func() {
			_, err := r.PushEnv(t.Context(), want(generation+
				1, map[string]string{"GENERATION": strconv.FormatInt(generation+1, 10)}))
			if err != nil && !errors.Is(err, plugins.ErrStale) {
				t.Error(err)
			}
		})
	}
	racers.Wait()
	st, err := r.ObserveEnv(t.Context(), "app", web)
	if err != nil || st.State != plugins.StateReady || st.ServingGeneration != newest {
		t.Errorf("%+v, %v", st, err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "app", "worker-web.env"))
	if err != nil || readSystemd(string(content))["GENERATION"] != strconv.Itoa(newest) {
		t.Errorf("%s, %v", content, err)
	}
}

var generationLine = regexp.MustCompile(`(?m)^# warifu-generation: (\d+)$`)

func TestKilledWhileWritingLeavesTheOldFileOrTheNew(t *testing.T) {
	dir := t.TempDir()
	r := served(t, dir, t.TempDir())
	file := filepath.Join(dir, "app", "worker-web.env")
	long := strings.Repeat("x", 1<<20) // writing takes a while
	kills := 0
	for generation := int64(1); generation <= 40 && kills < 8; generation++ {
		done := make(chan error, 1)
		go func() {
			_, err := r.PushEnv(t.Context(), want(generation, map[string]string{"GENERATION": strconv.FormatInt(generation, 10),
				"LONG": long}))
			done <- err
		}()
		if generation%2 == 0 {
			kills += killWhileWriting(t, filepath.Dir(file), done)
		} else if err := <-done; err != nil {
			var backoff *plugins.BackoffError
			if !errors.As(err, &backoff) {
				t.Fatal(err)
			}
			<-time.After(time.Until(backoff.NextTry))
		}
		content, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		env, header := readSystemd(string(content)), generationLine.FindStringSubmatch(string(content))
		if header == nil || env["GENERATION"] != header[1] || env["LONG"] != long {
			t.Fatalf("half written: %.300s", content)
		}
	}
	if kills == 0 {
		t.Fatal("the plugin was never killed while it wrote")
	}
	// What the killed ones left beside the file goes with the next push.
	for {
		_, err := r.PushEnv(t.Context(), want(1000, credentials))
		var backoff *plugins.BackoffError
		if errors.As(err, &backoff) {
			<-time.After(time.Until(backoff.NextTry))
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// killWhileWriting kills the plugin as soon as its temporary file is there, and
// waits for the end of the push. It gives 0 when the push ended before.
func killWhileWriting(t *testing.T, dir string, done <-chan error) int {
	t.Helper()
	for {
		select {
		case err := <-done:
			t.Logf("the push ended before it could be killed: %v", err)
			return 0
		default:
		}
		temporary, err := filepath.Glob(filepath.Join(dir, ".worker-web.env*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(temporary) > 0 {
			_ = onlyChild(t).Kill() // may have died of the last one
			if err := <-done; err == nil {
				t.Log("the push ended before the kill came")
			}
			return 1
		}
	}
}

// onlyChild finds the plugin of a test that does not run beside others.
func onlyChild(t *testing.T) *os.Process {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
			child, err := os.FindProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			return child
		}
	}
	t.Fatal("the plugin is not running")
	return nil
}
