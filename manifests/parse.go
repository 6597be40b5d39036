package manifests

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Parse reads the YAML documents of one file; name is what faults and [Document.Path] call it. It returns the documents
// that have no error of their own and all faults of all documents. A caller that is about to act on the documents must
// look at [Faults.Err] first: a file with one faulty document should change nothing.
func Parse(name string, data []byte, opts Options) ([]*Document, Faults) {
	documents, faults := parseFile(name, data, opts)
	faults = append(faults, checkNames(documents)...)
	faults.sort()
	return documents, faults
}

// parseFile is Parse without what concerns several documents.
func parseFile(name string, data []byte, opts Options) ([]*Document, Faults) {
	r := &report{file: name}
	text, ok := readText(r, data)
	if !ok {
		return nil, r.faults
	}
	chunks := text.split(r)
	if len(chunks) == 0 && len(r.faults.Errors()) == 0 {
		r.errorf(position{1, 1}, "", "empty", "", "there is no manifest in this file")
	}
	var documents []*Document
	for _, c := range chunks {
		if d := c.document(r, opts); d != nil {
			documents = append(documents, d)
		}
	}
	return documents, r.faults
}

// document reads and checks one document. It returns nil when the document has errors, which are reported.
func (c chunk) document(r *report, opts Options) *Document {
	before := r.errors
	root := c.tree(r)
	if root == nil {
		return nil
	}
	check := checker{report: r, opts: opts}
	check.check(root, manifestShape, "")
	check.checkTogether(root)
	if r.errors > before {
		return nil
	}
	app, err := appOf(root)
	if err != nil { // the table and App disagree; better refused than half understood
		r.errorf(root.position, "", "not-understood", "", "this manifest could not be taken apart: %v", err)
		return nil
	}
	return &Document{
		App: app, Path: r.file, Line: root.line, Raw: bytes.Clone(c.data),
		name: root.field("metadata").field("name"),
	}
}

// appOf makes an App of a checked tree, by way of the JSON that the app keeps.
func appOf(root *value) (*App, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(root.json()); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	app := new(App)
	if err := json.Unmarshal(bytes.TrimSpace(b.Bytes()), app); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return app, nil
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
		faults = append(faults, Fault{
			File: d.Path, Line: d.name.line, Column: d.name.column, Path: "metadata.name", Code: "duplicate-app",
			Message: fmt.Sprintf("metadata.name %q is already described at %s:%d:%d",
				name, other.Path, other.name.line, other.name.column),
			Severity: SeverityError,
		})
	}
	return faults
}
