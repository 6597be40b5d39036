package server

import (
	"fmt"
	"slices"

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
	return append(standardScopes(),
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

// standardScopes are OpenID Connect's. They are part of every catalogue.
func standardScopes() []Scope {
	return []Scope{
		{oauth.ScopeOpenID, map[string]string{"ja": "あなたが誰であるかの確認", "en": "Confirm who you are"}, RiskLow},
		{oauth.ScopeProfile, map[string]string{
			"ja": "プロフィール（名前、ユーザー名、写真、性別、生年月日、タイムゾーンなど）の閲覧",
			"en": "View your profile: name, user name, picture, gender, date of birth, time zone and the like",
		}, RiskLow},
		{oauth.ScopeEmail, map[string]string{"ja": "メールアドレスの閲覧", "en": "View your e-mail address"}, RiskLow},
		{oauth.ScopeAddress, map[string]string{"ja": "住所の閲覧", "en": "View your postal address"}, RiskLow},
		{oauth.ScopePhone, map[string]string{"ja": "電話番号の閲覧", "en": "View your phone number"}, RiskLow},
		{oauth.ScopeOfflineAccess, map[string]string{"ja": "あなたが利用していない間のアクセス", "en": "Access while you are not using it"}, RiskBroad},
	}
}

// standardScopeNames are those of a client that registers itself and names none.
func standardScopeNames() []string {
	var names []string
	for _, scope := range standardScopes() {
		names = append(names, scope.Name)
	}
	return names
}

// ScopeNames are the names of a catalogue, OpenID Connect's among them.
func ScopeNames(scopes []Scope) []string {
	c, err := newCatalogue(scopes)
	if err != nil {
		return nil
	}
	return c.names
}

// catalogue are the scopes of this server, and with them the claims about users that they cover.
type catalogue struct {
	names  []string // in the catalogue's order
	scopes map[string]Scope
}

// ScopeError is an entry of a catalogue that cannot be there.
type ScopeError struct {
	Index  int    // of the entry
	Twin   int    // the entry with the same name, or -1
	Name   string // of the scope
	Reason string // completes the sentence "scope ..."
}

func (e *ScopeError) Error() string { return fmt.Sprintf("scope %q %s", e.Name, e.Reason) }

// maxScope bounds a name, in bytes: tokens and consent pages hold many of them.
const maxScope = 100

// CheckScopes finds everything that is wrong in a catalogue. A [Server] is only made of one in which nothing is.
func CheckScopes(scopes []Scope) []ScopeError {
	var wrong []ScopeError
	first := make(map[string]int)
	for i, scope := range scopes {
		if !oauth.ValidScope(scope.Name) || len(scope.Name) > maxScope {
			wrong = append(wrong, ScopeError{Index: i, Twin: -1, Name: scope.Name, Reason: fmt.Sprintf(
				"must be 1 to %d visible ASCII characters without spaces, quotes and backslashes (RFC 6749 section 3.3)", maxScope)})
		}
		if twin, taken := first[scope.Name]; taken {
			wrong = append(wrong, ScopeError{Index: i, Twin: twin, Name: scope.Name, Reason: "is listed twice"})
		} else {
			first[scope.Name] = i
		}
	}
	return wrong
}

func newCatalogue(scopes []Scope) (*catalogue, error) {
	c := &catalogue{scopes: make(map[string]Scope)}
	if wrong := CheckScopes(scopes); len(wrong) > 0 {
		return c, &wrong[0]
	}
	for _, scope := range slices.Concat(scopes, standardScopes()) {
		if _, own := c.scopes[scope.Name]; !own {
			c.scopes[scope.Name] = scope
			c.names = append(c.names, scope.Name)
		}
	}
	return c, nil
}

// offered is those of scopes that app.yml and the catalogue still list.
func (k *catalogue) offered(c *storage.Client, scopes []string) []string {
	return oauth.Within(oauth.Within(scopes, c.Scopes), k.names)
}
