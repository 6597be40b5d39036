package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
		{scopeOpenID, map[string]string{"ja": "あなたが誰であるかの確認", "en": "Confirm who you are"}, RiskLow},
		{scopeProfile, map[string]string{
			"ja": "プロフィール（名前、ユーザー名、写真、性別、生年月日、タイムゾーンなど）の閲覧",
			"en": "View your profile: name, user name, picture, gender, date of birth, time zone and the like",
		}, RiskLow},
		{scopeEmail, map[string]string{"ja": "メールアドレスの閲覧", "en": "View your e-mail address"}, RiskLow},
		{scopeAddress, map[string]string{"ja": "住所の閲覧", "en": "View your postal address"}, RiskLow},
		{scopePhone, map[string]string{"ja": "電話番号の閲覧", "en": "View your phone number"}, RiskLow},
		{scopeOffline, map[string]string{"ja": "あなたが利用していない間のアクセス", "en": "Access while you are not using it"}, RiskBroad},
	}
}

const (
	scopeOpenID  = "openid"
	scopeProfile = "profile"
	scopeEmail   = "email"
	scopeAddress = "address"
	scopePhone   = "phone"
	scopeOffline = "offline_access"
)

// ScopeNames are the names of a catalogue, OpenID Connect's among them.
func ScopeNames(scopes []Scope) []string {
	c, err := newCatalogue(scopes)
	if err != nil {
		return nil
	}
	return c.names
}

type catalogue struct {
	names  []string // in the catalogue's order
	scopes map[string]Scope
}

func newCatalogue(scopes []Scope) (catalogue, error) {
	c := catalogue{scopes: make(map[string]Scope)}
	var errs []error
	for _, scope := range scopes {
		if !validScope(scope.Name) {
			errs = append(errs, fmt.Errorf("scope %q: not a scope of RFC 6749 section 3.3", scope.Name))
		}
		if _, taken := c.scopes[scope.Name]; taken {
			errs = append(errs, fmt.Errorf("scope %q: listed twice", scope.Name))
		}
		c.scopes[scope.Name] = scope
		c.names = append(c.names, scope.Name)
	}
	for _, scope := range standardScopes() {
		if _, own := c.scopes[scope.Name]; !own {
			c.scopes[scope.Name] = scope
			c.names = append(c.names, scope.Name)
		}
	}
	return c, errors.Join(errs...)
}

// validScope is the scope-token of RFC 6749 section 3.3.
func validScope(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r < 0x21 || r == '"' || r == '\\' || r > 0x7e
	})
}

// joined is the scope parameter of scopes.
func joined(scopes []string) string { return strings.Join(scopes, " ") }

// parseScopes splits a scope parameter, each scope once.
func parseScopes(param string) []string {
	var out []string
	for scope := range strings.SplitSeq(param, " ") {
		if scope != "" && !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	return out
}

// within is those of scopes that are in all, in their order.
func within(scopes, all []string) []string {
	var out []string
	for _, scope := range scopes {
		if slices.Contains(all, scope) {
			out = append(out, scope)
		}
	}
	return out
}

// offered is those of scopes that app.yml and the catalogue still list.
func (s *Server) offered(c *storage.Client, scopes []string) []string {
	return within(within(scopes, c.Scopes), s.scopes.names)
}

// without is those of scopes that are not in taken.
func without(scopes, taken []string) []string {
	var out []string
	for _, scope := range scopes {
		if !slices.Contains(taken, scope) {
			out = append(out, scope)
		}
	}
	return out
}
