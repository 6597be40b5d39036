package conformance

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// scopeClaims are what scopes ask for (OpenID Connect Core 1.0 section 5.4).
var scopeClaims = map[string][]string{
	"openid": {"sub"},
	"profile": {"name", "given_name", "family_name", "middle_name", "nickname", "profile", "picture", "website", "gender",
		"birthdate", "zoneinfo", "locale", "updated_at", "preferred_username"},
	"email":   {"email", "email_verified"},
	"address": {"address"},
	"phone":   {"phone_number", "phone_number_verified"},
}

// idTokenClaims are what may be in an ID token that nobody asked anything for.
var idTokenClaims = []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "azp", "at_hash",
	"c_hash", "nbf", "jti", "sid", "s_hash", "txn"}

// standardClaims checks that claims about the user are of the types that they must be (OpenID Connect Core 1.0 section
// 5.1).
func (t *trial) standardClaims(what string, claims map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		value := claims[name]
		switch name {
		case "sub", "name", "given_name", "family_name", "middle_name", "nickname", "preferred_username",
			"profile", "picture",
			"website", "email", "gender", "zoneinfo", "locale", "phone_number":
			t.check(isText(value), "OIDCC-5.1", "%s in %s is a text with content", name, what)
		case "birthdate":
			t.check(isBirthdate(value), "OIDCC-5.1", "birthdate in %s is YYYY-MM-DD, 0000-MM-DD or YYYY", what)
		case "email_verified", "phone_number_verified":
			_, ok := value.(bool)
			t.check(ok, "OIDCC-5.1", "%s in %s is a boolean", name, what)
		case "updated_at":
			seconds, ok := value.(float64)
			t.check(ok && seconds > 0 && seconds < float64(time.Now().Add(skew).Unix()), "OIDCC-5.1",
				"updated_at in %s is a time that has been, in seconds", what)
		case "address":
			address, ok := value.(map[string]any)
			ok = ok && len(address) > 0
			for _, part := range address {
				ok = ok && isText(part)
			}
			t.check(ok, "OIDCC-5.1.1", "address in %s is an object of texts", what)
		}
	}
}

func isText(v any) bool {
	text, ok := v.(string)
	return ok && strings.TrimSpace(text) != "" && !strings.EqualFold(text, "null")
}

func isBirthdate(v any) bool {
	text, ok := v.(string)
	if !ok {
		return false
	}
	if text, yearless := strings.CutPrefix(text, "0000-"); yearless {
		_, err := time.Parse(time.DateOnly, "2000-"+text)
		return err == nil
	}
	layout := time.DateOnly
	if len(text) == 4 {
		layout = "2006"
	}
	at, err := time.Parse(layout, text)
	return err == nil && at.Year() >= 1850 && !at.After(time.Now())
}

// userinfoClaims checks a userinfo response (OpenID Connect Core 1.0 section 5.3.2).
func (f *flow) userinfoClaims(claims map[string]any) {
	t := f.t
	t.must(claims != nil, "OIDCC-5.3.2", "the userinfo response is a JSON object")
	t.standardClaims("userinfo", claims)
	sub, _ := claims["sub"].(string)
	t.check(sub != "", "OIDCC-5.3.2", "the userinfo response has sub")
	t.check(sub == f.id.text("sub"), "OIDCC-5.3.2", "sub in userinfo is that of the ID token")
	names, _ := claims["_claim_names"].(map[string]any)
	sources, _ := claims["_claim_sources"].(map[string]any)
	for name, source := range names {
		key, _ := source.(string)
		_, found := sources[key]
		t.check(found, "OIDCC-5.6.2", "_claim_names.%s refers to a source", name)
	}
}

// scopesReturned warns of claims that scopes ask for and userinfo does not have.
func (f *flow) scopesReturned(claims map[string]any) {
	var missing []string
	for _, scope := range strings.Fields(f.params.Get("scope")) {
		for _, claim := range scopeClaims[scope] {
			if _, given := claims[claim]; !given {
				missing = append(missing, claim)
			}
		}
	}
	f.t.should(len(missing) == 0, "OIDCC-5.4", "userinfo has all claims of the scopes %q (missing: %s)",
		f.params.Get("scope"), strings.Join(missing, ", "))
}

// unaskedClaims warns of claims in the ID token that nobody asked for.
func (f *flow) unaskedClaims() {
	allowed := slices.Clone(idTokenClaims)
	for _, scope := range strings.Fields(f.params.Get("scope")) {
		allowed = append(allowed, scopeClaims[scope]...)
	}
	for _, name := range slices.Sorted(maps.Keys(f.id.claims)) {
		f.t.should(slices.Contains(allowed, name), "OIDCC-5.5", "the ID token has no claims that were not asked for: %s",
			name)
	}
}
