package oauth

import "strings"

// maxNearest is the longest text that [Nearest] looks at, in bytes: the distance costs the product of the lengths.
const maxNearest = 256

// Nearest is the one of the candidates that was probably meant, by the number of characters to change; "" when
// nothing is like it. Ties go to the earlier candidate.
func Nearest(asked string, candidates []string) string {
	if asked == "" || len(asked) > maxNearest {
		return ""
	}
	plain := strings.ToLower(asked)
	best, bestDistance := "", (len(plain)+1)/2
	for _, candidate := range candidates {
		if candidate == asked || len(candidate) > maxNearest {
			continue
		}
		if d := Edits(plain, strings.ToLower(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// NearestName is nearest, one of the functions that find what was probably meant, where names may be grant types:
// people leave their namespace out, and write - for _. A name is also found by what follows the namespace, with slips
// of its own.
func NearestName(asked string, names []string, nearest func(asked string, candidates []string) string) string {
	plain := strings.NewReplacer(grantURN, "", "-", "_").Replace
	whole, short := make(map[string]string, len(names)), make([]string, len(names))
	for i, name := range names {
		if plain(name) == plain(asked) && name != asked {
			return name
		}
		short[i] = strings.TrimPrefix(name, grantURN)
		whole[short[i]] = name
	}
	if meant := whole[nearest(strings.TrimPrefix(asked, grantURN), short)]; meant != "" {
		return meant
	}
	return nearest(asked, names) // the slip is in the namespace
}

// Edits is how many edits make one text of the other: letters that are inserted, removed or replaced, or neighbours
// that change places (the optimal string alignment distance). It costs the product of the lengths.
func Edits(one, other string) int {
	a, b := []rune(one), []rune(other)
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := above[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(above[j]+1, row[j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
