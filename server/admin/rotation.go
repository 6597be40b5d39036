package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// Rotations is what the admin API asks about client secrets and deliveries. Errors are as with [Apps].
type Rotations interface {
	// Rotate gives the app's client a new secret. The one before stays valid until the new one is served by every
	// target and was used, and for as long as grace after that; or it ends at once, when it is compromised.
	Rotate(ctx context.Context, app string, how RotateOptions) (Rotated, error)
	// Secrets lists the valid secrets of an app, or of all when app is empty, oldest first.
	Secrets(ctx context.Context, app string) ([]Secret, error)
	// Retry has every delivery of the app tried again now.
	Retry(ctx context.Context, app string) error
}

// RotateOptions say how a secret is replaced.
type RotateOptions struct {
	Grace       time.Duration
	Compromised bool
	Secret      string // the new one, from elsewhere; empty: one is made
	Imported    bool   // the app has it already
}

// Secret is a client secret without its value.
type Secret struct {
	App        string    `json:"app"`
	ClientID   string    `json:"clientId"`
	ID         string    `json:"id" doc:"Names the secret; it is not part of its value."`
	State      string    `json:"state" enum:"current,next,retiring" doc:"next: valid and being delivered. retiring: valid until retiresAt, its successor is in use."`
	CreatedAt  time.Time `json:"createdAt"`
	ServedAt   time.Time `json:"servedAt,omitzero" doc:"When every target was found to serve it. Only for a secret that a rotation made."`
	UsedAt     time.Time `json:"usedAt,omitzero" doc:"When a client first authenticated with it."`
	LastUsedAt time.Time `json:"lastUsedAt,omitzero" doc:"When a client last authenticated with it, to within about ten minutes."`
	RetiresAt  time.Time `json:"retiresAt,omitzero" doc:"When its grace ends. It stays valid while a target is not ready."`
	Waiting    string    `json:"waiting,omitempty" doc:"Why a secret that is to be replaced is still valid."`
}

// Rotated is the reply of a rotation that has begun.
type Rotated struct {
	App          string   `json:"app"`
	ClientID     string   `json:"clientId"`
	Secret       string   `json:"secret" doc:"Id of the new secret."`
	Previous     string   `json:"previous" doc:"Id of the previous secret."`
	Compromised  bool     `json:"compromised" doc:"Whether the previous secret has ended already."`
	Grace        int64    `json:"grace" doc:"Seconds that the previous secret stays valid after every target serves the new one and it has been used."`
	Targets      []string `json:"targets" nullable:"false" doc:"The targets that are given the new secret, such as worker/web."`
	Consequences []string `json:"consequences" nullable:"false" doc:"What follows for those who run and use the app."`
}

// Retried is the reply of trying deliveries again.
type Retried struct {
	App        string     `json:"app"`
	Deliveries []Delivery `json:"deliveries" nullable:"false"`
}

// DefaultGrace is how long the previous secret stays valid by default.
const DefaultGrace = 24 * time.Hour

type rotateInput struct {
	Name string `path:"name" maxLength:"63" doc:"Name of the app."`
	Body struct {
		Grace       *int64 `json:"grace,omitempty" minimum:"0" maximum:"31536000" doc:"Seconds that the old secret stays valid after every target serves the new one and it has been used. By default a day."`
		Compromised bool   `json:"compromised,omitempty" doc:"End the old secret now, whoever still holds it."`
		Secret      string `json:"secret,omitempty" doc:"The new secret, where it is not to be made: visible ASCII, of 256 bits or more."`
		Imported    bool   `json:"imported,omitempty" doc:"The app has that secret already, so it may be weaker, from 16 characters."`
	}
}

func (a *operations) registerRotations(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "rotate-secret", Method: http.MethodPost, Path: "/v1/apps/{name}/rotate",
		Summary: "Replace the secret of an app's client",
		Description: "The new secret is valid at once and delivered to the app's targets. Both work until the " +
			"old one retires.",
		Tags: []string{"apps"}, Errors: []int{400, 404, 409, 422, 503},
	}, a.rotate)
	huma.Register(api, huma.Operation{
		OperationID: "retry-deliveries", Method: http.MethodPost, Path: "/v1/apps/{name}/retry",
		Summary:     "Try all deliveries of an app again now",
		Description: "Those that are ready are observed, and repaired if necessary.",
		Tags:        []string{"apps"}, Errors: []int{404, 503},
	}, a.retry)
	huma.Register(api, huma.Operation{
		OperationID: "list-secrets", Method: http.MethodGet, Path: "/v1/secrets",
		Summary: "List client secrets with their age, state and last use, never their values",
		Tags:    []string{"records"}, Errors: []int{404, 503},
	}, a.listSecrets)
}

func (a *operations) rotate(ctx context.Context, in *rotateInput) (*reply[Rotated], error) {
	if _, err := a.view(ctx, in.Name); err != nil {
		return nil, err
	}
	grace := DefaultGrace
	if in.Body.Grace != nil {
		grace = time.Duration(*in.Body.Grace) * time.Second
	}
	rotated, err := a.Rotations.Rotate(ctx, in.Name, RotateOptions{
		Grace: grace, Compromised: in.Body.Compromised, Secret: in.Body.Secret, Imported: in.Body.Imported})
	if errors.Is(err, storage.ErrFull) {
		a.logFault(ctx, "admin API", "app "+in.Name, err)
		return nil, problem(http.StatusServiceUnavailable, codeStorageFull,
			"The server's storage is full: the secrets of "+in.Name+" are as they were.",
			"Make room (/readyz says how), and try again. To end a secret before that, end the client with all its grants: "+
				"warifu delete app "+in.Name+". Applied again when there is room, the app gets the same client id and "+
				"another secret.")
	}
	if err != nil {
		return nil, a.failed(ctx, "app "+in.Name, err)
	}
	return &reply[Rotated]{rotated}, nil
}

func (a *operations) retry(ctx context.Context, in *appInput) (*reply[Retried], error) {
	if _, err := a.view(ctx, in.Name); err != nil {
		return nil, err
	}
	if err := a.Rotations.Retry(ctx, in.Name); err != nil {
		return nil, a.failed(ctx, "app "+in.Name, err)
	}
	view, err := a.view(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	out := Retried{App: in.Name, Deliveries: []Delivery{}}
	for _, d := range view.Deliveries {
		out.Deliveries = append(out.Deliveries, deliveryOf(d))
	}
	return &reply[Retried]{out}, nil
}

func (a *operations) listSecrets(ctx context.Context, in *AppFilter) (*reply[[]Secret], error) {
	if in.App != "" {
		if _, err := a.view(ctx, in.App); err != nil {
			return nil, err
		}
	}
	secrets, err := a.Rotations.Secrets(ctx, in.App)
	if err != nil {
		return nil, a.failed(ctx, "secrets", err)
	}
	if secrets == nil {
		secrets = []Secret{}
	}
	return &reply[[]Secret]{secrets}, nil
}

// Rotating is the problem of a rotation while another one is under way; waiting says what for.
func Rotating(waiting string) *Problem {
	return problem(http.StatusConflict, codeRotating,
		"A rotation is under way already, and a client has at most two valid secrets. It is "+waiting+".",
		"Wait for it (warifu get secrets), or end both secrets at once with --compromised.")
}

// NoSecret is the problem of an app whose client has no secret, or that has no client; detail says which.
func NoSecret(detail string) *Problem {
	return problem(http.StatusConflict, codeNoSecret, detail+".", "")
}

// UnusableSecret is the problem of a client secret from elsewhere; detail says what is wrong with it, and not what it
// is.
func UnusableSecret(detail string) *Problem {
	return problem(http.StatusUnprocessableEntity, codeClientSecret, strings.ToUpper(detail[:1])+detail[1:]+".", "")
}

// SealedEnv is the problem of env that cannot be opened.
func SealedEnv(detail string) *Problem {
	return problem(http.StatusConflict, codeSealedEnv, detail+".", "")
}
