package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/warifu/warifu/storage"
)

// Files are those that a configuration names.
type Files struct {
	// Certificates with their chains, and Authorities that vouch for others.
	Certificates, Authorities []File
	// Secrets are keys, passwords and tokens.
	Secrets []File
	// Data is the directory of the server: whom that belongs to, may own the secrets.
	Data string
	// Embedded: the database is in Data.
	Embedded bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// File is one of them.
type File struct {
	Key  string // of the configuration, such as web.tlsCert
	Name string
	Host string // that a certificate has to be for; "" for any
}

// Checks look at the files.
func (f Files) Checks() []Check {
	if f.Now == nil {
		f.Now = time.Now
	}
	return []Check{{Name: "files", Look: f.secrets}, {Name: "disk", Look: f.disk},
		{Name: "certificate", Look: f.certificates}}
}

// certificates looks when the certificates of files end. Whether they are believed is seen where they are presented.
func (f Files) certificates(context.Context) ([]Finding, error) {
	now := f.Now()
	var out []Finding
	for _, file := range f.Certificates {
		certs, err := readCertificates(file.Name)
		if err != nil || len(certs) == 0 {
			continue // the configuration is refused for that
		}
		leaf, what := certs[0], file.Key+" ("+file.Name+")"
		found := span(what, leaf, now, "no client that checks it can connect")
		if file.Host != "" && leaf.VerifyHostname(file.Host) != nil {
			found = append(found, warning("get one that names "+file.Host+", unless a proxy in front of it "+
				"presents another one",
				"%s is for %s, and not for %s", what, namesOf(leaf), file.Host))
		}
		if len(found) == 0 {
			found = append(found, fine("%s ends %s (%s)", what, in(now, leaf.NotAfter), date(leaf.NotAfter)))
		}
		out = append(out, found...)
	}
	for _, file := range f.Authorities {
		certs, err := readCertificates(file.Name)
		if err != nil {
			continue
		}
		for _, c := range certs {
			what := file.Key + " (" + file.Name + "): " + nameOf(c.Subject.CommonName, c.Subject.String())
			out = append(out, span(what, c, now,
				"certificates that it vouches for are not trusted")...)
		}
	}
	return out, nil
}

// readCertificates reads all certificates of a file.
func readCertificates(name string) (certs []*x509.Certificate, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return certs, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
}

// secrets looks who may get at the files with secrets, by their modes and owners and those of their directories.
func (f Files) secrets(context.Context) ([]Finding, error) {
	owners := map[int]bool{0: true}
	if info, err := os.Stat(f.Data); err == nil {
		owners[ownerOf(info)] = true
	} else {
		owners[os.Geteuid()] = true // who is going to make it
	}
	var out []Finding
	for _, file := range f.Secrets {
		out = append(out, secret(file, owners)...)
	}
	if len(out) == 0 && len(f.Secrets) > 0 {
		out = append(out, fine("files with keys and secrets: %d, and nobody else gets at them", len(f.Secrets)))
	}
	return out, nil
}

// Room on the disk of an embedded database: it stops when there is none.
const (
	littleRoom = 2 << 30
	noRoom     = 256 << 20
)

// disk looks whether the database has room to grow.
func (f Files) disk(context.Context) ([]Finding, error) {
	if !f.Embedded {
		return nil, nil
	}
	var at syscall.Statfs_t
	if err := syscall.Statfs(f.Data, &at); err != nil {
		return nil, nil // it is made at the first start
	}
	free := int64(at.Bavail) * int64(at.Bsize)
	const remedy = "make room on that disk, or move storage.config.dataDir to another one"
	switch {
	case free < noRoom:
		return []Finding{wrong(remedy, "the disk of %s has %s left: the database stops when that is used",
			f.Data, storage.Bytes(free))}, nil
	case free < littleRoom:
		return []Finding{warning(remedy, "the disk of %s has %s left", f.Data, storage.Bytes(free))}, nil
	}
	return []Finding{fine("the disk of %s has %s left", f.Data, storage.Bytes(free))}, nil
}

func secret(file File, owners map[int]bool) (out []Finding) {
	what := file.Key + " (" + file.Name + ")"
	info, err := os.Stat(file.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // the configuration is refused for that, or it is made at the first start
	case err != nil:
		return []Finding{unknown("run it as the user of the server (sudo -u), or as root", "%s cannot be looked at: %s",
			what, reasonOfFile(err))}
	}
	mode := info.Mode().Perm()
	if mode&0o007 != 0 {
		out = append(out, wrong("chmod o-rwx "+file.Name+"; if others have a login on this machine, replace what is "+
			"in it",
			"every user of this machine can get at %s (mode %04o)", what, mode))
	}
	if mode&0o020 != 0 {
		out = append(out, warning("chmod g-w "+file.Name, "its group can replace %s (mode %04o)", what, mode))
	}
	if owner := ownerOf(info); owner >= 0 && !owners[owner] {
		out = append(out, warning("chown it to the user of the server",
			"%s belongs to the user %d, and the data of the server to another one: "+
				"whoever that is can replace it", what, owner))
	}
	dir := filepath.Dir(file.Name)
	if above, err := os.Stat(dir); err == nil && above.Mode().Perm()&0o002 != 0 && above.Mode()&fs.ModeSticky == 0 {
		out = append(out, wrong("chmod o-w "+dir,
			"every user of this machine can replace %s: its directory %s is open to all (mode %04o)",
			what, dir, above.Mode().Perm()))
	}
	return out
}

// ownerOf is the user whom a file belongs to; -1 if the system does not tell.
func ownerOf(info fs.FileInfo) int {
	if stat, is := info.Sys().(*syscall.Stat_t); is {
		return int(stat.Uid)
	}
	return -1
}

func reasonOfFile(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	return strings.TrimSpace(err.Error())
}
