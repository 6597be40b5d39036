// Package connector is how people prove who they are: one file per kind. A connector checks what a person gives and says who
// it is; what follows from that (sessions, limits of guesses, pages) is the server's business.
//
// Today there is one kind, [Static]: the passwords of the configuration. A kind that sends people elsewhere to sign in gets
// an interface of its own beside [Password].
package connector

import "context"

// Identity is a person who has proven who they are, with what the connector knows of them: the standard claims of OpenID Connect
// Core 1.0 section 5.1. What is empty is not known.
type Identity struct {
	// UserID is the subject of tokens: stable, never reassigned, 1 to 144 ASCII characters (a pairwise subject, which has 255 at the
	// most, holds it: OpenID Connect Core 1.0, section 2).
	UserID        string
	Username      string
	Name          string
	Email         string
	EmailVerified bool
	Profile
	Address Address
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

	// Account names the account behind a login name, the same for all names of one account, so that guesses against it
	// are counted together. It gives a name for accounts that do not exist, too.
	Account(login string) string
}
