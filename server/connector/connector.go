// Package connector is how people prove who they are: one file per kind. A connector checks what a person gives and
// says who it is; what follows from that (sessions, limits of guesses, pages) is the server's business.
//
// What a connector says of a person beside the standard claims of OpenID Connect is groups and attributes. Groups
// decide who may use an app, and apps are told of them; attributes become claims. Both are bounded, because tokens hold
// them.
//
// There are two ways to ask a person who they are. [Local], the passwords of the configuration and of managed accounts,
// and directories are a [Password]: this server shows the form. Other identity providers are a [Redirect]: the browser
// goes there and comes back. A [Connector] is one of them, as the configuration names it. The kinds that speak to the
// world outside are those of package dex.
//
// A connector whose upstream is away harms nobody else: it is opened when it is first needed, each call has a deadline,
// and what it cannot tell is an error, never a verdict. A verdict is a [RefusedError].
package connector

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Connector is one way to sign in, as the configuration names it.
type Connector struct {
	// ID names it in addresses, in records of users, and in manifests (spec.oauth.access.connectors). It is [StaticName]
	// for the passwords at this server.
	ID string
	// Name is what the sign-in page calls it.
	Name string
	// Logo is an image for its button, as a file holds it; nil for none.
	Logo []byte
	// Prompt is what a [Password] calls the name that people type, such as "Matriculation number"; "" for the usual words.
	Prompt string
	// Groups that are kept of those that it tells: patterns in which each star stands for any text; nil keeps all, and an
	// empty list none.
	Groups []string
	// Ask is how often the connector is asked again whether its users are still the same, if it is a [Refresher]; 0 for
	// never. No token waits for it.
	Ask time.Duration
	// Password or Redirect: one of the two.
	Password Password
	Redirect Redirect
}

// Identity is a person who has proven who they are, with what the connector knows of them: the standard claims of
// OpenID Connect Core 1.0 section 5.1. What is empty is not known.
type Identity struct {
	// UserID is what the connector calls the person: stable, never reassigned, 1 to 1,024 bytes. For [Static] it is the
	// subject of tokens; for the others [Subjects.Of] makes that of it.
	UserID        string
	Username      string
	Name          string
	Email         string
	EmailVerified bool
	Profile
	Address Address
	// PreferredUsername is what apps call the person, where that is not Username, with which they sign in.
	PreferredUsername string
	// Groups that the person is in. A connector holds them to [oauth.CheckGroups].
	Groups []string
	// Attributes are what else is known, by name, for claims that the configuration makes of them: a text, a number, true
	// or false, or a list of texts each. A connector holds them to [CheckAttributes].
	Attributes map[string]any
	// AMR and ACR say how the person proved it (OpenID Connect Core 1.0 section 2), and AuthTime when: only what the
	// connector knows. A zero AuthTime is now.
	AMR      []string
	ACR      string
	AuthTime time.Time
	// Data is what a [Refresher] needs to ask again, such as tokens of the upstream: a secret. Nil: it cannot.
	Data []byte
	// Credential tells apart what they prove it with, such as one password and the next: a fingerprint that opens nothing.
	// Empty: not known.
	Credential string
	// Checked is the hash of the password that was right, and Renewed one to be kept in its place, where this server keeps
	// it and would make it differently today. Empty: it stays.
	Checked, Renewed string
}

// Profile is the rest of the standard claims.
type Profile struct {
	GivenName           string
	FamilyName          string
	MiddleName          string
	Nickname            string
	ProfileURL          string
	PictureURL          string
	WebsiteURL          string
	Gender              string
	Birthdate           string // YYYY-MM-DD; year 0000 is not told; YYYY alone is allowed
	Zoneinfo            string // IANA, as in Asia/Tokyo
	Locale              string // BCP 47, as in ja-JP
	PhoneNumber         string // E.164, as in +81 3 1234 5678
	PhoneNumberVerified bool
}

// Address is a postal address (OpenID Connect Core 1.0 section 5.1.1).
type Address struct {
	Formatted     string // as on a label, with line breaks
	StreetAddress string
	Locality      string
	Region        string
	PostalCode    string
	Country       string
}

// Password is a connector that takes a login name and a password.
type Password interface {
	// Login returns who has this login name and password; false if nobody has. It takes the same time in either case. An
	// error is a fault of the connector, never a verdict.
	Login(ctx context.Context, login, password string) (Identity, bool, error)

	// User is the id of the user who has this login name, if somebody has it.
	User(login string) (id string, known bool)

	// Account names the account behind a login name, the same for all names of one account, so that guesses against it
	// are counted together. It gives a name for accounts that do not exist, too.
	Account(login string) string
}

// Finder is a [Password] connector that has to look for who has a login name.
type Finder interface {
	// Find looks who has a login name. What it returns is for sign-ins with this name alone. An error is a fault.
	Find(ctx context.Context, login string) (Password, error)
}

// Redirect is a connector to which the browser goes. It keeps nothing between Start and Finish: what it needs travels
// in [Away.Keep], sealed in a cookie of the browser that began, so that nobody else can finish.
type Redirect interface {
	// Start says where the browser goes.
	Start(ctx context.Context, ask Ask) (Away, error)
	// Finish is called when the browser has come back with what the upstream answered, in the query or in a form. It
	// checks that the answer is to this very question: issuer (RFC 9207), nonce, InResponseTo, whatever the upstream
	// gives. The caller has checked the state. The error is a [RefusedError] or a fault.
	Finish(ctx context.Context, ask Ask, keep []byte, r *http.Request) (Identity, error)
}

// Ask is what this server asks of an upstream. Finish gets the same as Start.
type Ask struct {
	// State comes back with the answer (state, or RelayState of SAML): 43 random characters, base64url.
	State string `json:"s"`
	// Nonce is to come back in an ID token: 43 random characters, base64url.
	Nonce string `json:"n"`
	// Fresh: the person is to prove anew who they are (prompt=login or max_age of the app's request), where the upstream
	// can be asked for that. SelectAccount: they want to choose an account.
	Fresh         bool `json:"f,omitempty"`
	SelectAccount bool `json:"a,omitempty"`
	// LoginHint is the name that the person probably signs in with.
	LoginHint string `json:"h,omitempty"`
	UILocales string `json:"l,omitempty"`
}

// Away is where the browser goes.
type Away struct {
	// URL is reached by GET, or, if Post is not nil, by a form that posts these fields (the POST binding of SAML 2.0).
	URL  string
	Post map[string]string
	// Keep is for Finish, at most 1 KiB. It is sealed before it leaves this server.
	Keep []byte
}

// RefusedError is a verdict: the upstream says no, or what it says is not to be believed.
type RefusedError struct {
	// Cancelled: the person themselves did not want to.
	Cancelled bool
	// Reason is for the log of the operator. It names no person and holds no secret.
	Reason string
}

func (e *RefusedError) Error() string {
	return "the identity provider's answer is refused: " + e.Reason
}

// Refuse makes a [RefusedError].
func Refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

// Refresher is a connector that can be asked again about somebody who signed in before.
type Refresher interface {
	// Refresh tells who the person is now, by the Data of who, or of the answer before. A [RefusedError] says that they
	// may not sign in any longer; anything else is a fault, and says nothing.
	Refresh(ctx context.Context, who Identity) (Identity, error)
}

// SignOuter is a connector at which people can be signed out as well (OpenID Connect RP-Initiated Logout 1.0).
type SignOuter interface {
	// SignOutURL is where the browser goes for that, "" if the upstream offers none; it comes back to back.
	SignOutURL(ctx context.Context, back string) (string, error)
}

// Negotiator is a [Password] connector that can also take the ticket that a browser has (SPNEGO, RFC 4559).
type Negotiator interface {
	// Negotiate is called before the form is shown. Done without an identity: it has written the reply.
	Negotiate(ctx context.Context, w http.ResponseWriter, r *http.Request) (who *Identity, done bool, err error)
}

// Describer is a [Redirect] whose identity provider can be told of this server by a document, such as the metadata of a
// service provider of SAML 2.0.
type Describer interface {
	// Describe makes the document, which is public.
	Describe() (mediaType string, document []byte, err error)
}
