package config

import (
	"maps"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/oauth"
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

// What is demanded of people comes from the file, and of everybody from the environment as well.
func TestDemandsOfPeople(t *testing.T) {
	text := smallest + "mfa: {demand: required, groups: {admins: phishing-resistant, team a: required}}\n"
	cfg, err := parse("c.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := cfg.MFA.Demands()
	if d.Everybody != oauth.AssuranceMFA || !maps.Equal(d.Groups, map[string]oauth.Assurance{
		"admins": oauth.AssurancePhishingResistant, "team a": oauth.AssuranceMFA}) {
		t.Errorf("%+v", d)
	}
	if cfg, err = parse("c.yaml", []byte(smallest), []string{"WARIFU_MFA_DEMAND=phishing-resistant"}); err != nil {
		t.Fatal(err)
	}
	if d = cfg.MFA.Demands(); d.Everybody != oauth.AssurancePhishingResistant || d.Groups != nil {
		t.Errorf("%+v", d)
	}
	_, err = parse("c.yaml", []byte("issuer: https://192.0.2.1\nweb: {http: 127.0.0.1:0}\n"+
		"mfa: {demand: phishing-resistant}\n"), nil)
	if err == nil || !strings.Contains(err.Error(), "mfa.demand is phishing-resistant, and there can be no passkeys") {
		t.Error(err)
	}
}
