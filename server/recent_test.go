package server

import (
	"strconv"
	"testing"
)

func TestRecentIsBounded(t *testing.T) {
	r := newRecent[int](10)
	count := func(name string) (n int) {
		r.use(name, func(v *int) { *v++; n = *v })
		return n
	}
	for i := range 1000 {
		count(strconv.Itoa(i))
		if got := count("kept"); got != i+1 {
			t.Fatalf("what is used all the time was forgotten after %d others", i)
		}
		if len(r.young)+len(r.old) > 20 {
			t.Fatalf("%d names", len(r.young)+len(r.old))
		}
	}
	if got := count("0"); got != 1 {
		t.Errorf("what was not used for long is still there: %d", got)
	}
}

func TestUserCodes(t *testing.T) {
	seen := map[string]bool{}
	letters := map[rune]int{}
	for range 2000 {
		code := newUserCode()
		again, ok := parseUserCode(shownUserCode(code))
		if !ok || again != code || seen[code] {
			t.Fatalf("%q: %q, %v", code, again, ok)
		}
		seen[code] = true
		for _, r := range code {
			letters[r]++
		}
	}
	if len(letters) != len(userCodeLetters) {
		t.Errorf("%d letters are used", len(letters))
	}
}
