package config

import (
	"strconv"
	"strings"
)

// Share is a part of all, from 0 to 1, that is written as in 5%.
type Share float64

// MarshalText writes it the way it is read.
func (s Share) MarshalText() ([]byte, error) {
	return []byte(strconv.FormatFloat(float64(s)*100, 'g', 6, 64) + "%"), nil
}

// parseShare reads a share; false means that it is none.
func parseShare(text string) (Share, bool) {
	number, found := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(number, 64)
	if !found || err != nil || strings.ContainsAny(number, "eExXpP+_-") || !(n > 0 && n <= 100) { // NaN is neither
		return 0, false
	}
	return Share(n / 100), true
}
