package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Risks of a [Scope], as the consent page marks them.
const (
	RiskLow   = "low"
	RiskWrite = "write" // changes something
	RiskBroad = "broad" // reaches further than one would expect
)

// Scope is a permission that an app can ask for (RFC 6749 section 3.3).
type Scope struct {
	Name string
	// Description for the user, by language: "ja" and "en".
	Description map[string]string
	Risk        string
}

// DefaultScopes is the catalogue of a configuration that has none of its own.
func DefaultScopes() []Scope {
	return append(slices.Clone(standardScopes),
		Scope{"threads:read", map[string]string{"ja": "スレッド閲覧", "en": "View threads"}, RiskLow},
		Scope{"threads:write", map[string]string{"ja": "スレッド作成・更新", "en": "Create and update threads"}, RiskWrite},
		Scope{"runs:read", map[string]string{"ja": "実行結果閲覧", "en": "View the results of runs"}, RiskLow},
		Scope{"runs:write", map[string]string{"ja": "実行開始", "en": "Start runs"}, RiskWrite},
		Scope{"files:read", map[string]string{"ja": "ファイル閲覧", "en": "View files"}, RiskLow},
		Scope{"files:write", map[string]string{"ja": "ファイルアップロード・削除", "en": "Upload and delete files"}, RiskWrite},
		Scope{"repos:read", map[string]string{"ja": "リポジトリ閲覧", "en": "View repositories"}, RiskLow},
		Scope{"repos:write", map[string]string{"ja": "リポジトリ作成・更新", "en": "Create and update repositories"}, RiskWrite},
	)
}

// standardScopes are those of [oauth.StandardScopes], in words for users.
var standardScopes = []Scope{
	{oauth.ScopeOpenID, map[string]string{"ja": "あなたが誰であるかの確認", "en": "Confirm who you are"}, RiskLow},
	{oauth.ScopeProfile, map[string]string{
		"ja": "プロフィール（名前、ユーザー名、写真、性別、生年月日、タイムゾーンなど）の閲覧",
		"en": "View your profile: name, user name, picture, gender, date of birth, time zone and the like",
	}, RiskLow},
	{oauth.ScopeEmail, map[string]string{"ja": "メールアドレスの閲覧", "en": "View your e-mail address"}, RiskLow},
	{oauth.ScopeAddress, map[string]string{"ja": "住所の閲覧", "en": "View your postal address"}, RiskLow},
	{oauth.ScopePhone, map[string]string{"ja": "電話番号の閲覧", "en": "View your phone number"}, RiskLow},
	{oauth.ScopeGroups, map[string]string{"ja": "所属グループの閲覧", "en": "View the groups that you are in"}, RiskLow},
	{oauth.ScopeOfflineAccess, map[string]string{"ja": "あなたが利用していない間のアクセス", "en": "Access while you are not using it"},
		RiskBroad},
}

// standardScopeNames are those of a client that registers itself and names none, as far as it may have them. Which
// groups there are is not for everybody: whoever wants to know has to say so.
func standardScopeNames() []string {
	return oauth.Without(oauth.StandardScopes(), []string{oauth.ScopeGroups})
}

// ScopeNames are the names of a catalogue, OpenID Connect's among them.
func ScopeNames(scopes []Scope) []string {
	c, err := newCatalogue(scopes, nil, nil)
	if err != nil {
		return nil
	}
	return c.names
}

// catalogue are the scopes of this server, and with them the claims about users that they cover.
type catalogue struct {
	names  []string // in the catalogue's order
	scopes map[string]Scope
	// ceiling is the most of them that a client without a manifest may ask users for.
	ceiling []string
	// idTokenClaims is what ID tokens tell about users unless the client says otherwise, see idTokenTells.
	idTokenClaims string
	claims        []claim
	// recall is a client of which memory knows, by its id; nil if it knows none.
	recall func(id string) *storage.Client
	// listed are the claims that come only to clients which list them.
	listed map[string]bool
}

// ScopeError is an entry of a catalogue that cannot be there.
type ScopeError struct {
	Index  int    // of the entry
	Twin   int    // the entry with the same name, or -1
	Name   string // of the scope
	Reason string // completes the sentence "scope ..."
}

func (e *ScopeError) Error() string { return fmt.Sprintf("scope %q %s", e.Name, e.Reason) }

// CheckScopes finds everything that is wrong in a catalogue. A [Server] is only made of one in which nothing is.
func CheckScopes(scopes []Scope) []ScopeError {
	var wrong []ScopeError
	first := make(map[string]int)
	for i, scope := range scopes {
		if !oauth.ValidScope(scope.Name) || len(scope.Name) > oauth.MaxScope {
			wrong = append(wrong, ScopeError{Index: i, Twin: -1, Name: scope.Name, Reason: fmt.Sprintf(
				"must be 1 to %d visible ASCII characters without spaces, quotes and backslashes (RFC 6749 section 3.3)",
				oauth.MaxScope)})
		}
		if strings.HasPrefix(scope.Name, oauth.PeerScope) {
			wrong = append(wrong, ScopeError{Index: i, Twin: -1, Name: scope.Name,
				Reason: "is not for a catalogue: what begins so names a client (trustedPeers in its manifest)"})
		}
		if twin, taken := first[scope.Name]; taken {
			wrong = append(wrong, ScopeError{Index: i, Twin: twin, Name: scope.Name, Reason: "is listed twice"})
		} else {
			first[scope.Name] = i
		}
	}
	return wrong
}

// newCatalogue makes a catalogue; a ceiling that is nil leaves all of it to clients without a manifest.
func newCatalogue(scopes []Scope, ceiling []string, claims []Claim) (*catalogue, error) {
	c := &catalogue{scopes: make(map[string]Scope), claims: slices.Clone(standardClaims), listed: make(map[string]bool)}
	if wrong := CheckScopes(scopes); len(wrong) > 0 {
		return c, &wrong[0]
	}
	for _, scope := range slices.Concat(scopes, standardScopes) {
		if _, own := c.scopes[scope.Name]; !own {
			c.scopes[scope.Name] = scope
			c.names = append(c.names, scope.Name)
		}
	}
	if c.ceiling = c.names; ceiling != nil {
		c.ceiling = oauth.Within(c.names, ceiling)
	}
	if wrong := CheckClaims(claims, c.names); len(wrong) > 0 {
		return c, &wrong[0]
	}
	for _, made := range claims {
		c.claims = append(c.claims, customClaim(made))
		c.listed[made.Name] = made.Scope == ""
	}
	return c, nil
}

// identifies reports whether a scope tells who the user is, and the operator has not put it into words of their own.
func (k *catalogue) identifies(name string) bool {
	if name != oauth.ScopeOpenID && !slices.ContainsFunc(standardClaims, func(c claim) bool { return c.scope == name }) {
		return false
	}
	return slices.ContainsFunc(standardScopes, func(standard Scope) bool {
		return standard.Name == name && maps.Equal(standard.Description, k.scopes[name].Description)
	})
}

// offered is those of scopes that a client may still ask users for: what its app.yml lists, and the peers that trust
// it (peers.go), or else its registration or document, up to the ceiling. One that has named none there gets what it
// asks and the user allows, up to the ceiling. So does one that registered itself where anybody may: what such a
// client names is what a resource server told it to ask for at first, and it may be told of more (a step-up); it could
// have named anything.
func (k *catalogue) offered(c *storage.Client, scopes []string) []string {
	switch {
	case c.App != "":
		return oauth.Within(scopes, append(oauth.Within(c.Scopes, k.names), k.trustedScopes(c, scopes)...))
	case c.AnyScope:
		return oauth.Within(scopes, k.ceiling)
	}
	return oauth.Within(oauth.Within(scopes, c.Scopes), k.ceiling)
}

// ownOffered is those of scopes that a client may still have for itself. No user allows them, so it is what was
// registered for any client.
func (k *catalogue) ownOffered(c *storage.Client, scopes []string) []string {
	return k.offered(c, oauth.Within(scopes, c.Scopes))
}
