package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"

	"github.com/warifu/warifu/storage"
)

// claimsRequest are the claims that a client requests individually, beside those that come with scopes (OpenID Connect
// Core 1.0 section 5.5). Sealed into the code, it says what the ID token and userinfo hold in addition. Once
// [Server.permitted] has been through it, it names only claims of this server, of scopes that the client may ask for;
// nil asks for none.
type claimsRequest struct {
	Userinfo claimWishes `json:"u,omitempty"`
	IDToken  claimWishes `json:"i,omitempty"`
}

// claimWishes are wishes by the name of the claim.
type claimWishes map[string]claimWish

// claimWish is how a claim is asked for. Without Values any will do.
type claimWish struct {
	Essential bool              `json:"e,omitempty"`
	Values    []json.RawMessage `json:"v,omitempty"` // compact, the most wanted first
	// Scope that covers the claim, where it is not a standard one.
	Scope string `json:"s,omitempty"`
}

// maxClaims is the longest claims parameter, in bytes.
const maxClaims = 2048

// claimScope is the scope that a standard claim comes with (OpenID Connect Core 1.0 section 5.4), "" for any other.
// Asking for one of them by name takes the same permission: app.yml lists the scope, and the user allows it.
func claimScope(name string) string {
	i := slices.IndexFunc(standardClaims, func(c claim) bool { return c.name == name })
	if i < 0 {
		return ""
	}
	return standardClaims[i].scope
}

// forUserinfo and forIDToken are what is asked for in either place. A nil request asks for nothing.
func (c *claimsRequest) forUserinfo() claimWishes {
	if c == nil {
		return nil
	}
	return c.Userinfo
}

func (c *claimsRequest) forIDToken() claimWishes {
	if c == nil {
		return nil
	}
	return c.IDToken
}

// onlyIDToken is what is asked of ID tokens alone; nil when nothing is.
func (c *claimsRequest) onlyIDToken() *claimsRequest {
	if len(c.forIDToken()) == 0 {
		return nil
	}
	return &claimsRequest{IDToken: c.IDToken}
}

// names are those of the claims asked for, sorted.
func (w claimWishes) names() []string { return slices.Sorted(maps.Keys(w)) }

// wants reports whether the claim is asked for, and with this value among others or with any. A claim that has another
// value is left out, because it was not requested.
func (w claimWishes) wants(name string, value any) bool {
	wish, asked := w[name]
	if !asked || len(wish.Values) == 0 {
		return asked
	}
	encoded, err := json.Marshal(value)
	var known any
	if err != nil || json.Unmarshal(encoded, &known) != nil {
		return false
	}
	return slices.ContainsFunc(wish.Values, func(v json.RawMessage) bool {
		var wanted any
		return json.Unmarshal(v, &wanted) == nil && reflect.DeepEqual(wanted, known) // a value has more than one spelling
	})
}

// texts are the values of a wish that are strings.
func (w claimWish) texts() []string {
	var out []string
	for _, v := range w.Values {
		var text string
		if json.Unmarshal(v, &text) == nil {
			out = append(out, text)
		}
	}
	return out
}

// scopes are those to which the claims asked for belong, each once.
func (c *claimsRequest) scopes() []string {
	var out []string
	for _, wishes := range []claimWishes{c.forUserinfo(), c.forIDToken()} {
		for _, name := range wishes.names() {
			if scope := cmp.Or(wishes[name].Scope, claimScope(name)); scope != "" && !slices.Contains(out, scope) {
				out = append(out, scope)
			}
		}
	}
	return out
}

// permitted leaves only claims of scopes that the client may ask for. The others are left out silently, as section
// 5.5.1 wants it even of essential ones; nil is left when nothing is.
func (k *catalogue) permitted(c *storage.Client, asked *claimsRequest) *claimsRequest {
	filter := func(wishes claimWishes) claimWishes {
		out := claimWishes{}
		for name, wish := range wishes {
			about := k.claimNamed(name)
			if about == nil || !k.mayTell(c, *about) {
				continue
			}
			if claimScope(name) == "" {
				wish.Scope = about.scope
			}
			out[name] = wish
		}
		return out
	}
	out := &claimsRequest{Userinfo: filter(asked.forUserinfo()), IDToken: filter(asked.forIDToken())}
	if len(out.Userinfo)+len(out.IDToken) == 0 {
		return nil
	}
	return out
}

// parseClaims reads the claims parameter: a JSON object with the members userinfo and id_token. What it does not know
// is ignored, as section 5.5 wants it.
func parseClaims(param string) (*claimsRequest, error) {
	if len(param) > maxClaims {
		return nil, errors.New("claims is longer than 2048 bytes")
	}
	var top struct {
		Userinfo map[string]json.RawMessage `json:"userinfo"`
		IDToken  map[string]json.RawMessage `json:"id_token"`
	}
	if !jsonObject([]byte(param)) || json.Unmarshal([]byte(param), &top) != nil {
		return nil, errors.New("claims must be a JSON object whose members userinfo and id_token are objects")
	}
	out := &claimsRequest{}
	var err error
	if out.Userinfo, err = parseWishes(top.Userinfo); err != nil {
		return nil, err
	}
	if out.IDToken, err = parseWishes(top.IDToken); err != nil {
		return nil, err
	}
	return out, nil
}

func parseWishes(members map[string]json.RawMessage) (claimWishes, error) {
	bad := errors.New("claims: each claim must be null or an object with essential (true or false), value, " +
		"or values (a list)")
	out := make(claimWishes, len(members))
	for name, raw := range members {
		var wish struct {
			Essential bool              `json:"essential"`
			Value     json.RawMessage   `json:"value"`
			Values    []json.RawMessage `json:"values"`
		}
		if string(raw) != "null" && (!jsonObject(raw) || json.Unmarshal(raw, &wish) != nil) {
			return nil, bad
		}
		if string(wish.Value) == "null" {
			wish.Value = nil
		}
		if wish.Value != nil && wish.Values != nil {
			return nil, errors.New("claims: a claim has either value or values")
		}
		if wish.Value != nil {
			wish.Values = []json.RawMessage{wish.Value}
		}
		for i, value := range wish.Values {
			var compact bytes.Buffer
			if err := json.Compact(&compact, value); err != nil {
				return nil, bad
			}
			wish.Values[i] = compact.Bytes()
		}
		out[name] = claimWish{Essential: wish.Essential, Values: wish.Values}
	}
	return out, nil
}

// jsonObject reports whether data begins as a JSON object does: null would decode into one as well.
func jsonObject(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
}
