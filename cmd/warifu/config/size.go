package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes that is written as in 512MiB, 8GiB.
type Size int64

// units of sizes, the largest first.
var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// MarshalText writes it the way it is read.
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range units {
		if int64(s)%u.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", int64(s)/u.bytes, u.name), nil
		}
	}
	return fmt.Appendf(nil, "%gKiB", float64(s)/1024), nil
}

// parseSize reads a size; false means that it is none.
func parseSize(text string) (Size, bool) {
	for _, u := range units {
		number, found := strings.CutSuffix(text, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || strings.ContainsAny(number, "eExXpP+_-") ||
			!(n >= 0 && n*float64(u.bytes) <= math.MaxInt64/2) { // NaN is neither
			return 0, false
		}
		return Size(n * float64(u.bytes)), true
	}
	return 0, false
}
