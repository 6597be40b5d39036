package runtimeworkers

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/chacha20poly1305"
)

// record is what is kept about one Worker between two lives of the plugin.
type record struct {
	App        string `json:"app"`
	Worker     string `json:"worker"`
	Generation int64  `json:"generation"`
	Fence      int64  `json:"fence"`
	Digest     string `json:"digest"`

	// Of the driver workerd.
	Env    map[string]string `json:"env,omitempty"`
	Listen string            `json:"listen,omitempty"` // the address that it got

	// Of the driver cloudflare.
	Script  string   `json:"script,omitempty"`
	Names   []string `json:"names,omitempty"`   // sorted; every secret that may be ours
	Version string   `json:"version,omitempty"` // deployed by our last write; empty: nobody knows whether it happened
	Serving int64    `json:"serving,omitempty"` // the generation before, while Version is empty
}

// store keeps records in files of mode 0600, each sealed with the directory's key
// so that values cannot be read, nor anything changed, without it.
type store struct {
	dir  string
	aead cipher.AEAD
}

// errDamaged is a record that is there but is not as it was written.
var errDamaged = errors.New("the runtime's own record of this Worker was changed, or its key was")

const recordExt = ".record"

// openStore makes the directory and the key when they are missing.
func openStore(stateDir string) (*store, error) {
	dir := filepath.Join(stateDir, "workers")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	key, err := loadKey(filepath.Join(stateDir, "seal.key"))
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("use the seal's key: %w", err)
	}
	return &store{dir: dir, aead: aead}, nil
}

func loadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) == chacha20poly1305.KeySize {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the seal's key: %w", err)
	}
	key = make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key) // never fails
	if err := replace(path, key); err != nil {
		return nil, fmt.Errorf("keep the seal's key: %w", err)
	}
	return key, nil
}

// replace puts a whole file of mode 0600 in the place of path, synced to disk.
func replace(path string, content []byte) error {
	return renameio.WriteFile(path, content, 0o600,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
}

// base is a record's file name: a hash, so that no name of an app can leave the
// directory or meet another.
func base(app, worker string) string {
	sum := sha256.Sum256([]byte(app + "\x00" + worker))
	return hex.EncodeToString(sum[:16]) + recordExt
}

func (s *store) save(r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	name := base(r.App, r.Worker)
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(text)+s.aead.Overhead())
	_, _ = rand.Read(nonce) // never fails
	if err := replace(filepath.Join(s.dir, name), s.aead.Seal(nonce, nonce, text, []byte(name))); err != nil {
		return fmt.Errorf("keep the record: %w", err)
	}
	return nil
}

// load gives nil for a Worker without a record, and errDamaged.
func (s *store) load(app, worker string) (*record, error) { return s.read(base(app, worker)) }

func (s *store) read(name string) (*record, error) {
	sealed, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	if len(sealed) < s.aead.NonceSize() {
		return nil, errDamaged
	}
	nonce, text := sealed[:s.aead.NonceSize()], sealed[s.aead.NonceSize():]
	text, err = s.aead.Open(nil, nonce, text, []byte(name))
	if err != nil {
		return nil, errDamaged
	}
	r := &record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	return r, nil
}

func (s *store) remove(app, worker string) error {
	err := os.Remove(filepath.Join(s.dir, base(app, worker)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record: %w", err)
	}
	return nil
}

// all gives every record that can be read, and takes away what a process that was
// killed while writing left behind.
func (s *store) all() ([]record, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list the records: %w", err)
	}
	var out []record
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), recordExt) {
			if strings.HasPrefix(file.Name(), ".") {
				_ = os.Remove(filepath.Join(s.dir, file.Name())) // it is sealed; tried again at the next start
			}
			continue
		}
		r, err := s.read(file.Name())
		if errors.Is(err, errDamaged) {
			continue // an observation of its Worker tells
		}
		if err != nil {
			return nil, err
		}
		if r != nil {
			out = append(out, *r)
		}
	}
	return out, nil
}
