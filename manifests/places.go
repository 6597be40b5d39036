package manifests

import (
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/storage"
)

// Place returns where a path was written: a key, or the item of a list. For a path that was not written it is the
// place of the nearest part above that was, or else the beginning of the document.
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

// within reports whether path equals above or lies below it.
func within(path, above string) bool {
	rest, is := strings.CutPrefix(path, above)
	return is && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// placed returns the places of the keys below spec.oauth, by which requests are judged later, when the file is not at
// hand.
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
