package pages

import "testing"

// TestEveryPageParses: a page is parsed when it is first shown, which for some of them is years after the start.
func TestEveryPageParses(t *testing.T) {
	t.Parallel()
	all, err := allTemplates()
	if err != nil {
		t.Fatal(err)
	}
	for tag, pages := range all {
		for name, parsed := range pages {
			if _, err := parsed(); err != nil {
				t.Errorf("%s in %s: %v", name, tag, err)
			}
		}
	}
}
