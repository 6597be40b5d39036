package connector

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// Bounds of a person's attributes: of all together as JSON, of one text, and of the texts in one list.
const (
	MaxAttributes     = 2048
	maxAttributeText  = 500
	maxAttributeTexts = 100
)

// CheckAttributes says what is wrong with a person's attributes: of one, by name, or with "" of all together.
func CheckAttributes(attributes map[string]any) (name, wrong string) {
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if wrong := wrongAttribute(name, attributes[name]); wrong != "" {
			return name, wrong
		}
	}
	whole, err := json.Marshal(attributes)
	if err != nil || len(whole) > MaxAttributes {
		return "", fmt.Sprintf("must have %d bytes or less as JSON: tokens could not hold more", MaxAttributes)
	}
	return "", ""
}

// ValidAttribute reports whether an attribute, or the claim that is made of it, can be called so: visible ASCII without
// quotes and backslashes, at most 100 characters.
func ValidAttribute(name string) bool {
	return name != "" && len(name) <= 100 &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

// wrongAttribute completes the sentence "the attribute ...".
func wrongAttribute(name string, value any) string {
	if !ValidAttribute(name) {
		return "must be called by 1 to 100 visible ASCII characters without spaces, quotes and backslashes"
	}
	switch v := value.(type) {
	case string:
		return wrongAttributeText(v)
	case bool, int, int64, uint64, float64:
		return ""
	case []string:
		return wrongAttribute(name, anyOf(v))
	case []any:
		if len(v) > maxAttributeTexts {
			return fmt.Sprintf("has more than %d entries", maxAttributeTexts)
		}
		for _, item := range v {
			text, is := item.(string)
			if !is {
				return "must be a list of texts: put numbers in quotes"
			}
			if wrong := wrongAttributeText(text); wrong != "" {
				return wrong
			}
		}
		return ""
	}
	return "must be a text, a number, true or false, or a list of texts"
}

func anyOf(list []string) []any {
	out := make([]any, len(list))
	for i, item := range list {
		out[i] = item
	}
	return out
}

func wrongAttributeText(text string) string {
	switch {
	case strings.TrimSpace(text) == "":
		return "is empty: leave it out"
	case len(text) > maxAttributeText:
		return fmt.Sprintf("must be %d bytes or less", maxAttributeText)
	case strings.ContainsFunc(text, unicode.IsControl):
		return "must be one line, without control characters"
	}
	return ""
}
