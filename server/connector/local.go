package connector

import (
	"context"
	"fmt"
	"time"

	"github.com/warifu/warifu/server/factor"
)

// Managed is the account of somebody whom operators keep by commands, as a sign-in needs it.
type Managed struct {
	Identity        // with the Credential of the account
	Hash     string // of the password, "" for none
}

// Accounts look for the managed account of somebody who signs in with a name or address: nil for one that nobody has.
// They ask as much of storage in either case.
type Accounts func(ctx context.Context, login string) (*Managed, error)

// Local knows all people whose passwords are at this server: those of the configuration, and managed accounts. Nobody
// sees which of them somebody is. A name that the configuration has goes before one of a managed account.
type Local struct {
	*Static
	accounts Accounts
	costs    factor.Costs
}

// NewLocal makes a connector of the users of the configuration and the accounts that are kept here.
func NewLocal(static *Static, accounts Accounts) *Local {
	l := &Local{Static: static, accounts: accounts}
	l.costs.KnowOurs()
	for _, u := range static.users {
		l.costs.Know(string(u.Hash))
	}
	return l
}

// Takes is how long a wrong password takes.
func (l *Local) Takes() time.Duration { return l.costs.Takes() }

// Find is [Finder.Find]. Storage is asked whoever has the name.
func (l *Local) Find(ctx context.Context, login string) (Password, error) {
	managed, err := l.accounts(ctx, login)
	if err != nil {
		return nil, fmt.Errorf("look for an account: %w", err)
	}
	of := &ofLogin{Local: l}
	if i, known := l.byLogin[normalize(login)]; known {
		of.who, of.hash = l.users[i].Known(), string(l.users[i].Hash)
	} else if managed != nil {
		of.who, of.hash, of.managed = managed.Identity, managed.Hash, true
	}
	return of, nil
}

// Login is [Password.Login], for a name that nobody has looked for yet.
func (l *Local) Login(ctx context.Context, login, password string) (Identity, bool, error) {
	of, err := l.Find(ctx, login)
	if err != nil {
		return Identity{}, false, err
	}
	return of.Login(ctx, login, password)
}

// ofLogin is a [Local] that knows who has a login name.
type ofLogin struct {
	*Local
	who     Identity // without an id: nobody
	hash    string
	managed bool
}

// Account is [Password.Account].
func (o *ofLogin) Account(login string) string {
	if o.who.UserID == "" {
		return o.Local.Account(login)
	}
	return "user:" + o.who.UserID
}

// User is [Password.User].
func (o *ofLogin) User(string) (string, bool) { return o.who.UserID, o.who.UserID != "" }

// Login is [Password.Login]. It is made to cost: callers should not check more at once than there are cores, each of
// which takes the memory of a hash.
func (o *ofLogin) Login(ctx context.Context, _, password string) (Identity, bool, error) {
	if err := ctx.Err(); err != nil {
		return Identity{}, false, fmt.Errorf("check password: %w", err)
	}
	right, stale := o.costs.Check(o.hash, password)
	if !right {
		return Identity{}, false, nil
	}
	who := o.who
	if o.managed && stale {
		who.Checked, who.Renewed = o.hash, factor.HashPassword(password)
	}
	return who, true, nil
}
