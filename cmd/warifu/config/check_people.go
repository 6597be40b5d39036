package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // so that time zones are known on every machine
	"unicode"

	"golang.org/x/text/language"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/oauth"
)

// Longest claims about a person, in bytes. An authorization code may have to carry all of them.
const (
	maxClaimText = 200
	maxClaimLong = 500 // addresses, of either kind
)

// checkPerson holds what is said of a person to OpenID Connect Core section 5.1, because apps rely on it.
func (r *reader) checkPerson(at string, p StaticPassword) {
	for key, text := range map[string]string{
		"username": p.Username, "preferredUsername": p.PreferredUsername, "name": p.Name, "givenName": p.GivenName,
		"familyName": p.FamilyName, "middleName": p.MiddleName, "nickname": p.Nickname, "gender": p.Gender,
		"address.locality": p.Address.Locality, "address.region": p.Address.Region,
		"address.postalCode": p.Address.PostalCode, "address.country": p.Address.Country,
	} {
		r.checkClaimText(at+"."+key, text, false)
	}
	r.checkLogin(at+".email", p.Email)
	r.checkLogin(at+".username", p.Username)
	r.checkClaimText(at+".address.formatted", p.Address.Formatted, true)
	r.checkClaimText(at+".address.streetAddress", p.Address.StreetAddress, true)
	for key, address := range map[string]string{"profile": p.Profile, "picture": p.Picture, "website": p.Website} {
		r.checkClaimURL(at+"."+key, address)
	}
	r.checkBirthdate(at+".birthdate", p.Birthdate)
	r.checkZoneinfo(at+".zoneinfo", p.Zoneinfo)
	r.checkLocale(at+".locale", p.Locale)
	r.checkPhone(at+".phoneNumber", p.PhoneNumber)
	r.checkGroups(at+".groups", p.Groups)
	if name, wrong := connector.CheckAttributes(p.Attributes); wrong != "" {
		r.fault(strings.TrimSuffix(at+".attributes."+name, "."), "value", "", "%s", wrong)
	}
	if p.PhoneNumberVerified && p.PhoneNumber == "" {
		r.fault(at+".phoneNumberVerified", "pair", "", "is of no use without phoneNumber")
	}
}

// checkGroups holds the groups of a person to what tokens can hold.
func (r *reader) checkGroups(path string, groups []string) {
	i, wrong := oauth.CheckGroups(groups)
	if i >= 0 {
		path = fmt.Sprintf("%s[%d]", path, i)
	}
	if wrong != "" {
		r.fault(path, "value", "", "%s", wrong)
	}
}

// checkClaims holds the claims that are made of attributes to what a server takes.
func (r *reader) checkClaims(cfg *Config) {
	for _, wrong := range server.CheckClaims(cfg.claims(), server.ScopeNames(cfg.Catalogue())) {
		at := fmt.Sprintf("claims[%d].%s", wrong.Index, wrong.Key)
		switch {
		case wrong.Key == "name" && cfg.Claims[wrong.Index].Name == "":
			r.required(at, "", "the claim, as apps get it")
		case wrong.Twin >= 0:
			r.fault(at, "duplicate", "", "is the same as claims[%d].name", wrong.Twin)
		default:
			r.fault(at, "value", wrong.Nearest, "%s", wrong.Reason)
		}
	}
	var known []string
	for _, p := range cfg.StaticPasswords {
		known = slices.AppendSeq(known, maps.Keys(p.Attributes))
	}
	for i, c := range cfg.Claims {
		if from := cmp.Or(c.Attribute, c.Name); from != "" && !slices.Contains(known, from) {
			key := "name"
			if c.Attribute != "" {
				key = "attribute"
			}
			r.warn(fmt.Sprintf("claims[%d].%s", i, key), "unused",
				"is %q, an attribute that nobody in staticPasswords has", from)
		}
	}
}

// checkTrusted holds a list against what apps can be called.
func (r *reader) checkTrusted(apps []string) {
	for i, app := range apps {
		at := fmt.Sprintf("trusted[%d]", i)
		switch {
		case !oauth.ValidAppName(app):
			r.fault(at, "value", "", "must be the name of an app (metadata.name of its manifest), but is %q", app)
		case slices.Contains(apps[:i], app):
			r.fault(at, "duplicate", "", "is listed twice")
		}
	}
}

// checkMFA holds what is demanded of people against what can be a group, and what they can have.
func (r *reader) checkMFA(cfg *Config) {
	issuer, err := oauth.ParseIssuer(cfg.Issuer)
	noPasskeys := err == nil && factor.NewPasskeys(issuer, issuer.Host) == nil
	possible := func(at string, demand MFADemand) {
		if demand == oauth.MFAPhishingResistant && noPasskeys {
			r.fault(at, "value", oauth.MFARequired, "is %s, and there can be no passkeys at the address of this issuer: "+
				"they need a host name", demand)
		}
	}
	possible("mfa.demand", cfg.MFA.Demand)
	for group, demand := range cfg.MFA.Groups {
		at := strictyaml.Join("mfa.groups", group)
		possible(at, demand)
		if _, wrong := oauth.CheckGroups([]string{group}); wrong != "" {
			r.fault(at, "value", "", "%s", wrong)
		}
		most := oauth.AssuranceOfDemand(string(demand))
		switch {
		case demand == "":
			r.required(at, "", "required or phishing-resistant")
		case most <= oauth.AssuranceOfDemand(string(cfg.MFA.Demand)):
			r.warn(at, "unused", "is of no use: mfa.demand is already %s for everybody", cfg.MFA.Demand)
		}
	}
}

func (r *reader) checkClaimText(path, text string, lines bool) {
	control := strings.ContainsFunc(text, func(c rune) bool { return unicode.IsControl(c) && (!lines || c != '\n') })
	most := maxClaimText
	if lines {
		most = maxClaimLong
	}
	switch {
	case len(text) > most:
		r.fault(path, "value", "", "must be %d bytes or less, but has %d", most, len(text))
	case control && lines:
		r.fault(path, "value", "", "must have no control characters but line breaks")
	case control:
		r.fault(path, "value", "", "must be one line, without control characters")
	case text != "" && strings.TrimSpace(text) == "":
		r.fault(path, "value", "", "is blank: leave the key out")
	}
}

// checkLogin holds what somebody signs in with to what can be seen and typed: what is pasted may have more, and looks
// like another's name then, or is a name with which nobody gets in.
func (r *reader) checkLogin(path, login string) {
	for _, c := range login {
		if !unicode.IsGraphic(c) && !unicode.IsControl(c) {
			r.fault(path, "value", "", "must be what people see and type, and has the character %U", c)
			return
		}
	}
}

func (r *reader) checkClaimURL(path, address string) {
	if address == "" {
		return
	}
	u, err := url.Parse(address)
	switch {
	case err == nil && u.User != nil:
		r.fault(path, "url", "", "must hold neither user name nor password: apps get it")
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		r.fault(path, "url", "", "must be a web address, as in https://example.com/ann, but is %q", address)
	case len(address) > maxClaimLong:
		r.fault(path, "url", "", "must be %d bytes or less, but has %d", maxClaimLong, len(address))
	}
}

// checkBirthdate takes YYYY-MM-DD, in which the year 0000 is not told, and YYYY.
func (r *reader) checkBirthdate(path, date string) {
	if date == "" {
		return
	}
	_, full := time.Parse(time.DateOnly, date)
	_, year := time.Parse("2006", date)
	if full == nil || year == nil && date != "0000" {
		return
	}
	suggestion := ""
	for _, layout := range []string{"2006/1/2", "2006.1.2", "2006-1-2", "20060102", "January 2, 2006", "2 January 2006"} {
		if t, err := time.Parse(layout, date); err == nil {
			suggestion = t.Format(time.DateOnly)
		}
	}
	r.fault(path, "date", suggestion,
		"must be a date as in 1990-04-01 (0000-04-01 leaves out the year, 1990 gives only the year), but is %q", date)
}

func (r *reader) checkZoneinfo(path, zone string) {
	if zone == "" {
		return
	}
	if _, err := time.LoadLocation(zone); err == nil && zone != "Local" {
		return
	}
	suggestion := ""
	if again := strings.ReplaceAll(zone, " ", "_"); again != zone {
		if _, err := time.LoadLocation(again); err == nil {
			suggestion = again
		}
	}
	r.fault(path, "zone", suggestion, "must be a name of the IANA time zone database, as in Asia/Tokyo, but is %q", zone)
}

func (r *reader) checkLocale(path, locale string) {
	if locale == "" {
		return
	}
	tag, err := language.Parse(locale)
	switch {
	case err != nil:
		r.fault(path, "locale", "", "must be a language tag (BCP 47), as in ja-JP, but is %q", locale)
	case strings.Contains(locale, "_"):
		r.fault(path, "locale", tag.String(), "must be a language tag (BCP 47), which has hyphens, but is %q", locale)
	}
}

// phone is E.164 as people write it, and a number of an extension as RFC 3966 does.
var phone = regexp.MustCompile(`^\+[0-9][0-9 ().-]*[0-9](;ext=[0-9]{1,15})?$`)

func (r *reader) checkPhone(path, number string) {
	if number == "" {
		return
	}
	whole, _, _ := strings.Cut(number, ";")
	digits := len(strings.Map(func(c rune) rune {
		if c < '0' || c > '9' {
			return -1
		}
		return c
	}, whole))
	if !phone.MatchString(number) || digits < 7 || digits > 15 || len(number) > 64 {
		r.fault(path, "phone", "",
			"must be a number with its country (E.164), as in +81 3 1234 5678 or +1 (425) 555-1212;ext=5678, but is %q", number)
	}
}
