package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/net/http/httpguts"

	"github.com/warifu/warifu/server/pages"
)

// minSecret is the least that a secret has which nobody has to remember, and which therefore is too long to be guessed.
const minSecret = 32

// readFile reads a file that the configuration names. Its errors, and those of the other functions here, go on after
// the name of the file: "names key.pem, which does not exist".
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, unusable(file, err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("which is larger than %d MiB", maxFile>>20)
	}
	return data, unusable(file, err)
}

// maxFile bounds a file that is named: a bundle of all authorities that there are is below 1 MiB.
const maxFile = 4 << 20

// unusable says why a file or directory cannot be read.
func unusable(file string, err error) error {
	if err == nil {
		return nil
	}
	if info, statErr := os.Stat(file); statErr == nil && info.IsDir() && !errors.Is(err, fs.ErrPermission) {
		return errors.New("which is a directory")
	}
	var at *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("which does not exist")
	case errors.As(err, &at):
		return fmt.Errorf("which cannot be read: %w", at.Err)
	}
	return fmt.Errorf("which cannot be read: %w", err)
}

// readSecret reads a secret that is one line.
func readSecret(file string) (string, error) {
	data, err := readFile(file)
	secret := strings.TrimSpace(string(data))
	if err == nil && secret == "" {
		err = errors.New("which is empty")
	}
	return secret, err
}

func readLongSecret(file string) (string, error) {
	secret, err := readSecret(file)
	if err == nil && len(secret) < minSecret {
		err = fmt.Errorf("which must hold at least %d characters (make a secret with: openssl rand -hex 32)", minSecret)
	}
	return secret, err
}

// readHeaders reads lines of NAME: VALUE. What is wrong is said without what is there: it may be a secret.
func readHeaders(file string) (map[string]string, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	headers := make(map[string]string)
	n := 0
	for line := range strings.Lines(string(data)) {
		if n++; strings.TrimSpace(line) == "" {
			continue
		}
		name, value, found := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || value == "" {
			return nil, fmt.Errorf("which must hold lines of NAME: VALUE, but line %d is not one", n)
		}
		headers[name] = value
	}
	return headers, nil
}

// Who may read the files with secrets. An encryption key opens everything, and the operator makes it with openssl,
// which lets all users of the machine read it: such a file is refused. Other secrets come by tools that mean well
// (Docker mounts them with mode 0444), so they are warned of. That a group can read a file is right where a secret is
// mounted for a user who is not root: Kubernetes does so with fsGroup and defaultMode 0440.

// openToOthers reports whether others than the file's owner and group may read or write it, and its mode. On Windows
// the mode says nothing of that.
func openToOthers(file string) (fs.FileMode, bool) {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || runtime.GOOS == "windows" {
		return 0, false
	}
	return info.Mode().Perm(), info.Mode().Perm()&0o007 != 0
}

// checkPrivate is for files that others must not read.
func checkPrivate(file string) error {
	mode, open := openToOthers(file)
	if !open {
		return nil
	}
	return fmt.Errorf("which every user of this machine can get at (mode %04o): chmod 0600, or 0640 where it belongs to "+
		"a group (Kubernetes: "+
		"defaultMode 0440 and fsGroup); if others had a login here, make a new key and put it in front", mode)
}

// CheckKeyFile is an error if others can get at a file with a key.
func CheckKeyFile(file string) error {
	if mode, open := openToOthers(file); open {
		return fmt.Errorf("every user of this machine can get at the key in %s (mode %04o): chmod 0600 %s; if others have a "+
			"login here, use a new key", file, mode, file)
	}
	return nil
}

// warnOpen warns of a file with a secret that others can read.
func (r *reader) warnOpen(path, file string) {
	if mode, open := openToOthers(file); open {
		r.warn(path, "mode", "names %s, which every user of this machine can get at (mode %04o): chmod o-rwx", file, mode)
	}
}

// MakePrivate takes the rights of others from a file that this program made, and reports whether there were any.
func MakePrivate(file string) (bool, error) {
	if _, open := openToOthers(file); !open {
		return false, nil
	}
	if err := os.Chmod(file, 0o600); err != nil {
		return false, fmt.Errorf("every user of this machine can get at %s, and its mode cannot be changed: %w", file, err)
	}
	return true, nil
}

// readHash reads the hash of a password.
func readHash(file string) ([]byte, error) {
	hash, err := readSecret(file)
	if err == nil {
		if err = checkHash(hash); err != nil {
			err = fmt.Errorf("which %w", err)
		}
	}
	return []byte(hash), err
}

// readLogo reads an image for the pages.
func readLogo(file string) (*pages.Logo, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	return pages.ReadLogo(data)
}

// readAuthorities reads certificates of authorities.
func readAuthorities(file string) (*x509.CertPool, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errors.New("which holds no PEM certificate")
	}
	return pool, nil
}

// KeyError says that a key file is what is wrong with a pair of certificate and key.
type KeyError struct{ Err error }

func (e *KeyError) Error() string { return e.Err.Error() }
func (e *KeyError) Unwrap() error { return e.Err }

// ReadCertificate reads a certificate with its chain, and its key. What is wrong with the key is a [*KeyError].
func ReadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := readFile(certFile)
	if err == nil {
		err = checkCertificate(cert)
	}
	if err != nil {
		return nil, err
	}
	key, err := readFile(keyFile)
	if err != nil {
		return nil, &KeyError{err}
	}
	if bytes.Contains(key, []byte("-----BEGIN ENCRYPTED ")) || bytes.Contains(key, []byte("Proc-Type: 4,ENCRYPTED")) {
		return nil, &KeyError{errors.New("which is encrypted, and nobody is there to type its passphrase: write the key " +
			"without one, for this user alone (umask 077; openssl pkey -in ENCRYPTED -out KEY)")}
	}
	if block, _ := pem.Decode(key); block == nil {
		return nil, &KeyError{errors.New("which holds no PEM key")}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, &KeyError{
			fmt.Errorf("which is not the key of the certificate in %s (%s)", certFile, strings.TrimPrefix(err.Error(), "tls: ")),
		}
	}
	return &pair, nil
}

// checkCertificate finds the first certificate, which is the server's own.
func checkCertificate(data []byte) error {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return errors.New("which holds no PEM certificate")
		}
		if block.Type == "CERTIFICATE" {
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				return fmt.Errorf("which holds a certificate that cannot be read: %w", err)
			}
			return nil
		}
	}
}

// checkDirectory is for directories that have to be there.
func checkDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return errors.New("which is not a directory")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("which does not exist: make it (mkdir -p), or take it out of the list")
	}
	if err == nil {
		_, err = os.ReadDir(dir)
	}
	return unusable(dir, err)
}

// checkMakeable is for directories that are made when a server starts: what is above them must be directories.
func checkMakeable(dir string) error {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && info.IsDir():
			const write, search = 2, 1 // as in access(2)
			if err := syscall.Access(at, write|search); err != nil && at == filepath.Clean(dir) {
				return fmt.Errorf("which this user may not write to: %w", err)
			} else if err != nil {
				return fmt.Errorf("which cannot be made: this user may not write to %s: %w", at, err)
			}
			return nil
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("which this user may not look at: %w", err)
		case err != nil && isLink(at):
			return fmt.Errorf("which cannot be made: %s is a symbolic link to what does not exist", at)
		case err == nil && at == filepath.Clean(dir):
			return errors.New("which is not a directory")
		case err == nil, at == filepath.Dir(at):
			return fmt.Errorf("which cannot be made: %s is not a directory", at)
		}
	}
}

func isLink(file string) bool {
	info, err := os.Lstat(file)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// maxSocketPath is what fits into sockaddr_un with its NUL.
const maxSocketPath = 107

// SocketAddress is the shortest spelling of a Unix socket's path, because a path of more than 107 bytes cannot be
// bound or connected to.
func SocketAddress(path string) (string, error) {
	if len(path) <= maxSocketPath {
		return path, nil
	}
	if wd, err := os.Getwd(); err == nil {
		if absolute, err := filepath.Abs(path); err == nil {
			if relative, err := filepath.Rel(wd, absolute); err == nil && len(relative) <= maxSocketPath {
				return relative, nil
			}
		}
	}
	return "", fmt.Errorf("the path of the admin socket has %d bytes, and a Unix socket takes at most %d: "+
		"choose a shorter one (admin.socket, --data or --admin): %s", len(path), maxSocketPath, path)
}

// CheckSocket says what is wrong with the path of a socket that a server is going to listen on. A socket that is
// there may be one that a dead process left behind.
func CheckSocket(path string) error {
	if _, err := SocketAddress(path); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	return nil
}
