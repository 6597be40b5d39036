package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/warifu/warifu/server"
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
	r := &reader{places: map[string]place{"": {1, 1}}, variables: map[string]string{}, mistaken: map[string]bool{}}
	r.checkPasswords(&Config{EnablePasswordDB: true, StaticPasswords: []StaticPassword{person}})
	if len(r.faults) > 0 {
		t.Errorf("%v", r.faults)
	}
	// Nothing is lost on the way to the record.
	record := server.UserRecord(person.identity())
	for _, name := range empties(reflect.ValueOf(record), "") {
		if name != "Connector" && name != "Disabled" && name != "Revision" && !strings.HasPrefix(name, "UpdatedAt") {
			t.Errorf("the record has no %s", name)
		}
	}
}

func TestClaimsThatAreTaken(t *testing.T) {
	for key, values := range map[string][]string{
		"birthdate":   {"1990-04-01", `"1990"`, "0000-04-01", "0000-02-29"},
		"zoneinfo":    {"Asia/Tokyo", "UTC", "America/Argentina/Buenos_Aires"},
		"locale":      {"ja", "ja-JP", "en-us", "zh-Hant-TW", "es-419"},
		"phoneNumber": {`"+81 3 1234 5678"`, `"+1 (425) 555-1212"`, `"+81312345678"`, `"+1 (604) 555-1234;ext=5678"`},
		"name":        {"山田 太郎", `"O'Brien"`},
		"picture":     {"https://example.com/画像.png", "http://localhost:3000/me"},
		"address":     {`{formatted: "a\nb"}`, `{postalCode: "100"}`, "{}", ""},
	} {
		for _, value := range values {
			text := smallest + "enablePasswordDB: true\nstaticPasswords:\n  - email: ann@example.com\n    userID: a\n" +
				"    hash: $2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W\n    " + key + ": " + value + "\n"
			if _, err := parseConfig("c.yaml", []byte(text), nil); err != nil {
				t.Errorf("%s: %s: %v", key, value, err)
			}
		}
	}
}
