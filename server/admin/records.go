package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// Delivery says how far the env of one target has come.
type Delivery struct {
	App         string    `json:"app"`
	Kind        string    `json:"kind" doc:"worker, container or service"`
	Name        string    `json:"name"`
	Runtime     string    `json:"runtime,omitempty" doc:"Left out if no runtime serves the target."`
	State       string    `json:"state" enum:"pending,rolling,ready,failed,degraded"`
	Removing    bool      `json:"removing,omitempty" doc:"The env is being taken away."`
	Leaving     bool      `json:"leaving,omitempty" doc:"The target moves to another runtime. Once that serves it, the env is taken away from this one."`
	Generation  int64     `json:"generation" doc:"The generation that is wanted."`
	Accepted    int64     `json:"accepted" doc:"The generation that the runtime has accepted."`
	Serving     int64     `json:"serving" doc:"The generation that every instance serves."`
	Instances   int       `json:"instances,omitempty"`
	Location    string    `json:"location,omitempty" doc:"Where the env is, such as the path of a file."`
	Attempts    int       `json:"attempts,omitempty"`
	Error       string    `json:"error,omitempty"`
	Remedy      string    `json:"remedy,omitempty"`
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	UpdatedAt   time.Time `json:"updatedAt"`
}

// Grant is what a user has allowed a client.
type Grant struct {
	ID        string    `json:"id"`
	App       string    `json:"app,omitempty"`
	ClientID  string    `json:"clientId"`
	UserID    string    `json:"userId"`
	User      string    `json:"user,omitempty" doc:"The user's e-mail address or name."`
	Scopes    []string  `json:"scopes" nullable:"false"`
	CreatedAt time.Time `json:"createdAt"`
	UsedAt    time.Time `json:"usedAt" doc:"When tokens were last issued for it."`
	ExpiresAt time.Time `json:"expiresAt"`
}

// AppFilter narrows a list to an app.
type AppFilter struct {
	App string `query:"app" maxLength:"63" doc:"Only those of this app."`
}

// AppPart is a part of a list that can be narrowed to an app.
type AppPart struct {
	AppFilter
	Part
}

type grantsInput struct {
	AppPart
	Client string `query:"client" maxLength:"256" doc:"Only those of the client with this id."`
	User   string `query:"user" maxLength:"256" doc:"Only those of this user: an id, an e-mail address or a user name."`
}

type clientInput struct {
	ID string `path:"id" maxLength:"256" doc:"Id of the client."`
}

type grantInput struct {
	ID string `path:"id" maxLength:"128" doc:"Id of the grant."`
}

// Revoked is the reply of revoking a grant.
type Revoked struct {
	Grant string `json:"grant"`
	App   string `json:"app,omitempty"`
}

func (a *operations) registerRecords(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-clients", Method: http.MethodGet, Path: "/v1/clients", Summary: "List OAuth clients",
		Description: "First those that are registered, then those that are described by documents and hold " +
			"grants or consents.",
		Tags: []string{"records"}, Errors: []int{503},
	}, a.listClients)
	huma.Register(api, huma.Operation{
		OperationID: "delete-client", Method: http.MethodDelete, Path: "/v1/clients/{id}",
		Summary: "Remove a client that registered itself, and its grants",
		Tags:    []string{"records"}, Errors: []int{404, 409, 503}, DefaultStatus: http.StatusOK,
	}, a.deleteClient)
	huma.Register(api, huma.Operation{
		OperationID: "list-deliveries", Method: http.MethodGet, Path: "/v1/deliveries",
		Summary: "List deliveries of env and their progress",
		Tags:    []string{"records"}, Errors: []int{503},
	}, a.listDeliveries)
	huma.Register(api, huma.Operation{
		OperationID: "list-grants", Method: http.MethodGet, Path: "/v1/grants", Summary: "List live grants, by client and id",
		Tags: []string{"records"}, Errors: []int{404, 409, 503},
	}, a.listGrants)
	huma.Register(api, huma.Operation{
		OperationID: "revoke-grant", Method: http.MethodDelete, Path: "/v1/grants/{id}",
		Summary:     "Revoke a grant and everything issued from it",
		Description: "The consent on which it rests is withdrawn: the user is asked before the client gets another.",
		Tags:        []string{"records"}, Errors: []int{404, 503}, DefaultStatus: http.StatusOK,
	}, a.revokeGrant)
}

func deliveryOf(d *storage.Delivery) Delivery {
	return Delivery{
		App: d.App, Kind: d.Target.Kind, Name: d.Target.Name, Runtime: d.Runtime, State: d.State,
		Removing: d.Remove, Leaving: d.Leaving,
		Generation: d.Generation, Accepted: d.Accepted, Serving: d.Serving, Instances: d.Instances, Location: d.Location,
		Attempts: d.Attempts, Error: d.Error, Remedy: d.Remedy, NextAttempt: d.NextAttempt, UpdatedAt: d.UpdatedAt,
	}
}

// listed makes an empty list [] in JSON.
func listed(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (a *operations) listClients(ctx context.Context, in *AppPart) (*items[Client], error) {
	var stored []*storage.Client
	var next string
	var err error
	switch {
	case strings.HasPrefix(in.After, behindRegistered):
	case in.App == "":
		stored, next, err = a.Store.ClientsPart(ctx, in.stored())
	default:
		var view storage.AppView
		if view, err = a.Store.App(ctx, in.App); view.Client != nil {
			stored = []*storage.Client{view.Client}
		}
	}
	if err != nil {
		return nil, a.failed(ctx, "clients", err)
	}
	clients := make([]Client, 0, len(stored))
	for _, c := range stored {
		clients = append(clients, clientOf(c))
	}
	if in.App == "" && next == "" {
		_, after, _ := strings.Cut(in.After, behindRegistered)
		described, more, err := a.describedClients(ctx, storage.Part{After: after, Limit: in.Limit - len(clients)})
		if err != nil {
			return nil, err
		}
		clients, next = append(clients, described...), more
	}
	return &items[Client]{in.link(next), clients}, nil
}

// behindRegistered begins the cursors of clients that are described by documents, which a list has behind all others.
// The cursor of a registered one has no slash.
const behindRegistered = "described/"

// describedClients is a part of those.
func (a *operations) describedClients(ctx context.Context, p storage.Part) (clients []Client, next string, err error) {
	if p.Limit == 0 {
		return nil, behindRegistered, nil // with the next part
	}
	stored, next, err := a.Store.DescribedClients(ctx, p)
	if err != nil {
		return nil, "", a.failed(ctx, "clients", err)
	}
	for _, c := range stored {
		clients = append(clients, describedClient(c))
	}
	if next != "" {
		next = behindRegistered + next
	}
	return clients, next, nil
}

// deleteClient removes a client that registered itself (RFC 7591). One of an app goes with the app.
func (a *operations) deleteClient(ctx context.Context, in *clientInput) (*reply[Client], error) {
	c, err := a.Store.Client(ctx, in.ID)
	if err == nil && c.App != "" {
		return nil, problem(http.StatusConflict, codeClientOfAnApp, "The client "+c.ID+" belongs to the app "+c.App+".",
			"Delete the app, or take spec.oauth out of its manifest and apply that.")
	}
	grants := 0
	if err == nil {
		grants, err = a.Store.CountGrants(ctx, c.ID)
	}
	if err == nil {
		err = a.Store.UnregisterClient(ctx, c, storage.AuditEntry{
			Action: storage.AuditUnregistered, Detail: fmt.Sprintf("%s: grants that end: %d", c.ID, grants),
			Reason: "by an operator"})
	}
	if err != nil {
		return nil, a.failed(ctx, "client "+in.ID, err)
	}
	a.Logger.Info("client unregistered", "client", c.ID, "grants", grants)
	return &reply[Client]{clientOf(c)}, nil
}

func (a *operations) listDeliveries(ctx context.Context, in *AppPart) (*items[Delivery], error) {
	stored, next, err := a.Store.DeliveriesPart(ctx, in.App, in.stored())
	if err != nil {
		return nil, a.failed(ctx, "deliveries", err)
	}
	deliveries := make([]Delivery, 0, len(stored))
	for _, d := range stored {
		deliveries = append(deliveries, deliveryOf(d))
	}
	return &items[Delivery]{in.link(next), deliveries}, nil
}

func (a *operations) listGrants(ctx context.Context, in *grantsInput) (*items[Grant], error) {
	query := storage.GrantQuery{ClientID: in.Client, After: in.After, Limit: in.Limit}
	if in.App != "" {
		view, err := a.view(ctx, in.App)
		if err != nil {
			return nil, err
		}
		if view.Client == nil || in.Client != "" && in.Client != view.Client.ID {
			return &items[Grant]{Body: []Grant{}}, nil
		}
		query.ClientID = view.Client.ID
	}
	if in.User != "" {
		user, err := a.user(ctx, in.User)
		if err != nil {
			return nil, err
		}
		query.UserID = user.ID
	}
	stored, next, err := a.Store.Grants(ctx, query)
	if err != nil {
		return nil, a.failed(ctx, "grants", err)
	}
	var ids []string
	for _, g := range stored {
		ids = append(ids, g.UserID)
	}
	users, err := a.Store.UsersOf(ctx, ids)
	if err != nil {
		return nil, a.failed(ctx, "users", err)
	}
	grants := make([]Grant, 0, len(stored))
	for _, g := range stored {
		name := ""
		if u := users[g.UserID]; u != nil {
			name = cmp.Or(u.Email, u.Username, u.Name)
		}
		grants = append(grants, Grant{
			ID: g.ID, App: a.Store.AppOf(g.ClientID), ClientID: g.ClientID, UserID: g.UserID, User: name,
			Scopes: listed(g.Scopes), CreatedAt: g.CreatedAt, UsedAt: g.RotatedAt, ExpiresAt: g.ExpiresAt,
		})
	}
	return &items[Grant]{in.link(next), grants}, nil
}

func (a *operations) revokeGrant(ctx context.Context, in *grantInput) (*reply[Revoked], error) {
	grant, err := a.Store.FindGrant(ctx, in.ID)
	if err != nil {
		return nil, a.failed(ctx, "live grant "+in.ID, err)
	}
	alive, err := a.Store.RevokeGrant(ctx, *grant,
		storage.AuditEntry{Action: storage.AuditGrantRevoked, Reason: byOperator})
	if err == nil && !alive {
		err = storage.ErrNotFound // another operator was faster
	}
	if err != nil {
		return nil, a.failed(ctx, "live grant "+in.ID, err)
	}
	a.Logger.Info("grant revoked", "grant", grant.ID, "client", grant.ClientID, "user", grant.UserID)
	return &reply[Revoked]{Revoked{Grant: grant.ID, App: a.Store.AppOf(grant.ClientID)}}, nil
}
