package plugintest

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// transcript keeps everything that the processes of a plugin printed and
// answered, and knows the mark that none of it may hold.
type transcript struct {
	mark string // in every value that is pushed; letters and digits

	mu    sync.Mutex // owns what follows
	parts []part
	leaks []string // what held the mark, in words
}

type part struct {
	where string
	text  []byte
}

// Older output than this is forgotten once it was searched, bytes of each part.
const keepOutput = 64 << 10

// copy takes a stream until its end.
func (t *transcript) copy(where string, r io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Read(buffer)
		t.add(where, buffer[:n])
		if err != nil {
			return // the process is gone
		}
	}
}

// add takes a piece. A mark that is cut in two by pieces is still found.
func (t *transcript) add(where string, text []byte) {
	if len(text) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.parts, func(p part) bool { return p.where == where })
	if i < 0 {
		i = len(t.parts)
		t.parts = append(t.parts, part{where: where})
	}
	p := &t.parts[i]
	tail := p.text[max(0, len(p.text)-1024):]
	if form := t.form(slices.Concat(tail, text)); form != "" {
		leak := where + " holds " + form
		if !slices.Contains(t.leaks, leak) {
			t.leaks = append(t.leaks, leak)
		}
	}
	p.text = append(p.text, text...)
	if extra := len(p.text) - keepOutput; extra > 0 {
		p.text = slices.Clone(p.text[extra:])
	}
}

// leaked says where the mark was seen, or nothing.
func (t *transcript) leaked() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.leaks)
}

// tail is the end of the output, without the mark, for people.
func (t *transcript) tail() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, p := range t.parts {
		if p.where == "stderr" || p.where == "stdout" || p.where == "stdio" {
			fmt.Fprintf(&b, "%s of the plugin ends with:\n%s\n", p.where, t.safe(string(p.text[max(0, len(p.text)-2000):])))
		}
	}
	return b.String()
}

// safe takes the mark out of a text that is to be shown.
func (t *transcript) safe(text string) string {
	if t.form([]byte(text)) == "" {
		return text
	}
	return strings.ReplaceAll(text, t.mark, "[a pushed value]")
}

// form says in which form text holds the mark; empty: in none.
func (t *transcript) form(text []byte) string {
	for _, f := range markForms(t.mark) {
		if bytes.Contains(text, []byte(f.text)) {
			return f.name
		}
	}
	return ""
}

type markForm struct{ name, text string }

// markForms gives the spellings of a value that are looked for. The bare hashes
// are of the value that is nothing but the mark.
func markForms(mark string) []markForm {
	forms := []markForm{
		{"a value", mark},
		{"a value in hex", hex.EncodeToString([]byte(mark))},
		{"a value in hex", strings.ToUpper(hex.EncodeToString([]byte(mark)))},
	}
	for shift := range 3 { // where the value begins among three bytes decides its letters
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + mark))
		forms = append(forms, markForm{"a value in base64", encoded[4 : len(encoded)-4]})
	}
	for name, sum := range bareHashes(mark) {
		forms = append(forms,
			markForm{"the bare " + name + " of a value", hex.EncodeToString(sum)},
			markForm{"the bare " + name + " of a value", strings.TrimRight(base64.StdEncoding.EncodeToString(sum), "=")})
	}
	return forms
}

func bareHashes(mark string) map[string][]byte {
	long, middle, short := sha256.Sum256([]byte(mark)), sha1.Sum([]byte(mark)), md5.Sum([]byte(mark))
	return map[string][]byte{"SHA-256": long[:], "SHA-1": middle[:], "MD5": short[:]}
}

// searchFiles looks for the mark in the files below dir, but for those below
// targets, which may hold it and must be private.
func (t *transcript) searchFiles(dir string, targets []string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // gone meanwhile
		}
		name, _ := filepath.Rel(dir, path) // path is below dir
		content, err := os.ReadFile(path)
		if err != nil {
			return nil // gone meanwhile
		}
		form := t.form(content)
		if form == "" {
			return nil
		}
		below := func(target string) bool { return name == target || strings.HasPrefix(name, target+"/") }
		if !slices.ContainsFunc(targets, below) {
			return faultf("%s in the state directory holds %s", name, form)
		}
		if info, err := entry.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			return faultf("%s in the state directory holds %s and has mode %v: others can read it", name, form, info.Mode())
		}
		return nil
	})
	return err
}

// text is what was kept of one part.
func (t *transcript) text(where string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.parts {
		if p.where == where {
			return string(p.text)
		}
	}
	return ""
}
