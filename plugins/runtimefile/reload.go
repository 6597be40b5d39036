package runtimefile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/warifu/warifu/plugins"
)

// reloadTime is how long the reload command may take. It fits into the time that the host gives a push.
const reloadTime = 20 * time.Second

// reloader runs the configured command after an env file has changed, one at a time. That a reload is due is noted in the
// state directory before the file changes, and forgotten when the command has succeeded: nothing gets lost on the way.
type reloader struct {
	argv []string // empty: no command
	dir  string   // of the notes

	running sync.Mutex // held while a command runs
}

func newReloader(argv []string, stateDir string) (*reloader, error) {
	r := &reloader{argv: argv, dir: filepath.Join(stateDir, "reload")}
	if len(argv) == 0 {
		return r, nil
	}
	if !filepath.IsAbs(argv[0]) {
		return nil, fmt.Errorf("%w: reload must begin with the absolute path of a program, and %q is none", plugins.ErrInvalid, argv[0])
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, fmt.Errorf("%w: reload: %w", plugins.ErrInvalid, err)
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	return r, nil
}

func (r *reloader) note(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(r.dir, hex.EncodeToString(sum[:16]))
}

// soon notes that the file at path is about to change, and which generation serves until it is reloaded.
func (r *reloader) soon(path string, serving int64) error {
	if len(r.argv) == 0 {
		return nil
	}
	if _, due := r.due(path); due {
		return nil // the note has the generation that really serves
	}
	if err := replace(r.note(path), []byte(strconv.FormatInt(serving, 10))); err != nil {
		return fmt.Errorf("note that a reload is due: %w", err)
	}
	return nil
}

// due says whether a reload is due, and which generation serves until then.
func (r *reloader) due(path string) (serving int64, due bool) {
	if len(r.argv) == 0 {
		return 0, false
	}
	content, err := os.ReadFile(r.note(path))
	if err != nil {
		return 0, false
	}
	serving, err = strconv.ParseInt(string(content), 10, 64)
	if err != nil {
		serving = 0 // nothing that is known
	}
	return serving, true
}

// run reloads, if that is due.
func (r *reloader) run(ctx context.Context, path, app string, t plugins.Target) error {
	if _, due := r.due(path); !due {
		return nil
	}
	r.running.Lock()
	defer r.running.Unlock()
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	fill := strings.NewReplacer("{app}", app, "{kind}", t.Kind, "{name}", t.Name, "{file}", path)
	argv := make([]string, len(r.argv))
	for i, arg := range r.argv {
		argv[i] = fill.Replace(arg)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "/", &said, &said, time.Second
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the reload command failed: %w: %s", err, firstLine(said.String()))
	}
	if err := os.Remove(r.note(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget that a reload was due: %w", err)
	}
	return nil
}

// firstLine is what a command said first, shortened.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.ToValidUTF8(line[:min(len(line), 200)], "")
}

// unreloaded is the status of a file that is what it should be, while the program that reads it does not know yet.
func unreloaded(st plugins.Status, serving int64, message string) plugins.Status {
	st.State, st.ServingGeneration = plugins.StateFailed, serving
	st.Diagnostic = &plugins.Diagnostic{
		Message: message, Retryable: true,
		Remedy: "mend the command under reload in the runtime's config, or what it reloads; it is tried again by itself",
	}
	return st
}
