package server

import (
	"cmp"
	"slices"

	"github.com/warifu/warifu/server/pages"
	"github.com/warifu/warifu/storage"
)

// aboutOf is the kind of thing that a claim is about, as the consent page names it; "" for what needs no naming. A
// claim that is not here is named as it is.
var aboutOf = map[string]pages.About{
	"name": pages.AboutName, "given_name": pages.AboutName, "family_name": pages.AboutName, "middle_name": pages.AboutName,
	"nickname": pages.AboutName, "preferred_username": pages.AboutUserName, "picture": pages.AboutPicture,
	"profile": pages.AboutWebsite, "website": pages.AboutWebsite, "gender": pages.AboutGender,
	"birthdate": pages.AboutBirthdate, "zoneinfo": pages.AboutTimeZone, "locale": pages.AboutLanguage, "updated_at": "",
	"email": pages.AboutEmail, "email_verified": pages.AboutEmail, "address": pages.AboutAddress,
	"phone_number": pages.AboutPhone, "phone_number_verified": pages.AboutPhone, "groups": pages.AboutGroups,
}

// knownOf are the kinds of things that scopes tell a client about a user now.
func (k *catalogue) knownOf(c *storage.Client, u *storage.User, scopes []string) []pages.About {
	var known []pages.About
	for name := range k.userClaims(c, u, scopes, nil) {
		about, named := aboutOf[name]
		if !named {
			about = pages.About(name)
		}
		if about != "" {
			known = append(known, about)
		}
	}
	slices.SortFunc(known, func(a, b pages.About) int {
		return cmp.Or(cmp.Compare(placeOf(a), placeOf(b)), cmp.Compare(a, b))
	})
	return slices.Compact(known)
}

// placeOf is where a kind of things stands among the others; those that the pages have no word for come last.
func placeOf(about pages.About) int {
	if i := slices.Index(pages.Abouts, about); i >= 0 {
		return i
	}
	return len(pages.Abouts)
}
