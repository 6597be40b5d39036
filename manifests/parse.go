package manifests

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

// Parse reads the YAML documents of one file; name is what faults and [Document.Path] call it. It returns the documents
// that have no error of their own and all faults of all documents. A caller that is about to act on the documents must
// look at [Faults.Err] first: a file with one faulty document should change nothing.
func Parse(name string, data []byte, opts Options) ([]*Document, Faults) {
	documents, faults := parseFile(name, data, opts)
	faults = append(faults, checkNames(documents)...)
	faults.Sort()
	return documents, faults
}

// parseFile is Parse without what concerns several documents.
func parseFile(name string, data []byte, opts Options) ([]*Document, Faults) {
	r := &strictyaml.Report{File: name}
	written := strictyaml.Split(r, data)
	if len(written) == 0 && r.Errors() == 0 {
		r.Errorf(strictyaml.Position{Line: 1, Column: 1}, "", "empty", "", "there is no manifest in this file")
	}
	var documents []*Document
	for _, w := range written {
		if d := documentOf(w, r, opts); d != nil {
			documents = append(documents, d)
		}
	}
	return documents, r.Faults
}

// documentOf reads and checks one document. It returns nil when the document has errors, which are reported.
func documentOf(written strictyaml.Document, r *strictyaml.Report, opts Options) *Document {
	before := r.Errors()
	root := treeOf(written, r)
	if root == nil {
		return nil
	}
	check := checker{Report: r, opts: opts, before: len(r.Faults)}
	check.check(root, manifestShape, "")
	check.checkTogether(root)
	if r.Errors() > before {
		return nil
	}
	app, err := appOf(root)
	if err != nil { // the table and App disagree: refuse it, rather than act on half of it
		r.Errorf(root.Position, "", "not-understood", "", "this manifest could not be decoded: %v", err)
		return nil
	}
	d := &Document{App: app, Path: r.File, Line: root.Line, Raw: bytes.Clone(written.Text()), root: root}
	if opts.DenyLoopback && d.denyLoopback(r) {
		return nil
	}
	if opts.NoProxies && d.App.Spec.OAuth != nil && len(d.App.Spec.OAuth.ForwardAuth.Hosts) > 0 {
		const path = "spec.oauth.forwardAuth.hosts"
		r.Warnf(d.Place(path), path, "no-trusted-proxies", "", "cannot be reached until the server's "+
			"configuration lists the proxy in front of them in web.trustedProxies: nobody else may ask, so every "+
			"request is refused")
	}
	return d
}

// denyLoopback adds a fault for each redirect URI that leads to the user's own machine, and each host that is there,
// and reports whether there are any.
func (d *Document) denyLoopback(r *strictyaml.Report) bool {
	if d.App.Spec.OAuth == nil {
		return false
	}
	found := false
	look := func(list string, i int, uri string) {
		if oauth.IsLoopbackRedirect(uri) {
			found = true
			path := itemPath(list, i)
			r.Errorf(d.Place(path), path, "loopback-redirect", "",
				"leads to the user's own machine, which this server does not allow (manifests.localhostRedirects)")
		}
	}
	for i, uri := range d.App.Spec.OAuth.RedirectURIs {
		look("spec.oauth.redirectUris", i, uri)
	}
	for i, host := range d.App.Spec.OAuth.ForwardAuth.Hosts {
		look("spec.oauth.forwardAuth.hosts", i, oauth.ForwardCallback(host))
	}
	return found
}

// treeOf reads a document that could be a manifest. Nil means that there is nothing to check further: the reason is
// reported.
func treeOf(written strictyaml.Document, r *strictyaml.Report) *strictyaml.Value {
	root := written.Tree(r)
	if root != nil && root.Kind != strictyaml.Mapping {
		r.Errorf(root.Position, "", "wrong-type", "", "a manifest is a mapping: apiVersion, kind, metadata, spec")
		return nil
	}
	return root
}

// appOf decodes an App from a checked tree, through the JSON that the app keeps.
func appOf(root *strictyaml.Value) (*App, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(root.JSON()); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	app := new(App)
	if err := json.Unmarshal(bytes.TrimSpace(b.Bytes()), app); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return app, nil
}

// nameAt is where the value of metadata.name was written.
func (d *Document) nameAt() strictyaml.Position {
	return d.root.Field("metadata").Field("name").Position
}

// checkNames reports apps that are described more than once.
func checkNames(documents []*Document) Faults {
	var faults Faults
	first := map[string]*Document{}
	for _, d := range documents {
		name := d.App.Metadata.Name
		other, twice := first[name]
		if !twice {
			first[name] = d
			continue
		}
		here, there := d.nameAt(), other.nameAt()
		faults = append(faults, Fault{
			File: d.Path, Line: here.Line, Column: here.Column, Path: "metadata.name", Code: "duplicate-app",
			Message: fmt.Sprintf("metadata.name %q is already described at %s:%d:%d",
				name, other.Path, there.Line, there.Column),
			Severity: SeverityError,
		})
	}
	return faults
}
