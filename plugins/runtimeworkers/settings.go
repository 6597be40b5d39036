package runtimeworkers

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/warifu/warifu/plugins"
)

// WorkerdVersion is the release of workerd that this runtime is tested with.
const WorkerdVersion = "1.20261117.1"

const (
	defaultScript            = "{root}/{app}/{worker}.js"
	defaultListen            = "127.0.0.1:0"
	defaultCompatibilityDate = "2025-09-01"
	defaultDrain             = 30 * time.Second
)

// workerdSettings is the config of the driver workerd.
type workerdSettings struct {
	Driver string `json:"driver"`
	// Workerd is the executable; see [FindWorkerd] for when it is empty.
	Workerd string `json:"workerd"`
	// Root is an absolute directory: {root} in scripts.
	Root string `json:"root"`
	// Script is where the Workers' scripts are that Workers does not name. {app}
	// and {worker} stand for the names.
	Script string `json:"script"`
	// CompatibilityDate and CompatibilityFlags are for Workers that have none of
	// their own.
	CompatibilityDate  string   `json:"compatibilityDate"`
	CompatibilityFlags []string `json:"compatibilityFlags"`
	// Network is what Workers may connect to: "public" by default, "private",
	// "local" or blocks like 10.0.0.0/8.
	Network []string `json:"network"`
	// DrainSeconds is how long a replaced process may take to finish its requests:
	// 30 by default.
	DrainSeconds int `json:"drainSeconds"`
	// Workers is by "app/worker".
	Workers map[string]workerSettings `json:"workers"`
}

// workerSettings is one Worker; everything may be left out.
type workerSettings struct {
	// Script is a module, or a directory of modules with an index.js or worker.js
	// (also .mjs). A relative path is below Root.
	Script string `json:"script"`
	// Listen is host:port. Without it a free port of 127.0.0.1 is taken and kept.
	Listen             string   `json:"listen"`
	CompatibilityDate  string   `json:"compatibilityDate"`
	CompatibilityFlags []string `json:"compatibilityFlags"`
	// Vars are variables that are not ours; ours win over one of the same name.
	Vars map[string]string `json:"vars"`
}

// complete fills in what was left out and says what cannot work.
func (s *workerdSettings) complete() error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{plugins.ErrInvalid}, args...)...)
	}
	if s.Root != "" && !filepath.IsAbs(s.Root) {
		return invalid("root %q is not an absolute path", s.Root)
	}
	if s.Script == "" {
		s.Script = defaultScript
	}
	if s.CompatibilityDate == "" {
		s.CompatibilityDate = defaultCompatibilityDate
	}
	if len(s.Network) == 0 {
		s.Network = []string{"public"}
	}
	if s.DrainSeconds < 0 {
		return invalid("drainSeconds %d is negative", s.DrainSeconds)
	}
	for name, w := range s.Workers {
		if app, worker, ok := strings.Cut(name, "/"); !ok || app == "" || worker == "" {
			return invalid("%q in workers is not app/worker", name)
		}
		for variable := range w.Vars {
			if !plugins.ValidEnvName(variable) {
				return invalid("%q in the vars of %s cannot be the name of a variable", variable, name)
			}
		}
	}
	if s.Workerd == "" {
		found, ok := FindWorkerd(s.Root)
		if !ok {
			return invalid("there is no workerd in PATH, nor in a node_modules of %s or above: "+
				"run `npm install workerd@%s` there, or give its path as workerd", s.Root, WorkerdVersion)
		}
		s.Workerd = found
	}
	if info, err := os.Stat(s.Workerd); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return invalid("workerd %q is not a file that can be executed", s.Workerd)
	}
	return nil
}

func (s *workerdSettings) drain() time.Duration {
	if s.DrainSeconds == 0 {
		return defaultDrain
	}
	return time.Duration(s.DrainSeconds) * time.Second
}

// worker gives what is configured for one Worker, completed.
func (s *workerdSettings) worker(app, name string) (workerSettings, error) {
	w := s.Workers[app+"/"+name]
	if w.Listen == "" {
		w.Listen = defaultListen
	}
	if w.CompatibilityDate == "" {
		w.CompatibilityDate = s.CompatibilityDate
	}
	if w.CompatibilityFlags == nil {
		w.CompatibilityFlags = s.CompatibilityFlags
	}
	if w.Script == "" {
		path, err := expand(s.Script, s.Root, app, name)
		if err != nil {
			return w, err
		}
		w.Script = path
	}
	if !filepath.IsAbs(w.Script) {
		if s.Root == "" {
			return w, &problem{
				message: fmt.Sprintf("the script of the Worker %s of %s is not known: the runtime has no root", name, app),
				remedy:  "give the runtime a root, or the Worker an absolute script"}
		}
		w.Script = filepath.Join(s.Root, w.Script)
	}
	return w, nil
}

// A name that a template may hold cannot leave its directory.
var pathName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*$`)

func expand(template, root, app, worker string) (string, error) {
	if !pathName.MatchString(app) || !pathName.MatchString(worker) {
		return "", &problem{message: "the app's or Worker's name cannot be part of a path",
			remedy: "name the Worker's script below workers in the runtime's config"}
	}
	if root == "" && strings.Contains(template, "{root}") {
		template = strings.ReplaceAll(template, "{root}/", "") // then it is relative, which is reported
	}
	return strings.NewReplacer("{root}", root, "{app}", app, "{worker}", worker).Replace(template), nil
}

// FindWorkerd looks for workerd in PATH, then as npm installs it in a node_modules
// of dir or of a directory above.
func FindWorkerd(dir string) (string, bool) {
	path, err := exec.LookPath("workerd")
	inPath := err == nil && filepath.IsAbs(path)
	if inPath && !isScript(path) {
		return path, true
	}
	if inPath { // npm puts a script there that needs node; the program is in a package beside it
		if real, err := filepath.EvalSymlinks(path); err == nil {
			if found, ok := inNodeModules(filepath.Dir(real)); ok {
				return found, true
			}
		}
	}
	if found, ok := inNodeModules(dir); ok {
		return found, true
	}
	return path, inPath
}

func inNodeModules(dir string) (string, bool) {
	binary := filepath.Join("node_modules", "@cloudflare", "workerd-"+platform(), "bin", "workerd")
	for dir != "" {
		path := filepath.Join(dir, binary)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return "", false
}

func isScript(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false // executable all the same
	}
	defer func() { _ = file.Close() }() // only read
	var magic [2]byte
	_, err = io.ReadFull(file, magic[:])
	return err == nil && string(magic[:]) == "#!"
}

// platform is this machine's name in npm's packages of workerd.
func platform() string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "64"
	}
	return runtime.GOOS + "-" + arch
}
