package pages

import (
	"embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/bidi"
	"gopkg.in/yaml.v3"
)

//go:embed locales/*.yaml
var localeFiles embed.FS

// Languages are the ones that the pages speak. The first is the default.
var Languages = []language.Tag{language.English, language.Japanese}

var matcher = language.NewMatcher(Languages)

// maxLanguages caps what is read of ui_locales and Accept-Language, in bytes.
// Real ones are shorter; parsing longer ones has been an attack.
const maxLanguages = 200

// Lang picks the language of a page: the first of uiLocales that we speak
// (OpenID Connect Core 1.0 section 3.1.2.1: space separated, most wanted
// first), else the best of acceptLanguage (RFC 9110 section 12.5.4), else
// English. Input that is malformed or beyond the cap counts as not given.
func (s *Set) Lang(uiLocales, acceptLanguage string) language.Tag {
	for _, f := range strings.Fields(capped(uiLocales, " ")) {
		tag, err := language.Parse(f)
		if err != nil {
			continue
		}
		if _, i, confidence := matcher.Match(tag); confidence >= language.High {
			return Languages[i]
		}
	}
	tags, _, err := language.ParseAcceptLanguage(capped(acceptLanguage, ","))
	if err != nil {
		return Languages[0]
	}
	_, i, _ := matcher.Match(tags...)
	return Languages[i]
}

// capped cuts a list to maxLanguages bytes, at a separator.
func capped(list, separator string) string {
	if len(list) <= maxLanguages {
		return list
	}
	list = list[:maxLanguages]
	return list[:max(strings.LastIndex(list, separator), 0)]
}

// known is tag when the pages speak it, else the default.
func known(tag language.Tag) language.Tag {
	for _, l := range Languages {
		if l == tag {
			return l
		}
	}
	return Languages[0]
}

func loadBundle() (*i18n.Bundle, error) {
	b := i18n.NewBundle(Languages[0])
	b.RegisterUnmarshalFunc("yaml", yaml.Unmarshal)
	for _, tag := range Languages {
		if _, err := b.LoadMessageFileFS(localeFiles, "locales/"+tag.String()+".yaml"); err != nil {
			return nil, fmt.Errorf("load texts: %w", err)
		}
	}
	return b, nil
}

// texts turns message ids into sentences of one language.
type texts struct {
	localizer *i18n.Localizer
	// rules are sentences for the rules that refuse, by name. There are none in English, in which the refusal itself says
	// what was wrong.
	rules map[string]string
}

func newTexts(b *i18n.Bundle, tag language.Tag) (texts, error) {
	tx := texts{localizer: i18n.NewLocalizer(b, tag.String())}
	if tag == language.English {
		return tx, nil
	}
	data, err := localeFiles.ReadFile("locales/rules." + tag.String() + ".yaml")
	if err == nil {
		err = yaml.Unmarshal(data, &tx.rules)
	}
	if err != nil {
		return tx, fmt.Errorf("load the texts of rules: %w", err)
	}
	return tx, nil
}

// allTexts reads those of each language once.
var allTexts = sync.OnceValues(func() (map[language.Tag]texts, error) {
	bundle, err := loadBundle()
	if err != nil {
		return nil, err
	}
	all := map[language.Tag]texts{}
	for _, tag := range Languages {
		if all[tag], err = newTexts(bundle, tag); err != nil {
			return nil, err
		}
	}
	return all, nil
})

// funcs are what templates call. All of them return text, which html/template
// escapes.
func (tx texts) funcs() template.FuncMap {
	return template.FuncMap{
		"t":      tx.text,
		"about":  tx.about,
		"rule":   func(name string) string { return tx.rules[name] },
		"period": tx.period,
		"moment": tx.moment,
		"device": tx.device,
		"count":  tx.count,
		"plain":  func(s string) string { return plain(s, maxName) },
		"detail": func(s string) string { return plain(s, maxDetail) },
	}
}

// text is the message id, with name and value pairs put into its placeholders.
// Right-to-left values are wrapped in Unicode isolates, so that they cannot
// reorder the sentence around them.
func (tx texts) text(id string, pairs ...string) (string, error) {
	data := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		data[pairs[i]] = isolated(pairs[i+1])
	}
	s, err := tx.localizer.Localize(&i18n.LocalizeConfig{MessageID: id, TemplateData: data})
	if err != nil {
		return "", fmt.Errorf("text %s: %w", id, err)
	}
	return s, nil
}

// about names kinds of things, as in "name, picture and e-mail address". One that has no word here is named as it is.
func (tx texts) about(kinds []About) (string, error) {
	var b strings.Builder
	for i, kind := range kinds {
		if i > 0 {
			between := "list.next"
			if i == len(kinds)-1 {
				between = "list.last"
			}
			s, err := tx.text(between)
			if err != nil {
				return "", err
			}
			b.WriteString(s)
		}
		s := plain(string(kind), maxName)
		if slices.Contains(Abouts, kind) {
			var err error
			if s, err = tx.text("about." + string(kind)); err != nil {
				return "", err
			}
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

// isolated is s between FSI and PDI when any of it is written from right to left.
func isolated(s string) string {
	for _, r := range s {
		p, _ := bidi.LookupRune(r)
		switch p.Class() {
		case bidi.R, bidi.AL, bidi.AN:
			return "\u2068" + s + "\u2069"
		}
	}
	return s
}

// count is a number of things in words.
func (tx texts) count(id string, n int) (string, error) {
	s, err := tx.localizer.Localize(&i18n.LocalizeConfig{MessageID: id, PluralCount: n})
	if err != nil {
		return "", fmt.Errorf("text %s: %w", id, err)
	}
	return s, nil
}

// period is a duration in words, rounded up to the largest unit that tells it well.
func (tx texts) period(d time.Duration) (string, error) {
	id, unit := "period.minutes", time.Minute
	switch {
	case d < 2*time.Minute:
		id, unit = "period.seconds", time.Second
	case d >= 48*time.Hour:
		id, unit = "period.days", 24*time.Hour
	case d >= 2*time.Hour:
		id, unit = "period.hours", time.Hour
	}
	return tx.count(id, int((d+unit-1)/unit))
}
