package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
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

type appFilter struct {
	App string `query:"app" maxLength:"63" doc:"Only those of this app."`
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
		OperationID: "list-grants", Method: http.MethodGet, Path: "/v1/grants", Summary: "List live grants",
		Tags: []string{"records"}, Errors: []int{404, 503},
	}, a.listGrants)
	huma.Register(api, huma.Operation{
		OperationID: "revoke-grant", Method: http.MethodDelete, Path: "/v1/grants/{id}",
		Summary: "Revoke a grant and everything issued from it",
		Tags:    []string{"records"}, Errors: []int{404, 503}, DefaultStatus: http.StatusOK,
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

func (a *operations) listClients(ctx context.Context, in *appFilter) (*reply[[]Client], error) {
	stored, err := a.Store.Clients(ctx)
	if err != nil {
		return nil, a.stored(ctx, "clients", err)
	}
	clients := make([]Client, 0, len(stored))
	for _, c := range stored {
		if in.App == "" || in.App == c.App {
			clients = append(clients, clientOf(c))
		}
	}
	return &reply[[]Client]{clients}, nil
}

// deleteClient removes a client that registered itself (RFC 7591). One of an app goes with the app.
func (a *operations) deleteClient(ctx context.Context, in *clientInput) (*reply[Client], error) {
	c, err := a.Store.Client(ctx, in.ID)
	if err == nil && c.App != "" {
		return nil, problem(http.StatusConflict, "client_of_an_app", "The client "+c.ID+" belongs to the app "+c.App+".",
			"Delete the app, or take spec.oauth out of its manifest and apply that.")
	}
	if err == nil {
		err = a.Store.UnregisterClient(ctx, c, storage.AuditEntry{
			Action: storage.AuditUnregistered, Detail: c.ID, Reason: "by an operator"})
	}
	if err != nil {
		return nil, a.stored(ctx, "client "+in.ID, err)
	}
	a.Logger.Info("client unregistered", "client", c.ID)
	return &reply[Client]{clientOf(c)}, nil
}

func (a *operations) listDeliveries(ctx context.Context, in *appFilter) (*reply[[]Delivery], error) {
	stored, err := a.Store.Deliveries(ctx)
	if err != nil {
		return nil, a.stored(ctx, "deliveries", err)
	}
	deliveries := make([]Delivery, 0, len(stored))
	for _, d := range stored {
		if in.App == "" || in.App == d.App {
			deliveries = append(deliveries, deliveryOf(d))
		}
	}
	return &reply[[]Delivery]{deliveries}, nil
}

func (a *operations) listGrants(ctx context.Context, in *appFilter) (*reply[[]Grant], error) {
	clientID := ""
	if in.App != "" {
		view, err := a.view(ctx, in.App)
		if err != nil {
			return nil, err
		}
		if view.Client == nil {
			return &reply[[]Grant]{[]Grant{}}, nil
		}
		clientID = view.Client.ID
	}
	stored, err := a.Store.Grants(ctx, clientID)
	if err != nil {
		return nil, a.stored(ctx, "grants", err)
	}
	users, err := a.Store.Users(ctx)
	if err != nil {
		return nil, a.stored(ctx, "users", err)
	}
	clients, err := a.Store.Clients(ctx)
	if err != nil {
		return nil, a.stored(ctx, "clients", err)
	}
	apps, names := make(map[string]string), make(map[string]string)
	for _, c := range clients {
		apps[c.ID] = c.App
	}
	for _, u := range users {
		names[u.ID] = cmp.Or(u.Email, u.Username, u.Name)
	}
	grants := make([]Grant, 0, len(stored))
	for _, g := range stored {
		grants = append(grants, Grant{
			ID: g.ID, App: apps[g.ClientID], ClientID: g.ClientID, UserID: g.UserID, User: names[g.UserID],
			Scopes: listed(g.Scopes), CreatedAt: g.CreatedAt, UsedAt: g.RotatedAt, ExpiresAt: g.ExpiresAt,
		})
	}
	slices.SortFunc(grants, func(x, y Grant) int {
		return cmp.Or(cmp.Compare(x.App, y.App), x.CreatedAt.Compare(y.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	return &reply[[]Grant]{grants}, nil
}

func (a *operations) revokeGrant(ctx context.Context, in *grantInput) (*reply[Revoked], error) {
	grant, err := a.Store.FindGrant(ctx, in.ID)
	if err != nil {
		return nil, a.stored(ctx, "live grant "+in.ID, err)
	}
	alive, err := a.Store.KillGrant(ctx, grant.ClientID, grant.ID,
		storage.AuditEntry{Action: storage.AuditGrantRevoked, Reason: "revoked by an operator"})
	if err == nil && !alive {
		err = storage.ErrNotFound // another operator was faster
	}
	if err != nil {
		return nil, a.stored(ctx, "live grant "+in.ID, err)
	}
	a.Logger.Info("grant revoked", "grant", grant.ID, "client", grant.ClientID, "user", grant.UserID)
	out := Revoked{Grant: grant.ID}
	if c, err := a.Store.Client(ctx, grant.ClientID); err == nil {
		out.App = c.App
	}
	return &reply[Revoked]{out}, nil
}
