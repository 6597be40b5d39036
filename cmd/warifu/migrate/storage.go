package migrate

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"regexp"
	"slices"
	"strings"
)

// storages are the kinds of storage that Dex has, with what becomes of each but etcd.
var storages = map[string]string{
	"sqlite3": "becomes embedded: the database is in this process, as sqlite3 was",
	"memory": "becomes embedded: unlike Dex's it is on disk, so a restart ends nothing; for a server without a disk of " +
		"its own, mount one at storage.config.dataDir",
	"postgres": "becomes embedded, for one server: SQL databases are not supported here. " +
		"With more than one replica use type etcd, with a cluster of three",
	"mysql": "becomes embedded, for one server: SQL databases are not supported here. " +
		"With more than one replica use type etcd, with a cluster of three",
	"kubernetes": "becomes embedded, for one pod with a volume at storage.config.dataDir (a StatefulSet): nothing " +
		"is kept " +
		"in custom resources here. With more than one replica use type etcd, with a cluster of three",
	"etcd": "stays etcd, below a prefix of its own (namespace): Dex's keys are left as they are",
}

func (m *migration) takeStorage(root *section) {
	s := root.section("storage")
	kind := s.text("type")
	known := make([]string, 0, len(storages))
	for name := range storages {
		known = append(known, name)
	}
	slices.Sort(known)
	switch word := storages[kind.String()]; {
	case kind == nil && m.source.argo != nil: // Argo CD says it to its Dex
	case kind == nil:
		m.fault(root.itself(), "required", "", "has no storage.type: one of %s", strings.Join(known, ", "))
	case word == "":
		m.fault(kind, "value", "", "must be one of %s, but is %q", strings.Join(known, ", "), kind)
	default:
		m.list(kind, "%s", word)
	}
	ours := "embedded"
	if kind.String() == "etcd" {
		ours = "etcd"
	}
	m.config.put("storage.type", text(ours), kind)
	m.config.put("storage.config.dataDir", text(m.in("data")), nil)
	if kind.String() == "etcd" {
		m.takeEtcd(kind, s.section("config"))
	} else {
		s.left("config", "it says where Dex's own data is, which is not read")
	}
	s.done()
}

// takeEtcd takes a cluster, which warifu can use beside Dex.
func (m *migration) takeEtcd(kind *item, s *section) {
	t := m.config
	endpoints := s.texts("endpoints")
	if len(endpoints) == 0 {
		m.fault(kind, "required", "", "needs storage.config.endpoints")
	}
	for _, e := range append([]*item{s.text("username")}, endpoints...) {
		m.refersTo(e)
	}
	t.put("storage.config.endpoints", t.list(endpoints), nil)
	t.put("storage.config.namespace", text("warifu/"), nil)
	if i := s.text("namespace"); i != nil && i.String() != "warifu/" {
		m.list(i, "is warifu/ here: two servers must not mix their keys")
	} else if i != nil {
		m.list(i, "is where Dex's keys are as well: they have other names, but choose another one for clarity")
	}
	if name, password := s.text("username"), s.text("password"); name != nil && password != nil {
		t.putText("storage.config.username", name)
		file := m.secret(password, password.String(), "etcd-password")
		t.put("storage.config.passwordFile", text(file), password)
		m.list(password, "is in a file here: %s", file)
	}
	if ssl := s.section("ssl"); ssl != nil {
		for _, key := range []string{"caFile", "certFile", "keyFile", "serverName"} {
			m.refersTo(ssl.text(key))
			t.putText("storage.config.ssl."+key, ssl.text(key))
		}
		ssl.done()
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	m.write("encryption.key", base64.StdEncoding.EncodeToString(key)+"\n", true)
	t.put("encryptionKeyFiles", words(m.in("encryption.key")), nil)
	m.note("%s seals the secrets in etcd: keep a copy elsewhere, and give the same file to every replica.",
		m.in("encryption.key"))
	s.done()
}

// references are the variables that Dex puts in the place of their names.
func references(s string) []string {
	var names []string
	os.Expand(s, func(name string) string {
		if variableName.MatchString(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
		return ""
	})
	return names
}

// variableName is what a shell and Dex both take for a variable; one alone is all of a text.
var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	oneAlone     = regexp.MustCompile(`^\$([A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\})$`)
)

// losesDollars reports whether Dex takes something out of a text that is no variable, such as $1 and $$.
func losesDollars(s string) bool {
	loses := false
	os.Expand(s, func(name string) string {
		loses = loses || !variableName.MatchString(name)
		return ""
	})
	return loses
}

// refersTo lists a text that refers to the environment where ours does not.
func (m *migration) refersTo(i *item) {
	if i == nil {
		return
	}
	if names := references(i.value.Text); len(names) > 0 {
		m.list(i, "refers to the environment (%s), which this key does not here: write the value", strings.Join(names, ", "))
	}
}

// secret is the file of a secret, which holds it or, where it refers to a variable, will.
func (m *migration) secret(i *item, value string, name string) string {
	file := m.in("passwords", name)
	switch names := references(value); {
	case oneAlone.MatchString(value):
		m.before = append(m.before, Step{"write what " + i.path + " refers to where " + file + " is expected",
			"(umask 077; mkdir -p " + quoted(m.in("passwords")) + "; printf %s \"" + value + "\" > " + quoted(file) + ")"})
	case len(names) > 0 || losesDollars(value):
		m.list(i, "has variables among other text: write into %s what Dex makes of it", file)
	default:
		m.write("passwords/"+name, value+"\n", true)
	}
	return file
}

// write adds a file.
func (m *migration) write(path, content string, secret bool) {
	m.result.Files = append(m.result.Files, File{Path: path, Content: []byte(content), Secret: secret})
}

// quoted is a word of a shell.
func quoted(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:@%,"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
