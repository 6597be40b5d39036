package server

import (
	"context"
	"net/netip"
	"net/url"
	"time"

	"github.com/warifu/warifu/server/metrics"
	"github.com/warifu/warifu/server/traces"
	"github.com/warifu/warifu/storage"
)

// visit is the context of a request, with what is known of it while it is served: for its log lines, and for the one
// that may have to refuse it. It belongs to the goroutine that serves the request.
type visit struct {
	context.Context
	from     netip.Addr      // where the request came from
	id       [1]string       // the request's id, as the header of the response has it; users can pass it on
	endpoint *endpoint       // where programs call; nil where browsers do
	client   string          // the client_id that was sent, known or not
	known    *storage.Client // whose request it is, once that is known
	params   url.Values      // of the request
	route    *metrics.Route  // where it is counted; nil without metrics
	at       string          // the name of the route; "" for none
	rule     string          // by which it was refused, or a form is shown again
	failed   bool            // it met a fault
	begun    time.Time
	span     *traces.Span // nil: it is not traced
	reply    reply
}

type visitKey struct{}

// Value makes a visit be found in the contexts that are made of it, and the store the address.
func (v *visit) Value(key any) any {
	switch key {
	case visitKey{}:
		return v
	case storage.AddressKey{}:
		return shownAddress(v.from)
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

// noteClient notes whose request it is.
func (v *visit) noteClient(c *storage.Client) { v.client, v.known = c.ID, c }

// app is that of the client, when it is known and belongs to one.
func (v *visit) app() string {
	if v.known == nil {
		return ""
	}
	return v.known.App
}
