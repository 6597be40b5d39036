package oauth

import (
	"reflect"
	"strings"
	"testing"
)

// jsonFields are the fields of a struct by their names in JSON, those of embedded structs among them.
func jsonFields(v reflect.Value, into map[string]reflect.Value) map[string]reflect.Value {
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Anonymous {
			jsonFields(v.Field(i), into)
		} else {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			into[name] = v.Field(i)
		}
	}
	return into
}

// Each field of a client has one row, which leads to it and calls it as its JSON does.
func TestEveryFieldOfAClientIsInTheTable(t *testing.T) {
	var c Client
	inStruct := jsonFields(reflect.ValueOf(&c).Elem(), make(map[string]reflect.Value))
	seen := make(map[string]bool)
	for _, f := range Fields() {
		field, there := inStruct[f.Member()]
		if !there || seen[f.Member()] {
			t.Errorf("%s is no field of a client, or is in the table twice", f.Key)
			continue
		}
		seen[f.Member()] = true
		if f.Of(&c) != field.Addr().Interface() {
			t.Errorf("the row of %s leads to another field", f.Key)
		}
		if f.About == "" || FieldOf(f.Key) != f {
			t.Errorf("%s has no words, or is not found", f.Key)
		}
		if (f.By == Anybody) != (f.Name != "") {
			t.Errorf("%s has the member %q, and may be set by %v", f.Key, f.Name, f.By)
		}
		if (f.Kind == KindChoice) != (len(f.Choices) > 0) {
			t.Errorf("%s has the choices %q", f.Key, f.Choices)
		}
	}
	for name := range inStruct {
		if !seen[name] {
			t.Errorf("%s has no row", name)
		}
	}
}

func TestFieldIsSet(t *testing.T) {
	zero := int64(0)
	full := Client{
		ClientName: "App", RedirectURIs: []string{"https://app.test/"}, Public: true,
		ClientMetadata: ClientMetadata{DefaultMaxAge: &zero},
	}
	for _, key := range []string{"clientName", "redirectUris", "public", "defaultMaxAge"} {
		if f := FieldOf(key); !f.IsSet(&full) || f.IsSet(&Client{}) {
			t.Errorf("%s", key)
		}
	}
}
