package manifests

import (
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/oauth"
)

const (
	// maxKeys bounds a JWK Set: an app has a key, its successor, and perhaps one of each kind.
	maxKeys = 16
	// minRSA and maxRSA are in bits: below, a key can be broken (RFC 7518 section 3.3); above, verifying costs too much.
	minRSA, maxRSA = 2048, 8192
	maxKeyID       = 256
)

// privateMembers are members of private and symmetric keys (RFC 7518 section 6). Everyone who can read the manifest would have
// the key.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// keyMembers are the members that a public key of each type must have, and its curve.
var keyMembers = map[string]struct {
	members []string
	curve   string
}{
	"RSA": {members: []string{"n", "e"}},
	"EC":  {members: []string{"crv", "x", "y"}, curve: "P-256"},
	"OKP": {members: []string{"crv", "x"}, curve: "Ed25519"},
}

// keyType is the type of key that an algorithm takes.
func keyType(alg string) string {
	switch alg {
	case "RS256", "PS256":
		return "RSA"
	case "ES256":
		return "EC"
	}
	return "OKP"
}

// checkJWK checks one key against RFC 7517 and 7518, and against what this server verifies. No fault repeats a part of a key.
func checkJWK(c *checker, v *strictyaml.Value, path string) {
	before := c.Errors()
	for _, m := range v.Fields {
		if slices.Contains(privateMembers, m.Key) {
			c.Errorf(m.Position, strictyaml.Join(path, m.Key), "private-key", "",
				"is part of a private key, which must not leave the app: register only a public key, and replace this one, because it has been exposed")
			return
		}
	}
	kty := c.keyText(v, path, "kty", true)
	shape, known := keyMembers[kty]
	switch {
	case kty == "oct":
		c.Errorf(v.Field("kty").Position, strictyaml.Join(path, "kty"), "private-key", "", "is oct, a shared secret: use a key pair (RSA, EC or OKP)")
	case kty != "" && !known:
		types := []string{"EC", "OKP", "RSA"}
		c.Errorf(v.Field("kty").Position, strictyaml.Join(path, "kty"), "key-type", c.nearest(kty, types), "must be one of %s", strings.Join(types, ", "))
	}
	if !known {
		return
	}
	for _, member := range shape.members {
		text := c.keyText(v, path, member, true)
		if member == "crv" && text != "" && text != shape.curve {
			c.Errorf(v.Field("crv").Position, strictyaml.Join(path, "crv"), "key-type", shape.curve, "must be %s for a key of the type %s", shape.curve, kty)
		}
	}
	c.checkKeyUse(v, path, kty)
	if c.Errors() > before {
		return
	}
	key, err := publicKey(v)
	if err != nil {
		c.Errorf(v.Position, path, "key", "", "is not a public key of the type %s", kty)
		return
	}
	if public, ok := key.Key.(*rsa.PublicKey); ok && (public.N.BitLen() < minRSA || public.N.BitLen() > maxRSA) {
		c.Errorf(v.Position, path, "key-size", "", "has %d bits; an RSA key must have %d to %d", public.N.BitLen(), minRSA, maxRSA)
	}
}

// keyText is a member of a key that must be text.
func (c *checker) keyText(key *strictyaml.Value, path, name string, required bool) string {
	v := key.Field(name)
	switch {
	case v == nil && required:
		c.Errorf(key.Position, strictyaml.Join(path, name), "required", "", "is required")
	case v == nil:
	case !v.IsText():
		c.Errorf(v.Position, strictyaml.Join(path, name), "wrong-type", "", "must be text: put it in quotes")
	case v.Text == "":
		c.Errorf(v.Position, strictyaml.Join(path, name), "required", "", "is empty")
	default:
		return v.Text
	}
	return ""
}

// checkKeyUse checks the declared use of a key (RFC 7517 sections 4.2, 4.4 and 4.5).
func (c *checker) checkKeyUse(v *strictyaml.Value, path, kty string) {
	if len(c.keyText(v, path, "kid", false)) > maxKeyID {
		c.Errorf(v.Field("kid").Position, strictyaml.Join(path, "kid"), "key", "", "is longer than %d bytes", maxKeyID)
	}
	switch use := c.keyText(v, path, "use", false); use {
	case "enc":
		return // not for us
	case "", "sig":
	default:
		c.Errorf(v.Field("use").Position, strictyaml.Join(path, "use"), "wrong-value", c.nearest(use, []string{"sig", "enc"}), "must be sig or enc")
	}
	alg := c.keyText(v, path, "alg", false)
	if alg != "" && (!slices.Contains(oauth.ClientAlgs(), alg) || keyType(alg) != kty) {
		c.Errorf(v.Field("alg").Position, strictyaml.Join(path, "alg"), "wrong-value", "",
			"must be an algorithm of a key of the type %s that this server verifies: %s", kty, strings.Join(algsOf(kty), ", "))
	}
}

func algsOf(kty string) []string {
	return slices.DeleteFunc(slices.Clone(oauth.ClientAlgs()), func(alg string) bool { return keyType(alg) != kty })
}

func publicKey(v *strictyaml.Value) (*jose.JSONWebKey, error) {
	data, err := json.Marshal(v.JSON())
	if err != nil {
		return nil, err
	}
	key := new(jose.JSONWebKey)
	if err := key.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	return key, nil
}

// checkJWKS checks the keys of a set against each other.
func checkJWKS(c *checker, v *strictyaml.Value, path string) {
	keys := v.Field("keys")
	if keys == nil {
		return
	}
	path = strictyaml.Join(path, "keys")
	if len(keys.Items) > maxKeys {
		c.Errorf(keys.Position, path, "key", "", "holds %d keys, and a client may have %d", len(keys.Items), maxKeys)
	}
	seen := make(map[string]bool)
	for i, key := range keys.Items {
		kid := key.Field("kid")
		if kid == nil || !kid.IsText() {
			continue
		}
		if seen[kid.Text] {
			c.Errorf(kid.Position, strictyaml.Join(itemPath(path, i), "kid"), "duplicate", "", "is also the kid of another key, so a signature could not be assigned to one of them")
		}
		seen[kid.Text] = true
	}
}

// canSign reports whether a set has a key for signatures of an algorithm, or of any if alg is empty. A key that was refused
// counts, because its fault has been reported already.
func canSign(set *strictyaml.Value, alg string) bool {
	keys := set.Field("keys")
	if keys == nil || len(keys.Items) == 0 {
		return true
	}
	return slices.ContainsFunc(keys.Items, func(key *strictyaml.Value) bool {
		if key.Kind != strictyaml.Mapping {
			return true
		}
		textOf := func(name string) string {
			if v := key.Field(name); v != nil {
				return v.Text
			}
			return ""
		}
		if textOf("use") == "enc" {
			return false
		}
		only, kty := textOf("alg"), textOf("kty")
		return alg == "" || kty == keyType(alg) && (only == "" || only == alg) || keyMembers[kty].members == nil
	})
}

// keyNames returns the keys of a JWK Set as JSON, by name: the kid, or else the thumbprint (RFC 7638).
func keyNames(jwks string) map[string]string {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if jwks == "" || json.Unmarshal([]byte(jwks), &set) != nil {
		return nil
	}
	names := make(map[string]string, len(set.Keys))
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil {
			continue
		}
		name := key.KeyID
		if sum, err := key.Thumbprint(crypto.SHA256); err == nil && name == "" {
			name = base64.RawURLEncoding.EncodeToString(sum)
		}
		names[name] = string(raw)
	}
	return names
}
