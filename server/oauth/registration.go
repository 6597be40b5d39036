package oauth

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
)

// ReadMetadata reads what a client says of itself (RFC 7591 section 2) into c. Members that are not in the table are
// ignored, as section 2 says, and so are those in another language (#), those that are null, and those that only an
// operator may set.
func (c *Client) ReadMetadata(members map[string]json.RawMessage) *Error {
	for _, f := range fields {
		raw := members[f.Name]
		if f.By != Anybody || len(raw) == 0 || string(raw) == "null" {
			continue
		}
		var err error
		wanted := "text"
		switch to := f.Of(c).(type) {
		case *string:
			if f.Kind == KindKeys {
				*to = string(raw)
			} else {
				err = json.Unmarshal(raw, to)
			}
		case *bool:
			wanted, err = "true or false", json.Unmarshal(raw, to)
		case *[]string:
			var list []string
			if wanted = "a list of texts"; f.Kind == KindScopes {
				var text string
				wanted, err = "text, with spaces between scopes", json.Unmarshal(raw, &text)
				list = ParseScopes(text)
			} else {
				err = json.Unmarshal(raw, &list)
			}
			*to = list
		case **int64:
			wanted, err = "a whole number", json.Unmarshal(raw, to)
		}
		if err != nil {
			return Refuse(CodeInvalidClientMetadata, RuleRegistrationMetadata, "%s must be %s", f.Name, wanted)
		}
	}
	return nil
}

// Metadata is c in the words of RFC 7591: what differs from the zero value, and what anybody may say.
func (c *Client) Metadata() map[string]any {
	members := make(map[string]any)
	for _, f := range fields {
		if f.By != Anybody || !f.IsSet(c) {
			continue
		}
		switch v := f.Of(c).(type) {
		case *string:
			members[f.Name] = *v
			if f.Kind == KindKeys {
				members[f.Name] = json.RawMessage(*v)
			}
		case *bool:
			members[f.Name] = *v
		case *[]string:
			members[f.Name] = *v
			if f.Kind == KindScopes {
				members[f.Name] = JoinScopes(*v)
			}
		case **int64:
			members[f.Name] = **v
		}
	}
	return members
}

// maxRefusal bounds what a registration is told of all its violations, in bytes.
const maxRefusal = 1000

// RefuseMetadata tells a registration what is wrong with it, all at once (RFC 7591 section 3.2.2); nil if nothing is.
// The first violation gives the code and the rule, which has the name that it has for manifests.
func RefuseMetadata(violations []Violation) *Error {
	var first *Error
	var said strings.Builder
	more := 0
	for _, v := range violations {
		switch {
		case v.Warning:
		case first == nil:
			first = v.refusal()
			said.WriteString(first.Description)
		case more > 0 || said.Len() > maxRefusal:
			more++
		default:
			said.WriteString("; " + v.refusal().Description)
		}
	}
	if first == nil {
		return nil
	}
	if more > 0 {
		fmt.Fprintf(&said, "; and %d more", more)
	}
	first.Description = said.String()
	return first
}

// refusal is the violation as a registration is told of it: fields have their names of RFC 7591.
func (v Violation) refusal() *Error {
	f := fieldsByKey[v.Key]
	code := CodeInvalidClientMetadata
	if f.Kind == KindRedirects {
		code = CodeInvalidRedirectURI
	}
	said := fmt.Sprintf("%s%s %s", f.Name, v.At, memberNames.Replace(v.Message))
	nearest := cmp.Or(v.Nearest, NearestName(v.Asked, v.Choices, Nearest))
	return Refuse(code, v.Code, "%s", said).About(Printable(v.Asked), nearest, f.Name+v.At)
}

// memberNames turns the keys of a message into members of RFC 7591.
var memberNames = func() *strings.Replacer {
	var pairs []string
	for _, f := range fields {
		if f.Name != "" && strings.ToLower(f.Key) != f.Key { // a word that is a key by chance stays
			pairs = append(pairs, f.Key, f.Name)
		}
	}
	return strings.NewReplacer(pairs...)
}()
