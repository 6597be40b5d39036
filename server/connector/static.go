package connector

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// StaticName is the connector of users that come from a [Static].
const StaticName = "local"

// StaticUser is a user of the configuration.
type StaticUser struct {
	Identity
	// Hash is the bcrypt hash of the password.
	Hash []byte
}

// Static knows the users of the configuration. They sign in with their e-mail address or their user name.
type Static struct {
	users   []StaticUser
	byLogin map[string]int
	dummy   []byte        // a hash of no password, for unknown logins
	slots   chan struct{} // bcrypt is made to cost: as many at once as there are cores
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
	s := &Static{users: users, byLogin: make(map[string]int), slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))}
	highest := 0
	for i, u := range users {
		cost, err := bcrypt.Cost(u.Hash)
		if err != nil {
			return nil, fmt.Errorf("hash of user %d: %w", i+1, err)
		}
		highest = max(highest, cost)
		for _, login := range []string{normalize(u.Email), normalize(u.Username)} {
			if login != "" {
				s.byLogin[login] = i
			}
		}
	}
	if highest == 0 {
		highest = bcrypt.DefaultCost
	}
	var err error
	if s.dummy, err = bcrypt.GenerateFromPassword([]byte("nobody has this"), highest); err != nil {
		return nil, fmt.Errorf("hash: %w", err)
	}
	return s, nil
}

func normalize(login string) string { return strings.ToLower(strings.TrimSpace(login)) }

// Identities are all users.
func (s *Static) Identities() []Identity {
	out := make([]Identity, len(s.users))
	for i, u := range s.users {
		out[i] = u.Identity
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

// Login is [Password.Login].
func (s *Static) Login(ctx context.Context, login, password string) (Identity, bool, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return Identity{}, false, fmt.Errorf("check password: %w", ctx.Err())
	}
	i, known := s.byLogin[normalize(login)]
	hash := s.dummy
	if known {
		hash = s.users[i].Hash
	}
	// A password that bcrypt cannot take (over 72 bytes) is always wrong; comparing only its beginning would accept
	// strangers.
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	if err != nil || !known || len(password) > 72 {
		return Identity{}, false, nil
	}
	return s.users[i].Identity, true, nil
}
