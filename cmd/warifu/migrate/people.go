package migrate

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/bcrypt"
	"gopkg.in/yaml.v3"
)

func (m *migration) takePasswords(root *section) {
	enabled, from := root.flag("enablePasswordDB", false)
	people := root.sections("staticPasswords")
	if !enabled {
		if len(people) > 0 {
			m.fault(root.item("staticPasswords"), "pair", "", "are of no use without enablePasswordDB: true")
		}
		return
	}
	m.config.put("enablePasswordDB", truth(true), from)
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i, s := range people {
		if one := m.person(s, i); one != nil {
			list.Content = append(list.Content, one)
		}
	}
	if len(list.Content) > 0 {
		m.config.put("staticPasswords", list, nil)
	}
}

// person is somebody who signs in with a password.
func (m *migration) person(s *section, nth int) *yaml.Node {
	t, n := m.config, mapping()
	t.from[n] = s.itself()
	put := func(key string, from *item) {
		if from != nil {
			t.set(n, key, text(from.value.Text), from)
		}
	}
	email, username, name := s.text("email"), s.text("username"), s.text("name")
	put("email", email)
	verified, from := s.flag("emailVerified", true) // as Dex takes it where it is not said
	t.set(n, "emailVerified", truth(verified), from)
	if name == nil {
		name = username // as Dex tells it
	} else if username != nil {
		m.left(username, "apps were told name in its place, and at Dex nobody signs in with it")
	}
	put("name", name)
	put("preferredUsername", s.text("preferredUsername"))
	if id := s.text("userID"); id != nil {
		put("userID", id)
	} else {
		sum := sha256.Sum256([]byte(strings.ToLower(email.String())))
		made := fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
		t.set(n, "userID", text(made), nil)
		m.list(s.itself(), "has no userID, and all people without one had the same sub at Dex: it is %s from now on", made)
	}
	hash, fromEnv := s.text("hash"), s.text("hashFromEnv")
	switch {
	case hash != nil:
		if fromEnv != nil {
			m.left(fromEnv, "hash is set as well, and takes precedence")
		}
		if bcrypted, ok := hashOf(hash.String()); ok {
			t.set(n, "hash", text(bcrypted), hash)
		} else {
			m.fault(hash, "hash", "", "must be a bcrypt hash, or that in base64")
		}
	case fromEnv != nil:
		file := fmt.Sprintf("%d.hash", nth)
		if id := strings.Map(plain, s.text("userID").String()); id != "" {
			file = id + ".hash"
		}
		file = m.secret(fromEnv, "${"+fromEnv.String()+"}", file)
		t.set(n, "hashFile", text(file), fromEnv)
		m.list(fromEnv, "is a file here (hashFile): %s", filepath.Base(file))
	default:
		m.fault(s.itself(), "required", "", "has no hash")
	}
	if groups := s.texts("groups"); len(groups) > 0 {
		t.set(n, "groups", t.list(groups), s.item("groups"))
	}
	s.done()
	return n
}

// hashOf is a bcrypt hash as it is written here; Dex takes one in base64 as well.
func hashOf(written string) (string, bool) {
	if _, err := bcrypt.Cost([]byte(written)); err == nil {
		return written, true
	}
	decoded, err := base64.StdEncoding.DecodeString(written)
	if err != nil {
		return "", false
	}
	_, err = bcrypt.Cost(decoded)
	return string(decoded), err == nil
}

// plain keeps what the name of a file can be made of.
func plain(c rune) rune {
	if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
		return c
	}
	return -1
}
