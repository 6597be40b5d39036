package admin

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/warifu/warifu/storage"
)

// What scripts read of a client stays as it is, member by member.
func TestClientIsToldAsBefore(t *testing.T) {
	var full storage.Client
	record, err := os.ReadFile("../../storage/testdata/records/client-full.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(record, &full); err != nil {
		t.Fatal(err)
	}
	for file, c := range map[string]*storage.Client{"testdata/client-full.json": &full, "testdata/client-empty.json": {}} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		told, err := json.Marshal(clientOf(c))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(told, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %s\nwant %s", file, told, text)
		}
	}
}
