package manifests

import (
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/storage"
)

// Place finds where a path was written: a key, or the item of a list. Of what is not written it is the place of the
// nearest part that is, and without any the beginning of the document.
func (d *Document) Place(path string) strictyaml.Position {
	if d.root == nil { // read from the store, not from a file
		return strictyaml.Position{}
	}
	return placeBelow(d.root, "", path, d.root.Position)
}

// placeBelow finds a path below v, which is at the path here; at is where v itself was written.
func placeBelow(v *strictyaml.Value, here, path string, at strictyaml.Position) strictyaml.Position {
	if here == path {
		return at
	}
	for _, m := range v.Fields {
		if next := strictyaml.Join(here, m.Key); within(path, next) {
			return placeBelow(m.Value, next, path, m.Position)
		}
	}
	for i, item := range v.Items {
		if next := itemPath(here, i); within(path, next) {
			return placeBelow(item, next, path, item.Position)
		}
	}
	return at
}

// within says whether a path is another one or below it.
func within(path, above string) bool {
	rest, is := strings.CutPrefix(path, above)
	return is && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// placed keeps the places of the keys by which requests are judged later, when nobody has the file: those of
// spec.oauth.
func (d *Document) placed() map[string]storage.Place {
	const client = "spec.oauth"
	if d.root == nil {
		return nil
	}
	places := make(map[string]storage.Place)
	keep := func(path string) {
		at := d.Place(path)
		places[path] = storage.Place{at.Line, at.Column}
	}
	keep("spec")
	written := d.root.Field("spec").Field("oauth")
	if written == nil {
		return places
	}
	keep(client)
	for _, key := range written.Fields {
		keep(strictyaml.Join(client, key.Key))
	}
	return places
}
