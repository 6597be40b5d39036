package dex

import (
	"slices"
	"strings"

	dexconnector "github.com/dexidp/dex/connector"
	"github.com/dexidp/dex/pkg/groups"

	"github.com/warifu/warifu/server/connector"
)

// errNotAllowed is a verdict about the person, where the others of identityOf are about the provider's claims.
var errNotAllowed = connector.Refuse("the person is in none of allowedGroups")

// identityOf is who claims are about, exactly as Dex's connector says: whoever moves from there is the same person
// here, with the same name, e-mail and groups.
func (c *oidcConnector) identityOf(claims map[string]any, scopes []string) (who dexconnector.Identity, err error) {
	config := c.config
	text := func(name string) (string, bool) {
		value, is := claims[name].(string)
		return value, is
	}
	// mapped is a claim that the configuration may call otherwise: where the usual one is missing, or, with
	// overrideClaimMapping, always.
	mapped := func(usual, other string, has func(name string) bool) string {
		if other != "" && (config.OverrideClaimMapping || !has(usual)) {
			return other
		}
		return usual
	}
	isText := func(name string) bool { _, is := text(name); return is }
	userID, nameKey := config.UserIDKey, config.UserNameKey
	if userID == "" {
		userID = "sub"
	}
	if nameKey == "" {
		nameKey = "name"
	}
	var has bool
	if who.UserID, has = text(userID); !has || who.UserID == "" {
		return who, connector.Refuse("the claim %q, which is the user's id, is missing", userID)
	}
	if who.Username, has = text(nameKey); !has {
		return who, connector.Refuse("the claim %q is missing (userNameKey says which one is the name)", nameKey)
	}
	who.PreferredUsername, _ = text(mapped("preferred_username", config.ClaimMapping.PreferredUsernameKey, isText))
	asksEmail := slices.Contains(scopes, "email")
	emailKey := mapped("email", config.ClaimMapping.EmailKey, isText)
	if who.Email, has = text(emailKey); !has && asksEmail {
		return who, connector.Refuse("the claim %q is missing, although the scope email was asked for", emailKey)
	}
	if who.EmailVerified, has = claims["email_verified"].(bool); !has {
		if asksEmail && !config.InsecureSkipEmailVerified {
			return who, connector.Refuse("the claim email_verified is missing (insecureSkipEmailVerified: true)")
		}
		who.EmailVerified = config.InsecureSkipEmailVerified
	}
	if config.InsecureEnableGroups {
		isList := func(name string) bool { _, is := claims[name].([]any); return is }
		if who.Groups, err = c.groupsOf(claims[mapped("groups", config.ClaimMapping.GroupsKey, isList)]); err != nil {
			return who, err
		}
	}
	changed := config.ClaimMutations.ModifyGroupNames
	for i, group := range who.Groups {
		who.Groups[i] = changed.Prefix + group + changed.Suffix
	}
	for _, made := range config.ClaimMutations.NewGroupFromClaims {
		parts := []string{made.Prefix}
		for _, name := range made.Claims {
			part, is := text(name)
			if !is {
				continue
			}
			if made.ClearDelimiter {
				part = strings.ReplaceAll(part, made.Delimiter, "")
			}
			parts = append(parts, part)
		}
		if len(parts) > 1 {
			who.Groups = append(who.Groups, strings.Join(parts, made.Delimiter))
		}
	}
	return who, nil
}

// groupsOf are the groups that a claim holds: a text, or a list of texts and of objects with a name. The filter, as in
// Dex, is for lists alone.
func (c *oidcConnector) groupsOf(claim any) (told []string, err error) {
	switch claim := claim.(type) {
	case string:
		told = []string{claim}
	case []any:
		for _, item := range claim {
			group, is := item.(string)
			if object, isObject := item.(map[string]any); isObject {
				if group, is = object["name"].(string); !is {
					continue
				}
			}
			if !is {
				return nil, connector.Refuse("the claim with the groups holds something that is no group")
			}
			if c.groupsFilter == nil || c.groupsFilter.MatchString(group) {
				told = append(told, group)
			}
		}
	}
	if allowed := c.config.AllowedGroups; len(allowed) > 0 {
		if told = groups.Filter(told, allowed); len(told) == 0 {
			return nil, errNotAllowed
		}
	}
	return told, nil
}
