package oauth

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ToldGroups are those of a person's groups that the client is told: all, or those for which a pattern of groupFilter
// stands.
func (c *Client) ToldGroups(groups []string) []string {
	return KeepGroups(groups, c.GroupFilter)
}

// KeepGroups are those groups for which one of the patterns stands, in each of which a star stands for any text; all,
// if there are no patterns.
func KeepGroups(groups, patterns []string) []string {
	kept := []string{} // in JSON, always an array
	for _, group := range groups {
		means := func(pattern string) bool { return meansGroup(pattern, group) }
		if len(patterns) == 0 || slices.ContainsFunc(patterns, means) {
			kept = append(kept, group)
		}
	}
	return kept
}

// meansGroup reports whether a pattern, in which each star stands for any text, is the whole of a group's name.
func meansGroup(pattern, group string) bool {
	before, rest, any := strings.Cut(pattern, "*")
	group, is := strings.CutPrefix(group, before)
	for is && any {
		before, rest, any = strings.Cut(rest, "*")
		if !any {
			return strings.HasSuffix(group, before)
		}
		_, group, is = strings.Cut(group, before)
	}
	return is && group == ""
}

// Bounds of a person's groups: how many there are, and their bytes as a JSON array, which tokens, headers and cookies
// have to hold. MaxGroup is that of one name.
const (
	MaxGroups     = 200
	MaxGroupBytes = 4096
	MaxGroup      = 200
)

// CheckGroups says what is wrong with a list of a person's groups: which of them (-1: all together), and why.
func CheckGroups(groups []string) (item int, wrong string) {
	for i, group := range groups {
		if wrong := wrongGroup(group); wrong != "" {
			return i, wrong
		}
		if slices.Contains(groups[:i], group) {
			return i, "is in the list twice"
		}
	}
	whole, _ := json.Marshal(groups) // texts
	switch {
	case len(groups) > MaxGroups:
		return -1, "has more than " + strconv.Itoa(MaxGroups) + " groups: tokens could not hold them"
	case len(whole) > MaxGroupBytes:
		return -1, "has more than " + strconv.Itoa(MaxGroupBytes) + " bytes as JSON: tokens could not hold them"
	}
	return -1, ""
}

// wrongGroup completes the sentence "the group ...".
func wrongGroup(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "is empty"
	case strings.TrimSpace(name) != name || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "must be one line, without spaces at its ends and control characters"
	case len(name) > MaxGroup:
		return "must be " + strconv.Itoa(MaxGroup) + " bytes or less"
	}
	return ""
}

// checkGroup holds an item of access.groups or groupFilter against what groups can be called.
func (k *checker) checkGroup(f *Field, at, name string) {
	switch wrong := wrongGroup(name); {
	case wrong != "":
		k.violates(f, at, "group", "%s", wrong)
	case f.Kind == KindGroupPatterns:
	case strings.Contains(name, "*"):
		k.violates(f, at, "group", "must be the name of a group: a rule about access has no patterns")
	case k.Groups != nil && !slices.Contains(k.Groups, name):
		v := k.violates(f, at, "unknown-group",
			"is %q, a group in which nobody is on this server: it lets nobody in", short(name))
		v.among(name, k.Groups)
		v.Warning = true
	}
}
