package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/plugins/runtimeworkers"
	"github.com/warifu/warifu/server/oauth"
)

// workerdVariable names workerd's executable to `warifu dev`.
const workerdVariable = "WARIFU_WORKERD"

// devWorker is a Worker that dev can run: its script is on this machine.
type devWorker struct {
	app, name string
	script    string // absolute
	// redirect is where the first of the app's redirect URIs on this machine leads, or else where it says that it is a
	// resource server; nil for none. The Worker listens there, and people are told this name of the machine, so that
	// the redirect URI fits.
	redirect *url.URL
}

// devWorkers are the Workers that dev runs, and the workerd that it runs them with; empty when there is none.
type devWorkers struct {
	workerd string
	workers []devWorker
}

// findWorkers looks for the scripts of the manifests' Workers and for workerd: at $WARIFU_WORKERD, in PATH, or in a
// node_modules beside or above a manifest.
func (c *cli) findWorkers(docs []*manifests.Document) (devWorkers, error) {
	found := devWorkers{workerd: c.env(workerdVariable)}
	if found.workerd != "" {
		absolute, err := filepath.Abs(found.workerd)
		if err != nil || !exists(absolute) {
			return found, usagef("%s is %s, which does not exist", workerdVariable, found.workerd)
		}
		found.workerd = absolute
	}
	for _, doc := range docs {
		dir, err := filepath.Abs(filepath.Dir(doc.Path))
		if err != nil {
			return found, fmt.Errorf("find the directory of %s: %w", doc.Path, err)
		}
		workers, err := workersOf(doc.App, dir)
		if err != nil {
			return found, err
		}
		found.workers = append(found.workers, workers...)
		if found.workerd == "" && len(workers) > 0 {
			found.workerd, _ = runtimeworkers.FindWorkerd(dir)
		}
	}
	return found, nil
}

// workersOf returns those Workers of an app whose script exists. The manifest's artifactPath is relative to the
// manifest's directory, or to the directory above when that is .takos.
func workersOf(app *manifests.App, dir string) ([]devWorker, error) {
	text, err := app.JSON()
	if err != nil {
		return nil, err
	}
	var manifest struct {
		Spec struct {
			Workers map[string]json.RawMessage `json:"workers"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return nil, fmt.Errorf("read the Workers of %s: %w", app.Metadata.Name, err)
	}
	if filepath.Base(dir) == ".takos" {
		dir = filepath.Dir(dir)
	}
	redirect := loopbackRedirect(app)
	var found []devWorker
	for _, name := range slices.Sorted(maps.Keys(manifest.Spec.Workers)) {
		var worker struct {
			Build struct {
				FromWorkflow struct {
					ArtifactPath string `json:"artifactPath"`
				} `json:"fromWorkflow"`
			} `json:"build"`
		}
		if json.Unmarshal(manifest.Spec.Workers[name], &worker) != nil {
			continue // manifests tolerates what other tools understand
		}
		artifact := filepath.FromSlash(worker.Build.FromWorkflow.ArtifactPath)
		script := filepath.Join(dir, artifact)
		if !filepath.IsLocal(artifact) || script == dir || !exists(script) {
			continue
		}
		found = append(found, devWorker{app: app.Metadata.Name, name: name, script: script, redirect: redirect})
		redirect = nil // the first one is where people come in
	}
	return found, nil
}

// loopbackRedirect is the host of the first of an app's redirect URIs that leads to this machine, or else of the
// resource server that it is; its port is empty when any will do. The manifest was checked, so a redirect URI that
// looks like this machine is it.
func loopbackRedirect(app *manifests.App) *url.URL {
	o := app.Spec.OAuth
	if o == nil {
		return nil
	}
	if u, err := url.Parse(o.Resource); err == nil && len(o.RedirectURIs) == 0 && u.Scheme == "http" &&
		oauth.IsLoopback(u.Hostname()) {
		return &url.URL{Scheme: u.Scheme, Host: u.Host}
	}
	for _, uri := range o.RedirectURIs {
		if rest, insecure := strings.CutPrefix(uri, "http://"); insecure {
			host := rest
			if end := strings.IndexAny(rest, "/?"); end >= 0 {
				host = rest[:end]
			}
			return &url.URL{Scheme: "http", Host: strings.TrimSuffix(host, ":*")}
		}
	}
	return nil
}

// settings are the runtimes of a dev server and their targets: Workers with a script run in workerd, and the env of
// everything else goes into files. They are empty when there is nothing to run.
func (w devWorkers) settings() config.Plugins {
	if w.workerd == "" || len(w.workers) == 0 {
		return config.Plugins{}
	}
	scripts := make(map[string]any)
	var cfg config.Plugins
	for _, worker := range w.workers {
		one := map[string]any{"script": worker.script}
		if worker.redirect != nil && worker.redirect.Port() != "" {
			one["listen"] = worker.redirect.Host
		}
		scripts[worker.app+"/"+worker.name] = one
		cfg.Targets = append(cfg.Targets,
			config.Target{Kind: plugins.TargetWorker, App: worker.app, Name: worker.name, Runtime: config.RuntimeWorkers})
	}
	cfg.Targets = append(cfg.Targets, config.Target{Runtime: config.RuntimeFile})
	cfg.Runtimes = []config.Plugin{{Name: config.RuntimeFile}, {Name: config.RuntimeWorkers, Config: map[string]any{
		"driver": "workerd", "workerd": w.workerd, "workers": scripts,
		"network": []string{"public", "private", "local"}, // the issuer and everything else of a developer is on this machine
	}}}
	return cfg
}

// address is a Worker's address the way the app's redirect URIs spell this machine.
func (w devWorkers) address(app, name, location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return location
	}
	for _, worker := range w.workers {
		if worker.app == app && worker.name == name && worker.redirect != nil {
			u.Host = net.JoinHostPort(worker.redirect.Hostname(), u.Port())
		}
	}
	return u.String()
}

// idle names the Workers that could be run if there were a workerd.
func (w devWorkers) idle() []string {
	if w.workerd != "" {
		return nil
	}
	var names []string
	for _, worker := range w.workers {
		names = append(names, worker.app+"/"+worker.name)
	}
	return names
}
