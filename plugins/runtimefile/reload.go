package runtimefile

import (
	"bytes"
	"context"
	"crypto/rand"
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

// reloader runs the configured command after an env file has changed, one at a time. That a reload is due is noted
// beside the env files before the file changes, and forgotten when the command has succeeded: nothing gets lost on the
// way, also when another replica on the same directory has to go on. Each change makes a note of its own, and a command
// forgets only the one that it began with: a file that changes while a command runs is due again.
type reloader struct {
	argv  []string    // empty: no command
	dir   string      // of the env files
	old   string      // where older versions noted what is due
	files *sync.Mutex // held while a file and its note change, and while a note is read to be acted on

	running sync.Mutex // held while a command runs
}

func newReloader(argv []string, dir, stateDir string, files *sync.Mutex) (*reloader, error) {
	r := &reloader{argv: argv, dir: dir, old: filepath.Join(stateDir, "reload"), files: files}
	if len(argv) == 0 {
		return r, nil
	}
	if !filepath.IsAbs(argv[0]) {
		return nil, fmt.Errorf("%w: reload must begin with the absolute path of a program; %q is not one",
			plugins.ErrInvalid, argv[0])
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, fmt.Errorf("%w: reload: %w", plugins.ErrInvalid, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, noteDir), 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	return r, nil
}

// noteDir is below the directory of env files; no app has a directory of that name.
const noteDir = ".reload"

// notes are where it may be noted that the file at path is due: a note is made in the first place.
func (r *reloader) notes(path string) [2]string {
	name := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:16])
	}
	below := strings.TrimPrefix(path, r.dir) // replicas may reach the directory by different paths
	return [...]string{filepath.Join(r.dir, noteDir, name(below)), filepath.Join(r.old, name(path))}
}

// soon notes that the file at path is about to change, and which generation serves until it is reloaded. The caller
// holds files.
func (r *reloader) soon(path string, serving int64) error {
	if len(r.argv) == 0 {
		return nil
	}
	if really, due := r.due(path); due {
		serving = really // not what was written meanwhile
	}
	note := strconv.FormatInt(serving, 10) + " " + rand.Text()
	if err := replace(r.notes(path)[0], []byte(note)); err != nil {
		return fmt.Errorf("note that a reload is due: %w", err)
	}
	return nil
}

// due says whether a reload is due, and which generation serves until then.
func (r *reloader) due(path string) (serving int64, due bool) {
	if len(r.argv) == 0 {
		return 0, false
	}
	note, due := r.noted(path)
	if !due {
		return 0, false
	}
	generation, _, _ := strings.Cut(note, " ")
	serving, err := strconv.ParseInt(generation, 10, 64)
	if err != nil {
		serving = 0 // nothing that is known
	}
	return serving, true
}

// noted is the note about the file at path.
func (r *reloader) noted(path string) (note string, found bool) {
	for _, place := range r.notes(path) {
		if content, err := os.ReadFile(place); err == nil {
			return string(content), true
		}
	}
	return "", false
}

// run reloads, if that is due.
func (r *reloader) run(ctx context.Context, path, app string, t plugins.Target) error {
	if len(r.argv) == 0 {
		return nil
	}
	r.running.Lock()
	defer r.running.Unlock()
	r.files.Lock() // a file that is about to change has its note already, but not its content
	note, due := r.noted(path)
	r.files.Unlock()
	if !due {
		return nil
	}
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
	return r.forget(path, note)
}

// forget takes away the note that a command began with, unless the file has changed since.
func (r *reloader) forget(path, note string) error {
	r.files.Lock()
	defer r.files.Unlock()
	if now, _ := r.noted(path); now != note {
		return nil
	}
	for _, place := range r.notes(path) {
		if err := os.Remove(place); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget that a reload was due: %w", err)
		}
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
		Remedy: "correct the command under reload in the runtime's config, or what it reloads; it is retried automatically",
	}
	return st
}
