package runtimefile

import (
	"strings"
	"testing"
)

// sameEverywhere reports how the three readers see a line between two others,
// which catches a value that swallows what follows.
func sameEverywhere(t *testing.T, written, want string) {
	t.Helper()
	content := "BEFORE='x'\nV=" + written + "\nAFTER='y'\n"
	for reader, got := range map[string]map[string]string{
		"systemd": readSystemd(content), "compose": readCompose(t, content), "wrangler": readDotenv(content),
	} {
		if got["V"] != want || got["BEFORE"] != "x" || got["AFTER"] != "y" || len(got) != 3 {
			t.Errorf("%s reads %q as %q", reader, content, got)
		}
	}
}

func TestValuesAreReadAlikeBySystemdComposeAndWrangler(t *testing.T) {
	for value, form := range map[string]string{
		"":                        "''",
		"plain":                   "plain",
		"my-app-k3v9a0b1c2d3":     "my-app-k3v9a0b1c2d3",
		"wfs_AZaz09-_":            "wfs_AZaz09-_",
		"https://id.test:5556/x":  "https://id.test:5556/x",
		"a=b==":                   "a=b==",
		"two words":               "'two words'",
		" edges ":                 "' edges '",
		"\ttab\t":                 "'\ttab\t'",
		"#comment":                "'#comment'",
		"a #b":                    "'a #b'",
		"a#b":                     "'a#b'",
		";semicolon":              "';semicolon'",
		"$HOME ${HOME} $$":        "'$HOME ${HOME} $$'",
		"`id`":                    "'`id`'",
		`"double"`:                `'"double"'`,
		`{"json": [1, "$x"]}`:     `'{"json": [1, "$x"]}'`,
		`back\slash \n \t`:        `'back\slash \n \t'`,
		`\`:                       "",
		`ends with \`:             "",
		`ends with \\`:            "",
		"it's":                    `"it's"`,
		"'single'":                `"'single'"`,
		"'":                       `"'"`,
		"it's #1":                 `"it's #1"`,
		"it's $5":                 "",
		`it's a \`:                "",
		"it's `x`":                "",
		`{"a": "it's"}`:           `{"a": "it's"}`,
		`say "it's"`:              `say "it's"`,
		`"it's" said`:             "",
		`'a' "b"`:                 "",
		`say "it's" #1`:           "",
		`say "it's" $x`:           "",
		` say "it's"`:             "",
		`say "it's" `:             "",
		"日本語 é":                   "'日本語 é'",
		"日本's \"x\"":              "",
		"line\nend":               "",
		"line\rend":               "",
		"nul\x00":                 "",
		"bell\a":                  "",
		"separator\u2028":         "",
		"\ufeffmark":              "",
		"\xff":                    "",
		strings.Repeat("x", 4096): strings.Repeat("x", 4096),
	} {
		got, err := quote(value)
		if got != form || (err == nil) != (form != "") {
			t.Errorf("quote(%q) = %q, %v; want %q", value, got, err, form)
			continue
		}
		if err == nil {
			sameEverywhere(t, got, value)
		}
		if err != nil && value != "" && len(value) > 3 && strings.Contains(err.Error(), value) {
			t.Errorf("the error quotes the value: %v", err)
		}
	}
}

// Every string of awkward characters, so that no combination was forgotten.
func TestEveryShortCombinationIsReadAlikeOrRefused(t *testing.T) {
	alphabet := []string{"a", "'", `"`, "`", `\`, "$", "#", " ", "=", "n", "{", ";"}
	refused := 0
	var walk func(value string, left int)
	walk = func(value string, left int) {
		if written, err := quote(value); err == nil {
			sameEverywhere(t, written, value)
		} else {
			refused++
		}
		if left == 0 || t.Failed() {
			return
		}
		for _, c := range alphabet {
			walk(value+c, left-1)
		}
	}
	walk("", 4)
	if refused == 0 || refused > 10_000 {
		t.Errorf("%d of about 22000 values are refused", refused)
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("it's \"$x\" #1 \\")
	f.Fuzz(func(t *testing.T, value string) {
		if written, err := quote(value); err == nil {
			sameEverywhere(t, written, value)
		}
	})
}
