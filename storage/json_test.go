package storage

import (
	"encoding/json"
	"slices"
	"testing"
)

// Groups and attributes are the same value however they were listed, and whether they were made or read.
func TestUserWithGroupsAndAttributes(t *testing.T) {
	attributes, err := AttributesOf(map[string]any{"level": 3, "department": "Sales & <More>", "roles": []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	made := User{ID: "ann", Groups: NamesOf([]string{"b<>", "a", "b<>"}), Attributes: attributes}
	if other := NamesOf([]string{"a", "b<>"}); other != made.Groups || !slices.Equal(made.GroupNames(),
		[]string{"a", "b<>"}) {
		t.Errorf("%s, %q", other, made.GroupNames())
	}
	var read User
	if err := json.Unmarshal([]byte(encode(made)), &read); err != nil || read != made {
		t.Errorf("%+v, want %+v (%v)", read, made, err)
	}
	if got := string(read.Attribute("level")); got != "3" || read.Attribute("none") != nil {
		t.Errorf("level is %s", got)
	}
	var none User
	if err := json.Unmarshal([]byte(`{"groups": null, "attributes": { "a" : [1, 2] }}`), &none); err != nil ||
		none.Groups != "" ||
		none.GroupNames() != nil || none.Attributes != `{"a":[1,2]}` {
		t.Errorf("%+v (%v)", none, err)
	}
	if NamesOf(nil) != "" {
		t.Error("no groups are some")
	}
}

// The link of a chain is written without package json, where that is possible, and is what that would write.
func TestLinkIsJSON(t *testing.T) {
	steps := []Step{{Generation: 1, At: 2}}
	for _, l := range []link{{}, {At: 1795977089310}, {At: -1}, {At: 5, Base: 3}, {At: 5, Before: steps}} {
		if got, want := l.encode(), encode(l); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
