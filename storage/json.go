package storage

import (
	"bytes"
	"encoding/json"
	"slices"
)

// JSON is a value of JSON as one value that can be compared: its text in one spelling, or nothing.
type JSON string

// MarshalJSON writes the value.
func (j JSON) MarshalJSON() ([]byte, error) {
	if j == "" {
		return []byte("null"), nil
	}
	return []byte(j), nil
}

// UnmarshalJSON reads a value.
func (j *JSON) UnmarshalJSON(data []byte) error {
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil {
		return err
	}
	if *j = JSON(out.String()); *j == "null" {
		*j = ""
	}
	return nil
}

// NamesOf is a list of names, in an order of its own, each once: the same for whoever lists them in another order.
func NamesOf(list []string) JSON {
	if len(list) == 0 {
		return ""
	}
	text, _ := json.Marshal(slices.Compact(slices.Sorted(slices.Values(list)))) // texts
	return JSON(text)
}

// AttributesOf are attributes by name. Their values are those of JSON.
func AttributesOf(attributes map[string]any) (JSON, error) {
	if len(attributes) == 0 {
		return "", nil
	}
	text, err := json.Marshal(attributes) // sorted by name
	return JSON(text), err
}

// GroupNames are the groups that the user is in.
func (u *User) GroupNames() []string {
	var names []string
	if u.Groups != "" {
		_ = json.Unmarshal([]byte(u.Groups), &names) // [NamesOf] has made it
	}
	return names
}

// Attribute is an attribute of the user as JSON; nil when it is not known.
func (u *User) Attribute(name string) json.RawMessage {
	if u.Attributes == "" {
		return nil
	}
	var all map[string]json.RawMessage
	_ = json.Unmarshal([]byte(u.Attributes), &all) // [AttributesOf] has made it
	return all[name]
}
