package connector

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/warifu/warifu/server/oauth"
)

// Bounds of what is known of a person, in bytes. What is longer is cut, but for what would then mean something else: it
// is left out.
const (
	maxUserID  = 1024
	maxText    = 500
	maxWord    = 100
	maxAddress = 2000 // of a page or picture
	maxEmail   = 254
)

// Admit makes of what the connector says of a person what this server believes: groups that the configuration keeps,
// texts in one line, within bounds. Whoever has too many groups, or attributes that tokens cannot hold, is refused:
// what is left out silently would be missed where it decides something.
func (c *Connector) Admit(who Identity) (Identity, error) {
	if who.UserID == "" || len(who.UserID) > maxUserID || !utf8.ValidString(who.UserID) {
		return Identity{}, Refuse("the id of the user must have 1 to %d bytes, and has %d", maxUserID, len(who.UserID))
	}
	var err error
	if who.Groups, err = c.admitGroups(who.Groups); err != nil {
		return Identity{}, err
	}
	if name, wrong := CheckAttributes(who.Attributes); wrong != "" {
		return Identity{}, Refuse("the attribute %q %s", name, wrong)
	}
	for _, text := range []*string{&who.Username, &who.Name, &who.PreferredUsername, &who.GivenName, &who.FamilyName,
		&who.MiddleName, &who.Nickname, &who.Address.StreetAddress, &who.Address.Locality, &who.Address.Region,
		&who.Address.PostalCode, &who.Address.Country} {
		*text = oauth.Cut(oneLine(*text), maxText)
	}
	for _, word := range []*string{&who.Gender, &who.Birthdate, &who.Zoneinfo, &who.Locale} {
		*word = short(oneLine(*word), maxWord)
	}
	for _, address := range []*string{&who.ProfileURL, &who.PictureURL, &who.WebsiteURL} {
		if u, err := url.Parse(*address); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			*address = ""
		}
		*address = short(*address, maxAddress)
	}
	who.Address.Formatted = oauth.Cut(lines(who.Address.Formatted), maxText)
	if who.Email = short(oneLine(who.Email), maxEmail); who.Email == "" {
		who.EmailVerified = false
	}
	if who.PhoneNumber = short(oneLine(who.PhoneNumber), maxWord); who.PhoneNumber == "" {
		who.PhoneNumberVerified = false
	}
	who.ACR = short(oneLine(who.ACR), maxText)
	who.AMR = slices.DeleteFunc(slices.Clone(who.AMR), func(method string) bool {
		return method == "" || short(oneLine(method), maxWord) != method
	})
	who.AMR = who.AMR[:min(len(who.AMR), 10)]
	return who, nil
}

// TooManyGroups is the [RefusedError] of somebody who is in more groups than tokens hold.
type TooManyGroups struct{ *RefusedError }

func (e *TooManyGroups) Unwrap() error { return e.RefusedError }

// admitGroups keeps those groups that the configuration wants, each once.
func (c *Connector) admitGroups(all []string) ([]string, error) {
	if c.Groups != nil && len(c.Groups) == 0 {
		return nil, nil
	}
	var groups []string
	seen := make(map[string]bool, len(all))
	for _, group := range oauth.KeepGroups(all, c.Groups) {
		if group = strings.TrimSpace(group); group == "" || seen[group] {
			continue
		}
		seen[group] = true
		if groups = append(groups, group); len(groups) > oauth.MaxGroups {
			break // however many more there are
		}
	}
	const told = "%s (%d groups were told; the connector's groups in the configuration say which are kept)"
	item, wrong := oauth.CheckGroups(groups)
	switch {
	case wrong == "":
		return groups, nil
	case item < 0:
		return nil, &TooManyGroups{&RefusedError{Reason: fmt.Sprintf("the user "+told, wrong, len(all))}}
	}
	return nil, Refuse("a group of the user "+told, wrong, len(all))
}

// oneLine is a text without control characters and what is no text, in one line.
func oneLine(text string) string { return strings.Join(strings.Fields(lines(text)), " ") }

// lines is a text without control characters, but for line breaks, and what is no text.
func lines(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case unicode.IsControl(r), r == utf8.RuneError:
			return -1
		}
		return r
	}, text))
}

// short leaves out a text that is too long.
func short(text string, most int) string {
	if len(text) > most {
		return ""
	}
	return text
}
