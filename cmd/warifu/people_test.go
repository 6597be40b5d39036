package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
)

// empties are the fields of a struct that say nothing.
func empties(v reflect.Value, at string) []string {
	var out []string
	for i := range v.NumField() {
		name := at + v.Type().Field(i).Name
		switch f := v.Field(i); {
		case f.Kind() == reflect.Struct:
			out = append(out, empties(f, name+".")...)
		case f.IsZero():
			out = append(out, name)
		}
	}
	return out
}

// The user of dev has every claim, each of them as the configuration wants it.
func TestDevPersonHasEveryClaim(t *testing.T) {
	person := devPerson("dev@example.com", "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W")
	for _, name := range empties(reflect.ValueOf(person), "") {
		if name != "HashFile" {
			t.Errorf("%s is empty", name)
		}
	}
	cfg := config.Default()
	cfg.Issuer, cfg.Web.HTTP = "http://127.0.0.1:5556", "127.0.0.1:5556"
	cfg.EnablePasswordDB, cfg.StaticPasswords = true, []config.StaticPassword{person}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dev.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Read(file, nil); err != nil {
		t.Error(err)
	}
	// Nothing is lost on the way to the record.
	record := server.UserRecord(connector.StaticUser{Identity: person.Identity()}.Known())
	for _, name := range empties(reflect.ValueOf(record), "") {
		ofOthers := []string{"Connector", "Disabled", "Left", "Managed", "Origin", "Revision", "Term", "UpstreamID"}
		if !slices.Contains(ofOthers, name) && !strings.HasPrefix(name, "UpdatedAt") {
			t.Errorf("the record has no %s", name)
		}
	}
}
