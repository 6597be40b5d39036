// Package runtimefile is the built-in runtime `file`: it keeps one env file for
// each target, for systemd's EnvironmentFile=, compose's env_file, wrangler's
// .dev.vars, or whatever reads KEY=value.
//
// Config is {"dir": "/absolute/directory", "reload": ["/bin/systemctl", "reload", "{app}-{name}"]}. The file of a
// target is dir/app/kind-name.env, mode 0600 in directories of mode 0700. It is replaced in one step and synced to
// disk: a reader sees the old file or the new one, a crash leaves one of them.
//
// A file belongs to several people. Ours is a marked block at its top, with the
// generation, fence and digest that it came with; the rest is left as it is, also
// when the block is taken away. The exception are other assignments to the names
// in the block: they go, because two values of one name mean something else to
// each reader.
//
// The block carries a seal. A block that was edited, or files that another
// installation wrote, are reported as drift and put right by the next push, also
// one of the same generation. The seal's key is sealKey in the config, which the
// server gives to all its replicas alike: they may share a directory. Without one
// the runtime makes a key of its own in its state directory. What was sealed with
// that before there was a sealKey is still its own.
//
// reload, which may be left out, is a program with its arguments, run without a
// shell after a file has changed; {app}, {kind}, {name} and {file} in it are filled
// in. The target is READY when it has succeeded. A failure is reported and tried
// again, also after a restart, or by another replica on the same directory, which
// finds in dir/.reload what is due; that of a removal is only logged, because what
// would be reloaded may be gone.
//
// The generation lives in the file. When the file is gone so is its history, and
// a push of any generation makes it anew.
package runtimefile

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"github.com/warifu/warifu/plugins"
)

// Serve runs the runtime as a plugin process; it returns when the host ends it.
func Serve() { plugins.ServeRuntime(&fileRuntime{}) }

// fileRuntime is safe for several goroutines once it is configured. One lock for
// all files is enough: a write takes a millisecond.
type fileRuntime struct {
	dir    string
	keys   [][]byte // the first one seals
	reload *reloader

	mu sync.Mutex // held from reading a file to replacing it
}

func (r *fileRuntime) Describe() plugins.Description {
	return plugins.Description{Name: "file", Version: "1.0.0"}
}

// Configure checks the settings, makes the directory, and finds the seal's key.
func (r *fileRuntime) Configure(_ context.Context, config json.RawMessage, stateDir string) error {
	var settings struct {
		Dir     string   `json:"dir"`
		Reload  []string `json:"reload"`
		SealKey []byte   `json:"sealKey"` // secret
	}
	decoder := json.NewDecoder(strings.NewReader(string(config)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&settings); err != nil {
		return fmt.Errorf("%w: the config of the runtime file is {\"dir\": \"/absolute/directory\", \"reload\": "+
			"[\"/program\", \"argument\"]}: %w", plugins.ErrInvalid, err)
	}
	if !filepath.IsAbs(settings.Dir) {
		return fmt.Errorf("%w: dir %q is not an absolute path", plugins.ErrInvalid, settings.Dir)
	}
	if !filepath.IsAbs(stateDir) {
		return fmt.Errorf("%w: the runtime file needs a state directory", plugins.ErrInvalid)
	}
	for _, dir := range []string{settings.Dir, stateDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	keys, err := sealKeys(settings.SealKey, filepath.Join(stateDir, "seal.key"))
	if err != nil {
		return err
	}
	r.dir, r.keys = settings.Dir, keys
	r.reload, err = newReloader(settings.Reload, settings.Dir, stateDir, &r.mu)
	return err
}

const sealKeySize = 32

// sealKeys are the configured key and, if there is none, one of the runtime's own in a file, which is made where it
// must be.
func sealKeys(configured []byte, path string) ([][]byte, error) {
	if len(configured) != 0 && len(configured) != sealKeySize {
		return nil, fmt.Errorf("%w: sealKey has %d bytes, not %d", plugins.ErrInvalid, len(configured), sealKeySize)
	}
	own, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the seal's key: %w", err)
	}
	var keys [][]byte
	if len(configured) > 0 {
		keys = append(keys, configured)
	}
	if len(own) == sealKeySize {
		return append(keys, own), nil
	}
	if len(keys) > 0 {
		return keys, nil
	}
	key := make([]byte, sealKeySize)
	_, _ = rand.Read(key) // never fails
	if err := replace(path, key); err != nil {
		return nil, fmt.Errorf("keep the seal's key: %w", err)
	}
	return [][]byte{key}, nil
}

// PushEnv follows the rules of the contract by what the file's block says. A push that another one overtakes while the
// command runs is [plugins.ErrStale]: what is in the file by then is not what it asked for.
func (r *fileRuntime) PushEnv(ctx context.Context, req plugins.PushRequest) (plugins.Status, error) {
	path, err := r.path(req.App, req.Target)
	if err != nil {
		return plugins.Status{}, err
	}
	st, err := r.write(ctx, path, req)
	if err != nil || st.State == plugins.StateFailed && st.Diagnostic != nil && !st.Diagnostic.Retryable {
		return st, err
	}
	if err := r.reload.run(ctx, path, req.App, req.Target); err != nil {
		serving, _ := r.reload.due(path)
		return unreloaded(st, serving, err.Error()), nil
	}
	file, err := read(path)
	if err != nil {
		return plugins.Status{}, err
	}
	if err := plugins.Admit(file.held(), req); err != nil {
		return plugins.Status{}, err
	}
	return r.status(path, file), nil
}

// write brings the file to what is pushed.
func (r *fileRuntime) write(ctx context.Context, path string, req plugins.PushRequest) (plugins.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	file, err := read(path)
	if err != nil {
		return plugins.Status{}, err
	}
	if err := plugins.Admit(file.held(), req); err != nil {
		return plugins.Status{}, err
	}
	if err := ctx.Err(); err != nil {
		return plugins.Status{}, err // nobody waits for it any more
	}
	body, err := writeBody(req.Env)
	if err != nil {
		return r.refused(path, file, err), nil
	}
	want := header{generation: req.Generation, fence: req.Fence, digest: req.Digest,
		names: slices.Sorted(maps.Keys(req.Env))}
	content := render(r.keys[0], want, body, file.others())
	if now, err := os.ReadFile(path); err != nil || string(now) != content {
		if err := r.reload.soon(path, r.serving(path, file)); err != nil {
			return plugins.Status{}, err
		}
	}
	if err := r.put(path, content); err != nil {
		return plugins.Status{}, err
	}
	return r.status(path, parseEnvFile(content)), nil
}

// held is what the file says that the target has.
func (f envFile) held() plugins.Held {
	if f.header == nil {
		return plugins.Held{}
	}
	return plugins.Held{Generation: f.header.generation, Fence: f.header.fence, Digest: f.header.digest}
}

// put writes a file unless it already is what it should be, and sees to the
// modes in any case.
func (r *fileRuntime) put(path, content string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the app's directory: %w", err)
	}
	info, err := os.Lstat(path)
	if err == nil && info.Mode() == 0o600 {
		if now, err := os.ReadFile(path); err == nil && string(now) == content {
			return nil
		}
	}
	if err := removeTemporaries(path); err != nil {
		return err
	}
	return replace(path, []byte(content))
}

// replace puts a whole file of mode 0600 in the place of path and syncs both
// file and directory.
func replace(path string, content []byte) error {
	dir := filepath.Dir(path)
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("make the new file: %w", err)
	}
	defer func() { _ = file.Cleanup() }() // nothing is left to clean after the replacement
	if _, err := file.Write(content); err != nil {
		return fmt.Errorf("write the new file: %w", err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("replace the file: %w", err)
	}
	return syncDir(dir)
}

// removeTemporaries takes away what a process that was killed while writing left
// beside the file: it holds secrets.
func removeTemporaries(path string) error {
	dir, base := filepath.Split(path)
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for temporary files: %w", err)
	}
	for _, entry := range names {
		if strings.HasPrefix(entry.Name(), "."+base) {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove a temporary file: %w", err)
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open the directory: %w", err)
	}
	defer func() { _ = d.Close() }() // opened for reading
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync the directory: %w", err)
	}
	return nil
}

func read(path string) (envFile, error) {
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return envFile{}, fmt.Errorf("read the env file: %w", err)
	}
	return parseEnvFile(string(content)), nil
}

// ObserveEnv reads the file; it changes nothing.
func (r *fileRuntime) ObserveEnv(_ context.Context, app string, t plugins.Target) (plugins.Status, error) {
	path, err := r.path(app, t)
	if err != nil {
		return plugins.Status{}, err
	}
	file, err := read(path)
	if err != nil {
		return plugins.Status{}, err
	}
	return r.status(path, file), nil
}

// status says what a file has: the block as we wrote it, or in which way it is
// not.
func (r *fileRuntime) status(path string, file envFile) plugins.Status {
	st := plugins.Status{State: plugins.StateFailed, Location: path, Present: file.marked}
	if h := file.header; h != nil {
		st.AcceptedGeneration, st.Digest = h.generation, h.digest
		if file.intact(r.keys) {
			st.State, st.ServingGeneration, st.Instances = plugins.StateReady, h.generation, 1
			if serving, due := r.reload.due(path); due {
				return unreloaded(st, serving, "the env file is there, and the reload command has not succeeded since")
			}
			return st
		}
	}
	st.Diagnostic = &plugins.Diagnostic{Retryable: true, Remedy: "apply the app again; the file is then put right"}
	if file.marked {
		st.Diagnostic.Message = "warifu's block in the env file was changed by somebody else"
	} else {
		st.Diagnostic.Message = "the env file is missing, or has no block of warifu's"
	}
	return st
}

// serving is the generation that a file's reader has.
func (r *fileRuntime) serving(path string, file envFile) int64 {
	return r.status(path, file).ServingGeneration
}

// refused is the status after a push that cannot be written: what was there
// still serves.
func (r *fileRuntime) refused(path string, file envFile, err error) plugins.Status {
	st := r.status(path, file)
	st.State = plugins.StateFailed
	st.Diagnostic = &plugins.Diagnostic{
		Message: err.Error(),
		Remedy:  "give the variable a value without line ends, control characters and mixed quoting",
	}
	return st
}

// RemoveEnv takes our block away, and the file with it when nothing else is in
// it.
func (r *fileRuntime) RemoveEnv(ctx context.Context, req plugins.RemoveRequest) error {
	path, err := r.path(req.App, req.Target)
	if err != nil {
		return err
	}
	if err := r.remove(path, req); err != nil {
		return err
	}
	if err := r.reload.run(ctx, path, req.App, req.Target); err != nil {
		fmt.Fprintln(os.Stderr, err) // the host logs it
	}
	return nil
}

func (r *fileRuntime) remove(path string, req plugins.RemoveRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	file, err := read(path)
	if err != nil {
		return err
	}
	if !file.marked {
		return nil
	}
	if err := plugins.AdmitRemoval(file.held(), req); err != nil {
		return err
	}
	if err := r.reload.soon(path, 0); err != nil {
		return err
	}
	if others := file.others(); others != "" {
		return r.put(path, others)
	}
	if err := removeTemporaries(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the env file: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.Remove(dir); err == nil { // the app's last file; fails when it was not
		return syncDir(r.dir)
	}
	return syncDir(dir)
}

// ListTargets reads the directory: the files that have a block of ours.
func (r *fileRuntime) ListTargets(_ context.Context, app string) ([]plugins.AppTarget, error) {
	apps, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("list the apps: %w", err)
	}
	var out []plugins.AppTarget
	for _, entry := range apps {
		name, ok := decodeName(entry.Name())
		if !ok || !entry.IsDir() || app != "" && app != name {
			continue
		}
		targets, err := r.appTargets(filepath.Join(r.dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		for _, t := range targets {
			out = append(out, plugins.AppTarget{App: name, Target: t})
		}
	}
	return out, nil
}

func (r *fileRuntime) appTargets(dir string) ([]plugins.Target, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // removed meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("list an app's files: %w", err)
	}
	var out []plugins.Target
	for _, entry := range files {
		t, ok := target(entry.Name())
		if !ok {
			continue
		}
		file, err := read(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		if file.marked {
			out = append(out, t)
		}
	}
	return out, nil
}
