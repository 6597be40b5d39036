package runtimeworkers

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxScript is the most that all modules of a Worker may have, bytes.
const maxScript = 64 << 20

// module is one file of a script.
type module struct {
	name    string // relative to the script's directory, with slashes
	kind    string // the field of workerd's Module: esModule, wasm, json, text
	content []byte
}

var moduleKinds = map[string]string{".js": "esModule", ".mjs": "esModule", ".wasm": "wasm", ".json": "json",
	".txt": "text", ".html": "text"}

var entries = []string{"index.js", "index.mjs", "worker.js", "worker.mjs"}

// loadScript reads a module, or the directory of one; the entry comes first.
func loadScript(path string) ([]module, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, scriptProblem(path, err)
	}
	if !info.IsDir() {
		content, err := readModule(path, 0)
		if err != nil {
			return nil, err
		}
		return []module{{name: "worker.js", kind: "esModule", content: content}}, nil
	}
	var modules []module
	size := 0
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return scriptProblem(path, err)
		}
		kind, known := moduleKinds[filepath.Ext(file)]
		if entry.IsDir() && entry.Name() == "node_modules" {
			return filepath.SkipDir
		}
		if !known || !entry.Type().IsRegular() {
			return nil
		}
		content, err := readModule(file, size)
		if err != nil {
			return err
		}
		size += len(content)
		relative, err := filepath.Rel(path, file)
		if err != nil {
			return scriptProblem(path, err)
		}
		modules = append(modules, module{name: filepath.ToSlash(relative), kind: kind, content: content})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if i := slices.IndexFunc(modules, func(m module) bool { return m.name == entry }); i >= 0 {
			modules[0], modules[i] = modules[i], modules[0]
			return modules, nil
		}
	}
	return nil, &problem{message: fmt.Sprintf("the script's directory %s has none of %s", path,
		strings.Join(entries, ", ")),
		remedy: "name the module that has the Worker's handlers", retryable: true}
}

func readModule(path string, already int) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && int64(already)+info.Size() > maxScript {
		return nil, &problem{message: fmt.Sprintf("the script has more than %d MiB", maxScript>>20),
			remedy: "make it smaller"}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, scriptProblem(path, err)
	}
	return content, nil
}

// scriptProblem is retryable: a build may be about to write the script.
func scriptProblem(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &problem{message: fmt.Sprintf("there is no script %s", path), retryable: true,
			remedy: "build the Worker, or correct its script in the runtime's config"}
	}
	return &problem{message: fmt.Sprintf("the script cannot be read: %v", err), retryable: true,
		remedy: "let the server's user read it"}
}

// workerdConfig writes the text form of workerd's configuration (workerd.capnp)
// for one Worker behind a socket named http.
func workerdConfig(modules []module, w workerSettings, network []string, env map[string]string) string {
	var b strings.Builder
	b.WriteString("using Workerd = import \"/workerd/workerd.capnp\";\nconst config :Workerd.Config = (services = [\n" +
		"(name = \"main\", worker = (modules = [\n")
	for _, m := range modules {
		content := quoteText(string(m.content))
		if m.kind == "wasm" {
			content = fmt.Sprintf("0x\"%x\"", m.content)
		}
		fmt.Fprintf(&b, "(name = %s, %s = %s),\n", quoteText(m.name), m.kind, content)
	}
	fmt.Fprintf(&b, "], compatibilityDate = %s, compatibilityFlags = %s, bindings = [\n",
		quoteText(w.CompatibilityDate), quoteList(w.CompatibilityFlags))
	all := map[string]string{}
	maps.Copy(all, w.Vars)
	maps.Copy(all, env)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "(name = %s, text = %s),\n", quoteText(name), quoteText(all[name]))
	}
	fmt.Fprintf(&b, "])),\n(name = \"internet\", network = (allow = %s, tlsOptions = (trustBrowserCas = true))),\n],\n"+
		"sockets = [(name = \"http\", http = (), service = \"main\")]);\n", quoteList(network))
	return b.String()
}

func quoteList(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quoteText(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quoteText writes a string literal of Cap'n Proto's schema language.
func quoteText(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(text) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
