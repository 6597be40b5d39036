package pages

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/language"
)

// accountPages is each page of an account in each of its shapes, by name.
func accountPages(f Frame) map[string]Page {
	m := make(map[string]Page)
	hidden := []Field{{"form", "f1"}}
	when := time.Date(2026, 11, 3, 18, 5, 0, 0, time.FixedZone("JST", 9*3600))
	of := AccountFrame{Frame: f, Account: "/account", Action: "/account/x", Hidden: hidden}
	account := Account{AccountFrame: of, Person: Person{"Hanako", "h@example.com"}, SignOut: "/logout",
		Password: when, PasswordPage: "/account/password", Profile: "/account/profile", Sessions: "/account/sessions",
		Apps:     "/account/apps",
		Activity: "/account/activity",
		Factors:  AccountFactors{TOTPPage: "/account/totp", CodesPage: "/account/codes", AnyFactors: true}}
	m["account"] = account
	for _, n := range Notices {
		account.Notice = n
		m["account, "+string(n)] = account
	}
	account.Factors.TOTP, account.Factors.Codes = when, 3
	m["account, factors"] = account
	m["totp"] = TOTP{AccountFrame: of, Since: when, UsedAt: when, Anew: "/account/totp?anew=1"}
	m["totp, new"] = TOTP{AccountFrame: of, Secret: "ABCDEFGHIJ", URI: "otpauth://totp/x:y?secret=ABCDEFGHIJ"}
	for _, problem := range append(PasswordProblems, PasswordFine) {
		m["password "+string(problem)] = Password{AccountFrame: of, Own: true, Login: "hanako", Problem: problem, Since: when}
	}
	m["password kept elsewhere"] = Password{AccountFrame: of, By: "GitHub"}
	m["password kept by the operator"] = Password{AccountFrame: of}
	m["profile"] = Profile{AccountFrame: of, Own: true, Name: "花子", Language: "ja", UserName: "hanako",
		Email: "h@example.com", Groups: []string{"admins", "staff"}}
	m["profile, elsewhere"] = Profile{AccountFrame: of, Name: "Hanako", Email: "h@example.com",
		By: []string{"GitHub", "大学"}}
	m["profile, operator"] = Profile{AccountFrame: of, Email: "h@example.com"}
	m["apps"] = Apps{AccountFrame: of, Apps: []AllowedApp{
		{App: exampleApp, ID: "a", Since: when, UsedAt: when,
			Scopes: []Scope{{Name: "threads:read", Description: "Read threads", Risk: RiskLow},
				{Name: "runs:write", Description: "Start runs", Risk: RiskWrite}},
			Resources: []Resource{{Name: "Files", Identifier: "https://files.example.com/api"}}},
		{App: App{ClientName: "x", DescribedAt: "https://tool.example/c"}, ID: "https://tool.example/c", Since: when}}}
	m["apps, none"] = Apps{AccountFrame: of}
	m["activity"] = Activity{AccountFrame: of, SignIns: []PastSignIn{{At: when, Agent: "curl/8", Address: "192.0.2.1",
		Times: 1}, {At: when, Failed: true, Times: 3}, {At: when, Failed: true, Times: 1}}}
	m["activity, none"] = Activity{AccountFrame: of}
	m["profile slip"] = Profile{AccountFrame: AccountFrame{Frame: f, Account: "/account", Action: "/account/profile",
		Slip: SlipName}, Own: true}
	m["sessions"] = Sessions{AccountFrame: of, SignOut: "/logout", Sessions: []Session{
		{ID: "s1", Agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", Address: "192.0.2.1",
			Since: when, SignedIn: when, Apps: []string{"Board", "Files"}, Here: true},
		{ID: "s2", Agent: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) " +
			"Version/18.0 Mobile/15E148 Safari/604.1", Address: "2001:db8::1", SignedIn: when},
		{ID: "s3", SignedIn: when}}}
	m["codes"] = Codes{AccountFrame: of, Left: 3}
	m["codes, none"] = Codes{AccountFrame: of, Useless: true}
	m["codes, new"] = Codes{AccountFrame: of, Codes: []string{"abcd-efgh-ijkl"}, Continue: "/account"}
	m["codes, on the way"] = Codes{AccountFrame: of, Codes: []string{"abcd-efgh-ijkl"},
		Continue: "/oauth/continue?request=r1", Pending: true}
	for _, slip := range Slips {
		of.Slip = slip
		m["account slip "+string(slip)] = TOTP{AccountFrame: of, Secret: "ABCDEFGHIJ",
			URI: "otpauth://totp/x:y?secret=ABCDEFGHIJ", Replaces: true}
	}
	return m
}

// What browsers, apps and people call themselves is text on the pages of an account, however long it is and whichever
// way it is written.
func TestForeignTextInAnAccount(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	const html, turned = `"'><script>alert(1)</script><img src=x onerror=alert(2)>`, "Ann \u202etxt.exe\u202c \u2066x"
	for name, evil := range map[string]string{"HTML": html, "bidirectional": turned, "long": strings.Repeat("w", 10_000)} {
		for _, lang := range Languages {
			of := AccountFrame{Frame: Frame{Lang: lang}, Account: "/account", Action: "/account/x",
				Hidden: []Field{{evil, evil}}}
			for _, page := range []Page{
				Account{AccountFrame: of, Person: Person{evil, evil}, SignOut: "/x"},
				TOTP{AccountFrame: of, Secret: "ABCD", URI: "javascript:alert(1)"},
				Codes{AccountFrame: of, Codes: []string{"abcd"}, Continue: "javascript:alert(1)"},
				Password{AccountFrame: of, Own: true, Login: evil},
				Password{AccountFrame: of, By: evil},
				Profile{AccountFrame: of, Name: evil, UserName: evil, Email: evil, Groups: []string{evil}, By: []string{evil}},
				Profile{AccountFrame: of, Own: true, Name: evil, Language: evil},
				Apps{AccountFrame: of, Apps: []AllowedApp{{App: App{ClientName: evil, LogoURI: evil}, ID: evil,
					Scopes: []Scope{{Name: evil, Description: evil}}, Resources: []Resource{{Name: evil, Identifier: evil}}}}},
				Activity{AccountFrame: of, SignIns: []PastSignIn{{Agent: evil, Address: evil, Failed: true, Times: 2}}},
				Sessions{AccountFrame: of, Sessions: []Session{{ID: evil, Agent: evil, Address: evil, Apps: []string{evil}}}},
			} {
				body := get(s, page).Body.Bytes()
				doc := parse(t, body)
				for _, n := range elements(doc) {
					if n.Data == "script" && n.FirstChild.Data != page.script() || n.Data == "img" {
						t.Errorf("%s: %s: a %s element", name, page.template(), n.Data)
					}
					for _, a := range n.Attr {
						if strings.HasPrefix(a.Key, "on") || a.Key == "href" && strings.HasPrefix(a.Val, "javascript:") {
							t.Errorf("%s: %s: %s=%q", name, page.template(), a.Key, a.Val)
						}
					}
				}
				if text := words(elements(doc, "main")[0]); strings.ContainsAny(text, "\u202e\u2066") && name == "bidirectional" ||
					len(text) > 5000 {
					t.Errorf("%s: %s shows %d characters: %.200q", name, page.template(), len(text), text)
				}
			}
		}
	}
}

func TestDevice(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                                                 "Firefox on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0":          "Edge on Windows",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15":                  "Safari on macOS",
		"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36":                        "Chrome on Android",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0 Mobile/15E148 Safari/604.1": "Chrome on iPhone",
		"Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1":         "Safari on iPad",
		"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36":                         "Chrome on ChromeOS",
		"curl/8.5.0": "curl",
		"MyTool <b>": "MyTool <b>",
		"":           "",
	} {
		all, err := allTexts()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := all[language.English].device(agent); got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", agent, got, err, want)
		}
	}
}

// A QR code has the modules of the code and a quiet zone, and its path stays within.
func TestQRCode(t *testing.T) {
	code, err := newQR("otpauth://totp/x:y?secret=ABCDEFGHIJ")
	if err != nil || code.Side < 29 || !strings.HasPrefix(code.Path, "M4 4h7v1h-7z") {
		t.Errorf("%d %.40s %v", code.Side, code.Path, err)
	}
	page := get(newSet(t, "https://id.example.com"), TOTP{Secret: "A", URI: "otpauth://totp/" + strings.Repeat("x", 1200)})
	if !bytes.Contains(page.Body.Bytes(), []byte("<path d=")) {
		t.Error("a long name has no QR code")
	}
}
