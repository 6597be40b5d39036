package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// A key file holds 32 bytes in base64, or several such keys, one a line, newest first: so it is while a key that this
// program has made itself is replaced. The file is replaced as a whole, so it is complete whenever a process ends.

// ReadKEK reads key files, newest first, such as `openssl rand -base64 32` prints.
func ReadKEK(files ...string) (*KEK, error) {
	var keys [][]byte
	for _, file := range files {
		some, err := readKeyFile(file)
		if err != nil {
			return nil, err
		}
		keys = append(keys, some...)
	}
	return NewKEK(keys...)
}

// ReadOwnKEK reads the key file that a database keeps itself, and behind its keys those that were put aside beside it
// ([Store.Reseal]): backups from before need them.
func ReadOwnKEK(file string) (*KEK, error) {
	aside, err := filepath.Glob(globbed(file) + "." + strings.Repeat("[0-9a-f]", 2*kekIDLen))
	if err != nil {
		return nil, fmt.Errorf("read encryption keys: %w", err)
	}
	return ReadKEK(append([]string{file}, aside...)...)
}

// globbed is a path as a pattern that it alone matches.
func globbed(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func readKeyFile(file string) (keys [][]byte, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read encryption key: %w", err)
	}
	for line := range bytes.Lines(bytes.TrimSpace(text)) {
		key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(line)))
		if err != nil || len(key) != chacha20poly1305.KeySize {
			keys = nil
			break
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read encryption key: %s must hold 32 bytes in base64 (make one with: openssl "+
			"rand -base64 32)",
			file)
	}
	return keys, nil
}

// CreateKEKFile writes a new random key to file, mode 0600, unless the file exists. The directory must exist.
func CreateKEKFile(file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	return wrapKeyFile(createKeyFile(file, newKEKSecret()))
}

func newKEKSecret() []byte {
	key := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return key
}

func wrapKeyFile(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	return nil
}

// ErrKeyFile means that a file with an encryption key cannot be written.
var ErrKeyFile = errors.New("write encryption key")

// createKeyFile makes a file that holds keys, unless it exists.
func createKeyFile(file string, keys ...[]byte) error {
	return writeKeys(file, keys, func(temporary string) error {
		// Link fails if the file has appeared in the meantime, so a key that is in use already is never replaced.
		return ignore(os.Link(temporary, file), os.ErrExist)
	})
}

// replaceKeyFile makes or replaces a file that holds keys, newest first.
func replaceKeyFile(file string, keys ...[]byte) error {
	return writeKeys(file, keys, func(temporary string) error { return os.Rename(temporary, file) })
}

func writeKeys(file string, keys [][]byte, place func(temporary string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	for _, key := range keys {
		if err == nil {
			_, err = tmp.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
		}
	}
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := place(tmp.Name()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// syncDir has the names in a directory outlive a loss of power.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// renewKeyFile puts a new key in front of those in a file, and returns all of them.
func renewKeyFile(file string) (*KEK, error) {
	keys, err := readKeyFile(file)
	if err != nil {
		return nil, err
	}
	keys = append([][]byte{newKEKSecret()}, keys...)
	if err := replaceKeyFile(file, keys...); err != nil {
		return nil, wrapKeyFile(err)
	}
	return NewKEK(keys...)
}

// retireKeys leaves the first key alone in a file. The others go to files of their own beside it, which are named: what
// was backed up before is sealed under them.
func retireKeys(file string) (kek *KEK, retired []string, err error) {
	keys, err := readKeyFile(file)
	if err != nil {
		return nil, nil, err
	}
	all, err := NewKEK(keys...)
	if err != nil {
		return nil, nil, err
	}
	for i, fingerprint := range all.fingerprints()[1:] {
		old := file + "." + fingerprint
		if err := createKeyFile(old, keys[i+1]); err != nil {
			return nil, nil, wrapKeyFile(err)
		}
		retired = append(retired, old)
	}
	if err := replaceKeyFile(file, keys[0]); err != nil {
		return nil, nil, wrapKeyFile(err)
	}
	kek, err = NewKEK(keys[0])
	return kek, retired, err
}
