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
		if d := distance(plain, strings.ToLower(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is Levenshtein's: how many bytes are to be inserted, removed or replaced to make one text of the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
