package factor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/factor"
)

// Whoever sets a password has a place in the queue of those who sign in: what they type must not keep it.
func TestPasswordsAreJudgedSoon(t *testing.T) {
	const most = time.Second
	for name, password := range map[string]string{
		"all signs that stand for letters": strings.Repeat("4@8({[<3619|!0$57+2%", 4),
		"words in them":                    "4@8({[<36|!10$5+7%2z" + strings.Repeat("pa$$w0rd", 6),
		"one word again and again":         strings.Repeat("p@ssw0rd!1|", 6),
		"days":                             strings.Repeat("1991-11-11", 7),
		"no text":                          strings.Repeat("\xff\xfe", 400),
		"one letter":                       strings.Repeat("a", factor.MaxPassword),
	} {
		best := time.Hour
		for range 3 {
			begun := time.Now()
			factor.Weak(password, "Ann Example", "ann@example.com", strings.Repeat("4@8", 70))
			best = min(best, time.Since(begun))
		}
		if best > most {
			t.Errorf("%s: %s", name, best)
		}
	}
}

// What is found in seconds is, however it is spelled.
func TestSpelledWordsAreWeak(t *testing.T) {
	for password, want := range map[string]factor.Weakness{
		"p4$$w0rd":                     factor.WeakGuessed,
		"P@55w0rd!":                    factor.WeakGuessed,
		"l3tm31n123":                   factor.WeakGuessed,
		"7h3 qu1ck 8r0wn f0x jump5":    "",
		"x7$K9!m2Qw(z4":                "",
		"correct horse battery staple": "",
	} {
		if got := factor.Weak(password); got != want {
			t.Errorf("%s: %q", password, got)
		}
	}
}
