package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// registrationOf is a client as hooks see it.
func registrationOf(c *storage.Client) *plugins.Registration {
	if c == nil {
		return nil
	}
	r := c.Client
	return &r
}

// checkRegistration checks what a hook made of a manifest against the manifest's own table and rules: it is written out as
// spec.oauth, and checked as if the manifest said so.
func (d *Deployer) checkRegistration(file string, r *plugins.Registration) []plugins.Notice {
	opts := d.parsing
	opts.Dev = d.dev
	c := &checker{Report: &strictyaml.Report{File: file}, opts: opts}
	const path = "spec.oauth"
	written, err := asWritten(r)
	if err != nil {
		c.Errorf(strictyaml.Position{}, path, "not-understood", "", "cannot be encoded: %v", err)
	} else {
		c.check(written, oauthShape, path)
		c.checkOAuth(written, path)
	}
	var notices []plugins.Notice
	for _, f := range c.Faults.Errors() {
		notices = append(notices, plugins.Notice{Code: strings.ReplaceAll(f.Code, "-", "_"), Path: f.Path, Message: strings.TrimPrefix(f.Message, f.Path+" ")})
	}
	return notices
}

// asWritten is a registration in the form that it has below spec.oauth. Its values have no position.
func asWritten(r *plugins.Registration) (*strictyaml.Value, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	keys, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	metadata := map[string]any{}
	for key, v := range keys {
		switch text, _ := v.(string); {
		case v == nil, key == "clientName" && text == "":
			delete(keys, key)
		case key == "logoUri" || key == "tosUri" || key == "policyUri":
			delete(keys, key)
			metadata[key] = v
		case key == "jwks":
			// Anything but an object stays text, and is refused as such.
			if set, err := decodeObject([]byte(text)); err == nil {
				keys[key] = set
			}
		}
	}
	keys["metadata"] = metadata
	return valueOf(keys), nil
}

func decodeObject(data []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is text after the end of the object")
	}
	return object, nil
}

// valueOf is the tree of a decoded JSON value.
func valueOf(data any) *strictyaml.Value {
	v := &strictyaml.Value{Kind: strictyaml.Scalar, Data: data}
	switch data := data.(type) {
	case map[string]any:
		v.Kind, v.Data = strictyaml.Mapping, nil
		for _, key := range slices.Sorted(maps.Keys(data)) {
			v.Fields = append(v.Fields, strictyaml.Member{Key: key, Value: valueOf(data[key])})
		}
	case []any:
		v.Kind, v.Data = strictyaml.List, nil
		for _, item := range data {
			v.Items = append(v.Items, valueOf(item))
		}
	case string:
		v.Tag, v.Text = "!!str", data
	case bool:
		v.Tag, v.Text = "!!bool", strconv.FormatBool(data)
	case json.Number:
		v.Tag, v.Text = "!!float", data.String()
		if n, err := data.Int64(); err == nil {
			v.Tag, v.Data = "!!int", n
		}
	default:
		v.Tag = "!!null"
	}
	return v
}
