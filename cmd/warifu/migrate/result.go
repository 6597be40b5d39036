package migrate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const configHead = "# Made by warifu migrate dex. Every key, with what it means: config.example.yaml.\n"

const appHead = "# Made by warifu migrate dex.\n"

// settle makes the files of what was taken, and says what comes next.
func (m *migration) settle() error {
	cfg, err := m.settleConfig()
	if err != nil {
		return err
	}
	opts := options(cfg)
	m.apps = slices.DeleteFunc(m.apps, func(a *app) bool { return !m.settleApp(a, opts) })
	var trusted []string
	for _, a := range m.apps {
		if field(a.oauth(), "consent") != nil {
			trusted = append(trusted, a.name)
		}
	}
	if len(trusted) > 0 {
		m.config.put("trusted", words(trusted...), nil)
		m.config.comment("trusted", "oauth2.skipApprovalScreen: nobody is asked for consent.")
		if _, err := m.settleConfig(); err != nil {
			return err
		}
	}
	head := configHead
	if len(m.apps) > 0 {
		head += "# To have the manifests applied at each start, and again when they change:\n# manifests: {directories: [" +
			quoted(m.in("apps")) + "], watch: true}\n"
	}
	m.write("config.yaml", string(m.config.bytes(head+"\n")), true) // settings of connectors hold secrets
	m.finish()
	return nil
}

// finish writes the manifests and the secrets, and says what comes next, in order.
func (m *migration) finish() {
	config, r := quoted(m.in("config.yaml")), m.result
	if unknown := slices.DeleteFunc(slices.Clone(m.variables), func(name string) bool {
		return slices.Contains(m.known, name)
	}); len(unknown) > 0 {
		m.before = append(m.before, Step{"connectors refer to these variables, as they did at Dex",
			": \"${" + strings.Join(unknown, ":?}\" \"${") + ":?}\" && export " + strings.Join(unknown, " ")})
	}
	r.Steps = append(m.before,
		Step{"see whether everything is there", "warifu config validate " + config},
		Step{"run it, in another terminal or by systemd", "warifu serve " + config})
	if len(m.apps) > 0 {
		r.Steps = append(r.Steps,
			Step{"where the commands that follow find it", "export WARIFU_ADMIN=" + quoted(m.in("data", "admin.sock"))},
			Step{"register the clients (warifu plan shows them)", "warifu apply --yes -f " + quoted(m.in("apps"))})
	}
	secrets := false
	for _, a := range m.apps {
		m.write("apps/"+a.name+".yml", string(a.bytes(appHead)), false)
		set := "warifu credentials set " + a.name + " --import --secret-file "
		switch {
		case a.secret != "":
			secrets = true
			m.write("secrets/"+a.name, a.secret+"\n", true)
			r.Steps = append(r.Steps, Step{a.id + " keeps its secret", set + quoted(m.in("secrets", a.name))})
		case a.variable != "":
			r.Steps = append(r.Steps, Step{a.id + " keeps its secret, which is in the environment",
				"printenv " + quoted(a.variable) + " | " + set + "-"})
		}
	}
	if secrets {
		var files []string
		for _, a := range m.apps {
			if a.secret != "" {
				files = append(files, quoted(m.in("secrets", a.name)))
			}
		}
		r.Steps = append(r.Steps, Step{"the server has them now", "rm " + strings.Join(files, " ")})
	}
	m.note("Only the file was read: people, clients and connectors that were added to Dex's storage (through its " +
		"gRPC API, or as " +
		"custom resources) are not migrated.")
	m.note("Sessions, refresh tokens and consents of Dex are not migrated: everybody signs in once more, and is " +
		"known to the " +
		"apps as before (subject: dex).")
	m.note("Endpoints have other paths than Dex's; apps that find them by discovery need not know. Others: "+
		"%s/oauth/authorize, "+
		"%s/oauth/token, and what %s/.well-known/openid-configuration lists.", m.issuer, m.issuer, m.issuer)
}

// Write writes the files below a directory, which it makes. It changes no file that is there: then it writes nothing,
// and says which.
func (r *Result) Write(dir string) error {
	var there []error
	for _, f := range r.Files {
		if _, err := os.Lstat(filepath.Join(dir, f.Path)); !errors.Is(err, fs.ErrNotExist) {
			there = append(there, fmt.Errorf("%s is there already: nothing was written", filepath.Join(dir, f.Path)))
		}
	}
	if len(there) > 0 {
		return errors.Join(there...)
	}
	var written []string
	for _, f := range r.Files {
		path := filepath.Join(dir, f.Path)
		err := writeNew(path, f)
		if err == nil {
			written = append(written, path)
			continue
		}
		for _, path := range written {
			_ = os.Remove(path) // the error that counts is the first one
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeNew(path string, f File) error {
	mode, above := fs.FileMode(0o644), fs.FileMode(0o755)
	if f.Secret {
		mode = 0o600
	}
	if f.Secret && strings.Contains(f.Path, "/") {
		above = 0o700
	}
	if err := os.MkdirAll(filepath.Dir(path), above); err != nil {
		return err //nolint:wrapcheck // it names the path
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err //nolint:wrapcheck // it names the path
	}
	if _, err := file.Write(f.Content); err != nil {
		return errors.Join(err, file.Close())
	}
	return file.Close() //nolint:wrapcheck // Write wraps it
}
