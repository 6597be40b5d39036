package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// People: their accounts, and which identities of connectors sign in with which.

// States of a user.
const (
	userActive   = "active"
	userDisabled = "disabled"
	userLeft     = "left"
)

// User is the account of a person.
type User struct {
	ID            string    `json:"id" doc:"The subject of tokens."`
	Connector     string    `json:"connector"`
	UpstreamID    string    `json:"upstreamId,omitempty" doc:"What the connector calls the person. Left out where that is the id."`
	Username      string    `json:"username,omitempty"`
	Name          string    `json:"name,omitempty"`
	Email         string    `json:"email,omitempty"`
	EmailVerified bool      `json:"emailVerified"`
	Groups        []string  `json:"groups" nullable:"false"`
	Managed       bool      `json:"managed" doc:"The account is kept here: commands and this API change it."`
	State         string    `json:"state" enum:"active,disabled,left" doc:"left: the connector is no longer configured, or the person signs in as another user now."`
	UpdatedAt     time.Time `json:"updatedAt" doc:"When something of this last changed."`
	SignedInAt    time.Time `json:"signedInAt,omitzero" doc:"When the user last signed in. Left out if that is not known."`
	Password      bool      `json:"password" doc:"Whether the user has a password at this server."`
	PasswordAt    time.Time `json:"passwordAt,omitzero" doc:"When it was set. Left out for users of the configuration."`
	Factors       []Factor  `json:"factors" nullable:"false" doc:"What else the user has at this server to prove who they are."`
}

// Kinds of factors.
const (
	factorPasskey  = "passkey"
	factorTOTP     = "totp"
	factorRecovery = "recovery"
)

// Factor is something beside a password with which a user can prove who they are.
type Factor struct {
	ID     string    `json:"id" doc:"Names it among those of the user."`
	Kind   string    `json:"kind" enum:"passkey,totp,recovery" doc:"recovery is the set of codes for a user who has lost the others."`
	Name   string    `json:"name,omitempty" doc:"As the user calls the passkey."`
	At     time.Time `json:"at,omitzero" doc:"When it was added."`
	UsedAt time.Time `json:"usedAt,omitzero" doc:"When it was last used."`
	Left   int       `json:"left,omitempty" doc:"How many recovery codes are not used up."`
}

// SignIn is an entry of a user's history.
type SignIn struct {
	At      time.Time `json:"at"`
	Failed  string    `json:"failed,omitempty" doc:"What was wrong. Left out of a sign-in that succeeded."`
	Times   int       `json:"times,omitempty" doc:"How often in a row it has failed so. Left out if once."`
	Methods []string  `json:"methods,omitempty" doc:"How the user proved who they are (amr)."`
	Address string    `json:"address,omitempty"`
	Agent   string    `json:"agent,omitempty" doc:"What the browser calls itself."`
}

// UserDetail is a user, and the identities that are joined.
type UserDetail struct {
	User
	Links    []UserLink `json:"links" nullable:"false" doc:"Identities that sign in as this user beside the user's own."`
	JoinedTo string     `json:"joinedTo,omitempty" doc:"Id of the user as whom the person signs in instead."`
	SignIns  []SignIn   `json:"signIns" nullable:"false" doc:"The last ones, the newest first."`
}

// UserLink is an identity that is joined to an account.
type UserLink struct {
	Connector  string    `json:"connector"`
	UpstreamID string    `json:"upstreamId" doc:"What the connector calls the person."`
	At         time.Time `json:"at"`
}

// Identity is what a connector calls somebody.
type Identity struct {
	Connector  string `json:"connector" minLength:"1" maxLength:"64" doc:"Id of the connector."`
	UpstreamID string `json:"upstreamId" minLength:"1" maxLength:"1024" doc:"What the connector calls the person."`
}

// Linked is the reply of joining an identity to an account, or of undoing that.
type Linked struct {
	Identity
	User  User   `json:"user" doc:"The account to which it is joined, or was."`
	Given string `json:"given,omitempty" doc:"Id of the account that the identity had by itself, which is disabled now."`
	Ended Ended  `json:"ended" doc:"What ended: of the account that was given up; or of the account to which it was joined, when that is undone."`
}

type usersInput struct {
	Part
	Connector string `query:"connector" maxLength:"64" doc:"Only those of this connector; local are those of the configuration and those that are kept here."`
	State     string `query:"state" enum:"active,disabled,left" doc:"Only those in this state."`
	Group     string `query:"group" maxLength:"256" doc:"Only those who are in this group."`
	Match     string `query:"match" maxLength:"256" doc:"Only those whose id, user name, name or e-mail address has this in it, in either case of letters."`
}

// wants reports whether a user is one of those.
func (in *usersInput) wants(u *storage.User) bool {
	match := strings.ToLower(in.Match)
	has := func(text string) bool { return strings.Contains(strings.ToLower(text), match) }
	return (in.Connector == "" || in.Connector == u.Connector) && (in.State == "" || in.State == stateOf(u)) &&
		(in.Group == "" || slices.Contains(u.GroupNames(), in.Group)) &&
		(match == "" || has(u.ID) || has(u.Username) || has(u.Name) || has(u.Email))
}

type linkInput struct {
	User string `path:"user" maxLength:"256" doc:"The user's id, e-mail address or user name."`
	Body Identity
}

type unlinkInput struct {
	User       string `path:"user" maxLength:"256" doc:"The user's id, e-mail address or user name."`
	Connector  string `path:"connector" maxLength:"64" doc:"Id of the connector."`
	UpstreamID string `path:"upstreamId" maxLength:"1024" doc:"What the connector calls the person."`
}

func (a *operations) registerUsers(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-users", Method: http.MethodGet, Path: "/v1/users", Summary: "List users, by id",
		Description: "Those of the configuration, those that are kept here, and whoever has signed in by a connector.",
		Tags:        []string{"records"}, Errors: []int{503},
	}, a.listUsers)
	huma.Register(api, huma.Operation{
		OperationID: "get-user", Method: http.MethodGet, Path: "/v1/users/{user}", Summary: "Show a user",
		Tags: []string{"records"}, Errors: []int{404, 409, 503},
	}, a.getUser)
	huma.Register(api, huma.Operation{
		OperationID: "link-user", Method: http.MethodPost, Path: "/v1/users/{user}/links",
		Summary: "Have an identity of a connector sign in as a user",
		Description: "The account that the identity had by itself is disabled, and all that was begun for it ends: " +
			"apps that know it see the user instead. The user keeps name, groups and connector.",
		Tags: []string{"records"}, Errors: []int{400, 404, 409, 422, 503},
	}, a.linkUser)
	huma.Register(api, huma.Operation{
		OperationID: "unlink-user", Method: http.MethodDelete,
		Path:    "/v1/users/{user}/links/{connector}/{upstreamId}",
		Summary: "Have an identity of a connector sign in with its own account again",
		Description: "All that was begun for the user ends, because nobody knows by which identity. " +
			"The user may sign in again.",
		Tags: []string{"records"}, Errors: []int{404, 409, 503}, DefaultStatus: http.StatusOK,
	}, a.unlinkUser)
}

func stateOf(u *storage.User) string {
	switch {
	case u.Left:
		return userLeft
	case u.Disabled:
		return userDisabled
	}
	return userActive
}

func userOf(a *storage.Account, signedIn time.Time) User {
	u := a.User
	static := u.Connector == storage.ManagedConnector && !u.Managed
	return User{ID: u.ID, Connector: u.Connector, UpstreamID: u.UpstreamID, Username: u.Username, Name: u.Name,
		Email: u.Email, EmailVerified: u.EmailVerified, Groups: listed(u.GroupNames()), Managed: u.Managed,
		State: stateOf(u), UpdatedAt: u.UpdatedAt, SignedInAt: signedIn, Password: a.Factors.Password.Hash != "" ||
			static && u.Active(),
		PasswordAt: a.Factors.Password.At, Factors: factorsOf(&a.Factors)}
}

func factorsOf(f *storage.Factors) []Factor {
	factors := []Factor{}
	for _, p := range f.Passkeys {
		factors = append(factors, Factor{ID: p.Ref(), Kind: factorPasskey, Name: p.Name, At: p.At, UsedAt: p.UsedAt})
	}
	if f.TOTP.Secret != nil {
		factors = append(factors, Factor{ID: storage.FactorTOTP, Kind: factorTOTP, At: f.TOTP.At, UsedAt: f.TOTP.UsedAt})
	}
	if len(f.Recovery) > 0 {
		codes := Factor{ID: storage.FactorRecovery, Kind: factorRecovery, Left: factor.UnusedRecovery(f.Recovery)}
		for _, c := range f.Recovery {
			if c.UsedAt.After(codes.UsedAt) {
				codes.UsedAt = c.UsedAt
			}
		}
		factors = append(factors, codes)
	}
	return factors
}

// mostSought is how many parts a request goes through to find somebody whom a filter wants.
const mostSought = 10

func (a *operations) listUsers(ctx context.Context, in *usersInput) (*items[User], error) {
	part := in.stored()
	var accounts []*storage.Account
	for sought := 0; sought < mostSought && len(accounts) == 0 && (sought == 0 || part.After != ""); sought++ {
		some, next, err := a.Store.AccountsPart(ctx, part)
		if err != nil {
			return nil, a.failed(ctx, "users", err)
		}
		accounts = slices.DeleteFunc(some, func(a *storage.Account) bool { return !in.wants(a.User) })
		part.After = next
	}
	ids := make([]string, len(accounts))
	for i, account := range accounts {
		ids[i] = account.User.ID
	}
	signedIn, err := a.Store.LastArrivals(ctx, ids)
	if err != nil {
		return nil, a.failed(ctx, "users", err)
	}
	users := make([]User, len(accounts))
	for i, account := range accounts {
		users[i] = userOf(account, signedIn[account.User.ID])
	}
	return &items[User]{in.link(part.After), users}, nil
}

func (a *operations) getUser(ctx context.Context, in *userInput) (*reply[UserDetail], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	shown, err := a.shown(ctx, u)
	if err != nil {
		return nil, err
	}
	history, err := a.Store.SignIns(ctx, u.ID, 0)
	if err != nil {
		return nil, a.failed(ctx, "sign-ins of user "+u.ID, err)
	}
	links, err := a.Store.Links(ctx, "")
	if err != nil {
		return nil, a.failed(ctx, "links of user "+u.ID, err)
	}
	out := UserDetail{User: shown, Links: []UserLink{}, SignIns: []SignIn{}}
	for _, s := range history {
		out.SignIns = append(out.SignIns, SignIn{At: s.At, Failed: s.Failed, Times: s.Times, Methods: s.AMR,
			Address: s.Address, Agent: s.Agent})
	}
	for _, l := range links {
		switch u.ID {
		case l.UserID:
			out.Links = append(out.Links, UserLink{Connector: l.Connector, UpstreamID: l.UpstreamID, At: l.At})
		case l.Own:
			out.JoinedTo = l.UserID
		}
	}
	return &reply[UserDetail]{out}, nil
}

// shown is a user with what they have to sign in.
func (a *operations) shown(ctx context.Context, u *storage.User) (User, error) {
	account, err := a.Store.Account(ctx, u.ID)
	if err != nil {
		return User{}, a.failed(ctx, "user "+u.ID, err)
	}
	signedIn, err := a.Store.LastArrivals(ctx, []string{u.ID})
	if err != nil {
		return User{}, a.failed(ctx, "user "+u.ID, err)
	}
	return userOf(account, signedIn[u.ID]), nil
}

func (a *operations) linkUser(ctx context.Context, in *linkInput) (*reply[Linked], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	who := in.Body
	if all := a.Connectors(); !slices.Contains(all, who.Connector) {
		return nil, noSuchConnector(who.Connector, all)
	}
	given, ended, err := a.Store.LinkUser(ctx, storage.Link{Connector: who.Connector, UpstreamID: who.UpstreamID,
		UserID: u.ID, Own: a.AccountOf(who.Connector, who.UpstreamID)})
	switch {
	case errors.Is(err, storage.ErrLinked):
		return nil, problem(http.StatusConflict, codeLinkedElsewhere,
			"The identity, or one of the two accounts, takes part in another link.",
			"See warifu describe user, and undo that first: warifu unlink user.")
	case errors.Is(err, storage.ErrConflict):
		return nil, problem(http.StatusConflict, codeOwnAccount, "The user "+u.ID+
			" is the account that this identity has by "+
			"itself.", "Nothing need be done.")
	case err != nil:
		return nil, a.failed(ctx, "user "+u.ID, err)
	}
	shown, err := a.shown(ctx, u)
	if err != nil {
		return nil, err
	}
	out := Linked{Identity: who, User: shown, Ended: Ended{UserID: u.ID}}
	if given != nil {
		a.SessionsEnded()
		out.Given = given.ID
		out.Ended = endedOf(given.ID, ended)
	}
	a.Logger.InfoContext(ctx, "identity joined to a user", "connector", who.Connector, "user", u.ID, "given", out.Given)
	return &reply[Linked]{out}, nil
}

// noSuchConnector is the problem of an id that no connector has whose users arrive.
func noSuchConnector(id string, all []string) *Problem {
	remedy := "There are " + strings.Join(all, ", ") + "."
	switch nearest := oauth.Nearest(id, all); {
	case len(all) == 0:
		remedy = "Add it to connectors in the configuration."
	case nearest != "":
		remedy = "Did you mean " + nearest + "?"
	}
	return problem(http.StatusNotFound, codeNoConnector, "No connector is called "+id+", or its users are those of "+
		"the configuration.", remedy)
}

func (a *operations) unlinkUser(ctx context.Context, in *unlinkInput) (*reply[Linked], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	links, err := a.Store.Links(ctx, u.ID)
	if err == nil && !slices.ContainsFunc(links, func(l storage.Link) bool {
		return l.Connector == in.Connector && l.UpstreamID == in.UpstreamID
	}) {
		err = storage.ErrNotFound
	}
	var ended storage.Ended
	if err == nil {
		_, ended, err = a.Store.UnlinkUser(ctx, in.Connector, in.UpstreamID)
	}
	if errors.Is(err, storage.ErrNotFound) {
		return nil, problem(http.StatusNotFound, codeNotFound, "No "+in.UpstreamID+" of connector "+in.Connector+
			" is joined to user "+u.ID+".", "See warifu describe user.")
	}
	if err != nil {
		return nil, a.failed(ctx, "links of user "+u.ID, err)
	}
	a.SessionsEnded()
	a.Logger.InfoContext(ctx, "identity no longer joined to a user", "connector", in.Connector, "user", u.ID)
	shown, err := a.shown(ctx, u)
	if err != nil {
		return nil, err
	}
	return &reply[Linked]{Linked{Identity: Identity{Connector: in.Connector, UpstreamID: in.UpstreamID}, User: shown,
		Ended: endedOf(u.ID, ended)}}, nil
}
