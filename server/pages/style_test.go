package pages

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func stylesheet(t *testing.T) string {
	t.Helper()
	b, err := assetFiles.ReadFile("assets/style.css")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStylesheetIsSmallAndSelfContained(t *testing.T) {
	css := stylesheet(t)
	if len(css) > 14<<10 {
		t.Errorf("%d bytes", len(css))
	}
	for _, banned := range []string{"url(", "@import", "http:", "https:"} {
		if strings.Contains(css, banned) {
			t.Errorf("fetches something: %s", banned)
		}
	}
	for _, want := range []string{"prefers-color-scheme:dark", "prefers-reduced-motion", "forced-colors:active",
		":focus-visible"} {
		if !strings.Contains(css, want) {
			t.Errorf("no %s", want)
		}
	}
}

// palette reads the custom properties of the first :root after from that are plain colours.
func palette(t *testing.T, css, from string) map[string]float64 {
	t.Helper()
	_, rest, ok := strings.Cut(css, from)
	if !ok {
		t.Fatalf("no %q", from)
	}
	rest, _, _ = strings.Cut(rest, "}")
	out := map[string]float64{}
	for _, m := range regexp.MustCompile(`--([a-z-]+):#([0-9a-f]{3,6})[;\n]`).FindAllStringSubmatch(rest, -1) {
		hex := m[2]
		if len(hex) == 3 {
			hex = strings.Repeat(hex[:1], 2) + strings.Repeat(hex[1:2], 2) + strings.Repeat(hex[2:], 2)
		}
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		out[m[1]] = 0.2126*channel(n>>16) + 0.7152*channel(n>>8) + 0.0722*channel(n)
	}
	return out
}

// channel is the linear light of the lowest byte of v (WCAG 2.2, relative luminance).
func channel(v uint64) float64 {
	c := float64(v&0xff) / 255
	if c <= 0.04045 {
		return c / 12.92
	}
	return math.Pow((c+0.055)/1.055, 2.4)
}

func TestContrast(t *testing.T) {
	css := stylesheet(t)
	for scheme, from := range map[string]string{"light": ":root{", "dark": "dark){:root{"} {
		p := palette(t, css, from)
		for _, c := range []struct {
			front, back string
			least       float64
		}{
			{"ink", "paper", 4.5}, {"ink", "card", 4.5}, {"ink", "soft", 4.5}, {"ink", "seal-soft", 4.5},
			{"quiet", "paper", 4.5}, {"quiet", "card", 4.5}, {"quiet", "soft", 4.5},
			{"gate", "card", 4.5}, {"gate", "soft", 4.5}, {"on-gate", "gate", 4.5}, {"on-gate", "gate-up", 4.5},
			{"seal", "seal-soft", 4.5}, {"amber", "amber-soft", 4.5},
			{"edge", "card", 3}, {"ring", "card", 3}, {"ring", "paper", 3}, {"seal", "card", 3}, {"amber", "card", 3},
		} {
			a, okA := p[c.front]
			b, okB := p[c.back]
			if !okA || !okB {
				t.Errorf("%s: no colour %s or %s", scheme, c.front, c.back)
				continue
			}
			if r := (math.Max(a, b) + 0.05) / (math.Min(a, b) + 0.05); r < c.least {
				t.Errorf("%s: %s on %s is %.2f:1", scheme, c.front, c.back, r)
			}
		}
	}
}
