package runtimeworkers

import (
	"io"
	"strings"
	"testing"
)

func TestWordsOfAWorkerHoldNoValue(t *testing.T) {
	secret, lines, odd := "wfs_0123456789abcdef", "-----BEGIN-----\nsecond line\n-----END-----",
		"a \"quoted\" \\ value/with=signs"
	scrub := newScrubber(secret, lines, odd, "true", "wfs_0123456789")
	for said, shown := range map[string]string{
		"it is " + secret + "!": "it is [redacted]!",
		lines:                   "[redacted]",
		"only the second line":  "only the [redacted]",
		`{"v":"a \"quoted\" \\ value/with=signs"}`: `{"v":"[redacted]"}`,
		"a+%22quoted%22+%5C+value%2Fwith%3Dsigns":  "[redacted]",
		"true is short":          "true is short",
		"bell \x07 and \x1b[31m": "bell ? and ?[31m",
		"not UTF-8 \xff":         "not UTF-8 \uFFFD",
	} {
		if got := scrub.clean(said, maxLineShown); got != shown {
			t.Errorf("%q is shown as %q", said, got)
		}
	}
	if got := scrub.clean(strings.Repeat("x", 95)+secret, 100); strings.Contains(got, "wfs") ||
		!strings.HasSuffix(got, "(cut)") {
		t.Errorf("cut through a value: %q", got)
	}
}

func TestOutputIsPassedOnByLinesAndRemembered(t *testing.T) {
	var log strings.Builder
	o := &output{scrub: newScrubber("s3cret-value"), name: "app/web", to: func() io.Writer { return &log }}
	for _, part := range []string{"first s3cr", "et-value line\nsecond\r\n\n", "third", " line\n",
		strings.Repeat("x", maxLineRead+10), "\nunfinished"} {
		if n, err := o.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	wanted := "app/web: first [redacted] line\napp/web: second\napp/web: third line\napp/web: " +
		strings.Repeat("x", maxLineShown) + "... (cut)\n"
	if log.String() != wanted {
		t.Errorf("logged %.200q", log.String())
	}
	if said := o.said(); !strings.HasPrefix(said, "first [redacted] line second third line xxx") ||
		len(said) > maxQuoted+20 {
		t.Errorf("said %.100q", said)
	}
	for range 2 * maxLast {
		_, _ = o.Write([]byte("again\n"))
	}
	if said := o.said(); said != strings.TrimSuffix(strings.Repeat("again ", maxLast), " ") {
		t.Errorf("said %q", said)
	}
}
