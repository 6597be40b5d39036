package admin

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// What an operator ends beside a grant: sign-ins of browsers, consents, and everything of a user.

// byOperator is why something ended, in the audit log.
const byOperator = "revoked by an operator"

// Session is a browser in which a user is signed in.
type Session struct {
	SID       string    `json:"sid" doc:"Names the session. It opens nothing."`
	UserID    string    `json:"userId"`
	User      string    `json:"user,omitempty" doc:"The user's e-mail address or name."`
	Since     time.Time `json:"since" doc:"When the user got it. Of a session that an older version began: when the user last signed in there."`
	AuthTime  time.Time `json:"authTime" doc:"When the user last signed in there."`
	ExpiresAt time.Time `json:"expiresAt"`
	Methods   []string  `json:"methods" nullable:"false" doc:"How the user proved who they are (amr)."`
	Address   string    `json:"address,omitempty" doc:"The IP address from which the user last signed in there."`
	Agent     string    `json:"agent,omitempty" doc:"What the browser calls itself (User-Agent)."`
	Clients   []string  `json:"clients" nullable:"false" doc:"Ids of the clients that got grants with openid from it."`
}

// Ended is the reply of ending something: what ended.
type Ended struct {
	Client   string `json:"clientId,omitempty"`
	UserID   string `json:"userId"`
	Sessions int    `json:"sessions" doc:"How many sessions ended."`
	Grants   int    `json:"grants" doc:"How many grants ended, beside those that end with a session."`
	Consents int    `json:"consents" doc:"How many consents were withdrawn."`
}

type sessionsInput struct {
	Part
	User    string `query:"user" maxLength:"256" doc:"Only those of this user: an id, an e-mail address or a user name."`
	Address string `query:"address" maxLength:"64" doc:"Only those from this IP address or network, such as 192.0.2.7 or 192.0.2.0/24."`
}

type sessionInput struct {
	SID string `path:"sid" maxLength:"64" doc:"The session's name."`
}

type userInput struct {
	User string `path:"user" maxLength:"256" doc:"The user's id, e-mail address or user name."`
}

type consentInput struct {
	Client string `path:"id" maxLength:"2048" doc:"Id of the client, or name of its app."`
	User   string `path:"user" maxLength:"256" doc:"The user's id, e-mail address or user name."`
}

func (a *operations) registerEnds(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: "/v1/sessions",
		Summary: "List browsers in which users are signed in",
		Tags:    []string{"records"}, Errors: []int{404, 409, 503},
	}, a.listSessions)
	huma.Register(api, huma.Operation{
		OperationID: "revoke-session", Method: http.MethodDelete, Path: "/v1/sessions/{sid}",
		Summary:     "End a session, with the grants that end when its user signs out",
		Description: "Clients that want to know are told, as when the user signs out.",
		Tags:        []string{"records"}, Errors: []int{404, 503}, DefaultStatus: http.StatusOK,
	}, a.revokeSession)
	huma.Register(api, huma.Operation{
		OperationID: "revoke-sessions", Method: http.MethodDelete, Path: "/v1/users/{user}/sessions",
		Summary: "End all sessions of a user",
		Tags:    []string{"records"}, Errors: []int{404, 409, 503}, DefaultStatus: http.StatusOK,
	}, a.revokeSessions)
	huma.Register(api, huma.Operation{
		OperationID: "revoke-user", Method: http.MethodPost, Path: "/v1/users/{user}/revoke",
		Summary: "End everything that was begun for a user",
		Description: "Sessions, grants, consents, and codes and device approvals that are on their way end at once. " +
			"The user may sign in again, and is asked again.",
		Tags: []string{"records"}, Errors: []int{404, 409, 503},
	}, a.revokeUser)
	huma.Register(api, huma.Operation{
		OperationID: "revoke-consent", Method: http.MethodDelete, Path: "/v1/clients/{id}/consents/{user}",
		Summary:     "Withdraw what a user allowed a client",
		Description: "The grants that it led to end. The user is asked before the client gets another.",
		Tags:        []string{"records"}, Errors: []int{404, 409, 503}, DefaultStatus: http.StatusOK,
	}, a.revokeConsent)
}

// user finds a user by id, or by what they sign in with.
func (a *operations) user(ctx context.Context, name string) (*storage.User, error) {
	u, err := a.Store.FindUser(ctx, name)
	if errors.Is(err, storage.ErrAmbiguous) {
		return nil, problem(http.StatusConflict, codeAmbiguousUser,
			"Several users have the e-mail address or name "+name+".",
			"Name the user by id: warifu get users shows it.")
	}
	if err != nil {
		return nil, a.failed(ctx, "user "+name, err)
	}
	return u, nil
}

func (a *operations) listSessions(ctx context.Context, in *sessionsInput) (*items[Session], error) {
	userID := ""
	if in.User != "" {
		u, err := a.user(ctx, in.User)
		if err != nil {
			return nil, err
		}
		userID = u.ID
	}
	from, wrong := networkOf(in.Address)
	if wrong != nil {
		return nil, wrong
	}
	stored, next, err := a.Store.Sessions(ctx, userID, in.stored())
	if err != nil {
		return nil, a.failed(ctx, "sessions", err)
	}
	sessions := make([]Session, 0, len(stored))
	for _, v := range stored {
		if at, err := netip.ParseAddr(v.Address); from.IsValid() && (err != nil || !from.Contains(at)) {
			continue
		}
		since := v.Since
		if since.IsZero() {
			since = v.AuthTime
		}
		sessions = append(sessions, Session{
			SID: v.SID, UserID: v.UserID, User: cmp.Or(v.User.Email, v.User.Username, v.User.Name), Since: since,
			AuthTime: v.AuthTime, ExpiresAt: v.ExpiresAt, Methods: listed(v.AMR), Address: v.Address, Agent: v.Agent,
			Clients: listed(v.Clients)})
	}
	return &items[Session]{in.link(next), sessions}, nil
}

// networkOf reads an address or a network; the zero value is any.
func networkOf(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if at, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(at.Unmap(), at.Unmap().BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, problem(http.StatusUnprocessableEntity, codeInvalidRequest,
			"The address must be an IP address or a network, such as 192.0.2.7 or 192.0.2.0/24.", "")
	}
	return network, nil
}

func (a *operations) revokeSession(ctx context.Context, in *sessionInput) (*reply[Ended], error) {
	ended, err := a.Store.RevokeSession(ctx, in.SID, storage.AuditEntry{Reason: byOperator})
	if err != nil {
		return nil, a.failed(ctx, "session "+in.SID, err)
	}
	a.SessionsEnded()
	a.Logger.InfoContext(ctx, "session revoked", "session", ended.SID, "user", ended.UserID)
	return &reply[Ended]{Ended{UserID: ended.UserID, Sessions: 1}}, nil
}

func (a *operations) revokeSessions(ctx context.Context, in *userInput) (*reply[Ended], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	out := Ended{UserID: u.ID}
	out.Sessions, err = a.Store.RevokeSessions(ctx, u.ID, storage.AuditEntry{Reason: byOperator})
	if out.Sessions > 0 {
		a.SessionsEnded()
		a.Logger.InfoContext(ctx, "sessions revoked", "user", u.ID, "sessions", out.Sessions)
	}
	if err != nil {
		return nil, a.failed(ctx, "sessions of user "+u.ID, err)
	}
	return &reply[Ended]{out}, nil
}

func (a *operations) revokeUser(ctx context.Context, in *userInput) (*reply[Ended], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	ended, err := a.Store.EndUser(ctx, u.ID, storage.AuditEntry{Reason: byOperator})
	if err != nil {
		return nil, a.failed(ctx, "user "+u.ID, err)
	}
	a.SessionsEnded()
	a.Logger.InfoContext(ctx, "user revoked", "user", u.ID, "ended", ended.String())
	return &reply[Ended]{endedOf(u.ID, ended)}, nil
}

func (a *operations) revokeConsent(ctx context.Context, in *consentInput) (*reply[Ended], error) {
	u, err := a.user(ctx, in.User)
	if err != nil {
		return nil, err
	}
	clientID := in.Client
	view, err := a.Store.App(ctx, in.Client)
	if err != nil {
		return nil, a.failed(ctx, "app "+in.Client, err)
	}
	if view.Client != nil {
		clientID = view.Client.ID
	}
	ended, err := a.Store.RevokeConsent(ctx, clientID, u.ID, storage.AuditEntry{Reason: byOperator})
	if err != nil {
		return nil, a.failed(ctx, "consent of "+u.ID+" to "+clientID, err)
	}
	a.Logger.InfoContext(ctx, "consent revoked", "client", clientID, "user", u.ID, "grants", ended.Grants)
	return &reply[Ended]{Ended{Client: clientID, UserID: u.ID, Grants: ended.Grants, Consents: ended.Consents}}, nil
}
