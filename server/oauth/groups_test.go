package oauth

import (
	"fmt"
	"strings"
	"testing"
)

func TestToldGroups(t *testing.T) {
	for filter, want := range map[string]string{
		"": "team-a team-b-x ops", "*": "team-a team-b-x ops", "team-*": "team-a team-b-x", "*-x": "team-b-x",
		"t*-*-x": "team-b-x",
		"team":   "", "team-a*": "team-a", "**a": "team-a", "o*p*s": "ops", "o*o*": "", "ops,team-a": "team-a ops",
		"ops*ops": "",
	} {
		c := Client{}
		if filter != "" {
			c.GroupFilter = strings.Split(filter, ",")
		}
		got := c.ToldGroups([]string{"team-a", "team-b-x", "ops"})
		if got == nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
}

func TestCheckGroups(t *testing.T) {
	var many, long []string
	for i := range MaxGroups + 1 {
		many = append(many, fmt.Sprint(i))
	}
	for i := range 25 {
		long = append(long, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 190)))
	}
	for rule, c := range map[string]struct {
		groups []string
		item   int
		wrong  bool
	}{
		"none": {nil, -1, false}, "two": {[]string{"a", "日本"}, -1, false}, "empty": {[]string{"a", ""}, 1, true},
		"twice": {[]string{"a", "b", "a"}, 2, true}, "control": {[]string{"a\nb"}, 0, true},
		"spaces":   {[]string{" a"}, 0, true},
		"no UTF-8": {[]string{"\xff"}, 0, true}, "long": {[]string{strings.Repeat("x", MaxGroup+1)}, 0, true},
		"many": {many, -1, true}, "as many as there may be": {many[1:], -1, false}, "bytes": {long, -1, true},
	} {
		if item, wrong := CheckGroups(c.groups); item != c.item || (wrong != "") != c.wrong {
			t.Errorf("%s: %d %s", rule, item, wrong)
		}
	}
}
