package server

import (
	"context"
	"net/url"

	"github.com/warifu/warifu/storage"
)

// visit is the context of a request, with what is known of it while it is served: for its log lines, and for the one that may have to
// refuse it. It belongs to the goroutine that serves the request.
type visit struct {
	context.Context
	id       [1]string  // the request's id, as the header of the response has it; users can pass it on
	endpoint *endpoint  // where programs call; nil where browsers do
	client   string     // the client_id that was sent, known or not
	app      string     // of a client that is known and belongs to one
	params   url.Values // of the request
}

type visitKey struct{}

// Value makes a visit be found in the contexts that are made of it.
func (v *visit) Value(key any) any {
	if key == (visitKey{}) {
		return v
	}
	return v.Context.Value(key)
}

// visitOf is the visit that the middleware began, or an empty one outside a request.
func visitOf(ctx context.Context) *visit {
	if v, is := ctx.Value(visitKey{}).(*visit); is {
		return v
	}
	return &visit{}
}

// of notes whose request it is.
func (v *visit) of(c *storage.Client) { v.client, v.app = c.ID, c.App }
