package config

import (
	"testing"
)

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
			if _, err := parse("c.yaml", []byte(text), nil); err != nil {
				t.Errorf("%s: %s: %v", key, value, err)
			}
		}
	}
}
