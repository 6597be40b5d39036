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

	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/storage"
)

// registrationOf is a client as hooks see it.
func registrationOf(c *storage.Client) *plugins.Registration {
	if c == nil {
		return nil
	}
	return &plugins.Registration{
		ClientName: c.Name, RedirectURIs: c.RedirectURIs, Scopes: c.Scopes, Public: c.Public,
		LogoURI: c.LogoURI, TOSURI: c.TosURI, PolicyURI: c.PolicyURI,
		PostLogoutRedirectURIs: c.PostLogoutRedirectURIs,
		ClientMetadata:         plugins.ClientMetadata(c.ClientMetadata),
	}
}

// checkRegistration holds what a hook made of a manifest against the manifest's own table and rules: it is written down as
// spec.oauth, and checked as if somebody had written it there.
func (d *Deployer) checkRegistration(file string, r *plugins.Registration) []plugins.Notice {
	c := &checker{report: &report{file: file}, opts: Options{Dev: d.dev, Scopes: d.scopes, GrantTypes: d.grantTypes}}
	const path = "spec.oauth"
	written, err := asWritten(r)
	if err != nil {
		c.errorf(position{}, path, "not-understood", "", "cannot be written down: %v", err)
	} else {
		c.check(written, oauthShape, path)
		c.checkOAuth(written, path)
	}
	var notices []plugins.Notice
	for _, f := range c.faults.Errors() {
		notices = append(notices, plugins.Notice{Code: strings.ReplaceAll(f.Code, "-", "_"), Path: f.Path, Message: strings.TrimPrefix(f.Message, f.Path+" ")})
	}
	return notices
}

// asWritten is a registration in the form that it has below spec.oauth. Its values have no position.
func asWritten(r *plugins.Registration) (*value, error) {
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
			// What is no object stays text, and is refused as such.
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
		return nil, errors.New("text behind the end of the object")
	}
	return object, nil
}

// valueOf is the tree of a decoded JSON value.
func valueOf(data any) *value {
	v := &value{kind: yaml.ScalarNode, data: data}
	switch data := data.(type) {
	case map[string]any:
		v.kind, v.data = yaml.MappingNode, nil
		for _, key := range slices.Sorted(maps.Keys(data)) {
			v.fields = append(v.fields, member{key: key, value: valueOf(data[key])})
		}
	case []any:
		v.kind, v.data = yaml.SequenceNode, nil
		for _, item := range data {
			v.items = append(v.items, valueOf(item))
		}
	case string:
		v.tag, v.text = "!!str", data
	case bool:
		v.tag, v.text = "!!bool", strconv.FormatBool(data)
	case json.Number:
		v.tag, v.text = "!!float", data.String()
		if n, err := data.Int64(); err == nil {
			v.tag, v.data = "!!int", n
		}
	default:
		v.tag = "!!null"
	}
	return v
}
