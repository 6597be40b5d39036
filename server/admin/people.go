package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
)

// What operators do with accounts: make and change those that are kept here, let people in, keep them out, and give
// them another way to prove who they are. Whatever it is, it ends what was begun for the user, unless the operator says
// otherwise where that can be.

// People is what the admin API asks of the configuration about people. A [*Problem] is shown to the caller as it is.
type People interface {
	// Read reads people from documents, in the keys of staticPasswords. All that is wrong is one [*Problem].
	Read(docs []Document) ([]Person, error)
	// Configured is the id of the user whom the configuration has with a name or address to sign in with.
	Configured(login string) (id string, has bool)
}

// Person is somebody who is described in a document.
type Person struct {
	// User is the record that the document asks for. Its id may be empty, or what the document calls the person.
	User storage.User
	// Hash is of the first password; "" for none.
	Hash string
	// Fault says what is wrong with a key; with the person if that is empty.
	Fault func(key, code, message string) Fault
}

// Links are addresses of pages on which people set a password, or make a passkey, without having one yet.
type Links interface {
	// MakeLink makes the address for somebody, of a kind that the server knows: a [LinkInvitation] or a [LinkReset]. It
	// is valid for so long, and once.
	MakeLink(ctx context.Context, a *storage.Account, kind string, valid time.Duration) (string, error)
	// SendLink brings it to the user's address in the background. It reports false if there is no mail, or no address.
	SendLink(u *storage.User, kind, link string, valid time.Duration) bool
	// Tell writes to a user what an operator did with their account, in the background, if there is mail.
	Tell(u *storage.User, what Told)
}

// Kinds of links.
const (
	LinkInvitation = "invitation"
	LinkReset      = "reset"
)

// Told is what an operator did, as a user is told of it.
type Told string

// What users are told of.
const (
	ToldPassword Told = "password" // they have another password
	ToldFactors  Told = "factors"  // one of their factors is gone, or all are
)

// Bounds of how long a link is valid.
const (
	linkLife     = 15 * time.Minute
	mostLinkLife = 7 * 24 * time.Hour
)

// UserChange is what applying a document does, or has done, to one user.
type UserChange struct {
	ID      string   `json:"id,omitempty" doc:"Left out where the account would be new, and the document names no id."`
	Login   string   `json:"login" doc:"With what the user signs in: the e-mail address, or else the user name."`
	Change  string   `json:"change" enum:"created,changed,unchanged"`
	Changes []string `json:"changes" nullable:"false" doc:"Keys whose values change."`
	Ends    bool     `json:"ends" doc:"Whether all that was begun for the user ends with it."`
}

// UsersApplied is the reply of applying people.
type UsersApplied struct {
	Users   []UserChange `json:"users" nullable:"false"`
	Applied bool         `json:"applied" doc:"False for a dry run."`
}

// MaxPeople bounds the people of a request.
const MaxPeople = 5000

type applyUsersInput struct {
	Body struct {
		Documents []Document `json:"documents" minItems:"1" maxItems:"100" nullable:"false" doc:"YAML or JSON: one person, a list, or the key staticPasswords with a list, in the keys of staticPasswords of the configuration. At most 5000 people in all."`
		DryRun    bool       `json:"dryRun,omitempty" doc:"Say what would change, and change nothing."`
	}
}

type passwordInput struct {
	User string `path:"user" maxLength:"256" doc:"The user's id, e-mail address or user name."`
	Body struct {
		Password string `json:"password" minLength:"1" maxLength:"1024" doc:"The new password."`
		Keep     bool   `json:"keep,omitempty" doc:"Let sessions, grants and consents go on."`
	}
}

type madeLinkInput struct {
	User string `path:"user" maxLength:"256" doc:"The user's id, e-mail address or user name."`
	Body struct {
		For   string `json:"for" enum:"invitation,reset" doc:"invitation: somebody takes over a new account. reset: they have lost their password."`
		Valid string `json:"valid,omitempty" maxLength:"20" doc:"How long it is valid, such as 15m (the default) or 72h; at most 168h."`
		Mail  bool   `json:"mail,omitempty" doc:"Bring it to the user by mail, if the server has mail; it is not in the reply then."`
	}
}

// MadeLink is the reply of making a link.
type MadeLink struct {
	UserID    string    `json:"userId"`
	Link      string    `json:"link,omitempty" doc:"A secret: whoever opens it becomes the user. Left out when it is sent by mail."`
	Mailed    bool      `json:"mailed" doc:"It is on its way to the user's e-mail address."`
	ExpiresAt time.Time `json:"expiresAt"`
}

// FactorsOf names a user whose factors are removed.
type FactorsOf struct {
	User string `path:"user" maxLength:"256" doc:"The user's id, e-mail address or user name."`
	Keep bool   `query:"keep" doc:"Let sessions, grants and consents go on."`
}

type factorInput struct {
	FactorsOf
	Factor string `path:"factor" maxLength:"2048" doc:"Id of the factor, as the user has it."`
}

// PasswordSet is the reply of giving a user another password.
type PasswordSet struct {
	UserID string `json:"userId"`
	Ended  bool   `json:"ended" doc:"All that was begun for the user has ended."`
}

// FactorsRemoved is the reply of removing factors.
type FactorsRemoved struct {
	Removed []string `json:"removed" nullable:"false" doc:"Ids of the factors that are gone."`
	Ended   Ended    `json:"ended"`
}

func (a *operations) registerPeople(api huma.API) {
	people := []string{"people"}
	huma.Register(api, huma.Operation{
		OperationID: "apply-users", Method: http.MethodPost, Path: "/v1/users",
		Summary: "Make accounts, or change those that are kept here",
		Description: "A user is found by id, or else by what they sign in with. What a document leaves out about a " +
			"user is forgotten. A hash sets the password only when it is new in the document; " +
			"then it replaces the one that the account has. Nobody is removed.",
		Tags: people, Errors: []int{400, 409, 413, 422, 503}, MaxBodyBytes: 16 << 20,
	}, a.applyUsers)
	huma.Register(api, huma.Operation{
		OperationID: "make-link", Method: http.MethodPost, Path: "/v1/users/{user}/link",
		Summary: "Make a link with which somebody takes over their account, or gets into it again",
		Description: "It works once, and stops working when how the user signs in, or their e-mail address, " +
			"has changed. Looking at it does not use it up.",
		Tags: people, Errors: []int{400, 404, 409, 422, 503},
	}, a.makeLink)
	huma.Register(api, huma.Operation{
		OperationID: "set-password", Method: http.MethodPut, Path: "/v1/users/{user}/password",
		Summary: "Give a user another password", DefaultStatus: http.StatusOK,
		Description: "All that was begun for the user ends, unless keep says otherwise.",
		Tags:        people, Errors: []int{400, 404, 409, 422, 503},
	}, a.setPassword)
	huma.Register(api, huma.Operation{
		OperationID: "disable-user", Method: http.MethodPost, Path: "/v1/users/{user}/disable",
		Summary:     "Keep a user out",
		Description: "All that was begun for the user ends, and they cannot sign in, by whatever connector.",
		Tags:        people, Errors: []int{404, 409, 503},
	}, a.disableUser)
	huma.Register(api, huma.Operation{
		OperationID: "enable-user", Method: http.MethodPost, Path: "/v1/users/{user}/enable",
		Summary: "Let a user in again", Tags: people, Errors: []int{404, 409, 503},
	}, a.enableUser)
	huma.Register(api, huma.Operation{
		OperationID: "delete-user", Method: http.MethodDelete, Path: "/v1/users/{user}",
		Summary: "Delete a user and everything that is theirs", DefaultStatus: http.StatusOK,
		Description: "Somebody who comes by a connector gets a new account when they sign in there again: to " +
			"keep them out, disable them.",
		Tags: people, Errors: []int{404, 409, 503},
	}, a.deleteUser)
	huma.Register(api, huma.Operation{
		OperationID: "remove-factor", Method: http.MethodDelete, Path: "/v1/users/{user}/factors/{factor}",
		Summary: "Remove a factor that a user has lost", DefaultStatus: http.StatusOK,
		Description: "All that was begun for the user ends, unless keep says otherwise.",
		Tags:        people, Errors: []int{404, 409, 503},
	}, a.removeFactor)
	huma.Register(api, huma.Operation{
		OperationID: "remove-factors", Method: http.MethodDelete, Path: "/v1/users/{user}/factors",
		Summary: "Remove all factors of a user but the password", DefaultStatus: http.StatusOK,
		Description: "All that was begun for the user ends, unless keep says otherwise.",
		Tags:        people, Errors: []int{404, 409, 503},
	}, a.removeFactors)
}

// notManaged is the problem of a user whose record is kept elsewhere; instead says what can be done.
func notManaged(u *storage.User, instead string) *Problem {
	where := "in staticPasswords of the configuration"
	if u.Connector != storage.ManagedConnector {
		where = "by the connector " + u.Connector
	}
	return problem(http.StatusConflict, codeNotManaged, "The user "+u.ID+" is kept "+where+".", instead)
}

// changed is [operations.failed], for what changes the account of a user.
func (a *operations) changed(ctx context.Context, u *storage.User, instead string, err error) error {
	switch {
	case errors.Is(err, storage.ErrNotManaged):
		return notManaged(u, instead)
	case errors.Is(err, storage.ErrLeft):
		return problem(http.StatusConflict, codeUserLeft, "The user "+u.ID+" has left: their connector is no longer "+
			"configured, or they sign in as another user now.", "See warifu describe user.")
	}
	return a.failed(ctx, "user "+u.ID, err)
}

func endedOf(userID string, e storage.Ended) Ended {
	return Ended{UserID: userID, Sessions: e.Sessions, Grants: e.Grants, Consents: e.Consents}
}

func (a *operations) disableUser(ctx context.Context, in *userInput) (*reply[Ended], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	ended, err := a.Store.DisableUser(ctx, u.ID, storage.AuditEntry{Reason: "disabled by an operator"})
	if err != nil {
		return nil, a.changed(ctx, u, "Take them out of staticPasswords.", err)
	}
	a.SessionsEnded()
	a.Logger.InfoContext(ctx, "user disabled", "user", u.ID, "ended", ended.String())
	return &reply[Ended]{endedOf(u.ID, ended)}, nil
}

func (a *operations) enableUser(ctx context.Context, in *userInput) (*reply[UserDetail], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	if err := a.Store.EnableUser(ctx, u.ID, storage.AuditEntry{Reason: "enabled by an operator"}); err != nil {
		return nil, a.changed(ctx, u, "Put them into staticPasswords, or apply them as a user (warifu apply user).", err)
	}
	a.Logger.InfoContext(ctx, "user enabled", "user", u.ID)
	return a.getUser(ctx, &userInput{User: u.ID})
}

func (a *operations) deleteUser(ctx context.Context, in *userInput) (*reply[Ended], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	ended, err := a.Store.DeleteUser(ctx, u.ID, storage.AuditEntry{Reason: "deleted by an operator"})
	if err != nil {
		return nil, a.changed(ctx, u, "Take them out of staticPasswords first.", err)
	}
	a.SessionsEnded()
	a.Logger.InfoContext(ctx, "user deleted", "user", u.ID, "ended", ended.String())
	return &reply[Ended]{endedOf(u.ID, ended)}, nil
}

func (a *operations) removeFactors(ctx context.Context, in *FactorsOf) (*reply[FactorsRemoved], error) {
	return a.remove(ctx, in)
}

func (a *operations) removeFactor(ctx context.Context, in *factorInput) (*reply[FactorsRemoved], error) {
	return a.remove(ctx, &in.FactorsOf, in.Factor)
}

// remove removes the factors with these ids, or all.
func (a *operations) remove(ctx context.Context, in *FactorsOf, ids ...string) (*reply[FactorsRemoved], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	const why = "removed by an operator"
	ends := "an operator removed a factor"
	if in.Keep {
		ends = ""
	}
	removed, ended, err := a.Store.RemoveFactors(ctx, u.ID, ids, ends, storage.AuditEntry{Reason: why})
	if errors.Is(err, storage.ErrNotFound) && len(ids) > 0 {
		return nil, problem(http.StatusNotFound, codeNotFound, "The user "+u.ID+" has no factor with that id.",
			"See warifu describe user.")
	}
	if err != nil {
		return nil, a.failed(ctx, "user "+u.ID, err)
	}
	if len(removed) > 0 {
		a.SessionsEnded()
		a.Logger.InfoContext(ctx, "factors removed", "user", u.ID, "factors", len(removed), "ended", ended.String())
		a.Links.Tell(u, ToldFactors)
	}
	return &reply[FactorsRemoved]{FactorsRemoved{Removed: listed(removed), Ended: endedOf(u.ID, ended)}}, nil
}

// account finds a user who is kept here, with what they have to sign in.
func (a *operations) account(ctx context.Context, name, instead string) (*storage.Account, error) {
	u, err := a.user(ctx, name)
	if err != nil {
		return nil, err
	}
	if !u.Managed {
		return nil, notManaged(u, instead)
	}
	account, err := a.Store.Account(ctx, u.ID)
	if err != nil {
		return nil, a.failed(ctx, "user "+u.ID, err)
	}
	return account, nil
}

// weaknesses are why a password is not taken, in words that follow "The password".
var weaknesses = map[factor.Weakness]string{
	factor.WeakShort:   fmt.Sprintf("has less than %d characters", factor.MinPassword),
	factor.WeakLong:    fmt.Sprintf("has more than %d bytes", factor.MaxPassword),
	factor.WeakGuessed: "can be guessed in seconds: it is a common word, name or pattern",
	factor.WeakKnown:   "has what everybody knows of the user, such as their name or address",
}

func (a *operations) setPassword(ctx context.Context, in *passwordInput) (*reply[PasswordSet], error) {
	const instead = "Change it where it is kept: the hash in staticPasswords (warifu hash), or the directory."
	password := in.Body.Password
	out := PasswordSet{Ended: !in.Body.Keep}
	hash := ""
	var user *storage.User
	err := storage.Again(changes, func() (again bool, err error) {
		account, err := a.account(ctx, in.User, instead)
		if err != nil {
			return false, err
		}
		u := account.User
		user = u
		if hash == "" {
			if strings.ContainsAny(password, "\r\n\x00") {
				return false, problem(http.StatusUnprocessableEntity, codeInvalidPassword,
					"The password must be one line, which is what a sign-in page sends.", "")
			}
			if weak := factor.Weak(password, u.Email, u.Username, u.Name, u.GivenName, u.FamilyName); weak != "" {
				return false, problem(http.StatusUnprocessableEntity, codeWeakPassword, "The password "+weaknesses[weak]+".",
					"Choose another one, such as four words that have nothing to do with each other; or let the user choose: "+
						"warifu set-password --link.")
			}
			if hash, err = a.hash(ctx, password); err != nil {
				return false, a.failed(ctx, "user "+u.ID, err)
			}
		}
		change := storage.FactorChange{Next: account.Factors.Clone(), Ends: "an operator set another password",
			Audit: []storage.AuditEntry{{Action: storage.AuditPasswordSet, Reason: "by an operator", User: u.ID,
				Detail: "user " + u.ID}}}
		if in.Body.Keep {
			change.Ends = ""
		}
		change.Next.Password = storage.Password{Hash: hash, At: time.Now().UTC()}
		out.UserID = u.ID
		_, _, err = a.Store.ChangeFactors(ctx, account, change)
		if errors.Is(err, storage.ErrConflict) {
			return true, nil
		}
		if err != nil {
			return false, a.failed(ctx, "user "+u.ID, err)
		}
		return false, nil
	})
	if err != nil {
		return nil, a.failed(ctx, "user "+in.User, err)
	}
	a.SessionsEnded()
	a.Logger.InfoContext(ctx, "password set", "user", out.UserID)
	a.Links.Tell(user, ToldPassword)
	return &reply[PasswordSet]{out}, nil
}

// changes is how often a change is decided anew because somebody else has changed the same.
const changes = 16

// hashing is for who hashes a password: one at a time, because each takes memory that sign-ins need.
var hashing = make(chan struct{}, 1)

func (a *operations) hash(ctx context.Context, password string) (string, error) {
	select {
	case hashing <- struct{}{}:
		defer func() { <-hashing }()
		return factor.HashPassword(password), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (a *operations) makeLink(ctx context.Context, in *madeLinkInput) (*reply[MadeLink], error) {
	valid := linkLife
	if in.Body.Valid != "" {
		var err error
		if valid, err = time.ParseDuration(in.Body.Valid); err != nil || valid < time.Minute || valid > mostLinkLife {
			return nil, problem(http.StatusUnprocessableEntity, codeInvalidRequest,
				"A link is valid for 1m to "+mostLinkLife.String()+", such as 15m or 72h.", "")
		}
	}
	account, err := a.account(ctx, in.User, "Links are for people whose accounts are kept here (warifu apply user).")
	if err != nil {
		return nil, err
	}
	if !account.User.Active() {
		return nil, problem(http.StatusConflict, codeUserDisabled, "The user "+account.User.ID+" is disabled.",
			"warifu enable user lets them in again.")
	}
	made := time.Now()
	link, err := a.Links.MakeLink(ctx, account, in.Body.For, valid)
	if err != nil {
		return nil, a.failed(ctx, "user "+account.User.ID, err)
	}
	out := MadeLink{UserID: account.User.ID, ExpiresAt: made.Add(valid).UTC().Truncate(time.Second)}
	if out.Mailed = in.Body.Mail && a.Links.SendLink(account.User, in.Body.For, link, valid); !out.Mailed {
		out.Link = link
	}
	a.Logger.InfoContext(ctx, "link made", "for", in.Body.For, "user", out.UserID, "mailed", out.Mailed)
	return &reply[MadeLink]{out}, nil
}

// newUserID is the id of an account for which nobody has chosen one.
func newUserID() string { return strings.ToLower(rand.Text()[:20]) }
