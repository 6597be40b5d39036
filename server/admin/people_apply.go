package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
)

// applyTime is how long applying the people of a request may take; each of them has patience.
const applyTime = 2 * time.Minute

// applyUsers finds all that is wrong with all people before it changes the first.
func (a *operations) applyUsers(ctx context.Context, in *applyUsersInput) (*reply[UsersApplied], error) {
	ctx, cancel := within(ctx, applyTime)
	defer cancel()
	people, err := a.People.Read(in.Body.Documents)
	if err != nil {
		return nil, a.failed(ctx, "users", err)
	}
	if len(people) > MaxPeople {
		return nil, problem(http.StatusUnprocessableEntity, codeTooMany,
			fmt.Sprintf("There are %d people, and a request takes %d.", len(people), MaxPeople),
			"Send them in several requests.")
	}
	out := UsersApplied{Users: []UserChange{}, Applied: !in.Body.DryRun}
	var faults []Fault
	plans := make([]*userPlan, len(people))
	for i := range people {
		var plan *userPlan
		var fault *Fault
		err := a.patiently(ctx, func(ctx context.Context) (err error) {
			plan, fault, err = a.planUser(ctx, &people[i])
			return err
		})
		if err != nil {
			return nil, err
		}
		if fault != nil {
			faults = append(faults, *fault)
			continue
		}
		plans[i] = plan
		out.Users = append(out.Users, plan.change())
	}
	if len(faults) > 0 {
		return nil, InvalidPeople(faults)
	}
	if in.Body.DryRun {
		return &reply[UsersApplied]{out}, nil
	}
	var done []string
	for i, plan := range plans {
		var id string
		err := a.patiently(ctx, func(ctx context.Context) (err error) {
			id, err = a.applyUser(ctx, plan)
			return err
		})
		if err != nil {
			if len(done) > 0 {
				err = a.failed(ctx, "users", PartlyApplied(done, plan.login(), err))
			}
			return nil, err
		}
		if out.Users[i].ID = id; plan.changed() {
			done = append(done, id)
		}
	}
	if len(done) > 0 {
		a.SessionsEnded()
		a.Logger.InfoContext(ctx, "users applied", "changed", len(done), "of", len(plans))
	}
	return &reply[UsersApplied]{out}, nil
}

// patiently does something that takes no longer than a request usually may. Its error is what the caller is told.
func (a *operations) patiently(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.Patience)
	defer cancel()
	if err := do(ctx); err != nil {
		return a.failed(ctx, "users", err)
	}
	return nil
}

// InvalidPeople is the problem of people with faults.
func InvalidPeople(faults []Fault) *Problem {
	p := problem(http.StatusUnprocessableEntity, codeInvalidPeople,
		"The descriptions of people have faults; nothing was changed.", "Correct them and try again.")
	p.Faults = faults
	return p
}

// userPlan is what becomes of a person of a document.
type userPlan struct {
	person *Person
	held   *storage.Account // nil: the account is new
	next   storage.User
	keys   []string // whose values change
	hash   bool     // whether the hash becomes the password
}

func (p *userPlan) login() string { return cmp.Or(p.next.Email, p.next.Username) }

func (p *userPlan) changed() bool { return p.held == nil || len(p.keys) > 0 }

// ends reports whether what was begun for the user ends.
func (p *userPlan) ends() bool { return p.held != nil && p.hash }

func (p *userPlan) change() UserChange {
	c := UserChange{ID: p.next.ID, Login: p.login(), Change: "unchanged", Changes: listed(p.keys), Ends: p.ends()}
	switch {
	case p.held == nil:
		c.Change, c.Changes = "created", []string{}
	case p.changed():
		c.Change = "changed"
	}
	return c
}

// planUser decides what becomes of a person. A fault is the person's, an error is the store's.
func (a *operations) planUser(ctx context.Context, person *Person) (*userPlan, *Fault, error) {
	fault := func(key, code, message string) (*userPlan, *Fault, error) {
		f := person.Fault(key, code, message)
		return nil, &f, nil
	}
	plan := &userPlan{person: person, next: person.User}
	var err error
	if plan.held, err = a.heldBy(ctx, &person.User); err != nil {
		return nil, nil, err
	}
	for _, login := range []struct{ key, value string }{
		{"email", person.User.Email}, {"username", person.User.Username}} {
		if login.value == "" {
			continue
		}
		if id, has := a.People.Configured(login.value); has {
			return fault(login.key, "configured-user", "is what user "+id+" of staticPasswords signs in with: "+
				"take that user out of the configuration first")
		}
		other, err := a.Store.AccountByLogin(ctx, login.value)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, nil, err
		}
		if plan.held == nil && person.User.ID == "" {
			plan.held = other // somebody has just made it
		}
		if other != nil && (plan.held == nil || other.User.ID != plan.held.User.ID) {
			return fault(login.key, "login-taken", "is what user "+other.User.ID+" signs in with")
		}
		of, err := a.Store.User(ctx, login.value)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, nil, err
		}
		if of != nil && of.ID != person.User.ID && (plan.held == nil || of.ID != plan.held.User.ID) {
			return fault(login.key, "login-taken", "is the id of another user: whoever names one of them would mean the other")
		}
	}
	if plan.held == nil && person.User.ID != "" {
		other, err := a.Store.AccountByLogin(ctx, person.User.ID)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, nil, err
		}
		if other != nil {
			return fault("userID", "login-taken", "is what user "+other.User.ID+
				" signs in with: whoever names one of them would mean the other")
		}
	}
	if plan.held == nil {
		plan.hash = person.Hash != ""
		return plan, nil, nil
	}
	was := plan.held.User
	plan.next.ID = was.ID
	if !was.Managed && (was.Connector != storage.ManagedConnector || !was.Disabled) {
		key, where := "userID", "staticPasswords of the configuration: take them out there first"
		if was.Connector != storage.ManagedConnector {
			where = "the connector " + was.Connector + ", which keeps their account"
		}
		return fault(key, "configured-user", "is the id of a user of "+where)
	}
	plan.hash = person.Hash != "" && factor.Fingerprint(person.Hash) != plan.held.Factors.Applied
	plan.keys = changedKeys(was, &plan.next)
	if !was.Managed {
		plan.keys = append(plan.keys, "kept here")
	}
	if plan.hash {
		plan.keys = append(plan.keys, "password")
	}
	return plan, nil, nil
}

// heldBy is the account that a document means: the one with its id, or else with its logins; nil if there is none.
func (a *operations) heldBy(ctx context.Context, u *storage.User) (held *storage.Account, err error) {
	if u.ID != "" {
		held, err = a.Store.Account(ctx, u.ID)
		if errors.Is(err, storage.ErrNotFound) {
			return nil, nil
		}
		return held, err
	}
	for _, login := range []string{u.Email, u.Username} {
		if login == "" {
			continue
		}
		held, err = a.Store.AccountByLogin(ctx, login)
		if !errors.Is(err, storage.ErrNotFound) {
			return held, err
		}
	}
	return nil, nil
}

// changedKeys are those in which two records differ, as documents call them.
func changedKeys(was, next *storage.User) []string {
	var keys []string
	for _, k := range []struct {
		key  string
		same bool
	}{
		{"email", was.Email == next.Email}, {"emailVerified", was.EmailVerified == next.EmailVerified},
		{"username", was.Username == next.Username}, {"preferredUsername", was.PreferredUsername == next.PreferredUsername},
		{"name", was.Name == next.Name}, {"profile", was.Profile == next.Profile}, {"address", was.Address == next.Address},
		{"groups", slices.Equal(was.GroupNames(), next.GroupNames())}, {"attributes", was.Attributes == next.Attributes},
	} {
		if !k.same {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// applyUser does what a plan says, and decides anew if the account has changed meanwhile.
func (a *operations) applyUser(ctx context.Context, plan *userPlan) (id string, err error) {
	err = storage.Again(changes, func() (again bool, err error) {
		if !plan.changed() {
			id = plan.next.ID
			return false, nil
		}
		if plan.next.ID == "" {
			plan.next.ID = newUserID()
		}
		c := plan.change()
		said := c.Change
		if len(c.Changes) > 0 {
			said += ": " + strings.Join(c.Changes, ", ")
		}
		by := storage.AuditEntry{Action: storage.AuditUserApplied, User: plan.next.ID,
			Detail: "user " + plan.next.ID + ", " + said}
		account, err := a.Store.PutAccount(ctx, plan.next, plan.held, plan.factors(), by)
		var taken *storage.LoginTakenError
		switch {
		case err == nil:
			id = account.User.ID
			return false, nil
		case !errors.As(err, &taken) && !errors.Is(err, storage.ErrConflict):
			return false, err
		}
		next, fault, err := a.planUser(ctx, plan.person)
		if fault != nil {
			return false, InvalidPeople([]Fault{*fault})
		}
		if err == nil {
			plan = next
		}
		return true, err
	})
	return id, err
}

// factors are what the user has to sign in with after it; nil for what they had.
func (p *userPlan) factors() *storage.FactorChange {
	if !p.hash {
		return nil
	}
	change := &storage.FactorChange{}
	if p.held != nil {
		change.Next, change.Ends = p.held.Factors.Clone(), "an operator set another password"
	}
	change.Next.Password = storage.Password{Hash: p.person.Hash, At: time.Now().UTC()}
	change.Next.Applied = factor.Fingerprint(p.person.Hash)
	return change
}
