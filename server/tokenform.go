package server

import (
	"cmp"
	"context"
	"slices"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// The form of access tokens: JWTs of the type at+jwt (RFC 9068), signed with ES256, unless the one that takes them
// wants something else. Some verifiers know no type but JWT, and some gateways no algorithm but RS256; and a token that
// nobody but this server reads need not be readable.
//
// The resource servers of a token's audience decide: those of the configuration by their entry, those that clients
// speak for by what these have registered. A token for the issuer, which is what a client gets that names no resource,
// has the form that the client has registered, or else that of the issuer's entry in the configuration. What our own
// userinfo endpoint takes is all the same. So is what was issued before a form was changed: a token is read by what it
// is, not by what it would be today.

// tokenForm is the form of an access token. The zero value is the default.
type tokenForm struct {
	typ string // [oauth.AccessTokenTypes]
	alg string // [oauth.AccessTokenAlgs]
}

var defaultForm = tokenForm{oauth.AccessTokenTypes()[0], oauth.AccessTokenAlgs()[0]}

// orDefault leaves nothing open. An opaque token is not signed.
func (f tokenForm) orDefault() tokenForm {
	f.typ = cmp.Or(f.typ, defaultForm.typ)
	if f.alg = cmp.Or(f.alg, defaultForm.alg); f.typ == oauth.AccessTokenOpaque {
		f.alg = ""
	}
	return f
}

// formOf is the form of the access tokens for an audience that c gets. Resource servers that want different ones cannot
// have one token.
func (x *resources) formOf(c *storage.Client, a audience) (tokenForm, error) {
	var form tokenForm
	decided := "" // by that resource
	for _, identifier := range a {
		if identifier == x.name+pathUserinfo {
			continue
		}
		switch wanted := x.formFor(c, identifier).orDefault(); {
		case decided == "":
			form, decided = wanted, identifier
		case form != wanted:
			return form, invalidTarget(oauth.RuleResourceForms, "access tokens for "+
				oauth.Printable(oauth.ShownURI(identifier))+" have another form than those for "+
				oauth.Printable(oauth.ShownURI(decided))+": ask for one of them in the token request").
				About(shownURI(identifier), shownURI(decided), "")
		}
	}
	return form.orDefault(), nil
}

// formFor is the form of access tokens for one resource that c gets, as far as somebody says so.
func (x *resources) formFor(c *storage.Client, identifier string) tokenForm {
	if own := registeredForm(c); identifier == x.name && own != (tokenForm{}) {
		return own
	}
	if slices.Contains(x.own, identifier) {
		return x.forms[identifier]
	}
	if speakers := x.store.Speakers(identifier); len(speakers) > 0 {
		return registeredForm(speakers[0])
	}
	return tokenForm{}
}

func registeredForm(c *storage.Client) tokenForm {
	return tokenForm{c.AccessTokenType, c.AccessTokenAlg}
}

// dress gives claims the form of an access token, with what it tells about the user. An opaque one tells nothing:
// whoever takes it introspects it, and is told then.
func (iss *issuer) dress(ctx context.Context, form tokenForm, claims accessClaims, told map[string]any) (string,
	error) {
	if form.typ == oauth.AccessTokenOpaque {
		return iss.seal(storage.SealAccess, claims)
	}
	if len(told) > 0 {
		return iss.sign(ctx, form.alg, form.typ, withClaims{claims, told})
	}
	return iss.sign(ctx, form.alg, form.typ, claims)
}
