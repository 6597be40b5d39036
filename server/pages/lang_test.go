package pages

import (
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/language"

	"github.com/warifu/warifu/server/oauth"
	"gopkg.in/yaml.v3"
)

func TestLang(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	flood := strings.Repeat("x-a,", 1<<18)
	for name, c := range map[string]struct {
		ui, accept string
		want       language.Tag
	}{
		"nothing said":               {"", "", language.English},
		"ui_locales before header":   {"ja", "en", language.Japanese},
		"first that we speak":        {"fr-CA ja-JP en", "en", language.Japanese},
		"regions":                    {"en-GB", "ja", language.English},
		"unknown falls to header":    {"fr de", "ja;q=0.5, fr", language.Japanese},
		"malformed falls to header":  {"!! \x00", "ja", language.Japanese},
		"weights":                    {"", "en;q=0.3, ja;q=0.9", language.Japanese},
		"header that we cannot meet": {"", "fr, de;q=0.5", language.English},
		"malformed header":           {"", ";;;=ja", language.English},
		"flood of header":            {"", "ja," + flood, language.Japanese},
		"flood of ui_locales":        {strings.ReplaceAll(flood, ",", " "), "ja", language.Japanese},
		"one endless tag":            {strings.Repeat("ja-", 1<<18), "", language.English},
	} {
		if got := s.Lang(c.ui, c.accept); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// locale reads a file of texts as go-i18n does: a message is a string, or a map of plural forms.
func locale(t *testing.T, tag language.Tag) map[string]string {
	t.Helper()
	b, err := localeFiles.ReadFile("locales/" + tag.String() + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := yaml.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for k, v := range raw {
		switch v := v.(type) {
		case string:
			out[k] = v
		case map[string]any:
			other, ok := v["other"].(string)
			if !ok {
				t.Errorf("%s: %s has no form \"other\"", tag, k)
			}
			out[k] = other
		}
	}
	return out
}

var placeholder = regexp.MustCompile(`{{\.(\w+)}}`)

func TestLocalesSayTheSame(t *testing.T) {
	en, ja := locale(t, language.English), locale(t, language.Japanese)
	for id, text := range en {
		other, ok := ja[id]
		if !ok {
			t.Errorf("%s is missing in Japanese", id)
			continue
		}
		a, b := placeholder.FindAllString(text, -1), placeholder.FindAllString(other, -1)
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			t.Errorf("%s: placeholders %v and %v", id, a, b)
		}
		if strings.TrimSpace(text) == "" || strings.TrimSpace(other) == "" {
			t.Errorf("%s is empty", id)
		}
	}
	for id := range ja {
		if _, ok := en[id]; !ok {
			t.Errorf("%s is missing in English", id)
		}
	}
}

// used collects the message ids of the templates; "%s" stands for one part.
func used(t *testing.T) map[string]bool {
	t.Helper()
	ids := map[string]bool{"period.seconds": true, "period.minutes": true, "period.hours": true, "period.days": true,
		"about.%s": true, "list.next": true, "list.last": true, "moment.layout": true, "device.browser": true,
		"codes.file": true}
	call := regexp.MustCompile(`\b(?:t|count) \(?(?:printf )?"([a-z_.%]+)"`)
	err := fs.WalkDir(templateFiles, "templates", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := templateFiles.ReadFile(path)
		for _, m := range call.FindAllStringSubmatch(string(b), -1) {
			ids[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestEveryTextIsUsed(t *testing.T) {
	ids := used(t)
	for id := range locale(t, language.English) {
		found := ids[id]
		for pattern := range ids {
			re := "^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), "%s", "[a-z_]+") + "$"
			found = found || strings.Contains(pattern, "%s") && regexp.MustCompile(re).MatchString(id)
		}
		if !found {
			t.Errorf("%s is used nowhere", id)
		}
	}
}

func TestEveryUsedTextExists(t *testing.T) {
	want := map[string]bool{}
	fill := func(pattern string, values ...string) {
		for _, v := range values {
			want[strings.Replace(pattern, "%s", v, 1)] = true
		}
	}
	for id := range maps.Keys(used(t)) {
		switch {
		case !strings.Contains(id, "%s"):
			want[id] = true
		case strings.HasPrefix(id, "error."):
			for _, r := range Reasons {
				fill(id, string(r))
			}
		case strings.HasPrefix(id, "signin."):
			for _, p := range Problems {
				fill(id, string(p))
			}
		case strings.HasPrefix(id, "device."):
			for _, p := range DeviceProblems {
				fill(id, string(p))
			}
		case strings.HasPrefix(id, "factor."):
			for _, p := range FactorProblems {
				fill(id, string(p))
			}
		case strings.HasPrefix(id, "password."):
			for _, p := range PasswordProblems {
				fill(id, string(p))
			}
		case strings.HasPrefix(id, "forgot."):
			for _, p := range ForgotProblems {
				fill(id, string(p))
			}
		case strings.HasPrefix(id, "about."):
			for _, kind := range Abouts {
				fill(id, string(kind))
			}
		case strings.HasPrefix(id, "account.notice."):
			for _, n := range Notices {
				fill(id, string(n))
			}
		case strings.HasPrefix(id, "account.slip."):
			for _, slip := range Slips {
				fill(id, string(slip))
			}
		case strings.HasPrefix(id, "consent.risk."):
			fill(id, string(RiskWrite), string(RiskBroad))
		default:
			t.Errorf("no values known for %s", id)
		}
	}
	for _, tag := range Languages {
		texts := locale(t, tag)
		for id := range want {
			if _, ok := texts[id]; !ok {
				t.Errorf("%s: no text %s", tag, id)
			}
		}
	}
}

func TestPeriod(t *testing.T) {
	b, err := loadBundle()
	if err != nil {
		t.Fatal(err)
	}
	for d, want := range map[time.Duration][2]string{
		time.Second:             {"1 second", "1 秒"},
		1500 * time.Millisecond: {"2 seconds", "2 秒"},
		90 * time.Second:        {"90 seconds", "90 秒"},
		121 * time.Second:       {"3 minutes", "3 分"},
		3 * time.Hour:           {"3 hours", "3 時間"},
		165 * 24 * time.Hour:    {"165 days", "165 日"},
	} {
		for i, tag := range Languages {
			tx, err := newTexts(b, tag)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tx.period(d)
			if err != nil || got != want[i] {
				t.Errorf("%v in %s: %q %v", d, tag, got, err)
			}
		}
	}
}

// A person whose language is not English reads which rule refused in theirs; what exactly was wrong is said as programs
// are told, and marked as English.
func TestEveryRuleOfRequestsIsSaidInEachLanguage(t *testing.T) {
	b, err := loadBundle()
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range Languages[1:] {
		tx, err := newTexts(b, tag)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range oauth.RequestRules() {
			if tx.rules[rule.Name] == "" {
				t.Errorf("%s has no sentence in locales/rules.%s.yaml", rule.Name, tag)
			}
		}
	}
	s := newSet(t, "https://id.example.com")
	page := Error{Frame: Frame{Lang: language.Japanese}, Reason: ReasonInvalidRequest, Rule: oauth.RuleResponseType,
		Developer: "use code"}
	folded := elements(parse(t, get(s, page).Body.Bytes()), "details")[0]
	if text := words(folded); !strings.Contains(text, "response_type が code ではありません。") ||
		!strings.Contains(text, "use code") {
		t.Error(text)
	}
	for _, dd := range elements(folded, "dd") {
		if words(dd) == "use code" && !has(dd, "lang", "en") {
			t.Error("English is read out as if it were Japanese")
		}
	}
}
