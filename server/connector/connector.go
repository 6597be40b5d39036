// Package connector is how people prove who they are: one file a kind. A connector checks what somebody gives and says who
// it is; what follows from that (sessions, limits of guesses, pages) is the server's business.
//
// Today there is one kind, [Static]: the passwords of the configuration. A kind that sends people elsewhere to sign in gets
// an interface of its own beside [Password].
package connector

import "context"

// Identity is somebody who has proven who they are.
type Identity struct {
	// UserID is the subject of tokens: stable, never reassigned, 1 to 255 ASCII characters (OpenID Connect Core 1.0, section 2).
	UserID        string
	Username      string
	Name          string
	Email         string
	EmailVerified bool
}

// Password is a connector that takes a login name and a password.
type Password interface {
	// Login says who has this login name and password; false when nobody has. It takes the same time in either case. An
	// error is a fault of the connector, never a verdict.
	Login(ctx context.Context, login, password string) (Identity, bool, error)

	// Account names the account behind a login name, the same for all names of one account, so that guesses against it
	// are counted together. It gives a name for accounts that do not exist, too.
	Account(login string) string
}
