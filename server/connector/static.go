package connector

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
)

// StaticName is the connector of people whose passwords are at this server, see [Local].
const StaticName = "local"

// StaticUser is a user of the configuration.
type StaticUser struct {
	Identity
	// Hash is the bcrypt hash of the password.
	Hash []byte
}

// Known is the identity, with the fingerprint of the hash. The salt in the hash has 128 random bits, so the fingerprint
// gives nobody a password to guess at.
func (u StaticUser) Known() Identity {
	who := u.Identity
	sum := sha256.Sum256(append([]byte("warifu static password\n"), u.Hash...))
	who.Credential = base64.RawURLEncoding.EncodeToString(sum[:])
	return who
}

// Static knows the users of the configuration. They sign in with their e-mail address or their user name.
type Static struct {
	users   []StaticUser
	byLogin map[string]int
	costs   factor.Costs
}

// UserError is what is wrong with a [StaticUser].
type UserError struct {
	User   int    // index of the user
	Field  string // UserID, Email, Username or Hash
	Twin   int    // index of the user who has the same value in TwinField, or -1
	Reason string // completes the sentence "the user id ..."

	TwinField string
}

func (e *UserError) Error() string { return fmt.Sprintf("user %d: %s %s", e.User+1, e.Field, e.Reason) }

// CheckUsers finds everything that is wrong: users without an id, without any login name, with the id or login name
// of another, or with a hash that is not one of bcrypt. E-mail address and user name are typed into the same field of
// the sign-in page, so one person's must not be another's.
func CheckUsers(users []StaticUser) []UserError {
	type place struct {
		user  int
		field string
	}
	var wrong []UserError
	logins, ids := make(map[string]place), make(map[string]place)
	take := func(taken map[string]place, user int, field, value string) {
		if first, is := taken[value]; is && first.user != user {
			wrong = append(wrong, UserError{User: user, Field: field, Twin: first.user, TwinField: first.field,
				Reason: fmt.Sprintf("is the same as %s of user %d", first.field, first.user+1)})
		} else if value != "" && !is {
			taken[value] = place{user, field}
		}
	}
	for i, u := range users {
		if u.UserID == "" {
			wrong = append(wrong, UserError{User: i, Field: "UserID", Twin: -1, Reason: "is empty"})
		}
		if normalize(u.Email) == "" && normalize(u.Username) == "" {
			wrong = append(wrong, UserError{User: i, Field: "Email", Twin: -1, Reason: "is empty, and so is the user name"})
		}
		if _, err := bcrypt.Cost(u.Hash); err != nil {
			wrong = append(wrong, UserError{User: i, Field: "Hash", Twin: -1, Reason: "is not a hash of bcrypt"})
		}
		take(ids, i, "UserID", strings.ToLower(u.UserID))
		take(logins, i, "Email", normalize(u.Email))
		take(logins, i, "Username", normalize(u.Username))
	}
	return wrong
}

// NewStatic makes a connector of users with whom nothing is wrong, by [CheckUsers].
func NewStatic(users []StaticUser) (*Static, error) {
	var errs []error
	for _, wrong := range CheckUsers(users) {
		errs = append(errs, &wrong)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s := &Static{users: users, byLogin: make(map[string]int)}
	for i, u := range users {
		s.costs.Know(string(u.Hash))
		for _, login := range []string{normalize(u.Email), normalize(u.Username)} {
			if login != "" {
				s.byLogin[login] = i
			}
		}
	}
	return s, nil
}

// Takes is how long a wrong password takes; next to nothing if there are no users.
func (s *Static) Takes() time.Duration { return s.costs.Takes() }

func normalize(login string) string { return storage.NormalLogin(login) }

// Identities are all users.
func (s *Static) Identities() []Identity {
	out := make([]Identity, len(s.users))
	for i, u := range s.users {
		out[i] = u.Known()
	}
	return out
}

// Account is [Password.Account].
func (s *Static) Account(login string) string {
	if i, ok := s.byLogin[normalize(login)]; ok {
		return "user:" + s.users[i].UserID
	}
	return "login:" + normalize(login)
}

// User is [Password.User].
func (s *Static) User(login string) (string, bool) {
	i, known := s.byLogin[normalize(login)]
	if !known {
		return "", false
	}
	return s.users[i].UserID, true
}

// Login is [Password.Login]. It is made to cost: callers should not check more at once than there are cores.
func (s *Static) Login(ctx context.Context, login, password string) (Identity, bool, error) {
	if err := ctx.Err(); err != nil {
		return Identity{}, false, fmt.Errorf("check password: %w", err)
	}
	i, known := s.byLogin[normalize(login)]
	hash := ""
	if known {
		hash = string(s.users[i].Hash)
	}
	if right, _ := s.costs.Check(hash, password); right {
		return s.users[i].Known(), true, nil
	}
	return Identity{}, false, nil
}
