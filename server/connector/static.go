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
	dummy   []byte        // a hash of no password, for logins that nobody has
	slots   chan struct{} // bcrypt is made to cost: as many at once as there are cores
}

// NewStatic refuses users without an id, without any login name, with the login name of another, or with a bad hash.
func NewStatic(users []StaticUser) (*Static, error) {
	s := &Static{users: users, byLogin: make(map[string]int), slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))}
	ids, highest := make(map[string]bool), 0
	var errs []error
	for i, u := range users {
		if u.UserID == "" || ids[u.UserID] {
			errs = append(errs, fmt.Errorf("user %d: user id %q is empty or taken", i+1, u.UserID))
		}
		ids[u.UserID] = true
		cost, err := bcrypt.Cost(u.Hash)
		if err != nil {
			errs = append(errs, fmt.Errorf("user %d: the hash is not one of bcrypt", i+1))
		}
		highest = max(highest, cost)
		if normalize(u.Email) == "" && normalize(u.Username) == "" {
			errs = append(errs, fmt.Errorf("user %d: neither e-mail address nor user name", i+1))
		}
		for _, login := range []string{normalize(u.Email), normalize(u.Username)} {
			if login == "" {
				continue
			}
			if j, taken := s.byLogin[login]; taken && j != i {
				errs = append(errs, fmt.Errorf("user %d: login %q is user %d's", i+1, login, j+1))
			}
			s.byLogin[login] = i
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
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
	// A password that bcrypt cannot take (over 72 bytes) is nobody's; comparing its beginning would accept strangers.
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	if err != nil || !known || len(password) > 72 {
		return Identity{}, false, nil
	}
	return s.users[i].Identity, true, nil
}
