package migrate

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

// Options say what the text alone does not.
type Options struct {
	// Dir is where the files are going to be, absolute.
	Dir string
	// Issuer is the address of the server, where it is not that of the text.
	Issuer string
	// Environ is the environment of the command. Names of clients are taken from it (idEnv), and nothing else.
	Environ []string
}

// Result is what was made of a configuration.
type Result struct {
	// Files have paths below [Options.Dir].
	Files []File
	// Leftovers are the keys that were not carried, or not as they were, in the order of the file.
	Leftovers []Leftover
	// Notes say what holds for everybody who comes from there.
	Notes []string
	// Steps are the commands that come next, in order.
	Steps []Step
}

// File is one that is written.
type File struct {
	Path    string
	Content []byte
	// Secret files are for their owner alone.
	Secret bool
}

// Leftover is a key that was not carried, or not as it was.
type Leftover struct {
	File         string
	Line, Column int
	Path         string
	// Reason completes the sentence "web.headers ...".
	Reason string
}

// String is file:line:column: path: reason.
func (l Leftover) String() string {
	return fmt.Sprintf("%s:%d:%d: %s %s", l.File, l.Line, l.Column, l.Path, l.Reason)
}

// Step is a command, and why.
type Step struct{ Why, Command string }

// migration is one configuration on its way.
type migration struct {
	Options
	*strictyaml.Report
	source *source
	config *tree
	apps   []*app
	result *Result
	// factors are known before clients, which are asked for them.
	factors factors
	issuer  string
	// old is the issuer that Dex had, where it was another one.
	old string

	consentSkipped *item    // where it says that nobody is asked
	clientGrants   []string // grant types that clients have beside those of redirect URIs
	idTokenAlg     string   // where it is not the usual one
	// variables of the environment to which settings of connectors refer, and those of them whose values are known.
	variables, known []string
	before           []Step // what has to be done before the configuration is valid
}

// Dex makes a configuration and manifests from a configuration of Dex; name is what messages call it. The error is a
// [strictyaml.Faults] with everything that Dex would not take either.
func Dex(name string, data []byte, o Options) (*Result, error) {
	m := &migration{Options: o, Report: &strictyaml.Report{File: name}, config: newTree(), result: new(Result)}
	if m.source = find(m.Report, data); m.source == nil {
		m.Faults.Sort()
		return nil, m.Faults.Err()
	}
	root := m.section(&item{m.source.path, m.source.at(m.source.root.Position), m.source.root})
	m.walk(root)
	m.Faults.Sort()
	if err := m.Faults.Err(); err != nil {
		return nil, err
	}
	if err := m.settle(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(m.result.Leftovers, func(a, b Leftover) int { return a.Line - b.Line })
	return m.result, nil
}

// walk takes the configuration in the order in which ours is written.
func (m *migration) walk(root *section) {
	m.takeIssuer(root)
	m.takeStorage(root)
	m.takeWeb(root)
	m.takeFrontend(root.section("frontend"))
	m.takePasswords(root)
	m.takeConnectors(root)
	m.takeOAuth2(root.section("oauth2"))
	m.takeExpiry(root)
	m.takeLogger(root.section("logger"))
	m.takeFactors(root.section("mfa"))
	m.takeClients(root)
	m.takeRest(root)
	root.done()
}

func (m *migration) fault(i *item, code, suggestion, format string, args ...any) {
	m.Errorf(i.at, i.path, code, suggestion, format, args...)
}

// left lists a key that is not carried.
func (m *migration) left(i *item, format string, args ...any) {
	m.list(i, "is left out: "+format, args...)
}

// list lists a key; the rest of the sentence is in format and args.
func (m *migration) list(i *item, format string, args ...any) {
	m.result.Leftovers = append(m.result.Leftovers, Leftover{
		File: m.File, Line: i.at.Line, Column: i.at.Column, Path: i.path, Reason: fmt.Sprintf(format, args...),
	})
}

func (m *migration) note(format string, args ...any) {
	m.result.Notes = append(m.result.Notes, fmt.Sprintf(format, args...))
}

// in is the path of a file that is written.
func (m *migration) in(parts ...string) string {
	return filepath.Join(append([]string{m.Dir}, parts...)...)
}

func (m *migration) takeIssuer(root *section) {
	written := root.text("issuer")
	if written != nil {
		m.issuer = written.value.Text
	} else if m.source.argo != nil { // Argo CD says it to its Dex
		if url := m.source.argo.Field("data").Field("url"); url != nil {
			m.issuer = url.Text + "/api/dex"
		}
	}
	if m.Issuer != "" && m.Issuer != m.issuer {
		m.old, m.issuer = m.issuer, m.Issuer
		if written != nil {
			m.list(written, "is %s from now on: each app has to be told, and each user's tokens come from another issuer",
				m.issuer)
		}
	}
	if m.issuer == "" {
		m.fault(root.itself(), "required", "", "has no issuer: name the address of the server with --issuer")
		return
	}
	var wrong *oauth.IssuerError
	if _, err := oauth.ParseIssuer(m.issuer); errors.As(err, &wrong) {
		from := written
		if from == nil {
			from = root.itself()
		}
		m.Errorf(from.at, "", "issuer", wrong.Nearest, "the issuer %s: the server needs another one (--issuer), which "+
			"the apps "+
			"have to be told", wrong.Reason)
	}
	m.config.put("issuer", text(m.issuer), written)
	m.config.put("subject", text("dex"), nil)
	m.config.comment("subject", "Apps know their users by the sub that Dex made.")
}
