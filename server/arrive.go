package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// arrival is what came of somebody who has proven who they are by a connector.
type arrival int

const (
	turnedAway arrival = iota // the account is disabled, or the password is no longer the user's
	halfway                   // a second factor is asked for
	signedInNow
)

// arrive goes on with somebody who has proven who they are by the way of a turn: it begins a session, or, where that
// takes more, keeps what was proven. knownBy is by what the browser knows them again, "" for nothing. The error is a
// [connector.RefusedError], or a fault.
func (s *Server) arrive(w http.ResponseWriter, r *http.Request, t turn, who connector.Identity,
	knownBy string) (arrival, error) {
	came := turnedAway
	err := storage.Again(4, func() (again bool, err error) {
		a, err := s.arriving(r.Context(), t.way, who)
		if errors.Is(err, storage.ErrNotFound) || err == nil && !a.User.Active() {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if now := credentialOf(a); now != "" && who.Credential != "" && now != who.Credential {
			if !a.User.Managed {
				s.log.WarnContext(r.Context(), "sign-in refused: another replica's configuration has a different "+
					"password for this user; give both the same staticPasswords, then run warifu reload",
					"user", a.User.ID)
			}
			return false, nil
		}
		p := s.proofBy(t.way, a.User, who, knownBy)
		if s.asksMore(t, a, p) {
			came, err = halfway, s.waitForMore(w, r, t, p, a, who)
			return false, err
		}
		came, err = signedInNow, s.begin(w, r, t, p, false, renewed(a, who), t.state)
		return errors.Is(err, storage.ErrConflict), except(err, storage.ErrConflict)
	})
	if errors.Is(err, storage.ErrSpent) {
		err = connector.Refuse("the state was used before")
	}
	return came, err
}

// waitForMore keeps what was proven until there is a second factor. What cannot wait is written now.
func (s *Server) waitForMore(w http.ResponseWriter, r *http.Request, t turn, p proof, a *storage.Account,
	who connector.Identity) error {
	if t.state.ID != "" {
		if err := s.store.Spend(r.Context(), t.state); err != nil {
			return err
		}
	}
	if next := renewed(a, who); next != nil {
		_, _, err := s.store.ChangeFactors(r.Context(), a, storage.FactorChange{Next: *next})
		if err != nil && !errors.Is(err, storage.ErrConflict) { // the next sign-in does it
			return err
		}
	}
	return s.keepHalf(w, t.request, p)
}

// renewed are the factors of an account with the hash of its password made anew; nil if it stays as it is.
func renewed(a *storage.Account, who connector.Identity) *storage.Factors {
	if who.Renewed == "" || a.Factors.Password.Hash != who.Checked {
		return nil
	}
	next := a.Factors.Clone()
	next.Password.Hash = who.Renewed
	return &next
}

// except is err, unless it is the one that does not count.
func except(err, but error) error {
	if errors.Is(err, but) {
		return nil
	}
	return err
}

// arriving is the account of somebody who has come by a connector.
func (s *Server) arriving(ctx context.Context, way connector.Connector, who connector.Identity) (*storage.Account,
	error) {
	if way.ID == connector.StaticName {
		return s.store.Account(ctx, who.UserID)
	}
	u, err := s.userBy(ctx, way, who)
	if err != nil {
		return nil, err
	}
	return s.store.Account(ctx, u.ID)
}

// userBy is the user who has come by a connector. Those of the configuration have their records from its being read,
// and managed ones from an operator; all others get theirs now.
func (s *Server) userBy(ctx context.Context, way connector.Connector, who connector.Identity) (*storage.User, error) {
	if _, is := s.ways.find(way.ID); !is { // while they were away
		return nil, connector.Refuse("the connector is no longer in the configuration")
	}
	admitted, err := way.Admit(who)
	if err != nil {
		return nil, err
	}
	admitted.UserID = s.AccountOf(way.ID, admitted.UserID)
	record := UserRecord(admitted)
	record.Connector, record.UpstreamID = way.ID, who.UserID
	u, err := s.store.ArriveUser(ctx, storage.Arrival{
		User: record, Data: admitted.Data, Ask: way.Ask, Until: s.now().Add(s.life.Session + s.life.RefreshAbsolute)})
	switch {
	case errors.Is(err, storage.ErrUserID):
		return nil, connector.Refuse("%s; have the connector name its users by something shorter", err)
	case errors.Is(err, storage.ErrOtherConnector):
		return nil, connector.Refuse("%s", err)
	}
	return u, err
}

// callTime is how long a connector may take to answer. Those that take no notice of it have the same limit themselves.
const callTime = 9 * time.Second

// loginBy checks a password. Nobody has it when ok is false.
func loginBy(ctx context.Context, way connector.Connector, login, password string) (connector.Identity, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	who, ok, err := way.Password.Login(ctx, login, password)
	if len(who.AMR) == 0 {
		who.AMR = []string{oauth.AMRPassword}
	}
	return who, ok, faultOf(way, err)
}

// connectorFault is an error of a connector that is no verdict.
type connectorFault struct{ error }

// faultOf is an error of a connector, as [Server.notSignedIn] takes it.
func faultOf(way connector.Connector, err error) error {
	var refused *connector.RefusedError
	if err == nil || errors.As(err, &refused) {
		return err
	}
	return &connectorFault{fmt.Errorf("connector %s: %w", way.ID, err)}
}

// ManagedAccounts look for the accounts that operators keep in a store.
func ManagedAccounts(store *storage.Store) connector.Accounts {
	return func(ctx context.Context, login string) (*connector.Managed, error) {
		a, err := store.AccountByLogin(ctx, login)
		if errors.Is(err, storage.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return &connector.Managed{Identity: connector.Identity{UserID: a.User.ID, Credential: credentialOf(a)},
			Hash: a.Factors.Password.Hash}, nil
	}
}

// credentialOf tells apart what an account signs in with, "" if that is not known. Of a password that is kept here it
// is when it was set, which stays when its hash is made anew.
func credentialOf(a *storage.Account) string {
	if at := a.Factors.Password.At; a.User.Managed && !at.IsZero() {
		return at.UTC().Format(time.RFC3339Nano)
	}
	return a.User.Credential
}
